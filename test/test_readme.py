"""The README tells what the code does: parameters, topics, commands."""

import importlib

import pytest

pytest.importorskip('rclpy')

from lifelong_bayes_ros import cli
from lifelong_bayes_ros.nodes import topics
from lifelong_bayes_ros.nodes.base import BaseNode
from lifelong_bayes_ros.nodes.table import TABLE
from source_tree import ROOT

README = (ROOT / 'README.md').read_text()


def node_class(module: str) -> type[BaseNode]:
    found = importlib.import_module(module).__dict__.values()
    kinds = [k for k in found if isinstance(k, type) and issubclass(k, BaseNode)]
    return next(k for k in kinds if k is not BaseNode)


def parameter_rows() -> dict[str, list[str]]:
    """Parameters of each node by the README's table."""
    rows, node = {}, ''
    for line in README.split('## Parameters')[1].split('## ')[0].splitlines():
        if line.startswith('| `') or line.startswith('| | `'):
            first, name = (cell.strip(' `') for cell in line.split('|')[1:3])
            node = first or node
            rows.setdefault(node, []).append(name)
    return rows


@pytest.mark.parametrize('entry', TABLE, ids=lambda entry: entry.name)
def test_the_parameter_table_is_that_of_the_node(entry):
    declared = [row.name for row in node_class(entry.module).PARAMETERS]
    assert parameter_rows()[entry.name] == declared


@pytest.mark.parametrize('topic', topics.FIXED, ids=lambda topic: topic.name)
def test_every_topic_is_in_the_node_table(topic):
    name = topic.name.split('/')[-1]
    assert f'`{topic.name}`' in README or f'`~/{name}`' in README or f'`{name}`' in README


def test_every_command_shown_exists():
    shown = {word.split()[0] for word in README.split('lifelong-bayes ')[1:]}
    known = set(cli.parser()._subparsers._group_actions[0].choices)
    assert {w.strip('`,.') for w in shown} <= known
