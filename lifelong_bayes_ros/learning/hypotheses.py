"""The hypotheses of `dynamics.hypotheses`, fitted on simulated plants."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from ..dynamics.curves import LEADS, Curves, monomials
from ..dynamics.model import DELAYS, Dynamics, Hypotheses
from .pretrain import Plant, PretrainConfig, Progress, gram

SMALL = 0.03  # of a deviation of the noise: what is not worth a column or a latent
MARGIN = 0.25  # of the range of the plants, by which a latent may leave it


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
    curves = [Curves.flat(1, 0)]
    for done, chosen in enumerate(sets[1:], start=1):
        heads = []
        for _ in range(config.per_set):
            candidates = plant.candidates(rng)
            plant.set_shifts([candidates[i] for i in chosen])
            moved = dynamics.spec.wrap(plant.one_step(x, u, past) - home) / dynamics.scale
            heads.append((fit @ moved).T)
        basis, curve = _family(np.array(heads), noise, config.rank, dynamics.size)
        bases.append(basis)
        curves.append(curve)
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
        curves.append(Curves.flat(1, count))
    rank = max(b.shape[1] for b in bases)
    padded = [np.pad(b, ((0, 0), (0, rank - b.shape[1]))) for b in bases]
    return Hypotheses(tuple(kinds), changed, np.array(padded, np.float32), _stack(curves))


def _sets(kinds: int, most: int) -> list[tuple[int, ...]]:
    """All sets of up to as many of the kinds as give at most `most` sets, the empty one first."""
    found: list[tuple[int, ...]] = [()]
    for size in range(1, kinds + 1):
        more = list(combinations(range(kinds), size))
        if size > 1 and len(found) + len(more) > most:
            break
        found += more
    return found


def _family(
    heads: np.ndarray, noise: np.ndarray, rank: int, size: int
) -> tuple[np.ndarray, Curves]:
    """The plants of a set, from the moves of their heads [plants, ds, nf].

    Returns:
        Columns B [n, r]: principal axes in units of the noise; and the curve that the plants lie
        on, as coefficients of these columns.
    """
    count, ds, nf = heads.shape
    unit = np.repeat(np.sqrt(noise), nf)
    plants, sd, axes = np.linalg.svd(heads.reshape(count, -1) / unit, full_matrices=False)
    sd = sd / np.sqrt(count)
    kept = min(rank, int(np.sum(sd > SMALL)) or 1)
    basis = np.zeros((size, kept))
    basis[: ds * nf] = (axes[:kept] * sd[:kept, None] * unit).T
    return basis, _curve(plants[:, :kept] * np.sqrt(count), sd[:kept])


def _curve(plants: np.ndarray, sd: np.ndarray) -> Curves:
    """The curve through plants [count, r] whose coordinates weigh `sd` [r] in units of the noise.

    With as few leading coordinates as tell the others; what they do not tell has a latent of its
    own.
    """
    found = [_bend(plants, leads) for leads in range(1, min(LEADS, len(sd)) + 1)]
    open_ = [np.sqrt(np.sum(np.square(left * sd))) for *_, left in found]
    good = [number for number, size in enumerate(open_) if size < SMALL]
    best = good[0] if good else int(np.argmin(open_))
    linear, bent, left = found[best]
    leads = best + 1
    own = np.flatnonzero(left * sd > SMALL)  # coordinates that are not told
    straight = np.zeros((max(leads + len(own), LEADS), len(sd)))
    straight[:leads] = linear
    straight[leads + np.arange(len(own)), own] = left[own]
    margin = MARGIN * np.ptp(plants[:, :leads], axis=0)
    low, high = np.zeros((2, LEADS))
    low[:leads] = plants[:, :leads].min(axis=0) - margin
    high[:leads] = plants[:, :leads].max(axis=0) + margin
    return Curves(straight[None], bent[None], low[None], high[None])


def _bend(plants: np.ndarray, leads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Polynomials of the leading coordinates: linear part [leads, r], monomials' [monomials, r].

    And what they leave open of a plant that they were not fitted on [r].
    """
    count, rank = plants.shape
    lead = np.zeros((count, LEADS))
    lead[:, :leads] = plants[:, :leads]
    rows = np.concatenate([plants[:, :leads], monomials(lead)], axis=1)
    used = np.flatnonzero(np.abs(rows).max(axis=0) > 0)
    used = used[: count // 3]  # fewer plants tell of no more
    inverse = np.linalg.pinv(rows[:, used], rcond=1e-6)
    weights = np.zeros((rows.shape[1], rank))
    weights[used] = inverse @ plants
    leverage = np.einsum('nk,kn->n', rows[:, used], inverse)
    left = (plants - rows @ weights) / np.maximum(1 - leverage, 0.1)[:, None]
    left = np.sqrt(np.mean(np.square(left), axis=0))
    left[:leads] = 0.0
    weights[:, :leads] = np.eye(rows.shape[1], leads)  # a leading coordinate is its latent
    return weights[:leads], weights[leads:], left


def _stack(curves: list[Curves]) -> Curves:
    """One for each hypothesis, filled up to the same numbers of latents and columns."""
    latents, rank = (max(c.straight.shape[i] for c in curves) for i in (1, 2))

    def fill(array: np.ndarray, rows: int) -> np.ndarray:
        return np.pad(array[0], ((0, rows - array.shape[1]), (0, rank - array.shape[2])))

    return Curves(
        np.array([fill(c.straight, latents) for c in curves]),
        np.array([fill(c.bent, c.bent.shape[1]) for c in curves]),
        *(np.concatenate([getattr(c, n) for c in curves]) for n in ('low', 'high')),
    )


def _structured(dynamics: Dynamics, config: PretrainConfig) -> list[tuple[str, int, float, int]]:
    """What the structured columns of the model express beside: name, first column, sd, number."""
    da = len(dynamics.spec.action)
    first = dynamics.nominal.size
    return [
        ('command bias', first + da, config.bias_sd, da),
        ('command delay', first + 2 * da, config.delay_sd, DELAYS),
    ]
