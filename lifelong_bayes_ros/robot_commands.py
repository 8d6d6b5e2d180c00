"""The commands around a robot file: checking one, and writing a first one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import arguments
from .errors import UserError

Command = Callable[[str, Any, str], argparse.ArgumentParser]
WIDTH = 64  # of the trunk's layers, unless pre-trained otherwise


def register(command: Command) -> None:
    """Add the commands to the command line."""
    top = command('robot', check, 'check a robot file, or write a first one for your robot')
    parts = top.add_subparsers(dest='part', required=True, metavar='check|init')

    sub = parts.add_parser(
        'check', help='tell what will be subscribed and published, limits, sizes and warnings'
    )
    sub.set_defaults(function=check)
    sub.add_argument('file', metavar='FILE', help='robot file, or the name of a shipped robot')
    arguments.add_namespace(sub)
    sub.add_argument('--json', action='store_true', help='print one JSON object')

    sub = parts.add_parser(
        'init', help='write a first robot file from what the robot publishes; then edit it'
    )
    sub.set_defaults(function=init)
    source = sub.add_mutually_exclusive_group(required=True)
    source.add_argument(
        '--from-bag', metavar='BAG', type=arguments.path, help='folder of a recorded bag'
    )
    source.add_argument('--from-topics', action='store_true', help='listen to the running robot')
    sub.add_argument(
        '--seconds',
        type=arguments.within(float, 0, 3600),
        default=5.0,
        help='how long to listen to topics (default 5)',
    )
    arguments.add_domain_id(sub)
    sub.add_argument('--name', default='my_robot', help='name of the robot (default my_robot)')
    sub.add_argument('--out', type=arguments.path, help='file to write (default NAME.yaml)')
    sub.add_argument('--force', action='store_true', help='write over a file that is there')


def check(args: argparse.Namespace) -> int:
    """Tell what a robot file leads to."""
    from .robot.check import check_model, check_names, report
    from .robot.spec import load_robot, robot_file

    spec = load_robot(args.file)
    file = robot_file(args.file)
    check_names(spec, file, args.namespace)
    check_model(spec, file)
    found = report(spec, args.namespace)
    found['sizes'] |= _belief_sizes(spec)
    if args.json:
        print(json.dumps({'command': 'robot check', 'file': args.file, **found}))
    else:
        _print(found)
    return 0


def _belief_sizes(spec: Any) -> dict[str, int]:
    """Numbers of what is learned, for a trunk of the usual width."""
    from .dynamics.model import DELAYS
    from .dynamics.trunk import Encoder

    encoder, da = Encoder.of(spec), len(spec.action)
    inputs = len(encoder.values) + 2 * len(encoder.angles) + da
    parameters = len(spec.state) * (WIDTH + inputs + 1) + 2 * da + DELAYS
    return {'inputs': inputs, 'parameters': parameters, 'bytes': 8 * parameters**2}


def _print(found: dict[str, Any]) -> None:
    out = Console(markup=False, emoji=False)  # units such as [m] are none
    rate = f'{1 / found["period"]:g} Hz'
    out.print(f'robot {found["robot"]}: control at {rate}, frame {found["frame"]}')
    for c in found['connections']:
        hz = '' if c['rate'] is None else f', {c["rate"]:g} Hz'
        out.print(f'{c["direction"]} {c["topic"]}: {c["what"]}, {c["type"]}{hz}', soft_wrap=True)
        out.print(f'    {c["qos"]}', soft_wrap=True)
    for what, keys in (
        ('state', ('name', 'place', 'unit', 'encode', 'low', 'high')),
        ('action', ('name', 'place', 'unit', 'low', 'high', 'neutral', 'slew', 'jerk')),
    ):
        table = Table(title=what)
        for key in keys:
            table.add_column('message part' if key == 'place' else key, overflow='fold')
        for r in found[what]:
            table.add_row(*('' if r[k] is None else str(r[k]) for k in keys))
        out.print(table)
    safe, sizes = found['safe_action'], found['sizes']
    out.print(f'safe action: {safe["mode"]} for {safe["ticks"]} control steps, then silence')
    out.print(
        f'sizes: {sizes["state"]} state channels, {sizes["action"]} actions, {sizes["inputs"]} '
        f'inputs of the dynamics, {sizes["parameters"]} parameters in each head, '
        f'{sizes["bytes"] / 1e6:.1f} MB for its covariance'
    )
    for warning in found['warnings']:
        said = Text.assemble(('warning', 'yellow'), f' {warning}')
        out.print(said, soft_wrap=True)
    out.print('valid' + (f', {len(found["warnings"])} warnings' if found['warnings'] else ''))


def init(args: argparse.Namespace) -> int:
    """Write a first robot file."""
    from .experiments.observed import observe_bag
    from .learning.store import write_atomically
    from .robot.draft import draft
    from .robot.draft_text import name_of
    from .robot.spec import parse_robot

    if args.name != name_of(args.name):
        raise UserError(
            f'--name {args.name!r}: give a name of letters, digits and _ that begins with a '
            f'letter, e.g. {name_of(args.name)}'
        )
    path = args.out or Path(f'{args.name}.yaml')
    if path.exists() and not args.force:
        raise UserError(f'{path} is there already; give another --out, or --force')
    if args.from_bag is not None:
        seen = observe_bag(args.from_bag)
    else:
        try:
            from .nodes.discover import observe_topics
        except ImportError as error:
            raise UserError(
                f'--from-topics needs ROS 2 ({error}); source its setup, or use --from-bag'
            ) from None
        seen = observe_topics(args.seconds, arguments.domain_of(args))
    text = draft(seen, args.name)
    parse_robot(text, 'the file to be written')
    write_atomically(path, text.encode())
    print(path)
    print(f'edit what is marked EDIT, then: lifelong-bayes robot check {path}')
    return 0
