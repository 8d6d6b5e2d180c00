"""What the robot believes, live, in a terminal: for where there is no RViz."""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ..errors import UserError
from ..robot import scene
from . import topics
from .codecs import from_named
from .executor import Executor

WIDTH = 30  # characters of a bar
KEPT = 6  # events shown
STALE = 3.0  # s without a message after which a figure is called old
LEVELS = {
    DiagnosticStatus.OK: ('ok', 'green'),
    DiagnosticStatus.WARN: ('warn', 'yellow'),
    DiagnosticStatus.ERROR: ('error', 'red'),
    DiagnosticStatus.STALE: ('stale', 'red'),
}


def hexadecimal(colour: Iterable[float]) -> str:
    """A colour of `robot.scene` as rich writes it."""
    return '#' + ''.join(f'{round(255 * c):02x}' for c in colour)


NOISE, IGNORANCE = hexadecimal(scene.NOISE), hexadecimal(scene.IGNORANCE)


class Watch:
    """Hears the graph through a node and shows it."""

    def __init__(self, node: Node) -> None:
        """Subscribe; whoever owns the node spins it."""
        self.figures: dict[str, float] = {}
        self.largest: dict[str, float] = {}  # standard deviation of each channel
        self.events: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self.statuses: dict[str, tuple[Any, float]] = {}
        self.heard_at: dict[str, float] = {}  # by topic
        self.left_out: dict[str, str] = {}  # by topic: why a message of it is not shown
        for topic, callback in (
            (topics.LEARNER_DISPLAY, self._on_figures),
            (topics.UNCERTAINTY_DISPLAY, self._on_figures),
            (topics.EVENT, self._on_event),
            (topics.DIAGNOSTICS, self._on_diagnostics),
        ):

            def receive(message: Any, topic: Any = topic, callback: Any = callback) -> None:
                try:
                    callback(message)
                except UserError as error:
                    self.left_out[topic.name] = str(error)
                else:
                    self.heard_at[topic.name] = time.monotonic()

            node.create_subscription(topic.type, topic.name, receive, topic.qos)

    def _on_figures(self, message: Any) -> None:
        try:
            fresh = from_named(message)[1]
        except ValueError:
            what = f'{len(message.name)} names with {len(message.position)} values'
            raise UserError(f'{what} are no figures of our nodes') from None
        kinds = {name.split('.')[0] + '.' for name in fresh if '.' in name}
        # What is no longer told of, e.g. a regime that was merged, is gone.
        self.figures = {
            k: v for k, v in self.figures.items() if k.split('.')[0] + '.' not in kinds
        } | fresh
        for name, sd in deviations(self.figures).items():
            self.largest[name] = max(self.largest.get(name, 0.0), sum(sd))

    def _on_event(self, message: Any) -> None:
        try:
            event = json.loads(message.data)
            _event(event)
        except (ValueError, TypeError, LookupError, AttributeError):
            raise UserError(f'{message.data[:40]!r} is no event of our nodes') from None
        self.events.append(event)

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            self.statuses[status.name] = (status, time.monotonic())

    def view(self) -> Group:
        """The display as it stands."""
        text, colour = scene.headline(self.figures)
        style = f'bold {hexadecimal(colour)}'
        parts: list[Any] = [Text(text, style=style), Text(self._summary(), style='dim')]
        parts.append(
            Panel(
                _uncertainty(self.figures, self.largest),
                title='next state and how sure it is',
                subtitle=Text.assemble(('noise', NOISE), '  ', ('ignorance', IGNORANCE)),
            )
        )
        beliefs = Table.grid(padding=(0, 1))
        for start, called in (('regime.', 'regime'), ('changed.', 'changed')):
            for name, p in sorted(self.figures.items()):
                if name.startswith(start):
                    beliefs.add_row(f'{called} {name[len(start) :]}', _bar(p), f'{p:4.0%}')
        parts.append(Panel(beliefs, title='what it believes'))
        if self.events:
            parts.append(Panel(Text('\n'.join(map(_event, self.events))), title='events'))
        parts.append(Panel(_diagnostics(self.statuses), title='diagnostics'))
        return Group(*parts)

    def _summary(self) -> str:
        f = self.figures
        told = [
            f'surprise {f.get("surprise.fast", math.nan):.2f}',
            f'lost {f.get("lost", math.nan):.0f}',
            scene.mode(f),
            f'far from training data {f.get("ood", math.nan):.1f}',
            f'belief is {1e3 * f.get("belief_age", math.nan):.0f} ms old',
        ]
        now = time.monotonic()
        for topic in (topics.LEARNER_DISPLAY, topics.UNCERTAINTY_DISPLAY):
            silent = now - self.heard_at.get(topic.name, -math.inf)
            if silent > STALE:
                since = 'yet' if math.isinf(silent) else f'for {silent:.0f} s'
                told.append(f'nothing on {topic.name} {since}')
        told += [f'left out on {name}: {why}' for name, why in self.left_out.items()]
        return ', '.join(told)


