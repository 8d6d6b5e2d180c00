"""The simulator: one contract for every robot and every shift, and physics checked by hand."""

import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.experiments.schedule import load_life
from lifelong_bayes_ros.paths import share_dir
from lifelong_bayes_ros.robot.spec import load_robot, parse_robot
from lifelong_bayes_ros_sim import make, robot_names, shift_from_dict, sources
from lifelong_bayes_ros_sim.base import RESET_NS, START_NS, MujocoRobot
from lifelong_bayes_ros_sim.shifts import (
    KINDS,
    ActuatorBias,
    ActuatorGain,
    ActuatorLag,
    Coupling,
    Damping,
    DeadZone,
    Delay,
    Drift,
    Friction,
    JointSpring,
    Payload,
    QuadraticDrag,
    SensorBias,
    SensorNoise,
    Shift,
    SlipInTurns,
    Stiction,
    Tilt,
    Wall,
    Wind,
)

G = 9.81
ROBOTS = robot_names()
CASES = [
    (name, kind)
    for name in ROBOTS
    for kind in KINDS
    if kind != 'slip_in_turns' or 'yaw_rate' in make(name).STATE
]
SENSORS = ('sensor_noise', 'sensor_bias')  # these leave the plant itself as it is

every_robot = pytest.mark.parametrize('name', ROBOTS)
every_case = pytest.mark.parametrize(('name', 'kind'), CASES)


def example(robot: MujocoRobot, kind: str) -> Shift:
    """A shift of a kind, strong enough to be noticed."""
    first, last = robot.joints[0], robot.joints[-1]
    action = robot.ACTION[0]
    examples: list[Shift] = [
        ActuatorGain(action, 0.6),
        ActuatorBias(action, 1.0),
        DeadZone(action, 0.5),
        Delay(2),
        ActuatorLag(2 * robot.robot_spec.period),
        Payload(0.4),
        Wind((2.0, -1.0)),
        Tilt(0.2),
        Wall(0.3),
        Damping(4.0),
        Friction(0.5),
        JointSpring(first, 4.0, rest=0.3),
        QuadraticDrag(1.2),
        Stiction(last, 0.5, 0.2),
        Coupling(first, last, 0.3),
        SlipInTurns(0.4),
        SensorNoise(3.0),
        SensorBias(robot.STATE[-1], 0.5),
        Drift(ActuatorGain(action, 0.9), ActuatorGain(action, 0.4), seconds=0.5),
    ]
    return next(shift for shift in examples if shift.kind == kind)


def commands(robot: MujocoRobot, n: int, seed: int = 0) -> np.ndarray:
    """Random commands [n, da] that do not throw the robot over at once."""
    rng = np.random.default_rng(seed)
    shape = (n, len(robot.ACTION))
    half = robot.robot_spec.action_half_range
    return robot.robot_spec.neutral + 0.1 * half * rng.standard_normal(shape)


