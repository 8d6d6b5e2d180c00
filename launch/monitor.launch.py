"""RViz and PlotJuggler: `ros2 launch lifelong_bayes_ros monitor.launch.py robot:=my_robot.yaml`.

What is not installed is named and left out. Runs on any machine of the robot's ROS domain.
"""

import sys

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, LogInfo, OpaqueFunction
from launch.substitutions import LaunchConfiguration

from lifelong_bayes_ros.nodes.table import NAMESPACE, check_words, parse_common
from lifelong_bayes_ros.nodes.viewers import CLOCK, commands

ARGUMENTS = {
    'namespace': (NAMESPACE, 'namespace of the nodes to look at'),
    'robot': (
        '',
        'robot (shipped name or file) whose frame RViz takes; not set: that of the view',
    ),
    'frame': ('', 'the frame itself, where the robot file is on another machine'),
    'use_sim_time': ('false', 'true: time is what the clock says'),
    'clock': (CLOCK, 'topic of the time; NAMESPACE/clock of a simulated robot elsewhere'),
    'rviz': ('', 'other view of RViz (.rviz)'),
    'plotjuggler': ('', 'other layout of PlotJuggler (.xml)'),
}
OWN = ('robot', 'frame', 'rviz', 'plotjuggler', 'clock')  # the others are as for every node


def viewers(context: LaunchContext) -> list[ExecuteProcess | LogInfo]:
    """Those that are installed; a word about those that are not."""
    check_words(sys.argv, __file__, ARGUMENTS)
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    others = {name: given.pop(name) for name in OWN}
    return [
        ExecuteProcess(cmd=words, output='screen') if words else LogInfo(msg=remark)
        for words, remark in commands(parse_common(given), **others)
    ]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    arguments = [
        DeclareLaunchArgument(name, default_value=value, description=text)
        for name, (value, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=viewers)])
