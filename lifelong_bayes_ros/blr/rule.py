"""The optimizers of the talk as settings of one rule; optimizer.py has the equations."""

from __future__ import annotations

from dataclasses import dataclass, field

from .curvature import Curvature, PerExample, Reparameterised, SquaredGradient


@dataclass(frozen=True)
class Rule:
    """What distinguishes one member of the family from another.

    Attributes:
        curvature: the estimator of f.
        root: the mean step divides by √h + δ, as in Adam, and not by h + δ.
        positive: add ρ² (f − h)² / (2 (h + δ)), which keeps the precision positive whatever f.
            Needed unless f is never negative.
        rescale: the learning rate is that of gradient descent: α = lr (h₀ + δ).
    """

    curvature: Curvature = field(default_factory=Reparameterised)
    root: bool = False
    positive: bool = True
    rescale: bool = False


#: Khan et al. 2018, algorithm 1; h starts at `init_curvature` and not at 0.
VADAM = Rule(SquaredGradient(), root=True, positive=False)
#: Khan et al. 2018, Osawa et al. 2019. GaussNewton() fits in the same place.
VOGN = Rule(PerExample(), positive=False)
#: iBLR with a diagonal precision (Lin et al. 2020), called SOBA in the talk.
SOBA = Rule()
#: Shen et al. 2024.
IVON = Rule(rescale=True)