def batch(robot: MujocoRobot, n: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arguments of one_step: states, commands and the commands before."""
    rng = np.random.default_rng(1)
    before = np.stack([robot.sample_actions(rng, n) for _ in range(robot.history)], axis=1)
    return robot.sample_states(rng, n), robot.sample_actions(rng, n), before


def live(robot: MujocoRobot, actions: np.ndarray) -> np.ndarray:
    """Observations [n, ds] of a life under these commands."""
    return np.array([robot.step(action)[0] for action in actions])


def start(name: str, shifts: list[Shift] | None = None, seed: int = 0) -> MujocoRobot:
    """A robot at the start of a life."""
    robot = make(name)
    robot.reset(seed=seed, options={'shifts': shifts or []})
    return robot


def plant(robot: MujocoRobot) -> dict[str, bytes]:
    """All that a shift can change: every array of the model, and what the robot adds."""
    model = robot.model
    arrays = {n: getattr(model, n) for n in dir(model) if not n.startswith('_')}
    arrays |= {f'stat.{n}': getattr(model.stat, n) for n in ('meaninertia', 'meanmass', 'extent')}
    own = ('gain', 'offset', 'dead_zone', 'taps', 'wind', 'dry_friction', 'delay', 'noise_factor')
    arrays |= {n: getattr(robot, n) for n in own}
    arrays |= {'bias': robot.sensor_bias, 'gravity': model.opt.gravity}
    known = {
        n: np.asarray(v).tobytes()
        for n, v in arrays.items()
        if isinstance(v, np.ndarray | float | int)
    }
    return known | {'laws': repr(sorted(map(repr, robot.laws))).encode()}


# ---------------------------------------------------------------------- the contract
@every_robot
@pytest.mark.filterwarnings('ignore::UserWarning')  # advice about normalised spaces
def test_gymnasium_finds_no_fault(name):
    env = make(name)
    check_env(env)  # raises at a fault
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)


def test_every_kind_of_shift_has_an_example():
    assert {kind: type(example(make('diffdrive'), kind)) for kind in KINDS} == KINDS


@every_case
def test_shapes_types_and_scores(name, kind):
    robot = make(name)
    spec = robot.robot_spec
    observation, info = robot.reset(seed=0, options={'shifts': [example(robot, kind)]})
    assert info['stamp_ns'] == robot.stamp_ns == START_NS
    unscored = -1
    for k, action in enumerate(robot.sample_actions(np.random.default_rng(0), 60)):
        stamp = robot.stamp_ns
        observation, score, terminated, truncated, info = robot.step(action)
        for x in (observation, info['state']):
            assert x.shape == (len(spec.state),) and x.dtype == np.float64
            assert np.isfinite(x).all()
            assert (np.abs(x[spec.angles]) <= np.pi).all()
        assert type(score) is float and 0 <= score <= 1
        assert terminated is False and truncated is False
        assert type(info['crashed']) is bool
        assert info['stamp_ns'] == stamp + spec.period_ns + RESET_NS * info['crashed'], k
        if info['crashed']:
            unscored = k + round(RESET_NS / spec.period_ns)  # as long as the pause
        expected = spec.score(robot.stamp_ns, info['state'])
        assert score == (0.0 if k <= unscored else expected)


@every_case
def test_same_seed_and_commands_same_life(name, kind):
    first, second = make(name, seed=3), make(name, seed=4)
    actions = commands(first, 30)

    def life(robot: MujocoRobot, seed: int) -> np.ndarray:
        rows = [robot.reset(seed=seed)[0], *live(robot, actions[:10])]
        robot.set_shifts([example(robot, kind)])
        rows += [*live(robot, actions[10:20])]
        robot.set_shifts([])
        return np.array([*rows, *live(robot, actions[20:])])

    once = life(first, 7)
    second.one_step(*batch(second))
    np.testing.assert_array_equal(life(second, 7), once)
    np.testing.assert_array_equal(life(first, 7), once)
    assert not np.array_equal(life(first, 8), once)


@every_robot
def test_the_seed_of_make_counts_without_a_reset(name):
    lives = [live(make(name, seed=s), commands(make(name), 5)) for s in (1, 1, 2)]
    np.testing.assert_array_equal(lives[0], lives[1])
    assert not np.array_equal(lives[0], lives[2])


@every_case
def test_one_step_is_a_step_without_noise(name, kind):
    robot = start(name, [example(make(name), kind)])
    spec = robot.robot_spec
    before = np.tile(spec.neutral, (1, robot.history, 1))
    steps = 0
    for action in robot.sample_actions(np.random.default_rng(2), 80):
        predicted = robot.one_step(robot.true_state[None], action[None], before)[0]
        _, _, _, _, info = robot.step(action)
        if info['crashed']:
            before[:] = spec.neutral
            continue
        steps += 1
        np.testing.assert_allclose(
            spec.wrap(predicted - info['state']), 0, atol=1e-12 * max(1, np.abs(predicted).max())
        )
        before = np.concatenate([action[None, None], before[:, :-1]], axis=1)
    assert steps > 40


@every_case
def test_one_step_does_not_disturb_the_life(name, kind):
    calm, disturbed = (start(name, [example(make(name), kind)]) for _ in range(2))
    actions = commands(calm, 20)
    expected = live(calm, actions)
    got = []
    for action in actions:
        got.append(disturbed.step(action)[0])
        disturbed.one_step(*batch(disturbed, 3))
    np.testing.assert_array_equal(got, expected)


@every_robot
def test_one_step_leaves_its_arguments_and_takes_rows_one_by_one(name):
    robot = make_with(name, [Friction(0.3)])  # so that MuJoCo's solver has something to iterate
    arguments = batch(robot)
    copies = [a.copy() for a in arguments]
    together = robot.one_step(*arguments)
    for got, copy in zip(arguments, copies, strict=True):
        np.testing.assert_array_equal(got, copy)
    single = [robot.one_step(*(a[i : i + 1] for a in arguments))[0] for i in range(20)]
    np.testing.assert_array_equal(single, together)
    whole = robot.one_step(np.ones((1, len(robot.STATE)), int), arguments[1][:1], arguments[2][:1])
    assert whole.dtype == np.float64 and not np.array_equal(whole, np.round(whole))


@every_case
def test_a_shift_is_felt_and_undone_bit_for_bit(name, kind):
    robot = make(name)
    arguments = batch(robot)
    nominal, home = plant(robot), robot.one_step(*arguments)
    shift = example(robot, kind)
    robot.set_shifts([shift])
    away = robot.one_step(*arguments)
    assert robot.shifts == [shift]
    assert plant(robot) != nominal
    assert np.array_equal(away, home) == (kind in SENSORS)
    robot.set_shifts([])
    assert robot.shifts == []
    assert plant(robot) == nominal
    np.testing.assert_array_equal(robot.one_step(*arguments), home)


def any_shift(name: str) -> st.SearchStrategy[Shift]:
    """Shifts of every kind, mild enough to compose."""
    robot = make(name)
    actuator, joint = st.sampled_from(robot.ACTION), st.sampled_from(robot.joints)
    share = st.floats(0, 1)
    gain = st.builds(ActuatorGain, st.just(robot.ACTION[0]), st.floats(-2, 2))
    shifts = [
        gain,
        st.builds(ActuatorBias, actuator, st.floats(-1, 1)),
        st.builds(DeadZone, actuator, share),
        st.builds(Delay, st.integers(0, 1)),
        st.builds(ActuatorLag, st.floats(0, 3 * robot.robot_spec.period)),
        st.builds(Payload, st.floats(0, 2)),
        st.builds(Wind, st.tuples(st.floats(-5, 5), st.floats(-5, 5))),
        st.builds(Tilt, st.floats(-0.5, 0.5)),
        st.builds(Damping, st.floats(0, 10)),
        st.builds(Friction, share, st.none() | joint),
        st.builds(JointSpring, joint, st.floats(0, 5), st.floats(-1, 1)),
        st.builds(QuadraticDrag, share),
        st.builds(Stiction, joint, share, share),
        st.builds(Coupling, joint, joint, st.floats(-0.1, 0.1), st.booleans()),
        st.builds(SensorNoise, st.floats(0, 10)),
        st.builds(SensorBias, st.sampled_from(robot.STATE), st.floats(-1, 1)),
        st.builds(Drift, gain, gain, st.floats(0.1, 10), st.sampled_from(['ramp', 'wave'])),
    ]
    if 'yaw_rate' in robot.STATE:
        shifts.append(st.builds(SlipInTurns, share))
    return st.one_of(shifts)


@every_robot
@settings(max_examples=30)
@given(data=st.data())
def test_shifts_compose_and_are_undone(name, data):
    shifts = data.draw(st.lists(any_shift(name), max_size=3))
    robot, other = make(name), make(name)
    arguments = batch(robot, 4)
    nominal = plant(robot)
    robot.set_shifts(shifts)
    again = [shift_from_dict(shift.to_dict()) for shift in shifts]
    assert again == shifts
    other.set_shifts([Payload(0.3), Wind((1.0, 1.0))])
    other.set_shifts(again)  # what was in force before does not matter
    assert plant(other) == plant(robot)
    moved = robot.one_step(*arguments)
    assert np.isfinite(moved).all()
    np.testing.assert_array_equal(other.one_step(*arguments), moved)
    other.set_shifts(shifts[::-1])  # nor does their order, up to rounding
    np.testing.assert_allclose(other.one_step(*arguments), moved, atol=1e-8)
    robot.set_shifts(robot.shifts)
    assert robot.shifts == shifts and plant(robot) == plant(make_with(name, shifts))
    robot.set_shifts([])
    assert plant(robot) == nominal


def make_with(name: str, shifts: list[Shift]) -> MujocoRobot:
    robot = make(name)
    robot.set_shifts(shifts)
    return robot


@every_robot
def test_two_of_a_kind_add_or_multiply(name):
    robot = make(name)
    first, joint = robot.ACTION[0], robot.joints[0]
    for two, one in (
        ([ActuatorGain(first, 0.5), ActuatorGain(first, 0.5)], ActuatorGain(first, 0.25)),
        ([Wind((1.0, 2.0)), Wind((2.0, -1.0))], Wind((3.0, 1.0))),
        ([Damping(2.0), Damping(3.0)], Damping(6.0)),
        ([Friction(0.25), Friction(0.5)], Friction(0.75)),
        ([Delay(1), Delay(2)], Delay(3)),
        ([Payload(0.25), Payload(0.5)], Payload(0.75)),
        ([ActuatorBias(first, 0.5), ActuatorBias(first, -0.25)], ActuatorBias(first, 0.25)),
        ([DeadZone(first, 0.5), DeadZone(first, 0.25)], DeadZone(first, 0.75)),
        ([Tilt(0.25), Tilt(0.5)], Tilt(0.75)),
        ([QuadraticDrag(0.25), QuadraticDrag(0.5)], QuadraticDrag(0.75)),
        ([JointSpring(joint, 2.0, 0.5), JointSpring(joint, 2.0)], JointSpring(joint, 4.0, 0.25)),
        ([Stiction(joint, 0.5, 0.25)] * 2, Stiction(joint, 1.0, 0.5)),
        ([Coupling(joint, joint, -0.1)] * 2, Coupling(joint, joint, -0.2)),
    ):
        arguments = batch(robot)
        results = [make_with(name, s).one_step(*arguments) for s in (two, [one])]
        np.testing.assert_allclose(*results, atol=1e-9)


@every_case
def test_motion_goes_on_across_a_shift(name, kind):
    robot, quiet = start(name), start(name)
    actions = commands(robot, 12)
    live(robot, actions[:6])
    live(quiet, actions[:6])
    state, stamp = robot.true_state, robot.stamp_ns
    for shifts in ([example(robot, kind)], []):
        robot.set_shifts(shifts)
        np.testing.assert_array_equal(robot.true_state, state)
        assert robot.stamp_ns == stamp
    np.testing.assert_array_equal(live(robot, actions[6:]), live(quiet, actions[6:]))


@every_robot
def test_reset_ends_the_shifts_and_takes_new_ones(name):
    robot = start(name, [Payload(0.3)])
    assert robot.shifts == [Payload(0.3)]
    robot.reset(seed=0)
    assert robot.shifts == [] and plant(robot) == plant(make(name))


# ---------------------------------------------------------------------- commands
@every_robot
def test_commands_out_of_range_are_clipped(name):
    high, wild = start(name), start(name)
    spec = high.robot_spec
    a, b = high.step(spec.action_high), wild.step(spec.action_high * 10 + 1e3)
    np.testing.assert_array_equal(a[0], b[0])
    state, _, before = batch(high, 2)
    limits = np.stack([spec.action_low, spec.action_high])
    beyond = np.stack([spec.action_low - 1e9, spec.action_high + 1e9])
    np.testing.assert_array_equal(
        high.one_step(state, beyond, before), high.one_step(state, limits, before)
    )


@every_robot
@pytest.mark.parametrize(
    'bad', [[np.nan, 0.0], [0.0, np.inf], [], [0.0, 0.0, 0.0], 0.0, [[0.0, 0.0]], ['a', 'b']]
)
def test_bad_commands_are_refused_and_change_nothing(name, bad):
    robot, quiet = start(name, [Delay(1)]), start(name, [Delay(1)])
    with pytest.raises(ValueError):
        robot.step(np.array(bad))
    actions = commands(robot, 4)
    np.testing.assert_array_equal(live(robot, actions), live(quiet, actions))


@every_robot
@pytest.mark.parametrize('steps', [0, 1, 2, 3])
def test_a_delayed_command_acts_exactly_so_much_later(name, steps):
    robot, prompt = start(name, [Delay(steps)]), start(name)
    actions = commands(robot, 12)
    neutral = np.tile(robot.robot_spec.neutral, (steps, 1))
    late = np.concatenate([neutral, actions])[: len(actions)]
    np.testing.assert_array_equal(live(robot, actions), live(prompt, late))


@every_robot
@pytest.mark.parametrize('steps', [1, 2, 3])
def test_one_step_under_delay_takes_the_command_from_so_long_ago(name, steps):
    robot = make(name)
    states, actions, before = batch(robot)
    expected = robot.one_step(states, before[:, steps - 1], before)
    robot.set_shifts([Delay(steps)])
    np.testing.assert_array_equal(robot.one_step(states, actions, before), expected)


@every_robot
def test_a_delayed_command_is_the_one_that_was_sent(name):
    """The caller may use its array again while the command is on its way."""
    robot, careful = start(name, [Delay(2)]), start(name, [Delay(2)])
    actions = commands(robot, 8)
    buffer = np.empty_like(actions[0])
    rows = []
    for action in actions:
        buffer[:] = action
        rows.append(robot.step(buffer)[0])
    np.testing.assert_array_equal(rows, live(careful, actions))


# ---------------------------------------------------------------------- sensors
@every_robot
@pytest.mark.parametrize('factor', [1.0, 3.0])
def test_sensor_noise_has_the_stated_spread(name, factor):
    robot = start(name, [SensorNoise(factor)])
    errors = []
    for action in np.tile(commands(robot, 100), (20, 1)):
        observation, _, _, _, info = robot.step(action)
        errors.append(robot.robot_spec.wrap(observation - info['state']))
    spread = np.array(robot.SENSOR_NOISE) * factor
    np.testing.assert_allclose(np.std(errors, axis=0), spread, rtol=0.08)
    assert (np.abs(np.mean(errors, axis=0)) < 4 * spread / np.sqrt(2000)).all()


@every_robot
def test_without_sensor_noise_the_state_is_observed(name):
    robot = start(name, [SensorNoise(0.0)])
    for action in commands(robot, 10):
        observation, _, _, _, info = robot.step(action)
        np.testing.assert_array_equal(observation, info['state'])


def test_noise_does_not_carry_an_observed_angle_beyond_half_a_turn():
    robot = start('arm', [SensorNoise(500.0)])
    observed = live(robot, commands(robot, 50))[:, :2]
    assert np.abs(observed).max() <= np.pi and np.abs(observed).max() > 2


# ---------------------------------------------------------------------- crashes
def assert_at_the_start(robot: MujocoRobot) -> None:
    """On the moving reference, or at rest where the robot starts from."""
    spec = robot.robot_spec
    places, rates = spec.reference(robot.stamp_ns)
    expected = np.zeros((2, robot.model.nv))
    for name, place, rate in zip(spec.goal.track, places[0], rates[0], strict=True):
        at = robot.STATE.index(name)
        expected[:, at] = (robot.START[name], 0.0) if name in robot.START else (place, rate)
    state = robot.observed(*expected)
    np.testing.assert_allclose(spec.wrap(robot.true_state - state), 0, atol=1e-12)


@every_robot
@pytest.mark.parametrize('factor', [30.0, 1e6])
@pytest.mark.filterwarnings('ignore::RuntimeWarning')
def test_a_crash_scores_zero_and_life_goes_on(name, factor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo logs a diverging motion to the working directory
    robot = start(name, [ActuatorGain(a, factor) for a in make(name).ACTION] + [Delay(2)])
    spec = robot.robot_spec
    hard = np.where(np.arange(len(robot.ACTION)) == 0, spec.action_high, spec.neutral)
    for _ in range(200):
        stamp = robot.stamp_ns
        observation, score, terminated, truncated, info = robot.step(hard)
        if info['crashed']:
            break
    assert info['crashed'] is True and score == 0.0
    assert terminated is False and truncated is False
    assert robot.stamp_ns == info['stamp_ns'] == stamp + spec.period_ns + RESET_NS
    assert np.isfinite(observation).all()
    assert_at_the_start(robot)
    assert len(robot.shifts) == len(robot.ACTION) + 1  # the plant has not healed
    # Commands from before the crash are forgotten.
    robot.set_shifts([Delay(2)])
    before = np.tile(spec.neutral, (1, robot.history, 1))
    expected = robot.one_step(robot.true_state[None], hard[None], before)[0]
    np.testing.assert_allclose(robot.step(hard)[4]['state'], expected, atol=1e-12)


@every_robot
def test_recover_puts_the_robot_back(name):
    robot = start(name, [Payload(0.2)])
    live(robot, commands(robot, 20))
    stamp = robot.stamp_ns
    reading = robot.recover()
    assert robot.stamp_ns == stamp + RESET_NS
    assert_at_the_start(robot)
    error = robot.robot_spec.wrap(reading - robot.true_state)
    assert (np.abs(error) < 6 * np.array(robot.SENSOR_NOISE)).all()
    assert robot.shifts == [Payload(0.2)]


@pytest.mark.parametrize(
    ('state', 'crashed'),
    [
        ([0, 1.5, 0, 0, 0, 0], False),
        ([3.9, 1.5, 0, 9, 9, 9], False),
        ([4.1, 1.5, 0, 0, 0, 0], True),
        ([-4.1, 1.5, 0, 0, 0, 0], True),
        ([0, 0.1, 0, 0, 0, 0], True),
        ([0, 4.1, 0, 0, 0, 0], True),
        ([0, 1.5, -1.5, 0, 0, 0], True),
        ([0, 1.5, 1.3, 0, 0, 0], False),
    ],
)
def test_when_the_quad_has_crashed(state, crashed):
    assert make('quad').has_crashed(np.array(state, float)) is crashed


def test_a_robot_file_may_leave_out_the_arena():
    text = robot_text('quad').replace('low: -4.0, high: 4.0', 'low: -4.0')
    robot = make('quad', parse_robot(text.replace('low: 0.2, high: 4.0', 'high: 4.0')))
    assert not robot.has_crashed(np.array([9.0, -3.0, 0, 0, 0, 0]))
    assert robot.has_crashed(np.array([-9.0, 1.0, 0, 0, 0, 0]))


# ---------------------------------------------------------------------- physics by hand
def robot_text(name: str) -> str:
    return (share_dir() / 'config' / 'robots' / f'{name}.yaml').read_text()


def acceleration(name: str, state: list[float], action: list[float], *shifts: Shift) -> np.ndarray:
    """Acceleration [ds / 2], from one step so short that the integrator does not matter."""
    period = load_robot(name).period
    short = parse_robot(robot_text(name).replace(f'period: {period}', 'period: 0.000001', 1))
    robot = make(name, short)
    robot.set_shifts(shifts)
    x, u = np.array([state], float), np.array([action], float)
    before = np.tile(u[:, None], (1, robot.history, 1))
    half = len(state) // 2
    return (robot.one_step(x, u, before) - x)[0, half:] / short.period


def quad(
    state: list[float],
    action: list[float],
    payload: float = 0.0,
    gain: tuple[float, float] = (1.0, 1.0),
    wind: tuple[float, float] = (0.0, 0.0),
    damping: float = 1.0,
    friction: float = 0.0,
) -> np.ndarray:
    """Newton and Euler for a body with two rotors 0.2 m from its centre."""
    _, _, pitch, vx, vz, q = state
    left, right = np.array(gain) * action
    mass, inertia = 1.0 + payload, 0.012 + 0.4 * payload * 0.03**2
    drag = damping * np.array([0.1, 0.1, 0.005]) * [vx, vz, q] + friction * np.sign([vx, vz, q])
    thrust = left + right
    force = np.array(
        [
            thrust * np.sin(pitch) + wind[0],
            thrust * np.cos(pitch) + wind[1] - mass * G,
            0.2 * (left - right),
        ]
    )
    return (force - drag) / [mass, mass, inertia]


M1, M2, L1, L2, C1, C2 = 1.5, 1.0, 0.5, 0.4, 0.25, 0.2


def arm_inertia(elbow: float, payload: float) -> np.ndarray:
    """Two links and a small sphere at the tip, by parallel axes; rotors on the diagonal."""
    own, sphere = 0.014, 0.4 * payload * 0.03**2
    c = np.cos(elbow)
    far = own + M2 * C2**2 + sphere + payload * L2**2
    cross = L1 * c * (M2 * C2 + payload * L2)
    near = 0.032 + M1 * C1**2 + (M2 + payload) * L1**2
    return np.array([[near + far + 2 * cross + 0.02, far + cross], [far + cross, far + 0.01]])


def arm_gravity(shoulder: float, elbow: float, payload: float = 0.0) -> np.ndarray:
    """Torques that hold the arm up."""
    c1, c12 = np.cos(shoulder), np.cos(shoulder + elbow)
    tip = G * c12 * (M2 * C2 + payload * L2)
    return np.array([G * c1 * (M1 * C1 + (M2 + payload) * L1) + tip, tip])


def arm_wind(
    shoulder: float, elbow: float, payload: float, wind: tuple[float, float]
) -> np.ndarray:
    """Torques of a force on the forearm's centre of mass."""
    r = (M2 * C2 + payload * L2) / (M2 + payload)
    c12, s12 = np.cos(shoulder + elbow), np.sin(shoulder + elbow)
    x, z = L1 * np.cos(shoulder) + r * c12, L1 * np.sin(shoulder) + r * s12
    return np.array([[-z, x], [-r * s12, r * c12]]) @ wind


def arm(
    state: list[float],
    action: list[float],
    payload: float = 0.0,
    gain: tuple[float, float] = (1.0, 1.0),
    wind: tuple[float, float] = (0.0, 0.0),
    damping: float = 1.0,
    friction: float = 0.0,
) -> np.ndarray:
    """The textbook two-link equations."""
    q1, q2, w1, w2 = state
    speed = np.array([w1, w2])
    h = L1 * np.sin(q2) * (M2 * C2 + payload * L2)
    torque = (
        np.array(gain) * action
        - arm_gravity(q1, q2, payload)
        + arm_wind(q1, q2, payload, wind)
        - np.array([-h * (2 * w1 * w2 + w2**2), h * w1**2])
        - damping * np.array([0.5, 0.3]) * speed
        - friction * np.sign(speed)
    )
    return np.linalg.solve(arm_inertia(q2, payload), torque)


def cartpole(
    state: list[float],
    action: list[float],
    payload: float = 0.0,
    gain: tuple[float, ...] = (1.0,),
    wind: tuple[float, float] = (0.0, 0.0),
    damping: float = 1.0,
    friction: float = 0.0,
) -> np.ndarray:
    """Lagrange's equations of a cart and a uniform pole, its load at the middle."""
    _, angle, v, w = state
    mass, inertia, arm = 0.2 + payload, 0.0167 + 0.4 * payload * 0.03**2, 0.5
    c, s = np.cos(angle), np.sin(angle)
    m = [[1.0 + mass, mass * arm * c], [mass * arm * c, inertia + mass * arm**2]]
    force = gain[0] * action[0] + wind[0] + mass * arm * s * w**2
    couple = arm * (mass * G * s + wind[0] * c - wind[1] * s)
    lost = damping * np.array([0.2, 0.005]) * [v, w] + friction * np.sign([v, w])
    return np.linalg.solve(m, np.array([force, couple]) - lost)


def diffdrive(
    state: list[float],
    action: list[float],
    payload: float = 0.0,
    gain: tuple[float, float] = (1.0, 1.0),
    wind: tuple[float, float] = (0.0, 0.0),
    damping: float = 1.0,
    friction: float = 0.0,
) -> np.ndarray:
    """Newton and Euler in the turning frame of the vehicle, its load 0.15 m behind the axle."""
    _, _, heading, u, s, w = state
    mass = 10.0 + payload
    back = 0.15 * payload / mass  # of the centre of mass, behind the axle
    inertia = 0.4 + 0.4 * payload * 0.03**2 + 10.0 * payload / mass * 0.15**2
    turn = np.array([[np.cos(heading), np.sin(heading)], [-np.sin(heading), np.cos(heading)]])
    dry = -friction * turn @ np.sign(turn.T @ [u, s])
    air = turn @ wind
    left, right = 40.0 * (0.08 * np.array(gain) * action - [u - 0.2 * w, u + 0.2 * w])
    force = np.array([left + right, -150.0 * s]) + dry + air - 2.0 * damping * np.array([u, s])
    couple = 0.2 * (right - left) - 0.1 * damping * w - friction * np.sign(w) - back * air[1]
    yaw = (couple + back * force[1]) / inertia
    return np.array(
        [force[0] / mass + w * s - w**2 * back, force[1] / mass - w * u + yaw * back, yaw]
    )


def base(
    state: list[float],
    action: list[float],
    payload: float = 0.0,
    gain: tuple[float, float] = (1.0, 1.0),
    wind: tuple[float, float] = (0.0, 0.0),
    damping: float = 1.0,
    friction: float = 0.0,
) -> np.ndarray:
    """Newton and Euler in the turning frame of the base, its load 0.2 m behind the axle."""
    _, _, heading, u, s, w = state
    mass = 30.0 + payload
    back = 0.2 * payload / mass
    inertia = 1.5 + 0.4 * payload * 0.03**2 + 30.0 * payload / mass * 0.2**2
    turn = np.array([[np.cos(heading), np.sin(heading)], [-np.sin(heading), np.cos(heading)]])
    dry = -friction * turn @ np.sign(turn.T @ [u, s])
    air = turn @ wind
    speed, yaw_rate = np.array(gain) * action
    push = np.array([150.0 * (speed - u), -400.0 * s])
    force = push + dry + air - 5.0 * damping * np.array([u, s])
    couple = 9.0 * (yaw_rate - w) - 0.4 * damping * w - friction * np.sign(w) - back * air[1]
    yaw = (couple + back * force[1]) / inertia
    return np.array(
        [force[0] / mass + w * s - w**2 * back, force[1] / mass - w * u + yaw * back, yaw]
    )


X, Y, Z = np.eye(3)
SIX_OFFSETS = np.array(
    [[0, 0, 0], [0, 0, 0.16], [0.42, 0, 0], [0.26, 0, 0], [0.12, 0, 0], [0.08, 0, 0]]
)
SIX_AXES = (Z, -Y, -Y, X, -Y, X)
SIX_LINKS = [  # mass, its centre, moments of inertia about it
    (5.0, 0.1 * Z, (0.025, 0.025, 0.016)),
    (8.4, 0.21 * X, (0.020, 0.140, 0.140)),
    (3.2, 0.13 * X, (0.006, 0.040, 0.040)),
    (1.4, 0.06 * X, (0.0016, 0.0030, 0.0030)),
    (1.2, 0.04 * X, (0.0012, 0.0016, 0.0016)),
    (0.8, 0.03 * X, (0.0008, 0.0007, 0.0007)),
]
SIX_DRIVES = np.array([60.0, 60.0, 40.0, 8.0, 8.0, 5.0])  # N m for each rad/s too slow


def six_axis_links(angles: np.ndarray, payload: float) -> list[tuple]:
    """Mass, inertia and Jacobians of each link's centre; the payload is a sphere on the tool."""
    load = (payload, 0.1 * X, (0.4 * payload * 0.03**2,) * 3)
    turn, place, joints, links = np.eye(3), np.zeros(3), [], []
    for i, angle in enumerate(angles):
        place = place + turn @ SIX_OFFSETS[i]
        joints.append((turn @ SIX_AXES[i], place))
        ax, ay, az = SIX_AXES[i]
        cross = np.array([[0, -az, ay], [az, 0, -ax], [-ay, ax, 0]])
        turn = turn @ (np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)
        for mass, centre, moments in [SIX_LINKS[i], *([load] if i == 5 else [])]:
            at, along, about = place + turn @ centre, np.zeros((3, 6)), np.zeros((3, 6))
            for j, (axis, origin) in enumerate(joints):
                along[:, j], about[:, j] = np.cross(axis, at - origin), axis
            links.append((mass, turn @ np.diag(moments) @ turn.T, along, about))
    return links


def six_axis_inertia(angles: np.ndarray, payload: float) -> np.ndarray:
    links = six_axis_links(angles, payload)
    moving = sum(m * a.T @ a + w.T @ moments @ w for m, moments, a, w in links)
    return moving + np.diag([0.4, 0.4, 0.4, 0.1, 0.1, 0.1])


def six_axis_load(
    angles: np.ndarray, payload: float = 0.0, wind: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """Joint torques of tool and payload: their weight, which nothing makes up for, and wind."""
    tool, load = six_axis_links(np.asarray(angles), payload)[-2:]
    weight = [-G * (0.8 * tool[2][2] + payload * load[2][2])]
    share = payload / (0.8 + payload)
    centre = (1 - share) * tool[2] + share * load[2]
    return np.sum(weight, axis=0) + centre.T @ [wind[0], 0.0, wind[1]]


def six_axis(
    state: list[float],
    action: list[float],
    payload: float = 0.0,
    gain: tuple[float, ...] = (1.0, 1.0),
    wind: tuple[float, float] = (0.0, 0.0),
    damping: float = 1.0,
    friction: float = 0.0,
) -> np.ndarray:
    """Lagrange's equations; the inertia's derivatives by central differences."""
    angles, speed = np.split(np.array(state, float), 2)
    slopes = [
        six_axis_inertia(angles + step, payload) - six_axis_inertia(angles - step, payload)
        for step in 1e-5 * np.eye(6)
    ]
    slopes = np.array(slopes) / 2e-5  # [k, i, j] = dM_ij / dq_k
    centrifugal = np.einsum('kij,j,k->i', slopes, speed, speed)
    centrifugal -= np.einsum('ijk,j,k->i', slopes, speed, speed) / 2
    commanded = np.append(gain, np.ones(6))[:6] * action
    lost = damping * np.array([8.0, 8.0, 8.0, 1.0, 1.0, 1.0]) * speed + friction * np.sign(speed)
    torque = SIX_DRIVES * (commanded - speed) + six_axis_load(angles, payload, wind)
    return np.linalg.solve(six_axis_inertia(angles, payload), torque - centrifugal - lost)


BY_HAND = {
    'arm': arm,
    'base': base,
    'cartpole': cartpole,
    'diffdrive': diffdrive,
    'quad': quad,
    'six_axis': six_axis,
}
CHANGES = [
    {},
    {'payload': 0.5},
    {'gain': (0.6, 1.0)},
    {'gain': (1.0, -0.5)},
    {'wind': (2.5, 0.0)},
    {'wind': (0.0, -1.5)},
    {'damping': 0.0},
    {'damping': 5.0},
    {'friction': 0.4},
    {'payload': 0.7, 'gain': (0.8, 0.5), 'wind': (-1.0, 2.0), 'damping': 3.0, 'friction': 0.2},
]


def as_shifts(name: str, change: dict) -> list[Shift]:
    names = make(name).ACTION
    shifts: list[Shift] = [
        ActuatorGain(a, g) for a, g in zip(names, change.get('gain', ()), strict=False)
    ]
    for key, shift in (
        ('payload', Payload),
        ('wind', Wind),
        ('damping', Damping),
        ('friction', Friction),
    ):
        shifts += [shift(change[key])] if key in change else []
    return shifts


def as_change(name: str, shifts: list[Shift]) -> dict:
    """The other way: what a regime's shifts, each of its own kind, mean by hand."""
    gain = dict.fromkeys(make(name).ACTION, 1.0)
    change: dict = {}
    for shift in shifts:
        if isinstance(shift, ActuatorBias):
            change.setdefault('offset', {})[shift.actuator] = shift.offset
        elif isinstance(shift, ActuatorGain):
            gain[shift.actuator] *= shift.factor
        else:
            assert shift.kind not in change
            change[shift.kind] = next(iter(shift.to_dict()[shift.kind].values()))
    return change | {'gain': tuple(gain.values())}


@every_robot
@pytest.mark.parametrize('change', CHANGES, ids=str)
def test_accelerations_are_those_of_the_equations(name, change):
    """At random states: weight, thrust, inertia, wind, damping and Coulomb friction."""
    robot = make(name)
    rng = np.random.default_rng(5)
    states = robot.sample_states(rng, 10)
    for state, action in zip(states, robot.sample_actions(rng, 10), strict=True):
        np.testing.assert_allclose(
            acceleration(name, state, action, *as_shifts(name, change)),
            BY_HAND[name](state, action, **change),
            rtol=1e-3,
            atol=1e-3,
        )


@pytest.mark.parametrize('change', CHANGES, ids=str)
def test_the_quads_velocity_after_a_whole_step(change):
    """With pitch held at zero every rate follows m v' = F - d v, which has a closed form."""
    robot = make_with('quad', as_shifts('quad', change))
    gain = np.array(change.get('gain', (1.0, 1.0)))
    action = 6.0 / gain if (gain > 0.5).all() else np.array([6.0, 0.0])
    state = [0.0, 1.5, 0.0, 0.5, 0.8, 0.0]
    after = robot.one_step(np.array([state]), action[None], np.zeros((1, 3, 2)))[0]
    first = quad(state, list(action), **change)[1]
    rate = 0.1 * change.get('damping', 1.0) / (1.0 + change.get('payload', 0.0))
    mean = first * 0.03 * (1 - 0.5 * rate * 0.03)
    tolerance = 2e-3 if (gain > 0.5).all() else 2e-2  # with one rotor it tips meanwhile
    assert after[4] - 0.8 == pytest.approx(mean, rel=tolerance)


def test_directions_of_the_quad():
    hover, level = [4.905, 4.905], [0, 1.5, 0, 0, 0, 0]
    np.testing.assert_allclose(acceleration('quad', level, hover), 0, atol=1e-9)
    assert acceleration('quad', level, [5.0, 4.9])[2] > 0  # more left: +x side down
    assert acceleration('quad', [0, 1.5, 0.2, 0, 0, 0], hover)[0] > 0  # and off to +x
    assert acceleration('quad', level, hover, Payload(0.3))[1] < 0
    assert acceleration('quad', level, hover, Wind((1.0, 0.0)))[0] == pytest.approx(1.0)
    assert acceleration('quad', level, hover, Wind((1.0, 0.0)), Payload(1.0))[0] == (
        pytest.approx(0.5)
    )
    worn = acceleration('quad', level, hover, ActuatorGain('right', 0.5))
    assert worn[1] < 0 < worn[2]


@pytest.mark.parametrize('pose', [(0.0, 0.0), (0.5, 0.8), (-0.7, 1.9), (1.5708, 0.0), (2.5, -1.0)])
@pytest.mark.parametrize('payload', [0.0, 0.5, 1.5])
def test_the_arm_rests_where_torques_balance_its_weight(pose, payload):
    robot = make_with('arm', [Payload(payload), ActuatorGain('shoulder_torque', 0.8)])
    state = np.array([[*pose, 0.0, 0.0]])
    torque = arm_gravity(*pose, payload) / [0.8, 1.0]
    before = np.zeros((1, 3, 2))
    np.testing.assert_allclose(robot.one_step(state, torque[None], before), state, atol=1e-12)
    dropped = robot.one_step(state, 0 * torque[None], before)[0]
    fall = np.linalg.solve(arm_inertia(pose[1], payload), -arm_gravity(*pose, payload)) * 0.02
    np.testing.assert_allclose(dropped[2:], fall, rtol=0.2, atol=0.02)  # damped


@pytest.mark.parametrize(('extra', 'sticks'), [(0.5, True), (0.9, True), (1.5, False)])
def test_coulomb_friction_holds_up_to_its_limit(extra, sticks):
    robot = make_with('arm', [Friction(1.0)])
    torque = arm_gravity(1.2, 0.3) + [extra, 0.0]
    state = np.array([[1.2, 0.3, 0.0, 0.0]])
    for _ in range(10):
        state = robot.one_step(state, torque[None], np.zeros((1, 3, 2)))
    speed = abs(state[0, 2])
    assert speed < 0.01 if sticks else speed > 0.05


@every_robot
def test_coulomb_friction_never_pushes(name):
    free, rough = make(name), make_with(name, [Friction(0.3)])
    arguments = batch(free, 200)
    half = free.model.nv
    # One joint at a time: elsewhere in a chain friction may well be felt as a push.
    states = np.zeros_like(arguments[0])
    states[:, half - 1] = arguments[0][:, half - 1]
    states[:, -1] = arguments[0][:, -1] / 10
    speed = states[:, -1]
    change = (rough.one_step(states, *arguments[1:]) - free.one_step(states, *arguments[1:]))[
        :, -1
    ]
    after = free.one_step(states, *arguments[1:])[:, -1]
    same = np.sign(speed) == np.sign(after)
    assert same.sum() > 20
    assert (change * np.sign(speed))[same].max() < 1e-9


def test_the_unforced_undamped_arm_keeps_its_energy():
    def energy(state: np.ndarray) -> float:
        q1, q2, speed = state[0], state[1], state[2:]
        height = M1 * C1 * np.sin(q1) + M2 * (L1 * np.sin(q1) + C2 * np.sin(q1 + q2))
        return 0.5 * speed @ arm_inertia(q2, 0.0) @ speed + G * height

    def swing(period: float, damping: float) -> np.ndarray:
        text = robot_text('arm').replace('period: 0.02', f'period: {period}', 1)
        robot = make('arm', parse_robot(text))
        robot.set_shifts([Damping(damping)])
        states = [robot.true_state]
        states += [robot.step(np.zeros(2))[4]['state'] for _ in range(round(3 / period))]
        return np.array([energy(s) for s in states])

    coarse, fine = swing(0.02, 0.0), swing(0.002, 0.0)
    turn = 2 * G * (M1 * C1 + M2 * (L1 + C2))  # from hanging to upright
    assert np.ptp(coarse) < 0.2 * turn
    assert np.ptp(fine) < 0.02 * turn
    assert np.diff(swing(0.002, 1.0)).max() < 1e-3 and swing(0.02, 1.0)[-1] < -0.3 * turn


# ---------------------------------------------------------------------- more shifts by hand
@every_robot
@pytest.mark.parametrize('periods', [0.5, 2.0, 4.0])
def test_lagging_actuators_follow_a_first_order_filter(name, periods):
    period = make(name).robot_spec.period
    robot, prompt = start(name, [ActuatorLag(periods * period)]), start(name)
    actions = commands(robot, 14)
    kept, state, means = np.exp(-1 / periods), robot.robot_spec.neutral, []
    for action in actions:
        means.append(action + (state - action) * periods * (1 - kept))  # over the step
        state = action + (state - action) * kept
    np.testing.assert_allclose(live(robot, actions), live(prompt, np.array(means)), atol=1e-9)


@every_robot
def test_a_late_and_lagging_command_is_both(name):
    lag = ActuatorLag(2 * make(name).robot_spec.period)
    both, lagging = start(name, [lag, Delay(2)]), start(name, [lag])
    actions = commands(both, 12)
    late = np.concatenate([np.tile(both.robot_spec.neutral, (2, 1)), actions])[:12]
    np.testing.assert_allclose(live(both, actions), live(lagging, late), atol=1e-12)


@pytest.mark.parametrize(
    ('sent', 'torque'),
    [([3.0, 1.0], [2.0, 1.5]), ([0.5, -1.0], [1.0, -0.5]), ([-4.0, 0.0], [-0.5, 0.5])],
)
def test_actuators_with_bias_and_dead_zone(sent, torque):
    state = [0.4, 0.7, 0.0, 0.0]
    shifts = [DeadZone('shoulder_torque', 1.0), ActuatorGain('shoulder_torque', 0.5)]
    shifts += [ActuatorBias('shoulder_torque', 1.0), ActuatorBias('elbow_torque', 0.5)]
    got = acceleration('arm', state, sent, *shifts)
    np.testing.assert_allclose(got, arm(state, torque), rtol=1e-5, atol=1e-5)


@every_robot
def test_a_spring_pulls_its_joint_towards_rest(name):
    robot = make(name)
    state = robot.sample_states(np.random.default_rng(1), 1)[0]
    joint, neutral = robot.joints[0], robot.robot_spec.neutral
    stretched = state[0] - 0.3
    push = 4.0 * -stretched
    free = acceleration(name, state, neutral)
    sprung = acceleration(name, state, neutral, JointSpring(joint, 4.0, rest=0.3))
    data = robot.data
    data.qpos[:], data.qvel[:] = robot.motion(state)
    mujoco.mj_forward(robot.model, data)
    expected = np.zeros((1, robot.model.nv))
    mujoco.mj_solveM(robot.model, data, expected, np.eye(robot.model.nv)[:1] * push)
    expected = expected[0]
    if name in ('diffdrive', 'base'):
        c, s = np.cos(state[2]), np.sin(state[2])
        expected[:2] = c * expected[0] + s * expected[1], c * expected[1] - s * expected[0]
    np.testing.assert_allclose(sprung - free, expected, rtol=1e-4, atol=1e-4)


def test_drag_grows_with_the_square_of_the_speed():
    hover = [4.905, 4.905]
    for v in ([2.0, 0.0], [-1.0, 1.5], [0.0, 0.0]):
        state = [0.0, 1.5, 0.0, *v, 0.0]
        change = acceleration('quad', state, hover, QuadraticDrag(1.2)) - quad(state, hover)
        expected = -1.2 * np.linalg.norm(v) * np.array(v)
        np.testing.assert_allclose(change, [*expected, 0.0], atol=1e-4)
    # On the arm it is that of the forearm's centre of mass.
    state = np.array([0.4, 0.7, 1.0, -2.0])
    x1, x2 = state[0], state[0] + state[1]
    speed = state[2] + state[3]
    v = L1 * state[2] * np.array([-np.sin(x1), np.cos(x1)])
    v = v + C2 * speed * np.array([-np.sin(x2), np.cos(x2)])
    force = -1.2 * np.linalg.norm(v) * v
    change = acceleration('arm', state, [0, 0], QuadraticDrag(1.2)) - arm(state, [0, 0])
    torque = arm_wind(*state[:2], 0.0, tuple(force))
    np.testing.assert_allclose(change, np.linalg.solve(arm_inertia(0.7, 0.0), torque), atol=1e-3)


@pytest.mark.parametrize(('extra', 'sticks'), [(1.5, True), (2.3, True), (2.8, False)])
def test_stiction_holds_until_it_breaks_and_then_lets_go(extra, sticks):
    robot = make_with('arm', [Stiction('shoulder', 2.5, 1.0)])
    torque = arm_gravity(1.2, 0.3) + [extra, 0.0]
    state = np.array([[1.2, 0.3, 0.0, 0.0]])
    for _ in range(10):
        state = robot.one_step(state, torque[None], np.zeros((1, 3, 2)))
    assert (abs(state[0, 2]) < 0.01) == sticks
    moving = [1.2, 0.3, 2.0, 0.0]  # ten times the speed at which it falls
    slowed = acceleration('arm', moving, torque, Stiction('shoulder', 2.5, 1.0))
    np.testing.assert_allclose(
        slowed,
        acceleration('arm', moving, torque, Friction(1.0, 'shoulder')),
        rtol=1e-3,
        atol=1e-3,
    )


def test_coupled_tilted_and_slipping():
    hover, state = [4.905, 4.905], [0.0, 1.5, 0.1, -2.0, 0.5, 0.0]
    for quadratic, moment in ((False, -0.6), (True, -1.2)):
        change = acceleration('quad', state, hover, Coupling('x', 'pitch', 0.3, quadratic))
        expected = quad(state, hover) + [0.0, 0.0, moment / 0.012]
        np.testing.assert_allclose(change, expected, rtol=1e-4, atol=1e-3)
    weight = G * np.array([np.sin(0.2), 1 - np.cos(0.2), 0.0])
    np.testing.assert_allclose(
        acceleration('quad', state, hover, Tilt(0.2)), quad(state, hover) + weight, atol=1e-3
    )
    ground = [0.0, 0.0, 0.0, 0.3, 0.0, 0.4]
    wet = acceleration('diffdrive', ground, [5.0, 6.0], SlipInTurns(0.5, yaw_rate=0.4))
    np.testing.assert_allclose(
        wet, diffdrive(ground, [0.75 * 5.0, 0.75 * 6.0]), rtol=1e-3, atol=1e-3
    )


@every_robot
def test_a_biased_sensor_reads_too_much(name):
    robot, fair = make(name), start(name)
    channel = robot.STATE[-1]
    robot.reset(seed=0, options={'shifts': [SensorBias(channel, 0.5)]})
    actions = commands(robot, 5)
    difference = live(robot, actions) - live(fair, actions)
    np.testing.assert_allclose(difference, np.tile(0.5 * np.eye(len(robot.STATE))[-1], (5, 1)))


def test_a_diffdrive_slides_a_little_and_does_not_reverse_for_free():
    robot = start('diffdrive')
    for _ in range(60):
        state = robot.step(np.array([5.0, 7.0]))[4]['state']
    assert 0.003 < abs(state[4]) < 0.1 * state[3]
    spec = robot.robot_spec
    place = spec.reference(robot.stamp_ns)[0][0]
    ahead = np.array([*place, 0.0, 0.0, 0.0])
    assert spec.score(robot.stamp_ns, ahead) == pytest.approx(1.0)
    assert spec.score(robot.stamp_ns, ahead + [0, 0, np.pi, 0, 0, 0]) < 0.01


# ---------------------------------------------------------------------- in time
@every_robot
@pytest.mark.parametrize('shape', ['ramp', 'wave'])
def test_a_drift_is_a_row_of_shifts(name, shape):
    action, period = make(name).ACTION[0], make(name).robot_spec.period
    ends = ActuatorGain(action, 1.0), ActuatorGain(action, 0.4)
    drift = Drift(*ends, seconds=8 * period, shape=shape)
    robot, stepped = start(name, [drift]), start(name)
    actions = commands(robot, 20)
    shares = [min(k / 8, 1) if shape == 'ramp' else np.sin(np.pi * k / 8) ** 2 for k in range(20)]
    rows = []
    for share, action_now in zip(shares, actions, strict=True):
        stepped.set_shifts([ActuatorGain(action, 1.0 - 0.6 * share)])
        rows.append(stepped.step(action_now)[0])
    np.testing.assert_allclose(live(robot, actions), rows, atol=1e-9)
    assert robot.shifts == [drift]
    robot.set_shifts([drift])  # the regime begins anew
    assert robot.gain[0] == 1.0


def test_whatever_has_numbers_can_drift():
    robot = start('quad')
    gust = Drift(Wind((0.0, 1.0)), Wind((2.0, 0.0)), 0.3)
    robot.set_shifts([gust, Drift(QuadraticDrag(0.0), QuadraticDrag(1.0), 0.3)])
    live(robot, commands(robot, 5))
    np.testing.assert_allclose(robot.wind[[0, 2]], [1.0, 0.5])
    assert robot.laws == [QuadraticDrag(0.5)]


# ---------------------------------------------------------------------- what is refused
MILD, HEAVY = {'payload': {'mass': 0.1}}, {'payload': {'mass': 0.5}}


def gain_of(actuator: str) -> dict:
    return {'actuator_gain': {'actuator': actuator, 'factor': 0.5}}


@pytest.mark.parametrize(
    ('bad', 'words'),
    [
        ({'earthquake': {'force': 1}}, ['earthquake', 'payload', 'wind']),
        ({}, ['{}', 'one kind']),
        ({'payload': {'mass': 1}, 'delay': {'steps': 1}}, ['one kind']),
        ('payload', ["'payload'", 'one kind']),
        ({'payload': {}}, ['payload', "['mass']", '[]']),
        ({'payload': 0.3}, ['payload', "['mass']", '0.3']),
        ({'payload': {'mass': 1, 'at': 2}}, ['payload', "['mass']", "'at'"]),
        ({'payload': {'mass': 1, 2: 2}}, ['payload', "['mass']", '2']),
        ({'actuator_gain': {'factor': 1}}, ["['actuator', 'factor']", "['factor']"]),
        ({'payload': {'mass': '1'}}, ['payload.mass', "'1'", 'number ≥ 0']),
        ({'payload': {'mass': None}}, ['payload.mass', 'None', 'number']),
        ({'payload': {'mass': True}}, ['payload.mass', 'True', 'number']),
        ({'payload': {'mass': -0.1}}, ['payload.mass', '-0.1', '≥ 0']),
        ({'payload': {'mass': float('nan')}}, ['payload.mass', 'nan', 'number']),
        ({'payload': {'mass': float('inf')}}, ['payload.mass', 'inf', 'number']),
        ({'payload': {'mass': 10**400}}, ['payload.mass', 'number']),
        ({'damping': {'factor': -1}}, ['damping.factor', '-1', '≥ 0']),
        ({'friction': {'loss': -1}}, ['friction.loss', '-1', '≥ 0']),
        ({'sensor_noise': {'factor': -1}}, ['sensor_noise.factor', '-1', '≥ 0']),
        ({'wind': {'force': [1.0]}}, ['wind.force', '1.0', 'two numbers']),
        ({'wind': {'force': [1.0, 'east']}}, ['wind.force', 'east', 'two numbers']),
        ({'wind': {'force': 3.0}}, ['wind.force', '3.0', 'two numbers']),
        ({'delay': {'steps': 1.5}}, ['delay.steps', '1.5', 'whole number']),
        ({'delay': {'steps': -1}}, ['delay.steps', '-1', '≥ 0']),
        ({'delay': {'steps': 4}}, ['delay.steps', '5 steps', 'at most 3']),  # 1 + 4
        ({'actuator_gain': {'actuator': 3, 'factor': 1}}, ['actuator_gain.actuator', '3', 'name']),
        ({'actuator_gain': {'actuator': 'tail', 'factor': 1}}, ['actuator', 'tail', 'left']),
        ({'actuator_bias': {'actuator': 'tail', 'offset': 1}}, ['bias.actuator', 'tail', 'left']),
        ({'dead_zone': {'actuator': 'left', 'width': -1}}, ['dead_zone.width', '-1', '≥ 0']),
        ({'actuator_lag': {'seconds': 1.0}}, ['actuator_lag.seconds', '1.0', 'at most 0.12']),
        ({'friction': {'joint': 'x'}}, ['friction', "['loss']", "['joint']"]),
        ({'friction': {'loss': 1, 'joint': 'yaw'}}, ['friction.joint', 'yaw', 'pitch']),
        ({'joint_spring': {'joint': 'x'}}, ["['joint', 'stiffness']", "['rest']", "['joint']"]),
        ({'joint_spring': {'joint': 'y', 'stiffness': 1}}, ['spring.joint', "'y'", 'pitch']),
        ({'joint_spring': {'joint': 'x', 'stiffness': -1}}, ['stiffness', '-1', '≥ 0']),
        ({'quadratic_drag': {'coefficient': -1}}, ['coefficient', '-1', '≥ 0']),
        ({'stiction': {'joint': 'y', 'breakaway': 1, 'sliding': 1}}, ['stiction.joint', "'y'"]),
        (
            {'stiction': {'joint': 'x', 'breakaway': 1, 'sliding': 1, 'speed': 0}},
            ['stiction.speed', '0', '> 0'],
        ),
        ({'coupling': {'source': 'y', 'joint': 'x', 'factor': 1}}, ['coupling.source', "'y'"]),
        ({'coupling': {'source': 'x', 'joint': 'y', 'factor': 1}}, ['coupling.joint', "'y'"]),
        (
            {'coupling': {'source': 'x', 'joint': 'z', 'factor': 1, 'quadratic': 2}},
            ['coupling.quadratic', '2', 'true or false'],
        ),
        ({'slip_in_turns': {'factor': 0.5}}, ['slip_in_turns', 'quad', 'yaw_rate']),
        ({'sensor_bias': {'channel': 'yaw', 'offset': 1}}, ['sensor_bias.channel', 'yaw', 'vx']),
        ({'drift': {'start': MILD, 'end': 3, 'seconds': 1}}, ['3', 'one kind']),
        ({'drift': {'start': MILD, 'end': {'payload': {}}, 'seconds': 1}}, ["['mass']", '[]']),
        ({'drift': {'start': MILD, 'end': HEAVY, 'seconds': 0}}, ['drift.seconds', '0', '> 0']),
        (
            {'drift': {'start': MILD, 'end': HEAVY, 'seconds': 1, 'shape': 'jump'}},
            ['jump', 'wave'],
        ),
        (
            {'drift': {'start': MILD, 'end': {'damping': {'factor': 1}}, 'seconds': 1}},
            ['drift', 'payload', 'damping', 'one kind'],
        ),
        (
            {'drift': {'start': gain_of('left'), 'end': gain_of('right'), 'seconds': 1}},
            ['drift', 'actuator_gain.actuator', "'left'", "'right'", 'the same'],
        ),
        (
            {'drift': {'start': gain_of('tail'), 'end': gain_of('tail'), 'seconds': 1}},
            ['actuator', 'tail', 'left'],
        ),
    ],
)
def test_bad_shifts_are_named_and_leave_the_plant_nominal(bad, words):
    robot = start('quad', [Friction(0.1)])
    with pytest.raises(UserError) as caught:
        robot.set_shifts([Payload(0.5), Delay(1), shift_from_dict(bad)])
    for word in words:
        assert word in str(caught.value)


@every_robot
@pytest.mark.parametrize('bad', [Delay(4), ActuatorGain('tail', 0.5)], ids=str)
def test_a_shift_that_does_not_fit_leaves_the_plant_nominal(name, bad):
    robot = start(name, [Friction(0.1)])
    with pytest.raises(UserError):
        robot.set_shifts([Payload(0.5), Wind((1.0, 0.0)), Delay(1), bad])
    assert robot.shifts == [] and plant(robot) == plant(make(name))


def test_shifts_made_in_python_are_checked_as_well():
    for bad in (lambda: Payload(-1.0), lambda: Wind((np.nan, 0.0)), lambda: Delay(True)):
        with pytest.raises(UserError, match='give'):
            bad()


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('name: vx,', 'name: speed,'),
        ('{name: left,', '{name: port,'),
        ('name: left,  unit', 'name: tail, unit: N, low: 0, high: 1}\n  - {name: left, unit'),
    ],
)
def test_a_robot_file_with_other_channels_is_refused(old, new):
    text = robot_text('quad')
    assert old in text
    with pytest.raises(
        UserError, match=r'robot file of quad: (state|action) is .*, the simulated'
    ):
        make('quad', parse_robot(text.replace(old, new)))


