"""Planning: the searches, what they plan through, limits kept in spite of ignorance, engines."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from lifelong_bayes_ros.blr import graph
from lifelong_bayes_ros.control import native
from lifelong_bayes_ros.control.arrays import Arrays
from lifelong_bayes_ros.control.chance import SHARE, Chance
from lifelong_bayes_ros.control.cost import Cost
from lifelong_bayes_ros.control.goals import Trajectory
from lifelong_bayes_ros.control.native import NativeRollout
from lifelong_bayes_ros.control.noise import Noise, autoregressive, coloured
from lifelong_bayes_ros.control.optimizers import OPTIMIZERS
from lifelong_bayes_ros.control.planner import Planner
from lifelong_bayes_ros.control.rollout import Rollout
from lifelong_bayes_ros.control.torch_rollout import TorchRollout
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.robot.spec import RobotSpec, load_robot, parse_robot
from plants import QUAD, random_dynamics, random_step
from test_control import some_belief, start, step_by_step

PERIOD = QUAD.period_ns
ENGINES = ('numpy', 'native', 'torch')
compiled = pytest.mark.skipif(native.load() is None, reason='no C compiler')
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')


def spec_with(chance=None, robot=QUAD, **planner) -> RobotSpec:
    data = robot.model_dump()
    data['planner'] |= planner
    data['cost']['chance'] = chance or {}
    return RobotSpec.model_validate(data)


def planner_with(dynamics, seed=0, device='cpu', **settings) -> Planner:
    return Planner(replace(dynamics, spec=spec_with(**settings)), seed, device)


def plan(planner, belief, ticks=1, **options):
    for tick in range(ticks):
        stamp = (tick + 1) * PERIOD
        found = planner.plan(belief, stamp, start(0), planner.dynamics.history(), **options)
    return found


def drawn(taken, count, da, seed=0):
    return Noise(taken, da, Arrays().normal(seed))(count)


# ---------------------------------------------------------------------- noise
@pytest.mark.parametrize('steps', [1, 2, 3, 15, 20])
@pytest.mark.parametrize('exponent', [0.0, 1.0, 2.0])
def test_coloured_noise_has_unit_variance_and_falls_off_as_it_should(steps, exponent):
    noise = drawn(coloured(steps, exponent), 20_000, 2)
    assert noise.shape == (20_000, steps, 2) and noise.dtype == np.float32
    np.testing.assert_allclose(noise.std(axis=(0, 2)), 1.0, atol=0.02)
    power = np.square(np.abs(np.fft.rfft(noise, axis=1))).mean(axis=(0, 2))[1:]
    if steps == 20:
        frequency = np.arange(1, len(power) + 1)
        slope = np.polyfit(np.log(frequency), np.log(power), 1)[0]
        assert slope == pytest.approx(-exponent, abs=0.05)


def test_autoregressive_noise_keeps_its_share():
    noise = drawn(autoregressive(6, 0.6), 20_000, 1)[..., 0]
    np.testing.assert_allclose(noise.std(axis=0), 1.0, atol=0.02)
    assert np.corrcoef(noise[:, 3], noise[:, 4])[0, 1] == pytest.approx(0.6, abs=0.03)


def test_noise_drawn_ahead_is_the_next_one_and_is_used_once():
    plain, ahead = (Noise(autoregressive(4, 0.5), 2, Arrays().normal(3)) for _ in range(2))
    ahead.prepare()  # nothing was asked for yet
    for count in (5, 5, 5):
        np.testing.assert_array_equal(ahead(count), plain(count))
        ahead.prepare()
        ahead.prepare()
    np.testing.assert_array_equal(ahead(5), plain(5))
    ahead.prepare()
    assert ahead(7).shape == (7, 4, 2)  # not what was foreseen
    assert ahead(5).shape == (5, 4, 2)


# ---------------------------------------------------------------------- searches
@pytest.mark.parametrize('name', OPTIMIZERS)
def test_a_search_finds_the_bottom_of_a_bowl_within_the_limits(name):
    spec = spec_with(optimizer=name, horizon=6, candidates=200)
    goal = np.random.default_rng(1).uniform(1.0, 11.0, (6, 2)).astype(np.float32)
    goal[0, 0] = 14.0  # out of range: the limit is best
    search, settings = OPTIMIZERS[name](spec), spec.planner
    noise = Noise(autoregressive(6, settings.correlation), 2, Arrays().normal(2))
    for round_ in range(60):
        plans = search.ask(noise, settings.candidates, round_ % 3)
        assert plans.dtype == np.float32
        assert (plans >= 0).all() and (plans <= 12).all()
        search.tell(plans, np.square(plans - goal).sum(axis=(1, 2)))
    np.testing.assert_allclose(search.plan, np.minimum(goal, 12), atol=1.0)
    np.testing.assert_array_equal(search.plan.shape, (6, 2))


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_costs_that_are_no_numbers_are_never_chosen(name):
    spec = spec_with(optimizer=name, horizon=4, candidates=50)
    search, rng = OPTIMIZERS[name](spec), np.random.default_rng(0)
    plans = search.ask(lambda n: rng.standard_normal((n, 4, 2), np.float32), 50, 0)
    cost = np.full(len(plans), np.nan, np.float32)
    cost[7], cost[8] = 1.0, np.inf
    search.tell(plans, cost)
    np.testing.assert_allclose(search.plan, plans[7], rtol=1e-5)
    assert np.isfinite(search.spread).all()
    search.tell(plans, np.full(len(plans), np.nan))
    assert np.isfinite(search.plan).all()


def test_icem_shrinks_its_rounds_and_keeps_elites():
    spec = spec_with(optimizer='icem', horizon=4, candidates=100, elites=10, keep=0.3, shrink=2.0)
    search, rng = OPTIMIZERS['icem'](spec), np.random.default_rng(0)

    def noise(count):
        return rng.standard_normal((count, 4, 2), np.float32)

    first = search.ask(noise, 100, 0)
    cost = np.square(first - 5).sum(axis=(1, 2))
    search.tell(first, cost)
    second = search.ask(noise, 100, 1)
    assert len(first) == 101  # and the best plan so far
    assert len(second) == 50 + 3 + 1
    for elite in first[np.argsort(cost)[:3]]:
        assert (second == elite).all(axis=(1, 2)).any()
    search.shift(1)
    third = search.ask(noise, 100, 0)
    best = first[np.argmin(cost)]
    moved = np.concatenate([best[1:], best[-1:]])
    assert (third == moved).all(axis=(1, 2)).any()


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_penalties_do_not_melt_what_is_told_apart_within_the_limits(name):
    spec = spec_with(optimizer=name, horizon=1, candidates=400, temperature=0.02)
    plain, limited = (OPTIMIZERS[name](spec) for _ in range(2))
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((400, 1, 2)).astype(np.float32)
    for search in (plain, limited):
        plans = search.ask(lambda n: noise.copy(), 400, 0)
        cost = np.abs(plans - 4.0).sum(axis=(1, 2))
        penalty = np.where(plans[:, 0, 0] > 6.0, 1e6, 0.0)  # far from the best plan
        search.tell(plans, cost, penalty if search is limited else None)
    np.testing.assert_allclose(limited.plan, plain.plan, atol=0.05)


# ---------------------------------------------------------------------- engines
def rollouts(dynamics):
    found = [Rollout(dynamics), TorchRollout(Rollout(dynamics), Arrays('cpu'))]
    return found + ([NativeRollout(dynamics)] if native.load() else [])


@pytest.mark.parametrize('robot', ['quad', 'arm', 'diffdrive', 'cartpole'])
@pytest.mark.parametrize('width', [4, 17])
def test_all_engines_roll_out_the_dynamics_step_by_step(robot, width):
    dynamics, rng = random_dynamics(robot, width, seed=width), np.random.default_rng(0)
    belief, spec = some_belief(dynamics, 1), dynamics.spec
    x, _, past = random_step(dynamics, rng)
    shape = (37, 5, len(spec.action))
    actions = rng.uniform(spec.action_low, spec.action_high, shape).astype(np.float32)
    mean = np.array([step_by_step(dynamics, belief, x, a, past) for a in actions])
    drawn = np.array(
        [
            [step_by_step(dynamics, belief, x, a, past, theta) for a in actions[:6]]
            for theta in belief.draws(3)
        ]
    )
    for rollout in rollouts(dynamics):
        state, plans, before = x, actions, past
        if isinstance(rollout, TorchRollout):
            state, plans, before = (Arrays('cpu').array(a) for a in (x, actions, past))
        draws = rollout.draws(belief, 3)
        assert len(draws[0]) == 3
        got = {
            'mean': (rollout.run(rollout.mean(belief), state, plans, before), mean),
            'all': (rollout.run_all(draws, state, plans[:6], before), drawn),
            'draw': (
                rollout.run_shared(draws, state, plans[:6], before),
                np.array([drawn[i % 3, i] for i in range(6)]),
            ),
        }
        for what, (states, expected) in got.items():
            scale = np.abs(expected).max()
            np.testing.assert_allclose(
                np.asarray(states), expected, rtol=3e-3, atol=3e-3 * scale, err_msg=what
            )


def test_a_trunk_that_torch_adopts_is_rolled_out_and_the_last_one_left_alone():
    first, second = (random_dynamics('quad', 4, seed=seed) for seed in (1, 2))
    arrays, rng = Arrays('cpu'), np.random.default_rng(0)
    rollout, old = TorchRollout(Rollout(first), arrays), Rollout(first)
    actions = rng.uniform(0, 12, (5, 4, 2)).astype(np.float32)
    given = [arrays.array(a) for a in (start(0), actions, first.history())]
    rollout.adopt(Rollout(second))
    for dynamics, found in ((second, rollout), (first, old)):
        belief = some_belief(dynamics, 3)
        args = given if found is rollout else (start(0), actions, first.history())
        got = np.asarray(found.run(found.mean(belief), *args))
        expected = [
            step_by_step(dynamics, belief, start(0), plan, first.history()) for plan in actions
        ]
        np.testing.assert_allclose(got, expected, rtol=3e-3, atol=1e-3)


@compiled
def test_the_compiled_rollout_is_exact_to_single_precision(tiny_prior):
    dynamics, rng = tiny_prior.dynamics, np.random.default_rng(0)
    rollout, belief = NativeRollout(dynamics), some_belief(dynamics, 2)
    actions = rng.uniform(0, 12, (200, 20, 2)).astype(np.float32)
    weights, past = rollout.mean(belief), dynamics.history()
    got = rollout.run(weights, start(0), actions, past)
    expected = Rollout(dynamics).run(weights, start(0), actions, past)
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())
    fan = rollout.fan(belief, start(0), actions[0], past)
    np.testing.assert_allclose(
        fan,
        Rollout(dynamics).fan(belief, start(0), actions[0], past),
        atol=1e-4 * np.abs(fan).max(),
    )


@compiled
def test_the_compiled_rollout_turns_angles_and_survives_what_runs_away():
    dynamics = random_dynamics('arm', 8)
    rollout, plain, past = NativeRollout(dynamics), Rollout(dynamics), dynamics.history()
    weights = rollout.weights(dynamics.nominal_theta.astype(np.float32))
    actions = np.zeros((40, 1, 2), np.float32)
    for angle in np.linspace(-50, 50, 41):
        x = np.array([angle, -angle / 3, 0.3, -0.2])
        got, expected = (r.run(weights, x, actions, past) for r in (rollout, plain))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)
    got = rollout.run(weights, np.array([np.nan, 1e30, 0, 0]), actions, past)
    assert not np.isfinite(got).all()


@pytest.mark.parametrize('through', ['mean', 'draw', 'all'])
@pytest.mark.parametrize('optimizer', ['mppi', 'icem'])
def test_all_engines_find_the_same_plan(tiny_prior, through, optimizer):
    dynamics = tiny_prior.dynamics
    belief = some_belief(dynamics, 3)
    belief = replace(belief, factor=0.05 * belief.factor)
    chance = {'pitch': {'low': -0.3, 'high': 0.3}, 'vx': {'high': 1.0}}
    settings = {'through': through, 'optimizer': optimizer, 'draws': 4, 'chance': chance}
    settings |= {'beta': 0.5} if through == 'all' else {}
    plans = {
        engine: plan(planner_with(dynamics, engine=engine, **settings), belief)
        for engine in ENGINES
    }
    for engine in ('native', 'torch'):
        np.testing.assert_allclose(plans[engine].actions, plans['numpy'].actions, atol=0.02)
        np.testing.assert_allclose(plans[engine].spread, plans['numpy'].spread, atol=0.02)


class Traced:
    """What a CUDA graph is, without CUDA: operations and the tensors they read, as captured."""

    def __init__(self, function, inputs, device):
        self._replay = make_fx(function)(*(t.clone() for t in inputs))

    def __call__(self, *inputs):
        return self._replay(*inputs)


def planners_alike(dynamics, device, **settings):
    """A planner in numpy and one on a device, with the same noise."""
    chance = {'pitch': {'low': -0.3, 'high': 0.3}, 'vx': {'high': 1.0}}
    settings |= {'draws': 4, 'candidates': 64, 'chance': chance}
    here = planner_with(dynamics, engine='numpy', **settings)
    there = planner_with(dynamics, device=device, engine='torch', **settings)
    normal = Arrays().normal(0)
    there.noise._normal = lambda shape: there.arrays.array(normal(shape))  # drawn on the host
    return here, there


def plan_alike(dynamics, here, there):
    """Plans agree while Belief, state, goal, β and trunk change."""
    belief, past = some_belief(dynamics, 3), dynamics.history()

    def agree(tick, factor=0.05):
        state, known = start(0) + np.float32(0.02 * tick), replace(belief, factor=factor * spread)
        found = [p.plan(known, (tick + 1) * PERIOD, state, past) for p in (here, there)]
        np.testing.assert_allclose(found[1].actions, found[0].actions, atol=0.02)
        np.testing.assert_allclose(found[1].spread, found[0].spread, atol=0.02)

    spread = belief.factor
    for tick in range(3):
        agree(tick, 0.05 * (tick + 1))
    for change in (
        lambda p: setattr(p, 'beta', 0.7),
        lambda p: setattr(p, 'beta', 0.0),
        lambda p: p.aim(Trajectory(QUAD, {'x': 4.0, 'z': 9.0}, [0], [[1.0, 2.0]])),
        lambda p: p.adopt(replace(dynamics, nominal=1.2 * dynamics.nominal)),
    ):
        tick += 1
        for planner in (here, there):
            change(planner)
        agree(tick)


@cuda
@pytest.mark.parametrize('through', ['mean', 'draw', 'all'])
@pytest.mark.parametrize('optimizer', ['mppi', 'icem'])
def test_a_gpu_finds_the_same_plan_for_the_same_noise(tiny_prior, through, optimizer):
    dynamics = tiny_prior.dynamics
    both = planners_alike(dynamics, 'cuda', through=through, optimizer=optimizer)
    plan_alike(dynamics, *both)


@pytest.mark.parametrize('through', ['mean', 'draw', 'all'])
@pytest.mark.parametrize('optimizer', ['mppi', 'icem'])
def test_a_graph_of_a_plan_follows_all_that_changes(tiny_prior, through, optimizer, monkeypatch):
    here, there = planners_alike(tiny_prior.dynamics, 'cpu', through=through, optimizer=optimizer)
    monkeypatch.setattr(graph, 'Graph', Traced)
    monkeypatch.setattr(Arrays, 'on_cuda', property(lambda self: self.device is not None))
    plan_alike(tiny_prior.dynamics, here, there)
    assert there._graphs


HOST = {'lift_fresh', '_to_copy', 'copy_', '_local_scalar_dense', 'item', 'nonzero'}


class Operations(TorchDispatchMode):
    """Notes the names of operations."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.name().removeprefix('aten::').partition('.')[0])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize('through', ['mean', 'draw', 'all'])
