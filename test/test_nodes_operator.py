"""What an operator meets: nodes as processes, with inputs, disks and parameters gone wrong."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy')

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import TwistStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger

from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.experiments.bag import open_bag
from lifelong_bayes_ros.learning.codec import encode_belief, encode_prior, fingerprint
from lifelong_bayes_ros.learning.learner import Learner
from lifelong_bayes_ros.learning.store import load_state
from lifelong_bayes_ros.nodes import topics
from lifelong_bayes_ros.nodes.bringup import OF_PROCESSES, Bringup, claim_domain, signal_group
from lifelong_bayes_ros.nodes.codecs import (
    bytes_to_msg,
    state_messages,
    transition_to_msg,
)
from lifelong_bayes_ros.nodes.player import Player
from lifelong_bayes_ros.nodes.table import Common
from lifelong_bayes_ros.nodes.this_machine import this_machine
from lifelong_bayes_ros.robot.spec import load_robot
from lifelong_bayes_ros.robot.transitions import Flag
from lifelong_bayes_ros.robot.transitions import Transition as Step
from test_cli import write_bag

QUAD = load_robot('quad')
ODOM = topics.state_topics(QUAD)['odom']
PATIENCE = 300.0  # s: a test that hangs must end
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Operator:
    """Looks at `/diagnostics` and logs, publishes, and calls services."""

    def __init__(self, bringup, namespace='/lifelong'):
        self.bringup, self.node, self.namespace = bringup, bringup.node, namespace
        self.status = {}
        self.heard = 0
        topic = topics.DIAGNOSTICS
        self.node.create_subscription(topic.type, topic.name, self._on_status, topic.qos)

    def _on_status(self, message):
        self.heard += 1
        for status in message.status:
            self.status[status.name.split(':')[0]] = status

    def until(self, done, what):
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < deadline, f'{what}; {self.said()}'
            self.bringup.spin(0.02)
        return True

    def said(self):
        return {name: (s.level, s.message) for name, s in self.status.items()}

    def reads(self, name, words, level=None):
        """Wait until a node's diagnostics hold these words, at this level."""

        def found():
            status = self.status.get(name)
            told = f'{status.message} {status.values}' if status else ''
            return words in told and level in (None, status.level)

        return self.until(found, f'{name} never says {words!r}')

    def logged(self, name, words):
        path = self.bringup.logs / f'{name}.log'
        return self.until(lambda: words in path.read_text(errors='replace'), f'log: {words!r}')

    def call(self, kind, name, request):
        client = self.node.create_client(kind, f'{self.namespace}/{name}')
        self.until(client.service_is_ready, f'service {name}')
        answer = client.call_async(request)
        self.until(answer.done, f'answer of {name}')
        self.node.destroy_client(client)
        return answer.result()

    def change_state(self, name, transition):
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.call(ChangeState, f'{name}/change_state', request).success

    def set(self, name, parameter, value):
        kinds = {bool: 'bool', float: 'double', int: 'integer', str: 'string'}
        kind = kinds[type(value)]
        number = getattr(ParameterType, f'PARAMETER_{kind.upper()}')
        wrapped = ParameterValue(type=number, **{f'{kind}_value': value})
        request = SetParameters.Request(parameters=[Parameter(name=parameter, value=wrapped)])
        return self.call(SetParameters, f'{name}/set_parameters', request).results[0]

    def get(self, name, parameter):
        request = GetParameters.Request(names=[parameter])
        return self.call(GetParameters, f'{name}/get_parameters', request).values[0]

    @contextmanager
    def publishing(self, topic_type, name, qos, messages):
        """Publish the next of endless messages at 100 Hz whenever the operator waits."""
        output = self.node.create_publisher(topic_type, name, qos)
        timer = self.node.create_timer(0.01, lambda: output.publish(next(messages)))
        yield
        self.node.destroy_timer(timer)
        self.node.destroy_publisher(output)


def odometry(period=QUAD.period, frame=QUAD.frame, start=1.0):
    """Endless odometry of a robot that hovers."""
    x = np.float32([0.0, 1.5, 0.0, 0.0, 0.0, 0.0])
    stamp = start
    while True:
        stamp += period
        message = state_messages(QUAD, round(stamp * 1e9), x)['odom']
        message.header.frame_id = frame
        yield message


