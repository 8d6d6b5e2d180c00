"""What a display shows of a robot, and what it says in one line."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.robot import scene, view
from lifelong_bayes_ros.robot.spec import load_robot, robot_names

SHOWN = [name for name in robot_names() if load_robot(name).view is not None]
QUAD, ARM, VEHICLE, BASE = (load_robot(name) for name in ('quad', 'arm', 'diffdrive', 'base'))
FIGURES = {'regime.nominal': 0.9, 'regime.new': 0.1, 'surprise.fast': 1.2}


def with_view(spec, **change):
    return spec.model_copy(update={'view': spec.view.model_copy(update=change)})


@pytest.mark.parametrize('name', SHOWN)
def test_every_shipped_robot_can_be_drawn(name):
    spec = load_robot(name)
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, len(spec.state))
    members = x + 0.1 * rng.standard_normal((16, 12, len(x)))
    spread = np.stack([members.mean(axis=0), *np.full((2, 12, len(x)), 0.05)])
    futures = scene.place(spec, members)
    shapes = scene.scene(spec, x, FIGURES, futures, spread)
    (fan,) = [shape for shape in shapes if shape.ns == 'futures']
    legs = fan.points.reshape(scene.FUTURES, -1, 2, 3)
    assert legs.shape[1] == scene.LEGS
    np.testing.assert_array_equal(legs[:, 0, 0], futures[: scene.FUTURES, 0])
    np.testing.assert_array_equal(legs[:, -1, 1], futures[: scene.FUTURES, -1])
    np.testing.assert_array_equal(legs[:, 1:, 0], legs[:, :-1, 1])
    kinds = {shape.ns for shape in shapes}
    assert kinds >= {'robot', 'futures', 'noise', 'ignorance', 'headline', 'mode'}
    for shape in shapes:
        assert shape.kind in scene.KINDS
        assert np.isfinite(shape.points).all() and np.isfinite(shape.position).all()
        assert (shape.size > 0).all()
        np.testing.assert_allclose(shape.rotation @ shape.rotation.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(shape.rotation) == pytest.approx(1)


@pytest.mark.parametrize('spec', [ARM, QUAD, VEHICLE, BASE], ids=lambda spec: spec.name)
def test_the_model_and_the_lines_of_a_robot_agree_on_where_it_is(spec):
    states = np.random.default_rng(1).uniform(-1, 1, (5, 3, len(spec.state)))
    lines = view.in_space(spec, view.position(spec, states))
    np.testing.assert_allclose(scene.place(spec, states), lines, atol=1e-9)


@pytest.mark.parametrize('name', SHOWN)
def test_every_shipped_robot_is_drawn_where_its_simulator_has_it(name):
    mujoco = pytest.importorskip('mujoco')
    import lifelong_bayes_ros_sim as sim

    spec, robot = load_robot(name), sim.make(name)
    data = mujoco.MjData(robot.model)
    for x in np.random.default_rng(2).uniform(-1, 1, (5, len(spec.state))):
        data.qpos[:], _ = robot.motion(x)
        mujoco.mj_kinematics(robot.model, data)
        drawn = np.array([s.position for s in scene.body(spec, x) if len(s.points) == 0])
        for at in data.geom_xpos[robot.model.geom_bodyid > 0]:
            assert np.abs(drawn - at).max(axis=1).min() < 1e-9
        if mujoco.mj_name2id(robot.model, mujoco.mjtObj.mjOBJ_SITE, 'tip') >= 0:
            np.testing.assert_allclose(scene.place(spec, x), data.site('tip').xpos, atol=1e-9)


def test_the_body_moves_with_the_state():
    x = np.array([1.0, 2.0, 0.3, 0, 0, 0])
    (frame,) = scene.body(QUAD, x)
    np.testing.assert_allclose(frame.position, [1, 0, 2])
    assert frame.rotation[2, 0] == pytest.approx(-np.sin(0.3))  # +x side down
    (bar,) = scene.body(with_view(QUAD, model=None), x)
    assert bar.kind == 'lines' and len(bar.points) == 4


@given(arrays(float, (3, 3), elements=st.floats(-2, 2)))
def test_an_ellipsoid_has_the_extent_of_its_covariance(root):
    covariance = root @ root.T
    size, rotation = scene.axes(covariance)
    half = rotation * (size / 2)
    found = half @ half.T / scene.SIGMAS**2
    floor = (scene.THIN / 2 / scene.SIGMAS) ** 2
    np.testing.assert_allclose(found, covariance, atol=1.001 * floor + 1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_the_spread_of_a_point_follows_the_geometry():
    # A straight arm of 0.9 m that turns only at its shoulder moves across itself.
    sd = np.array([0.1, 0.0, 5.0, 5.0])
    covariance = scene.spread_at(ARM, np.zeros(4), sd)
    np.testing.assert_allclose(covariance, np.diag([0, 0, 0.09**2]), atol=1e-8)
    covariance = scene.spread_at(QUAD, np.zeros(6), np.array([0.1, 0.2, 9, 9, 9, 9]))
    np.testing.assert_allclose(covariance, np.diag([0.01, 0, 0.04]), atol=1e-8)


def test_noise_lies_within_noise_and_ignorance():
    rng = np.random.default_rng(0)
    mean = rng.uniform(-1, 1, (12, 6))
    members = mean + 0.2 * rng.standard_normal((16, 12, 6))
    spread = np.stack([mean, np.full((12, 6), 9.0), np.full((12, 6), 0.1)])
    shapes = scene.tube(QUAD, scene.place(QUAD, members), spread)
    assert len(shapes) == 2 * scene.TUBE
    for noise, both in zip(shapes[::2], shapes[1::2], strict=True):
        assert (noise.ns, both.ns) == ('noise', 'ignorance')
        assert noise.colour != both.colour
        assert (np.sort(both.size)[1:] > np.sort(noise.size)[1:]).all()
    # Nothing is not known: both are the same.
    sure = scene.tube(QUAD, scene.place(QUAD, np.broadcast_to(mean, members.shape)), spread)
    np.testing.assert_allclose(sure[0].size, sure[1].size)


@pytest.mark.parametrize(
    ('change', 'says', 'colour'),
    [
        ({}, 'AS BUILT', scene.WELL),
        ({'changed.payload': 0.93}, 'CHANGED: payload 93%', scene.CHANGED),
        ({'changed.payload': 0.4}, 'AS BUILT', scene.WELL),
        ({'regime.new': 0.9, 'regime.nominal': 0.1}, 'SOMETHING NEW', scene.CHANGED),
        ({'regime.r1': 0.95, 'regime.nominal': 0.05}, 'REMEMBERED: r1', scene.CHANGED),
        ({'guarded': 1.0}, 'MODEL NOT TRUSTED', scene.BAD),
        ({'nominal': 1.0, 'changed.wind': 1.0}, 'MODEL NOT TRUSTED', scene.BAD),
    ],
)
def test_the_headline_says_what_has_changed(change, says, colour):
    assert scene.headline(FIGURES | change) == (says, colour)


def test_no_belief_is_said_so():
    assert scene.headline({'nis': 1.0})[0] == 'NO BELIEF YET'


def test_words_lie_above_the_robot_one_below_the_other():
    words = scene.words(FIGURES, np.array([1.0, 2.0, 3.0]), 0.1)
    heights = [shape.position[2] for shape in words]
    assert heights == sorted(heights, reverse=True)
    assert min(heights) >= 3.0


def test_what_cannot_be_drawn_is_refused_with_a_reason():
    bare = QUAD.model_copy(update={'view': None})
    with pytest.raises(UserError, match='has no `view:`'):
        scene.scene(bare, np.zeros(6), {})
    with pytest.raises(UserError, match="no site 'nose'; it has"):
        scene.place(with_view(QUAD, tip='nose'), np.zeros(6))
    with pytest.raises(UserError, match=r'view\.model: gone\.xml'):
        scene.body(with_view(QUAD, model='gone.xml'), np.zeros(6))
