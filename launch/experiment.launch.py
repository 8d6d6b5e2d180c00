"""One life of hidden shifts: `ros2 launch lifelong_bayes_ros experiment.launch.py out:=DIR`.

Recorded, in lockstep, as fast as all nodes keep up; ends with the life. Afterwards
`lifelong-bayes replay DIR` learns from it again. Takes the arguments of robot.launch.py.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

DEFAULTS = {
    'robot': ('quad', 'simulated robot by name, e.g. quad, arm, diffdrive or cartpole'),
    'schedule': (LaunchConfiguration('robot'), 'life: shipped name or file; that of the robot'),
    'life': (LaunchConfiguration('schedule'), 'the same'),
    'out': ('experiment', 'new folder of the bag'),
    'sim': ('true', 'start the simulated robot'),
    'realtime': ('false', 'follow the wall clock; false: as fast as all nodes keep up'),
    'shutdown_at_end': ('true', 'end with the life'),
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
