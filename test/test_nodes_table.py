"""The node table and what is made from it: parameters, processes, launch files."""

import ast
import importlib
import json
import os
import re
import runpy
import sys
from dataclasses import replace
from inspect import signature
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

pytest.importorskip('rclpy')

from lifelong_bayes_ros import cli
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.nodes import topics, viewers
from lifelong_bayes_ros.nodes.base import SHARED, BaseNode
from lifelong_bayes_ros.nodes.table import (
    COMMON,
    RANGES,
    SETTINGS,
    TABLE,
    UP_DEFAULTS,
    Common,
    check_words,
    parse_common,
    parse_settings,
    remappings,
    starts,
)
from lifelong_bayes_ros.paths import share_dir
from lifelong_bayes_ros.robot.spec import load_robot
from test_cli import write_bag

LAUNCH = sorted((share_dir() / 'launch').glob('*.launch.py'))
NAMES = [entry.name for entry in TABLE]
SIMULATED = [name for name in NAMES if name != 'player']
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
    parameters = [row.name for row in (*SHARED, *kind.PARAMETERS)]
    assert entry.name == kind.NAME
    assert set(entry.settings) <= set(parameters)
    assert len(parameters) == len(set(parameters))
    assert all(row.description for row in kind.PARAMETERS)
    ranges = {row.name: (row.low, row.high) for row in kind.PARAMETERS if row.low is not None}
    assert {name: RANGES[name] for name in ranges.keys() & set(entry.settings)} == {
        name: ends for name, ends in ranges.items() if name in entry.settings
    }
    assert callable(importlib.import_module(entry.module).main)


