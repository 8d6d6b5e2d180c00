"""What lives and pre-training rely on: feasible regimes, wide samples, noise that stays aligned.

Only the interface that they use is used here. That every shift matters and can be mastered takes
minutes, so it runs on demand, and prints its table:

    LIFELONG_BAYES_SLOW=1 pytest -s test/test_sim_lives.py -k matters
"""

import os

import numpy as np
import pytest

from lifelong_bayes_ros.experiments.schedule import load_life
from lifelong_bayes_ros.paths import share_dir
from lifelong_bayes_ros.robot.spec import load_robot
from lifelong_bayes_ros_sim import make, robot_names, shift_from_dict
from lifelong_bayes_ros_sim.shifts import Shift

G = 9.81
LONG = 12.0  # s, whole periods of every reference
every_robot = pytest.mark.parametrize('name', robot_names())


def merged(shifts: list[dict]) -> dict:
    """Shifts of different kinds in one mapping; gains by actuator."""
    found: dict = {'gain': {}, 'mass': 0.0, 'force': [0.0, 0.0], 'damping': 1.0}
    for shift in shifts:
        (kind, values), *_ = shift.items()
        if kind == 'actuator_gain':
            found['gain'][values['actuator']] = values['factor']
        elif kind == 'actuator_bias':
            found['offset'] = found.get('offset', {}) | {values['actuator']: values['offset']}
        elif kind == 'damping':
            found['damping'] = values['factor']
        else:
            found |= values
    return found


def quad_commands(path: np.ndarray, dt: float, change: dict) -> np.ndarray:
    """Thrusts [n, 2] that fly a path [n, 2] of x and z: the planar quadrotor is flat in them."""
    mass, drag = 1.0 + change['mass'], change['damping'] * np.array([0.1, 0.1, 0.005])
    v = np.gradient(path, dt, axis=0)
    force = mass * (np.gradient(v, dt, axis=0) + [0.0, G]) + drag[:2] * v - change['force']
    q = np.gradient(np.arctan2(force[:, 0], force[:, 1]), dt)
    couple = (0.012 * np.gradient(q, dt) + drag[2] * q) / 0.2
    total = np.linalg.norm(force, axis=1)
    return np.stack([total + couple, total - couple], axis=1) / 2


def arm_commands(path: np.ndarray, dt: float, change: dict) -> np.ndarray:
    """Joint torques [n, 2] along a path [n, 2] of joint angles, by the two-link equations."""
    load = change['mass']
    v = np.gradient(path, dt, axis=0)
    a = np.gradient(v, dt, axis=0)
    c1, c2, c12 = np.cos(path[:, 0]), np.cos(path[:, 1]), np.cos(path.sum(axis=1))
    first = 1.0 * 0.2 + load * 0.4  # moment of mass of forearm and load about the elbow
    far = 0.014 + 1.0 * 0.2**2 + load * 0.4**2
    cross, near = 0.5 * first * c2, 0.032 + 1.5 * 0.25**2 + (1.0 + load) * 0.5**2
    h = 0.5 * first * np.sin(path[:, 1])
    elbow = (far + cross) * a[:, 0] + (far + 0.01) * a[:, 1] + h * v[:, 0] ** 2 + G * first * c12
    shoulder = (near + far + 2 * cross + 0.02) * a[:, 0] + (far + cross) * a[:, 1]
    shoulder += -h * (2 * v[:, 0] + v[:, 1]) * v[:, 1]
    shoulder += G * ((1.5 * 0.25 + (1.0 + load) * 0.5) * c1 + first * c12)
    return np.stack([shoulder, elbow], axis=1) + change['damping'] * np.array([0.5, 0.3]) * v


def test_the_diffdrive_can_follow_its_reference_in_every_regime():
    """A tenth of the wheels' range stays free; the path never asks it to stop or to reverse."""
    spec = load_robot('diffdrive')
    _, rates = spec.reference(0, steps=round(20 / spec.period))
    speed, yaw_rate = np.linalg.norm(rates[:, :2], axis=1), rates[:, 2]
    assert speed.min() > 0.1 and np.abs(yaw_rate).max() < 1.0
    wheels = np.stack([speed - 0.2 * yaw_rate, speed + 0.2 * yaw_rate], axis=1) / 0.08
    for shifts in load_life('diffdrive').regimes.values():
        change = merged(shifts)
        gain = np.array([change['gain'].get(a, 1.0) for a in spec.action_names])
        offset = [change.get('offset', {}).get(a, 0.0) for a in spec.action_names]
        assert np.all(np.abs((wheels - offset) / gain) < 0.9 * spec.action_high)


