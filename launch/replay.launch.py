"""A recording in the place of a robot: `ros2 launch lifelong_bayes_ros replay.launch.py bag:=DIR`.

The learner learns from it live, and RViz shows it. Takes the arguments of robot.launch.py.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

DEFAULTS = {
    'robot': (
        '',
        'robot that was recorded: shipped name, or robot file; not set: as the bag tells',
    ),
    'bag': (None, 'folder of the recording'),  # must be given
    'speed': ('1.0', 'seconds of the recording played per second'),
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
