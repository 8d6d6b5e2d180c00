"""Memory that is handed out again: never while somebody holds it, and always afterwards."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong_bayes_ros.blr import Gaussian, buffers, conjugate
from lifelong_bayes_ros.blr.buffers import LEAST, Buffers

SIZE = int(np.sqrt(LEAST / 8)) + 1
# Ways to hold memory, of which only the first is the tensor that was handed out.
HOLDS = (
    lambda tensor: tensor,
    lambda tensor: tensor[3:],
    lambda tensor: tensor.T,
    lambda tensor: tensor.numpy(),
    lambda tensor: tensor.numpy()[2:5],
    lambda tensor: torch.from_numpy(tensor.numpy()[1]),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(HOLDS) - 1), st.integers(0, 3)), max_size=25))
def test_nobody_is_handed_what_another_holds(steps: list[tuple[int, int]]) -> None:
    pool, held, most = Buffers(), [], 0
    for number, (hold, released) in enumerate(steps, start=1):
        tensor = pool.square(SIZE)
        tensor.fill_(number)
        held.append((number, HOLDS[hold](tensor)))
        most = max(most, len(held))
        del tensor, held[: min(released, len(held))]
        for expected, what in held:
            assert (np.asarray(what) == expected).all()
    assert pool.count(SIZE) == most


def test_small_matrices_are_left_to_malloc() -> None:
    pool = Buffers()
    pool.square(SIZE - 2)
    assert pool.count(SIZE - 2) == 0


@pytest.mark.skipif(conjugate.load() is None, reason='no C compiler')
def test_a_long_life_takes_no_more_memory_than_a_short_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = Buffers()
    for module in (buffers, conjugate):
        monkeypatch.setattr(module, 'SHARED', pool)
    generator = torch.Generator().manual_seed(0)
    eye = torch.eye(SIZE, dtype=torch.float64)
    posterior = Gaussian(torch.zeros(SIZE, dtype=torch.float64), eye)
    kept, counts = [], []
    for step in range(400):
        design = torch.randn((2, SIZE), dtype=torch.float64, generator=generator)
        innovation = posterior.predict(design, torch.ones(2, dtype=torch.float64))
        shared = step % 4 == 0  # a snapshot, which must stay as it is
        if shared:
            kept = [*kept, (posterior, posterior.covariance.clone())][-5:]
        posterior = posterior.condition(innovation, -innovation.mean, in_place=not shared)
        counts.append(pool.count(SIZE))
    assert counts[-1] == counts[40] <= 8
    for snapshot, covariance in kept:
        torch.testing.assert_close(snapshot.covariance, covariance, rtol=0, atol=0)
