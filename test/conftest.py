"""Every test runs on one thread, on this machine only, and draws the same examples every time."""

import os

# Read once, when numpy and torch load their linear algebra: so before any import of theirs.
os.environ.update(OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1', MKL_NUM_THREADS='1')

import pytest
import torch
from hypothesis import settings

from lifelong_bayes_ros.nodes.this_machine import this_machine

os.environ.update(this_machine())
torch.set_num_threads(1)
settings.register_profile('house', derandomize=True, deadline=None)
settings.load_profile('house')


@pytest.fixture(scope='session')
def tiny_prior():
    """A prior of the quadrotor, pre-trained in two seconds."""
    import plants

    return plants.tiny_prior()
