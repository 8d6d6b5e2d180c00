"""The Bayesian learning rule (Khan & Rue 2023): posteriors and their updates.

Needs torch only; usable without a robot.
"""

from .gaussian import Gaussian, ImproperPosteriorError, Innovation
from .optimizer import BLR

__all__ = ['BLR', 'Gaussian', 'ImproperPosteriorError', 'Innovation']
