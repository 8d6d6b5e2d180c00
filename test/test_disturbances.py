"""Disturbances that act where the actuators do, as part of the task family."""

from dataclasses import replace

import numpy as np
import pytest

import lifelong_bayes_ros_sim as sim
from lifelong_bayes_ros.dynamics.model import DELAYS
from lifelong_bayes_ros.learning.candidate import fit
from lifelong_bayes_ros.learning.disturbances import BENT, RIDGE, matched
from lifelong_bayes_ros.learning.pretrain import PretrainConfig, collect, pretrain
from lifelong_bayes_ros.learning.refine import Steps
from lifelong_bayes_ros.robot.spec import load_robot
from plants import random_dynamics

ARM = load_robot('arm')
SMALL = PretrainConfig(
    width=24, regimes=16, per_regime=400, nominal=2000, steps=600, family=12, hypotheses=0
)
SPRING = [{'joint_spring': {'joint': 'shoulder', 'stiffness': 25.0}}]


def test_the_covariance_is_that_of_heads_of_random_disturbances():
    dynamics, rng = random_dynamics('arm', width=8), np.random.default_rng(0)
    ds, da = dynamics.nominal.shape[0], len(ARM.action)
    data = collect(sim.make('arm'), rng, 200)
    u = data.u
    half = ARM.action_half_range
    inputs = (dynamics.trunk.encoder(data.x, u) - dynamics.trunk.mean) / dynamics.trunk.scale
    psi, values = inputs[:, :-da], inputs[:, : len(dynamics.trunk.encoder.values)]
    phi = dynamics.trunk.features(data.x, u)
    wide = np.vstack([phi, np.sqrt(RIDGE) * np.eye(phi.shape[1])])

    def push(command):
        """What a small change of every command does to y, by finite differences [n, ds]."""
        small = 1e-5
        there, back = (dynamics.trunk.features(data.x, u + s * command) for s in (small, -small))
        return (there - back) @ dynamics.nominal.T / (2 * small)

    heads = []
    for _ in range(2000):
        b = rng.standard_normal((da, psi.shape[1]))
        c = BENT * rng.standard_normal((da, values.shape[1]))
        y = push(half * (psi @ b.T + (values * np.abs(values)) @ c.T))
        wider = np.vstack([y, np.zeros((phi.shape[1], ds))])
        heads.append(np.linalg.lstsq(wide, wider, rcond=None)[0].T.ravel())
    sampled = 0.3**2 * np.cov(np.array(heads).T, bias=True)
    found = matched(dynamics, data, 0.3)
    assert np.allclose(found, found.T)
    assert np.linalg.norm(sampled - found) < 0.1 * np.linalg.norm(found)


@pytest.fixture(scope='module')
def priors():
    """Without and with them."""
    return [pretrain(sim.make('arm'), ARM, replace(SMALL, matched_sd=sd)) for sd in (0.0, 0.03)]


def test_a_spring_felt_in_one_place_is_known_in_another(priors):
    plant, rng = sim.make('arm'), np.random.default_rng(3)
    plant.set_shifts([sim.shift_from_dict(s) for s in SPRING])
    everywhere = collect(plant, rng, 4000)
    shoulder = everywhere.x[:, 0]

    def steps(where: np.ndarray) -> Steps:
        x, u, x_next = (a[where] for a in (everywhere.x, everywhere.u, everywhere.x_next))
        return Steps(x, u, np.repeat(u[:, None], DELAYS, axis=1), x_next)

    low, high = np.quantile(shoulder, (0.35, 0.65))
    felt = steps(np.flatnonzero((shoulder > low) & (shoulder < high))[:150])
    elsewhere = steps(np.flatnonzero((shoulder < low) | (shoulder > high)))
    errors = []
    for prior in priors:
        dynamics = prior.dynamics
        theta, _ = fit(dynamics, felt, dynamics.nominal_theta, prior.covariance, prior.noise)
        phi, columns = elsewhere.columns(dynamics)
        w, *rest = dynamics.split(theta)
        predicted = phi @ w.T + columns @ np.concatenate(rest)
        left = elsewhere.target(dynamics) - predicted
        errors.append(np.sqrt(np.mean(np.square(left) / prior.noise)))
    assert errors[1] < 0.7 * errors[0]


def test_the_nominal_model_is_the_same_with_and_without(priors):
    np.testing.assert_array_equal(*(p.dynamics.nominal for p in priors))
    np.testing.assert_array_equal(*(p.floor for p in priors))
    wider = priors[1].covariance - priors[0].covariance
    assert np.linalg.eigvalsh((wider + wider.T) / 2).min() > -1e-9
