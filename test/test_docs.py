"""The documents tell what the code does."""

import re
import shutil
import subprocess

import pytest

pytest.importorskip('rclpy')

import rclpy

from lifelong_bayes_ros import cli
from lifelong_bayes_ros.nodes import reference, topics
from lifelong_bayes_ros.nodes.bringup import claim_domain
from lifelong_bayes_ros.nodes.policy import Policy
from lifelong_bayes_ros.nodes.table import SETTINGS, TABLE
from lifelong_bayes_ros.robot.spec import load_robot
from source_tree import ROOT

DOCS = sorted((ROOT / 'docs').glob('*.md'))


def test_the_reference_is_that_of_the_code():
    written = (ROOT / 'docs' / 'reference.md').read_text()
    assert written == reference.page(), 'python -m lifelong_bayes_ros.nodes.reference writes it'


def test_the_reference_misses_nothing():
    page = reference.page()
    for topic in topics.FIXED:
        assert f'| `{topic.name}` |' in page
    for entry in TABLE:
        for row in reference.node_class(entry).PARAMETERS:
            assert f'| `{row.name}` |' in page
    assert '`learner/save` | std_srvs/srv/Trigger' in page


def test_the_reference_has_the_parameters_that_a_robot_file_adds():
    domain, lock = claim_domain()
    rclpy.init(args=['--ros-args', '-p', 'robot:=quad'], domain_id=domain)
    node = Policy()
    try:
        before = set(node._parameters)
        node.trigger_configure()
        added = set(node._parameters) - before
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
        lock.close()
    names = {a.name for a in load_robot('quad').action}
    generic = {re.sub(rf'\b({"|".join(names)})\b', 'ACTION', name) for name in added}
    rows = {row[0].strip('`') for row in reference.OF_THE_ROBOT['policy']}
    assert rows == generic
    assert all(f'| `{row}` | ' in reference.page() for row in rows)


def part_of(parser, words):
    """The parser of the (sub-)command that these words name."""
    if parser._subparsers is None:
        return parser
    choices = parser._subparsers._group_actions[0].choices
    assert words and words[0] in choices, f'{parser.prog}: {words[:1]} is none of {[*choices]}'
    return part_of(choices[words[0]], words[1:])


@pytest.mark.parametrize('path', DOCS, ids=lambda path: path.name)
def test_every_command_and_option_shown_exists(path):
    text = path.read_text()
    for line in re.findall(r'lifelong-bayes ([a-z-]+[^\n`|#]*)', text):
        command = part_of(cli.parser(), line.split())
        options = {o for a in command._actions for o in a.option_strings}
        assert set(re.findall(r'(?<!\w)--[a-z][a-z-]*', line)) <= options, line


@pytest.mark.parametrize('path', DOCS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path):
    for target in re.findall(r'\]\((?!https?:)([^)#]+)', path.read_text()):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize('path', DOCS, ids=lambda path: path.name)
def test_every_launch_argument_shown_is_a_setting(path):
    known = {s.name for s in SETTINGS} | {'namespace', 'params_file', 'log_level', 'respawn'}
    known |= {'nodes', 'use_sim_time', 'autostart'}
    for line in re.findall(r'ros2 launch lifelong_bayes_ros \S+([^\n`]*)', path.read_text()):
        assert set(re.findall(r'(\w+):=', line)) <= known, line


def test_a_jetson_is_given_what_setup_asks_for():
    asked = re.search(r'install_requires=\[(.*?)\]', (ROOT / 'setup.py').read_text(), re.DOTALL)[1]
    page = (ROOT / 'docs' / 'jetson.md').read_text()
    for requirement in re.findall(r"'(.+?)'", asked):
        assert requirement.startswith('torch') or f'"{requirement}"' in page


@pytest.mark.parametrize(
    'words',
    [
        'no state comes in',
        'readings are left out, most: ',
        'all messages have one stamp',
        'no time comes by /clock',
        'nobody hears ',
        ' is sent',
        'there runs already: ',
        'two nodes are called ',
    ],
)
def test_what_nodes_say_when_nothing_gets_through_is_looked_up_as_they_say_it(words):
    nodes = (ROOT / 'lifelong_bayes_ros' / 'nodes').glob('*.py')
    assert any(words in path.read_text() for path in nodes)
    rows = (ROOT / 'docs' / 'troubleshooting.md').read_text().splitlines()
    assert any(words in row.split(' | ')[0] for row in rows)


@pytest.mark.skipif(shutil.which('make') is None, reason='no make')
def test_kilted_is_tried_with_every_test_that_needs_ros():
    command = ['make', '-n', 'test-kilted']
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    needs = ("importorskip('rclpy')", 'from lifelong_bayes_ros.nodes')
    wanted = {
        f'test/{path.name}'
        for path in (ROOT / 'test').glob('test_*.py')
        if any(word in path.read_text() for word in needs) or 'nodes' in path.name
    }
    assert wanted <= set(said.split())
