"""Packaging for pip and for colcon (ament_python)."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = 'lifelong_bayes_ros'
SIM = 'lifelong_bayes_ros_sim'
NODES = (
    'sim_robot',
    'transition_streamer',
    'learner',
    'policy',
    'uncertainty_viz',
    'recorder',
    'player',
)

# The pip wheels of ROS 2 Jazzy. A distribution's parts only fit each other, and an unpinned rclpy
# is a later distribution's. On a robot, apt's ROS takes this extra's place.
ROS_WHEELS = ['ros-rclpy[fastrtps]==7.1.6'] + [
    f'ros-{messages}==5.3.6'
    for messages in (
        'std-msgs',
        'sensor-msgs',
        'geometry-msgs',
        'nav-msgs',
        'trajectory-msgs',
        'visualization-msgs',
        'diagnostic-msgs',
        'std-srvs',
    )
]


def shared(*patterns: str) -> list[tuple[str, list[str]]]:
    """The files that match, each under share/<package> in the folder it has in the source tree."""
    folders: dict[str, list[str]] = {}
    for path in sorted(path for pattern in patterns for path in Path().glob(pattern)):
        folders.setdefault(f'share/{NAME}/{path.parent.as_posix()}', []).append(path.as_posix())
    return list(folders.items())


setup(
    name=NAME,
    version='0.1.0',
    description='Lifelong Bayesian adaptation for ROS 2 robots',
    author='lifelong_bayes_ros maintainers',
    author_email='maintainers@lifelong-bayes-ros.example',
    license='Apache-2.0',
    python_requires='>=3.10',
    # sim/ is imported as lifelong_bayes_ros_sim, so that nothing as general as `sim` is installed.
    package_dir={SIM: 'sim'},
    packages=[
        *find_packages(include=[NAME, f'{NAME}.*']),
        SIM,
        *(f'{SIM}.{package}' for package in find_packages('sim')),
    ],
    package_data={NAME: ['*/*.c'], SIM: ['*.xml', '*/*.xml']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        *shared('launch/*.launch.py', 'config/**/*.yaml', 'config/**/*.rviz', 'config/**/*.xml'),
    ],
    zip_safe=False,
    install_requires=[
        'torch>=2.3,<3',
        'numpy>=1.22,<3',
        'safetensors>=0.4',
        'PyYAML>=5.4',
        'pydantic>=2,<3',
        'rich>=13',
        'matplotlib>=3.5',
        'rosbags>=0.11',
    ],
    extras_require={
        'ros': ROS_WHEELS,
        'sim': ['mujoco>=3.3,<5', 'gymnasium>=1,<2'],
        'ray': ['ray>=2.9,<3'],
        'test': [
            'pytest>=7',
            'pytest-xdist>=3',
            'hypothesis>=6',
            'ruff>=0.17',
            'ivon-opt>=0.1.3',
            'scikit-learn>=1.3',
            'ray>=2.9,<3',
            'catkin_pkg>=1',
            'packaging',
            # From 80 on, `colcon build --symlink-install` fails.
            'setuptools<80',
            'wheel',
        ],
    },
    entry_points={
        'console_scripts': [
            f'lifelong-bayes = {NAME}.__main__:main',
            *(f'{node} = {NAME}.nodes.{node}:main' for node in NODES),
        ]
    },
)
