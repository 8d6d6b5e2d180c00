"""Slew limits in plans: what is planned is sent as it is, in numpy, torch and a graph alike."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lifelong_bayes_ros.blr import graph
from lifelong_bayes_ros.control.arrays import Arrays
from lifelong_bayes_ros.control.limiter import Limiter
from lifelong_bayes_ros.control.optimizers import OPTIMIZERS
from lifelong_bayes_ros.control.slewing import Slewing
from lifelong_bayes_ros.experiments.baselines.frozen import Frozen
from lifelong_bayes_ros.experiments.life import run_life
from lifelong_bayes_ros.experiments.schedule import Life
from lifelong_bayes_ros.robot.spec import RobotSpec, load_robot, robot_names
from plants import QUAD
from test_control import some_belief, start
from test_planner import (
    ENGINES,
    HOST,
    PERIOD,
    Operations,
    Traced,
    plan_alike,
    planner_with,
    planners_alike,
    some_plans,
    spec_with,
)


def slowed(robot, share, **planner) -> RobotSpec:
    """A robot file whose commands may change by a share of their range within a step."""
    data = spec_with(robot=robot, **planner).model_dump()
    for action in data['action']:
        action['slew'] = share * (action['high'] - action['low']) / robot.period
    return RobotSpec.model_validate(data)


def one_by_one(plan, last, slew):
    """Commands [h, da] held back as the safety stage does, one after the other."""
    kept = []
    for command in plan:
        last = np.minimum(np.maximum(command, last - slew), last + slew)
        kept.append(last)
    return np.array(kept)


@given(
    st.lists(st.tuples(*[st.floats(0, 12, width=32)] * 2), min_size=1, max_size=9),
    st.tuples(*[st.floats(0, 12, width=32)] * 2),
    st.floats(1e-3, 0.999),
    st.floats(0, 1),
)
def test_plans_are_held_to_what_the_slew_limit_lets_pass(commands, last, share, between):
    spec = slowed(QUAD, share)
    slewing, last = Slewing(spec), np.float32(last)
    plans = np.float32([commands, commands[::-1]])
    kept = slewing(plans, last)
    for plan, by_hand in zip(kept, plans, strict=True):
        expected = one_by_one(by_hand.astype(float), last.astype(float), 12 * share)
        np.testing.assert_allclose(plan, expected, atol=1e-4)
        assert (plan >= 0).all() and (plan <= 12).all()
        limiter = Limiter(spec)
        limiter.reset(last)
        for command in plan:
            assert not any(limiter.changed(command.astype(float)).values())
            np.testing.assert_array_equal(limiter.send(command), command)
    np.testing.assert_array_equal(slewing(kept, last), kept)  # what is feasible is left alone
    mean = between * kept[0] + (1 - between) * kept[1]
    np.testing.assert_allclose(slewing(mean[None], last)[0], mean, atol=1e-5)
    there = Arrays('cpu')
    with_torch = Slewing(spec, there)(there.array(plans), there.array(last))
    np.testing.assert_array_equal(with_torch, kept)


@pytest.mark.parametrize('name', robot_names())
def test_nothing_is_done_to_plans_where_a_command_may_jump_over_its_range(name):
    spec = load_robot(name)
    assert not Slewing(spec)
    assert not Slewing(RobotSpec.model_validate(spec.model_dump() | {'action': _unslewed(spec)}))
    assert Slewing(slowed(spec, 0.99))


def _unslewed(spec):
    return [a.model_dump() | {'slew': None} for a in spec.action]


def test_an_action_that_is_quick_beside_a_slow_one_is_left_alone():
    actions = [a.model_dump() for a in slowed(QUAD, 0.01).action]
    actions[1]['slew'] = None
    spec = RobotSpec.model_validate(QUAD.model_dump() | {'action': actions})
    plans = some_plans()
    kept = Slewing(spec)(plans, np.float32([5.0, 5.0]))
    np.testing.assert_array_equal(kept[..., 1], plans[..., 1])
    assert np.abs(np.diff(kept[..., 0], axis=1)).max() <= 0.12


@pytest.mark.parametrize('through', ['mean', 'draw', 'all'])
@pytest.mark.parametrize('optimizer', ['mppi', 'icem'])
def test_slowed_plans_are_the_same_on_a_graph_and_none_breaks_the_limit(
    tiny_prior, through, optimizer, monkeypatch
):
    dynamics = tiny_prior.dynamics
    robot = slowed(QUAD, 0.03)
    settings = {'through': through, 'optimizer': optimizer, 'horizon': 6}
    both = planners_alike(dynamics, 'cpu', robot=robot, **settings)
    monkeypatch.setattr(graph, 'Graph', Traced)
    monkeypatch.setattr(Arrays, 'on_cuda', property(lambda self: self.device is not None))
    told = []
    for planner in both:
        tell = planner.optimizer.tell
        monkeypatch.setattr(
            planner.optimizer, 'tell', lambda *a, tell=tell: told.append(a[0]) or tell(*a)
        )
    plan_alike(dynamics, *both)
    assert both[1]._graphs
    for candidates in told:
        before = np.broadcast_to(dynamics.history()[0], candidates[:, :1].shape)
        change = np.diff(np.concatenate([before, candidates], axis=1), axis=1)
        assert np.abs(change).max() <= 0.36 + 1e-6


def test_holding_plans_back_needs_nothing_from_the_host(tiny_prior):
    planner = planners_alike(tiny_prior.dynamics, 'cpu', robot=slowed(QUAD, 0.03))[1]
    last, plans = planner.arrays.array(QUAD.neutral), torch.full((5, 4, 2), 9.0)
    with Operations() as operations:
        planner.slewing(plans, last)
    assert not HOST & operations.names


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('optimizer', ['mppi', 'icem'])
def test_a_plan_from_another_command_and_with_wild_proposals_is_within_the_limit(
    tiny_prior, optimizer, engine
):
    robot = slowed(QUAD, 0.03)
    planner = planner_with(tiny_prior.dynamics, robot=robot, optimizer=optimizer, engine=engine)
    belief, past = some_belief(tiny_prior.dynamics), np.tile([11.9, 0.2], (2, 1))
    planner.narrow(np.array([3.0, 3.0]), np.array([7.0, 7.0]))  # which that command is beyond
    wild = np.full((1, robot.planner.horizon, 2), -99.0)
    limiter = Limiter(robot)
    for tick in range(30):
        limiter.reset(past[0])
        found = planner.plan(belief, (tick + 1) * PERIOD, start(0), past, wild)
        for command in found.actions:
            assert not any(limiter.changed(command.astype(float)).values())
            limiter.send(command)
        past = np.stack([found.actions[0], past[0]])
    assert (past >= 3 - 1e-5).all() and (past <= 7 + 1e-5).all()


@pytest.mark.parametrize('optimizer', ['mppi', 'icem'])
def test_a_slow_robot_is_sent_what_was_planned_and_flies_better_for_it(tiny_prior, optimizer):
    """The quadrotor, its rotors slow, in MuJoCo: with slew limits in the plans and without."""
    robot = slowed(QUAD, 0.01, optimizer=optimizer)
    dynamics = replace(tiny_prior.dynamics, spec=robot)
    life = Life(robot='quad', regimes={'A': []}, phases=[('A', 200)])
    score = {}
    for aware in (True, False):
        agent = Frozen(replace(tiny_prior, dynamics=dynamics), 0)
        if not aware:
            agent.controller.planner.slewing = ()
        score[aware] = np.mean(run_life(robot, life, agent, seed=0).score)
        held = agent.controller.safety.interventions
        assert (held['slew limit'] == 0) == aware
        assert not held['range']
    assert score[True] > score[False] + 0.3


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_noise_is_no_wider_than_two_steps_where_the_limit_binds(optimizer):
    def searched(spec):
        search = OPTIMIZERS[optimizer](spec)
        ones = search.ask(lambda n: np.ones((n, spec.planner.horizon, 2), np.float32), 64, 0)
        return np.abs(ones - spec.neutral).max()

    wide = searched(spec_with(robot=QUAD, noise=0.5))
    assert wide == pytest.approx(0.5 * 6.0)
    assert searched(slowed(QUAD, 0.2, noise=0.5)) == wide
    assert searched(slowed(QUAD, 0.05, noise=0.5)) == pytest.approx(2 * 0.05 * 12.0)