@contextmanager
def started(folder, nodes, namespace='/lifelong', domain_id=None, **settings):
    with Bringup(
        {'robot': 'quad', **settings},
        folder,
        domain_id,
        private=True,
        common=Common(nodes=nodes, namespace=namespace),
    ) as bringup:
        bringup.start()
        yield Operator(bringup, namespace)


BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


def test_an_input_that_does_not_come_in_is_named_with_its_reason(tmp_path):
    with started(tmp_path, 'transition_streamer') as operator:
        name = 'transition_streamer'
        operator.reads(name, 'nobody publishes /lifelong/odom; start the robot', ERROR)
        operator.logged(name, 'nobody publishes /lifelong/odom')

        words = iter(lambda: String(data='x'), None)
        with operator.publishing(String, 'odom', ODOM.qos, words):
            wrong = '/lifelong/bringup publishes std_msgs/msg/String, nav_msgs/msg/Odometry is'
            operator.reads(name, wrong, ERROR)
            operator.logged(name, wrong)

        action = topics.ACTION
        actions = iter(action.type, None)
        with (
            operator.publishing(Odometry, 'odom', BEST_EFFORT, odometry()),
            operator.publishing(action.type, action.name, BEST_EFFORT, actions),
        ):
            operator.reads(
                name, '/lifelong/action: /lifelong/bringup: its quality of service does not fit'
            )
            operator.logged(name, 'its quality of service does not fit')
            operator.reads(name, 'streaming; ', WARN)  # the state itself does come in

        for messages, complaint in (
            (odometry(period=0.5, start=10.0), 'odom comes at 2 Hz, period 0.03 wants 33.3 Hz'),
            (odometry(frame='', start=1e6), "odom is in frame '', the robot file says 'odom'"),
            (odometry(period=0.0, start=2e6), 'all messages have one stamp'),
        ):
            with operator.publishing(Odometry, 'odom', ODOM.qos, messages):
                operator.reads(name, complaint)
                operator.logged(name, complaint)
        operator.reads(name, 'nobody publishes /lifelong/odom', ERROR)
        with (
            operator.publishing(Odometry, 'odom', ODOM.qos, odometry(start=3e6)),
            operator.publishing(action.type, action.name, action.qos, actions),
        ):
            operator.reads(name, '', OK)


def test_why_readings_do_not_become_states_is_said(tmp_path):
    def spoilt():
        for message in odometry():
            message.twist.twist.linear.x = np.nan
            yield message

    mend = 'readings are left out, most: not finite; mend the driver'
    with started(tmp_path, 'transition_streamer,policy') as operator:
        with operator.publishing(Odometry, 'odom', ODOM.qos, spoilt()):
            for name in ('transition_streamer', 'policy'):
                operator.reads(name, f'no state comes in; {mend}', ERROR)
                operator.logged(name, mend)
        with operator.publishing(Odometry, 'odom', ODOM.qos, odometry(start=1e6)):
            operator.reads('policy', 'no belief yet', WARN)
            operator.until(
                lambda: 'left out' not in operator.status['transition_streamer'].message, 'streams'
            )


def test_a_command_that_nobody_hears_or_hears_as_another_type_is_said(tmp_path):
    with started(tmp_path, 'policy') as operator:
        nobody = "nobody hears /lifelong/command; start the robot's controller"
        operator.reads('policy', nobody)
        operator.logged('policy', nobody)
        wrong = operator.node.create_subscription(TwistStamped, 'command', lambda _: None, 10)
        heard = 'hears /lifelong/command as geometry_msgs/msg/TwistStamped, std_msgs/msg/Float64'
        operator.reads('policy', heard)
        operator.node.destroy_subscription(wrong)
        kind = topics.command_topic(QUAD).type
        operator.node.create_subscription(kind, 'command', lambda _: None, 10)
        operator.until(lambda: 'hears' not in operator.status['policy'].message, 'heard')