def test_a_robot_depends_on_no_other_ones_files():
    """So that a robot added beside it does not make its prior be trained again."""
    names = {name: {path.name for path in sources(name)} for name in ROBOTS}
    assert names['arm'] == {'arm.py', 'arm.xml', 'base.py', 'shifts.py'}
    assert names['base'] == {'base.py', 'diffdrive.py', 'shifts.py'} | {
        f'mobile_base.{end}' for end in ('py', 'xml')
    }
    assert all(path.is_file() for name in ROBOTS for path in sources(name))


def test_other_robots_are_refused():
    with pytest.raises(UserError, match=r'robot file of arm: state is .*quad has'):
        make('quad', load_robot('arm'))
    with pytest.raises(
        UserError, match=r"'quadd'; use one of arm, base, cartpole, diffdrive, quad"
    ):
        make('quadd')


# ---------------------------------------------------------------------- pre-training
@every_robot
def test_family_members_apply_and_repeat(name):
    robot, rng, same = make(name), np.random.default_rng(0), np.random.default_rng(0)
    arguments = batch(robot, 5)
    drawn = set()
    for _ in range(40):
        member = robot.family(rng)
        assert member == robot.family(same)
        assert [shift_from_dict(s.to_dict()) for s in member] == member
        robot.set_shifts(member)
        assert np.isfinite(robot.one_step(*arguments)).all()
        drawn |= {s.kind for s in member}
    own = {'actuator_gain', 'payload', 'wind', 'damping'}
    own |= {'actuator_bias'} if name in ('diffdrive', 'base') else set()
    own |= {'friction'} if name in ('arm', 'quad') else set()
    assert drawn == own


