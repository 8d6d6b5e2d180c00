"""A robot is drawn where MuJoCo puts it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.robot import mjcf
from source_tree import ROOT

mujoco = pytest.importorskip('mujoco')

SHIPPED = sorted((ROOT / 'sim').glob('*.xml'))
HARD = """
<mujoco><compiler angle="radian" eulerseq="zyx"/>
  <default>
    <geom type="box" size=".1 .2 .3"/>
    <default class="thin"><geom type="capsule" size=".02"/>
      <joint axis="0 1 0" type="slide"/></default>
  </default>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 1"/>
    <geom name="fixed" pos="1 2 3" euler=".1 .2 .3"/>
    <body name="a" pos=".1 .2 .3" quat=".5 .5 -.5 .5">
      <joint name="h" axis="1 2 3" pos=".1 0 .2" ref=".4"/><joint name="h2" axis="0 0 1"/>
      <geom name="g" zaxis="1 1 0"/>
      <geom name="e" type="ellipsoid" axisangle="1 0 1 .7" pos="0 .1 0"/>
      <body name="b" pos="0 0 1" xyaxes="1 1 0 0 1 1" childclass="thin">
        <joint name="s"/>
        <geom name="c" fromto="0 0 0 .3 .1 -.2"/>
        <geom name="d" type="cylinder" fromto="0 0 0 0 0 -1"/>
        <site name="tip" pos="1 0 0" euler="0 .5 0"/>
        <body name="leaf"><joint name="s2" class="main" axis="0 0 1" type="hinge"/>
          <geom name="ball" class="main" type="sphere" size=".4" pos=".1 .1 .1"/></body>
      </body>
    </body>
  </worldbody>
</mujoco>
"""


def agrees(text: str, seed: int) -> None:
    ours, theirs = mjcf.parse_model(text), mujoco.MjModel.from_xml_string(text)
    data = mujoco.MjData(theirs)
    rng = np.random.default_rng(seed)
    data.qpos[:] = rng.uniform(-2, 2, theirs.nq)
    mujoco.mj_kinematics(theirs, data)
    names = [theirs.joint(i).name for i in range(theirs.njnt)]
    assert ours.joints == names
    poses = ours.poses(dict(zip(names, data.qpos, strict=True)))
    drawn = [i for i in range(theirs.ngeom) if theirs.geom(i).type != mujoco.mjtGeom.mjGEOM_PLANE]
    assert len(drawn) == len(ours.shapes)
    for i, shape in zip(drawn, ours.shapes, strict=True):
        position, rotation = ours.placed(shape, poses)
        np.testing.assert_allclose(position, data.geom_xpos[i], atol=1e-9)
        if shape.kind in ('cylinder', 'capsule'):  # round: only their axis is seen
            np.testing.assert_allclose(
                rotation[:, 2], data.geom_xmat[i].reshape(3, 3)[:, 2], atol=1e-9
            )
            np.testing.assert_allclose(shape.size[[0, 2]] / 2, theirs.geom_size[i, :2], atol=1e-9)
        else:
            np.testing.assert_allclose(rotation, data.geom_xmat[i].reshape(3, 3), atol=1e-9)
            sizes = theirs.geom_size[i] if shape.kind != 'sphere' else theirs.geom_size[i, :1]
            np.testing.assert_allclose(shape.size[: len(sizes)] / 2, sizes, atol=1e-9)
        np.testing.assert_allclose(shape.colour, theirs.geom_rgba[i], atol=1e-6)
    for i, site in enumerate(ours.sites):
        np.testing.assert_allclose(ours.placed(site, poses)[0], data.site_xpos[i], atol=1e-9)


@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: path.stem)
@pytest.mark.parametrize('seed', [0, 1])
def test_shipped_robots_are_where_mujoco_puts_them(path, seed):
    agrees(path.read_text(), seed)


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_so_is_one_with_everything(seed):
    agrees(HARD, seed)


def test_many_states_at_once_equal_one_after_another():
    model = mjcf.parse_model(HARD)
    angles = np.random.default_rng(0).uniform(-2, 2, (4, 3, 2))
    together = model.poses({'h': angles[..., 0], 's': angles[..., 1]})
    alone = model.poses({'h': angles[2, 1, 0], 's': angles[2, 1, 1]})
    for (many_p, many_r), (p, r) in zip(together, alone, strict=True):
        np.testing.assert_allclose(many_p[2, 1], p, atol=1e-12)
        np.testing.assert_allclose(many_r[2, 1], r, atol=1e-12)


@given(arrays(float, 4, elements=st.floats(-1, 1)).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_a_quaternion_and_its_rotation_are_one(q):
    rotation = mjcf.of_quaternion(q)
    np.testing.assert_allclose(
        mjcf.of_quaternion(np.array(mjcf.quaternion(rotation))), rotation, atol=1e-9
    )


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('<mujoco>', 'not valid XML'),
        ('<robot/>', 'begins with <mujoco>'),
        ('<mujoco><worldbody><geom class="x"/></worldbody></mujoco>', "unknown default class 'x'"),
        ('<mujoco><worldbody><geom pos="a"/></worldbody></mujoco>', 'could not convert'),
        ('<mujoco><worldbody><body><joint type="ball"/></body></worldbody></mujoco>', 'type ball'),
    ],
)
def test_a_bad_model_is_refused_with_a_reason(text, reason):
    with pytest.raises(UserError, match=reason):
        mjcf.parse_model(text)


def test_a_model_is_found_without_importing_the_simulators(tmp_path, monkeypatch):
    assert mjcf.find_model('quad.xml').name == 'quad.xml'
    own = tmp_path / 'mine.xml'
    own.write_text('<mujoco/>')
    assert mjcf.find_model(str(own)) == Path(own)
    with pytest.raises(UserError, match=r'nobody\.xml: no such file'):
        mjcf.find_model('nobody.xml')
