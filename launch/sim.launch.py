"""A simulated robot with all nodes: `ros2 launch lifelong_bayes_ros sim.launch.py life:=quad`.

Takes the arguments of robot.launch.py.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

DEFAULTS = {
    'robot': ('quad', 'simulated robot: quad, arm, diffdrive or cartpole'),
    'sim': ('true', 'start the simulated robot'),
    'realtime': ('true', 'follow the wall clock; false: as fast as all nodes keep up'),
    'viz': ('true', 'publish what RViz shows'),
}


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    robot = Path(__file__).with_name('robot.launch.py')
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=value, description=text)
                for name, (value, text) in DEFAULTS.items()
            ),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(robot))),
        ]
    )