def test_every_setting_is_of_use():
    used = {name for entry in TABLE for name in (*entry.settings, entry.when, entry.unless)}
    known = {setting.name for setting in SETTINGS}
    assert used - known - DERIVED == {''}
    assert known - used == {'realtime', 'control_cpus'}  # decide on lockstep, on cpus


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
        assert list(started) == SIMULATED
        assert started['policy']['lockstep']
        assert started['sim_robot']['lockstep']
        assert started['sim_robot']['life'] == 'quad'
        assert started['recorder']['out'] == 'bag'
        assert started['transition_streamer']['episode_length'] == 480
        assert all(p['wait_for'].split(',') == SIMULATED for p in started.values())

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

    @pytest.mark.parametrize(
        ('name', 'value', 'giver'),
        [
            ('steps', 10, 'sim'),
            ('life', 'quad', 'sim'),
            ('rate', 2.0, 'viz'),
            ('speed', 2.0, 'bag'),
        ],
    )
    def test_what_nothing_started_takes_is_refused(self, name, value, giver):
        with pytest.raises(UserError, match=f'{name}: is of no use without .* by {giver}'):
            starts({'robot': 'quad', name: value})

    @pytest.mark.parametrize('robot', ['arm', 'copy of arm'])
    def test_a_life_of_another_robot_is_refused_as_the_command_life_does(self, robot, tmp_path):
        if robot != 'arm':
            robot = str(tmp_path / 'mine.yaml')
            (tmp_path / 'mine.yaml').write_text(load_robot('arm').dump())
        with pytest.raises(UserError) as caught:
            starts({'robot': robot, 'sim': True, 'life': 'quad'})
        said = str(caught.value)
        assert 'life quad: robot: it is for quad, not for arm; give a life of arm\n' in said
        assert (
            "life quad: regimes.C: actuator_gain.actuator: robot arm has no 'right'; use" in said
        )
        assert starts({'robot': robot, 'sim': True, 'life': 'arm'})

    def test_a_life_of_another_robot_is_refused_though_its_shifts_would_fit(self, tmp_path):
        path = tmp_path / 'life.yaml'
        path.write_text('robot: quad\nregimes: {A: []}\nphases: [[A, 5]]\n')
        with pytest.raises(UserError, match=r'it is for quad, not for arm; give a life of arm$'):
            starts({'robot': 'arm', 'sim': True, 'life': str(path)})

    def test_shifts_are_tried_on_the_robot_as_it_is_here(self, tmp_path):
        """A lag may take four periods, and this robot's are shorter than those of the shipped."""
        life, fast = tmp_path / 'life.yaml', tmp_path / 'fast.yaml'
        lag = 4 * load_robot('quad').period
        life.write_text(
            f'robot: quad\nregimes: {{A: [], B: [{{actuator_lag: {{seconds: {lag}}}}}]}}\n'
            'phases: [[A, 5], [B, 5]]\n'
        )
        fast.write_text(load_robot('quad').model_copy(update={'period': 0.01}).dump())
        assert starts({'robot': 'quad', 'sim': True, 'life': str(life)})
        with pytest.raises(UserError, match=r'regimes\.B: actuator_lag\.seconds: 0\.12 s is too'):
            starts({'robot': str(fast), 'sim': True, 'life': str(life)})

    def test_a_bag_and_a_simulated_robot_exclude_each_other(self):
        with pytest.raises(UserError, match=r"bag: 'b' .* leave out either bag or sim"):
            starts({'robot': 'quad', 'sim': True, 'realtime': True, 'bag': 'b'})
        assert starts({'robot': 'quad', 'sim': False, 'bag': '.'})

    def test_a_recording_that_is_there_is_found_before_anything_starts(self, tmp_path):
        settings = {'robot': 'quad', 'out': str(tmp_path)}
        with pytest.raises(UserError, match='is there already'):
            starts(settings)
        assert starts(settings, '-recorder')  # it is the other machine's

    def test_what_is_not_there_is_told_before_anything_starts(self):
        with pytest.raises(UserError, match="unknown robot 'nope'"):
            starts({'robot': 'nope'})
        for name in ('prior', 'bag'):
            settings = {'robot': 'quad', name: 'nowhere'}
            with pytest.raises(UserError, match=f'{name}: nowhere does not exist; '):
                starts(settings)
            assert starts(settings, '-learner' if name == 'prior' else 'learner')

    def test_a_bag_tells_which_robot_was_recorded(self, tiny_prior, tmp_path):
        write_bag(tmp_path / 'bag', tiny_prior, [], None)
        started = starts({'bag': str(tmp_path / 'bag')})
        assert [s.parameters['robot'] for s in started] == ['quad', 'quad']
        other = load_robot('quad').model_copy(update={'period': 0.02})
        dynamics = replace(tiny_prior.dynamics, spec=other)
        write_bag(tmp_path / 'other', replace(tiny_prior, dynamics=dynamics), [], None)
        with pytest.raises(
            UserError, match=r'robot: .*other is of quad, but not as it is shipped'
        ):
            starts({'bag': str(tmp_path / 'other')})
        write_bag(tmp_path / 'silent', None, [], None)
        with pytest.raises(UserError, match=r'silent: does not tell .* give --robot FILE'):
            starts({'bag': str(tmp_path / 'silent')})
        with pytest.raises(UserError, match=r'bag: nowhere: no such bag'):
            starts({'bag': 'nowhere'})

    def test_all_but_a_recorder_may_be_started_again(self):
        assert [entry.name for entry in TABLE if not entry.again] == ['recorder']

    def test_a_recording_takes_the_place_of_robot_and_policy(self):
        started = {s.node.name: s.parameters for s in starts({'robot': 'quad', 'bag': '.'})}
        assert list(started) == ['learner', 'player']
        assert started['player']['wait_for'] == 'learner,player'

    def test_on_two_machines_each_node_starts_once_and_waits_for_all(self):
        settings = {'robot': 'quad', 'sim': True}
        here, there = starts(settings, 'learner'), starts(settings, '-learner')
        everything = {s.node.name: s.parameters for s in starts(settings)}
        assert [s.node.name for s in here] == ['learner']
        assert 'learner' not in [s.node.name for s in there]
        assert {s.node.name: s.parameters for s in (*here, *there)} == everything

    @pytest.mark.parametrize(
        ('nodes', 'words'),
        [('lerner', 'unknown'), ('learner,-policy', 'do one'), ('player', 'player by bag')],
    )
    def test_nodes_that_cannot_be_chosen(self, nodes, words):
        with pytest.raises(UserError, match=words):
            starts({'robot': 'quad'}, nodes)

    def test_settings_from_a_command_line(self):
        texts = {'robot': 'quad', 'seed': '3', 'sim': 'true', 'max_belief_age': '0.5', 'life': ''}
        assert parse_settings(texts) == {
            'robot': 'quad',
            'seed': 3,
            'sim': True,
            'max_belief_age': 0.5,
        }
        assert parse_settings({'state_dir': '2026', 'max_belief_age': '2'}) == {
            'state_dir': '2026',
            'max_belief_age': 2.0,
        }

    @pytest.mark.parametrize(
        ('name', 'text'),
        [
            ('seed', '1.5'),
            ('seed', 'true'),
            ('sim', '1'),
            ('rate', 'fast'),
            ('viz', '{'),
            ('life', ''),
            ('seed', '-1'),
            ('seed', '2147483648'),
            ('rate', '0'),
            ('rate', '.nan'),
            ('steps', '-1'),
            ('speed', '1000'),
            ('device', 'foo'),
            ('planner_device', 'cuda:'),
        ],
    )
    def test_values_of_another_kind_or_range_are_refused_by_name(self, name, text):
        if not text:
            assert parse_settings({name: text}) == {}
            return
        with pytest.raises(UserError, match=f'{name}: '):
            parse_settings({name: text})

    def test_how_nodes_are_started(self):
        assert parse_common({s.name: '' for s in COMMON}) == Common()
        given = parse_common({'namespace': 'floor/robot1/', 'use_sim_time': 'true'})
        assert given.namespace == '/floor/robot1'
        assert given.parameters == {'autostart': True, 'use_sim_time': True}
        for name, text in (
            ('namespace', '/1robot'),
            ('namespace', 'a b'),
            ('log_level', 'loud'),
            ('params_file', 'nowhere.yaml'),
            ('respawn', 'yes please'),
            ('nodes', 'lerner'),
        ):
            with pytest.raises(UserError, match=name):
                parse_common({name: text})

    def test_only_simulated_robots_need_a_clock_of_their_own(self):
        assert remappings('/robot1', {'sim': True}) == [('/clock', '/robot1/clock')]
        assert remappings('/robot1', {}) == remappings('/lifelong', {'sim': True}) == []


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
        expected = {'monitor': [], 'replay': ['uncertainty_viz', 'recorder', 'learner', 'player']}
        expected = expected.get(path.name.split('.')[0], SIMULATED)
        given = {'seed': '7', 'robot': 'quad', 'viz': 'true', 'namespace': '/mine'}
        given |= {'out': str(tmp_path / 'bag')} if expected else {}
        if expected == SIMULATED:
            given |= {'sim': 'true', 'life': 'quad'}
        elif expected:
            given |= {'bag': str(tmp_path)}
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
        assert [node.node_name for node in found] == [f'/mine/{name}' for name in expected]

    def test_a_name_that_launch_would_drop_is_refused(self):
        file = str(LAUNCH[0])
        for words in (
            ['launch', 'lifelong_bayes_ros', 'replay.launch.py', 'bags:=x'],
            ['launch', file, 'bags:=x'],
        ):
            with pytest.raises(UserError, match=r'bags: .*did you mean bag\?'):
                check_words(words, file)
            check_words([*words[:-1], 'bag:=x', 'nodes:=learner'], file)
        check_words(['launch', 'their_robot', 'robot.launch.py', 'theirs:=1'], file)

    @pytest.mark.parametrize('path', LAUNCH, ids=lambda path: path.name)
    def test_a_name_is_known_only_where_it_is_declared(self, path):
        words = ['launch', 'lifelong_bayes_ros', path.name, 'schedule:=quad']
        if "'schedule':" in path.read_text():
            check_words(words, str(LAUNCH[0]))
            return
        with pytest.raises(UserError, match=r'schedule: there is no such argument'):
            check_words(words, str(LAUNCH[0]))


