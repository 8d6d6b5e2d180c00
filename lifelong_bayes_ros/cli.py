"""The `lifelong-bayes` command."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import threads  # noqa: F401  isort: skip  (before numpy)
from . import arguments, memory_commands, policy_commands, robot_commands, watch_commands
from .errors import UserError, of_a_path
from .paths import check_writable, check_writable_file

console = Console(stderr=True)


@contextmanager
def status_bar() -> Iterator[Any]:
    """A progress bar on stderr that shows what is going on: call it with (what, share)."""
    columns = (TextColumn('{task.description}', markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task('starting', total=1.0)

        def status(what: str, share: float) -> None:
            bar.update(task, description=what, completed=share)

        yield status


def say(line: str) -> None:
    """Tell the person who waits, on stderr."""
    console.print(line, highlight=False, markup=False)


def print_rows(report: dict[str, Any]) -> None:
    """The rows of a report as a table on stdout."""
    table = Table()
    for heading in ('', 'value', 'unit', 'bar', 'aim', 'met'):
        table.add_column(heading, justify='left' if not heading else 'right')
    for r in report['rows']:
        sign = '≥ ' if r['better'] == 'higher' else '≤ '
        met = {None: '', True: 'yes', False: 'NO'}[r['ok']]
        bar, aim = ('' if r[k] is None else f'{sign}{r[k]:g}' for k in ('bar', 'aim'))
        value = 'none' if r['value'] is None else f'{r["value"]:.4g}'
        if r.get('interval'):
            value += ' [{:.3g}, {:.3g}]'.format(*r['interval'])
        table.add_row(r['name'], value, r['unit'], bar, aim, met)
    Console().print(table)


def deliver(report: dict[str, Any], as_json: bool) -> int:
    """Print a report; status 1 if a bar was missed or something failed."""
    if as_json:
        print(json.dumps(report))
    else:
        print_rows(report)
    return int(any(r['ok'] is False for r in report['rows']) or bool(report.get('failed')))


def seeds_of(text: str) -> list[int]:
    """Seeds 0 to N−1 of `N`, or A to B−1 of `A:B`.

    Raises:
        UserError: neither.
    """
    first, colon, last = text.rpartition(':')
    try:
        seeds = list(range(int(first) if colon else 0, int(last)))
    except ValueError:
        seeds = []
    if not seeds or seeds[0] < 0:
        raise UserError(
            f'--seeds {text}: give how many, e.g. 10 for seeds 0 to 9, or a range, e.g. 100:110'
        )
    return seeds


def methods_given(text: str) -> list[str]:
    """The methods that `--methods` names."""
    from .experiments.agents import methods_named

    try:
        return methods_named(text)
    except UserError as error:
        raise UserError(f'--{error}') from None


def demo(args: argparse.Namespace) -> int:
    """Run the main job."""
    from .experiments.demo import run_demo

    if args.late_budget is not None and not args.realtime:
        raise UserError(
            f'--late-budget {args.late_budget:g}: is for --realtime only; leave it out'
        )
    budget = 0.05 if args.late_budget is None else args.late_budget
    out = args.out or Path(f'out/demo-{args.robot}-{args.seed}')
    return run_demo(args.robot, args.seed, out, args.realtime, budget, args.json)


def life(args: argparse.Namespace) -> int:
    """Run lives without ROS."""
    from .experiments.lives import life_command
    from .experiments.schedule import life_names

    given = [text for text in (args.robots, args.life) if text is not None]
    chosen = [part for text in given for part in text.split(',')]
    if args.jobs < 1:
        raise UserError(f'--jobs {args.jobs}: give at least 1')
    if args.ray is not None and not args.ray.strip():
        raise UserError('--ray is empty; give the address of a Ray cluster, or `local`')
    with status_bar() as status:
        report = life_command(
            chosen or [name for name in life_names() if '/' not in name],
            seeds_of(args.seeds),
            args.out,
            status,
            methods_given(args.methods),
            args.jobs,
            args.ray,
            say,
        )
    if not args.json:
        print_summaries(report)
    return deliver(report, args.json)


def print_summaries(report: dict[str, Any]) -> None:
    """Methods in each life, means over seeds, as tables on stdout."""
    from .experiments.tables import method_tables

    for table in method_tables(report['summaries']):
        Console().print(table)


def pretrain(args: argparse.Namespace) -> int:
    """Fit the task prior of a robot."""
    from .experiments.priors import prior_or_broad
    from .learning.broad import SCRATCH
    from .learning.codec import encode_prior, fingerprint
    from .learning.store import write_atomically
    from .robot.spec import load_robot

    if args.out is not None:
        check_writable_file(args.out, '--out')
    meta = {'config': vars(SCRATCH)}
    if args.bag is not None:
        prior, remark = pretrain_from_bags(args.bag, args)
    else:
        with status_bar() as status:
            prior, remark = prior_or_broad(
                load_robot('quad' if args.robot is None else args.robot),
                args.seed,
                progress=lambda share, what: status(what, share),
            )
        if not remark:
            meta = {}
    dynamics = prior.dynamics
    print(f'prior {fingerprint(prior)} of robot {dynamics.spec.name}: {dynamics.size} parameters')
    if remark:
        say(remark)
    if args.out is not None:
        write_atomically(args.out, encode_prior(prior, **meta))
        print(args.out)
    return 0


def pretrain_from_bags(bags: list[Path], args: argparse.Namespace) -> tuple[Any, str]:
    """The prior from recordings, and what to say about it."""
    from .experiments.priors import recorded_prior
    from .experiments.recordings import read_segments, recorded_spec
    from .learning.pretrain import PretrainConfig
    from .robot.spec import load_robot

    config = PretrainConfig()
    spec = recorded_spec(bags[0]) if args.robot is None else load_robot(args.robot)
    with status_bar() as status:

        def progress(share: float, what: str) -> None:
            status(what, share)

        segments = read_segments(bags, spec, config.segment, progress, say)
        prior = recorded_prior(segments, spec, args.seed, config, progress)
    count = sum(len(s.x) for s in segments)
    print(f'{count} transitions in {len(segments)} segments')
    if len(segments) >= config.segments:
        return prior, ''
    return prior, (
        f'{len(segments)} segments cannot show how the robot changes: the prior has the broad '
        f'covariance of one that learns from scratch; record {config.segments} or more segments '
        f'of {config.segment} transitions under different conditions'
    )


def replay(args: argparse.Namespace) -> int:
    """Learn from a bag, without ROS."""
    from .experiments.replay import replay_bag

    if args.method is not None:
        if args.out is not None:
            raise UserError(
                f'--out {args.out}: is not for --method, which keeps no state; leave it out'
            )
        from .experiments.compare import compare_command

        with status_bar() as status:
            report = compare_command(args.bag, args.method, status)
        return deliver(report, args.json)

    with status_bar() as status:
        outcome = replay_bag(args.bag, args.out, status)
    if args.json:
        print(json.dumps(outcome))
    else:
        print(
            f'{outcome["transitions"]} transitions in {outcome["seconds"]:.1f} s, '
            f'{outcome["speed"]:.1f} × real time; {outcome["cpu_seconds"]:.1f} s of the '
            f'processor, {outcome["cpu_speed"]:.1f} × real time'
        )
        print(f'posterior sha256 {outcome["digest"]}')
        if outcome['began_at']:
            print(f'the recording began at transition {outcome["began_at"]} of the learner')
        if outcome['knew_more']:
            print(
                'the live learner knew more when this recording began, and the bag has no copy of '
                'its state: this is not its posterior'
            )
        elif outcome['equal'] is None:
            print('the bag holds no digest of the live posterior to compare with')
        else:
            verdict = 'yes' if outcome['equal'] else f'NO, {outcome["reason"]}'
            times = len(outcome['recorded'])
            print(f'equal to the live posterior at the {times} times that it was saved: {verdict}')
    return int(outcome['equal'] is False)


def up(args: argparse.Namespace) -> int:
    """Start the nodes where there is no `launch`."""
    from .nodes.bringup import up as start
    from .nodes.table import COMMON, SETTINGS, parse_common, parse_settings

    texts = {s.name: getattr(args, s.name) or '' for s in (*SETTINGS, *COMMON)}
    texts['realtime'] = texts['realtime'] or texts['sim']
    texts['viz'] = texts['viz'] or 'true'
    common = parse_common({s.name: texts[s.name] for s in COMMON})
    settings = parse_settings({s.name: texts[s.name] for s in SETTINGS})
    if settings.get('sim'):
        settings.setdefault('robot', 'quad')
    elif not (settings.keys() & {'robot', 'bag'} or common.params_file):
        raise UserError(
            'robot: none is given; give a shipped robot or a robot file, or --sim, or --bag'
        )
    return start(settings, common, arguments.domain_of(args), args.logs)


def bench(args: argparse.Namespace) -> int:
    """Print figures."""
    from .experiments.bench import run_all, run_bench

    if args.hz is not None and args.what != 'realtime':
        raise UserError('--hz is for `bench realtime` only; leave it out')
    if args.what == 'stream':
        return bench_stream(args)
    if args.what in ('policy', 'risk'):
        return bench_lives(args)
    given = [f'--{k}' for k in STREAM_DEFAULTS if getattr(args, k) is not None]
    if given:
        raise UserError(f'{given[0]} is not for `bench {args.what}`; leave it out')
    with status_bar() as status:
        if args.what == 'all':
            report = run_all(status)
        else:
            report = run_bench(args.what, status, args.hz)
    return deliver(report, args.json)


def bench_lives(args: argparse.Namespace) -> int:
    """Lives with tight limits, or with a policy posterior."""
    from .experiments.bench_policy import policy_report
    from .experiments.bench_risk import risk_report

    if args.methods is not None:
        raise UserError(f'--methods is not for `bench {args.what}`; leave it out')
    jobs = 2 if args.jobs is None else args.jobs
    if jobs < 1:
        raise UserError(f'--jobs {jobs}: give at least 1')
    if args.out is not None:
        check_writable(args.out, '--out')
    measure = risk_report if args.what == 'risk' else policy_report
    with status_bar() as status:
        report = measure(status, seeds_of(args.seeds or '10'), args.out, jobs)
    return deliver(report, args.json)


STREAM_DEFAULTS = {'methods': 'all', 'seeds': '10', 'jobs': 1, 'out': 'out/bench/stream'}


def bench_stream(args: argparse.Namespace) -> int:
    """Compare methods on open-loop streams."""
    from .experiments.bench_stream import stream_command, stream_tables

    chosen = {
        k: v if (v := getattr(args, k)) is not None else d for k, d in STREAM_DEFAULTS.items()
    }
    if chosen['jobs'] < 1:
        raise UserError(f'--jobs {chosen["jobs"]}: give at least 1')
    with status_bar() as status:
        report = stream_command(
            methods_given(chosen['methods']),
            seeds_of(chosen['seeds']),
            Path(chosen['out']),
            status,
            chosen['jobs'],
        )
    if not args.json:
        for table in stream_tables(report['tables']):
            Console().print(table)
    return deliver(report, args.json)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    from .nodes.table import COMMON, SETTINGS, UP_DEFAULTS

    top = argparse.ArgumentParser(
        prog='lifelong-bayes',
        description='A robot that learns its own dynamics while it works, knows what it does not '
        'know, and does not forget.',
        epilog='Start with `lifelong-bayes demo`.',
    )
    commands = top.add_subparsers(dest='command', required=True, metavar='COMMAND')

    def command(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        return sub

    sub = command('demo', demo, 'run one life of hidden regimes through real ROS 2 nodes')
    sub.add_argument(
        '--robot',
        default='quad',
        help='simulated robot: quad, arm, six_axis, diffdrive, base or cartpole (default quad)',
    )
    sub.add_argument(
        '--seed', type=arguments.seed, default=0, help='seed of every random stream (default 0)'
    )
    sub.add_argument(
        '--out',
        type=arguments.path,
        help='folder for report, bag and state, new or of an earlier demo '
        '(default out/demo-ROBOT-SEED)',
    )
    sub.add_argument(
        '--realtime',
        action='store_true',
        help='run by the clock on the wall instead of as fast as all nodes keep up',
    )
    sub.add_argument(
        '--late-budget',
        type=arguments.share,
        help='with --realtime: share of control steps that may come late (default 0.05)',
    )
    sub.add_argument('--json', action='store_true', help='print report.json on stdout')

    sub = command(
        'life',
        life,
        'run methods through lives of hidden regimes without ROS, beside the frozen model and the '
        'oracle; an interrupted run goes on where it was',
    )
    sub.add_argument(
        '--robots', help='own lives of these, comma-separated (default: of all, without --life)'
    )
    sub.add_argument(
        '--life', help='other lives: names, folders of shipped ones, or files, comma-separated'
    )
    sub.add_argument('--methods', default='ours', help='comma-separated, or all (default ours)')
    sub.add_argument(
        '--seeds', default='1', help='N for seeds 0 to N-1, or A:B for A to B-1 (default 1)'
    )
    sub.add_argument('--jobs', type=int, default=1, help='processes, one thread each (default 1)')
    sub.add_argument(
        '--ray', metavar='ADDRESS', help='run on this Ray cluster instead; `local` starts one here'
    )
    sub.add_argument(
        '--out',
        type=arguments.path,
        help='folder for results and pictures; a run found there is kept',
    )
    sub.add_argument('--json', action='store_true', help='print one JSON object')

    sub = command(
        'pretrain',
        pretrain,
        'fit the trunk and task prior of a robot: in simulation, or from recordings of it; a '
        'robot with neither gets a broad prior and learns from scratch',
    )
    sub.add_argument(
        '--robot',
        help='robot name or robot file (default: quad; with --bag: the robot that was recorded)',
    )
    sub.add_argument(
        '--bag',
        type=arguments.paths,
        help='MCAP bag folders, comma-separated, that hold the topic `transition` of '
        'transition_streamer, recorded under all conditions that the robot will meet',
    )
    sub.add_argument('--seed', type=arguments.seed, default=0)
    sub.add_argument(
        '--out', type=arguments.path, help='also write the prior to this file (.safetensors)'
    )

    sub = command(
        'replay', replay, 'learn from a recorded bag, without ROS, and compare posteriors'
    )
    sub.add_argument('bag', type=arguments.path, help='MCAP bag folder, e.g. out/demo-quad-0/bag')
    sub.add_argument(
        '--out',
        type=arguments.path,
        help='write the learned state to this folder; must not exist yet',
    )
    sub.add_argument(
        '--method',
        metavar='M',
        help='compare methods on the bag instead: comma-separated, or all that need no simulator',
    )
    sub.add_argument('--json', action='store_true', help='print one JSON object')

    watch_commands.register(command)
    memory_commands.register(command)
    policy_commands.register(command)
    robot_commands.register(command)

    sub = command('up', up, 'start the nodes where there is no `launch`; ends with Ctrl-C')
    for setting in (*SETTINGS, *COMMON):
        flag = {'nargs': '?', 'const': 'true'} if setting.kind is bool else {}
        told = UP_DEFAULTS.get(setting.name)
        sub.add_argument(
            f'--{setting.name.replace("_", "-")}',
            help=setting.description + (f' (default: {told})' if told else ''),
            **flag,
        )
    sub.add_argument(
        '--logs',
        type=arguments.path,
        default='out/up',
        help='folder of the logs (default out/up)',
    )
    arguments.add_domain_id(sub)

    sub = command('bench', bench, 'measure, beside the bar that each figure has to meet')
    sub.add_argument(
        'what',
        choices=[
            'gpu',
            'loop',
            'memory',
            'merge',
            'optimizer',
            'planner',
            'policy',
            'quality',
            'realtime',
            'risk',
            'ros',
            'safety',
            'stream',
            'all',
        ],
        help='what to measure; `all` adds lives of all robots, goes on where it was '
        'interrupted, and writes BENCHMARKS.md',
    )
    sub.add_argument('--hz', type=float, help='realtime: control rate (default 100)')
    sub.add_argument('--methods', help='stream: comma-separated (default all)')
    sub.add_argument(
        '--seeds', help='stream, policy, risk: N for 0 to N-1, or A:B for A to B-1 (default 10)'
    )
    sub.add_argument(
        '--jobs',
        type=int,
        help='stream, policy, risk: processes, one thread each (default 1, 2, 2)',
    )
    sub.add_argument(
        '--out',
        type=arguments.path,
        help='stream, policy, risk: folder of results; a run found there is kept '
        '(default out/bench/...)',
    )
    sub.add_argument('--json', action='store_true', help='print one JSON object')
    return top


def main(argv: list[str] | None = None) -> int:
    """Entry point; a user's mistake ends with status 2 and no traceback."""
    args = argparse.Namespace(command='')
    try:
        parser().parse_args(argv, args)
        import torch

        torch.set_num_threads(1)
        with ended_as_by_ctrl_c():
            code = args.function(args)
        sys.stdout.flush()  # what it meets is told here, not at exit
        return code
    except UserError as error:
        return refuse(args.command, error)
    except BrokenPipeError:  # nobody reads on, e.g. `| head`
        _drop_stdout()
        return 141
    except OSError as error:
        told = of_a_path(error)
        if told is None:
            raise
        _drop_stdout()
        return refuse(args.command, told)
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be gone
            console.print('interrupted')
        return 130


@contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """Let `kill`, a service manager and a closed terminal end a command in the same order."""
    # What is ignored stays so, e.g. under nohup.
    mine = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_DFL]

    def interrupt(*_: Any) -> None:
        for number in mine:  # a terminal that closes says it twice
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in mine:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


def refuse(command: str, error: UserError) -> int:
    """Say what was wrong; returns the exit status."""
    # What it says may look like markup, e.g. the name of an extra.
    said = escape(str(error))
    # Unbroken lines: a path must stay whole.
    console.print(f'[red]lifelong-bayes {command}:[/red] {said}', highlight=False, soft_wrap=True)
    return 2


def _drop_stdout() -> None:
    """Let what is left in its buffer go nowhere, where it could not be written."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):  # it may be no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == '__main__':
    sys.exit(main())
