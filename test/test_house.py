"""The house rules that a reader relies on: who may import whom, and nothing tied to one machine.

ROS stays in `nodes/`, simulators stay in `sim/` and `experiments/`, `blr` stands alone, and what
learns and controls knows nothing of nodes, simulators or experiments.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

import pytest

from source_tree import ROOT, source_files

OURS = 'lifelong_bayes_ros'
SIM = 'lifelong_bayes_ros_sim'
# rclpy, what it is made of, and every message package by the name that ROS gives such packages.
ROS = re.compile(r'(rclpy|rpyutils|rosidl_\w+|\w+_(msgs|srvs|interfaces))(\.|$)')
# Absolute paths that exist on somebody's machine only.
MACHINE_PATH = re.compile(r'(?<![\w.}~)-])/(work|root|home)/')


def within(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of the packages or lies in one."""
    return any(name == package or name.startswith(f'{package}.') for package in packages)


class Rule(NamedTuple):
    """What modules (dotted names) may not import."""

    text: str
    holds_for: Callable[[str], bool]
    forbids: Callable[[str], bool]


RULES = (
    Rule(
        'rclpy and ROS messages only in nodes/',
        lambda module: within(module, OURS, SIM) and not within(module, f'{OURS}.nodes'),
        lambda name: ROS.match(name) is not None,
    ),
    Rule(
        'mujoco and gymnasium only in sim/ and experiments/',
        lambda module: within(module, OURS) and not within(module, f'{OURS}.experiments'),
        lambda name: within(name, 'mujoco', 'gymnasium'),
    ),
    Rule(
        'blr imports nothing of ours',
        lambda module: within(module, f'{OURS}.blr'),
        lambda name: within(name, OURS, SIM) and not within(name, f'{OURS}.blr'),
    ),
    Rule(
        'dynamics, memory, learning and control import no nodes, sim or experiments',
        lambda module: within(
            module, *(f'{OURS}.{part}' for part in ('dynamics', 'memory', 'learning', 'control'))
        ),
        lambda name: within(name, f'{OURS}.nodes', f'{OURS}.experiments', SIM),
    ),
    Rule(
        f'sim/ is imported as {SIM}',
        lambda module: True,
        lambda name: within(name, 'sim'),
    ),
)


def module_name(path: PurePath) -> str:
    """The dotted name of a file of the source tree, as it is once installed."""
    parts = list(path.with_suffix('').parts)
    if parts[0] == 'sim':
        parts[0] = SIM
    return '.'.join(parts)


def imported_names(tree: ast.AST, module: str) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of all that a module imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            # `a/__init__.py` is named a.__init__ here, so one level up is always the last dot.
            package = module.split('.')[: -node.level] if node.level else []
            base = '.'.join([*package, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f'{base}.{alias.name}'
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith(('import_module', '__import__'))
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, str(node.args[0].value)


def violations(root: Path, path: PurePath) -> list[str]:
    """What a Python file, given relative to the root of the tree, imports against the rules."""
    module = module_name(path)
    rules = [rule for rule in RULES if rule.holds_for(module)]
    tree = ast.parse((root / path).read_text('utf-8'))
    return [
        f'{path}:{line}: imports {name}; {rule.text}'
        for line, name in imported_names(tree, module)
        for rule in rules
        if rule.forbids(name)
    ]


FILES = source_files()
MODULES = [path for path in FILES if path.suffix == '.py']


@pytest.mark.parametrize('path', MODULES, ids=str)
def test_imports_keep_to_the_house(path: Path) -> None:
    assert violations(ROOT, path) == []


@pytest.mark.parametrize(
    ('path', 'line'),
    [
        ('lifelong_bayes_ros/cli.py', 'import rclpy.node'),
        ('lifelong_bayes_ros/robot/bad.py', 'def f():\n    from sensor_msgs.msg import Imu'),
        ('sim/bad.py', 'from std_srvs.srv import Trigger'),
        ('lifelong_bayes_ros/nodes/bad.py', 'import mujoco as mj'),
        ('lifelong_bayes_ros/learning/bad.py', 'import gymnasium'),
        ('lifelong_bayes_ros/blr/bad.py', 'from ..errors import Error'),
        ('lifelong_bayes_ros/blr/__init__.py', 'from lifelong_bayes_ros import dynamics'),
        ('lifelong_bayes_ros/dynamics/bad.py', 'from .. import nodes'),
        ('lifelong_bayes_ros/memory/bad.py', 'from lifelong_bayes_ros.experiments import lives'),
        ('lifelong_bayes_ros/control/bad.py', 'import lifelong_bayes_ros_sim'),
        ('lifelong_bayes_ros/control/bad.py', "import_module('rclpy')"),
        ('lifelong_bayes_ros/experiments/bad.py', 'from sim.quad import Quad'),
        ('test/test_bad.py', 'import sim'),
    ],
)
def test_a_planted_import_is_caught(tmp_path: Path, path: str, line: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(f'{line}\n')
    assert len(violations(tmp_path, PurePath(path))) == 1


@pytest.mark.parametrize(
    ('path', 'line'),
    [
        ('lifelong_bayes_ros/nodes/good.py', 'import rclpy\nfrom std_msgs.msg import String'),
        ('lifelong_bayes_ros/experiments/good.py', 'import gymnasium, lifelong_bayes_ros_sim'),
        ('lifelong_bayes_ros/blr/good.py', 'import torch\nfrom .gaussian import Gaussian'),
        ('lifelong_bayes_ros/memory/good.py', 'from ..dynamics.belief import Belief'),
        ('sim/good.py', 'import mujoco\nfrom . import registry'),
        ('sim/__init__.py', 'from .registry import make'),
    ],
)
def test_a_fair_import_is_not(tmp_path: Path, path: str, line: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(f'{line}\n')
    assert violations(tmp_path, PurePath(path)) == []


def machine_paths(path: Path) -> list[str]:
    """Lines of a text file that name a path of one machine; none where the file is not text."""
    try:
        lines = path.read_text('utf-8').splitlines()
    except UnicodeDecodeError:
        return []
    return [
        f'{number}: {line}' for number, line in enumerate(lines, 1) if MACHINE_PATH.search(line)
    ]


@pytest.mark.parametrize('path', FILES, ids=str)
def test_no_path_of_one_machine(path: Path) -> None:
    assert machine_paths(ROOT / path) == []


def test_a_planted_path_is_caught(tmp_path: Path) -> None:
    home = '/'.join(['', 'home', 'someone', 'robot.yaml'])
    (tmp_path / 'planted.md').write_text(
        f'ok: $HOME/work/ and https://ros.org/root/\nsee {home}\n'
    )
    assert machine_paths(tmp_path / 'planted.md') == [f'2: see {home}']


@pytest.mark.parametrize('node', ['transition_streamer', 'sim_robot', 'uncertainty_viz'])
def test_nodes_that_do_not_learn_start_without_torch(node: str) -> None:
    """It takes seconds to import, and every node waits for them."""
    pytest.importorskip('rclpy')
    code = f'import sys, {OURS}.nodes.{node}; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
