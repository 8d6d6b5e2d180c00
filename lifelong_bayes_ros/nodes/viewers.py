"""How RViz and PlotJuggler are started on what the nodes publish. Without ROS."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from ..errors import UserError
from ..paths import share_dir
from .table import NAMESPACE, Common


def commands(common: Common, rviz: str = '', plotjuggler: str = '') -> list[tuple[list[str], str]]:
    """For RViz and for PlotJuggler the words of a command, or none and the reason.

    Args:
        common: namespace of the nodes and whose time is theirs.
        rviz: view in the place of the shipped one.
        plotjuggler: layout in the place of the shipped one, if there is one.

    Raises:
        UserError: a file that was given does not exist.
    """
    view = _file(rviz, 'lifelong.rviz')
    layout = _file(plotjuggler, '*plotjuggler*.xml')
    return [
        _command('rviz2', ['-d', str(view), '--ros-args', *_moved(view, common)]),
        _command('plotjuggler', ['-l', str(layout)] if layout else []),
    ]


def _file(given: str, shipped: str) -> Path | None:
    if given and not Path(given).is_file():
        raise UserError(f'{given} does not exist')
    return Path(given) if given else next(iter((share_dir() / 'config').rglob(shipped)), None)


def _command(program: str, arguments: list[str]) -> tuple[list[str], str]:
    if shutil.which(program) is None:
        name = {'rviz2': 'rviz2', 'plotjuggler': 'plotjuggler-ros'}[program]
        return [], f'{program} is not installed; sudo apt install ros-$ROS_DISTRO-{name}'
    return [program, *arguments], ''


def _moved(view: Path, common: Common) -> list[str]:
    """Arguments that take the topics of a view, which are in our namespace, to another one."""
    arguments = ['-p', f'use_sim_time:={str(common.use_sim_time).lower()}']
    if common.namespace != NAMESPACE:
        for name in sorted(set(re.findall(rf'{NAMESPACE}(/[\w/]+)', view.read_text()))):
            arguments += ['-r', f'{NAMESPACE}{name}:={common.namespace}{name}']
    return arguments
