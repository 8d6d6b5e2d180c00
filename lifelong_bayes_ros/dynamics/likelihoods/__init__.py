"""Likelihoods of what a linear head f = H θ predicts, and the head that learns from them."""

from .base import Likelihood, Predictive
from .bernoulli import Bernoulli
from .categorical import Categorical
from .discrete import Discrete
from .glm import Glm, Site
from .heteroscedastic import HeteroscedasticGaussian
from .homoscedastic import KnownNoise, LearnedNoise

__all__ = [
    'Bernoulli',
    'Categorical',
    'Discrete',
    'Glm',
    'HeteroscedasticGaussian',
    'KnownNoise',
    'LearnedNoise',
    'Likelihood',
    'Predictive',
    'Site',
]
