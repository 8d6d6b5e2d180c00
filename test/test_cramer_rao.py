"""The Cramér-Rao bound is what the best estimator attains, and a frozen one never is below it."""

import numpy as np
import pytest

import lifelong_bayes_ros_sim as sim
import plants
from lifelong_bayes_ros.dynamics.model import DELAYS
from lifelong_bayes_ros.experiments.cramer_rao import error_bound, sensitivity
from lifelong_bayes_ros.experiments.schedule import Life
from lifelong_bayes_ros.experiments.streams import HeldOut, transitions
from lifelong_bayes_ros.robot.spec import load_robot

STEPS, DRAWS = 25, 400
SHIFTS = {
    'quad': plants.LOSS,
    'cartpole': [{'quadratic_drag': {'coefficient': 0.1}}],
}


@pytest.mark.parametrize('robot', SHIFTS)
def test_the_best_estimate_of_the_strength_attains_it(robot, tiny_prior):
    """Least squares on a plant that is linear in its strength, many times over."""
    spec, shifts = load_robot(robot), SHIFTS[robot]
    life = Life(robot=robot, regimes={'S': shifts}, phases=[('S', STEPS)])
    scale = np.full(len(spec.state), 0.5)
    prior = type('Prior', (), {'dynamics': type('Dynamics', (), {'scale': scale})})
    bound = error_bound(spec, prior, life, seed=5)
    assert bound.shape == (STEPS + 1,) and np.isinf(bound[0])
    assert np.all(np.diff(bound[1:]) <= 0)

    def plant_of(factor):
        plant = sim.make(robot, spec=spec)
        ((kind, numbers),) = shifts[0].items()
        numbers = {k: factor * v if isinstance(v, float) else v for k, v in numbers.items()}
        plant.set_shifts([sim.shift_from_dict({kind: numbers})])
        return plant

    stream = transitions(spec, life, 5)
    seen = [t for t in (next(stream) for _ in range(2 * STEPS)) if t.usable][:STEPS]
    x, u = (np.array([getattr(t, k) for t in seen], dtype=float) for k in ('state', 'action'))
    past = np.repeat(u[:, None], DELAYS, axis=1)
    nominal, true = plant_of(1.0), plant_of(1.0)
    sd = np.sqrt(2) * nominal.noise_factor * nominal.sensor_noise
    # Normal equations of y = f(x, u; s), about s = 1, with fresh noise in every draw.
    slope = spec.wrap(plant_of(1.05).one_step(x, u, past) - plant_of(0.95).one_step(x, u, past))
    slope = slope / 0.1 / sd
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((DRAWS, *slope.shape))
    wrong = (noise * slope).sum(axis=(1, 2)) / np.square(slope).sum()
    test = HeldOut.of(spec, prior, shifts, 5, 0)
    errors = []
    for s in wrong[:4]:
        moved = plant_of(1.0 + s).one_step(test.x, test.u, test.past)
        miss = true.one_step(test.x, test.u, test.past) - moved
        errors.append(np.mean(np.square(spec.wrap(miss) / scale)))
    # The held-out error of one unit of strength, from draws, times the spread of all estimates.
    unit = np.sqrt(np.sum(errors) / np.sum(np.square(wrong[:4])))
    assert unit * wrong.std() == pytest.approx(bound[STEPS], rel=0.15)


def test_the_sensitivity_is_that_of_every_number_of_the_shift():
    spec, rng = load_robot('quad'), np.random.default_rng(1)
    plant = sim.make('quad', spec=spec)
    x, u = plant.sample_states(rng, 20), plant.sample_actions(rng, 20)
    past = np.repeat(u[:, None], DELAYS, axis=1)
    wind = [{'wind': {'force': [0.3, -0.2]}}]
    found = sensitivity(spec, wind, x, u, past)
    still = plant.one_step(x, u, past)
    plant.set_shifts([sim.shift_from_dict(wind[0])])
    np.testing.assert_allclose(
        found, spec.wrap(plant.one_step(x, u, past) - still), rtol=2e-2, atol=1e-5
    )
    assert np.abs(found).max() > 1e-4
