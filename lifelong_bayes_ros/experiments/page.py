"""One page on a recording: what changed, when it was noticed, how sure the robot was."""

from __future__ import annotations

import base64
import html
import io
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np

from ..errors import UserError
from ..learning.store import write_atomically
from ..robot import scene
from .bag import Bag, content, legible, open_bag
from .draw import DPI, GROUND, SIZE, close_up, frames, paint
from .replay import Status

PAGE = 'report.html'
PICTURE = 'report-bag.png'  # beside a demo's own report.png
REPORT = 'report.json'  # of a demo
SHOWN = 40  # events listed
CONSIDERED = ('shift', 'soft_shift', 'recall', 'new_regime', 'guard', 'adopted', 'rolled_back')
STYLE = """
body {font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #222} h1 {font-size: 1.5rem} h2 {font-size: 1.15rem; margin-top: 2rem}
img {max-width: 100%} table {border-collapse: collapse} td, th {padding: .2rem .9rem .2rem 0;
  text-align: left; vertical-align: top} th {color: #666; font-weight: 500}
.headline {display: inline-block; padding: .4rem 1rem; border-radius: .4rem; color: white;
  font-weight: 600}
"""


@dataclass
class Story:
    """What a bag tells of the learner, one entry for each transition."""

    stamps: list[int] = field(default_factory=list)
    nis: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)
    regimes: list[dict[str, float]] = field(default_factory=list)
    spread_stamps: list[int] = field(default_factory=list)
    ignorance: list[float] = field(default_factory=list)  # share of the predicted variance
    events: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)  # the last ones

    @property
    def seconds(self) -> np.ndarray:
        """Time of each transition since the first."""
        return (np.array(self.stamps, float) - self.stamps[0]) * 1e-9


def read_story(bag: Bag, path: Path) -> Story:
    """Read a bag.

    Raises:
        UserError: it holds no figures of a learner.
    """
    story = Story()
    wanted = [t for t in ('learner_state', 'uncertainty', 'event') if bag.has(t)]
    if 'learner_state' not in wanted:
        raise UserError(f'{path}: {bag.lack("learner_state")}; record all topics of the nodes')
    for kind, message in bag.messages(*wanted):
        with legible(path):
            _take(story, kind, message)
    if not story.stamps:
        raise UserError(f'{path}: the learner said nothing while it was recorded')
    return story


def _take(story: Story, kind: str, message: Any) -> None:
    """Add what a message tells."""
    if kind == 'event':
        event = content(message)
        told = {'event': str(event['event']), 'stamp_ns': int(event['stamp_ns'])}
        story.events.append(event | told)
        return
    values = dict(zip(message.name, message.position.tolist(), strict=True))
    stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
    story.figures |= values
    if kind == 'uncertainty':
        noise, ignorance = (
            np.array([v for k, v in values.items() if k.endswith(f'.{part}')])
            for part in ('aleatoric', 'epistemic')
        )
        story.spread_stamps.append(stamp)
        total = np.maximum(noise**2 + ignorance**2, 1e-300)
        story.ignorance.append(float(np.mean(ignorance**2 / total)))
    else:
        story.stamps.append(stamp)
        story.nis.append(values['nis'])
        story.inside.append(values['inside90'])
        regimes = {k[7:]: v for k, v in values.items() if k.startswith('regime.')}
        story.regimes.append(regimes)


