"""The `life` command: lives of robots over seeds, beside the frozen model and the oracle."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..dynamics.model import Prior
from ..learning.store import write_atomically
from ..robot.spec import RobotSpec, load_robot
from .agents import LearningAgent, OracleAgent
from .baselines.frozen import Frozen
from .life import Trace, run_life
from .metrics import Summary, summarise
from .priors import oracle_for, prior_for
from .report import draw_life
from .schedule import Life, load_life

Status = Callable[[str, float], None]  # what is going on, share done


def specialists(spec: RobotSpec, life: Life, status: Status) -> dict[str, Prior]:
    """The oracle's networks, one per regime of a life."""
    return {
        name: oracle_for(
            spec, shifts, progress=lambda share, what, n=name: status(f'oracle {n}: {what}', share)
        )
        for name, shifts in life.regimes.items()
    }


def run_baselines(
    spec: RobotSpec, life: Life, seed: int, status: Status = lambda what, share: None
) -> dict[str, Trace]:
    """The frozen model and the oracle through a life."""
    prior = prior_for(spec, progress=lambda share, what: status(what, share))
    oracle = OracleAgent(specialists(spec, life, status), life, seed)
    agents = {'frozen': Frozen(prior, seed), 'oracle': oracle}
    return {
        name: run_life(spec, life, agent, seed, _steps_of(name, life, status))
        for name, agent in agents.items()
    }


def run_ours(
    spec: RobotSpec, life: Life, seed: int, status: Status = lambda what, share: None
) -> Trace:
    """The learner through a life, without ROS."""
    prior = prior_for(spec, progress=lambda share, what: status(what, share))
    agent = LearningAgent(prior, seed)
    return run_life(spec, life, agent, seed, _steps_of('ours', life, status))


def _steps_of(name: str, life: Life, status: Status) -> Callable[[int], None]:
    return lambda step: status(f'{name} through the life', step / life.steps)


def result(robot: str, seed: int, traces: dict[str, Trace], summary: Summary) -> dict[str, Any]:
    """What is kept of one life as JSON."""
    ours = traces['ours']
    return {
        'robot': robot,
        'seed': seed,
        'summary': asdict(summary),
        'coverage90': float(np.mean(ours.inside)) if ours.inside else None,
        'crashes': {name: int(np.sum(t.crashed)) for name, t in traces.items()},
        'events': [asdict(e) for e in ours.events],
        'score': {name: t.score for name, t in traces.items()},
    }


def life_command(
    robots: list[str], seeds: list[int], out: Path | None, status: Status
) -> dict[str, Any]:
    """Run lives; with `out`, each is kept there and not run again."""
    results = []
    for robot in robots:
        spec, life = load_robot(robot), load_life(robot)
        for seed in seeds:
            kept = out / f'{robot}-{seed}.json' if out else None
            if kept is not None and kept.is_file():
                results.append(json.loads(kept.read_text()))
                continue
            label = f'{robot} seed {seed}: '
            traces = run_baselines(spec, life, seed, lambda w, s, p=label: status(p + w, s))
            traces['ours'] = run_ours(spec, life, seed, lambda w, s, p=label: status(p + w, s))
            scores = {name: np.array(t.score) for name, t in traces.items()}
            summary = summarise(life, scores['ours'], scores['frozen'], scores['oracle'])
            results.append(result(robot, seed, traces, summary))
            if kept is not None:
                title = f'{robot}, seed {seed}: one life of hidden regimes, without ROS'
                draw_life(life, spec.period, traces, summary, kept.with_suffix('.png'), title)
                write_atomically(kept, json.dumps(results[-1]).encode())
    return report_object('life', seeds, life_rows(results)) | {'lives': results}


# Bars for the two figures that a life is judged by here.
GAP_BAR = {'quad': 0.7, 'arm': 0.9}
HOME_BAR = 0.97


def life_rows(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per robot and figure, means over seeds."""
    rows = []
    for robot in dict.fromkeys(r['robot'] for r in results):
        mine = [r['summary'] for r in results if r['robot'] == robot]
        for key, what, bar in (
            ('gap_closed', 'gap closed', GAP_BAR.get(robot, 0.6)),
            ('home', 'score at home, learning on / off', HOME_BAR),
        ):
            value = float(np.mean([m[key] for m in mine]))
            rows.append(row(f'{robot}: {what}', value, '', 'higher', bar))
    return rows


def row(
    name: str, value: float, unit: str, better: str, bar: float | None, aim: float | None = None
) -> dict[str, Any]:
    """One published figure."""
    ok = None
    if bar is not None:
        ok = bool(value >= bar if better == 'higher' else value <= bar)
    return {
        'name': name,
        'value': value,
        'unit': unit,
        'better': better,
        'bar': bar,
        'aim': aim,
        'ok': ok,
    }


def report_object(command: str, seeds: list[int], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The object that every `--json` command prints."""
    packages = ('torch', 'numpy', 'mujoco', 'lifelong_bayes_ros')
    return {
        'command': command,
        'machine': f'{platform.machine()} {platform.system()} Python {platform.python_version()}',
        'versions': {p: version(p) for p in packages},
        'seeds': seeds,
        'rows': rows,
    }
