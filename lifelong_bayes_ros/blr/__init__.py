"""The Bayesian learning rule (Khan & Rue 2023): posteriors and their updates.

Needs torch only; usable without a robot.
"""

from .diagonal import DiagonalGaussian
from .gaussian import Gaussian, Innovation
from .low_rank import LowRankGaussian
from .mixture import Mixture
from .optimizer import BLR
from .posterior import ExponentialFamily, ImproperPosteriorError, Posterior
from .regression import NormalInverseGamma

__all__ = [
    'BLR',
    'DiagonalGaussian',
    'ExponentialFamily',
    'Gaussian',
    'ImproperPosteriorError',
    'Innovation',
    'LowRankGaussian',
    'Mixture',
    'NormalInverseGamma',
    'Posterior',
]
