"""Messages of the display say what the shapes say."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('rclpy')

import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from std_msgs.msg import Header

from lifelong_bayes_ros.experiments.draw import shape_of
from lifelong_bayes_ros.nodes.bringup import claim_domain
from lifelong_bayes_ros.nodes.canvas import CLOUD, Canvas, memory_cloud
from lifelong_bayes_ros.nodes.uncertainty_viz import NO_VIEW, UncertaintyViz
from lifelong_bayes_ros.robot import mjcf, scene
from lifelong_bayes_ros.robot.spec import load_robot

QUAD = load_robot('quad')


def test_memory_lies_where_it_happened_coloured_by_its_sensitivity():
    states = np.zeros((2, 6), np.float32)
    states[:, :2] = [[1, 2], [-1, 0.5]]
    table = np.hstack([np.array([[0.5, 1.5, 0], [0.25, 2.0, 1]], np.float32), states])
    cloud = memory_cloud(QUAD, table, Header(frame_id='odom'))
    assert tuple(f.name for f in cloud.fields) == CLOUD
    assert (cloud.width, cloud.row_step) == (2, 2 * cloud.point_step)
    points = np.frombuffer(cloud.data.tobytes(), np.float32).reshape(-1, len(CLOUD))
    wanted = [[1, 0, 2, 0.75, 0.5, 1.5, 0], [-1, 0, 0.5, 0.5, 0.25, 2.0, 1]]
    np.testing.assert_allclose(points, wanted, rtol=1e-6)
    assert memory_cloud(QUAD, table[:0], Header()).width == 0


@pytest.mark.parametrize('kind', ['box', 'sphere', 'cylinder', 'lines', 'text'])
def test_a_marker_is_its_shape(kind):
    rotation = mjcf.turns(np.array([0.6, 0.8, 0.0]), 0.7)
    size = np.full(3, 0.3) if kind == 'text' else np.array([0.1, 0.2, 0.3])
    points = np.arange(12.0).reshape(4, 3) if kind == 'lines' else np.zeros((0, 3))
    text = 'AS BUILT' if kind == 'text' else ''
    shape = scene.Shape(
        'robot', kind, (0.1, 0.2, 0.3), size, 0.4, np.ones(3), rotation, points, text
    )
    canvas, header = Canvas(), Header(frame_id='odom')
    before = replace(shape, points=shape.points[:2] + 1, position=np.zeros(3), text='gone')
    canvas.markers([shape, before], header)
    marker = canvas.markers([before, shape], header).markers[1]
    assert (marker.id, marker.ns, marker.header.frame_id) == (1, 'robot', 'odom')
    assert marker.lifetime.sec == 1
    back = shape_of(marker)
    assert (back.ns, back.kind, back.text) == (shape.ns, shape.kind, shape.text)
    np.testing.assert_allclose(back.colour, shape.colour, atol=1e-6)
    np.testing.assert_allclose(back.position, shape.position)
    np.testing.assert_allclose(back.rotation, shape.rotation, atol=1e-9)
    np.testing.assert_allclose(back.points, shape.points)
    counted = 1 if kind == 'lines' else 3
    np.testing.assert_allclose(back.size[:counted], shape.size[:counted])


def test_a_robot_that_nobody_can_draw_starts_all_the_same(tmp_path):
    file = tmp_path / 'bare.yaml'
    file.write_text(QUAD.model_copy(update={'view': None}).dump())
    domain, lock = claim_domain()
    rclpy.init(args=['--ros-args', '-p', f'robot:={file}'], domain_id=domain)
    node = UncertaintyViz()
    try:
        for change in (node.trigger_configure, node.trigger_activate):
            assert change() == TransitionCallbackReturn.SUCCESS
        assert node.diagnose()[1] == NO_VIEW
        assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
        lock.close()