class TestUp:
    """The same without `launch`."""

    @pytest.fixture
    def started(self, monkeypatch):
        calls = []
        monkeypatch.setattr(
            'lifelong_bayes_ros.nodes.bringup.up', lambda *args: calls.append(args) or 0
        )
        return calls

    def test_it_takes_every_argument_of_the_launch_files(self, started, tmp_path):
        file = tmp_path / 'p.yaml'
        file.write_text('')
        texts = {s.name: {bool: 'true', int: '3', float: '2.5'}.get(s.kind, 'x') for s in SETTINGS}
        texts |= {'device': 'cuda:1', 'planner_device': 'auto'}
        texts |= {'namespace': 'a/b', 'nodes': '-learner', 'params_file': str(file)}
        texts |= {'log_level': 'debug', 'use_sim_time': 'true', 'autostart': 'false'}
        words = [f'--{k.replace("_", "-")}={v}' for k, v in texts.items()]
        assert cli.main(['up', *words, '--domain-id', '5']) == 0
        ((settings, common, domain, _),) = started
        assert settings == parse_settings({s.name: texts[s.name] for s in SETTINGS})
        assert common == Common('/a/b', '-learner', str(file), 'debug', True, False)
        assert domain == 5

    def test_what_it_does_alone(self, started):
        assert cli.main(['up', '--sim']) == 0
        settings, common, domain, _ = started[0]
        assert settings == {'robot': 'quad', 'viz': True, 'sim': True, 'realtime': True}
        assert common == Common()
        assert domain is None
        assert cli.main(['up', '--bag', 'b']) == 0
        assert started[1][0] == {'bag': 'b', 'viz': True}

    def test_a_robot_must_be_named_unless_it_is_simulated_or_recorded(self, started, capsys):
        for words in ((), ('--sim', 'false')):
            assert cli.main(['up', *words]) == 2
            assert 'robot: none is given' in capsys.readouterr().err
        assert started == []

    def test_its_help_tells_what_it_sets_by_itself(self, capsys):
        with pytest.raises(SystemExit):
            cli.main(['up', '--help'])
        said = ' '.join(capsys.readouterr().out.split())
        for told in UP_DEFAULTS.values():
            assert f'(default: {told})' in said

    @pytest.mark.parametrize(
        'words',
        [
            ('--seed', 'one'),
            ('--log-level', 'loud'),
            ('--namespace', '1'),
            ('--params-file', 'nowhere'),
            ('--nodes', 'lerner'),
        ],
    )
    def test_a_mistake_is_named(self, started, capsys, words):
        assert cli.main(['up', *words]) == 2
        assert words[0].strip('-').replace('-', '_') in capsys.readouterr().err
        assert started == []

    @pytest.mark.parametrize(
        ('words', 'said'),
        [
            (('--bag', 'b'), "bag: 'b' is played in the place of a robot"),
            (('--robot', 'nope'), "unknown robot 'nope'"),
            (('--prior', 'nowhere'), 'prior: nowhere does not exist'),
            (('--robot', 'arm', '--life', 'quad'), 'life quad: regimes.C: actuator_gain.actuator'),
        ],
    )
    def test_what_contradicts_a_simulated_robot_is_refused_before_anything_starts(
        self, words, said, capsys, tmp_path
    ):
        assert cli.main(['up', '--sim', *words, '--logs', str(tmp_path / 'logs')]) == 2
        assert said in ' '.join(capsys.readouterr().err.split())
        assert not (tmp_path / 'logs').exists()


