"""Commands to watch, record and look back: `watch`, `record`, `draw`, `report`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from . import arguments

Command = Callable[[str, Any, str], argparse.ArgumentParser]


def register(command: Command) -> None:
    """Add the commands to the command line."""
    path = arguments.path
    bag = {'metavar': 'BAG', 'type': path, 'help': 'bag folder, or one MCAP file'}

    sub = command('watch', watch, 'show what the robot believes, live, in the terminal')
    _graph(sub)
    sub.add_argument(
        '--seconds', type=arguments.seconds, help='end after so long (default: with Ctrl-C)'
    )

    sub = command('record', record, 'record the graph to MCAP; ends with Ctrl-C')
    _graph(sub)
    sub.add_argument('--robot', required=True, help='robot name or robot file')
    sub.add_argument(
        '--out', type=path, required=True, help='folder of the bag; must not exist yet'
    )
    sub.add_argument(
        '--file-megabytes',
        type=arguments.within(int, 1, 65536),
        default=512,
        help='size of one file (default 512)',
    )

    sub = command('draw', draw, 'draw from a bag what RViz showed')
    sub.add_argument('bag', **bag)
    sub.add_argument(
        '--out',
        type=path,
        required=True,
        help='.png (or .svg, .pdf) for a picture, .gif or .mp4 for a film',
    )
    sub.add_argument(
        '--at',
        type=float,
        help="second of the robot's clock since the first transition, as in the report "
        '(default: the end); pictures only',
    )

    sub = command('report', report, 'one page on a recording or a demo: what changed, how sure')
    sub.add_argument('run', metavar='BAG|RUN', type=path, help='bag, or the folder of a demo')
    sub.add_argument(
        '--out',
        type=path,
        help='HTML file (default: report.html in the folder); its picture is written beside it, '
        'as .png',
    )
    sub.add_argument('--method', help='also compare methods, as `replay --method`')
    sub.add_argument('--json', action='store_true', help='print one JSON object')


def _graph(sub: argparse.ArgumentParser) -> None:
    arguments.add_namespace(sub)
    arguments.add_domain_id(sub)


def watch(args: argparse.Namespace) -> int:
    """Show the live view."""
    from .nodes.watch import watch as start

    return start(args.namespace, arguments.domain_of(args), args.seconds)


def record(args: argparse.Namespace) -> int:
    """Run the recorder."""
    from .nodes.record import record as start

    domain_id = arguments.domain_of(args)
    return start(args.robot, args.out, args.namespace, domain_id, args.file_megabytes)


def draw(args: argparse.Namespace) -> int:
    """Draw a picture or a film."""
    from .experiments.draw import draw_bag

    print(draw_bag(args.bag, args.out, args.at))
    return 0


def report(args: argparse.Namespace) -> int:
    """Write the page."""
    from .cli import status_bar
    from .experiments.page import write_page

    with status_bar() as status:
        found = write_page(args.run, args.out, args.method, status)
    print(json.dumps(found) if args.json else found['page'])
    return 0
