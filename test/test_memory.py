"""What the robot remembers: reservoirs, the regime filter, and consolidation as a transaction."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong_bayes_ros.dynamics.head import Head
from lifelong_bayes_ros.dynamics.noise import Noise
from lifelong_bayes_ros.memory import consolidation
from lifelong_bayes_ros.memory.consolidation import Budget, consolidate, score
from lifelong_bayes_ros.memory.regimes import NEW, Library, Regime, RegimeFilter
from lifelong_bayes_ros.memory.reservoir import Reservoir, Sample
from lifelong_bayes_ros.memory.tape import Tape, merge
from plants import gaussian, linear_samples, observe, random_dynamics

DYNAMICS = random_dynamics()
NOISE = np.full(6, 0.01)
FIXED = Noise.start(NOISE, NOISE)
PRIOR = gaussian(DYNAMICS.nominal_theta, 0.1 * np.eye(DYNAMICS.size))


def plant(seed: int) -> np.ndarray:
    """Parameters of a plant drawn from the prior."""
    rng = np.random.default_rng(seed)
    return DYNAMICS.nominal_theta + np.sqrt(0.1) * rng.standard_normal(DYNAMICS.size)


def samples(theta: np.ndarray, count: int, seed: int) -> list[Sample]:
    return [s for s, _ in zip(linear_samples(DYNAMICS, theta, NOISE, seed), range(count))]


def regime(name: str, theta: np.ndarray, seed: int, count: int = 80, keep: int = 24) -> Regime:
    """A regime that has seen `count` steps of a plant."""
    head, reservoir = Head(PRIOR, FIXED), Reservoir(keep)
    for sample in samples(theta, count, seed):
        head = observe(DYNAMICS, head, sample, FIXED)
        reservoir.add(sample, np.random.default_rng(seed))
    return Regime(name, head, reservoir)


def library(*regimes: Regime) -> Library:
    nominal = Regime('nominal', Head(PRIOR, FIXED), Reservoir(24))
    return Library([nominal, *regimes], len(regimes))


def run(lib: Library, capacity: int = 12, nbytes: int | None = None):
    rng = np.random.default_rng(0)
    return consolidate(DYNAMICS, lib, PRIOR, NOISE, Budget(capacity, nbytes), rng)


def snapshot(lib: Library):
    return [(r.name, r.head, list(r.reservoir.samples), r.reservoir.seen) for r in lib.regimes]


# ---------------------------------------------------------------------- reservoir
def numbered(first: int, count: int) -> list[Sample]:
    nothing = np.zeros(1)
    return [Sample(nothing, nothing, nothing, nothing, first + i, 0) for i in range(count)]


def test_every_step_is_kept_with_the_same_probability():
    stream, kept = numbered(0, 40), np.zeros(40)
    rng, runs, capacity = np.random.default_rng(0), 4000, 10
    for _ in range(runs):
        reservoir = Reservoir(capacity)
        for sample in stream:
            reservoir.add(sample, rng)
        kept[[s.stamp_ns for s in reservoir.samples]] += 1
    expected = runs * capacity / len(stream)
    variance = expected * (1 - capacity / len(stream))
    assert np.square(kept - expected).sum() / variance < 80  # chi-square, 39 degrees of freedom
    assert (np.abs(kept - expected) < 5 * np.sqrt(variance)).all()


@given(st.integers(1, 20), st.integers(0, 60))
def test_a_reservoir_never_outgrows_its_capacity_nor_repeats_a_step(capacity, count):
    reservoir, rng = Reservoir(capacity), np.random.default_rng(1)
    for sample in numbered(0, count):
        reservoir.add(sample, rng)
    stamps = {s.stamp_ns for s in reservoir.samples}
    assert reservoir.seen == count
    assert len(reservoir.samples) == len(stamps) == min(capacity, count)


@given(st.integers(0, 50), st.integers(0, 50))
def test_a_merged_reservoir_holds_steps_of_both_and_counts_both(first, second):
    rng = np.random.default_rng(2)
    left, right = Reservoir(16), Reservoir(16)
    for reservoir, stream in ((left, numbered(0, first)), (right, numbered(100, second))):
        for sample in stream:
            reservoir.add(sample, rng)
    merged = left.merged(right, rng)
    stamps = {s.stamp_ns for s in merged.samples}
    assert merged.seen == first + second
    assert stamps <= {s.stamp_ns for s in left.samples + right.samples}
    assert len(merged.samples) == len(stamps)
    assert len(stamps) == min(16, len(left.samples) + len(right.samples))


def test_a_merged_reservoir_represents_each_stream_by_its_length():
    rng, share = np.random.default_rng(3), []
    for _ in range(300):
        left, right = Reservoir(16), Reservoir(16)
        for reservoir, stream in ((left, numbered(0, 300)), (right, numbered(1000, 100))):
            for sample in stream:
                reservoir.add(sample, rng)
        share.append(np.mean([s.stamp_ns < 1000 for s in left.merged(right, rng).samples]))
    assert np.mean(share) == pytest.approx(0.75, abs=0.03)


# ---------------------------------------------------------------------- library and filter
def test_the_nominal_entry_is_never_overwritten_and_names_are_never_reused():
    lib = library()
    nominal, other = lib.regimes[0].head, regime('r1', plant(0), 0, count=1).head
    lib.commit(0, other)
    assert lib.regimes[0].head is nominal
    index = lib.store(other, Reservoir(4))
    lib.commit(index, nominal)
    assert lib.regimes[index].head is nominal
    assert lib.regimes.pop(index).name == 'r1'
    lib.store(other, Reservoir(4))
    assert lib.names == ['nominal', 'r2']


EVIDENCE = st.dictionaries(
    st.sampled_from(['nominal', 'r1', 'r2', 'r3', NEW]), st.floats(-1e6, 1e6), min_size=1
)


@given(st.lists(EVIDENCE, min_size=1, max_size=20))
def test_regime_probabilities_are_always_a_distribution(steps):
    regimes = RegimeFilter()
    for evidence in steps:
        regimes.update(evidence)
        p = np.array(list(regimes.probabilities.values()))
        assert set(regimes.probabilities) == set(evidence)
        assert p.sum() == pytest.approx(1)
        assert (p >= 0).all()
    regimes.rename(NEW, 'r9')
    assert sum(regimes.probabilities.values()) == pytest.approx(1)


def test_one_filter_step_is_bayes_rule_with_a_hazard():
    regimes = RegimeFilter(0.1, 0.0, {'nominal': 0.7, 'r1': 0.3, NEW: 0.0})
    regimes.update({'nominal': -1.0, 'r1': 0.5, NEW: 0.0})
    joint = (0.9 * np.array([0.7, 0.3, 0.0]) + 0.1 / 3) * np.exp([-1.0, 0.5, 0.0])
    np.testing.assert_allclose(list(regimes.probabilities.values()), joint / joint.sum())


def test_the_filter_finds_the_regime_and_finds_the_next_one_as_fast():
    regimes = RegimeFilter()
    for truth in ('r1', 'nominal', 'r1'):
        for _ in range(15):
            regimes.update({n: 0.0 if n == truth else -1.0 for n in ('nominal', 'r1', NEW)})
        assert regimes.probabilities[truth] > 0.95


def test_the_filter_does_not_decide_while_all_regimes_explain_the_robot_alike():
    names = ['nominal', 'r1', 'r2', NEW]
    regimes = RegimeFilter(probabilities=dict.fromkeys(names, 0.25))
    for _ in range(500):
        regimes.update(dict.fromkeys(names, -3.0))
    np.testing.assert_allclose(list(regimes.probabilities.values()), 0.25)


def test_a_new_regime_takes_over_the_probability_of_the_unknown():
    regimes = RegimeFilter(probabilities={'nominal': 0.2, NEW: 0.8})
    regimes.rename(NEW, 'r1')
    assert regimes.probabilities == {'nominal': 0.2, 'r1': 0.8, NEW: 0.0}


# ---------------------------------------------------------------------- consolidation
@settings(max_examples=10)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 60))
def test_a_merged_head_equals_one_that_saw_both_streams(seed, first, second):
    theta = plant(seed)
    streams = samples(theta, first, seed), samples(plant(seed + 1), second, seed + 1)
    heads = []
    for stream in (*streams, streams[0] + streams[1]):
        head = Head(PRIOR, FIXED)
        for sample in stream:
            head = observe(DYNAMICS, head, sample, FIXED)
        heads.append(head)
    merged, both = merge(heads[0], heads[1], PRIOR).posterior, heads[2].posterior
    np.testing.assert_allclose(merged.mean, both.mean, atol=1e-8)
    np.testing.assert_allclose(merged.covariance, both.covariance, atol=1e-8)


def test_a_score_is_the_evidence_and_error_of_each_sample():
    head, noise = regime('r1', plant(0), 0).head, np.linspace(0.01, 0.02, 6)
    memory = samples(plant(0), 5, 1)
    errors = [
        DYNAMICS.target(s.x, s.x_next)
        - DYNAMICS.design(s.x, s.u, s.past) @ head.posterior.mean.numpy()
        for s in memory
    ]
    got = score(DYNAMICS, head, memory, noise)
    assert got.error == pytest.approx(np.sqrt(np.mean(np.square(errors) / noise)))
    alone = [score(DYNAMICS, head, [s], noise).evidence for s in memory]
    assert got.evidence == pytest.approx(np.mean(alone))


def test_two_memories_of_one_plant_become_one():
    lib = library(*(regime(f'r{i}', plant(0), i, count=200) for i in (1, 2)))
    result = run(lib)
    assert result.accepted
    assert result.merged == [('r1', 'r2')]
    assert result.library.names == ['nominal', 'r1']
    assert result.library.regimes[1].reservoir.seen == 400
    assert lib.names == ['nominal', 'r1', 'r2']
    assert result.library.nbytes() < lib.nbytes()


def test_contradicting_plants_stay_apart():
    lib = library(*(regime(f'r{i}', plant(i), i, count=200) for i in (1, 2, 3)))
    before = snapshot(lib)
    result = run(lib)
    assert result.accepted
    assert (result.merged, result.pruned) == ([], [])
    assert snapshot(result.library) == before
    assert result.error_ratio == 1.0


def test_memories_too_small_to_judge_are_not_merged():
    lib = library(*(regime(f'r{i}', plant(0), i, count=200, keep=15) for i in (1, 2)))
    assert run(lib).merged == []


def test_experience_that_two_regimes_share_does_not_count_twice():
    """A head that split off another has all that the other had seen until then."""
    theta = plant(3)
    start = Tape(Head(PRIOR, FIXED))
    steps = samples(theta, 80, 3)
    grown = [start.add(*steps[:40]), start.add(*steps)]
    heads = [tape.run(DYNAMICS, PRIOR) for tape in grown]
    reservoirs = [Reservoir(24, n, steps[n - 24 : n]) for n in (40, 80)]
    pair = [Regime(f'r{i}', heads[i], reservoirs[i], grown[i]) for i in (0, 1)]
    result = run(library(*pair))
    assert result.merged == [('r0', 'r1')]
    kept = result.library.regimes[-1]
    assert kept.name == 'r0' and kept.tape.samples() == steps
    assert torch.equal(kept.head.posterior.covariance, heads[1].posterior.covariance)


def test_a_merge_that_would_cost_a_memory_is_rolled_back(monkeypatch):
    lib = library(*(regime(f'r{i}', plant(i), i) for i in (1, 2)))
    before = snapshot(lib)

    def careless(work, first, second, prior):
        yield
        return replace(first, head=merge(first.head, second.head, prior)), 'careless'

    monkeypatch.setattr(consolidation, '_same', careless)
    result = run(lib, capacity=2)
    assert not result.accepted
    assert result.library is lib
    assert snapshot(lib) == before
    assert (result.merged, result.pruned) == ([], [])
    assert result.error_ratio > 1.1
    assert 'grew' in result.reason


def test_nominal_is_never_merged_nor_pruned():
    twins = [regime(n, plant(0), i, count=200) for n, i in (('nominal', 1), ('r1', 2))]
    others = library(regime('r2', plant(2), 2), regime('r3', plant(3), 3))
    for lib in (Library(twins, 1), others):
        for capacity in (12, 2, 1):
            result = run(lib, capacity)
            assert result.accepted
            assert result.merged == []
            assert result.library.regimes[0] is lib.regimes[0]
            assert len(result.library.regimes) == min(len(lib.regimes), capacity)


def test_the_least_seen_regimes_are_pruned_to_the_capacity():
    counts = {'r1': 60, 'r2': 30, 'r3': 90, 'r4': 45}
    lib = library(*(regime(n, plant(int(n[1])), 1, count=c) for n, c in counts.items()))
    result = run(lib, capacity=3)
    assert result.pruned == ['r2', 'r4']
    assert result.library.names == ['nominal', 'r1', 'r3']
    assert result.library.named == lib.named


def test_samples_that_turned_out_to_belong_elsewhere_are_taken_out():
    rng = np.random.default_rng(0)
    reservoir = Reservoir(capacity=8)
    empty = np.zeros(1, np.float32)
    # The clock began anew after the second one.
    samples = [Sample(empty, empty, empty[None], empty, stamp, 0) for stamp in (8, 9, 1, 2, 3)]
    for sample in samples:
        reservoir.add(sample, rng)
    reservoir.drop([samples[2], samples[4], replace(samples[0])])
    assert [s.stamp_ns for s in reservoir.samples] == [8, 9, 2]
