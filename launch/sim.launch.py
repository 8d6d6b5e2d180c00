"""A simulated robot with all nodes: `ros2 launch lifelong_bayes_ros sim.launch.py schedule:=quad`.

Takes the arguments of robot.launch.py.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

DEFAULTS = {
    'robot': ('quad', 'simulated robot by name, e.g. quad, arm, diffdrive or cartpole'),
    'schedule': ('', 'life of hidden shifts: shipped name or file; not set: none'),
    'life': (LaunchConfiguration('schedule'), 'the same'),
    'sim': ('true', 'start the simulated robot'),
    'realtime': ('true', 'follow the wall clock; false: as fast as all nodes keep up'),
    'viz': ('true', 'publish what RViz shows'),
}


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    robot = Path(__file__).with_name('robot.launch.py')
    arguments = [
        DeclareLaunchArgument(name, default_value=value, description=text)
        for name, (value, text) in DEFAULTS.items()
    ]
    include = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(robot)))
    return LaunchDescription([*arguments, include])
