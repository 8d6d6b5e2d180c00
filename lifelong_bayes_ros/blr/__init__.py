"""The Bayesian learning rule (Khan & Rue 2023): posteriors and their updates.

Needs torch only; usable without a robot.
"""

from . import kernel
from .curvature import Curvature, GaussNewton, PerExample, Reparameterised, SquaredGradient
from .diagonal import DiagonalGaussian
from .draw import Draw
from .gaussian import Gaussian, Innovation
from .low_rank import LowRankGaussian
from .mixture import Mixture
from .natural_step import elbo, natural_step
from .optimizer import BLR
from .posterior import ExponentialFamily, ImproperPosteriorError, Posterior
from .regression import NormalInverseGamma
from .rule import IVON, SOBA, VADAM, VOGN, Rule
from .schedule import RhoOf

__all__ = [
    'BLR',
    'IVON',
    'SOBA',
    'VADAM',
    'VOGN',
    'Curvature',
    'DiagonalGaussian',
    'Draw',
    'ExponentialFamily',
    'GaussNewton',
    'Gaussian',
    'ImproperPosteriorError',
    'Innovation',
    'LowRankGaussian',
    'Mixture',
    'NormalInverseGamma',
    'PerExample',
    'Posterior',
    'Reparameterised',
    'RhoOf',
    'Rule',
    'SquaredGradient',
    'elbo',
    'kernel',
    'natural_step',
]