class TestViewers:
    """How RViz and PlotJuggler are started."""

    def test_what_is_not_installed_is_named(self, monkeypatch):
        monkeypatch.setenv('PATH', '')
        for words, remark in viewers.commands(Common()):
            assert words == []
            assert 'is not installed; sudo apt install' in remark

    def test_in_another_namespace_every_topic_of_the_view_is_moved(self, monkeypatch, tmp_path):
        monkeypatch.setenv('PATH', str(tmp_path))
        (tmp_path / 'rviz2').touch(0o755)
        ((words, _), _) = viewers.commands(Common(namespace='/r1'))
        view = (share_dir() / 'config' / 'lifelong.rviz').read_text()
        moved = dict(word.split(':=') for word in words if word.startswith('/lifelong'))
        assert moved.keys() == set(re.findall(r'/lifelong/[\w/]+', view))
        assert moved['/lifelong/markers'] == '/r1/markers'
        ((words, _), _) = viewers.commands(Common())
        assert not any(word.startswith('/lifelong') for word in words)

    def test_there_the_layout_is_moved_and_the_clock_may_be(self, monkeypatch, tmp_path):
        monkeypatch.setenv('PATH', str(tmp_path))
        for program in ('rviz2', 'plotjuggler'):
            (tmp_path / program).touch(0o755)
        (rviz, _), (juggler, _) = viewers.commands(Common('/r1'), clock='/r1/clock')
        assert '/clock:=/r1/clock' in rviz
        shipped = (share_dir() / 'config' / 'lifelong.plotjuggler.xml').read_text()
        with open(juggler[-1]) as moved:
            text = moved.read()
        assert shipped.count('"/lifelong/') == text.count('"/r1/') > 0
        assert '"/lifelong/' not in text

    def test_the_monitor_hands_on_all_that_it_is_given(self, monkeypatch):
        names, launch, given = [*signature(viewers.commands).parameters], MagicMock(), {}
        for name in ('launch', 'launch.actions', 'launch.substitutions'):
            monkeypatch.setitem(sys.modules, name, launch)
        launch.LaunchConfiguration = lambda name: SimpleNamespace(
            perform=lambda texts: texts[name]
        )
        monkeypatch.setattr(viewers, 'commands', lambda *args, **own: given.update(own) or [])
        monitor = runpy.run_path(share_dir() / 'launch' / 'monitor.launch.py')
        own = {name: f'some {name}' for name in names if name != 'common'}
        monitor['viewers']({'namespace': '/r1', 'use_sim_time': 'true'} | own)
        assert given == own
        words = ['ros2', 'launch', 'lifelong_bayes_ros', 'monitor.launch.py', 'robots:=arm']
        monkeypatch.setattr(sys, 'argv', words)
        with pytest.raises(UserError, match=r'robots: .* did you mean robot\?'):
            monitor['viewers'](own)
        monkeypatch.setattr(sys, 'argv', [*words[:-1], 'seed:=1'])
        with pytest.raises(UserError, match=r'seed: there is no such argument'):
            monitor['viewers'](own)

    def test_a_view_that_is_not_there(self):
        with pytest.raises(UserError, match=r'nowhere.rviz does not exist'):
            viewers.commands(Common(), rviz='nowhere.rviz')
        with pytest.raises(UserError, match=r'nowhere.yaml'):
            viewers.commands(Common(), robot='nowhere.yaml')


def test_parameters_survive_the_command_line():
    """They are written as JSON, which YAML, the language of ROS parameters, contains."""
    import yaml

    for value in ('quad', 'a: b', '1', 'true', '', True, 3, 0.5, 'ä "quoted" path'):
        assert yaml.safe_load(json.dumps(value)) == value


def test_robots_with_a_view_can_be_shown():
    assert all(load_robot(name).view for name in ('quad', 'arm'))


def test_the_control_path_may_have_cores_of_its_own(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {0, 1, 2}, raising=False)
    settings = {'robot': 'quad', 'sim': True, 'realtime': True, 'control_cpus': '1'}
    cpus = {start.node.name: start.parameters['cpus'] for start in starts(settings)}
    assert cpus == {
        'learner': '0,2',
        'policy': '1',
        'transition_streamer': '0,2',
        'sim_robot': '1',
    }
    assert all('cpus' not in s.parameters for s in starts({'robot': 'quad', 'sim': True}))
    with pytest.raises(UserError, match='there is no core 5 here'):
        starts(settings | {'control_cpus': '5'})
