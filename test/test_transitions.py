"""Sensor readings into states, states and commands into transitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.paths import share_dir
from lifelong_bayes_ros.robot.spec import load_robot, parse_robot
from lifelong_bayes_ros.robot.transitions import Flag, State, StateAssembler, TransitionBuilder

QUAD = load_robot('quad')
PERIOD = QUAD.period_ns
START = 1_000_000_000
# The same robot with its turn rate from another topic.
TWO = parse_robot(
    (share_dir() / 'config' / 'robots' / 'quad.yaml')
    .read_text()
    .replace('sources:', 'sources:\n  imu: {topic: imu, type: sensor_msgs/msg/Imu}')
    .replace('source: odom, field: rotation.y', 'source: imu, field: angular_velocity.y')
)
ODOM = {'x': 0.1, 'z': 1.5, 'pitch': 0.2, 'vx': 0.3, 'vz': 0.4}
IMU = {'q': 0.5}


def state(k: int) -> State:
    return State(START + k * PERIOD, np.full(6, k, np.float32))


def command(k: int) -> np.ndarray:
    return np.array([k, 10 + k], np.float32)


def facts(transitions: list) -> list[tuple]:
    return [
        (t.state[0], tuple(t.action), t.next_state[0], t.dt, t.stamp_ns, t.flags, t.sequence)
        for t in transitions
    ]


def in_order(count: int) -> list:
    """What a builder makes of states and the commands that answer them, each at once."""
    builder, done = TransitionBuilder(QUAD), []
    for k in range(count):
        done += builder.add_state(state(k))
        done += builder.add_command(state(k).stamp_ns, command(k))
    return done


class TestStateAssembler:
    """Readings of all sources become states at the control rate."""

    def test_two_sources_make_one_state(self):
        assembler = StateAssembler(TWO)
        assert assembler.update('odom', START, ODOM) is None
        made = assembler.update('imu', START + 1_000_000, IMU)
        assert made.stamp_ns == START + 1_000_000
        assert made.x.dtype == np.float32
        np.testing.assert_allclose(made.x, [0.1, 1.5, 0.2, 0.3, 0.4, 0.5], rtol=1e-6)

    def test_the_order_of_sources_does_not_matter(self):
        first, second = StateAssembler(TWO), StateAssembler(TWO)
        first.update('odom', START, ODOM)
        second.update('imu', START, IMU)
        one, other = first.update('imu', START, IMU), second.update('odom', START, ODOM)
        assert one.stamp_ns == other.stamp_ns
        np.testing.assert_array_equal(one.x, other.x)

    def test_sources_apart_in_time_make_no_state(self):
        assembler = StateAssembler(TWO)
        assembler.update('odom', START, ODOM)
        assert assembler.update('imu', START + round(2e9 * TWO.slop), IMU) is None
        assert assembler.skipped == {'sources apart in time': 1}

    def test_repeated_stamps_and_values_that_are_not_finite_are_skipped(self):
        assembler = StateAssembler(TWO)
        assembler.update('odom', START, ODOM)
        assert assembler.update('odom', START, ODOM) is None
        assert assembler.update('imu', START, {'q': float('nan')}) is None
        assert assembler.skipped == {'repeated stamp': 1, 'not finite': 1}
        assert assembler.update('imu', START + 1, IMU) is not None

    def test_a_source_faster_than_the_control_rate_is_thinned(self):
        assembler = StateAssembler(QUAD)
        values = {**ODOM, **IMU}
        made = [assembler.update('odom', START + k * PERIOD // 10, values) for k in range(101)]
        stamps = [m.stamp_ns for m in made if m is not None]
        assert min(np.diff(stamps)) >= 0.75 * PERIOD
        assert len(stamps) == 13

    def test_time_that_runs_backwards_starts_anew(self):
        assembler = StateAssembler(TWO)
        assembler.update('odom', START, ODOM)
        assembler.update('imu', START, IMU)
        assert assembler.update('odom', START - PERIOD, ODOM) is None
        assert assembler.skipped == {'time ran backwards': 1}
        assert assembler.update('imu', START - PERIOD, IMU).stamp_ns == START - PERIOD

    def test_a_missing_channel_is_named(self):
        with pytest.raises(UserError, match='pitch'):
            StateAssembler(TWO).update('odom', START, {'x': 0.0, 'z': 0.0, 'vx': 0.0, 'vz': 0.0})


class TestTransitionBuilder:
    """States and commands, in whatever order they arrive, become the same transitions."""

    def test_in_order(self):
        first, *rest = in_order(4)
        assert first.flags == Flag.FIRST
        for k, t in enumerate(rest):
            assert t.usable
            assert (t.state[0], t.next_state[0]) == (k, k + 1)
            np.testing.assert_array_equal(t.action, command(k))
            assert t.dt == pytest.approx(QUAD.period)
            assert t.sequence == k + 1

    @given(
        st.lists(
            st.integers(-3, round(QUAD.max_age / QUAD.period) - 2), min_size=12, max_size=12
        ).map(lambda late: np.maximum.accumulate(np.arange(12) + late).tolist())
    )
    def test_commands_may_come_before_or_after_later_states(self, arrival):
        """`arrival[k]` is the number of states that came before the command that answers k."""
        builder, done = TransitionBuilder(QUAD), []
        for k in range(12):
            for j, when in enumerate(arrival):
                if when == k or (k == 0 and when < 0):
                    done += builder.add_command(state(j).stamp_ns, command(j))
            done += builder.add_state(state(k))
        for j, when in enumerate(arrival):
            if when >= 12:
                done += builder.add_command(state(j).stamp_ns, command(j))
        assert facts(done) == facts(in_order(12))

    def test_without_an_answer_the_command_in_force_counts_then_none(self):
        builder, done = TransitionBuilder(QUAD), []
        for k in range(30):
            done += builder.add_state(state(k))
            if k < 3:
                done += builder.add_command(state(k).stamp_ns, command(k))
        held = [t for t in done if not t.flags and t.state[0] > 2]
        assert held
        assert all((t.action == command(2)).all() for t in held)
        assert all(t.stamp_ns - state(3).stamp_ns <= QUAD.max_age * 1e9 for t in held)
        assert done[-1].flags == Flag.NO_ACTION
        assert not done[-1].usable

    def test_a_gap_is_flagged(self):
        builder = TransitionBuilder(QUAD)
        builder.add_state(state(0))
        builder.add_command(state(0).stamp_ns, command(0))
        (late,) = builder.add_state(state(2))
        assert late.flags == Flag.GAP

    def test_time_that_runs_backwards_starts_anew(self):
        builder = TransitionBuilder(QUAD)
        builder.add_state(state(5))
        builder.add_command(state(5).stamp_ns, command(5))
        (first,) = builder.add_state(state(1))
        assert first.flags == Flag.FIRST
        builder.add_command(state(1).stamp_ns, command(1))
        (second,) = builder.add_state(state(2))
        np.testing.assert_array_equal(second.action, command(1))

    def test_repeated_and_older_commands_are_ignored(self):
        builder = TransitionBuilder(QUAD)
        builder.add_state(state(0))
        for stamp, k in ((0, 0), (0, 7), (-1, 8)):
            builder.add_command(state(stamp).stamp_ns, command(k))
        (transition,) = builder.add_state(state(1))
        np.testing.assert_array_equal(transition.action, command(0))

    def test_episodes_end_by_length_or_on_request(self):
        builder, done = TransitionBuilder(QUAD, episode_length=4), []
        for k in range(9):
            if k == 6:
                builder.end_episode()
            done += builder.add_state(state(k))
            done += builder.add_command(state(k).stamp_ns, command(k))
        assert [t.sequence for t in done if t.ends_episode] == [3, 6]
        assert [t.episode for t in done] == [0] * 4 + [1] * 3 + [2] * 2
        assert all(t.usable for t in done[1:])
