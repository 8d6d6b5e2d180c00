"""All nodes beside a robot: `ros2 launch lifelong_bayes_ros robot.launch.py robot:=my_robot.yaml`.

Everything that is not given keeps the default of the node. `params_file` is read last but loses to
what is given here, so write its parameters under `/**:`.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from lifelong_bayes_ros.nodes.table import NAMESPACE, PACKAGE, SETTINGS, parse_settings, starts

OWN = {
    'params_file': 'YAML file of parameters; write them under `/**:`',
    'namespace': f'namespace of all nodes (default {NAMESPACE})',
    'log_level': 'debug, info, warn, error or fatal',
    'respawn': 'true: start a node again that died',
}


def nodes(context: LaunchContext) -> list[LifecycleNode]:
    """The nodes of the table that these arguments ask for."""
    given = {name: LaunchConfiguration(name).perform(context) for name in OWN}
    texts = {s.name: LaunchConfiguration(s.name).perform(context) for s in SETTINGS}
    files = [given['params_file']] if given['params_file'] else []
    return [
        LifecycleNode(
            package=PACKAGE,
            executable=start.node.executable,
            name=start.node.name,
            namespace=given['namespace'] or NAMESPACE,
            parameters=[*files, {'autostart': True, **start.parameters}],
            ros_arguments=['--log-level', given['log_level'] or 'info'],
            respawn=given['respawn'] == 'true',
            respawn_delay=1.0,
            output='screen',
        )
        for start in starts(parse_settings(texts))
    ]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    described = {s.name: s.description for s in SETTINGS} | OWN
    arguments = [
        DeclareLaunchArgument(name, default_value='', description=text)
        for name, text in described.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=nodes)])