def test_weighing_plans_needs_nothing_from_the_host(tiny_prior, through):
    """A CUDA graph can hold neither copies from the host nor decisions by values."""
    dynamics = tiny_prior.dynamics
    planner = planners_alike(dynamics, 'cpu', through=through)[1]
    weigh = planner._judge(some_belief(dynamics), PERIOD, start(0), dynamics.history())
    plans = planner.optimizer.ask(planner.noise, 64, 0)
    weigh(plans)  # makes what is kept
    with Operations() as operations:
        weigh(plans)
    assert 'addmm' in operations.names
    assert not HOST & operations.names


@cuda
def test_a_gpu_draws_the_same_for_the_same_seed_and_survives_what_runs_away(tiny_prior):
    dynamics = tiny_prior.dynamics
    belief = some_belief(dynamics)
    found = [plan(planner_with(dynamics, seed, 'cuda'), belief, ticks=3) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(found[0].actions, found[1].actions)
    assert not np.array_equal(found[0].actions, found[2].actions)
    planner = planner_with(dynamics, device='cuda')
    lost = np.full(6, np.nan, np.float32)
    wild = planner.plan(belief, PERIOD, lost, dynamics.history())
    assert np.isfinite(wild.actions).all()


@pytest.mark.parametrize('engine', ENGINES)
def test_another_beta_is_for_the_next_plan(tiny_prior, engine, monkeypatch):
    dynamics, belief = tiny_prior.dynamics, some_belief(tiny_prior.dynamics)
    calm, hasty = (planner_with(dynamics, engine=engine, through='mean') for _ in range(2))
    ask = hasty.optimizer.ask

    def changed(*args):
        hasty.beta = 0.5  # by an operator, while a plan is on its way
        return ask(*args)

    monkeypatch.setattr(hasty.optimizer, 'ask', changed)
    np.testing.assert_array_equal(plan(hasty, belief).actions, plan(calm, belief).actions)
    assert hasty.through == 'all'


def test_a_trunk_of_another_width_is_rolled_out_too(tiny_prior):
    small, large = (random_dynamics('quad', width, seed=1) for width in (4, 9))
    plans = []
    for first in (small, large):
        planner = planner_with(first, engine='torch')
        planner.adopt(replace(large, spec=planner.spec))
        plans.append(plan(planner, some_belief(large)).actions)
    np.testing.assert_array_equal(*plans)


def test_a_robot_without_a_compiler_plans_with_numpy(tiny_prior, monkeypatch):
    monkeypatch.setattr(native, 'load', lambda: None)
    with pytest.warns(UserWarning, match='slower'):
        planner = planner_with(tiny_prior.dynamics, engine='native')
    assert type(planner.rollout) is Rollout
    plan(planner, some_belief(tiny_prior.dynamics))


def test_a_device_that_torch_does_not_have_is_named(tiny_prior):
    with pytest.raises(UserError, match=r"device 'nowhere'.*cpu or cuda"):
        Planner(tiny_prior.dynamics, device='nowhere')


# ---------------------------------------------------------------------- through the Belief
def test_proposals_take_part_and_the_number_of_candidates_can_be_chosen(tiny_prior, monkeypatch):
    dynamics = tiny_prior.dynamics
    planner, belief = planner_with(dynamics), some_belief(dynamics)
    good = plan(planner_with(dynamics, candidates=2000, iterations=4), belief).actions
    seen = []
    run = planner.rollout.run
    monkeypatch.setattr(planner.rollout, 'run', lambda *a: seen.append(a[2]) or run(*a))
    wild = np.full_like(good, 99.0)
    few = plan(planner, belief, candidates=10, proposals=np.stack([good, wild]))
    assert len(seen[0]) == 10
    np.testing.assert_array_equal(seen[0][8], good)
    assert (seen[0][9] == 12.0).all()  # within the limits
    alone = plan(planner_with(dynamics), belief, candidates=10)
    distance = [np.abs(p.actions - good).mean() for p in (few, alone)]
    assert distance[0] < 0.5 * distance[1]


def costs(planner, belief, plans):
    judge = planner._judge(belief, PERIOD, start(0), planner.dynamics.history())
    return judge(plans)[1:]


def some_plans(n=20, horizon=QUAD.planner.horizon):
    return np.random.default_rng(0).uniform(3, 7, (n, horizon, 2)).astype(np.float32)


def test_cost_through_all_draws_is_their_mean_and_beta_deviations(tiny_prior):
    dynamics, plans = tiny_prior.dynamics, some_plans()
    belief = some_belief(dynamics, 1)
    belief = replace(belief, theta=dynamics.nominal_theta.astype(np.float32))
    belief = replace(belief, factor=0.05 * belief.factor)
    cost, past, rollout = Cost(QUAD), dynamics.history(), Rollout(dynamics)
    target = cost.target(2 * PERIOD, QUAD.planner.horizon)
    each = np.array(
        [
            cost(
                rollout.run(rollout.mean(replace(belief, theta=theta)), start(0), plans, past),
                plans,
                past[0].astype(np.float32),
                target,
            )
            for theta in belief.draws(4)
        ]
    )
    planner = planner_with(dynamics, through='all', draws=4)
    np.testing.assert_allclose(costs(planner, belief, plans)[0], each.mean(axis=0), rtol=1e-4)
    planner.beta = 2.0
    expected = each.mean(axis=0) + 2 * each.std(axis=0)
    np.testing.assert_allclose(costs(planner, belief, plans)[0], expected, rtol=1e-4)
    careless = planner_with(dynamics)
    careless.beta = 2.0  # changed while it runs: then all draws are needed
    assert careless.through == 'all'


def test_without_ignorance_all_ways_through_the_belief_are_one(tiny_prior):
    dynamics = tiny_prior.dynamics
    plans = {
        through: plan(planner_with(dynamics, through=through), some_belief(dynamics)).actions
        for through in ('mean', 'draw', 'all')
    }
    for through in ('draw', 'all'):
        np.testing.assert_allclose(plans[through], plans['mean'], atol=1e-3)


# ---------------------------------------------------------------------- chance constraints
def gaussian_states(low, high, n=1, horizon=3):
    """States [4000, n, h, 6] with a pitch that is normal."""
    rng = np.random.default_rng(0)
    states = np.zeros((4000, n, horizon, 6), np.float32)
    states[..., 2] = rng.normal(low, high, (4000, 1, 1))
    return states


@pytest.mark.parametrize('probability', [0.5, 0.9, 0.99])
def test_a_limit_is_kept_exactly_where_the_probability_is(probability):
    chance = {'pitch': {'high': 0.3, 'probability': probability}}
    penalty = Chance(spec_with(chance))
    epistemic, aleatoric = 0.04, 0.03
    k = NormalDist().inv_cdf(probability)
    edge = 0.3 - k * np.hypot(epistemic, aleatoric)
    noise = np.zeros(6)
    noise[2] = aleatoric**2
    assert penalty(gaussian_states(edge - 0.004, epistemic), noise, 1.0)[0] == 0
    assert penalty(gaussian_states(edge + 0.004, epistemic), noise, 1.0)[0] > 0
    wary = penalty(gaussian_states(edge - 0.004, epistemic), noise, 2.0)[0]
    assert (wary > 0) == (probability > 0.5)


@given(st.floats(0, 1e4), st.floats(1, 2))
def test_a_penalty_grows_but_does_not_explode(beyond, further):
    penalty = Chance(spec_with({'pitch': {'low': -0.3, 'high': 0.3, 'weight': 7.0}}))
    states = np.zeros((1, 2, 1, 6), np.float32)
    states[0, :, 0, 2] = 0.3 + beyond, 0.3 + beyond * further
    near, far = penalty(states, np.zeros(6), 1.0)
    assert near <= far <= 7.0 * beyond * further / (SHARE * 0.6) + 1e-3


def test_where_there_is_no_room_between_the_margins_the_middle_is_best():
    penalty = Chance(spec_with({'pitch': {'low': -0.1, 'high': 0.1, 'probability': 0.999}}))
    noise = np.full(6, 1.0)
    states = np.zeros((1, 5, 1, 6), np.float32)
    states[0, :, 0, 2] = [-0.4, -0.05, 0.0, 0.05, 0.4]
    found = penalty(states, noise, 1.0)
    assert np.argmin(found) == 2 and np.isfinite(found).all()


def test_a_plan_stays_within_limits_that_weigh_more_where_it_is_unsure(tiny_prior):
    dynamics, past = tiny_prior.dynamics, tiny_prior.dynamics.history()
    sure = replace(some_belief(dynamics), noise=np.full(6, 1e-5, np.float32))
    spread = 0.005 * np.random.default_rng(0).normal(size=(dynamics.size, 8))
    unsure = replace(sure, factor=spread.astype(np.float32))
    new = replace(unsure, regimes={'nominal': 0.0, 'new': 1.0})
    limit = {'vx': {'low': -0.4, 'high': 0.4, 'probability': 0.95}}
    settings = {'through': 'all', 'iterations': 3, 'noise': 0.2}
    fastest = []
    for chance in (None, limit):
        found = plan(planner_with(dynamics, chance=chance, **settings), sure, 8)
        weights = (rollout := Rollout(dynamics)).mean(sure)
        states = rollout.run(weights, start(0), found.actions[None], past)[0]
        fastest.append(np.abs(states[:, 3]).max())
    assert fastest[0] > 0.6
    assert fastest[1] < 0.45
    planner = planner_with(dynamics, chance=limit, **settings)
    rising = [costs(planner, b, some_plans())[1] for b in (sure, unsure, new)]
    assert (rising[0] < rising[1]).all() and (rising[1] < rising[2]).all()


@pytest.mark.parametrize('optimizer', ['mppi', 'icem'])
def test_a_narrower_range_is_searched_from_the_next_plan_on(tiny_prior, optimizer):
    planner = planner_with(tiny_prior.dynamics, optimizer=optimizer)
    belief, neutral = some_belief(tiny_prior.dynamics), QUAD.neutral
    wide = plan(planner, belief, 8).actions
    planner.narrow(neutral - 0.1, neutral + 0.1)
    within = plan(planner, belief, 8).actions
    assert np.abs(wide - neutral).max() > 0.5
    assert np.abs(within - neutral).max() <= 0.1 + 1e-6


def test_doubt_grows_smoothly_with_age_and_with_a_new_regime(tiny_prior):
    planner = planner_with(tiny_prior.dynamics)
    belief = some_belief(tiny_prior.dynamics, stamp_ns=10**9)
    ages = np.linspace(0, 2, 201)
    doubts = [planner.doubt(belief, 10**9 + round(a * 1e9)) for a in ages]
    assert doubts[0] == 0 and doubts[50] == 0 and doubts[100] == 1 == doubts[-1]
    assert (np.diff(doubts) >= 0).all() and np.diff(doubts).max() < 0.05
    planner.max_belief_age = 4.0
    assert planner.doubt(belief, 2 * 10**9) == 0
    new = [planner.doubt(replace(belief, regimes={'new': p}), 10**9) for p in (0, 0.25, 1)]
    assert new == [0, 0.25, 1]
    assert planner.doubt(replace(belief, stamp_ns=0), 10**12) == 0


# ---------------------------------------------------------------------- the robot file
TEXT = QUAD.dump()


@pytest.mark.parametrize(
    ('chance', 'words'),
    [
        ({'roll': {'high': 1.0}}, ['cost.chance', 'roll', 'pitch']),
        ({'pitch': {'low': 0.2, 'high': 0.1}}, ['cost.chance.pitch', '0.2', 'below']),
        ({'pitch': {}}, ['cost.chance.pitch', 'neither']),
        ({'pitch': {'high': 1.0, 'probability': 1.0}}, ['probability', '1.0', 'less than 1']),
        ({'pitch': {'high': 1.0, 'probability': 0.1}}, ['probability', '0.1']),
        ({'pitch': {'high': float('nan')}}, ['high', 'nan']),
        ({'z': {'low': 9.0}}, ['cost.chance.z', '9', '4', 'both']),
        ({'z': {'high': 0.1}}, ['cost.chance.z', '0.1', '0.2', 'both']),
        ({'x': {'high': 0.5}}, ['goal.track.x', '1.2', 'cost.chance.x']),
    ],
)
def test_chance_constraints_that_cannot_be_are_refused(chance, words):
    import yaml

    data = yaml.safe_load(TEXT)
    data['cost']['chance'] = chance
    with pytest.raises(UserError) as caught:
        parse_robot(yaml.safe_dump(data), 'my.yaml')
    for word in ['my.yaml', *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ('planner', 'words'),
    [
        ({'optimizer': 'adam'}, ['planner.optimizer', 'adam', 'mppi']),
        ({'through': 'some'}, ['planner.through', 'some', 'mean']),
        ({'engine': 'gpu'}, ['planner.engine', 'gpu', 'numpy']),
        ({'draws': 0}, ['planner.draws', '0']),
        ({'beta': 1.0}, ['planner', 'beta 1', 'through: all']),
        ({'beta': 1.0, 'through': 'all', 'draws': 1}, ['planner', 'beta 1', '2 or more']),
        ({'optimizer': 'icem', 'elites': 500}, ['planner', 'elites 500', '128']),
        ({'colour': -1.0}, ['planner.colour', '-1.0']),
        ({'shrink': 0.5}, ['planner.shrink', '0.5']),
    ],
)
def test_planner_settings_that_cannot_be_are_refused(planner, words):
    import yaml

    data = yaml.safe_load(TEXT)
    data['planner'] |= planner
    with pytest.raises(UserError) as caught:
        parse_robot(yaml.safe_dump(data), 'my.yaml')
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize('robot', ['quad', 'arm', 'diffdrive', 'cartpole'])
def test_a_shipped_robot_plans_as_before(robot):
    settings = load_robot(robot).planner
    assert (settings.optimizer, settings.through, settings.engine) == ('mppi', 'mean', 'native')
    assert not load_robot(robot).cost.chance and not settings.beta
