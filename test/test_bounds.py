"""Memory keeps to its bounds however long episodes are, also where none ever ends."""

from dataclasses import replace

import pytest

from lifelong_bayes_ros.learning.learner import Learner
from lifelong_bayes_ros.learning.settings import LearnerConfig
from lifelong_bayes_ros.learning.upkeep import CROWDED_EVERY
from lifelong_bayes_ros.robot.transitions import Flag
from plants import stream


def wind(force):
    return [{'wind': {'force': [force, 0.0]}}]


def gain(factor, actuator='left'):
    return [{'actuator_gain': {'actuator': actuator, 'factor': factor}}]


REGIMES = [wind(3.0), gain(0.5), wind(-3.0), gain(1.5), gain(0.3), wind(6.0), gain(0.5, 'right')]
STEPS = 120


def live(learner, episode):
    """Live through all regimes; returns the most regimes and bytes at any time."""
    regimes, nbytes, step = [], [], 0
    for seed, shifts in enumerate(REGIMES):
        for transition in stream(shifts, STEPS, seed, step):
            step += 1
            ends = episode and step % episode == 0
            learner.observe(replace(transition, flags=Flag.EPISODE_END if ends else Flag(0)))
            regimes.append(len(learner.library.regimes))
            nbytes.append(learner.library.nbytes())
    return max(regimes), max(nbytes)


@pytest.mark.parametrize('episode', [0, 1, 3])
def test_memory_keeps_to_its_bounds_whatever_the_episodes(tiny_prior, episode):
    unbound = Learner(tiny_prior, LearnerConfig(background=False))
    most, _ = live(unbound, 0)
    assert most > 5  # else there is nothing to bound
    one = unbound._regime_bytes()
    bounds = LearnerConfig(background=False, capacity=3, memory_bytes=3 * one)
    learner = Learner(tiny_prior, bounds)
    regimes, nbytes = live(learner, episode)
    # A regime that is new is there until the next look.
    assert regimes <= 3 + STEPS // CROWDED_EVERY
    assert nbytes <= (3 + STEPS // CROWDED_EVERY) * 1.2 * one
    assert 'consolidated' in {e.event for e in learner.take_events()}
    learner.consolidate()
    assert len(learner.library.regimes) <= 3
    assert learner.library.nbytes() <= 3 * one


@pytest.mark.parametrize('capacity', [1, 2, 3])
def test_a_full_memory_makes_room_for_where_the_robot_is(tiny_prior, capacity):
    learner = Learner(tiny_prior, LearnerConfig(background=False, capacity=capacity))
    live(learner, 0)
    learner.take_events()
    first, stored = STEPS * len(REGIMES), 0
    for transition in stream(gain(1.5), 4 * CROWDED_EVERY, 50, first):
        learner.observe(transition)
        stored += [e.event for e in learner.take_events()].count('new_regime')
    # Not stored, given up for being seldom seen, and stored again, with nothing kept of it.
    assert stored <= 1
    if capacity > 1:
        regime = learner.library.regimes[learner.identity]
        assert regime.reservoir.seen > 3 * CROWDED_EVERY
