"""Acting: what safety lets through, rollouts, costs, plans, and the controller that ties them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong_bayes_ros.control.controller import Controller
from lifelong_bayes_ros.control.cost import Cost
from lifelong_bayes_ros.control.goals import FileGoal
from lifelong_bayes_ros.control.native_cost import native_cost
from lifelong_bayes_ros.control.planner import Planner
from lifelong_bayes_ros.control.rollout import Rollout
from lifelong_bayes_ros.control.safety import Safety
from lifelong_bayes_ros.dynamics.belief import Belief
from lifelong_bayes_ros.dynamics.model import DELAYS
from lifelong_bayes_ros.robot.spec import SafeAction, load_robot
from lifelong_bayes_ros.robot.transitions import State
from plants import QUAD, gaussian, random_dynamics, random_step

PERIOD = QUAD.period_ns


def spec_with(slew: float | None = 40.0, mode: str = 'neutral', ticks: int = 3):
    actions = [a.model_copy(update={'slew': slew}) for a in QUAD.action]
    safe = SafeAction(mode=mode, ticks=ticks)
    return QUAD.model_copy(update={'action': actions, 'safe_action': safe})


def some_belief(dynamics, seed: int | None = None, stamp_ns: int = 1) -> Belief:
    """Nominal, or with a seed a random posterior near it."""
    ds = len(dynamics.spec.state)
    theta, factor, offset = dynamics.nominal_theta, np.zeros((dynamics.size, 4)), np.zeros(ds)
    if seed is not None:
        rng = np.random.default_rng(seed)
        theta = theta + 0.1 * rng.normal(size=dynamics.size)
        factor = 0.1 * rng.normal(size=(dynamics.size, 4))
        offset = 0.1 * rng.normal(size=ds)
    return Belief(
        stamp_ns,
        1,
        theta.astype(np.float32),
        factor.astype(np.float32),
        offset.astype(np.float32),
        np.full(ds, 0.01, np.float32),
        40.0,
        {'nominal': 1.0},
        'nominal',
        'learned',
    )


# ---------------------------------------------------------------------- safety
NUMBER = st.floats(width=32) | st.floats(0, 12) | st.sampled_from([np.nan, np.inf, -np.inf])
COMMANDS = st.lists(st.lists(NUMBER, max_size=3) | st.tuples(NUMBER, NUMBER), max_size=30)


@given(COMMANDS, st.sampled_from(['neutral', 'hold', 'zero']), st.sampled_from([None, 40.0, 1e-3]))
def test_no_command_is_ever_out_of_range_too_fast_or_not_a_number(wanted, mode, slew):
    spec = spec_with(slew, mode)
    safety, last = Safety(spec), spec.neutral
    for values in wanted:
        command = safety.check(np.array(values))
        if command is None:
            continue
        assert command.dtype == np.float32
        assert np.isfinite(command).all()
        assert (command >= np.float32(spec.action_low)).all()
        assert (command <= np.float32(spec.action_high)).all()
        if slew is not None:
            assert (np.abs(command - last) <= slew * spec.period + 1e-5).all()
        last = command
        np.testing.assert_array_equal(safety.last, last)


def test_a_command_within_all_limits_passes_untouched():
    safety = Safety(spec_with())
    for wanted in ([5.0, 5.0], [5.9, 4.5], [5.5, 5.0]):
        np.testing.assert_array_equal(safety.check(np.array(wanted)), np.float32(wanted))
    assert not safety.interventions


@pytest.mark.parametrize('bad', [[np.nan, 5.0], [5.0], [5.0, 5.0, 5.0], 5.0])
def test_a_bad_command_becomes_the_safe_action_for_some_ticks_then_silence(bad):
    safety = Safety(spec_with(slew=None))
    for _ in range(2):
        safety.check(np.array([2.0, 9.0]))
        for _ in range(3):
            np.testing.assert_array_equal(safety.check(np.array(bad)), np.float32(QUAD.neutral))
        assert safety.check(np.array(bad)) is None
        assert safety.safe_action() is None
    assert safety.interventions == {'not finite': 8}


@pytest.mark.parametrize(
    ('mode', 'safe'), [('neutral', [4.905, 4.905]), ('zero', [0.0, 0.0]), ('hold', [2.0, 9.0])]
)
def test_the_safe_action_is_the_one_of_the_robot_file(mode, safe):
    safety = Safety(spec_with(slew=None, mode=mode))
    safety.check(np.array([2.0, 9.0]))
    np.testing.assert_array_equal(safety.safe_action(), np.float32(safe))


def test_the_safe_action_too_is_slewed_and_reset_forgets():
    safety = Safety(spec_with(slew=10.0, mode='zero', ticks=2))
    np.testing.assert_allclose(safety.safe_action(), QUAD.neutral - 0.3, rtol=1e-6)
    np.testing.assert_allclose(safety.safe_action(), QUAD.neutral - 0.6, rtol=1e-6)
    assert safety.safe_action() is None
    safety.reset()
    np.testing.assert_allclose(safety.safe_action(), QUAD.neutral - 0.3, rtol=1e-6)


def test_interventions_are_counted_by_reason():
    safety = Safety(spec_with(slew=400.0))
    safety.check(np.array([13.0, 5.0]))
    assert safety.interventions == {'range': 1}
    safety.check(np.array([12.0, 50.0]))
    assert safety.interventions == {'range': 2, 'slew limit': 1}


# ---------------------------------------------------------------------- rollout
def step_by_step(dynamics, belief, x, actions, past, theta=None):
    """The same plan in float64, one design at a time; `theta`: of a draw, not the mean."""
    theta = belief.theta if theta is None else theta
    states, x, past = [], x.astype(float), [*past]
    for u in actions.astype(float):
        y = dynamics.design(x, u, np.array(past)) @ theta + belief.offset
        x = x + dynamics.scale * y
        past = [u, *past[:-1]]
        states.append(x)
    return np.array(states)


@pytest.mark.parametrize('robot', ['quad', 'arm'])
@pytest.mark.parametrize('seed', range(3))
def test_a_rollout_is_the_dynamics_step_by_step(robot, seed):
    dynamics, rng = random_dynamics(robot, seed=seed), np.random.default_rng(seed)
    belief = some_belief(dynamics, seed)
    spec, rollout = dynamics.spec, Rollout(dynamics)
    x, _, past = random_step(dynamics, rng)
    actions = rng.uniform(spec.action_low, spec.action_high, (5, 6, len(spec.action)))
    actions = actions.astype(np.float32)
    states = rollout.run(rollout.mean(belief), x, actions, past)
    expected = [step_by_step(dynamics, belief, x, a, past) for a in actions]
    np.testing.assert_allclose(states, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize('robot', ['quad', 'arm'])
def test_a_fan_rolls_out_every_posterior_draw(robot):
    dynamics, rng = random_dynamics(robot), np.random.default_rng(3)
    belief = some_belief(dynamics, 3)
    spec = dynamics.spec
    x, _, past = random_step(dynamics, rng)
    actions = np.float32(rng.uniform(spec.action_low, spec.action_high, (5, len(spec.action))))
    fan = Rollout(dynamics).fan(belief, x, actions, past)
    expected = [step_by_step(dynamics, belief, x, actions, past, d) for d in belief.draws(4)]
    np.testing.assert_allclose(fan, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())
    assert np.std(fan, axis=0).min() > 0


# ---------------------------------------------------------------------- cost
def slow_cost(spec, states, actions, previous, stamp_ns):
    """The cost of one candidate, as the robot file describes it."""
    total, horizon, before = 0.0, len(states), previous
    position, velocity = spec.reference(stamp_ns, horizon)
    tracks = list(spec.goal.track)
    for h, (x, u) in enumerate(zip(states.astype(float), actions.astype(float))):
        value, step = dict(zip(spec.state_names, x)), 0.0
        for i, name in enumerate(tracks):
            error = value[name] - position[h, i]
            if spec.state[spec.state_names.index(name)].encode == 'angle':
                error = np.angle(np.exp(1j * error))
            step += spec.cost.track.get(name, 0.0) * error**2
            for channel in spec.state:
                if channel.derivative_of == name:
                    rate = value[channel.name] - velocity[h, i]
                    step += spec.cost.rate.get(name, 0.0) * rate**2
        for name, weight in spec.cost.state.items():
            step += weight * value[name] ** 2
        for channel in spec.state:
            low = -np.inf if channel.low is None else channel.low
            high = np.inf if channel.high is None else channel.high
            beyond = max(value[channel.name] - high, low - value[channel.name], 0.0)
            step += spec.cost.limit * beyond**2
        if h == horizon - 1:
            step *= spec.cost.terminal
        for i, action in enumerate(spec.action):
            half = (action.high - action.low) / 2
            step += spec.cost.action * ((u[i] - action.neutral) / half) ** 2
            step += spec.cost.action_rate * ((u[i] - before[i]) / half) ** 2
        before = u
        total += step
    return total / horizon


@pytest.mark.parametrize('make', [Cost, native_cost])
@pytest.mark.parametrize('robot', ['quad', 'arm'])
@pytest.mark.parametrize('seed', range(3))
def test_the_cost_is_the_one_that_the_robot_file_describes(robot, seed, make):
    spec, rng = load_robot(robot), np.random.default_rng(seed)
    # All terms of like size, so that none hides behind the others.
    weights = spec.cost.model_copy(update={'action': 300.0, 'action_rate': 200.0})
    spec = spec.model_copy(update={'cost': weights})
    states = rng.normal(size=(8, 7, len(spec.state))).astype(np.float32) * 4
    actions = rng.uniform(spec.action_low, spec.action_high, (8, 7, len(spec.action)))
    actions, stamp_ns = actions.astype(np.float32), int(rng.integers(10**18))
    previous = np.float32(rng.uniform(spec.action_low, spec.action_high))
    cost = make(spec)
    got = cost(states, actions, previous, cost.target(stamp_ns, 7))
    expected = [slow_cost(spec, x, u, previous, stamp_ns) for x, u in zip(states, actions)]
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    members = np.stack([states, states[::-1]])  # of two draws
    np.testing.assert_allclose(
        cost(members, actions, previous, cost.target(stamp_ns, 7))[0], expected, rtol=1e-4
    )


@pytest.mark.parametrize('robot', ['quad', 'arm', 'diffdrive', 'cartpole', 'base', 'six_axis'])
def test_the_compiled_cost_is_the_other_one(robot):
    spec, rng = load_robot(robot), np.random.default_rng(0)
    plain, compiled = Cost(spec), native_cost(spec)
    for steps in (1, 9, 20):  # the terms follow the length of the plan, and the goal
        states = rng.normal(size=(3, 5, steps, len(spec.state))).astype(np.float32) * 5
        actions = rng.uniform(spec.action_low, spec.action_high, (5, steps, len(spec.action)))
        given = states, actions.astype(np.float32), np.float32(spec.neutral)
        target = plain.target(steps * PERIOD, steps)
        np.testing.assert_allclose(compiled(*given, target), plain(*given, target), rtol=1e-4)
    other = FileGoal(spec)
    other.weights = rng.uniform(1, 9, len(spec.state))
    for cost in (plain, compiled):
        cost.aim(other)
    np.testing.assert_allclose(compiled(*given, target), plain(*given, target), rtol=1e-4)
    states[1, 2, 3] = np.nan
    got = compiled(states, *given[1:], target)
    assert np.isnan(got[1, 2])
    assert np.isfinite(np.delete(got.ravel(), 7)).all()


# ---------------------------------------------------------------------- planner
def start(seed: int) -> np.ndarray:
    """A quadrotor at rest away from its reference."""
    rng = np.random.default_rng(seed)
    return np.float32([rng.uniform(-1, 1), 1.5 + rng.uniform(-0.5, 0.5), 0, 0, 0, 0])


def test_the_same_seed_gives_the_same_plan(tiny_prior):
    dynamics = tiny_prior.dynamics
    plans = []
    for seed in (0, 0, 1):
        planner = Planner(dynamics, seed)
        for tick in range(3):
            stamp = (tick + 1) * PERIOD
            plan = planner.plan(some_belief(dynamics), stamp, start(0), dynamics.history())
        plans.append(plan)
    np.testing.assert_array_equal(plans[0].actions, plans[1].actions)
    np.testing.assert_array_equal(plans[0].spread, plans[1].spread)
    assert not np.array_equal(plans[0].actions, plans[2].actions)


@pytest.mark.parametrize('seed', range(4))
def test_a_plan_is_better_than_doing_nothing_and_stays_in_range(tiny_prior, seed):
    dynamics = tiny_prior.dynamics
    belief, past, stamp = some_belief(dynamics), dynamics.history(), 10**18
    planner, rollout, cost = Planner(dynamics, seed), Rollout(dynamics), Cost(QUAD)
    for _ in range(3):
        plan = planner.plan(belief, stamp, start(seed), past)
    neutral = np.tile(QUAD.neutral.astype(np.float32), (QUAD.planner.horizon, 1))
    both = np.stack([plan.actions, neutral])
    states = rollout.run(rollout.mean(belief), start(seed), both, past)
    target = cost.target(stamp + PERIOD, QUAD.planner.horizon)
    ours, nothing = cost(states, both, past[0], target)
    assert ours < 0.9 * nothing
    assert (plan.actions >= 0).all()
    assert (plan.actions <= 12).all()
    assert (plan.spread > 0).all()


@pytest.fixture
def warm(tiny_prior, monkeypatch):
    """A planner with a plan, which from now on only carries it along; and how to call it."""
    dynamics = tiny_prior.dynamics
    planner, belief = Planner(dynamics), some_belief(dynamics)

    def plan(stamp_ns):
        return planner.plan(belief, stamp_ns, start(0), dynamics.history()).actions

    first = plan(PERIOD)
    shape = (QUAD.planner.candidates, *first.shape)
    monkeypatch.setattr(planner, 'noise', lambda count: np.zeros(shape, np.float32))
    return plan, first


@pytest.mark.parametrize('passed', [0, 1, 2, 19])
def test_the_last_plan_moves_on_with_time(warm, passed):
    plan, first = warm
    late = plan(PERIOD + passed * PERIOD + PERIOD // 10)
    moved = np.concatenate([first[passed:], np.repeat(first[-1:], passed, axis=0)])
    np.testing.assert_allclose(late, moved, rtol=1e-5)


@pytest.mark.parametrize('jump', [-PERIOD, -(10**18), 20 * PERIOD, 10**18])
def test_a_plan_from_another_time_is_forgotten(warm, jump):
    plan, first = warm
    neutral = np.tile(QUAD.neutral, (len(first), 1))
    assert np.abs(first - neutral).max() > 0.1
    np.testing.assert_allclose(plan(PERIOD + jump), neutral, rtol=1e-5)


def test_candidates_that_leave_the_numbers_do_not_spoil_the_plan(tiny_prior, monkeypatch):
    dynamics, belief = tiny_prior.dynamics, some_belief(tiny_prior.dynamics)
    plain, struck = Planner(dynamics), Planner(dynamics)
    run = struck.rollout.run

    def sometimes_nan(*args):
        states = run(*args)
        states[1] = np.nan
        return states

    monkeypatch.setattr(struck.rollout, 'run', sometimes_nan)
    first, second = (
        p.plan(belief, PERIOD, start(0), dynamics.history()).actions for p in (plain, struck)
    )
    np.testing.assert_allclose(first, second, atol=0.5)


# ---------------------------------------------------------------------- controller
def test_the_controller_remembers_the_commands_it_sent(tiny_prior):
    controller = Controller(tiny_prior.dynamics)
    sent = [QUAD.neutral] * DELAYS
    for tick in range(4):
        stamp = (tick + 1) * PERIOD
        act = controller.act(State(stamp, start(1)), some_belief(tiny_prior.dynamics, None, stamp))
        sent = [act.command.astype(float), *sent[:-1]]
        np.testing.assert_array_equal(controller.past, sent)
        assert not act.stale
    controller.reset()
    np.testing.assert_array_equal(controller.past, tiny_prior.dynamics.history())


def test_a_stale_belief_is_replaced_by_the_nominal_model_and_reported(tiny_prior):
    dynamics = tiny_prior.dynamics
    state = State(2_000_000_000, start(1))
    learned = some_belief(dynamics, 5, stamp_ns=state.stamp_ns)
    acts = {}
    for name, belief in {
        'fresh': learned,
        'old': replace(learned, stamp_ns=999_999_999),
        'nominal': some_belief(dynamics, stamp_ns=state.stamp_ns),
        'unborn': replace(learned, stamp_ns=0),
    }.items():
        acts[name] = Controller(dynamics, max_belief_age=1.0).act(state, belief)
    assert [n for n, a in acts.items() if a.stale] == ['old']
    np.testing.assert_array_equal(acts['old'].plan.actions, acts['nominal'].plan.actions)
    np.testing.assert_array_equal(acts['old'].spread.mean, acts['nominal'].spread.mean)
    assert not np.array_equal(acts['old'].plan.actions, acts['fresh'].plan.actions)


def test_a_controller_without_a_usable_state_sends_the_safe_action_then_nothing(tiny_prior):
    controller = Controller(tiny_prior.dynamics)
    for _ in range(QUAD.safe_action.ticks):
        np.testing.assert_array_equal(controller.safety.safe_action(), np.float32(QUAD.neutral))
    assert controller.safety.safe_action() is None


def test_epistemic_spread_of_an_act_is_that_of_the_command_it_sends(tiny_prior):
    dynamics = tiny_prior.dynamics
    root = np.sqrt(1e-3) * np.eye(dynamics.size)
    belief = replace(some_belief(dynamics), factor=root.astype(np.float32))
    posterior = gaussian(dynamics.nominal_theta, root @ root.T)
    act = Controller(dynamics).act(State(PERIOD, start(2)), belief)
    x = start(2).astype(float)
    design = dynamics.design(x, act.command.astype(float), dynamics.history())
    expected = np.diag(design @ posterior.covariance.numpy() @ design.T) * dynamics.scale**2
    np.testing.assert_allclose(act.spread.epistemic, expected, rtol=1e-4)


def test_rates_that_no_channel_tells_are_those_of_two_steps(tiny_prior):
    state = [c.model_dump() | {'derivative_of': None} for c in QUAD.state]
    safety = QUAD.safety.model_dump() | {'limits': {'z': {'deceleration': 4.0}}}
    cost = QUAD.cost.model_dump() | {'rate': {}}
    changed = {'state': state, 'safety': safety, 'cost': cost}
    spec = type(QUAD).model_validate(QUAD.model_dump() | changed)
    dynamics, outlooks = tiny_prior.dynamics, []
    belief, at = some_belief(dynamics), QUAD.state_names.index('z')
    speed = QUAD.state_names.index('vz')
    for robot in (QUAD, spec):
        controller = Controller(replace(dynamics, spec=robot))
        x, wanted = State(PERIOD, np.float32([0, 1.5, 0, 0, 0.5, 0])), np.float32([6.0, 6.0])
        spread = controller._predict(belief, x, wanted, controller.past)
        given = (belief, x, wanted, controller.past, spread, False)
        outlooks.append(controller._outlook(*given))
    told, reckoned = outlooks
    assert told.rates is None
    assert reckoned.rates.mean[at] == pytest.approx(told.mean[speed], abs=0.05)
    np.testing.assert_allclose(reckoned.rates.gain[at], told.gain[speed], rtol=0.2, atol=1e-3)
    fast = replace(reckoned.rates, mean=np.full(6, 9.0))
    safety = Safety(spec)
    assert safety.check(wanted, reckoned).tolist() == wanted.tolist()
    assert safety.check(wanted, replace(reckoned, rates=fast)).sum() < wanted.sum()
