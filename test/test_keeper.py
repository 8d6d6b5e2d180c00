"""An operator's tools: exact forgetting and merging, sensitivity, names, budgets, bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong_bayes_ros import cli
from lifelong_bayes_ros.blr import Gaussian
from lifelong_bayes_ros.dynamics.head import Head
from lifelong_bayes_ros.dynamics.model import Dynamics
from lifelong_bayes_ros.dynamics.noise import Noise
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.learning import store
from lifelong_bayes_ros.learning.codec import VERSION, pack, unpack
from lifelong_bayes_ros.learning.forgetting import forget, known_episodes
from lifelong_bayes_ros.learning.learner import Learner
from lifelong_bayes_ros.learning.merging import merge_states
from lifelong_bayes_ros.learning.settings import LearnerConfig
from lifelong_bayes_ros.learning.store import load_state, save_state
from lifelong_bayes_ros.learning.window import Lead
from lifelong_bayes_ros.memory.consolidation import Budget, consolidate, consolidation, score
from lifelong_bayes_ros.memory.regimes import Library, Regime
from lifelong_bayes_ros.memory.reservoir import Reservoir, Sample
from lifelong_bayes_ros.memory.rows import Rows
from lifelong_bayes_ros.memory.sensitivity import (
    Sensitivity,
    memorable,
    sensitivity,
    trajectory,
)
from lifelong_bayes_ros.memory.tape import Hold, Join, Tape, Widen, merge
from lifelong_bayes_ros.robot.transitions import Flag
from plants import (
    HOME,
    LOSS,
    gaussian,
    linear_samples,
    observe,
    random_dynamics,
    stream,
    tiny_prior,
)

DYNAMICS = random_dynamics()
NOISE = np.full(6, 0.01)
FIXED = Noise.start(NOISE, NOISE)
PRIOR = gaussian(DYNAMICS.nominal_theta, 0.1 * np.eye(DYNAMICS.size))
WIND = [{'wind': {'force': [2.0, 0.0]}}]
EPISODES = ((HOME, 70), (LOSS, 100), (HOME, 60), (LOSS, 80), (WIND, 90), (LOSS, 60))


def lived(seed: int = 0, episodes=EPISODES, **config) -> Learner:
    """A learner after some episodes, each under one condition."""
    learner, step = Learner(tiny_prior(), LearnerConfig(**config), seed), 0
    for number, (shifts, steps) in enumerate(episodes):
        path = stream(shifts, steps, 10 * seed + number, step)
        path[-1] = replace(path[-1], flags=Flag.EPISODE_END)
        for transition in path:
            learner.observe(replace(transition, episode=number))
        step += steps
    return learner


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp('lived') / 'state'
    save_state(lived(), folder)
    return folder


@pytest.fixture
def state(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / 'state'))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith('.')}


def assert_near(first: Head, second: Head, tolerance: float = 1e-9):
    for part in ('mean', 'covariance'):
        a, b = (getattr(h.posterior, part).numpy() for h in (first, second))
        assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)
    np.testing.assert_allclose(first.noise.variance, second.noise.variance, rtol=tolerance)


def refit(learner: Learner, tape: Tape, episode: int | None) -> Head:
    """The operations of a tape without an episode, one by one, straight from their equations."""
    head, dynamics, family = tape.start, learner.dynamics, learner.family
    for operation in tape:
        if isinstance(operation, Widen):
            s = operation.share
            moved = (1 - s) * head.posterior.covariance + s * family.covariance
            head = head.replace(posterior=Gaussian(head.posterior.mean, moved))
        elif isinstance(operation, Hold):
            variance = head.noise.variance if operation.variance is None else operation.variance
            head = head.replace(noise=Noise.start(variance, head.noise.prior))
        elif isinstance(operation, Join):
            other = refit(learner, operation.other, episode).posterior
            knew = blank(learner, operation.other)
            precisions = [torch.linalg.inv(g.covariance) for g in (head.posterior, other, knew)]
            means = [g.mean for g in (head.posterior, other, knew)]
            covariance = torch.linalg.inv(precisions[0] + precisions[1] - precisions[2])
            eta = [p @ m for p, m in zip(precisions, means, strict=True)]
            mean = covariance @ (eta[0] + eta[1] - eta[2])
            head = head.replace(posterior=Gaussian(mean, covariance))
        elif operation.episode != episode:
            x, u, past, x_next = (
                getattr(operation, n).astype(float) for n in ('x', 'u', 'past', 'x_next')
            )
            design = torch.tensor(dynamics.design(x, u, past))
            precision = torch.linalg.inv(head.posterior.covariance)
            weight = torch.tensor(1 / head.noise.variance)
            y = torch.tensor(dynamics.target(x, x_next))
            after = torch.linalg.inv(precision + design.T @ (weight[:, None] * design))
            mean = after @ (precision @ head.posterior.mean + design.T @ (weight * y))
            left = y - design @ mean
            spread = torch.diagonal(design @ after @ design.T)
            noise = head.noise.update((left.square() + spread).numpy())
            head = Head(Gaussian(mean, after), noise)
    return head


def blank(learner: Learner, tape: Tape) -> Gaussian:
    """The head of a tape, had it seen nothing."""
    widened = [o for o in tape if isinstance(o, Widen)]
    return refit(learner, Tape(tape.start, widened, len(widened)), None).posterior


# ---------------------------------------------------------------------- tapes
def test_a_tape_makes_the_very_head_that_was_learned():
    learner = lived()
    for regime in learner.library.regimes:
        again = regime.tape.run(learner.dynamics, learner.family)
        assert torch.equal(again.posterior.mean, regime.head.posterior.mean)
        assert torch.equal(again.posterior.covariance, regime.head.posterior.covariance)
    assert len(learner.library.regimes) == 3
    again = learner.tape.run(learner.dynamics, learner.family)
    assert torch.equal(again.posterior.mean, learner.live.posterior.mean)
    assert np.array_equal(again.noise.beta, learner.live.noise.beta)


@settings(max_examples=30)
@given(st.integers(2, 12), st.integers(1, 60))
def test_a_bounded_tape_keeps_between_half_and_all_of_its_limit(limit, steps):
    head, tape = Head(PRIOR, FIXED), Tape(Head(PRIOR, FIXED))
    stream_ = linear_samples(DYNAMICS, DYNAMICS.nominal_theta, NOISE, 0)
    for number, sample in zip(range(steps), stream_, strict=False):
        tape = tape.bounded(head, limit).add(replace(sample, episode=number))
        head = observe(DYNAMICS, head, sample)
    assert min(steps, limit // 2) <= tape.length <= limit + 1
    assert tape.folded | tape.episodes == set(range(steps))
    assert not tape.folded & tape.episodes
    assert_near(tape.run(DYNAMICS, PRIOR), head)


def test_tapes_that_part_do_not_see_each_other():
    samples = linear_samples(DYNAMICS, DYNAMICS.nominal_theta, NOISE, 0)
    root = Tape(Head(PRIOR, FIXED)).add(next(samples))
    first, second = root.add(Widen(0.1)), root.add(Hold())
    assert [type(o).__name__ for o in first] == ['Sample', 'Widen']
    assert [type(o).__name__ for o in second] == ['Sample', 'Hold']
    assert root.length == 1


# ---------------------------------------------------------------------- forgetting
@pytest.mark.parametrize('episode', range(6))
def test_forgetting_equals_a_refit_without_the_episode(state, episode):
    before, learner = load_state(state), load_state(state)
    done = forget(learner, episode)
    old = {r.name: r for r in before.library.regimes}
    assert episode not in known_episodes(learner)
    assert done.transitions + done.remembered > 0
    assert done.transitions > 0 or episode % 2 == 0
    for regime in learner.library.regimes:
        assert_near(regime.head, refit(before, old[regime.name].tape, episode))
        assert all(s.episode != episode for s in regime.reservoir.samples)
        if episode not in old[regime.name].tape.episodes:
            assert torch.equal(regime.head.posterior.mean, old[regime.name].head.posterior.mean)
    assert_near(learner.live, refit(before, before.tape, episode))


def test_a_forgotten_episode_leaves_no_width_of_intervals(state):
    learner = load_state(state)
    for intervals in learner.intervals.values():
        intervals.log_width = np.full_like(intervals.log_width, 2.0)
    forget(learner, 1)
    assert not np.any(learner.widths())


def test_an_episode_leaves_a_head_that_was_merged_too():
    first, second = lived(), lived(1)
    merged = merge_states(first, second)
    learner, offset = merged.learner, merged.offset
    assert merged.outcome.merged
    for episode in (1, 1 + offset):
        tapes = {r.name: r.tape for r in learner.library.regimes}
        forget(learner, episode)
        for regime in learner.library.regimes:
            assert_near(regime.head, refit(learner, tapes[regime.name], episode))


def test_a_regime_that_knew_nothing_else_is_dropped():
    learner = lived(episodes=((HOME, 60), (LOSS, 120)))
    (name,) = (r.name for r in learner.library.regimes if r.tape.episodes == {1})
    done = forget(learner, 1)
    assert done.dropped == [name]
    assert name not in learner.library.names
    assert sum(learner.filter.probabilities.values()) == pytest.approx(1)
    for transition in stream(HOME, 20, 5, 180):
        learner.observe(transition)


def test_episodes_after_a_restart_get_numbers_of_their_own(state):
    learner = load_state(state)
    for transition in stream(LOSS, 10, 8, 500):
        learner.observe(transition)
    assert max(learner.tape.episodes) == 6


def test_the_number_of_a_forgotten_episode_is_not_given_again(state, tmp_path, capsys):
    run('forget', state, '--episode', 5)
    shutil.copytree(state, tmp_path / 'older')
    assert max(known_episodes(load_state(state))) == 4
    save_state(load_state(state), state)
    learner = load_state(state)
    for transition in stream(LOSS, 10, 8, 500):
        learner.observe(transition)
    assert max(known_episodes(learner)) == 6
    save_state(learner, state)
    assert load_state(state).first_episode == 7
    # Nor by a merge, to either robot.
    save_state(lived(1), tmp_path / 'other')
    run('forget', tmp_path / 'other', '--episode', 5)
    run('merge', tmp_path / 'older', tmp_path / 'other', '--out', tmp_path / 'both')
    assert 'numbered from 6 on' in capsys.readouterr().out
    assert load_state(tmp_path / 'both').first_episode == 12


def test_a_state_that_does_not_tell_the_numbers_of_its_episodes_is_read(state):
    path = state / store.STATE
    arrays, meta = unpack('learner', path.read_bytes(), '')
    del meta['first_episode']
    path.write_bytes(pack('learner', arrays, meta))
    assert load_state(state).first_episode == 6


# ---------------------------------------------------------------------- sensitivity
@settings(max_examples=8)
@given(st.integers(0, 1000), st.integers(5, 80))
def test_leave_one_out_from_the_posterior_equals_true_refits(seed, count):
    rng = np.random.default_rng(seed)
    theta = DYNAMICS.nominal_theta + 0.3 * rng.standard_normal(DYNAMICS.size)
    samples = []
    for s in linear_samples(DYNAMICS, theta, NOISE, seed + 1):
        off = DYNAMICS.target(s.x, s.x_next) - DYNAMICS.design(s.x, s.u, s.past) @ theta
        if np.abs(off).max() < 1:  # else it turned so far that its angle was wrapped
            samples.append(s)
        if len(samples) == count:
            break

    def fit(some):
        head = Head(PRIOR, FIXED)
        for sample in some:
            head = observe(DYNAMICS, head, sample, FIXED)
        return head

    rows = Rows.of(DYNAMICS, samples)
    left, _, held = rows.left_out(fit(samples))
    assert held.mean() > 0.9
    for i in rng.choice(np.flatnonzero(held), 3, replace=False):
        without = fit(samples[:i] + samples[i + 1 :])
        np.testing.assert_allclose(left[i], rows.residual(without.posterior)[i], atol=1e-7)


def test_what_leaving_a_transition_out_would_do_equals_refits_of_its_tape():
    learner = lived(episodes=EPISODES[:2])
    dynamics, family = learner.dynamics, learner.family
    for regime in learner.library.regimes[1:]:
        seen = sensitivity(dynamics, regime, family)
        assert seen.exact.all()
        on_tape = {id(s) for s in regime.tape.samples()}
        for i, sample in enumerate(regime.reservoir.samples):
            if id(sample) not in on_tape:  # it came when something else was learned
                assert not seen.deviation[i].any()
            elif i % 20 == 0:
                without = refit_without(dynamics, family, regime.tape, sample)
                assert_moved(dynamics, seen, i, regime, without)


def refit_without(dynamics: Dynamics, family: Gaussian, tape: Tape, left: Sample) -> Head:
    """The head of a tape with a transition left out, its noise as if it were there."""
    head = without = tape.start
    for operation in tape:
        one = replace(tape, start=head, operations=[operation], length=1)
        after = one.run(dynamics, family)
        if isinstance(operation, Join):
            other = operation.other
            learned = refit_without(dynamics, family, other, left)
            without = merge(without, learned, other.prior(family))
        elif operation is not left:
            one = replace(one, start=without.replace(noise=head.noise))
            without = one.run(dynamics, family)
        head = after
    return without


def assert_moved(dynamics: Dynamics, seen: Sensitivity, i: int, regime: Regime, without: Head):
    sample = regime.reservoir.samples[i]
    design = dynamics.design(*(a.astype(float) for a in (sample.x, sample.u, sample.past)))
    moved = design @ (without.posterior.mean - regime.head.posterior.mean).numpy()
    moved = moved / np.sqrt(regime.head.noise.variance)
    np.testing.assert_allclose(seen.deviation[i], moved, atol=1e-8)


def test_a_transition_that_cannot_be_taken_out_moves_at_most_its_residual():
    learner = lived()
    regime = learner.library.regimes[1]
    for tape in (regime.tape.cut(regime.head), Tape(regime.head)):
        seen = sensitivity(learner.dynamics, replace(regime, tape=tape), learner.family)
        assert not seen.exact.any()
        size = np.linalg.norm(seen.residual, axis=1)
        assert (np.linalg.norm(seen.deviation, axis=1) <= size).all()
        assert np.sum(seen.deviation * seen.residual) < 0  # away from what it showed


def test_memory_that_was_merged_can_be_left_out_too():
    first, second = regime('r1', 1, 60), regime('r2', 4, 60, plant=1)
    reservoir = first.reservoir.merged(second.reservoir, np.random.default_rng(0))
    tape = first.tape.add(Join(second.tape), Widen(0.1))
    both = Regime('r1', tape.run(DYNAMICS, PRIOR), reservoir, tape)
    seen = sensitivity(DYNAMICS, both, PRIOR)
    assert seen.exact.all() and (seen.size > 0).all()
    for i in range(0, len(reservoir.samples), 5):
        without = refit_without(DYNAMICS, PRIOR, tape, reservoir.samples[i])
        assert_moved(DYNAMICS, seen, i, both, without)


def test_a_row_that_was_never_learned_does_not_explode():
    samples = [next(linear_samples(DYNAMICS, DYNAMICS.nominal_theta + 0.1, NOISE, 2))]
    rows = Rows.of(DYNAMICS, samples)
    # Its leverage is just below the noise, as if it were within the posterior.
    noise = np.full(6, np.linalg.eigvalsh(rows.leverage(PRIOR)).max() * 1.001)
    left, _, held = rows.left_out(Head(PRIOR, Noise.start(noise, noise)))
    assert not held.any()
    np.testing.assert_allclose(left, rows.residual(PRIOR))


def test_the_most_memorable_transition_is_the_one_that_was_spoilt():
    head, reservoir, tape = Head(PRIOR, FIXED), Reservoir(300), Tape(Head(PRIOR, FIXED))
    stream_ = linear_samples(DYNAMICS, DYNAMICS.nominal_theta, NOISE, 0)
    for i, sample in zip(range(300), stream_, strict=False):
        spoilt = replace(sample, x_next=sample.x_next + (i == 31) * 30 * DYNAMICS.scale)
        head, tape = observe(DYNAMICS, head, spoilt, FIXED), tape.add(spoilt)
        reservoir.add(spoilt, np.random.default_rng(0))
    nominal = Regime('nominal', Head(PRIOR, FIXED), Reservoir(1))
    library = Library([nominal, Regime('r1', head, reservoir, tape)], 1)
    found = memorable(DYNAMICS, library, PRIOR)
    assert [m.deviation for m in found] == sorted((m.deviation for m in found), reverse=True)
    first = max(found, key=lambda m: m.surprise)
    assert (first.sample.stamp_ns, first.kind) == (31, 'unpredictable')
    assert first.deviation > 10 * np.median([m.deviation for m in found])


def test_a_trajectory_is_what_came_before_and_after_without_a_gap():
    stream_ = linear_samples(DYNAMICS, DYNAMICS.nominal_theta, NOISE, 0)
    path = [s for s, _ in zip(stream_, range(40), strict=False)]
    for i in range(1, 40):
        if i != 33:
            path[i] = replace(path[i], x=path[i - 1].x_next)
    other = replace(path[39], stamp_ns=100, episode=1)
    one = regime('r1', 1, 0)
    held = replace(one, reservoir=Reservoir(9, 9, path[30:31]), tape=one.tape.add(*path, other))
    assert [s.stamp_ns for s in trajectory(held, path[30], 5)] == list(range(25, 33))
    assert [s.stamp_ns for s in trajectory(held, path[2], 5)] == list(range(8))
    assert trajectory(replace(held, tape=None), path[30], 5) == path[30:31]
    another = [replace(s, episode=7) for s in path]  # of another robot, by the same clock
    mixed = replace(held, tape=held.tape.add(*another))
    assert trajectory(mixed, path[30], 5) == trajectory(held, path[30], 5)
    assert [s.episode for s in trajectory(mixed, another[30], 5)] == [7] * 8


# ---------------------------------------------------------------------- consolidation
def regime(name: str, seed: int, count: int, plant: int | None = None) -> Regime:
    rng = np.random.default_rng(seed if plant is None else plant)
    theta = DYNAMICS.nominal_theta + np.sqrt(0.1) * rng.standard_normal(DYNAMICS.size)
    head, reservoir, tape = Head(PRIOR, FIXED), Reservoir(24), Tape(Head(PRIOR, FIXED))
    stream_ = linear_samples(DYNAMICS, theta, NOISE, seed)
    for sample, _ in zip(stream_, range(count), strict=False):
        head, tape = observe(DYNAMICS, head, sample, FIXED), tape.add(sample)
        reservoir.add(sample, np.random.default_rng(seed))
    return Regime(name, head, reservoir, tape)


def library(*regimes: Regime) -> Library:
    return Library([Regime('nominal', Head(PRIOR, FIXED), Reservoir(24)), *regimes], 9)


def test_tapes_are_given_up_before_regimes_and_regimes_by_what_they_are_worth():
    # r1 and r3 are one plant, of which one memory is too small to tell.
    near = regime('r3', 31, 300, plant=1)
    lib = library(regime('r1', 1, 200), regime('r2', 2, 200), near)
    lib.notes['r2'] = 'payload'

    def run(nbytes):
        rng = np.random.default_rng(0)
        budget = Budget(12, nbytes)
        return consolidate(DYNAMICS, lib, PRIOR, NOISE, budget, rng)

    assert run(None).merged == [('r1', 'r3')]
    lib.regimes[3] = replace(near, reservoir=Reservoir(24, 300, near.reservoir.samples[:15]))
    whole = run(None)
    assert not (whole.merged or whole.folded or whole.pruned)
    tight = run(lib.nbytes() - 1)
    assert tight.folded == ['r3']
    assert tight.library.names == lib.names
    assert tight.library.regimes[3].tape.everything_folded() == {0}
    less = run(sum(r.nbytes() - r.tape.nbytes() for r in lib.regimes) - 1)
    assert less.pruned in (['r1'], ['r3'])  # either is what the other explains
    assert 'r2' in less.library.names
    assert less.library.notes == {'r2': 'payload'}
    assert all(f'{n}:' in ' '.join(less.why) for n in less.pruned)


def test_what_was_folded_into_a_start_takes_room_once_and_is_given_up_first():
    head, tape = Head(PRIOR, FIXED), Tape(Head(PRIOR, FIXED))
    stream_ = linear_samples(DYNAMICS, DYNAMICS.nominal_theta, NOISE, 0)
    for sample, _ in zip(stream_, range(40), strict=False):
        tape = tape.bounded(head, 10).add(sample)
        head = observe(DYNAMICS, head, sample, FIXED)
    one = 8 * (DYNAMICS.size + DYNAMICS.size**2)
    steps = sum(s.nbytes() for s in tape.samples())
    assert tape.folded and tape.start is not tape.middle[1]
    first = Regime('r1', head, Reservoir(24), tape)
    assert first.nbytes() == 3 * one + steps  # where it starts, is folded next, and is now
    bare = replace(first, tape=tape.cut(head))
    assert bare.nbytes() == Regime('r1', head, Reservoir(24)).nbytes() == one
    other = Regime('r2', observe(DYNAMICS, head, next(stream_)), Reservoir(24), tape)
    lib = library(first, other)
    assert lib.nbytes() == one + 2 * one + 2 * one + 2 * steps  # nominal, heads, both folds
    joined = Tape(Head(PRIOR, FIXED)).add(Join(tape))
    assert replace(bare, tape=joined).nbytes() == 3 * one + steps
    rng, budget = np.random.default_rng(0), Budget(12, 3 * one)
    result = consolidate(DYNAMICS, lib, PRIOR, NOISE, budget, rng)
    assert sorted(result.folded) == ['r1', 'r2'] and not result.pruned
    assert result.library.nbytes() == 3 * one


def test_a_consolidation_under_way_changes_nothing_and_yields_to_learning():
    lib = library(regime('r1', 1, 200), regime('r2', 4, 200, plant=1), regime('r3', 3, 60))
    rng = np.random.default_rng(0)
    before = [(r.head, len(r.reservoir.samples)) for r in lib.regimes]
    job = consolidation(DYNAMICS, lib, PRIOR, NOISE, Budget(12))
    for _ in job:
        assert [(r.head, len(r.reservoir.samples)) for r in lib.regimes] == before
    decided = drained(lib)
    assert decided.adopt(lib, rng).merged == [('r1', 'r2')]
    # What came meanwhile is kept; a regime that learned meanwhile is left alone.
    lib.store(Head(PRIOR, FIXED), Reservoir(4))
    assert decided.adopt(lib, rng).library.names == ['nominal', 'r1', 'r3', 'r10']
    lib.commit(2, Head(PRIOR, FIXED))
    late = decided.adopt(lib, rng)
    assert not late.accepted
    assert late.library is lib
    assert 'learned meanwhile' in late.reason


def drained(lib):
    job = consolidation(DYNAMICS, lib, PRIOR, NOISE, Budget(12))
    while True:
        try:
            next(job)
        except StopIteration as end:
            return end.value


def test_an_operators_name_outlives_a_merge_whichever_regime_has_it():
    for renamed in ('r1', 'r2'):
        lib = library(regime('r1', 1, 200), regime('r2', 4, 200, plant=1))
        lib.note('r1', 'wet')
        lib.note('r2', 'slow')
        lib.rename(renamed, 'floor')
        result = consolidate(DYNAMICS, lib, PRIOR, NOISE, Budget(12), np.random.default_rng(0))
        assert result.merged == [('floor', 'r2' if renamed == 'r1' else 'r1')]
        assert result.library.names == ['nominal', 'floor']
        assert set(result.library.notes['floor'].split('; ')) == {'wet', 'slow'}
    lib.rename('r1', 'carpet')
    result = consolidate(DYNAMICS, lib, PRIOR, NOISE, Budget(12), np.random.default_rng(0))
    assert result.library.notes == {'carpet': 'wet; slow; also floor'}


def test_a_merged_regime_stays_merged_when_the_robot_goes_on():
    learner = lived(episodes=((HOME, 60), (LOSS, 120)))
    index = learner.identity
    current = learner.library.regimes[index]
    twin = lived(1, ((HOME, 60), (LOSS, 120))).library.regimes[-1]
    learner.library.regimes.append(replace(twin, name='r9'))
    alone = learner.live.posterior
    result = learner.consolidate()
    assert result.merged == [(current.name, 'r9')]
    assert learner.regime == current.name
    assert learner.live.posterior.entropy() < alone.entropy()
    assert_near(learner.live, learner.library.regimes[index].head)
    assert_near(learner.tape.run(learner.dynamics, learner.family), learner.live)
    joined = learner.live.posterior.entropy()
    # The next change leaves it as it was merged, not as it was before.
    for transition in stream(HOME, 20, 3, 180):
        learner.observe(transition)
    assert learner.regime != current.name
    stored = learner.library.regimes[learner.library.names.index(current.name)]
    assert stored.head.posterior.entropy() <= joined + 1e-9


@pytest.mark.parametrize('merges', [False, True])
def test_steps_that_a_recalled_regime_knows_already_count_once(merges):
    learner = lived(episodes=((HOME, 60), (LOSS, 120)))
    name, steps = learner.regime, 6
    for transition in stream(LOSS, steps - 2, 5, 180):
        learner.observe(transition)
    if merges:  # and commits them; what the other regime knows comes last on the tape then
        twin = lived(1, ((HOME, 60), (LOSS, 120))).library.regimes[-1]
        learner.library.regimes.append(replace(twin, name='r9'))
        assert learner.consolidate().merged == [(name, 'r9')]
    learner._recall(Lead(name, 9.0, steps))  # without a merge two are committed, four are not
    remembered = learner.library.regimes[learner.identity].reservoir.samples
    for samples in (learner.tape.samples(), remembered):
        keys = [s.key for s in samples]
        assert len(keys) == len(set(keys))
    assert len(learner.tape.samples()) >= 120


def test_a_replay_repeats_a_consolidation_that_took_several_transitions(monkeypatch):
    from lifelong_bayes_ros.learning import upkeep

    monkeypatch.setattr(upkeep, 'SLICES', 1)
    first, second = lived(), lived()
    events = [[(e.event, e.step) for e in x.take_events()] for x in (first, second)]
    assert events[0] == events[1]
    assert first.digest() == second.digest()
    ends = np.cumsum([steps for _, steps in EPISODES])
    done = [step for event, step in events[0] if event in ('consolidated', 'rolled_back')]
    assert done
    assert not {*done} & {*ends.tolist()}


# ---------------------------------------------------------------------- merging states
def test_merged_states_hold_the_heads_of_both_exactly(tmp_path):
    half = lived(0, ((HOME, 60), (LOSS, 120))), lived(1, ((HOME, 60), (LOSS, 100), (WIND, 120)))
    heads = [{r.name: r.head.posterior for r in x.library.regimes} for x in half]
    priors = {r.name: blank(half[1], r.tape) for r in half[1].library.regimes}
    merged = merge_states(*half)
    learner = merged.learner
    back = {new: old for old, new in merged.renamed.items()}
    pairs = merged.outcome.merged
    heirs = [kept for kept, _ in pairs]
    # Of three that become one, some may share experience, which counts once.
    once = [(k, a) for k, a in pairs if heirs.count(k) == 1 and k in heads[0] and a in back]
    assert once
    for kept, other in once:
        one, two = heads[0][kept].natural(), heads[1][back[other]].natural()
        knew = priors[back[other]].natural()
        eta, precision = (a + b - c for a, b, c in zip(one, two, knew, strict=True))
        found = next(r for r in learner.library.regimes if r.name == kept).head.posterior
        direct = torch.linalg.solve(precision, eta)
        assert torch.linalg.norm(found.mean - direct) <= 1e-9 * torch.linalg.norm(direct)
    save_state(learner, tmp_path / 'c')
    again = load_state(tmp_path / 'c')
    assert again.digest() == learner.digest()
    for regime in again.library.regimes:
        assert_near(regime.tape.run(again.dynamics, again.family), regime.head)


def test_names_and_notes_outlive_merging_saving_and_forgetting(tmp_path):
    first, second = lived(0, ((HOME, 60), (LOSS, 120))), lived(1, ((HOME, 60), (WIND, 120)))
    for learner, name in ((first, 'worn'), (second, 'gust')):
        old = learner.library.names[-1]
        learner.library.rename(old, name)
        learner.filter.rename(old, name)
        learner.library.note(name, f'note on {name}')
    merged = merge_states(first, second)
    learner = merged.learner
    save_state(learner, tmp_path / 'c')
    again = load_state(tmp_path / 'c')
    assert {'worn', 'gust'} <= set(again.library.names)
    assert again.library.notes == {'worn': 'note on worn', 'gust': 'note on gust'}
    forget(again, 0)  # home
    assert again.library.notes == {'worn': 'note on worn', 'gust': 'note on gust'}
    done = [forget(again, episode + merged.offset) for episode in (0, 1)]  # all `gust` knows
    assert 'gust' in [name for d in done for name in d.dropped]
    assert again.library.notes == {'worn': 'note on worn'}


def moved_on(prior, seed: int, size: float, gain: float):
    """A prior whose trunk has learned on: other weights, known better."""
    rng, trunk = np.random.default_rng(seed), prior.dynamics.trunk
    names = ('w1', 'b1', 'w2', 'b2')
    arrays = {n: getattr(trunk, n) for n in names}
    after = {n: a + size * np.std(a) * rng.standard_normal(a.shape) for n, a in arrays.items()}
    dynamics = replace(prior.dynamics, trunk=replace(trunk, **after))
    precision = {n: gain * p for n, p in prior.trunk_precision.items()}
    return replace(prior, dynamics=dynamics, trunk_precision=precision)


def learned_on(prior, seed: int, **config) -> Learner:
    learner, step = Learner(prior, LearnerConfig(**config), seed), 0
    for number, (shifts, steps) in enumerate(((HOME, 60), (LOSS, 150))):
        path = stream(shifts, steps, 20 * seed + number, step)
        path[-1] = replace(path[-1], flags=Flag.EPISODE_END)
        for transition in path:
            learner.observe(replace(transition, episode=number))
        step += steps
    return learner


@pytest.mark.parametrize('known', [False, True])
def test_trunks_that_learned_on_are_merged_by_their_precision(known):
    prior = tiny_prior()
    a, b = moved_on(prior, 1, 0.02, 4.0), moved_on(prior, 2, 0.02, 2.0)
    first, second = learned_on(a, 0), learned_on(b, 1)
    merged = merge_states(first, second, prior if known else None).learner
    w, w_a, w_b, w_0 = (
        p.dynamics.trunk.w1 for p in (merged.prior, first.prior, second.prior, prior)
    )
    expected = (4 * w_a + 2 * w_b - w_0) / 5 if known else (4 * w_a + 2 * w_b) / 6
    np.testing.assert_allclose(w, expected)
    total = merged.prior.trunk_precision['w1'] / prior.trunk_precision['w1']
    np.testing.assert_allclose(total, 5.0 if known else 3.0)
    for regime in merged.library.regimes[1:]:
        samples = regime.reservoir.samples
        error = score(merged.dynamics, regime.head, samples, prior.noise).error
        assert error < 2.0
        assert_near(regime.tape.run(merged.dynamics, merged.family), regime.head)


def test_the_nominal_plant_of_merged_trunks_is_that_of_their_origin():
    """Not what one of the two made of it."""
    prior, pair = tiny_prior(), []
    for seed in (1, 2):
        moved = moved_on(prior, seed, 0.02, 4.0)
        dynamics = replace(moved.dynamics, nominal=1.2 * moved.dynamics.nominal)
        pair.append(learned_on(replace(moved, dynamics=dynamics), seed))
    merged = merge_states(*pair, prior).learner
    home = [s for learner in pair for s in learner.library.regimes[0].reservoir.samples]

    def error(learner: Learner) -> float:
        return score(learner.dynamics, learner.nominal, home, prior.noise).error

    assert error(merged) < 1.05 * error(Learner(prior))
    assert error(merged) < 0.8 * min(map(error, pair))


def test_trunks_that_grew_apart_are_not_merged():
    prior = tiny_prior()
    # What tapes still hold is refit on any trunk; what is folded has to be carried over.
    pair = (learned_on(moved_on(prior, seed, 100.0, 4.0), seed, journal=20) for seed in (1, 2))
    with pytest.raises(UserError, match='too far apart'):
        merge_states(*pair)


def newborn(steps: int) -> Learner:
    learner = Learner(tiny_prior(), seed=5)
    for transition in stream(HOME, steps, 77, 9000):
        learner.observe(transition)
    return learner


def test_a_merge_keeps_what_a_spoilt_live_head_no_longer_knows():
    learner = lived(episodes=((HOME, 60), (LOSS, 120), (HOME, 60), (LOSS, 80)))
    regime = learner.library.regimes[learner.identity]
    known = list(learner.entered[0])

    def error(head: Head) -> float:
        return score(learner.dynamics, head, known, learner.prior.noise).error

    before, spoilt = error(regime.head), learner.live.posterior
    mean = spoilt.mean + 6 * spoilt.factor().sum(dim=1)
    learner.live = learner.live.replace(posterior=Gaussian(mean, spoilt.covariance))
    assert error(learner.live) > 2 * before
    merged = merge_states(learner, newborn(5)).learner
    assert regime.name in merged.library.names
    (kept,) = (r for r in merged.library.regimes if r.name == regime.name)
    assert error(kept.head) <= 1.2 * max(before, 1.0)


def test_a_live_head_that_no_regime_keeps_is_told():
    merged = merge_states(lived(episodes=((HOME, 60), (LOSS, 120))), newborn(20))
    (line,) = merged.left_out
    assert 'the second state' in line and '20 transitions' in line and 'nominal' in line
    young = lived(episodes=((HOME, 60), (LOSS, 20)))
    assert young.identity is None and 0 < young.age < young.config.store_age
    (line,) = merge_states(young, newborn(0)).left_out
    assert f'the first state learned from its last {young.age} transitions: too few' in line


# ---------------------------------------------------------------------- commands
def careless(work, first, second, prior):
    """Takes any two regimes for one."""
    yield
    return replace(first, head=merge(first.head, second.head, prior)), 'careless'


def run(*arguments, code: int = 0) -> None:
    assert cli.main([str(a) for a in arguments]) == code


def printed(capsys):
    return json.loads(capsys.readouterr().out)


def test_a_note_says_what_was_written_whatever_it_is(state, tmp_path, capsys):
    for note in ('odd[/b]', '[red]', r'$\bad$\['):
        run('regimes', state, '--note', f'r1={note}')
        assert note in capsys.readouterr().out
        run('memory-map', state, '--out', tmp_path / 'map.svg')


def test_the_episode_that_runs_is_listed(state, capsys):
    with store.revised(state) as learner:
        step = learner.step
        for transition in stream(LOSS, 30, 9, step):
            learner.observe(replace(transition, episode=0))
        number = learner.first_episode
        assert number not in learner.library.regimes[learner.identity].tape.episodes
    run('regimes', state, '--json')
    (now,) = (r for r in printed(capsys)['regimes'] if r['live'])
    assert number in now['episodes']


def test_an_operator_names_regimes_and_keeps_notes(state, capsys):
    run('regimes', state, '--name', 'r1=floor', '--note', 'r1=lab', '--json')
    assert [(r['name'], r['note']) for r in printed(capsys)['regimes']][1] == ('floor', 'lab')
    learner = load_state(state)
    assert learner.library.regimes[1].tape.length
    assert sum(learner.filter.probabilities.values()) == pytest.approx(1)
    run('consolidate', state, '--json')
    assert printed(capsys)['regimes'][1] == 'floor'
    run('regimes', state, '--note', 'floor=', '--json')
    assert printed(capsys)['regimes'][1]['note'] == ''


def test_a_memory_map_is_drawn_and_listed(state, tmp_path, capsys):
    before = contents(state)
    run('memory-map', state, '--out', tmp_path / 'map.png', '--json')
    report = printed(capsys)
    assert (tmp_path / 'map.png').read_bytes().startswith(b'\x89PNG')
    listed = report['transitions']
    assert sum(report['kinds'].values()) == len(listed)
    sizes = [t['deviation'] for t in listed]
    assert sizes == sorted(sizes, reverse=True)
    assert {t['episode'] for t in listed} <= set(range(6))
    assert contents(state) == before


def test_forget_and_merge_by_command(state, tmp_path, capsys):
    save_state(lived(1), tmp_path / 'other')
    run('merge', state, tmp_path / 'other', '--out', tmp_path / 'c', '--json')
    report = printed(capsys)
    assert load_state(tmp_path / 'c').digest() == report['digest']
    run('forget', tmp_path / 'c', '--episode', 1 + report['episode_offset'], '--json')
    report = printed(capsys)
    assert report['transitions'] > 0
    assert load_state(tmp_path / 'c').digest() == report['digest']


def test_a_merge_whose_consolidation_is_rolled_back_says_so(state, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('lifelong_bayes_ros.memory.consolidation._same', careless)
    save_state(lived(1), tmp_path / 'other')
    both = 'merge', state, tmp_path / 'other', '--out'
    run(*both, tmp_path / 'c', '--json')
    report = printed(capsys)
    assert (report['accepted'], report['merged']) == (False, [])
    assert 'error of a regime on its memory grew' in report['reason']
    run(*both, tmp_path / 'd')
    assert f'none are merged: {report["reason"]}' in capsys.readouterr().out
    names = load_state(tmp_path / 'd').library.names  # whole, with what both remembered
    assert names == report['regimes']
    known = [set(load_state(folder).library.names) for folder in (state, tmp_path / 'other')]
    assert len(names) == sum(map(len, known)) - 1  # one nominal plant


def test_a_consolidation_that_is_rolled_back_leaves_the_state(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('lifelong_bayes_ros.memory.consolidation._same', careless)
    learner = lived(episodes=((HOME, 70), (WIND, 100), (HOME, 60), (LOSS, 90)))
    for transition in stream(LOSS, 80, 99, learner.step):
        learner.observe(replace(transition, episode=4))
    assert learner.age > learner.config.store_age  # so that there is something to commit
    save_state(learner, tmp_path)
    before = contents(tmp_path)
    run('consolidate', tmp_path, '--json', code=1)
    report = printed(capsys)
    assert not report['accepted'] and report['regimes'] == load_state(tmp_path).library.names
    assert contents(tmp_path) == before


# ---------------------------------------------------------------------- bad input
def fails(capsys, *arguments) -> str:
    run(*arguments, code=2)
    return ' '.join(capsys.readouterr().err.split())


COMMANDS = {
    'consolidate': lambda s, out: ['consolidate', s],
    'forget': lambda s, out: ['forget', s, '--episode', '1'],
    'regimes': lambda s, out: ['regimes', s, '--note', 'r1=x'],
    'memory-map': lambda s, out: ['memory-map', s, '--json'],
    'merge': lambda s, out: ['merge', s, s, '--out', out],
}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def tamper(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-200] ^= 1
    path.write_bytes(bytes(data))


def other_version(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"version":"%d"' % VERSION, b'"version":"7"', 1))


def by_hand(path: Path) -> None:
    arrays, meta = unpack('learner', path.read_bytes(), '')
    del meta['identity']
    path.write_bytes(pack('learner', arrays, meta))


SPOILT = {
    'truncated': (truncate, 'truncated'),
    'tampered': (tamper, 'damaged'),
    'other version': (other_version, "version '7'"),
    'by hand': (by_hand, 'by another version or changed by hand'),
    'half there': (Path.unlink, 'no learner.safetensors'),
}


@pytest.mark.parametrize('command', COMMANDS)
@pytest.mark.parametrize('how', SPOILT)
def test_a_spoilt_state_is_refused_by_every_command(state, tmp_path, capsys, command, how):
    spoil, said = SPOILT[how]
    spoil(state / store.STATE)
    before = contents(state)
    assert said in fails(capsys, *COMMANDS[command](state, tmp_path / 'out'))
    assert contents(state) == before
    assert not (tmp_path / 'out').exists()


MISTAKES = {
    'unknown episode': (['forget', '--episode', '9'], 'it holds 0, 1, 2, 3, 4, 5'),
    'unknown regime': (['regimes', '--name', 'r7=x'], "no regime 'r7'; there are nominal"),
    'nominal': (['regimes', '--name', 'nominal=x'], 'keeps its name'),
    'taken': (['regimes', '--name', 'r1=r2'], "cannot be called 'r2'"),
    'reserved': (['regimes', '--name', 'r1=live'], "cannot be called 'live'"),
    'no name': (['regimes', '--name', 'r1=a b'], "cannot be called 'a b'"),
    'no pair': (['regimes', '--note', 'r1'], 'give REGIME=TEXT'),
    'two names': (['regimes', '--name', 'r1=a', '--name', 'r1=b'], "r1 is given 'a' already"),
    'two notes': (['regimes', '--note', 'r1=a', '--note', 'r1=b'], "r1 is given 'a' already"),
    'escapes': (['regimes', '--note', 'r1=\x1b[2J'], r"--note 'r1=\x1b[2J': holds control"),
    'lines': (['regimes', '--note', 'r1=a\nb'], r"--note 'r1=a\nb': holds control characters"),
    'no picture': (['memory-map'], '--out map.png'),
    'picture': (['memory-map', '--out', 'map.exe'], '.png, .svg or .pdf'),
}


@pytest.mark.parametrize('what', MISTAKES)
def test_a_mistake_is_named_and_leaves_the_state_bit_for_bit(state, capsys, what):
    (command, *options), said = MISTAKES[what]
    before = contents(state)
    assert said in fails(capsys, command, state, *options)
    assert contents(state) == before


def test_what_is_folded_cannot_be_taken_out(tmp_path, capsys):
    save_state(lived(journal=30), tmp_path)
    before = contents(tmp_path)
    assert 'no longer keeps its transitions' in fails(capsys, 'forget', tmp_path, '--episode', 1)
    assert contents(tmp_path) == before


def test_a_removal_that_leaves_no_posterior_is_refused(tmp_path, capsys):
    learner = lived(episodes=((HOME, 60), (LOSS, 120)))
    index = learner.identity
    old = learner.library.regimes[index]
    # A start wider than the prior: only the data make its merge with another such one proper.
    wide = replace(
        old.tape.start, posterior=learner.family.widen(9 * learner.family.covariance, 0.5)
    )
    other = Tape(wide).add(*old.tape)
    tape = Tape(wide).add(*old.tape, Join(other))
    head = Tape(wide, list(old.tape), old.tape.length).run(learner.dynamics, learner.family)
    learner.library.regimes[index] = replace(old, head=head, tape=tape)
    learner.live, learner.tape = learner.nominal, Tape(learner.nominal)
    save_state(learner, tmp_path)
    before = contents(tmp_path)
    assert 'would be improper' in fails(capsys, 'forget', tmp_path, '--episode', 1)
    assert contents(tmp_path) == before


def test_states_that_cannot_be_merged(state, tmp_path, capsys):
    from test_store import small_prior

    other = tmp_path / 'other'
    save_state(Learner(small_prior('arm')), other)
    assert "robots 'quad' and 'arm'" in fails(
        capsys, 'merge', state, other, '--out', tmp_path / 'c'
    )
    save_state(Learner(replace(tiny_prior(), noise=2 * tiny_prior().noise)), tmp_path / 'noisy')
    said = fails(capsys, 'merge', state, tmp_path / 'noisy', '--out', tmp_path / 'c')
    assert 'different priors' in said
    assert 'count twice' in fails(capsys, 'merge', state, state, '--out', tmp_path / 'c')
    assert not (tmp_path / 'c').exists()
    assert 'is there already' in fails(capsys, 'merge', state, other, '--out', other)


def test_a_budget_for_less_than_a_regime_is_refused():
    least = lived(episodes=()).library.nbytes()
    with pytest.raises(UserError, match=r'memory_bytes 1000: .* takes'):
        Learner(tiny_prior(), LearnerConfig(memory_bytes=1000))
    learner = lived(memory_bytes=3 * least)
    learner.consolidate()
    assert learner.library.nbytes() <= 3 * least
    assert len(learner.library.regimes) == 2


def test_a_state_that_a_learner_writes_meanwhile_is_left_alone(state):
    revision = store.revised(state)
    revision.__enter__().library.rename('r1', 'mine')
    save_state(lived(episodes=((HOME, 10),)), state)
    theirs = contents(state)
    with pytest.raises(UserError, match='by somebody else meanwhile'):
        revision.__exit__(None, None, None)
    assert contents(state) == theirs


# ---------------------------------------------------------------------- killed
CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
from lifelong_bayes_ros import cli
cli.parser()
import torch, matplotlib, lifelong_bayes_ros.learning.merging, lifelong_bayes_ros.learning.store
torch.set_num_threads(1)
print('ready', flush=True)
sys.stdin.readline()
sys.exit(cli.main(sys.argv[1:]))
"""