def draw_story(story: Story) -> plt.Figure:
    """Ignorance, surprise with events, and beliefs over time."""
    figure, axes = plt.subplots(3, 1, figsize=(11, 6.5), sharex=True, layout='constrained')
    seconds = story.seconds
    since = (np.array(story.spread_stamps, float) - story.stamps[0]) * 1e-9
    axes[0].fill_between(since, story.ignorance, color=scene.IGNORANCE, alpha=0.7, lw=0)
    axes[0].set(ylim=(0, 1), ylabel='ignorance\n(share of variance)')
    axes[1].semilogy(seconds, np.maximum(story.nis, 0.05), color='#444444', lw=0.7)
    axes[1].axhline(1, color='#8d99ae', lw=0.8)
    axes[1].set(ylim=(0.05, 2000), ylabel='surprise\n(1 = as expected)')
    told = [e for e in story.events if e['event'] in CONSIDERED]
    for number, kind in enumerate(dict.fromkeys(e['event'] for e in told)):
        at = [(e['stamp_ns'] - story.stamps[0]) * 1e-9 for e in told if e['event'] == kind]
        # One below the other: a recall may follow a shift at the next step.
        height = np.full(len(at), 1000 / 2.5 ** (number % 4))
        axes[1].plot(at, height, 'vosDPX^'[number % 7], label=kind, ms=6, ls='')
    if told:
        axes[1].legend(loc='upper left', bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    names = list(dict.fromkeys(n for known in story.regimes for n in known))
    rows = [[known.get(n, 0.0) for known in story.regimes] for n in names]
    if rows:
        axes[2].stackplot(seconds, rows, labels=names)
        axes[2].legend(loc='upper left', bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    axes[2].set(ylim=(0, 1), ylabel='what it believes\nit is in', xlabel='robot time [s]')
    return figure


def draw_last(bag: Bag) -> plt.Figure | None:
    """The last picture of RViz, if there was any."""
    with legible(bag.path):
        shown = list(frames(bag, film=False))
    if not shown:
        return None
    figure = plt.figure(figsize=SIZE, facecolor=GROUND)
    paint(figure.add_axes((0, 0, 1, 1)), shown[-1], close_up(shown[-1]))
    return figure


def write_page(run: Path, out: Path | None, method: str | None, status: Status) -> dict[str, Any]:
    """Write the picture and the page of a bag, or of the folder of a demo.

    Args:
        run: the bag, or a folder with one in `bag/` and perhaps a `report.json`.
        out: HTML file; `report.html` in the folder if not given. The picture has its name.
        method: methods to compare on the bag, or None.
        status: progress.

    Raises:
        UserError: no bag there, nothing of a learner in it, or a picture without a page has the
            name.
    """
    path = run / 'bag' if (run / 'bag').is_dir() else run
    out = out or (run if run.is_dir() else run.parent) / PAGE
    if out.suffix.lower() not in ('.html', '.htm'):
        raise UserError(f'--out {out}: must end with .html')
    picture = out.with_suffix('.png')
    if picture.name == 'report.png' and (run / REPORT).is_file():
        picture = out.with_name(PICTURE)  # a demo has drawn its own
    if picture.exists() and not out.exists():
        raise UserError(
            f'--out {out}: its picture would be written over {picture}; give another name'
        )
    compared = None
    if method is not None:
        from .compare import compare_command

        compared = compare_command(path, method, status)
    status('reading', 0.0)
    with open_bag(path) as bag:
        story = read_story(bag, path)
        spec = bag.prior()[0].dynamics.spec if bag.has('belief/trunk') else None
        status('drawing', 0.5)
        pictures = {'over time': draw_story(story), 'at the end': draw_last(bag)}
    images = {}
    for what, figure in pictures.items():
        if figure is not None:
            images[what] = _png(figure, figure.get_facecolor())
            plt.close(figure)
    judged = _judged(run)
    facts = _facts(story, spec, judged)
    text = _page(path, story, facts, images, compared)
    write_atomically(out, text.encode())
    write_atomically(picture, images['over time'])
    return {'command': f'report {run}', 'page': str(out), 'picture': str(picture), **facts}


def _png(figure: plt.Figure, ground: Any) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format='png', dpi=DPI, facecolor=ground)
    return data.getvalue()


def _judged(run: Path) -> dict[str, Any]:
    """What a demo found out about itself."""
    file = run / REPORT
    try:
        found = json.loads(file.read_text('utf-8')) if file.is_file() else {}
    except ValueError:
        return {}
    return {k: v for k, v in found.items() if isinstance(v, int | float | str)}


def _facts(story: Story, spec: Any, judged: dict[str, Any]) -> dict[str, Any]:
    facts = {
        'robot': 'unknown' if spec is None else spec.name,
        'transitions': len(story.stamps),
        'robot seconds': round(float(story.seconds[-1]), 1),
        '90 % intervals cover': round(float(np.mean(story.inside)), 3),
        'median surprise': round(float(np.median(story.nis)), 3),
        'at the end': scene.headline(story.figures)[0],
        'events': dict(Counter(e['event'] for e in story.events)),
    }
    if judged:
        facts['demo'] = judged
    return facts


def _page(
    path: Path,
    story: Story,
    facts: dict[str, Any],
    images: dict[str, bytes],
    compared: dict[str, Any] | None,
) -> str:
    text, colour = scene.headline(story.figures)
    shade = '#' + ''.join(f'{round(200 * c):02x}' for c in colour)
    parts = [
        f'<h1>{html.escape(facts["robot"])}: {html.escape(path.name)}</h1>',
        f'<p class="headline" style="background:{shade}">{html.escape(text)}</p>',
    ]
    parts += [
        f'<h2>{what.capitalize()}</h2><img alt="{what}" src="data:image/png;base64,'
        f'{base64.b64encode(data).decode()}">'
        for what, data in images.items()
    ]
    parts.append('<h2>Figures</h2>' + _table([(k, _plain(v)) for k, v in facts.items()]))
    if compared is not None:
        rows = [(r['name'], _plain(r['value']), r['unit']) for r in compared['rows']]
        parts.append(f'<h2>Methods on this recording</h2>{_table(rows)}')
    rows = [
        (f'{(e["stamp_ns"] - story.stamps[0]) * 1e-9:.2f} s', e['event'], _plain(_detail(e)))
        for e in story.events[-SHOWN:]
    ]
    left = len(story.events) - len(rows)
    note = f'<p>The last {len(rows)} of {len(story.events)}.</p>' if left else ''
    parts.append(f'<h2>Events</h2>{note}{_table(rows)}')
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<title>{html.escape(path.name)}</title><style>{STYLE}</style></head>'
        f'<body>{"".join(parts)}</body></html>\n'
    )


def _detail(event: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in event.items() if k not in ('event', 'stamp_ns') and v not in ([], '')}


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ', '.join(f'{k} {_plain(v)}' for k, v in value.items()) or 'none'
    if isinstance(value, list):
        return ' + '.join(_plain(v) for v in value) or 'none'
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def _table(rows: list[tuple[str, ...]]) -> str:
    lines = (
        '<tr>' + ''.join(f'<td>{html.escape(cell)}</td>' for cell in row) + '</tr>' for row in rows
    )
    return f'<table>{"".join(lines)}</table>'
