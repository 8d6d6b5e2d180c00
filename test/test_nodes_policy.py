"""The policy node by itself: a large trunk and its small heads may arrive in any order."""

import pytest

pytest.importorskip('rclpy')

import rclpy

from lifelong_bayes_ros.learning.codec import encode_belief, encode_prior, fingerprint
from lifelong_bayes_ros.learning.learner import Learner
from lifelong_bayes_ros.nodes.bringup import claim_domain
from lifelong_bayes_ros.nodes.codecs import bytes_to_msg
from lifelong_bayes_ros.nodes.policy import Policy


@pytest.fixture
def policy():
    """An active policy for the quadrotor, alone in a domain of its own."""
    domain, lock = claim_domain()
    rclpy.init(args=['--ros-args', '-p', 'robot:=quad'], domain_id=domain)
    node = Policy()
    node.trigger_configure()
    node.trigger_activate()
    yield node
    node.destroy_node()
    rclpy.try_shutdown()
    lock.close()


@pytest.mark.parametrize('head_first', [False, True])
def test_a_head_that_overtakes_its_trunk_is_not_lost(policy, tiny_prior, head_first):
    belief = Learner(tiny_prior).belief()
    trunk = bytes_to_msg(encode_prior(tiny_prior))
    head = bytes_to_msg(encode_belief(belief, fingerprint(tiny_prior)))
    arrivals = [(policy._on_belief, head), (policy._on_trunk, trunk)]
    for receive, message in arrivals if head_first else reversed(arrivals):
        assert policy.belief is None
        receive(message)
    assert policy.belief.version == belief.version


def test_a_head_of_another_trunk_is_left_out_when_a_trunk_arrives(policy, tiny_prior):
    policy._on_belief(bytes_to_msg(encode_belief(Learner(tiny_prior).belief(), 'another')))
    policy._on_trunk(bytes_to_msg(encode_prior(tiny_prior)))
    assert policy.belief is None
    assert policy.controller is not None
