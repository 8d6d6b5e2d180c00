"""The oracle knows what is in force at every step: along a drift, and how late commands act."""

from dataclasses import replace

import numpy as np
import pytest

import lifelong_bayes_ros_sim as sim
import plants
from lifelong_bayes_ros.experiments.agents import METHODS, Setting
from lifelong_bayes_ros.experiments.course import POINTS, Course, points
from lifelong_bayes_ros.experiments.oracle import OracleAgent, Specialist, delays
from lifelong_bayes_ros.experiments.schedule import Life, load_life
from lifelong_bayes_ros.experiments.units import Unit, trainings
from lifelong_bayes_ros.learning.broad import SCRATCH
from lifelong_bayes_ros.learning.settings import LearnerConfig


def gain(factor: float) -> dict:
    return {'actuator_gain': {'actuator': 'left', 'factor': factor}}


def drift(shape: str, seconds: float) -> list[dict]:
    return [{'drift': {'start': gain(1.0), 'end': gain(0.5), 'seconds': seconds, 'shape': shape}}]


def life(shifts: list[dict], steps: int) -> Life:
    regimes = {'A': [], 'D': shifts}
    return Life(robot='quad', regimes=regimes, phases=[('A', 10), ('D', steps), ('A', 10)])


def factor(shifts: list[dict]) -> float:
    return shifts[0]['actuator_gain']['factor']


@pytest.mark.parametrize(('shape', 'seconds'), [('ramp', 3.0), ('wave', 6.0)])
def test_the_specialist_is_always_the_nearest_one_along_a_drift(shape, seconds):
    schedule, period = life(drift(shape, seconds), 260), plants.QUAD.period
    course = Course(schedule, period)
    (moving,) = (sim.shift_from_dict(s) for s in schedule.regimes['D'])
    assert [course.at(s) for s in (0, 9, 270, 400)] == ['A'] * 4
    used = set()
    for step in range(10, 270):
        point = course.at(step)
        used.add(point)
        mine = factor(course.points['D'][point])
        now = moving.at((step - 10) * period).factor
        distances = [abs(factor(p) - now) for p in course.points['D'].values()]
        assert abs(mine - now) == pytest.approx(min(distances), abs=1e-9)
    assert len(used) == POINTS


def test_the_factors_of_the_specialists_span_the_drift():
    for shape in ('ramp', 'wave'):
        factors = [factor(p) for p in points('D', drift(shape, 4.0)).values()]
        assert factors[0] == 1.0 and factors[-1] == pytest.approx(0.5)
        assert np.all(np.diff(factors) < 0)


def test_a_regime_that_does_not_drift_has_its_own_specialist():
    assert points('B', [gain(0.5)]) == {'B': [gain(0.5)]}


def test_the_agent_changes_its_network_along_a_drift(tiny_prior):
    schedule = life(drift('ramp', 3.0), 100)
    course = Course(schedule, plants.QUAD.period)
    networks = {}
    for number, name in enumerate(['A', *course.points['D']], start=1):
        dynamics = tiny_prior.dynamics
        networks[name] = replace(
            tiny_prior, dynamics=replace(dynamics, nominal=number * dynamics.nominal)
        )
    agent = OracleAgent(networks, schedule, 0)
    for step in (0, 10, 40, 109, 115):
        belief = agent.belief(step)
        expected = networks[course.at(step)].dynamics
        assert agent.controller.dynamics is expected
        head = expected.nominal.ravel().astype(np.float32)
        np.testing.assert_array_equal(belief.theta[: len(head)], head)


def test_every_specialist_of_a_drift_is_trained_before_it_is_needed():
    example = load_life('examples/every_shift')
    needed = trainings([Unit('x', example, 'oracle', 0)])
    names = [t.regime for t in needed]
    assert 'worn_wheel' in names and 'wearing_out' not in names
    on_the_way = points('wearing_out', example.regimes['wearing_out']).values()
    assert [factor(p) for p in on_the_way] == pytest.approx(np.linspace(1.0, 0.5, POINTS))
    trained = [list(t.shifts) for t in needed]
    assert all(p in trained for p in on_the_way)  # one of them is that of `worn_wheel`


# ---------------------------------------------------------------------- late commands
@pytest.mark.parametrize(('steps', 'weights'), [(1, (1, 0)), (2, (0, 1))])
def test_how_late_commands_act_is_found(tiny_prior, steps, weights):
    shifts = [{'delay': {'steps': steps}}]
    late = delays(plants.QUAD, tiny_prior, shifts)
    np.testing.assert_allclose(late, weights, atol=0.1)
    np.testing.assert_array_equal(late, delays(plants.QUAD, tiny_prior, shifts))
    belief = Specialist(tiny_prior, 0, late).belief(0)
    np.testing.assert_array_equal(belief.theta[-2:], late.astype(np.float32))


def test_nothing_is_late_where_nothing_is_delayed(tiny_prior):
    np.testing.assert_array_equal(delays(plants.QUAD, tiny_prior, plants.LOSS), [0, 0])


# ---------------------------------------------------------------------- from scratch
def test_learning_from_scratch_is_a_method_that_says_so(tiny_prior):
    said = []
    schedule = life([gain(0.5)], 20)
    setting = Setting(plants.QUAD, tiny_prior, schedule, 3, lambda what, share: said.append(what))
    agent = METHODS['scratch'].make(setting)
    assert any('from scratch' in line for line in said)
    assert agent.name == 'scratch' and agent.learner.config == SCRATCH
    assert not np.array_equal(agent.learner.dynamics.trunk.w1, tiny_prior.dynamics.trunk.w1)
    assert agent.learner.prior.hypotheses is None


def test_ours_without_background_is_ours_but_for_that(tiny_prior):
    setting = Setting(plants.QUAD, tiny_prior, life([gain(0.5)], 20), 3)
    agents = {name: METHODS[name].make(setting) for name in ('ours', 'ours_head')}
    assert {n: a.name for n, a in agents.items()} == {'ours': 'ours', 'ours_head': 'ours_head'}
    assert agents['ours'].learner.config == LearnerConfig()
    assert agents['ours_head'].learner.config == LearnerConfig(background=False)