@every_robot
def test_samples_are_seeded_and_within_limits(name):
    robot = make(name)
    spec = robot.robot_spec
    for sample in (robot.sample_states, robot.sample_actions):
        one, two = (sample(np.random.default_rng(3), 500) for _ in range(2))
        np.testing.assert_array_equal(one, two)
        assert np.isfinite(one).all()
    assert (one >= spec.action_low).all() and (one <= spec.action_high).all()
    states = robot.sample_states(np.random.default_rng(3), 500)
    assert states.shape == (500, len(spec.state))
    assert (np.abs(states[:, spec.angles]) <= np.pi).all()


# ---------------------------------------------------------------------- lives
FOLDER = share_dir() / 'config' / 'lives'
LIVES = sorted(str(p.relative_to(FOLDER).with_suffix('')) for p in FOLDER.rglob('*.yaml'))
STANDARD = [name for name in LIVES if '/' not in name]
FOREIGN = [name for name in LIVES if name.startswith(('outside/', 'held_out/', 'long/'))]
REGIMES = [(name, regime) for name in STANDARD for regime in load_life(name).regimes]


def test_every_robot_has_a_life():
    assert set(ROBOTS) == set(STANDARD)
    for name in STANDARD:
        life = load_life(name)
        assert life.robot == name
        assert [n for _, n in life.phases] == [200, 300, 200, 300, 200, 250]
        assert ''.join(regime for regime, _ in life.phases) == 'ABACBD'


