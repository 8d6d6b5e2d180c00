"""The node table: which nodes there are and what they are started with.

Plain data without ROS: launch files, `bringup` and the command line all start nodes from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ..experiments.schedule import load_life

PACKAGE = 'lifelong_bayes_ros'
NAMESPACE = '/lifelong'


@dataclass(frozen=True)
class Setting:
    """Something a user may set for all nodes at once, by name."""

    name: str
    description: str


@dataclass(frozen=True)
class NodeEntry:
    """A node: name, module, executable, the settings it takes, and what it is started for."""

    name: str
    settings: tuple[str, ...]
    when: str = ''  # setting without which it is not started

    @property
    def module(self) -> str:
        """Module that `python -m` starts."""
        return f'{PACKAGE}.nodes.{self.name}'

    @property
    def executable(self) -> str:
        """Console script."""
        return self.name


@dataclass(frozen=True)
class Start:
    """A node to be started, with its parameters."""

    node: NodeEntry
    parameters: dict[str, Any]


SETTINGS = (
    Setting('robot', 'shipped robot by name, or path of a robot file'),
    Setting('seed', 'seed of every random number'),
    Setting(
        'prior', 'prior file (.safetensors); not set: pre-trained in simulation, else from scratch'
    ),
    Setting('state_dir', 'folder that keeps the posterior from run to run'),
    Setting('resume', 'false: do not go on from what state_dir holds'),
    Setting('device', 'where the learner computes: cpu, cuda or auto'),
    Setting('learning', 'false: predict and publish only'),
    Setting('episode_length', 'transitions per episode; not set: that of the life'),
    Setting('max_belief_age', 'seconds after which the policy takes a belief for stale'),
    Setting('enabled_at_start', 'false: act only after a call of policy/enable'),
    Setting('plan_rate_hz', 'most plans that the policy publishes per second'),
    Setting('out', 'new folder that everything is recorded in; not set: no recording'),
    Setting('viz', 'true: publish what RViz shows'),
    Setting('sim', 'true: start the simulated robot'),
    Setting('life', 'life of hidden shifts for the simulated robot: shipped name or file'),
    Setting('steps', 'control steps that the simulated robot runs'),
    Setting('realtime', 'true: the simulated robot follows the wall clock, not lockstep'),
    Setting('shutdown_at_end', 'true: the simulated robot ends after its last step'),
)

TABLE = (  # in the order of activation
    NodeEntry('uncertainty_viz', ('robot',), when='viz'),
    NodeEntry('recorder', ('robot', 'out'), when='out'),
    NodeEntry(
        'learner',
        ('robot', 'seed', 'prior', 'state_dir', 'resume', 'device', 'lockstep', 'learning'),
    ),
    NodeEntry(
        'policy',
        ('robot', 'seed', 'lockstep', 'max_belief_age', 'enabled_at_start', 'plan_rate_hz'),
    ),
    NodeEntry('transition_streamer', ('robot', 'episode_length')),
    NodeEntry(
        'sim_robot',
        ('robot', 'seed', 'life', 'steps', 'lockstep', 'shutdown_at_end'),
        when='sim',
    ),
)


def starts(settings: Mapping[str, Any]) -> list[Start]:
    """Nodes to start for these settings, in the order of activation.

    What is not set keeps the default of the node. In simulation all wait until they hear each
    other, so that nothing is lost at the start; a robot does not wait for its recorder.

    Raises:
        UserError: unknown life.
        KeyError: unknown setting.
    """
    unknown = set(settings) - {setting.name for setting in SETTINGS}
    if unknown:
        raise KeyError(f'unknown settings {sorted(unknown)}')
    lockstep = bool(settings.get('sim')) and not settings.get('realtime')
    values = {'lockstep': lockstep, **settings}
    if settings.get('life'):
        values.setdefault('episode_length', load_life(settings['life']).episode)
    entries = [entry for entry in TABLE if not entry.when or settings.get(entry.when)]
    if settings.get('sim'):
        values['wait_for'] = ','.join(entry.name for entry in entries)
    return [
        Start(entry, {k: v for k, v in values.items() if k in (*entry.settings, 'wait_for')})
        for entry in entries
    ]


def parse_settings(texts: Mapping[str, str]) -> dict[str, Any]:
    """Settings as a command line gives them; an empty text sets nothing."""
    return {name: yaml.safe_load(text) for name, text in texts.items() if text}
