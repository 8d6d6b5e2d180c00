"""The documents tell what the code does."""

import re

import pytest

pytest.importorskip('rclpy')

from lifelong_bayes_ros import cli
from lifelong_bayes_ros.nodes import reference, topics
from lifelong_bayes_ros.nodes.table import SETTINGS, TABLE
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