@pytest.mark.parametrize('name', FOREIGN)
def test_foreign_shifts_are_of_a_kind_that_the_task_family_does_not_hold(name):
    life = load_life(name)
    robot, rng = make(life.robot), np.random.default_rng(0)
    family = {shift.kind for _ in range(100) for shift in robot.family(rng)}
    assert life.phases == [('A', 150), ('X', 4000)] or (
        life.phases == [('A', 150), ('X', 300), ('A', 150)]
    )
    assert life.regimes['A'] == []
    shifts = [shift_from_dict(shift) for shift in life.regimes['X']]
    assert shifts and not {shift.kind for shift in shifts} & family


def test_foreign_lives_cover_every_robot_and_the_held_out_ones_differ():
    kinds: dict[str, set] = {}
    for folder in ('outside', 'held_out'):
        lives = [load_life(name) for name in FOREIGN if name.startswith(folder)]
        assert {life.robot for life in lives} == set(ROBOTS)
        kinds[folder] = {(life.robot, *shift) for life in lives for shift in life.regimes['X']}
    assert len(kinds['held_out']) >= 4 and not kinds['outside'] & kinds['held_out']


def test_the_example_writes_every_kind_of_shift():
    life = load_life('examples/every_shift')
    shifts = [shift_from_dict(s) for regime in life.regimes.values() for s in regime]
    assert {shift.kind for shift in shifts} == set(KINDS)
    assert {regime for regime, _ in life.phases} == set(life.regimes)
    robot = make(life.robot)
    for regime in life.regimes.values():
        robot.set_shifts([shift_from_dict(shift) for shift in regime])


