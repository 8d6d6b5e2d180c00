"""The command that learns a policy posterior offline, from recorded choices of the planner."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from . import arguments

Command = Callable[[str, Any, str], argparse.ArgumentParser]


def register(command: Command) -> None:
    """Add the command to the command line."""
    sub = command(
        'learn-policy',
        learn_policy,
        "learn a policy posterior from the planner's choices in a bag, without ROS",
    )
    sub.add_argument(
        'bag', type=arguments.path, help='MCAP bag folder that holds the topic `choice`'
    )
    sub.add_argument(
        '--state',
        type=arguments.path,
        required=True,
        help='state directory to keep it in; one that is there is gone on with',
    )
    sub.add_argument('--robot', help='robot name or robot file (default: the recorded one)')
    sub.add_argument(
        '--seed', type=arguments.seed, help='of one that begins (default: as recorded)'
    )
    sub.add_argument('--json', action='store_true', help='print one JSON object')


def learn_policy(args: argparse.Namespace) -> int:
    """Learn from a bag."""
    from .cli import status_bar
    from .experiments.replay_policy import replay_policy

    with status_bar() as status:
        outcome = replay_policy(args.bag, args.state, args.robot, args.seed, status)
    if args.json:
        print(json.dumps(outcome))
        return 0
    print(f'{outcome["choices"]} choices, {outcome["known"]} with those before; {outcome["file"]}')
    for name, value in (('before', outcome['before']), ('after', outcome['after'])):
        print(f'log likelihood of these choices {name}: {value:.1f} nats each')
    if outcome['equal'] is not None:
        print(f'equal to the posteriors that were recorded: {"yes" if outcome["equal"] else "NO"}')
    return int(outcome['equal'] is False)
