"""How RViz and PlotJuggler are started on what the nodes publish. Without ROS."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from ..errors import UserError
from ..paths import share_dir
from ..robot.names import NAMESPACE
from ..robot.spec import load_robot
from .table import Common

CLOCK = '/clock'


def commands(
    common: Common,
    robot: str = '',
    frame: str = '',
    rviz: str = '',
    plotjuggler: str = '',
    clock: str = CLOCK,
) -> list[tuple[list[str], str]]:
    """For RViz and for PlotJuggler the words of a command, or none and the reason.

    Args:
        common: namespace of the nodes and whose time is theirs.
        robot: shipped robot by name, or path of a robot file, whose frame the view is fixed to.
        frame: the same, where the robot file is on another machine; none of both: as in the view.
        rviz: view in the place of the shipped one.
        plotjuggler: layout in the place of the shipped one, if there is one.
        clock: topic of the time.

    Raises:
        UserError: a file that was given does not exist, or is no valid robot file.
    """
    frame = frame or (load_robot(robot).frame if robot else '')
    fixed = ['-f', frame] if frame else []
    view = _file(rviz, 'lifelong.rviz')
    layout = _file(plotjuggler, '*plotjuggler*.xml')
    if layout and common.namespace != NAMESPACE:
        layout = _moved_layout(layout, common.namespace)
    return [
        _command('rviz2', ['-d', str(view), *fixed, '--ros-args', *_moved(view, common, clock)]),
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


def _moved(view: Path, common: Common, clock: str) -> list[str]:
    """Arguments that take the topics of a view, which are in our namespace, to another one."""
    arguments = ['-p', f'use_sim_time:={str(common.use_sim_time).lower()}']
    if clock != CLOCK:
        arguments += ['-r', f'{CLOCK}:={clock}']
    if common.namespace != NAMESPACE:
        for name in sorted(set(re.findall(rf'{NAMESPACE}(/[\w/]+)', view.read_text()))):
            arguments += ['-r', f'{NAMESPACE}{name}:={common.namespace}{name}']
    return arguments


def _moved_layout(layout: Path, namespace: str) -> Path:
    """A copy of a layout, which PlotJuggler cannot be told to move, in another namespace."""
    text = re.sub(rf'{NAMESPACE}(?=/)', namespace, layout.read_text())
    copy = Path(tempfile.mkdtemp(prefix='lifelong_bayes_')) / layout.name
    copy.write_text(text)
    return copy
