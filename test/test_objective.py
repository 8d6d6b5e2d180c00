"""The priors of the literature as terms of one objective: exact where the model is linear."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong_bayes_ros.blr import DiagonalGaussian, Gaussian, ImproperPosteriorError
from lifelong_bayes_ros.dynamics.likelihoods import (
    Bernoulli,
    Categorical,
    HeteroscedasticGaussian,
    KnownNoise,
    Likelihood,
)
from lifelong_bayes_ros.memory.dnn2gp import laplace
from lifelong_bayes_ros.memory.examples import Examples
from lifelong_bayes_ros.memory.fit import fit
from lifelong_bayes_ros.memory.flat import flat, load
from lifelong_bayes_ros.memory.memorable import curvature_score, stratified, top
from lifelong_bayes_ros.memory.merging import merge
from lifelong_bayes_ros.memory.objective import Correction, FunctionPrior, Loss, Quadratic, Term

NOISE = 0.3
KINDS: dict[str, Callable[[], Likelihood]] = {
    'gaussian': lambda: KnownNoise(np.array([NOISE, 2 * NOISE])),
    'heteroscedastic': HeteroscedasticGaussian,
    'bernoulli': Bernoulli,
    'categorical': lambda: Categorical(('grass', 'sand', 'ice')),
}
DELTA = 0.7


def linear(inputs: int, outputs: int) -> torch.nn.Module:
    return torch.nn.Linear(inputs, outputs, bias=False).double()


def examples(likelihood: Likelihood, n: int, seed: int, inputs: int = 3) -> Examples:
    rng = np.random.default_rng(seed)
    f = rng.normal(size=(n, likelihood.outputs))
    if isinstance(likelihood, Categorical):
        labels = [likelihood.label(likelihood.classes[i]) for i in f.argmax(axis=1)]
    elif isinstance(likelihood, Bernoulli):
        labels = [likelihood.label(bool(v > 0)) for v in f[:, 0]]
    elif isinstance(likelihood, HeteroscedasticGaussian):
        labels = [likelihood.label(float(v)) for v in f[:, 0]]
    else:
        labels = [likelihood.label(v) for v in f]
    x = torch.tensor(rng.normal(size=(n, inputs)))
    return Examples.of(x, np.array(labels), likelihood)


def minimise(network: torch.nn.Module, objective: Term) -> None:
    optimizer = torch.optim.LBFGS(
        network.parameters(),
        max_iter=300,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        line_search_fn='strong_wolfe',
    )
    fit(network, objective, optimizer, 3)


def gradient(network: torch.nn.Module, objective: Term) -> torch.Tensor:
    network.zero_grad()
    objective(network).backward()
    return torch.cat([p.grad.reshape(-1) for p in network.parameters()])


def zeros(network: torch.nn.Module) -> torch.Tensor:
    return torch.zeros_like(flat(network)).detach()


@pytest.mark.parametrize('kind', KINDS)
def test_the_gradient_of_a_loss_is_its_slope(kind: str) -> None:
    likelihood = KINDS[kind]()
    network, seen = linear(3, likelihood.outputs), Loss(examples(likelihood, 5, 0).stand_for(9))
    found, weights, step = gradient(network, seen), flat(network).detach(), 1e-6
    for i in range(len(weights)):
        values = []
        for sign in (1, -1):
            moved = weights.clone()
            moved[i] += sign * step
            load(network, moved)
            values.append(float(seen(network).detach()))
        assert found[i] == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-5)


@pytest.mark.parametrize('kind', ['gaussian', 'bernoulli', 'categorical'])
def test_a_k_prior_with_all_inputs_in_memory_is_the_past(kind: str) -> None:
    """For generalised linear models gradients agree everywhere (Khan & Swaroop 2021)."""
    likelihood = KINDS[kind]()
    network, old = linear(3, likelihood.outputs), examples(likelihood, 30, 1)
    regulariser = Quadratic.isotropic(DELTA, zeros(network))
    minimise(network, Loss(old) + regulariser)
    star = flat(network).detach().clone()
    k_prior = Loss(old.softened(network)) + Quadratic.isotropic(DELTA, star)
    new = Loss(examples(likelihood, 7, 2))
    load(network, star + torch.tensor(np.random.default_rng(3).normal(size=len(star))))
    for change in (new, -1.0 * Loss(old.pick([0, 3])), Quadratic.isotropic(2.0, 0 * star)):
        exact = Loss(old) + regulariser + change
        torch.testing.assert_close(
            gradient(network, k_prior + change), gradient(network, exact), rtol=1e-5, atol=1e-6
        )


class Wider(torch.nn.Module):
    """A network with more features beside those that it had."""

    def __init__(self, kept: torch.nn.Module, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kept, self.added = kept, linear(inputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.kept(x) + self.added(x.square())


@pytest.mark.parametrize('kind', ['gaussian', 'bernoulli', 'categorical'])
def test_a_k_prior_goes_over_to_a_larger_model_class(kind: str) -> None:
    """What it says of the weights that there were is what the past says of them."""
    likelihood = KINDS[kind]()
    network, old = linear(3, likelihood.outputs), examples(likelihood, 30, 1)
    minimise(network, Loss(old) + Quadratic.isotropic(DELTA, zeros(network)))
    star, soft = flat(network).detach().clone(), old.softened(network)
    wider = Wider(network, 3, likelihood.outputs)
    names = [
        [n for n, _ in wider.named_parameters() if n.startswith(w)] for w in ('kept', 'added')
    ]
    k_prior = Loss(soft) + Quadratic.isotropic(DELTA, star, names[0])
    k_prior += Quadratic.isotropic(DELTA, zeros(wider.added), names[1])
    exact = Loss(old) + Quadratic.isotropic(DELTA, zeros(wider))
    weights = np.random.default_rng(3).normal(size=len(flat(wider)))
    load(wider, torch.tensor(weights))
    ours, past = gradient(wider, k_prior), gradient(wider, exact)
    torch.testing.assert_close(ours[: len(star)], past[: len(star)], rtol=1e-5, atol=1e-6)
    # A term that names weights is about no others.
    regulariser = Quadratic.isotropic(DELTA, zeros(wider.added), names[1])
    slope = gradient(wider, regulariser + 0.0 * Loss(old))
    torch.testing.assert_close(slope[: len(star)], 0 * star)
    torch.testing.assert_close(slope[len(star) :], DELTA * flat(wider.added).detach())


@pytest.mark.parametrize('kind', KINDS)
def test_what_soft_labels_leave_out_is_corrected_exactly(kind: str) -> None:
    likelihood = KINDS[kind]()
    network, old = linear(3, likelihood.outputs), examples(likelihood, 12, 4)
    soft, correction = Loss(old.softened(network)), Correction.of(network, old)
    torch.testing.assert_close(
        gradient(network, soft + correction), gradient(network, Loss(old)), rtol=1e-6, atol=1e-8
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10**6))
def test_ewc_with_the_full_covariance_is_learning_all_at_once(
    first: int, second: int, seed: int
) -> None:
    likelihood = KINDS['gaussian']()
    network = linear(3, 2)
    old, new = examples(likelihood, first, seed), examples(likelihood, second, seed + 1)
    posterior = laplace(network, old, DELTA, refine=True).posterior
    minimise(network, Loss(new) + Quadratic.of(posterior))
    found = flat(network).detach().clone()
    minimise(network, Loss(old) + Loss(new) + Quadratic.isotropic(DELTA, zeros(network)))
    torch.testing.assert_close(found, flat(network).detach(), rtol=1e-5, atol=1e-6)


def test_the_process_of_a_linear_network_is_bayesian_regression() -> None:
    likelihood = KnownNoise(np.array([NOISE]))
    network, seen = linear(3, 1), examples(likelihood, 20, 5)
    process = laplace(network, seen, DELTA, refine=True)
    x, y = seen.inputs.numpy(), seen.labels[:, 0]
    precision = DELTA * np.eye(3) + x.T @ x / NOISE
    np.testing.assert_allclose(
        process.posterior.mean, np.linalg.solve(precision, x.T @ y / NOISE), rtol=1e-9
    )
    np.testing.assert_allclose(process.posterior.covariance, np.linalg.inv(precision), rtol=1e-8)
    kernel = x @ x.T / DELTA + NOISE * np.eye(len(y))
    evidence = -0.5 * (
        y @ np.linalg.solve(kernel, y) + np.linalg.slogdet(kernel)[1] + len(y) * np.log(2 * np.pi)
    )
    assert process.evidence == pytest.approx(evidence, rel=1e-9)
    at = torch.tensor(np.random.default_rng(6).normal(size=(4, 3)))
    np.testing.assert_allclose(
        process.kernel(at)[:, 0, :, 0],
        at.numpy() @ np.linalg.inv(precision) @ at.numpy().T,
        rtol=1e-7,
    )


def test_leaving_an_example_out_is_foretold_exactly() -> None:
    likelihood = KINDS['gaussian']()
    network, seen = linear(3, 2), examples(likelihood, 15, 7)
    process = laplace(network, seen, DELTA, refine=True)
    told = process.sensitivity(seen)
    for i in (0, 6, 14):
        rest = [k for k in range(15) if k != i]
        refit = laplace(network, seen.pick(rest), DELTA, refine=True)
        there = seen.pick([i]).inputs
        moved = refit.latent(there)[0] - process.latent(there)[0]
        torch.testing.assert_close(told.deviation[i], moved[0], rtol=1e-7, atol=1e-9)
        removed = process.without(seen.pick([i]))
        torch.testing.assert_close(removed.posterior.mean, refit.posterior.mean)
        torch.testing.assert_close(removed.posterior.covariance, refit.posterior.covariance)
    with pytest.raises(ImproperPosteriorError):
        process.without(seen.stand_for(400))


def test_no_examples_have_an_empty_sensitivity() -> None:
    likelihood = KINDS['gaussian']()
    seen = examples(likelihood, 5, 7)
    none = laplace(linear(3, 2), seen, DELTA).sensitivity(seen.pick([]))
    shapes = [tuple(part.shape) for part in vars(none).values()]
    assert shapes == [(0,), (0, 2), (0, 2), (0,)]


def test_a_function_prior_on_enough_points_is_the_posterior_over_weights() -> None:
    likelihood = KnownNoise(np.array([NOISE]))
    network = linear(3, 1)
    posterior = laplace(network, examples(likelihood, 10, 8), DELTA).posterior
    points = torch.tensor(np.random.default_rng(9).normal(size=(3, 3)))
    prior = FunctionPrior.of(network, posterior, points, jitter=0.0)
    weights = Quadratic.of(posterior)
    load(network, flat(network).detach() + torch.tensor([0.3, -0.2, 0.5]))
    torch.testing.assert_close(prior(network), weights(network), rtol=1e-7, atol=1e-9)
    with pytest.raises(ValueError, match='singular'):
        FunctionPrior.of(network, posterior, points.repeat(2, 1), jitter=0.0)


def test_merging_is_what_all_learned_together() -> None:
    likelihood = KINDS['gaussian']()
    network = linear(3, 2)
    parts = [examples(likelihood, 9, seed) for seed in (10, 11, 12)]
    size = len(flat(network))
    prior = Gaussian(
        torch.zeros(size, dtype=torch.float64), torch.eye(size, dtype=torch.float64) / DELTA
    )
    learned = [laplace(network, part, prior, refine=True).posterior for part in parts]
    merged, posterior = merge(prior, learned), prior
    for part in parts:
        posterior = laplace(network, part, posterior, refine=True).posterior
    torch.testing.assert_close(merged.mean, posterior.mean)
    torch.testing.assert_close(merged.covariance, posterior.covariance)
    with pytest.raises(ValueError, match='2 weights for 3'):
        merge(prior, learned, [1.0, 1.0])


def test_a_diagonal_posterior_is_a_quadratic_of_its_precision() -> None:
    network = linear(2, 1)
    mean = torch.tensor([0.5, -1.0]).double()
    term = Quadratic.of(DiagonalGaussian(mean, torch.tensor([2.0, 3.0]).double()))
    load(network, torch.tensor([1.5, 1.0]).double())
    assert float(term(network).detach()) == pytest.approx(0.5 * (2.0 + 3.0 * 4.0))


def test_a_batch_is_right_on_average() -> None:
    likelihood = KINDS['bernoulli']()
    network, seen = linear(3, 1), Loss(examples(likelihood, 6, 13).stand_for(20))
    generator = torch.Generator().manual_seed(0)
    draws = [float(seen.batch(2, generator)(network).detach()) for _ in range(4000)]
    assert np.mean(draws) == pytest.approx(float(seen(network).detach()), rel=0.03)


def test_memorable_examples_are_the_undecided_ones_equally_many_of_each_class() -> None:
    likelihood = KINDS['bernoulli']()
    network, seen = linear(1, 1), examples(likelihood, 40, 14, inputs=1)
    load(network, torch.tensor([3.0]).double())
    scores, groups = curvature_score(network, seen), torch.tensor(seen.labels[:, 0])
    kept = top(scores, 6, groups)
    assert [int((groups[kept] == g).sum()) for g in (0, 1)] == [3, 3]
    for g in (0, 1):
        mine = torch.nonzero(groups == g)[:, 0]
        best = mine[seen.inputs[mine, 0].abs().argsort()[:3]]
        assert set(best.tolist()) == set(kept[groups[kept] == g].tolist())
    chosen = stratified(groups, 6, torch.Generator().manual_seed(1))
    assert [int((groups[chosen] == g).sum()) for g in (0, 1)] == [3, 3]


def test_terms_can_be_summed() -> None:
    likelihood = KINDS['bernoulli']()
    network, seen = linear(3, 1), Loss(examples(likelihood, 5, 15))
    terms = [seen, Quadratic.isotropic(DELTA, zeros(network)), 2 * seen]
    alone = sum(float(term(network).detach()) for term in terms)
    assert float(sum(terms)(network).detach()) == pytest.approx(alone)
    with pytest.raises(TypeError):
        1.0 + seen


def test_no_examples_are_no_loss() -> None:
    likelihood = KINDS['categorical']()
    none = examples(likelihood, 4, 16).pick([])
    assert len(none) == len(none.stand_for(9)) == 0
    assert float(Loss(none)(linear(3, 3)).detach()) == 0.0


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match='a batch of 0: give at least 1'):
        Loss(examples(KINDS['bernoulli'](), 5, 17)).batch(0)


@pytest.mark.parametrize(
    'labels', [np.zeros((2, 1)), np.zeros((3, 2)), np.zeros(3), np.full((3, 1), np.nan)]
)
def test_labels_that_do_not_fit_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match='do not fit 3 inputs under Bernoulli'):
        Examples.of(torch.zeros(3, 2), labels, Bernoulli())


@pytest.mark.parametrize('outputs', [1, 2, 5])
def test_outputs_that_do_not_fit_the_likelihood_are_refused(outputs: int) -> None:
    seen = Loss(examples(KINDS['categorical'](), 4, 18))
    with pytest.raises(ValueError, match=rf'outputs \(4, {outputs}\) where Categorical needs'):
        seen(linear(3, outputs))
