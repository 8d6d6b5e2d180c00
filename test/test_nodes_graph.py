"""The whole graph as processes over DDS: nothing is lost, faults are contained, nothing stays."""

import json
import os
import signal
import time
from collections import Counter

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('mujoco')

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.experiments.agents import LearningAgent
from lifelong_bayes_ros.experiments.bag import open_bag
from lifelong_bayes_ros.experiments.life import run_life
from lifelong_bayes_ros.experiments.priors import prior_for
from lifelong_bayes_ros.experiments.schedule import load_life
from lifelong_bayes_ros.learning.codec import encode_belief, encode_prior
from lifelong_bayes_ros.learning.learner import Learner
from lifelong_bayes_ros.learning.pretrain import PretrainConfig
from lifelong_bayes_ros.learning.store import load_state
from lifelong_bayes_ros.nodes import topics
from lifelong_bayes_ros.nodes.bringup import Bringup
from lifelong_bayes_ros.nodes.codecs import bytes_to_msg
from lifelong_bayes_ros.robot.spec import load_robot

TINY = PretrainConfig(
    width=16,
    regimes=8,
    per_regime=100,
    nominal=500,
    steps=100,
    family=8,
    per_family=100,
    per_set=8,
    per_hypothesis=60,
)
LIFE = """
robot: quad
regimes:
  A: []
  B: [{wind: {force: [2.5, 0.0]}}]
phases: [[A, 25], [B, 20]]
episode: 20
"""
QUAD = load_robot('quad')
PATIENCE = 30.0


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """Priors of both robots, trained in a moment, and the file of the first one."""
    folder = tmp_path_factory.mktemp('priors')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('LIFELONG_BAYES_CACHE', str(folder))
        quad, arm = (prior_for(load_robot(name), config=TINY) for name in ('quad', 'arm'))
    path = folder / 'tiny.safetensors'
    path.write_bytes(encode_prior(quad))
    return quad, arm, path


