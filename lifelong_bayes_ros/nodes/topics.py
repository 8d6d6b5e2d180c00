"""Every topic of the graph: name, type, quality of service and who publishes it.

Names are relative to the namespace of the nodes, but for those that ROS itself fixes.
"""

from __future__ import annotations

from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped, Twist
from nav_msgs.msg import Odometry, Path
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Imu, JointState, PointCloud2
from std_msgs.msg import (
    Bool,
    Float32MultiArray,
    Float64,
    Float64MultiArray,
    Int32,
    String,
    UInt8MultiArray,
)
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import MarkerArray

from ..robot.spec import RobotSpec
from . import qos
from .commands import COMMAND_TYPES


@dataclass(frozen=True)
class Topic:
    """A topic as its publisher offers it."""

    name: str
    type: type
    qos: QoSProfile
    node: str = ''  # who publishes it; empty: the robot, an operator or every node
    readers: tuple[str, ...] = ()  # nodes that must not miss a message


TRANSITION = Topic(
    'transition', Float32MultiArray, qos.STREAM, 'transition_streamer', ('learner',)
)
EPISODE = Topic('episode', String, qos.LATCHED, 'transition_streamer')
TRUNK = Topic('belief/trunk', UInt8MultiArray, qos.LATCHED, 'learner')
HEAD = Topic('belief/head', UInt8MultiArray, qos.LATCHED, 'learner')
MEMORY = Topic('belief/memory', Float32MultiArray, qos.LATCHED, 'learner')
LEARNER_STATE = Topic('learner_state', JointState, qos.STREAM, 'learner')
LEARNER_DISPLAY = Topic('learner_state/display', JointState, qos.TELEMETRY, 'learner')
EVENT = Topic('event', String, qos.EVENT, 'learner')
CHOICE = Topic('choice', Float32MultiArray, qos.STREAM, 'policy', ('learner',))
POLICY = Topic('belief/policy', UInt8MultiArray, qos.LATCHED, 'learner')
ACTION = Topic('action', JointState, qos.STREAM, 'policy', ('transition_streamer',))
UNCERTAINTY = Topic('uncertainty', JointState, qos.STREAM, 'policy')
UNCERTAINTY_DISPLAY = Topic('uncertainty/display', JointState, qos.TELEMETRY, 'policy')
PLAN = Topic('plan', Float32MultiArray, qos.COMMAND, 'policy')
PLAN_SPREAD = Topic('uncertainty/plan', Float32MultiArray, qos.COMMAND, 'policy')
ESTOP = Topic('policy/estop', Bool, qos.TELEMETRY)
REGIME = Topic('sim_robot/regime', String, qos.STREAM, 'sim_robot')
CLOCK = Topic('/clock', Clock, qos.TELEMETRY, 'sim_robot')
DIAGNOSTICS = Topic('/diagnostics', DiagnosticArray, qos.TELEMETRY)
MARKERS = Topic('markers', MarkerArray, qos.COMMAND, 'uncertainty_viz')
PREDICTED_PATH = Topic('predicted_path', Path, qos.COMMAND, 'uncertainty_viz')
PREDICTED_POSE = Topic('predicted_pose', PoseWithCovarianceStamped, qos.COMMAND, 'uncertainty_viz')
MEMORY_MAP = Topic('memory_map', PointCloud2, qos.LATCHED, 'uncertainty_viz')


def type_name(topic: Topic) -> str:
    """ROS name of the type of a topic, e.g. std_msgs/msg/String."""
    package = topic.type.__module__.split('.')[0]
    return f'{package}/msg/{topic.type.__name__}'


PLAN_AXES = ('member', 'step', 'channel')
SPREAD_AXES = ('kind', 'step', 'channel')  # kinds: mean, epistemic and aleatoric sd
MEMORY_AXES = ('sample', 'column')

FIXED = tuple(topic for topic in vars().copy().values() if isinstance(topic, Topic))
"""Topics that every robot has."""

STATE_TYPES = {
    'sensor_msgs/msg/JointState': JointState,
    'nav_msgs/msg/Odometry': Odometry,
    'sensor_msgs/msg/Imu': Imu,
    'std_msgs/msg/Float64MultiArray': Float64MultiArray,
    'geometry_msgs/msg/PoseStamped': PoseStamped,
}
STATE_READERS = ('policy', 'transition_streamer')
GOAL_TYPES = {
    'trajectory_msgs/msg/JointTrajectory': JointTrajectory,
    'nav_msgs/msg/Path': Path,
    'geometry_msgs/msg/PoseStamped': PoseStamped,
    'geometry_msgs/msg/Twist': Twist,
}
OUTCOME_TYPES = {
    'std_msgs/msg/Bool': Bool,
    'std_msgs/msg/Int32': Int32,
    'std_msgs/msg/String': String,
    'std_msgs/msg/Float64': Float64,
    'sensor_msgs/msg/JointState': JointState,
}


def state_topics(spec: RobotSpec) -> dict[str, Topic]:
    """Topic of each source of the robot file, as a simulated robot publishes it."""
    return {
        name: Topic(source.topic, STATE_TYPES[source.type], qos.STATE_OUT, '', STATE_READERS)
        for name, source in spec.sources.items()
    }


def outcome_topics(spec: RobotSpec) -> dict[str, Topic]:
    """Topic of each outcome of the robot file, as a simulated robot publishes it."""
    return {
        name: Topic(o.topic, OUTCOME_TYPES[o.type], qos.STATE_OUT, '', ('transition_streamer',))
        for name, o in spec.outcomes.items()
    }


def command_topic(spec: RobotSpec) -> Topic:
    """The topic that the robot takes commands on."""
    return Topic(spec.command.topic, COMMAND_TYPES[spec.command.type], qos.COMMAND, 'policy')


def goal_topic(spec: RobotSpec) -> Topic | None:
    """The topic that an operator sends goals on, if the robot takes any."""
    if spec.goal_input is None:
        return None
    return Topic(spec.goal_input.topic, GOAL_TYPES[spec.goal_input.type], qos.TELEMETRY)