def start(*arguments) -> subprocess.Popen:
    command = [sys.executable, '-c', CHILD, *map(str, arguments)]
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'stderr': subprocess.DEVNULL}
    child = subprocess.Popen(command, **pipes, env={**os.environ, 'COLUMNS': '80'})
    assert child.stdout.readline() == b'ready\n'
    return child


@pytest.mark.parametrize('command', ['consolidate', 'forget', 'merge'])
def test_a_killed_command_leaves_the_old_state_or_the_new_one(saved, tmp_path, command):
    other, out = tmp_path / 'other', tmp_path / 'c'
    save_state(lived(1), other)
    if command == 'consolidate':  # something to do
        learner = lived()
        learner.config = replace(learner.config, capacity=2)
        saved = tmp_path / 'full'
        save_state(learner, saved)
    arguments = COMMANDS[command](tmp_path / 'state', out)
    if command == 'merge':
        arguments[2] = other
    watched = out if command == 'merge' else tmp_path / 'state'

    def fresh():
        for folder in (tmp_path / 'state', out):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(saved, tmp_path / 'state')

    def seen():
        return contents(watched) if watched.exists() else None

    fresh()
    old, child = seen(), start(*arguments)
    began = time.monotonic()
    child.communicate(b'\n')
    took = time.monotonic() - began
    assert child.returncode == 0
    new = seen()
    assert new != old
    rng = np.random.default_rng(0)
    for share in rng.uniform(0.0, 1.1, 3):
        fresh()
        child = start(*arguments)
        child.stdin.write(b'\n')
        child.stdin.flush()
        time.sleep(share * took)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert seen() in (old, new)
        if seen() == old:  # and nothing of it is in the way of trying again
            run(*arguments)
        assert seen() == new
