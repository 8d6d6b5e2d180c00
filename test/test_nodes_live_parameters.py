"""What parameters do that change while a node runs, and whose time it goes by."""

import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy')

import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float64MultiArray

from lifelong_bayes_ros.learning.codec import encode_belief, encode_prior, fingerprint
from lifelong_bayes_ros.learning.learner import Learner
from lifelong_bayes_ros.nodes import topics
from lifelong_bayes_ros.nodes.bringup import claim_domain
from lifelong_bayes_ros.nodes.codecs import bytes_to_msg, state_messages, to_stamp
from lifelong_bayes_ros.nodes.executor import Executor
from lifelong_bayes_ros.nodes.policy import Policy
from lifelong_bayes_ros.nodes.transition_streamer import TransitionStreamer
from lifelong_bayes_ros.nodes.uncertainty_viz import UncertaintyViz
from plants import QUAD

PATIENCE = 60.0  # s: a test that hangs must end
HOVER = np.float32([0.0, 1.5, 0.0, 0.0, 0.0, 0.0])


class Running:
    """An active node and one that talks to it, alone in a domain of their own."""

    def __init__(self, node):
        self.node = node
        # It keeps to wall time, whatever the node is told.
        self.peer = rclpy.create_node('peer', namespace='/lifelong', use_global_arguments=False)
        self.executor = Executor()
        for each in (self.node, self.peer):
            self.executor.add_node(each)

    def start(self):
        for change in (self.node.trigger_configure, self.node.trigger_activate):
            assert change() == TransitionCallbackReturn.SUCCESS
        return self

    def hear(self, topic, callback):
        self.peer.create_subscription(topic.type, topic.name, callback, topic.qos)

    def until(self, done, seconds=PATIENCE):
        """Whether it is done in time."""
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            self.executor.round(0.02)
        return done()

    def set(self, name, value):
        (result,) = self.node.set_parameters([Parameter(name, value=value)])
        assert result.successful, result.reason


@contextmanager
def running(kind, *parameters):
    domain, lock = claim_domain()
    words = [word for text in parameters for word in ('-p', text)]
    rclpy.init(args=['--ros-args', *words], domain_id=domain)
    found = Running(kind())
    try:
        yield found.start()
    finally:
        found.node.close()
        found.executor.shutdown()
        found.node.destroy_node()
        found.peer.destroy_node()
        rclpy.try_shutdown()
        lock.close()


def test_as_many_plans_are_published_as_are_wanted(tiny_prior, monkeypatch):
    with running(Policy, 'robot:=quad') as found:
        policy, plans = found.node, []
        monkeypatch.setattr(policy.plans, 'publish', plans.append)
        monkeypatch.setattr(policy.plans, 'get_subscription_count', lambda: 1)
        policy._on_trunk(bytes_to_msg(encode_prior(tiny_prior)))
        head = encode_belief(Learner(tiny_prior).belief(), fingerprint(tiny_prior))
        policy._on_belief(bytes_to_msg(head))
        policy.deadline.seconds = 30.0  # a late plan is not published

        def published(ticks):
            plans.clear()
            for tick in ticks:
                messages = state_messages(QUAD, (tick + 1) * QUAD.period_ns, HOVER)
                policy._on_state('odom', messages['odom'])
                policy.forecaster.settle()
            return len(plans)

        assert published(range(20, 40)) == 3  # 0.6 s at 5 Hz
        found.set('plan_rate_hz', 1000.0)
        assert published(range(40, 50)) == 10
        found.set('plan_rate_hz', 0.1)
        assert published(range(50, 60)) == 0


def test_pictures_come_as_often_and_words_as_high_as_is_wanted():
    with running(UncertaintyViz, 'robot:=quad') as found:
        heights, stamp = [], 0
        odom = topics.state_topics(QUAD)['odom']
        output = found.peer.create_publisher(odom.type, odom.name, odom.qos)

        def tell():
            nonlocal stamp
            stamp += QUAD.period_ns
            output.publish(state_messages(QUAD, stamp, HOVER)['odom'])

        def see(message):
            heights.extend([m.scale.z for m in message.markers if m.ns == 'headline'][:1])

        found.peer.create_timer(0.02, tell)
        found.hear(topics.MARKERS, see)
        assert found.until(lambda: heights)
        normal = heights[-1]
        found.set('rate', 20.0)
        heights.clear()
        assert found.until(lambda: len(heights) >= 10, 1.5)  # there were 5 in a second before
        found.set('text_height', 0.3)
        assert found.until(lambda: heights[-1] > normal)
        assert heights[-1] == pytest.approx(3 * normal)
        found.set('rate', 0.1)
        found.until(lambda: False, 0.3)  # what was on its way
        heights.clear()
        assert not found.until(lambda: heights, 0.5)
        found.set('rate', 20.0)
        assert found.until(lambda: heights, 1.5)  # not only when the old rate had its turn


def test_a_node_says_in_a_line_that_its_parameters_are_broken(tmp_path):
    (tmp_path / 'broken.yaml').write_text('/**: {ros__parameters: [')
    command = [sys.executable, '-m', 'lifelong_bayes_ros.nodes.policy', '--ros-args']
    command += ['--params-file', str(tmp_path / 'broken.yaml')]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert 'Traceback' not in run.stderr
    assert 'broken.yaml' in run.stderr


@pytest.mark.parametrize('kind', [TransitionStreamer, Policy])
def test_under_use_sim_time_a_node_goes_by_the_clock(kind, tmp_path):
    """Readings that have no stamp of their own are stamped with it."""
    robot = yaml.safe_load(QUAD.dump())
    robot['sources']['odom'] = {'topic': 'numbers', 'type': 'std_msgs/msg/Float64MultiArray'}
    del robot['goal_input']  # in a frame that numbers alone do not have
    for k, channel in enumerate(robot['state']):
        channel['field'] = f'data[{k}]'
    file = tmp_path / 'numbers.yaml'
    file.write_text(yaml.safe_dump(robot))
    with running(kind, f'robot:={file}', 'use_sim_time:=true') as found:
        clock = found.peer.create_publisher(Clock, topics.CLOCK.name, topics.CLOCK.qos)
        output = found.peer.create_publisher(Float64MultiArray, 'numbers', 10)
        for now in (5.0, 5.5):
            now_ns = round(1e9 * now)
            tell = partial(clock.publish, Clock(clock=to_stamp(now_ns)))
            timer = found.peer.create_timer(0.02, tell)
            assert found.until(lambda n=now_ns: found.node.get_clock().now().nanoseconds == n)
            output.publish(Float64MultiArray(data=HOVER.tolist()))
            assert found.until(lambda: found.node.assembler.last is not None)
            assert found.until(lambda n=now_ns: found.node.assembler.last.stamp_ns == n, 5.0)
            found.peer.destroy_timer(timer)
