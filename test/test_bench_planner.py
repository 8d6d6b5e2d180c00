"""The planner's benches measure what they say."""

import numpy as np
import pytest

import lifelong_bayes_ros_sim as sim
from lifelong_bayes_ros import cli
from lifelong_bayes_ros.experiments import bench_planner, bench_risk
from lifelong_bayes_ros.experiments.bench_risk import MEAN, RISK, RiskUnit
from lifelong_bayes_ros.robot.spec import load_robot


@pytest.mark.parametrize('name', sim.robot_names())
def test_planning_through_mujoco_is_planning_through_the_plant(name):
    robot, rng = sim.make(name), np.random.default_rng(0)
    planner = bench_planner.SimulatorPlanner(load_robot(name), robot, 0)
    x = robot.sample_states(rng, 1)[0]
    plans = robot.sample_actions(rng, 12).reshape(3, 4, -1).astype(np.float32)
    states, now = planner.states(x, plans), np.tile(x, (3, 1))
    for h in range(4):
        command = plans[:, h].astype(float)
        now = robot.one_step(now, command, np.repeat(command[:, None], 2, axis=1))
        turned = robot.robot_spec.wrap(states[:, h] - now)
        np.testing.assert_allclose(turned, 0, atol=1e-4)


@pytest.mark.parametrize('name', bench_risk.ROBOTS)
def test_both_planners_have_the_same_limits_and_pay_the_same_for_them(name):
    specs = [bench_risk.tight_robot(name, planner).model_dump() for planner in (MEAN, RISK)]
    probabilities = [{c.pop('probability') for c in s['cost']['chance'].values()} for s in specs]
    assert probabilities == [{bench_risk.PROBABILITY[p]} for p in (MEAN, RISK)]
    settings = [s.pop('planner') for s in specs]
    assert specs[0] == specs[1]
    changed = {k for k in settings[0] if settings[0][k] != settings[1][k]}
    assert changed <= {'through', 'draws', 'beta', 'careful'}


def test_violations_are_pooled_and_scores_compared_robot_by_robot():
    def lived(score, beyond):
        return {'score': score, 'beyond': beyond, 'steps': 100}

    found = {
        RiskUnit('quad', MEAN, 0): lived(0.8, 30),
        RiskUnit('quad', RISK, 0): lived(0.6, 5),
        RiskUnit('arm', MEAN, 0): lived(0.4, 10),
        RiskUnit('arm', RISK, 0): lived(0.4, 3),
    }
    rows = bench_risk.risk_rows(found)
    assert [r['value'] for r in rows[:2]] == pytest.approx([8 / 40, (0.75 + 1.0) / 2])
    assert [r['ok'] for r in rows[:2]] == [True, False]
    nothing = {u: r | {'beyond': 0} for u, r in found.items()}
    assert (
        bench_risk.risk_rows(nothing)[0]['ok'] is False
    )  # limits that nobody breaks show nothing


@pytest.mark.parametrize(
    'options', [['--seeds', 'x'], ['--jobs', '0'], ['--methods', 'ours'], ['--hz', '5']]
)
def test_options_that_make_no_sense_for_risk_are_refused(options, capsys):
    assert cli.main(['bench', 'risk', *options]) == 2
    assert options[0] in capsys.readouterr().err
