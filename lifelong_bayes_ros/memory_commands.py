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

from . import arguments
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

    sub = command(
        'consolidate',
        consolidate,
        'merge and prune what a robot remembers, offline, all of it or nothing; exit status 1 if '
        'it was rolled back',
    )
    sub.add_argument('state', **state)
    sub.add_argument(
        '--trunk',
        action='store_true',
        help='let the trunk learn first, from the last transitions; it is adopted only if it '
        'predicts some that were held out decisively better, and no regime worse',
    )
    sub.add_argument(
        '--steps',
        type=arguments.within(int, 1, 10**6),
        help='with --trunk: steps of the Bayesian learning rule (default: as on board)',
    )
    sub.add_argument(
        '--device',
        choices=['cpu', 'cuda'],
        help='with --trunk: where it learns (default cpu)',
    )
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

    sub = command(
        'merge',
        merge,
        'merge what two robots of the same kind learned; regimes of which no merge stands the '
        'test are side by side in the new state, which is whole all the same: exit status 0',
    )
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
    outcomes = learner.outcomes
    labelled = {
        'names': list(outcomes.kinds),
        'remembered': len(outcomes.steps),
        'episodes': sorted(outcomes.episodes),
        'folded': sorted(outcomes.folded),
        'bytes': outcomes.nbytes(),
    }
    if args.json:
        head = {'command': 'regimes', 'robot': robot}
        print(json.dumps({**head, 'regimes': listed, 'outcomes': labelled}))
        return 0
    table = Table(title=f'what {robot} remembers after {learner.step} transitions')
    for heading in ('regime', 'transitions', 'remembered', 'episodes', 'kB', 'note'):
        table.add_column(heading, justify='left' if heading in ('regime', 'note') else 'right')
    for r in listed:
        name = f'{r["name"]} (now)' if r['live'] else r['name']
        numbers = (r['transitions'], r['remembered'], _ranges(r['episodes']), r['bytes'] // 1000)
        table.add_row(name, *map(str, numbers), Text(r['note']))
    Console().print(table)
    if outcomes.kinds:
        print(
            f'outcomes {", ".join(outcomes.kinds)}: {len(outcomes.steps)} labelled steps of '
            f'episodes {_ranges(labelled["episodes"]) or "none"}, {labelled["bytes"] // 1000} kB'
        )
    return 0


def _episodes(learner: Learner, regime: Regime) -> set[int]:
    """Episodes that a regime holds transitions of, one by one; the running one, too."""
    live = learner.tape.episodes if regime.name == learner.regime else frozenset()
    return {*regime.tape.episodes, *live, *(s.episode for s in regime.reservoir.samples)}


def consolidate(args: argparse.Namespace) -> int:
    """Consolidate offline; with `--trunk`, the trunk first. All of it or nothing is written."""
    from .control.arrays import torch_device
    from .learning.store import revised

    given = [f'--{o}' for o in ('steps', 'device') if getattr(args, o) is not None]
    if given and not args.trunk:
        raise UserError(f'{given[0]} is of the trunk only; give --trunk, too, or leave it out')
    device = args.device or 'cpu'
    try:
        torch_device(device)
    except UserError as error:
        raise UserError(f'--device: {error}') from None
    with suppress(RolledBack), revised(Path(args.state), device) as learner:
        done = _consolidated(learner, args.trunk, args.steps)
        if not done['accepted']:
            raise RolledBack
    if args.json:
        print(json.dumps({'command': 'consolidate', **done}))
        return int(not done['accepted'])
    print('consolidated' if done['accepted'] else f'rolled back: {done["reason"]}')
    trunk = done.get('trunk', {})
    if trunk:
        print(f'the trunk learned from {trunk["transitions"]} transitions')
    if 'held_out' in trunk:
        print(
            f'- {trunk["held_out"]} were held out: {trunk["nats_per_step"]:+.3f} nats each\n'
            f'- worst error of a regime on its memory: {trunk["error_ratio"]:.2f} times as before'
        )
    print(f'{len(done["regimes"])} regimes, {done["bytes"] / 1e6:.1f} MB')
    for line in done['why']:
        print(f'- {line}')
    return int(not done['accepted'])


def _consolidated(learner: Learner, trunk: bool, steps: int | None) -> dict[str, Any]:
    """What became of a consolidation, and first of a trunk: what their events hold."""
    from .cli import status_bar

    learner.take_events()
    # What the state holds that is left as it is; nor is the live head committed then.
    before = {'regimes': learner.library.names, 'bytes': learner.nbytes()}
    taught: dict[str, Any] = {}
    if trunk:
        with status_bar() as status:
            outcome = learner.teach_trunk(
                steps, lambda share: status('learning' if share < 1 else 'judging', share)
            )
        taught = {'trunk': outcome.detail}
        if outcome.candidate is None:
            reason = f'the trunk: {outcome.detail["reason"]}'
            return {'accepted': False, **before, 'why': [], 'reason': reason, **taught}
    result = learner.consolidate()
    detail = learner.take_events()[-1].detail
    if not result.accepted:
        detail |= before
    return {'accepted': result.accepted, **detail, **taught}


def memory_map(args: argparse.Namespace) -> int:
    """Draw or list what is remembered."""
    from .learning.store import load_state
    from .memory.sensitivity import KINDS, memorable

    if not args.out and not args.json:
        raise UserError('give a picture to write with --out map.png, or --json, or both')
    learner = load_state(Path(args.state))
    found = memorable(learner.dynamics, learner.library, learner.family)
    labels = learner.outcomes.memorable()
    if args.out:
        from .experiments.memory_picture import draw

        draw(learner.dynamics, learner.library, found, Path(args.out), labels)
    kinds = {kind: sum(m.kind == kind for m in found) for kind in KINDS}
    of_labels = {
        name: {kind: sum((m.outcome, m.kind) == (name, kind) for m in labels) for kind in KINDS}
        for name in learner.outcomes.kinds
    }
    if args.json:
        listed = []
        for m in found:
            s = m.sample
            where = {'stamp_ns': s.stamp_ns, 'episode': s.episode}
            figures = {k: v for k, v in vars(m).items() if k != 'sample'}
            arrays = {k: getattr(s, k).tolist() for k in ('x', 'u', 'x_next')}
            listed.append({**where, **figures, **arrays})
        told = []
        for m in labels:
            s = learner.outcomes.steps[m.step]
            told.append({**vars(m), 'episode': s.episode, 'x': s.x.tolist(), 'u': s.u.tolist()})
        head = {'command': 'memory-map', 'robot': learner.dynamics.spec.name, 'kinds': kinds}
        head |= {'kinds_of_labels': of_labels, 'picture': args.out}
        print(json.dumps({**head, 'transitions': listed, 'labels': told}))
    else:
        for name, counts in {'': kinds, **of_labels}.items():
            told = ', '.join(f'{n} {kind}' for kind, n in counts.items())
            print(f'{name}: {told}' if name else told)
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
