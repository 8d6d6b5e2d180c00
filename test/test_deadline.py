"""Late plans, careful acting, and how sure a plan is."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from lifelong_bayes_ros.control.controller import Controller
from lifelong_bayes_ros.control.deadline import Deadline
from lifelong_bayes_ros.control.forecast import forecast
from lifelong_bayes_ros.control.rollout import Rollout
from lifelong_bayes_ros.robot.transitions import State
from plants import QUAD, random_dynamics
from test_control import some_belief, start

PERIOD = QUAD.period_ns


def state(tick: int) -> State:
    return State((tick + 1) * PERIOD, start(tick))


class Slow:
    """A controller whose planning waits until it is let go on."""

    def __init__(self, dynamics):
        self.controller = Controller(dynamics)
        self.gate = threading.Event()
        self.gate.set()
        self.begun = 0
        think = self.controller.think

        def slow(*args):
            self.begun += 1
            self.gate.wait()
            return think(*args)

        self.controller.think = slow


@pytest.fixture
def slow(tiny_prior):
    slow = Slow(tiny_prior.dynamics)
    yield slow
    slow.gate.set()  # its thread must end


def test_in_time_it_is_the_controller_itself(tiny_prior):
    dynamics = tiny_prior.dynamics
    plain, timed = Controller(dynamics), Deadline(Controller(dynamics), 30.0)
    for tick in range(3):
        one, two = (c.act(state(tick), some_belief(dynamics)) for c in (plain, timed))
        np.testing.assert_array_equal(one.command, two.command)
        assert not two.late


def test_a_change_waits_for_the_plan_under_way_which_is_dropped(tiny_prior, slow):
    belief, done = some_belief(tiny_prior.dynamics), []
    timed = Deadline(slow.controller, 0.0)
    timed.later(lambda: done.append('at once'))
    assert done == ['at once']
    slow.gate.clear()
    timed.act(state(0), belief)
    timed.later(lambda: done.append('later'))
    assert timed.act(state(1), belief).late
    assert done == ['at once']
    slow.gate.set()
    timed.settle()
    assert done == ['at once', 'later']
    assert slow.controller._last is None


def test_rest_between_two_states_changes_no_plan(tiny_prior):
    dynamics, drawn = tiny_prior.dynamics, []
    plain, timed = Controller(dynamics), Deadline(Controller(dynamics), 30.0)
    normal = timed.controller.planner.noise._normal
    timed.controller.planner.noise._normal = lambda shape: drawn.append(shape) or normal(shape)
    for tick in range(3):
        one, two = (c.act(state(tick), some_belief(dynamics)) for c in (plain, timed))
        np.testing.assert_array_equal(one.command, two.command)
        assert len(drawn) == tick + 1
        timed.rest()
        assert len(drawn) == tick + 2  # what the next plan takes


def test_a_late_plan_is_replaced_by_the_last_one_moved_on_until_that_is_over(tiny_prior, slow):
    belief = some_belief(tiny_prior.dynamics)
    first = Deadline(slow.controller, 30.0).act(state(0), belief).plan
    slow.gate.clear()
    timed = Deadline(slow.controller, 0.0)
    for tick in range(1, QUAD.planner.horizon):
        act = timed.act(state(tick), belief)
        assert act.late
        np.testing.assert_allclose(act.command, first.actions[tick], atol=1e-6)
        assert act.spread is not None
    assert slow.begun == 2  # no plan is begun beside one that is running
    slow.controller.planner.noise._normal = None
    timed.rest()  # and what it draws from is left alone
    slow.controller.planner.noise._normal = Controller(tiny_prior.dynamics).planner.noise._normal
    for _ in range(QUAD.safe_action.ticks + 3):  # a late tick is never silent
        tick += 1
        np.testing.assert_allclose(timed.act(state(tick), belief).command, QUAD.neutral, rtol=1e-6)
    slow.controller.safety.stop('by an operator')
    for _ in range(QUAD.safe_action.ticks):
        assert slow.controller.safety.safe_action() is not None
    assert slow.controller.safety.safe_action() is None  # but a stop ends in silence
    slow.controller.safety.enable()
    slow.gate.set()
    timed.settle()
    timed.seconds = 30.0
    assert not timed.act(state(tick + 2), belief).late


def test_the_late_plan_itself_is_taken_up_when_it_is_there(tiny_prior, slow):
    belief = some_belief(tiny_prior.dynamics)
    slow.gate.clear()
    timed = Deadline(slow.controller, 0.0)
    np.testing.assert_allclose(timed.act(state(0), belief).command, QUAD.neutral, rtol=1e-6)
    slow.gate.set()
    timed._running.result()
    slow.gate.clear()
    expected = Controller(tiny_prior.dynamics).act(state(0), belief).plan.actions[1]
    np.testing.assert_allclose(timed.act(state(1), belief).command, expected, atol=1e-5)
    slow.gate.set()
    timed.settle()


def test_a_fault_of_the_planner_is_not_swallowed(tiny_prior):
    controller = Controller(tiny_prior.dynamics)
    controller.think = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        Deadline(controller, 30.0).act(state(0), some_belief(tiny_prior.dynamics))


# ---------------------------------------------------------------------- careful acting
@pytest.mark.parametrize(
    ('change', 'authority'),
    [
        ({}, 1.0),
        ({'stamp_ns': 1}, QUAD.safety.stale),
        ({'regimes': {'nominal': 0.0, 'new': 1.0}}, QUAD.safety.new_regime),
        ({'regimes': {'nominal': 0.5, 'new': 0.5}}, (1 + QUAD.safety.new_regime) / 2),
    ],
)
def test_a_stale_belief_and_an_unknown_regime_cost_authority(tiny_prior, change, authority):
    now = State(10**10, start(0))
    belief = replace(some_belief(tiny_prior.dynamics, None, now.stamp_ns), **change)
    assert QUAD.safety.new_regime < 1
    act = Controller(tiny_prior.dynamics).act(now, belief)
    assert act.authority == pytest.approx(authority)


def test_a_belief_of_no_numbers_leads_to_the_safe_action(tiny_prior):
    belief = some_belief(tiny_prior.dynamics)
    wild = replace(belief, factor=np.full_like(belief.factor, np.nan))
    controller = Controller(tiny_prior.dynamics)
    act = controller.act(state(0), wild)
    np.testing.assert_allclose(act.command, QUAD.neutral, rtol=1e-6)
    assert controller.safety.interventions == {'belief not finite': 1}


# ---------------------------------------------------------------------- forecast
@pytest.mark.parametrize('robot', ['quad', 'arm'])
def test_a_forecast_is_the_statistics_of_many_noisy_rollouts(robot):
    dynamics, rng = random_dynamics(robot, seed=1), np.random.default_rng(0)
    belief = replace(some_belief(dynamics, 2), noise=np.full(len(dynamics.scale), 1e-6))
    spec, rollout = dynamics.spec, Rollout(dynamics)
    x = np.zeros(len(spec.state), np.float32)
    past = dynamics.history()
    plan = np.float32(rng.uniform(spec.action_low, spec.action_high, (6, len(spec.action))))
    ahead = forecast(dynamics, rollout, belief, x, plan, past)
    np.testing.assert_allclose(
        ahead.mean, rollout.run(rollout.mean(belief), x, plan[None], past)[0]
    )
    np.testing.assert_allclose(ahead.members, rollout.fan(belief, x, plan, past))
    np.testing.assert_allclose(ahead.epistemic, np.square(ahead.members - ahead.mean).mean(axis=0))
    noise = dynamics.scale * np.sqrt(belief.noise * belief.noise_dof / (belief.noise_dof - 2))
    n = 4000
    states, earlier = np.tile(x.astype(float), (n, 1)), list(past)
    _, g, b, c = dynamics.split(belief.theta.astype(float))
    w = dynamics.split(belief.theta.astype(float))[0]
    for h, u in enumerate(plan.astype(float)):
        direction = u * g + b * spec.action_half_range
        direction = direction + sum(c[k] * (earlier[k] - u) for k in range(len(c)))
        rows = np.tile(u, (n, 1))
        raw, tangent = dynamics.trunk.raw_and_tangent(states, rows, np.tile(direction, (n, 1)))
        y = (
            raw @ dynamics.trunk.whiten @ w.T
            + tangent @ dynamics.trunk.whiten @ dynamics.nominal.T
            + belief.offset
        )
        states = states + dynamics.scale * y + noise * rng.standard_normal(states.shape)
        earlier = [u, *earlier[:-1]]
        np.testing.assert_allclose(np.sqrt(ahead.aleatoric[h]), states.std(axis=0), rtol=0.1)
