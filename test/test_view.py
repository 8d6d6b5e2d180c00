"""How states look in the x-z plane."""

import numpy as np
import pytest

from lifelong_bayes_ros.robot import view
from lifelong_bayes_ros.robot.spec import load_robot

QUAD, ARM = load_robot('quad'), load_robot('arm')
CART, VEHICLE = load_robot('cartpole'), load_robot('diffdrive')


def test_a_body_is_a_bar_across_its_position_and_noses_down_with_pitch():
    states = np.zeros((2, 6))
    states[:, :2] = [1.0, 2.0]
    states[1, 2] = np.pi / 2
    level, down = view.joints(QUAD, states)
    size = QUAD.view.size
    np.testing.assert_allclose(level, [[1 - size, 2], [1, 2], [1 + size, 2]], atol=1e-12)
    np.testing.assert_allclose(down, [[1, 2 + size], [1, 2], [1, 2 - size]], atol=1e-12)
    np.testing.assert_allclose(view.position(QUAD, states), [[1, 2], [1, 2]])


@pytest.mark.parametrize(
    ('angles', 'tip'),
    [((0, 0), (0.9, 0)), ((np.pi / 2, 0), (0, 0.9)), ((np.pi / 2, -np.pi / 2), (0.4, 0.5))],
)
def test_the_angles_of_a_chain_add_up_from_plus_x_upwards(angles, tip):
    state = np.array([*angles, 0.0, 0.0])
    points = view.joints(ARM, state)
    np.testing.assert_allclose(points[0], [0, 0])
    np.testing.assert_allclose(points[-1], tip, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(np.diff(points, axis=0), axis=1), [0.5, 0.4])


def test_a_vehicle_is_a_bar_along_its_heading_seen_from_above():
    state = np.array([1.0, 2.0, np.pi / 2, 0.0, 0.0, 0.0])
    size = VEHICLE.view.size
    rear, centre, nose = view.joints(VEHICLE, state)
    np.testing.assert_allclose([rear, centre, nose], [[1, 2 - size], [1, 2], [1, 2 + size]])
    np.testing.assert_allclose(view.position(VEHICLE, state), [1, 2])


@pytest.mark.parametrize(
    ('angle', 'tip'), [(0.0, (0.3, 1)), (np.pi, (0.3, -1)), (np.pi / 2, (1.3, 0))]
)
def test_an_upright_chain_stands_on_its_cart_and_leans_towards_plus_x(angle, tip):
    points = view.joints(CART, np.array([0.3, angle, 0.0, 0.0]))
    np.testing.assert_allclose(points, [[0.3, 0], tip], atol=1e-12)


def test_shapes_follow_those_of_the_states():
    assert view.joints(CART, np.zeros((16, 30, 4))).shape == (16, 30, 2, 2)
    assert view.joints(VEHICLE, np.zeros((16, 20, 6))).shape == (16, 20, 3, 2)
    assert view.joints(ARM, np.zeros((16, 12, 4))).shape == (16, 12, 3, 2)
    assert view.position(QUAD, np.zeros((16, 20, 6))).shape == (16, 20, 2)


def test_moments_are_those_of_numpy():
    points = np.random.default_rng(0).standard_normal((50, 7, 2))
    mean, covariance = view.moments(points)
    assert mean.shape == (7, 2)
    np.testing.assert_allclose(covariance[3], np.cov(points[:, 3].T), rtol=1e-12)
    assert np.all(view.moments(points[:1])[1] == 0)


@pytest.mark.parametrize('angle', [-1.2, 0.0, 0.3, 1.5])
def test_an_ellipse_has_the_axes_of_its_covariance(angle):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    sd, found = view.ellipse(turn @ np.diag([4.0, 0.25]) @ turn.T)
    np.testing.assert_allclose(sd, [2.0, 0.5])
    assert np.sin(found - angle) == pytest.approx(0, abs=1e-9)


def test_a_degenerate_covariance_has_no_extent():
    sd, _ = view.ellipse(np.array([[1.0, 1.0], [1.0, 1.0]]))
    np.testing.assert_allclose(sd, [np.sqrt(2), 0], atol=1e-7)