def test_the_policy_says_what_an_operator_did_wrong(tmp_path, tiny_prior):
    with started(tmp_path, 'policy') as operator:
        latched = {'durability': DurabilityPolicy.TRANSIENT_LOCAL}
        operator.node.create_subscription(
            topics.command_topic(QUAD).type,
            'command',
            lambda m: None,
            QoSProfile(depth=1, **latched),
        )
        operator.node.create_publisher(Bool, topics.ESTOP.name, BEST_EFFORT)
        operator.logged('policy', '/lifelong/policy/estop: a peer offers or asks for another REL')
        operator.logged(
            'policy', '/lifelong/command: a peer offers or asks for another DURABILITY'
        )
        operator.reads('policy', '/lifelong/bringup cannot hear /lifelong/command')
        operator.reads('policy', 'no state comes in', ERROR)
        operator.reads('policy', 'start the learner')

        refused = operator.set('policy', 'plan_rate_hz', 5000.0)
        assert not refused.successful
        assert 'out of range' in refused.reason
        operator.reads('policy', 'parameter refused last')
        operator.logged('policy', 'parameter refused, the old value is kept: plan_rate_hz')
        assert (
            'must contain the neutral command'
            in operator.set('policy', 'limits.left.high', 3.0).reason
        )
        assert 'read-only' in operator.set('policy', 'robot', 'arm').reason
        assert operator.set('policy', 'limits.left.high', 6.0).successful

        assert operator.set('policy', 'enabled', False).successful
        operator.reads('policy', 'stopped by the parameter enabled')
        assert operator.call(SetBool, 'policy/enable', SetBool.Request(data=True)).success
        assert operator.get('policy', 'enabled').bool_value
        operator.call(SetBool, 'policy/enable', SetBool.Request(data=False))
        assert not operator.get('policy', 'enabled').bool_value
        assert operator.set('policy', 'enabled', True).successful

        # It acts, within the narrower range, through a whole turn of its lifecycle.
        for topic, data in (
            (topics.TRUNK, encode_prior(tiny_prior)),
            (topics.HEAD, encode_belief(Learner(tiny_prior).belief(), fingerprint(tiny_prior))),
        ):
            output = operator.node.create_publisher(topic.type, topic.name, topic.qos)
            output.publish(bytes_to_msg(data))
        commands = []
        command = topics.command_topic(QUAD)
        operator.node.create_subscription(
            command.type, command.name, lambda m: commands.append(list(m.data)), command.qos
        )
        with operator.publishing(Odometry, 'odom', ODOM.qos, odometry()):
            operator.until(lambda: len(commands) > 20, 'commands')
            assert max(c[0] for c in commands) <= 6.0
            assert operator.change_state('policy', Transition.TRANSITION_DEACTIVATE)
            commands.clear()
            heard = operator.heard
            operator.call(GetParameters, 'policy/get_parameters', GetParameters.Request())
            assert commands == []
            assert operator.change_state('policy', Transition.TRANSITION_CLEANUP)
            assert operator.change_state('policy', Transition.TRANSITION_CONFIGURE)
            assert operator.change_state('policy', Transition.TRANSITION_ACTIVATE)
            operator.until(lambda: len(commands) > 20, 'commands again')
            operator.until(lambda: operator.heard > heard, 'diagnostics again')


def steps(count, sequence=0):
    """Transitions of a robot that hovers."""
    x = np.float32([0.0, 1.5, 0.0, 0.0, 0.0, 0.0])
    u = np.float32(QUAD.neutral)
    for k in range(sequence, sequence + count):
        flags = Flag.FIRST if k == 0 else Flag(0)
        yield Step(x, u, x, QUAD.period, (k + 1) * QUAD.period_ns, flags, k, 0)


@pytest.fixture
def prior_file(tmp_path, tiny_prior):
    path = tmp_path / 'tiny.safetensors'
    path.write_bytes(encode_prior(tiny_prior))
    return str(path)


def test_a_learner_can_be_stopped_and_started_again_and_counts_what_it_missed(
    tmp_path, prior_file
):
    state = tmp_path / 'state'
    with started(tmp_path, 'learner', prior=prior_file, state_dir=str(state)) as operator:
        topic = topics.TRANSITION
        output = operator.node.create_publisher(topic.type, topic.name, topic.qos)
        operator.until(lambda: output.get_subscription_count(), 'the learner')

        def teach(transitions):
            for transition in transitions:
                output.publish(transition_to_msg(QUAD, transition))

        teach(steps(20))
        operator.reads('learner', "key='transitions', value='20'")
        assert operator.call(Trigger, 'learner/save', Trigger.Request()).success
        assert load_state(state).step == 20
        assert operator.set('learner', 'learning', False).successful
        answer = operator.call(SetBool, 'learner/set_learning', SetBool.Request(data=True))
        assert answer.success
        assert operator.get('learner', 'learning').bool_value
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
            assert operator.change_state('learner', transition)
        teach(steps(5, sequence=23))
        operator.reads('learner', '3 transitions were lost on the way just now', WARN)
        operator.reads('learner', "key='transitions', value='25'")
        assert operator.bringup.watch() == {}


