"""The priors on networks that are not linear, for every likelihood, and the benches on them."""

import copy

import numpy as np
import pytest
import torch

from lifelong_bayes_ros import blr
from lifelong_bayes_ros.dynamics.likelihoods import HeteroscedasticGaussian, KnownNoise
from lifelong_bayes_ros.experiments import (
    bench_memory_contradict,
    bench_memory_digits,
    bench_memory_leave_out,
    bench_memory_regions,
)
from lifelong_bayes_ros.experiments.bench_memory_networks import digits, mlp, solve
from lifelong_bayes_ros.memory.dnn2gp import jacobian, laplace
from lifelong_bayes_ros.memory.examples import Examples, call
from lifelong_bayes_ros.memory.flat import at, flat, load
from lifelong_bayes_ros.memory.memorable import recombined, representative
from lifelong_bayes_ros.memory.objective import Correction, FunctionPrior, Loss, Quadratic, Term
from lifelong_bayes_ros_sim import check_regimes
from test_objective import KINDS, examples, gradient, zeros

DELTA = 0.7


def moved(network: torch.nn.Module, size: float, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    w = flat(network).detach()
    load(network, w + size * torch.randn(len(w), generator=generator, dtype=w.dtype))


@pytest.mark.parametrize('kind', KINDS)
def test_a_k_prior_with_what_it_leaves_out_is_the_past_of_any_network(kind: str) -> None:
    """With all of the past in memory, however far the weights went (Daxberger et al. 2023)."""
    likelihood = KINDS[kind]()
    network, old = mlp(3, (4,), likelihood.outputs, 0), examples(likelihood, 9, 1)
    prior = Quadratic.isotropic(DELTA, zeros(network))
    soft = Loss(old.softened(network))
    linear, whole = Correction.of(network, old), Loss(old) - soft
    # Not at an optimum: nothing cancels by luck.
    for seed in (0, 1, 2):
        moved(network, 0.7 * bool(seed), seed)
        past = gradient(network, Loss(old) + prior)
        # The line is a tangent where the link is not canonical: exact at the old weights only.
        exact = [whole] if seed and kind == 'heteroscedastic' else [whole, linear]
        for rest in exact:
            found = gradient(network, soft + rest + prior)
            torch.testing.assert_close(found, past, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize('kind', KINDS)
def test_removal_by_a_k_prior_is_training_without(kind: str) -> None:
    """K − Loss(removed), in its linear form, has the gradient of the rest at the old optimum."""
    likelihood = KINDS[kind]()
    network, seen = mlp(3, (4,), likelihood.outputs, 3), examples(likelihood, 14, 4)
    prior = Quadratic.isotropic(DELTA, zeros(network))
    solve(network, Loss(seen) + prior, 400)
    rest, removed = seen.pick(range(2, 14)), seen.pick([0, 1])
    k_prior = Loss(rest.softened(network)) + Quadratic.isotropic(DELTA, flat(network))
    left = gradient(network, k_prior - Correction.of(network, removed))
    torch.testing.assert_close(left, gradient(network, Loss(rest) + prior), rtol=1e-3, atol=1e-4)
    assert float(left.abs().max()) > 0.01  # there is something to be done


def test_a_heteroscedastic_k_prior_is_a_divergence_of_predictions() -> None:
    """KL(N_old ‖ N_w) up to a constant: means and variances are both remembered."""
    likelihood = HeteroscedasticGaussian()
    network, seen = mlp(3, (4,), 2, 5), examples(likelihood, 8, 6)
    soft = Loss(seen.softened(network))
    with torch.no_grad():
        old = network(seen.inputs)
        start = float(soft(network))
        moved(network, 0.5)
        now = network(seen.inputs)
        v, v_old = now[:, 1].exp(), old[:, 1].exp()
        kl = 0.5 * ((v / v_old).log() + (v_old + (old - now)[:, 0].square()) / v - 1).sum()
        assert float(soft(network)) - start == pytest.approx(float(kl), rel=1e-9)


@pytest.mark.parametrize('kind', KINDS)
def test_terms_compose_under_every_likelihood(kind: str) -> None:
    likelihood = KINDS[kind]()
    network, seen = mlp(3, (4,), likelihood.outputs, 7), examples(likelihood, 12, 8)
    posterior = laplace(network, seen, DELTA).posterior
    parts: list[tuple[float, Term]] = [
        (1.0, Loss(seen)),
        (2.0, Loss(seen.pick([0, 1]).softened(network).stand_for(6))),
        (-0.5, Correction.of(network, seen.pick([2, 3]))),
        (1.0, Quadratic.of(posterior)),
        (0.3, FunctionPrior.of(network, posterior, seen.inputs[:2])),
    ]
    whole = sum(((f * t) for f, t in parts[1:]), parts[0][0] * parts[0][1])
    moved(network, 0.3)
    expected = sum(f * gradient(network, t) for f, t in parts)
    torch.testing.assert_close(gradient(network, whole), expected)
    assert bool(torch.isfinite(gradient(network, whole.batch(3))).all())


def test_a_function_prior_on_probabilities_is_that_of_the_kernel() -> None:
    """Near the old weights: ½ (J d)ᵀ (J Σ Jᵀ)⁻¹ (J d), J of what is held (Pan et al. 2020)."""
    likelihood = KINDS['bernoulli']()
    network, seen = mlp(3, (6,), 1, 9), examples(likelihood, 20, 10)

    def probability(network: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(network(inputs))

    posterior = laplace(network, seen, DELTA).posterior
    points = seen.inputs[:4]
    prior = FunctionPrior.of(network, posterior, points, probability, jitter=0.0)
    j = torch.autograd.functional.jacobian(
        lambda w: torch.sigmoid(at(network, w)(points))[:, 0], flat(network).detach()
    )
    kernel = j @ posterior.covariance @ j.T
    step = 1e-4 * torch.randn(j.shape[1], generator=torch.Generator().manual_seed(0)).double()
    assert float(prior(network).detach()) == 0.0
    load(network, flat(network).detach() + step)
    told = 0.5 * (j @ step) @ torch.linalg.solve(kernel, j @ step)
    assert float(prior(network).detach()) == pytest.approx(float(told), rel=0.01)


@pytest.mark.parametrize('kind', ['heteroscedastic', 'bernoulli', 'categorical'])
def test_the_evidence_of_a_process_is_the_marginal_likelihood(kind: str) -> None:
    """Laplace's integral over weights beside one by importance sampling."""
    likelihood = KINDS[kind]()
    network = torch.nn.Linear(1, likelihood.outputs, bias=False).double()
    seen = examples(likelihood, 40, 11, inputs=1)
    prior = Quadratic.isotropic(DELTA, zeros(network))
    solve(network, Loss(seen) + prior, 200)
    process = laplace(network, seen, DELTA)
    size = len(process.weights)
    scale = torch.linalg.cholesky(2 * process.posterior.covariance)
    z = torch.randn(20_000, size, generator=torch.Generator().manual_seed(1)).double()
    w = process.weights + z @ scale.T
    f = torch.einsum('ni,so->sno', seen.inputs, w)
    log_p = -likelihood.loss(f.numpy(), seen.labels).sum(axis=1)
    log_p += 0.5 * (size * np.log(DELTA) - DELTA * w.square().sum(dim=1).numpy())
    log_q = -0.5 * z.square().sum(dim=1).numpy() - float(torch.log(torch.diagonal(scale)).sum())
    ratio = log_p - log_q
    found = np.log(np.mean(np.exp(ratio - ratio.max()))) + ratio.max()
    assert process.evidence == pytest.approx(found, abs=0.15)


def test_evidence_prefers_the_prior_that_made_the_weights() -> None:
    likelihood = KnownNoise(np.array([0.1]))
    rng = np.random.default_rng(12)
    x = torch.tensor(rng.normal(size=(60, 20)))
    y = x.numpy() @ rng.normal(size=20) / np.sqrt(5.0) + np.sqrt(0.1) * rng.normal(size=60)
    network = torch.nn.Linear(20, 1, bias=False).double()
    seen = Examples.of(x, y[:, None], likelihood)
    evidence = {d: laplace(network, seen, d, refine=True).evidence for d in (0.05, 5.0, 500.0)}
    assert max(evidence, key=evidence.__getitem__) == 5.0


def orthogonal(seed: int, scale: np.ndarray, noise: float) -> Examples:
    """Regression of which the Hessian is diagonal: a diagonal posterior is exact."""
    rng = np.random.default_rng(seed)
    x = np.linalg.qr(rng.normal(size=(40, len(scale))))[0] * scale
    y = x @ rng.normal(size=(len(scale), 1)) + np.sqrt(noise) * rng.normal(size=(40, 1))
    return Examples.of(torch.tensor(x), y, KnownNoise(np.array([noise])))


def learn(
    network: torch.nn.Module, seen: Examples, prior: blr.DiagonalGaussian | None
) -> blr.DiagonalGaussian:
    """What the optimizer believes after some examples."""
    settings = {'prior_precision': DELTA / len(seen)} if prior is None else {'prior': prior}
    rule = blr.Rule(blr.GaussNewton())
    optimizer = blr.BLR(
        network.parameters(),
        0.1,
        ess=len(seen),
        rule=rule,
        betas=(0.0, 0.9),
        generator=torch.Generator().manual_seed(0),
        use_kernel=False,
        **settings,
    )
    labels, noise = torch.tensor(seen.labels), float(seen.likelihood.variance[0])

    def loss(f: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 0.5 * (f - y).square().sum(dim=1) / noise

    for step in range(220):
        optimizer.param_groups[0]['lr'] = min(0.1, 1 / max(step - 90, 1))
        optimizer.evaluate(lambda draw, x: draw.call(network, x), loss, seen.inputs, labels)
        optimizer.step()
    return optimizer.posterior()


def test_the_precision_of_the_optimizer_is_the_importance_of_ewc() -> None:
    """S_old needs no extra pass, and makes EWC and online EWC exact where it is diagonal."""
    scale, noise = np.array([3.0, 1.0, 0.1]), 0.05
    first, second = orthogonal(1, scale, noise), orthogonal(2, scale[::-1].copy(), noise)
    network = torch.nn.Linear(3, 1, bias=False).double()
    old = learn(network, first, None)
    expected = DELTA + scale**2 / noise
    np.testing.assert_allclose(old.precision.numpy(), expected, rtol=0.02)
    both = Loss(first) + Loss(second) + Quadratic.isotropic(DELTA, zeros(network))
    joint = copy.deepcopy(network)
    solve(joint, both, 100)
    importance = copy.deepcopy(network)
    solve(importance, Loss(second) + Quadratic.of(old), 100)
    wanted = flat(joint).detach().numpy()
    # The mean is an average of noisy steps: it is off by a small part of its own spread.
    spread = 1 / np.sqrt(expected)
    assert np.all(np.abs(flat(importance).detach().numpy() - wanted) < 0.3 * spread)
    online = learn(network, second, old)
    assert np.all(np.abs(online.mean.numpy() - wanted) < 0.3 * spread)
    np.testing.assert_allclose(
        online.precision.numpy(), expected + scale[::-1] ** 2 / noise, rtol=0.02
    )


def test_inputs_that_recombine_memory_lie_where_it_lies() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(33, 3)) * [1.0, 10.0, 0.1] + [0.0, 5.0, 1.0]
    found = recombined(points, 4000, rng)
    ranked = np.sort(points, axis=0)
    assert np.all(found >= 1.5 * ranked[0] - 0.5 * ranked[1])
    assert np.all(found <= 1.5 * ranked[-1] - 0.5 * ranked[-2])
    below = (found[None] <= ranked[:, None]).mean(axis=1)  # of every remembered value
    assert np.abs(below - (np.arange(33)[:, None] + 0.5) / 33).max() < 0.03
    assert np.abs(np.corrcoef(found.T) - np.eye(3)).max() < 0.06
    assert len(np.unique(found, axis=0)) == 4000


def test_points_that_represent_others_have_their_distribution() -> None:
    rng = np.random.default_rng(0)
    points = np.stack([rng.normal(size=1000), rng.exponential(size=1000), np.ones(1000)], axis=1)
    wanted = np.quantile(points, (np.arange(33) + 0.5) / 33, axis=0)

    def miss(indices: np.ndarray) -> np.ndarray:
        return np.abs(np.sort(points[indices], axis=0) - wanted).mean(axis=0)

    chosen = representative(points, 33, rng)
    assert len(set(chosen.tolist())) == 33
    at_random = np.mean([miss(rng.permutation(1000)[:33]) for _ in range(100)], axis=0)
    assert np.all(miss(chosen)[:2] < 0.5 * at_random[:2])
    with pytest.raises(ValueError, match='5 of 3 points'):
        representative(points[:3], 5, rng)


def test_one_point_cannot_be_recombined() -> None:
    with pytest.raises(ValueError, match='1 points cannot be recombined'):
        recombined(np.zeros((1, 3)), 5, np.random.default_rng(0))


# ---------------------------------------------------------------------- the benches
def test_leave_one_out_training_ends_where_the_gradient_is_zero() -> None:
    likelihood = KINDS['gaussian']()
    network, seen = mlp(3, (3,), 2, 1), examples(likelihood, 15, 2)
    bench_memory_leave_out.finish(network, seen)
    prior = Quadratic.isotropic(bench_memory_leave_out.PRECISION, zeros(network))
    assert float(gradient(network, Loss(seen) + prior).abs().max()) < 1e-4


def test_agreement_is_perfect_only_with_itself() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(30, 2))
    assert bench_memory_leave_out.agreement(2 * a, a) == (pytest.approx(1.0), pytest.approx(2.0))
    assert abs(bench_memory_leave_out.agreement(rng.normal(size=(30, 2)), a)[0]) < 0.6


def test_regimes_that_contradict_are_ones_the_robot_can_have() -> None:
    shifts = bench_memory_contradict.SHIFTS
    check_regimes(bench_memory_contradict.ROBOT, shifts)
    assert len(shifts) == 8
    phases = bench_memory_contradict.life(3).phases
    assert {n for n, _ in phases} == set(shifts) and len(phases) == 8


def test_digits_are_split_into_tasks_of_two_classes() -> None:
    parts = bench_memory_digits.tasks(0)
    assert sum(len(seen) for seen, _ in parts) == bench_memory_digits.TRAINING
    assert sum(len(test) for _, test in parts) == 1797 - bench_memory_digits.TRAINING
    images = [tuple(r) for pair in parts for e in pair for r in e.inputs.tolist()]
    assert len(set(images)) == len({tuple(r) for r in digits()[0].tolist()})
    for seen, _ in parts:
        assert np.array_equal(np.unique(seen.labels.argmax(axis=1)), [0, 1])


def test_a_method_keeps_four_images_two_of_each_class() -> None:
    parts = bench_memory_digits.tasks(0)
    network = bench_memory_digits.MultiHead(64, 0)
    method = bench_memory_digits.KPrior()
    method.learned(network, 0, parts[0][0])
    kept, total = method.memory[0]
    assert total == len(parts[0][0]) and kept.labels.sum(axis=0).tolist() == [2, 2]
    # Nothing has been learned since: the past does not pull at shared weights or at any head.
    past = method.past(network)
    assert float(gradient(network, past).abs().max()) < 1e-9


@pytest.mark.parametrize('name', bench_memory_regions.METHODS)
def test_no_method_of_the_regions_sees_more_of_the_past_than_it_keeps(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for constant, value in (('SEEN', 20), ('TEST', 5), ('STORED', 10), ('WIDTHS', (2,))):
        monkeypatch.setattr(bench_memory_regions, constant, value)
    world = bench_memory_regions.World(0)
    assert [len(k) for k in world.kept] == [4, 4, 2]
    network = world.network()
    past = bench_memory_regions.METHODS[name]()(world, network, 1)
    moved(network, 0.3)
    before = float(past(network).detach())
    # EWC has seen the region when it learned it; nothing else may look at what was not kept.
    left = [i for i in range(20) if i not in set(world.kept[0].tolist())]
    world.seen[0].inputs[left] += 100.0
    world.raw[0][left] += 100.0
    if not name.startswith('EWC'):
        network = world.network()
        past = bench_memory_regions.METHODS[name]()(world, network, 1)
        moved(network, 0.3)
        assert float(past(network).detach()) == pytest.approx(before)


def test_the_regions_have_a_row_for_every_method_and_for_what_forgets_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = {'SEEN': 20, 'TEST': 5, 'STORED': 10, 'WIDTHS': (2,), 'ITERATIONS': 3, 'IMAGINED': 5}
    for constant, value in small.items():
        monkeypatch.setattr(bench_memory_regions, constant, value)
    shares: list[float] = []
    rows = bench_memory_regions.region_rows([0], shares.append)
    names = (*bench_memory_regions.METHODS, bench_memory_regions.OWN)
    assert [r['name'].split(', ')[-1] for r in rows[::2]] == [n.split(', ')[-1] for n in names]
    assert all(r['value'] > 0 for r in rows)
    assert shares == sorted(shares) and shares[0] > 0 and shares[-1] <= 1


def test_jacobians_are_those_of_autograd() -> None:
    network = mlp(2, (3,), 2, 0)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).double()
    j, _ = jacobian(network, x, call)
    told = torch.autograd.functional.jacobian(lambda w: at(network, w)(x), flat(network).detach())
    torch.testing.assert_close(j, told)
