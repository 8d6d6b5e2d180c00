"""The learner node by itself: what it keeps, and what it says when it cannot."""

import errno
import json
import os
from contextlib import contextmanager

import pytest

pytest.importorskip('rclpy')

import rclpy
from std_srvs.srv import Trigger

from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.learning.codec import encode_prior
from lifelong_bayes_ros.learning.store import load_state, revised
from lifelong_bayes_ros.nodes.base import OK, WARN
from lifelong_bayes_ros.nodes.bringup import claim_domain
from lifelong_bayes_ros.nodes.codecs import transition_to_msg
from lifelong_bayes_ros.nodes.learner import LearnerNode
from lifelong_bayes_ros.nodes.topics import TRANSITION
from plants import HOME, QUAD, stream


@contextmanager
def started(tiny_prior, folder, **more):
    """A learner of the quadrotor that keeps its state, alone in a domain of its own."""
    prior = folder / 'tiny.safetensors'
    prior.write_bytes(encode_prior(tiny_prior))
    domain, lock = claim_domain()
    given = {'robot': 'quad', 'prior': prior, 'state_dir': folder / 'state'} | more
    arguments = [a for name, value in given.items() for a in ('-p', f'{name}:={value}')]
    rclpy.init(args=['--ros-args', *arguments], domain_id=domain)
    node = LearnerNode()
    node.trigger_configure()
    if not node._failed:
        node.trigger_activate()
    try:
        yield node
        if node.active:
            node.trigger_deactivate()
            node.trigger_cleanup()
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
        lock.close()


@pytest.fixture
def node(tiny_prior, tmp_path):
    with started(tiny_prior, tmp_path) as node:
        yield node


@pytest.fixture
def told(node, monkeypatch):
    """Events that the node publishes."""
    events = []
    monkeypatch.setattr(node.events, 'publish', lambda m: events.append(json.loads(m.data)))
    return events


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_state_that_cannot_be_kept_is_an_event_and_a_warning_until_it_can(
    node, told, tmp_path, monkeypatch
):
    for transition in stream(HOME, 5, 0):
        node.learner.observe(transition)
    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', full)
        node.saver.save(node.learner)  # as at the end of an episode
        node._tell(node.saver.wait())
        assert [e['event'] for e in told] == ['not_saved']
        assert 'No space left' in told[0]['reason']
        level, message, _ = node.diagnose()
        assert (level, message) == (WARN, told[0]['reason'])
        assert node.counts['not saved'] == 1
        with pytest.raises(UserError, match='No space left'):
            node._on_save(Trigger.Request())
    success, digest = node._on_save(Trigger.Request())
    assert success
    assert node.diagnose()[0] == OK
    assert told[-1]['event'] == 'saved'
    assert told[-1]['digest'] == digest == load_state(tmp_path / 'state').digest()


def test_a_save_is_told_at_the_transition_that_it_was_taken_at(node, told):
    steps = stream(HOME, 10, 0)
    for transition in steps[:5]:
        node.learner.observe(transition)
    digest = node.learner.digest()
    node.saver.save(node.learner)
    for transition in steps[5:]:
        node.learner.observe(transition)
    node._tell(node.saver.wait())
    assert [(e['event'], e['step'], e['digest']) for e in told] == [('saved', 5, digest)]


def test_a_command_may_read_the_state_of_a_learner_but_change_it_only_once_it_is_gone(node):
    node._save(wait=True)
    for change in (node.trigger_deactivate, node.trigger_activate):
        with pytest.raises(UserError, match=r'a running learner.*stop that learner'):
            revised(node.folder).__enter__()
        assert load_state(node.folder).digest() == node.learner.digest()
        change()
    node.trigger_deactivate()
    node.trigger_cleanup()
    with revised(node.folder) as learner:
        learner.library.note('nominal', 'mine')
        node.trigger_configure()
        assert 'another command, works on this state' in node._failed
    node.trigger_configure()
    node.trigger_activate()
    assert node.learner.library.notes == {'nominal': 'mine'}


def test_transitions_of_another_robot_are_told_while_they_come(node):
    (subscription,) = [s for s, entry in node._inputs.items() if entry.topic is TRANSITION]
    others = QUAD.model_copy(update={'name': 'other'})
    (step,) = stream(HOME, 1, 0)
    for _ in range(2):
        subscription.callback(transition_to_msg(others, step))
        node.diagnose()
        (told,) = node.complaints()
        assert 'transition of robot other, ' in told and 'same robot file' in told
        node.diagnose()
        assert node.complaints() == []
    assert node.learner.step == 0


def test_a_prior_that_is_not_there_is_told(tiny_prior, tmp_path):
    with started(tiny_prior, tmp_path, prior='nowhere.safetensors') as node:
        assert 'prior nowhere.safetensors does not exist; make it' in node._failed


def test_memory_gets_the_bounds_that_are_given_also_when_it_goes_on(tiny_prior, tmp_path):
    with started(tiny_prior, tmp_path, journal=50) as node:
        config = node.learner.config
        assert (config.capacity, config.memory_bytes, config.journal) == (12, None, 50)
        assert node.learner.outcomes.journal == 50
        for transition in stream(HOME, 80, 0):
            node.learner.observe(transition)
        assert node.learner.tape.length < 80  # the older half is folded
        node._on_save(Trigger.Request())
    with started(tiny_prior, tmp_path, capacity=3, memory_bytes=10**6) as node:
        for learned in (80, 0):
            config = node.learner.config
            assert (config.capacity, config.memory_bytes, config.journal) == (3, 10**6, 50)
            assert node.learner.learned == learned
            node._on_reset(Trigger.Request())
    with started(tiny_prior, tmp_path, memory_bytes=1000) as node:
        assert not node.active
        assert 'memory_bytes 1000: one regime of this robot takes' in node._failed
