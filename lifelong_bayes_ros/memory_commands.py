"""The commands of an operator on a state directory: what a robot remembers, and changing that."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .errors import UserError

if TYPE_CHECKING:
    from .learning.learner import Learner
    from .memory.regimes import Regime

Command = Callable[[str, Any, str], argparse.ArgumentParser]


class RolledBack(Exception):
    """A consolidation was: the state is not written."""


def register(command: Command) -> None:
    """Add the commands to the command line."""
    state = {'metavar': 'STATE', 'help': 'state directory of a learner that is not running'}
    as_json = {'action': 'store_true', 'help': 'print one JSON object'}

    sub = command('regimes', regimes, 'list the regimes that a robot remembers; name them')
    sub.add_argument('state', **state)
    sub.add_argument(
        '--name', action='append', default=[], metavar='OLD=NEW', help='call a regime by a name'
    )
    sub.add_argument(
        '--note', action='append', default=[], metavar='REGIME=TEXT', help='keep a note on it'
    )
    sub.add_argument('--json', **as_json)

    sub = command('consolidate', consolidate, 'merge and prune what a robot remembers, offline')
    sub.add_argument('state', **state)
    sub.add_argument('--json', **as_json)

    sub = command(
        'memory-map',
        memory_map,
        'draw how sensitive a posterior is to what it remembers: regular, uncertain and '
        'unpredictable transitions, and the most memorable ones',
    )
    sub.add_argument('state', **state)
    sub.add_argument('--out', help='picture to write, e.g. map.png (default: none with --json)')
    sub.add_argument('--json', action='store_true', help='list the transitions as JSON')

    sub = command('forget', forget, 'take an episode out of what a robot learned, exactly')
    sub.add_argument('state', **state)
    sub.add_argument(
        '--episode', type=int, required=True, help='its number; memory-map tells numbers'
    )
    sub.add_argument('--json', **as_json)

    sub = command('merge', merge, 'merge what two robots of the same kind learned')
    sub.add_argument('first', metavar='STATE_A', help='state directory')
    sub.add_argument('second', metavar='STATE_B', help='state directory of the other robot')
    sub.add_argument('--out', required=True, help='state directory to make')
    sub.add_argument(
        '--prior', help='where trunks kept learning: the prior file that both robots started from'
    )
    sub.add_argument('--json', **as_json)


def regimes(args: argparse.Namespace) -> int:
    """List regimes, after naming them."""
    from .learning.store import load_state, revised

    folder = Path(args.state)
    if args.name or args.note:
        with revised(folder) as learner:
            names = _pairs('--name', args.name)
            for old, new in names.items():
                learner.library.rename(old, new)
                if old in learner.filter.probabilities:
                    learner.filter.rename(old, new)
                if learner.background is not None:
                    learner.background.rename(old, new)
            for name, text in _pairs('--note', args.note).items():
                learner.library.note(names.get(name, name), text)
    learner = load_state(folder)
    listed = [
        {
            'name': r.name,
            'note': learner.library.notes.get(r.name, ''),
            'live': r.name == learner.regime,
            'transitions': r.reservoir.seen,
            'remembered': len(r.reservoir.samples),
            'episodes': sorted(_episodes(learner, r)),
            'folded': sorted(r.tape.everything_folded()),
            'bytes': r.nbytes(),
        }
        for r in learner.library.regimes
    ]
    robot = learner.dynamics.spec.name
    if args.json:
        print(json.dumps({'command': 'regimes', 'robot': robot, 'regimes': listed}))
        return 0
    table = Table(title=f'what {robot} remembers after {learner.step} transitions')
    for heading in ('regime', 'transitions', 'remembered', 'episodes', 'kB', 'note'):
        table.add_column(heading, justify='left' if heading in ('regime', 'note') else 'right')
    for r in listed:
        name = f'{r["name"]} (now)' if r['live'] else r['name']
        numbers = (r['transitions'], r['remembered'], _ranges(r['episodes']), r['bytes'] // 1000)
        table.add_row(name, *map(str, numbers), Text(r['note']))
    Console().print(table)
    return 0


def _episodes(learner: Learner, regime: Regime) -> set[int]:
    """Episodes that a regime holds transitions of, one by one; the running one, too."""
    live = learner.tape.episodes if regime.name == learner.regime else frozenset()
    return {*regime.tape.episodes, *live, *(s.episode for s in regime.reservoir.samples)}


def consolidate(args: argparse.Namespace) -> int:
    """Consolidate offline."""
    from .learning.store import revised

    with suppress(RolledBack), revised(Path(args.state)) as learner:
        learner.take_events()
        names, size = learner.library.names, learner.library.nbytes()
        result = learner.consolidate()
        detail = learner.take_events()[-1].detail
        if not result.accepted:  # nor is the live head committed, which came first
            detail |= {'regimes': names, 'bytes': size}
            raise RolledBack
    if args.json:
        print(json.dumps({'command': 'consolidate', 'accepted': result.accepted, **detail}))
    else:
        print('consolidated' if result.accepted else f'rolled back: {result.reason}')
        print(f'{len(detail["regimes"])} regimes, {detail["bytes"] / 1e6:.1f} MB')
        for line in detail['why']:
            print(f'- {line}')
    return int(not result.accepted)


def memory_map(args: argparse.Namespace) -> int:
    """Draw or list what is remembered."""
    from .learning.store import load_state
    from .memory.sensitivity import KINDS, memorable

    if not args.out and not args.json:
        raise UserError('give a picture to write with --out map.png, or --json, or both')
    learner = load_state(Path(args.state))
    found = memorable(learner.dynamics, learner.library, learner.family)
    if args.out:
        from .experiments.memory_picture import draw

        draw(learner.dynamics, learner.library, found, Path(args.out))
    kinds = {kind: sum(m.kind == kind for m in found) for kind in KINDS}
    if args.json:
        listed = []
        for m in found:
            s = m.sample
            where = {'stamp_ns': s.stamp_ns, 'episode': s.episode}
            figures = {k: v for k, v in vars(m).items() if k != 'sample'}
            arrays = {k: getattr(s, k).tolist() for k in ('x', 'u', 'x_next')}
            listed.append({**where, **figures, **arrays})
        head = {'command': 'memory-map', 'robot': learner.dynamics.spec.name, 'kinds': kinds}
        print(json.dumps({**head, 'picture': args.out, 'transitions': listed}))
    else:
        print(', '.join(f'{n} {kind}' for kind, n in kinds.items()))
        print(args.out)
    return 0


def forget(args: argparse.Namespace) -> int:
    """Take an episode out."""
    from .cli import status_bar
    from .learning.forgetting import forget as take_out
    from .learning.store import revised

    with revised(Path(args.state)) as learner:
        with status_bar() as status:
            what = f'taking out episode {args.episode}'
            done = take_out(learner, args.episode, lambda share: status(what, share))
        digest = learner.digest()
    if args.json:
        print(json.dumps({'command': 'forget', **asdict(done), 'digest': digest}))
        return 0
    print(
        f'episode {done.episode}: {done.transitions} transitions taken out of '
        f'{", ".join(done.regimes) or "no head"}, {done.remembered} out of reservoirs'
    )
    for name in done.dropped:
        print(f'- {name} knew nothing else and is gone')
    return 0


def merge(args: argparse.Namespace) -> int:
    """Merge two states into a new one."""
    from .learning.codec import decode_prior
    from .learning.merging import merge_states
    from .learning.store import load_state, save_new

    out = Path(args.out)
    if out.exists():
        raise UserError(f'--out {out}: is there already; give a folder that is not')
    origin = None
    if args.prior:
        path = Path(args.prior)
        if not path.is_file():
            raise UserError(f'--prior {path}: does not exist')
        origin = decode_prior(path.read_bytes(), str(path))[0]
    merged = merge_states(load_state(Path(args.first)), load_state(Path(args.second)), origin)
    save_new(merged.learner, out)
    result = {
        'command': 'merge',
        'regimes': merged.learner.library.names,
        'merged': [list(m) for m in merged.outcome.merged],
        'pruned': merged.outcome.pruned,
        'why': merged.outcome.why,
        'accepted': merged.outcome.accepted,
        'reason': merged.outcome.reason,
        'left_out': merged.left_out,
        'renamed': merged.renamed,
        'episode_offset': merged.offset,
        'digest': merged.learner.digest(),
    }
    if args.json:
        print(json.dumps(result))
        return 0
    print(f'{out}: {", ".join(result["regimes"])}')
    if not merged.outcome.accepted:
        print(f'- regimes are side by side, none are merged: {merged.outcome.reason}')
    for line in result['why']:
        print(f'- {line}')
    for line in merged.left_out:
        print(f'- left out: {line}')
    for old, new in merged.renamed.items():
        if old != new:
            print(f'- {old} of {args.second} is {new} here')
    print(f'- episodes of {args.second} are numbered from {merged.offset} on')
    return 0


def _pairs(option: str, texts: list[str]) -> dict[str, str]:
    """What each REGIME=TEXT of an option says."""
    pairs: dict[str, str] = {}
    for text in texts:
        first, sign, second = text.partition('=')
        if not sign or not first:
            raise UserError(f'{option} {text}: give REGIME=TEXT, e.g. r1=payload')
        if not second.isprintable():  # a terminal would obey it when regimes are listed
            raise UserError(f'{option} {text!r}: holds control characters; give one plain line')
        if first in pairs:
            raise UserError(
                f'{option} {text}: {first} is given {pairs[first]!r} already; give one of the two'
            )
        pairs[first] = second
    return pairs


def _ranges(numbers: list[int]) -> str:
    """Numbers as text, runs of them as first–last."""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and n == parts[-1][1] + 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return ', '.join(f'{a}' if a == b else f'{a}–{b}' for a, b in parts)
