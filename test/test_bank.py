"""The bank scores as the heads themselves do."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong_bayes_ros.dynamics.head import Head
from lifelong_bayes_ros.dynamics.noise import Noise
from lifelong_bayes_ros.memory import bank as module
from lifelong_bayes_ros.memory.bank import Bank
from plants import gaussian, random_dynamics, random_step


def heads(dynamics, rng: np.random.Generator, count: int) -> list[Head]:
    ds, n = len(dynamics.spec.state), dynamics.size
    made = []
    for _ in range(count):
        root = rng.normal(size=(n, n)) / n
        variance = rng.uniform(0.01, 0.1, ds)
        posterior = gaussian(rng.normal(size=n), root @ root.T + 1e-3 * np.eye(n))
        made.append(Head(posterior, Noise.start(variance, variance)))
    return made


def assert_scores(dynamics, bank: Bank, held: list[Head], rng: np.random.Generator) -> None:
    design = dynamics.design(*random_step(dynamics, rng))
    target = rng.normal(size=len(dynamics.spec.state))
    scores = bank.score(design, target, np.stack([h.noise.variance for h in held]))
    for i, head in enumerate(held):
        expected = head.predict(torch.tensor(design), target)
        np.testing.assert_allclose(scores.residual[i], expected.residual, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(scores.nis[i], expected.nis, rtol=1e-4)
        np.testing.assert_allclose(scores.evidence[i], expected.evidence, rtol=1e-4, atol=1e-3)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_every_head_is_scored_as_by_itself(seed, count):
    rng = np.random.default_rng(seed)
    dynamics = random_dynamics(seed=seed)
    held = heads(dynamics, rng, count)
    bank = Bank(*dynamics.nominal.shape)
    bank.sync([h.posterior for h in held])
    assert_scores(dynamics, bank, held, rng)


def test_compiled_scores_are_those_of_numpy(monkeypatch):
    rng = np.random.default_rng(1)
    dynamics = random_dynamics()
    held = heads(dynamics, rng, 3)
    bank = Bank(*dynamics.nominal.shape)
    bank.sync([h.posterior for h in held])
    assert module.load() is not None
    design, target = (
        dynamics.design(*random_step(dynamics, rng)),
        rng.normal(size=6)[: len(dynamics.scale)],
    )
    noise = np.stack([h.noise.variance for h in held])
    compiled = bank.score(design, target, noise)
    monkeypatch.setattr(module, 'load', lambda: None)
    plain = bank.score(design, target, noise)
    np.testing.assert_allclose(compiled.residual, plain.residual, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(compiled.nis, plain.nis, rtol=1e-4)
    np.testing.assert_allclose(compiled.evidence, plain.evidence, rtol=1e-4, atol=1e-4)


def test_heads_that_come_go_and_change_are_followed():
    rng = np.random.default_rng(0)
    dynamics = random_dynamics()
    bank = Bank(*dynamics.nominal.shape)
    a, b, c, d = heads(dynamics, rng, 4)
    for held in ([a], [a, b], [a, b, c], [a, d, c], [a, c], [d, c, a], [b]):
        bank.sync([h.posterior for h in held])
        assert_scores(dynamics, bank, held, rng)