@pytest.mark.parametrize('regime', 'ABCD')
@pytest.mark.parametrize(('name', 'commands'), [('arm', arm_commands), ('quad', quad_commands)])
def test_the_moving_reference_can_be_followed_in_every_regime(name, commands, regime):
    """A tenth of the command range stays free at both ends; the simulator moves as reckoned."""
    spec, shifts = load_robot(name), load_life(name).regimes[regime]
    change = merged(shifts)
    waves = list(spec.goal.track.values())
    dt = 1e-3
    angles = [2 * np.pi * np.arange(0.0, LONG, dt) / w.period + w.phase for w in waves]
    path = np.stack([w.center + w.amplitude * np.sin(p) for w, p in zip(waves, angles)], axis=1)
    gain = [change['gain'].get(action, 1.0) for action in spec.action_names]
    needed = commands(path, dt, change) / gain
    spare = 0.1 * (spec.action_high - spec.action_low)
    inner = needed[10:-10]  # the ends of numeric derivatives are one-sided
    assert np.all(inner > spec.action_low + spare), inner.min(axis=0)
    assert np.all(inner < spec.action_high - spare), inner.max(axis=0)

    if name == 'arm':  # its state is the path itself
        env = make(name)
        env.set_shifts([shift_from_dict(shift) for shift in shifts])
        states = np.concatenate([path, np.gradient(path, dt, axis=0)], axis=1)
        period = round(spec.period / dt)
        first = np.arange(100, 10_000, 100)
        u = needed[first + period // 2]  # held for a period: best at its middle
        after = env.one_step(states[first], u, np.repeat(u[:, None], 3, axis=1))
        np.testing.assert_allclose(after[:, 2:], states[first + period, 2:], atol=0.03)


@every_robot
def test_samples_cover_the_task_and_well_beyond(name):
    env, spec, rng = make(name), load_robot(name), np.random.default_rng(0)
    states, actions = env.sample_states(rng, 4000), env.sample_actions(rng, 4000)
    tracked = list(spec.goal.track)
    speeds = [c.derivative_of for c in spec.state]
    positions, rates = spec.reference(0, steps=round(20 / spec.period))
    for i, channel in enumerate(tracked):
        at = spec.index([channel])[0]
        checks = [(positions[:, i], states[:, at], 0.5)]
        if channel in speeds:
            checks.append((rates[:, i], states[:, speeds.index(channel)], 1.0))
        for visited, sampled, share in checks:
            if np.ptp(visited) > 6 and spec.angles[at]:  # all round
                assert np.histogram(sampled, 12, (-np.pi, np.pi))[0].min() > 0.05 * len(sampled)
                continue
            inner, outer = np.quantile(sampled, [0.02, 0.98])
            margin = share * np.ptp(visited) / 2
            assert inner < visited.min() - margin and outer > visited.max() + margin, channel
    if name in ('base', 'diffdrive'):  # their speed is that along the path, forwards or backwards
        fastest = np.linalg.norm(rates[:, :2], axis=1).max()
        assert np.all(np.abs(np.quantile(states[:, 3], [0.02, 0.98])) > 2 * fastest)
    place = (actions - spec.action_low) / (spec.action_high - spec.action_low)
    for column in place.T:
        assert np.histogram(column, 10, (0, 1))[0].min() > 0.03 * len(column)
    near = np.abs(actions - spec.neutral) < 0.3 * spec.action_half_range
    # More than if all were uniform: 0.09 with two actions, and hardly any with six.
    assert near.all(axis=1).mean() > min(0.2, 2.3 * 0.3 ** len(spec.action))


def test_the_quads_samples_are_tilted_but_not_turned_over():
    tilt = np.abs(make('quad').sample_states(np.random.default_rng(0), 4000)[:, 2])
    assert 0.9 < np.quantile(tilt, 0.98) < tilt.max() < 1.4


GAINS = dict.fromkeys(('arm', 'quad', 'six_axis'), (0.4, 1.2))
GAINS |= dict.fromkeys(('base', 'cartpole', 'diffdrive'), (0.3, 1.2))
DRIVES_ITSELF = ('base', 'diffdrive')  # motors that run on their own are in the family


@every_robot
def test_the_task_family_spans_its_ranges(name):
    """So it holds what the standard life does, but neither its values nor foreign kinds."""
    env, rng = make(name), np.random.default_rng(0)
    members = [env.family(rng) for _ in range(400)]
    seen: dict[str, list[Shift]] = {}
    for shift in (shift for member in members for shift in member):
        what = shift.kind + getattr(shift, 'actuator', '')
        seen.setdefault(what, []).append(shift)
    gains = {f'actuator_gain{a}' for a in env.ACTION}
    kinds = gains | {'payload', 'wind', 'damping'}
    kinds |= {f'actuator_bias{a}' for a in env.ACTION} if name in DRIVES_ITSELF else set()
    kinds |= {'friction'} if name in ('arm', 'quad') else set()
    assert set(seen) == kinds
    assert all(0.3 < len(shifts) / len(members) < 0.7 for shifts in seen.values())
    low, high = GAINS[name]
    for kind in gains:
        factors = np.array([shift.factor for shift in seen[kind]])
        sizes = np.abs(factors)
        assert low <= min(sizes) < low + 0.05 and high - 0.05 < max(sizes) <= high
        reversed_share = np.mean(factors < 0)
        assert 0.3 < reversed_share < 0.5 if name == 'cartpole' else reversed_share == 0
    factors = [shift.factor for shift in seen['damping']]
    assert 0.5 <= min(factors) < 0.6 and 4.5 < max(factors) <= 5.0
    wind = np.array([shift.force for shift in seen['wind']])
    masses = [shift.mass for shift in seen['payload']]
    drawn = [shift.to_dict() for shifts in seen.values() for shift in shifts]
    for regime in load_life(name).regimes.values():
        change = merged(regime)
        assert change['mass'] < max(masses)
        assert np.all(wind.min(axis=0) < change['force'])
        assert np.all(wind.max(axis=0) > change['force'])
        for shift in regime:
            (kind, values), *_ = shift.items()
            assert kind + values.get('actuator', '') in seen and shift not in drawn


@every_robot
@pytest.mark.parametrize(
    'shift',
    [{'payload': {'mass': 0.2}}, {'delay': {'steps': 2}}, {'sensor_noise': {'factor': 3.0}}],
    ids=str,
)
def test_noise_streams_stay_aligned_whatever_the_shifts(name, shift):
    """Runs with one seed differ by their shifts, not by their luck, also after a crash."""
    plain, shifted, spec = make(name), make(name), load_robot(name)
    factor = shift.get('sensor_noise', {}).get('factor', 1.0)
    readings = [
        (plain.reset(seed=4), shifted.reset(seed=4, options={'shifts': [shift_from_dict(shift)]}))
    ]
    actions = plain.sample_actions(np.random.default_rng(0), 60)
    readings += [(plain.step(action), shifted.step(action)) for action in actions]
    for one, two in readings:
        noise = [spec.wrap(run[0] - run[-1]['state']) for run in (one, two)]
        np.testing.assert_allclose(noise[1], factor * noise[0], atol=1e-12)


# ---------------------------------------------------------------------- on demand
LIVES = [
    *robot_names(),
    *(
        f'{folder.name}/{path.stem}'
        for folder in sorted((share_dir() / 'config' / 'lives').iterdir())
        if folder.name in ('outside', 'held_out')
        for path in sorted(folder.glob('*.yaml'))
    ),
]


@pytest.mark.skipif('LIFELONG_BAYES_SLOW' not in os.environ, reason='takes minutes')
@pytest.mark.parametrize('name', LIVES)
def test_every_shift_matters_and_can_be_mastered(name):
    """Oracle ≥ frozen + 0.1 in every shifted phase, and ≥ 0.8 everywhere on the diffdrive."""
    from lifelong_bayes_ros.experiments.lives import run_baselines

    life = load_life(name)
    spec, seeds = load_robot(life.robot), (100, 101)
    scores = {'frozen': [], 'oracle': []}
    for seed in seeds:
        for who, trace in run_baselines(spec, life, seed).items():
            parts = np.split(np.array(trace.score), life.boundaries[1:-1])
            scores[who].append([part.mean() for part in parts])
    frozen, oracle = (np.mean(scores[who], axis=0) for who in ('frozen', 'oracle'))
    print(f'\n{name}: regime frozen oracle')
    for (regime, _), f, o in zip(life.phases, frozen, oracle, strict=True):
        print(f'  {regime} {f:.2f} {o:.2f}')
        if life.regimes[regime]:
            assert o >= f + 0.1
        if name == 'diffdrive':
            assert o >= 0.8