def deviations(figures: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Standard deviations of noise and ignorance by channel."""
    names = [n.removesuffix('.aleatoric') for n in figures if n.endswith('.aleatoric')]
    return {n: (figures[f'{n}.aleatoric'], figures.get(f'{n}.epistemic', 0.0)) for n in names}


def _uncertainty(figures: Mapping[str, float], largest: Mapping[str, float]) -> Table:
    table = Table.grid(padding=(0, 1))
    for name, (noise, ignorance) in deviations(figures).items():
        unit = WIDTH / max(largest.get(name, 0.0), 1e-12)
        first = round(noise * unit)
        second = round((noise + ignorance) * unit) - first
        bar = Text.assemble(('█' * first, NOISE), ('█' * second, IGNORANCE))
        value = figures.get(f'{name}.mean', math.nan)
        table.add_row(name, f'{value:+9.3f}', f'± {math.hypot(noise, ignorance):.4f}', bar)
    return table


def _bar(share: float) -> Text:
    filled = round(WIDTH * min(max(share, 0.0), 1.0))
    return Text('█' * filled + '·' * (WIDTH - filled))


def _event(event: Mapping[str, Any]) -> str:
    about = event.get('regime') or ', '.join(event.get('regimes', ())) or event.get('reason', '')
    return f'step {event["step"]}: {event["event"]} {about}'.rstrip()


def _diagnostics(statuses: Mapping[str, tuple[Any, float]]) -> Table:
    table = Table.grid(padding=(0, 1))
    now = time.monotonic()
    for name, (status, heard) in sorted(statuses.items()):
        level, colour = LEVELS.get(status.level, ('?', 'red'))
        message = status.message
        if now - heard > STALE:
            level, colour = LEVELS[DiagnosticStatus.STALE]
            message = f'silent for {now - heard:.0f} s; last: {message}'
        table.add_row(Text(level, style=colour), name, Text(message))
    return table if statuses else Table.grid()


def watch(namespace: str, domain_id: int | None, seconds: float | None = None) -> int:
    """Show the graph in a namespace until Ctrl-C, or for some seconds; returns the exit code."""
    if domain_id is None:
        domain_id = int(os.environ.get('ROS_DOMAIN_ID') or 0)
    context = Context()
    context.init(domain_id=domain_id)
    console, executor = Console(), Executor(context)
    try:
        node = rclpy.create_node('watch', namespace=namespace, context=context)
        executor.add_node(node)
        shown = Watch(node)
        until = math.inf if seconds is None else time.monotonic() + seconds
        with Live(shown.view(), console=console, auto_refresh=False) as live:
            drawn = 0.0
            while time.monotonic() < until:
                executor.round(0.05)
                if time.monotonic() - drawn > 0.25:
                    drawn = time.monotonic()
                    live.update(shown.view(), refresh=True)
            live.update(shown.view(), refresh=True)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        executor.shutdown()
        context.try_shutdown()
    return 0
