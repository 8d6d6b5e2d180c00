"""The Cramér-Rao bound of a stream, against the information of all readings at once."""

import numpy as np
import pytest

import lifelong_bayes_ros_sim as sim
import plants
from lifelong_bayes_ros.dynamics.model import DELAYS
from lifelong_bayes_ros.experiments.cramer_rao import (
    error_bound,
    sensitivity,
    slopes,
    strength_variance,
)
from lifelong_bayes_ros.experiments.schedule import Life
from lifelong_bayes_ros.experiments.streams import HeldOut, transitions
from lifelong_bayes_ros.robot.spec import load_robot

STEPS = 12


def test_the_filter_holds_what_all_readings_of_all_runs_know():
    """Generalised least squares over the strength and the first state of every run."""
    rng, ds, n = np.random.default_rng(0), 3, 14
    f = 0.9 * np.eye(ds) + 0.2 * rng.standard_normal((n, ds, ds))
    j = rng.standard_normal((n, ds))
    noise = rng.uniform(0.5, 2.0, ds)
    begins = np.zeros(n, bool)
    begins[[0, 5, 6]] = True
    found = strength_variance(f, j, begins, noise)
    for k in range(1, n + 1):
        runs = int(begins[:k].sum())
        rows, run = [], -1  # of d reading / d (first states, strength), in deviations of the noise
        for i in range(k):
            if begins[i]:
                run += 1
                row = np.zeros((ds, runs * ds + 1))
                row[:, run * ds : (run + 1) * ds] = np.eye(ds)
                rows.append(row)
            row = f[i] @ row
            row[:, -1] += j[i]
            rows.append(row)
        stacked = np.concatenate(rows) / np.tile(np.sqrt(noise), len(rows))[:, None]
        variance = np.linalg.inv(stacked.T @ stacked)[-1, -1]
        assert found[k - 1] == pytest.approx(variance, rel=1e-5)


@pytest.mark.parametrize(
    ('robot', 'shifts'),
    [('quad', plants.LOSS), ('cartpole', [{'quadratic_drag': {'coefficient': 0.1}}])],
)
def test_the_bound_is_that_of_the_simulated_readings(robot, shifts):
    """Of whole runs of the simulator from moved starts and under shifts of other strengths."""
    spec = load_robot(robot)
    life = Life(robot=robot, regimes={'S': shifts}, phases=[('S', STEPS)])
    scale = np.full(len(spec.state), 0.5)
    prior = type('Prior', (), {'dynamics': type('Dynamics', (), {'scale': scale})})
    bound = error_bound(spec, prior, life, seed=5)
    assert bound.shape == (STEPS + 1,) and np.isinf(bound[0])
    assert np.all(np.diff(bound[1:]) <= 0)

    def run(x, strength):
        ((kind, numbers),) = shifts[0].items()
        numbers = {k: strength * v if isinstance(v, float) else v for k, v in numbers.items()}
        plant = sim.make(robot, spec=spec)
        plant.set_shifts([sim.shift_from_dict({kind: numbers})])
        states = [x]
        for u in commands:
            past = np.repeat(u[None, None], DELAYS, axis=1)
            states.append(plant.one_step(states[-1][None], u[None], past)[0])
        return np.stack(states)

    stream = transitions(spec, life, 5)
    seen = [t for t in (next(stream) for _ in range(2 * STEPS)) if t.usable][:STEPS]
    commands, x = [t.action.astype(float) for t in seen], seen[0].state.astype(float)
    plant = sim.make(robot, spec=spec)
    sd = plant.noise_factor * plant.sensor_noise
    columns = [spec.wrap(run(x, 1.001) - run(x, 0.999)) / 0.002]
    for channel, size in enumerate(0.1 * sd):
        nudge = np.zeros(len(x))
        nudge[channel] = size
        columns.append(spec.wrap(run(x + nudge, 1.0) - run(x - nudge, 1.0)) / (2 * size))
    slope = np.stack(columns, axis=-1) / sd[:, None]  # [readings, ds, 1 + ds]
    slope = slope.reshape(-1, slope.shape[-1])
    variance = np.linalg.inv(slope.T @ slope)[0, 0]
    test = HeldOut.of(spec, prior, shifts, 5, 0)
    asked = sensitivity(spec, shifts, test.x, test.u, test.past) / scale
    expected = np.sqrt(np.mean(asked**2) * variance)
    # About the states that were read, not the true ones.
    assert bound[STEPS] == pytest.approx(expected, rel=0.15)


def test_slopes_and_sensitivities_are_those_of_larger_steps():
    spec, rng = load_robot('quad'), np.random.default_rng(1)
    plant = sim.make('quad', spec=spec)
    x, u = plant.sample_states(rng, 20), plant.sample_actions(rng, 20)
    past = np.repeat(u[:, None], DELAYS, axis=1)
    still = plant.one_step(x, u, past)
    moved = rng.standard_normal(x.shape) * 1e-4
    np.testing.assert_allclose(
        np.einsum('nij,nj->ni', slopes(plant, x, u, past), moved),
        spec.wrap(plant.one_step(x + moved, u, past) - still),
        rtol=1e-2,
        atol=1e-7,
    )
    wind = [{'wind': {'force': [0.3, -0.2]}}]
    found = sensitivity(spec, wind, x, u, past)
    plant.set_shifts([sim.shift_from_dict(wind[0])])
    np.testing.assert_allclose(
        found, spec.wrap(plant.one_step(x, u, past) - still), rtol=2e-2, atol=1e-5
    )
    assert np.abs(found).max() > 1e-4
