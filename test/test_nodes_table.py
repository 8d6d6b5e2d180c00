"""The node table and what is made from it: parameters, processes, launch files."""

import ast
import importlib
import json

import pytest

pytest.importorskip('rclpy')

from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.nodes import topics
from lifelong_bayes_ros.nodes.base import AUTOSTART, ROBOT, WAIT_FOR, BaseNode
from lifelong_bayes_ros.nodes.table import SETTINGS, TABLE, parse_settings, starts
from lifelong_bayes_ros.paths import share_dir
from lifelong_bayes_ros.robot.spec import load_robot

LAUNCH = sorted((share_dir() / 'launch').glob('*.launch.py'))
NAMES = [entry.name for entry in TABLE]
DERIVED = {'lockstep', 'wait_for'}  # follow from other settings


def node_class(entry) -> type[BaseNode]:
    module = importlib.import_module(entry.module)
    (found,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseNode) and value is not BaseNode
    ]
    return found


@pytest.mark.parametrize('entry', TABLE, ids=NAMES)
def test_every_entry_is_a_node_that_takes_its_settings(entry):
    kind = node_class(entry)
    parameters = [row.name for row in (ROBOT, AUTOSTART, WAIT_FOR, *kind.PARAMETERS)]
    assert entry.name == kind.NAME
    assert set(entry.settings) <= set(parameters)
    assert len(parameters) == len(set(parameters))
    assert all(row.description for row in kind.PARAMETERS)
    assert callable(importlib.import_module(entry.module).main)


def test_every_setting_is_of_use():
    used = {name for entry in TABLE for name in (*entry.settings, entry.when)}
    known = {setting.name for setting in SETTINGS}
    assert used - known - DERIVED == {''}
    assert known - used == {'realtime'}  # decides on lockstep


def test_every_topic_has_a_publisher_and_readers_of_the_table():
    named = [topic.name for topic in topics.FIXED]
    assert len(named) == len(set(named))
    for topic in topics.FIXED:
        assert topic.node in ('', *NAMES)
        assert set(topic.readers) <= set(NAMES)


class TestStarts:
    """Which nodes are started, and with what."""

    def test_beside_a_robot(self):
        started = starts({'robot': 'quad', 'seed': 3})
        assert [s.node.name for s in started] == ['learner', 'policy', 'transition_streamer']
        assert started[1].parameters == {'robot': 'quad', 'seed': 3, 'lockstep': False}

    def test_simulated_and_recorded(self):
        settings = {'robot': 'quad', 'sim': True, 'life': 'quad', 'out': 'bag', 'viz': True}
        started = {s.node.name: s.parameters for s in starts(settings)}
        assert list(started) == NAMES
        assert started['policy']['lockstep']
        assert started['sim_robot']['lockstep']
        assert started['sim_robot']['life'] == 'quad'
        assert started['recorder']['out'] == 'bag'
        assert started['transition_streamer']['episode_length'] == 480
        assert all(p['wait_for'].split(',') == NAMES for p in started.values())

    def test_in_real_time_nobody_waits_for_an_answer(self):
        settings = {'robot': 'quad', 'sim': True, 'realtime': True}
        started = {s.node.name: s.parameters for s in starts(settings)}
        assert not started['policy']['lockstep']
        assert not started['sim_robot']['lockstep']

    def test_mistakes(self):
        with pytest.raises(KeyError, match='sede'):
            starts({'robot': 'quad', 'sede': 1})
        with pytest.raises(UserError, match='unknown life'):
            starts({'robot': 'quad', 'sim': True, 'life': 'nobody'})

    def test_settings_from_a_command_line(self):
        texts = {'robot': 'quad', 'seed': '3', 'sim': 'true', 'max_belief_age': '0.5', 'life': ''}
        assert parse_settings(texts) == {
            'robot': 'quad',
            'seed': 3,
            'sim': True,
            'max_belief_age': 0.5,
        }


class TestLaunch:
    """The launch files."""

    @pytest.mark.parametrize('path', LAUNCH, ids=lambda path: path.name)
    def test_they_are_short_and_name_no_node(self, path):
        text = path.read_text()
        assert len(text.splitlines()) < 60
        strings = {n.value for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant)}
        assert not strings & set(NAMES)

    @pytest.mark.parametrize('path', LAUNCH, ids=lambda path: path.name)
    def test_their_arguments_become_parameters(self, path, tmp_path):
        pytest.importorskip('launch_ros.actions')
        from launch import LaunchContext, LaunchDescription
        from launch.actions import IncludeLaunchDescription
        from launch.launch_description_sources import PythonLaunchDescriptionSource
        from launch_ros.actions import LifecycleNode

        source = PythonLaunchDescriptionSource(str(path))
        given = {'seed': '7', 'sim': 'true', 'life': 'quad', 'robot': 'quad', 'viz': 'true'}
        given |= {'out': str(tmp_path / 'bag'), 'namespace': '/mine'}
        context = LaunchContext()
        found = []

        def walk(entities):
            for entity in entities or []:
                if isinstance(entity, LifecycleNode):
                    entity._perform_substitutions(context)
                    found.append(entity)
                else:
                    walk(entity.visit(context))

        include = IncludeLaunchDescription(source, launch_arguments=given.items())
        walk(LaunchDescription([include]).entities)
        assert [node.node_name for node in found] == [f'/mine/{name}' for name in NAMES]


def test_parameters_survive_the_command_line():
    """They are written as JSON, which YAML, the language of ROS parameters, contains."""
    import yaml

    for value in ('quad', 'a: b', '1', 'true', '', True, 3, 0.5, 'ä "quoted" path'):
        assert yaml.safe_load(json.dumps(value)) == value


def test_robots_with_a_view_can_be_shown():
    assert all(load_robot(name).view for name in ('quad', 'arm'))
