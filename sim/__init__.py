"""MuJoCo robots and the shifts that befall them."""

from .registry import check_regimes, make, robot_names, sources
from .shifts import Shift, shift_from_dict

__all__ = ['Shift', 'check_regimes', 'make', 'robot_names', 'shift_from_dict', 'sources']
