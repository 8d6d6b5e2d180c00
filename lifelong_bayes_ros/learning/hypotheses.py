"""The hypotheses of `dynamics.hypotheses`, fitted on simulated plants."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from ..dynamics.model import DELAYS, Dynamics, Hypotheses
from .pretrain import Plant, PretrainConfig, Progress, gram


def fit_hypotheses(
    plant: Plant,
    dynamics: Dynamics,
    noise: np.ndarray,
    config: PretrainConfig,
    rng: np.random.Generator,
    progress: Progress,
) -> Hypotheses:
    """One hypothesis for every small set of things that may change together.

    All plants take the same steps, so what a change does not touch differs by exactly nothing.

    Args:
        plant: the simulator; left with no shifts.
        dynamics: trunk and nominal head.
        noise: variance of each output [ds], the measure of what matters.
        config: how many hypotheses, plants and steps.
        rng: of plants and steps.
        progress: called with shares from 0 to 1.
    """
    plant.set_shifts([])
    x, u = (f(rng, config.per_hypothesis) for f in (plant.sample_states, plant.sample_actions))
    past = np.repeat(u[:, None], DELAYS, axis=1)
    phi = dynamics.trunk.features(x, u)
    fit = np.linalg.solve(gram(phi, 1.0), phi.T)  # [nf, steps]
    home = plant.one_step(x, u, past)

    kinds = [shift.label for shift in plant.candidates(rng)]
    sets = _sets(len(kinds), config.hypotheses)
    bases = [np.zeros((dynamics.size, 0))]
    for done, chosen in enumerate(sets[1:], start=1):
        heads = []
        for _ in range(config.per_set):
            candidates = plant.candidates(rng)
            plant.set_shifts([candidates[i] for i in chosen])
            moved = dynamics.spec.wrap(plant.one_step(x, u, past) - home) / dynamics.scale
            heads.append((fit @ moved).T)
        bases.append(_basis(np.array(heads), noise, config.rank, dynamics.size))
        progress(done / len(sets), 'fitting what may change')
    plant.set_shifts([])
    changed = np.zeros((len(sets), len(kinds)), bool)
    for row, chosen in zip(changed, sets, strict=True):
        row[list(chosen)] = True
    for name, first, sd, count in _structured(dynamics, config):
        kinds.append(name)
        changed = np.pad(changed, ((0, 1), (0, 1)))
        changed[-1, -1] = True
        columns = np.zeros((dynamics.size, count))
        columns[first + np.arange(count), np.arange(count)] = sd
        bases.append(columns)
    rank = max(b.shape[1] for b in bases)
    padded = [np.pad(b, ((0, 0), (0, rank - b.shape[1]))) for b in bases]
    return Hypotheses(tuple(kinds), changed, np.array(padded, np.float32))


def _sets(kinds: int, most: int) -> list[tuple[int, ...]]:
    """All sets of up to as many of the kinds as give at most `most` sets, the empty one first."""
    found: list[tuple[int, ...]] = [()]
    for size in range(1, kinds + 1):
        more = list(combinations(range(kinds), size))
        if size > 1 and len(found) + len(more) > most:
            break
        found += more
    return found


def _basis(heads: np.ndarray, noise: np.ndarray, rank: int, size: int) -> np.ndarray:
    """Columns B [n, r] of the heads [plants, ds, nf]: principal axes in units of the noise."""
    count, ds, nf = heads.shape
    unit = np.repeat(np.sqrt(noise), nf)
    _, sd, axes = np.linalg.svd(heads.reshape(count, -1) / unit, full_matrices=False)
    sd = sd / np.sqrt(count)
    kept = min(rank, int(np.sum(sd > 0.03)) or 1)
    basis = np.zeros((size, kept))
    basis[: ds * nf] = (axes[:kept] * sd[:kept, None] * unit).T
    return basis


def _structured(dynamics: Dynamics, config: PretrainConfig) -> list[tuple[str, int, float, int]]:
    """What the structured columns of the model express beside: name, first column, sd, number."""
    da = len(dynamics.spec.action)
    first = dynamics.nominal.size
    return [
        ('command bias', first + da, config.bias_sd, da),
        ('command delay', first + 2 * da, config.delay_sd, DELAYS),
    ]