def until(bringup, done, what):
    """Serve the graph until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, f'{what}: not within {PATIENCE:g} s'
        bringup.spin(0.05)


def is_gone(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_life_in_lockstep_loses_nothing_and_equals_one_without_ros(tiny, tmp_path):
    prior, _, path = tiny
    life_file = tmp_path / 'life.yaml'
    life_file.write_text(LIFE)
    life = load_life(life_file)
    bag, state = tmp_path / 'bag', tmp_path / 'state'
    settings = {
        'robot': 'quad',
        'prior': str(path),
        'sim': True,
        'life': str(life_file),
        'shutdown_at_end': True,
        'viz': True,
        'out': str(bag),
        'state_dir': str(state),
    }
    with Bringup(settings, tmp_path / 'log', private=True) as bringup:
        names = [start.node.name for start in bringup.starts]
        bringup.start()
        until(bringup, lambda: 'sim_robot' in bringup.watch(), 'end of the life')
        groups = [process.pid for process in bringup.processes.values()]
        bringup.stop()
        assert bringup.exit_codes == dict.fromkeys(names, 0)
        assert all(is_gone(group) for group in groups)
    bringup.stop()

    agent = LearningAgent(prior, seed=0)
    trace = run_life(QUAD, life, agent, seed=0)
    with open_bag(bag) as recorded:
        counts = {
            ending: len(list(recorded.messages(ending)))
            for ending in ('transition', 'learner_state', 'uncertainty', 'odom', 'action')
        }
        truth = [json.loads(m.data) for _, m in recorded.messages('sim_robot/regime')]
        events = [json.loads(m.data) for _, m in recorded.messages('event')]
        lost = [
            dict(zip(m.name, m.position))['lost'] for _, m in recorded.messages('learner_state')
        ]
        episodes = [json.loads(m.data) for _, m in recorded.messages('episode')]
        assert recorded.prior()[0].dynamics.spec == QUAD
    assert [t['score'] for t in truth] == trace.score
    assert [t['regime'] for t in truth] == ['A'] * 25 + ['B'] * 20
    assert all(len(t['latencies']) == 1 and t['latencies'][0] > 0 for t in truth)
    assert [t['done'] for t in truth] == [False] * 44 + [True]
    steps = life.steps + 1  # the first state makes a transition too
    assert counts['transition'] == counts['learner_state'] == steps
    assert min(counts['uncertainty'], counts['action'], counts['odom']) >= life.steps
    assert set(lost) == {0.0}
    assert [e['event'] for e in events].count('consolidated') == 2
    assert {'start', 'end'} == {e['event'] for e in episodes}
    assert events[-1]['event'] == 'saved'
    assert events[-1]['digest'] == agent.learner.digest() == load_state(state).digest()


def test_faults_of_others_are_contained_in_real_time(tiny, tmp_path):
    prior, other, path = tiny
    diagnostics, heard = {}, Counter()
    settings = {'robot': 'quad', 'prior': str(path), 'sim': True, 'realtime': True}
    with Bringup(settings, tmp_path / 'log', private=True) as bringup:
        node = bringup.node

        def on_diagnostics(message):
            for status in message.status:
                name = status.name.split(':')[0]
                figures = {v.key: v.value for v in status.values}
                diagnostics[name] = (status.message, figures)
                heard[name] += 1

        def message_of(name):
            return diagnostics.get(name, ('', {}))[0]

        def figure(name, key):
            return int(diagnostics.get(name, ('', {}))[1].get(key, 0))

        def on_command(message):
            heard['command'] += 1

        command = topics.command_topic(QUAD)
        node.create_subscription(command.type, command.name, on_command, command.qos)
        node.create_subscription(
            topics.DIAGNOSTICS.type,
            topics.DIAGNOSTICS.name,
            on_diagnostics,
            topics.DIAGNOSTICS.qos,
        )

        def insist(topic, message, done, what):
            """Publish until it shows: newer messages of the graph may overtake one of ours."""
            publisher = node.create_publisher(topic.type, topic.name, topic.qos)

            def publish():
                publisher.publish(message)
                return done()

            until(bringup, publish, what)
            node.destroy_publisher(publisher)

        def until_it_acts():
            before = heard['command']
            # The tiny prior's guard may well hold, and for good once the learner is gone.
            acts = ('acting', 'guard: acting')
            until(bringup, lambda: message_of('policy').startswith(acts), 'it acts')
            until(bringup, lambda: heard['command'] > before + 5, 'commands flow')

        bringup.start()
        until_it_acts()

        # Beliefs that do not fit are refused, and the last good one serves on.
        for topic, data, reason in (
            (topics.TRUNK, encode_prior(other), 'belief of another robot'),
            (
                topics.HEAD,
                encode_belief(Learner(prior).belief(), 'x'),
                'bad message on belief/head',
            ),
            (topics.TRUNK, encode_prior(prior)[:-9], 'bad message on belief/trunk'),
        ):
            insist(topic, bytes_to_msg(data), lambda r=reason: figure('policy', r), reason)
        # So are readings without a meaning.
        bad = Odometry()
        bad.pose.pose.orientation.w = 0.0
        for name in ('policy', 'transition_streamer'):
            odom = topics.state_topics(QUAD)['odom']
            insist(odom, bad, lambda n=name: figure(n, 'bad message on odom'), 'bad reading')
        until_it_acts()

        # An emergency stop: safe actions, then silence; only ~/enable ends it.
        stopped = 'stopped; call ~/enable to go on'
        insist(topics.ESTOP, Bool(data=True), lambda: message_of('policy') == stopped, 'estop')
        ticks = QUAD.safe_action.ticks
        until(bringup, lambda: figure('policy', 'safe action') > ticks, 'safe actions are over')
        silent, reports = heard['command'], heard['policy']
        calm = Bool(data=False)
        insist(topics.ESTOP, calm, lambda: heard['policy'] >= reports + 2, 'two more reports')
        assert message_of('policy') == stopped
        assert heard['command'] == silent
        client = node.create_client(SetBool, 'policy/enable')
        until(bringup, client.service_is_ready, 'service')
        answer = client.call_async(SetBool.Request(data=True))
        until(bringup, answer.done, 'answer')
        assert answer.result().success
        until_it_acts()

        # A lifecycle transition that is not possible now does no harm.
        client = node.create_client(ChangeState, 'policy/change_state')
        until(bringup, client.service_is_ready, 'service')
        client.call_async(ChangeState.Request(transition=Transition(label='activate')))
        until_it_acts()

        # Without a learner the robot is still controlled, on the nominal model.
        bringup.processes['learner'].kill()
        until(bringup, lambda: bringup.watch() == {'learner': -signal.SIGKILL}, 'learner gone')
        until(bringup, lambda: figure('policy', 'stale belief') > 3, 'belief is stale')
        until_it_acts()
        stale = figure('policy', 'stale belief')
        bringup.restart('learner')
        assert bringup.watch() == {}
        until_it_acts()
        assert figure('policy', 'stale belief') >= stale

        groups = [process.pid for process in bringup.processes.values()]
        bringup.processes['transition_streamer'].terminate()
        bringup.processes['policy'].kill()
        until(bringup, lambda: len(bringup.watch()) == 2, 'two nodes gone')
        assert bringup.watch() == {'transition_streamer': 0, 'policy': -signal.SIGKILL}
    assert all(is_gone(group) for group in groups)
    assert bringup.exit_codes['learner'] == 0


def test_a_node_that_cannot_start_says_why(tmp_path):
    groups = []
    settings = {'robot': 'quad', 'device': 'tpu'}
    with Bringup(settings, tmp_path / 'log', private=True) as bringup:
        with pytest.raises(UserError) as caught:
            bringup.start()
        groups += [process.pid for process in bringup.processes.values()]
    message = str(caught.value)
    assert "parameter device: 'tpu' is none of cpu, cuda" in message
    assert 'Traceback' not in message
    assert groups
    assert all(is_gone(group) for group in groups)


def test_two_bringups_do_not_share_a_domain(tmp_path):
    settings = {'robot': 'quad'}
    with (
        Bringup(settings, tmp_path / 'a', private=True) as first,
        Bringup(settings, tmp_path / 'b', private=True) as second,
    ):
        assert first.domain_id != second.domain_id
