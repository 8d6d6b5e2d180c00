"""Types of command line arguments: what several commands take, checked before anything starts."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import UserError
from .nodes.table import RANGES, parse_common
from .robot.names import NAMESPACE


def within(kind: type[int] | type[float], low: int, high: int) -> Callable[[str], Any]:
    """The type of a number from `low` to `high`."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            what = 'whole number' if kind is int else 'number'
            raise argparse.ArgumentTypeError(f'{text!r}: give a {what} from {low} to {high}')
        return value

    return read


seed = within(int, *RANGES['seed'])
share = within(float, 0, 1)
seconds = within(float, 0, 10**9)
domain_id = within(int, 0, 232)  # higher ones would need ports that there are not


def path(text: str) -> Path:
    """A path; an empty one would be the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError('is empty; give a path')
    return Path(text)


def paths(text: str) -> list[Path]:
    """Paths, comma-separated, none of them twice."""
    found = [path(part) for part in text.split(',')]
    known = {}
    for one in found:
        other = known.setdefault(one.resolve(), one)
        if other is not one:
            raise argparse.ArgumentTypeError(f'{other} and {one} are the same; give it once')
    return found


def namespace(text: str) -> str:
    """A ROS namespace, with its leading slash."""
    try:
        return parse_common({'namespace': text}).namespace
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix('namespace: ')) from None


def add_domain_id(sub: argparse.ArgumentParser) -> None:
    """Add `--domain-id`; see `domain_of`."""
    sub.add_argument(
        '--domain-id', type=domain_id, help='ROS domain, 0 to 232 (default: ROS_DOMAIN_ID)'
    )


def domain_of(args: argparse.Namespace) -> int | None:
    """The ROS domain that was given; None: that of the environment.

    Raises:
        UserError: the environment names none.
    """
    text = os.environ.get('ROS_DOMAIN_ID')
    if args.domain_id is None and text:
        try:
            domain_id(text)
        except argparse.ArgumentTypeError as error:
            raise UserError(f'ROS_DOMAIN_ID={error}') from None
    return args.domain_id


def add_namespace(sub: argparse.ArgumentParser) -> None:
    """Add `--namespace`."""
    sub.add_argument(
        '--namespace',
        type=namespace,
        default=NAMESPACE,
        help='namespace of the nodes (default /lifelong)',
    )
