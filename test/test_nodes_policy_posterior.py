"""The policy posterior between the nodes: choices out, posteriors back, as without ROS."""

import json
import time
from dataclasses import replace

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('mujoco')

from lifelong_bayes_ros import cli
from lifelong_bayes_ros.control import choice_wire
from lifelong_bayes_ros.control.policy_posterior import Senses
from lifelong_bayes_ros.experiments.agents import LearningAgent
from lifelong_bayes_ros.experiments.bag import open_bag
from lifelong_bayes_ros.experiments.life import run_life
from lifelong_bayes_ros.experiments.schedule import load_life
from lifelong_bayes_ros.learning.codec import encode_prior
from lifelong_bayes_ros.learning.policy_state import encode_policy, load_policy
from lifelong_bayes_ros.nodes.bringup import Bringup
from lifelong_bayes_ros.robot.policy import PolicySettings
from plants import QUAD

STEPS = 90  # the first posterior that has learned comes at the 75th
LIFE = f"""
robot: quad
regimes:
  A: []
phases: [[A, {STEPS}]]
"""
PATIENCE = 1800.0  # only so that a fault does not hang


def test_choices_are_learned_and_the_posterior_that_comes_of_them_is_used(tiny_prior, tmp_path):
    few = QUAD.planner.model_copy(update={'candidates': 24})
    policy = PolicySettings(seed=True, alone=True)
    spec = QUAD.model_copy(update={'planner': few, 'policy': policy})
    paths = {n: tmp_path / n for n in ('robot.yaml', 'life.yaml', 'prior.safetensors', 'state')}
    paths['robot.yaml'].write_text(spec.dump())
    paths['life.yaml'].write_text(LIFE)
    paths['prior.safetensors'].write_bytes(encode_prior(tiny_prior))
    settings = {
        'robot': str(paths['robot.yaml']),
        'prior': str(paths['prior.safetensors']),
        'sim': True,
        'life': str(paths['life.yaml']),
        'shutdown_at_end': True,
        'out': str(tmp_path / 'bag'),
        'state_dir': str(paths['state']),
    }
    with Bringup(settings, tmp_path / 'log', private=True) as bringup:
        bringup.start()
        deadline = time.monotonic() + PATIENCE
        while 'sim_robot' not in bringup.watch():
            assert time.monotonic() < deadline, 'the life does not end'
            bringup.spin(0.05)
        bringup.stop()
        assert set(bringup.exit_codes.values()) == {0}

    prior = replace(tiny_prior, dynamics=replace(tiny_prior.dynamics, spec=spec))
    agent = LearningAgent(prior, seed=0)
    trace = run_life(spec, load_life(paths['life.yaml']), agent, seed=0)
    with open_bag(tmp_path / 'bag') as bag:
        truth = [json.loads(m.data)['score'] for _, m in bag.messages('sim_robot/regime')]
        senses = Senses(prior.dynamics)
        choices = [choice_wire.decode(senses, m) for _, m in bag.messages('choice')]
        told = [m for _, m in bag.messages('uncertainty')]
    assert truth == trace.score  # also after the posterior has begun to seed the planner
    assert len(choices) in (STEPS, STEPS + 1)  # the state after the last step may be answered, too
    assert agent.controller.adviser.posterior.version >= 64  # it has learned

    names = {f'{a.name}.{kind}' for a in spec.action for kind in ('policy', 'policy_epistemic')}
    assert not names & set(told[0].name)
    last = dict(zip(told[-1].name, told[-1].position, strict=True))
    assert all(last[name] > 0 for name in names)  # a rotor pushes, and nobody is quite sure

    for choice in choices[STEPS:]:
        agent.policy.offer(choice)
    kept = load_policy(paths['state'], senses)
    mine = agent.policy.ask(lambda learner: learner.posterior())
    if kept.stamp_ns == mine.stamp_ns:  # else the recorder ended before the learner
        assert encode_policy(kept.posterior(), '') == encode_policy(mine, '')
    arguments = [str(tmp_path / 'bag'), '--state', str(tmp_path / 'again'), '--json']
    assert cli.main(['learn-policy', *arguments]) == 0  # 1: not equal to what was recorded
    again = load_policy(tmp_path / 'again', Senses(prior.dynamics))
    if again.stamp_ns == kept.stamp_ns:
        assert encode_policy(again.posterior(), '') == encode_policy(kept.posterior(), '')