@pytest.mark.parametrize('name', STANDARD)
def test_shipped_lives_start_at_home_and_come_back(name):
    life = load_life(name)
    visited = [life.regime_at(step) for step in range(life.steps)]
    assert set(visited) == set(life.regimes)
    assert life.shift_dicts_at(0) == [] and life.home_steps() == life.boundaries[1]
    for (regime, steps), first in zip(life.phases, life.boundaries, strict=False):
        assert visited[first : first + steps] == [regime] * steps
    assert life.regime_at(life.steps + 5) == visited[-1]
    away = [regime for regime, _ in life.phases if life.regimes[regime]]
    assert len(away) > len(set(away))  # something returns that can be remembered


@pytest.mark.parametrize(('name', 'regime'), REGIMES)
def test_regimes_are_feasible_with_a_margin(name, regime):
    """Commands by hand hold the robot still, 10 % of the range or more from the limits."""
    life = load_life(name)
    shifts = [shift_from_dict(s) for s in life.regimes[regime]]
    robot = make_with(life.robot, shifts)
    spec = robot.robot_spec
    change = as_change(life.robot, shifts)
    gain, payload = np.array(change['gain']), change.get('payload', 0.0)
    wind = np.array(change.get('wind', (0.0, 0.0)))
    if life.robot == 'quad':
        need = np.array([0.0, (1.0 + payload) * G]) - wind
        poses = [[0.0, 1.5, np.arctan2(*need), 0.0, 0.0, 0.0]]
        holding = [np.full(2, np.linalg.norm(need) / 2)]
    elif life.robot == 'cartpole':
        poses, holding = [[0.3, 0.0, 0.0, 0.0]], [np.zeros(1)]
    elif life.robot in ('diffdrive', 'base'):
        offset = change.get('offset', {})
        poses = [[0.3, 0.2, 1.0, 0.0, 0.0, 0.0]]
        holding = [-np.array([offset.get(action, 0.0) for action in robot.ACTION])]
    elif life.robot == 'six_axis':
        angles = spec.reference(0, 300)[0]
        poses = [[*q, *np.zeros(6)] for q in angles]
        holding = [-six_axis_load(q, payload, wind) / SIX_DRIVES for q in angles]
    else:
        angles = spec.reference(0, 200)[0]
        poses = [[*q, 0.0, 0.0] for q in angles]
        holding = [arm_gravity(*q, payload) - arm_wind(*q, payload, wind) for q in angles]
    states, actions = np.array(poses), np.array(holding) / gain
    margin = 0.1 * (spec.action_high - spec.action_low)
    assert (actions >= spec.action_low + margin).all()
    assert (actions <= spec.action_high - margin).all()
    before = np.tile(actions[:, None], (1, robot.history, 1))
    np.testing.assert_allclose(robot.one_step(states, actions, before), states, atol=1e-9)