@pytest.mark.parametrize(
    ('node', 'setting', 'value', 'words'),
    [
        ('learner', 'state_dir', 'file/state', 'parameter state_dir: cannot write to'),
        ('learner', 'device', 'cuda:7', 'parameter device: cuda:7 is not there'),
        (
            'policy',
            'planner_device',
            'tpu',
            "parameter planner_device: 'tpu' is none of cpu, cuda",
        ),
    ],
)
def test_a_node_that_cannot_work_does_not_configure(
    tmp_path, prior_file, node, setting, value, words
):
    (tmp_path / 'file').write_text('in the way')
    value = str(tmp_path / value) if setting == 'state_dir' else value
    settings = {'prior': prior_file} if node == 'learner' else {}
    settings[setting] = value
    with pytest.raises(UserError) as caught, started(tmp_path / 'log', node, **settings):
        pass
    assert words in str(caught.value)
    assert 'Traceback' not in str(caught.value)


def test_two_robots_side_by_side_do_not_hear_each_other(tmp_path):
    node = 'transition_streamer'
    with started(tmp_path / '1', node, '/r1') as one:
        domain = one.bringup.domain_id
        with started(tmp_path / '2', node, '/r2', domain) as two:
            with one.publishing(Odometry, 'odom', ODOM.qos, odometry()):
                one.reads('r1/transition_streamer', 'streaming')
                one.reads('r2/transition_streamer', 'nobody publishes /r2/odom', ERROR)
            assert "key='readings', value='0'" in str(one.status['r2/transition_streamer'].values)
            # Remapping reaches what the nodes say, too.
            process = subprocess.Popen(
                [
                    *(sys.executable, '-m', 'lifelong_bayes_ros.nodes.transition_streamer'),
                    *('--ros-args', '-r', '__ns:=/r3', '-r', 'odom:=base/odom'),
                    *('-p', 'robot:=quad', '-p', 'autostart:=true'),
                ],
                env={**two.bringup._environment},
            )
            two.reads('r3/transition_streamer', 'nobody publishes /r3/base/odom', ERROR)
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0


