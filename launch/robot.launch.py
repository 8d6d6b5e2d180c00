"""All nodes beside a robot: `ros2 launch lifelong_bayes_ros robot.launch.py robot:=my_robot.yaml`.

Everything that is not given keeps the default of the node. `params_file` is read last but loses to
what is given here, so write its parameters under `/**:`. On two machines: `nodes:=learner` on the
one, `nodes:=-learner` on the other.
"""

import sys

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from lifelong_bayes_ros.nodes import table
from lifelong_bayes_ros.nodes.table import COMMON, SETTINGS

# Once all is being shut down, doing it again is an error.
END = [OpaqueFunction(function=lambda context: None if context.is_shutdown else [Shutdown()])]


def nodes(context: LaunchContext) -> list[LifecycleNode]:
    """The nodes of the table that these arguments ask for."""
    table.check_words(sys.argv, __file__)
    given = {s.name: LaunchConfiguration(s.name).perform(context) for s in (*SETTINGS, *COMMON)}
    settings = table.parse_settings({s.name: given[s.name] for s in SETTINGS})
    common = table.parse_common({s.name: given[s.name] for s in COMMON})
    files = [common.params_file] if common.params_file else []
    return [
        LifecycleNode(
            package=table.PACKAGE,
            executable=start.node.executable,
            name=start.node.name,
            namespace=common.namespace,
            parameters=[*files, typed(common.parameters | start.parameters)],
            remappings=table.remappings(common.namespace, settings),
            ros_arguments=['--log-level', common.log_level],
            respawn=common.respawn and start.node.again,
            respawn_delay=1.0,
            on_exit=END if start.parameters.get('shutdown_at_end') else None,
            output='screen',
        )
        for start in table.starts(settings, common.nodes)
    ]


def typed(values: dict) -> dict:
    """As they are; `launch` would take a text that looks like a number for one."""
    return {name: ParameterValue(value, value_type=type(value)) for name, value in values.items()}


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    arguments = [
        DeclareLaunchArgument(s.name, default_value='', description=s.description)
        for s in (*SETTINGS, *COMMON)
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=nodes)])