@pytest.mark.parametrize(
    ('old', 'new', 'words'),
    [
        ('[D, 250]', '[E, 250]', ['phases', 'E', "'A'"]),
        ('[D, 250]', '[D, 0]', ['phases', '0', 'greater']),
        ('[D, 250]', '[D, soon]', ['phases', 'soon', 'integer']),
        ('episode: 480', 'episodes: 480', ['episodes', 'unknown key']),
        ('episode: 480', 'episode: -1', ['episode', '-1']),
        ('robot: quad', '', ['robot', 'missing']),
        ('  A: []', '  A: calm', ['regimes.A', 'calm', 'list']),
        ('robot: quad', 'robot: [', ['not valid YAML']),
        ('robot: quad', 'robot: kite', ['kite', 'arm, base, cartpole, diffdrive, quad']),
        ('factor: 0.65', 'factor: high', ['regimes.C', 'actuator_gain.factor', 'high', 'number']),
        ('actuator: right', 'actuator: up', ['regimes.C', 'actuator', 'up', 'right']),
        ('{payload: {mass', '{cargo: {mass', ['regimes.B', 'cargo', 'payload']),
    ],
)
def test_faults_of_a_life_are_named(tmp_path, old, new, words):
    text = (share_dir() / 'config' / 'lives' / 'quad.yaml').read_text()
    assert old in text
    path = tmp_path / 'mine.yaml'
    path.write_text(text)
    assert load_life(path) == load_life('quad')
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError) as caught:
        load_life(path)
    for word in ['mine.yaml', *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize('unknown', ['quadd', '/nowhere/mine.yaml'])
def test_unknown_lives_name_the_known_ones(unknown):
    with pytest.raises(UserError, match=rf"unknown life '{unknown}'.*arm, base, cartpole, .*quad"):
        load_life(unknown)