def test_a_parameter_of_the_wrong_range_or_kind_or_name_at_the_start(tmp_path):
    def start(*parameters, node='transition_streamer'):
        words = [w for p in parameters for w in ('-p', p)]
        module = f'lifelong_bayes_ros.nodes.{node}'
        return subprocess.run(
            [sys.executable, '-m', module, '--ros-args', *words],
            env={**os.environ, 'ROS_LOG_DIR': str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    for parameter, words in (
        ('episode_length:=-1', 'episode_length'),
        ('episode_length:=long', 'episode_length'),
    ):
        done = start(parameter)
        assert done.returncode == 2
        assert words in done.stderr
        assert 'Traceback' not in done.stderr
    done = start('autostart:=true', 'robot:=quod', 'episode_lenght:=5')
    assert done.returncode == 1
    assert 'parameter episode_lenght is unknown and ignored' in done.stderr
    assert "unknown robot 'quod'" in done.stderr
    done = start('autostart:=true', 'robot:=arm', 'life:=quad', node='sim_robot')
    assert done.returncode == 1
    assert "life quad: regimes.C: actuator_gain.actuator: robot arm has no 'right'" in done.stderr
    assert 'Traceback' not in done.stderr


def test_what_was_recorded_is_played_byte_for_byte(tmp_path):
    bag = tmp_path / 'bag'
    with started(tmp_path / '1', 'recorder', out=str(bag)) as operator:
        topic = topics.TRANSITION
        output = operator.node.create_publisher(topic.type, topic.name, topic.qos)
        operator.until(lambda: output.get_subscription_count(), 'the recorder')
        for transition in steps(30):
            output.publish(transition_to_msg(QUAD, transition))
        operator.reads('recorder', "key='messages', value='3")
    with open_bag(bag) as recorded:
        expected = [m.data.tobytes() for _, m in recorded.messages('transition')]
    assert len(expected) == 30
    heard = []
    with Bringup(
        {'robot': 'quad', 'bag': str(bag), 'speed': 2.0},
        tmp_path / '2',
        private=True,
        common=Common(nodes='player', namespace='/again'),
    ) as bringup:
        operator = Operator(bringup, '/again')
        # In the place of the learner, whom the player waits for.
        learner = rclpy.create_node('learner', namespace='/again', context=bringup.context)
        bringup._executor.add_node(learner)
        learner.create_subscription(
            topic.type, topic.name, lambda m: heard.append(np.float32(m.data).tobytes()), topic.qos
        )
        bringup.start()
        operator.until(lambda: len(heard) >= 30, 'all transitions')
        operator.reads('again/player', 'the bag is over', OK)
    assert heard == expected


@contextmanager
def player(**given):
    """A player by itself, configured if it can be, alone in a domain of its own."""
    domain, lock = claim_domain()
    arguments = [a for name, value in given.items() for a in ('-p', f'{name}:={value}')]
    rclpy.init(args=['--ros-args', *arguments], domain_id=domain)
    node = Player()
    try:
        node.trigger_configure()
        yield node
        if not node._failed:
            node.trigger_cleanup()
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
        lock.close()


def test_what_is_played_keeps_its_topic_though_another_ends_alike(tmp_path):
    source = QUAD.sources['odom'].model_copy(update={'topic': '/base/odom'})
    robot = tmp_path / 'robot.yaml'
    robot.write_text(QUAD.model_copy(update={'sources': {'odom': source}}).dump())
    store = get_typestore(Stores.ROS2_JAZZY)
    offered = {
        '/theirs/plan': topics.PLAN,
        '/theirs/uncertainty/plan': topics.PLAN_SPREAD,
        '/r1/clock': topics.CLOCK,
        '/base/odom': ODOM,
        '/camera/base/odom': ODOM,
        '/theirs/belief/memory': topics.MEMORY,  # the learner's, which is made anew
    }
    with Writer(tmp_path / 'bag', version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for name, topic in offered.items():
            writer.add_connection(name, topics.type_name(topic), typestore=store)
    with player(robot=robot, bag=tmp_path / 'bag') as node:
        connections = {c.id: c.topic for c in node.reader.connections}
        played = {connections[k]: output.topic_name for k, output in node.outputs.items()}
    assert played == {
        '/theirs/plan': '/lifelong/plan',
        '/theirs/uncertainty/plan': '/lifelong/uncertainty/plan',
        '/r1/clock': '/clock',
        '/base/odom': '/base/odom',
    }


@pytest.mark.parametrize('robot', ['quad', 'arm', 'another quad'])
def test_a_bag_of_another_robot_is_refused(robot, tmp_path, tiny_prior):
    write_bag(tmp_path / 'bag', tiny_prior, steps(3), None)
    if robot == 'another quad':
        robot = tmp_path / 'robot.yaml'
        robot.write_text(QUAD.model_copy(update={'period': 0.02}).dump())
    with player(robot=robot, bag=tmp_path / 'bag') as node:
        said = node._failed
    words = {'quad': '', 'arm': 'name is quad, here arm; '}
    assert words.get(robot, 'period_ns is 30000000, here 20000000; ') in said
    assert bool(said) == (robot != 'quad')


def test_a_first_robot_file_is_written_from_a_running_robot(tmp_path):
    """A driver that publishes Odometry, and somebody who steers it."""
    base = load_robot('base')
    (source, odom), *_ = topics.state_topics(base).items()
    command, file = topics.command_topic(base), tmp_path / 'found.yaml'
    with Bringup({'robot': 'base'}, tmp_path, private=True) as bringup:  # for its domain and node
        outputs = [bringup.node.create_publisher(t.type, t.name, 10) for t in (odom, command)]
        asked = subprocess.Popen(
            [sys.executable, '-m', 'lifelong_bayes_ros', 'robot', 'init', '--from-topics']
            + ['--seconds', '2', '--domain-id', str(bringup.domain_id), '--out', str(file)],
            env=os.environ | this_machine(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        count, rng = 0, np.random.default_rng(0)
        begun = time.monotonic()
        while asked.poll() is None:
            x = 0.1 * rng.standard_normal(len(base.state))
            message = state_messages(base, round(count * base.period_ns), np.float32(x))[source]
            outputs[0].publish(message)
            outputs[1].publish(command.type())
            count += 1
            bringup.spin(0.0)
            time.sleep(max(begun + count * base.period - time.monotonic(), 0.0))
        said = asked.stdout.read()
        assert asked.returncode == 0, said
    assert 'robot check' in said  # what to do next
    found = load_robot(str(file))
    assert [s.topic.rpartition('/')[2] for s in found.sources.values()] == [odom.name]
    assert found.command.type == base.command.type
    assert 0.8 * base.period < found.period < 10 * base.period  # as a busy machine published it
    assert 'EDIT' in file.read_text()


@pytest.mark.parametrize(('known', 'asked'), [(2, False), (3, True)])
def test_a_state_is_copied_only_of_a_learner_that_knows_more_than_was_recorded(
    tmp_path, tiny_prior, known, asked
):
    """Even where the first belief that the recorder hears is not the learner's first.

    Of three transitions, the first one of an episode is not learned from.
    """
    belief = replace(Learner(tiny_prior).belief(), version=known, stamp_ns=3 * QUAD.period_ns)
    head = bytes_to_msg(encode_belief(belief, fingerprint(tiny_prior)))
    requests = []

    def recorded(topic):
        try:
            with open_bag(tmp_path / 'bag') as bag:
                return len(list(bag.messages(topic))) if bag.has(topic) else 0
        except UserError:
            return 0  # nothing was flushed yet

    def save(request, response):
        requests.append(request)
        response.success = True
        return response

    with started(tmp_path / '1', 'recorder', out=str(tmp_path / 'bag')) as operator:
        operator.node.create_service(Trigger, 'learner/save', save)
        outputs = [
            operator.node.create_publisher(topic.type, topic.name, topic.qos)
            for topic in (topics.TRANSITION, topics.HEAD, topics.EVENT)
        ]
        operator.until(lambda: all(o.get_subscription_count() for o in outputs), 'the recorder')
        for transition in steps(3):
            outputs[0].publish(transition_to_msg(QUAD, transition))
        operator.until(lambda: recorded('transition') == 3, 'transitions')
        outputs[1].publish(head)
        operator.until(lambda: recorded('belief/head') == 1, 'the belief')
        if asked:
            operator.until(lambda: requests, 'a request')
        else:
            heard = operator.heard
            operator.until(lambda: operator.heard >= heard + 2, 'reports')
    assert bool(requests) == asked  # once more where DDS is slow to bring an answer


def test_nodes_that_run_already_are_named_but_not_those_that_were_killed(tmp_path):
    only = Common(nodes='transition_streamer')
    with Bringup({'robot': 'quad'}, tmp_path / '1', private=True, common=only) as first:
        first.start()
        domain = first.domain_id
        with Bringup({'robot': 'quad'}, tmp_path / '2', domain, True, only) as second:
            state = second._state('transition_streamer')
            while not state():  # until it is discovered
                second.spin(0.05)
            with pytest.raises(UserError) as caught:
                second.start()
        where = f'ROS domain {domain}, namespace /lifelong'
        assert f'in {where}, there runs already: transition_streamer; end it' in str(caught.value)
        assert not second.processes
        elsewhere = replace(only, namespace='/other')
        with Bringup({'robot': 'quad'}, tmp_path / '3', domain, True, elsewhere) as third:
            third.start()
        first.spin(0.1)
        assert first.watch() == {}
        first.processes['transition_streamer'].kill()
        first.processes['transition_streamer'].wait()
        with Bringup({'robot': 'quad'}, tmp_path / '4', domain, True, only) as fourth:
            fourth.start()
            assert fourth.watch() == {}


@pytest.mark.parametrize('numbers', [[signal.SIGTERM], [signal.SIGHUP, signal.SIGHUP]])
def test_a_service_manager_or_a_closed_terminal_ends_all_nodes_in_order(tmp_path, numbers):
    domain, lock = claim_domain(OF_PROCESSES)
    words = ['up', '--robot', 'quad', '--nodes', 'transition_streamer', '--logs', str(tmp_path)]
    nodes: list[str] = []
    with lock:
        process = subprocess.Popen(
            [sys.executable, '-m', 'lifelong_bayes_ros', *words, '--domain-id', str(domain)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in numbers],
        )
        try:
            lines = iter(process.stdout.readline, '')
            assert any('all nodes are active' in line for line in lines)
            nodes += Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
            assert nodes
            for number in numbers:
                process.send_signal(number)
            said, _ = process.communicate(timeout=PATIENCE)
            assert (said.split(), process.returncode) == (['ending'], 0)
            assert not any(Path('/proc', pid).exists() for pid in nodes)
        finally:
            process.kill()
            for pid in nodes:
                signal_group(int(pid), signal.SIGKILL)
