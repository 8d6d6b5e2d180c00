"""The documents tell what the code does."""

import re

import pytest

pytest.importorskip('rclpy')

from lifelong_bayes_ros import cli
from lifelong_bayes_ros.nodes import reference, topics
from lifelong_bayes_ros.nodes.table import SETTINGS, TABLE
from source_tree import ROOT

DOCS = sorted((ROOT / 'docs').glob('*.md'))
COMMANDS = cli.parser()._subparsers._group_actions[0].choices
PLANNED = {'robot'}  # `lifelong-bayes robot init` and `robot check`


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


@pytest.mark.parametrize('path', DOCS, ids=lambda path: path.name)
def test_every_command_and_option_shown_exists(path):
    text = path.read_text()
    for line in re.findall(r'lifelong-bayes ([a-z-]+[^\n`|#]*)', text):
        name = line.split()[0]
        assert name in COMMANDS.keys() | PLANNED, name
        if name in COMMANDS:
            options = {o for a in COMMANDS[name]._actions for o in a.option_strings}
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
