"""The node table: which nodes there are and what they are started with.

Plain data without ROS: launch files, `bringup` and the command line all start nodes from it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ..cores import other_cores
from ..errors import UserError
from ..experiments.schedule import Life, load_life
from ..robot.names import NAMESPACE
from ..robot.spec import RobotSpec, load_robot, robot_names

PACKAGE = 'lifelong_bayes_ros'


@dataclass(frozen=True)
class Setting:
    """Something a user may set for all nodes at once, by name."""

    name: str
    description: str
    kind: type = str
    low: float | None = None  # of a number, as of the parameters of this name
    high: float | None = None

    def parse(self, text: str) -> Any:
        """The value of a text that is not empty.

        Raises:
            UserError: none of this kind, or out of range.
        """
        if self.kind is str:
            if self.name in DEVICES:
                check_device(self.name, text)
            return text
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = None
        if self.kind is float and type(value) is int:
            value = float(value)
        if type(value) is not self.kind:
            wanted = {bool: 'true or false', int: 'a whole number', float: 'a number'}[self.kind]
            raise UserError(f'{self.name}: {text!r} is not {wanted}')
        if self.low is not None and not self.low <= value <= self.high:
            raise UserError(f'{self.name}: {text}: give a number from {self.low} to {self.high}')
        return value


@dataclass(frozen=True)
class NodeEntry:
    """A node: name, module, executable, the settings it takes, and what it is started for."""

    name: str
    settings: tuple[str, ...]
    when: str = ''  # setting without which it is not started
    unless: str = ''  # setting with which it is not
    control: bool = False  # the robot waits for it
    again: bool = True  # whether it is started again when it has died

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


DEVICES = ('device', 'planner_device')


def check_device(what: str, name: str) -> None:
    """Refuse what is no name of a device of torch, though it may not be there.

    Raises:
        UserError: begins with `what`.
    """
    if not re.fullmatch('cpu|auto|cuda(:[0-9]+)?', name):
        raise UserError(f'{what}: {name!r} is none of cpu, cuda, cuda:0, ..., auto')


SETTINGS = (
    Setting('robot', 'shipped robot by name, or path of a robot file'),
    Setting('seed', 'seed of every random number', int, 0, 2**31 - 1),
    Setting(
        'prior', 'prior file (.safetensors); not set: pre-trained in simulation, else from scratch'
    ),
    Setting('state_dir', 'folder that keeps the posterior from run to run'),
    Setting('resume', 'false: do not go on from what state_dir holds', bool),
    Setting('device', 'where the learner learns the trunk: cpu, cuda or auto'),
    Setting('planner_device', 'where the policy weighs its plans: cpu, cuda or auto'),
    Setting('learning', 'false: predict and publish only', bool),
    Setting('episode_length', 'transitions per episode; not set: that of the life', int, 0, 10**9),
    Setting(
        'max_belief_age',
        'seconds after which the policy takes a belief for stale',
        float,
        0.001,
        3600.0,
    ),
    Setting('enabled_at_start', 'false: act only after a call of policy/enable', bool),
    Setting('rate', 'pictures per second for RViz', float, 0.1, 20.0),
    Setting('plan_rate_hz', 'most plans that the policy publishes per second', float, 0.1, 1000.0),
    Setting('out', 'new folder that everything is recorded in; not set: no recording'),
    Setting('viz', 'true: publish what RViz shows', bool),
    Setting('sim', 'true: start the simulated robot', bool),
    Setting('life', 'life of hidden shifts for the simulated robot: shipped name or file'),
    Setting('steps', 'control steps that the simulated robot runs', int, 0, 10**9),
    Setting('realtime', 'true: the simulated robot follows the wall clock, not lockstep', bool),
    Setting('shutdown_at_end', 'true: end with the simulated robot or the bag', bool),
    Setting('bag', 'recording that is played in the place of a robot'),
    Setting('speed', 'seconds of the recording played per second', float, 0.01, 100.0),
    Setting(
        'control_cpus',
        'cores for policy and simulated robot alone, e.g. 0 or 2-3; the others keep to the rest',
    ),
)

RANGES = {s.name: (s.low, s.high) for s in SETTINGS if s.low is not None}

UP_DEFAULTS = {
    'robot': 'quad with --sim, the recorded one with --bag; else it must be given',
    'viz': 'true',
    'realtime': 'true with --sim',
}
"""What `lifelong-bayes up` takes where nothing is given, in words."""

COMMON = (
    Setting('namespace', f'namespace of all nodes; not set: {NAMESPACE}'),
    Setting('nodes', 'which nodes start here, comma-separated; -learner: all but that'),
    Setting('params_file', 'YAML file of parameters; write them under `/**:`'),
    Setting('log_level', 'debug, info, warn, error or fatal; not set: info'),
    Setting('use_sim_time', 'true: time is what /clock says', bool),
    Setting('autostart', 'false: leave configuring and activating to you', bool),
    Setting('respawn', 'true: start a node again that died, as `up` always does', bool),
)
"""How all nodes are started, whatever they do."""

LOG_LEVELS = ('debug', 'info', 'warn', 'error', 'fatal')


@dataclass(frozen=True)
class Common:
    """The values of `COMMON`."""

    namespace: str = NAMESPACE
    nodes: str = ''
    params_file: str = ''
    log_level: str = 'info'
    use_sim_time: bool = False
    autostart: bool = True
    respawn: bool = False

    @property
    def parameters(self) -> dict[str, Any]:
        """Those that are parameters of every node."""
        time = {'use_sim_time': True} if self.use_sim_time else {}
        return {'autostart': self.autostart, **time}


TABLE = (  # in the order of activation
    NodeEntry('uncertainty_viz', ('robot', 'rate'), when='viz'),
    # What a recorder that died has written stays as it is: another one takes another folder.
    NodeEntry('recorder', ('robot', 'out'), when='out', again=False),
    NodeEntry(
        'learner',
        ('robot', 'seed', 'prior', 'state_dir', 'resume', 'device', 'lockstep', 'learning'),
    ),
    NodeEntry(
        'policy',
        (
            'robot',
            'seed',
            'planner_device',
            'lockstep',
            'max_belief_age',
            'enabled_at_start',
            'plan_rate_hz',
        ),
        unless='bag',
        control=True,
    ),
    NodeEntry('transition_streamer', ('robot', 'episode_length'), unless='bag'),
    NodeEntry(
        'sim_robot',
        ('robot', 'seed', 'life', 'steps', 'lockstep', 'shutdown_at_end'),
        when='sim',
        control=True,
    ),
    NodeEntry('player', ('robot', 'bag', 'speed', 'shutdown_at_end'), when='bag'),
)


def chosen(names: str) -> list[NodeEntry]:
    """The entries that a text chooses: names, comma-separated, or `-name` for all but those.

    Raises:
        UserError: no such node, or both forms at once.
    """
    words = [word.strip() for word in names.split(',') if word.strip()]
    bare = {word.removeprefix('-') for word in words}
    known = [entry.name for entry in TABLE]
    if unknown := sorted(bare - set(known)):
        raise UserError(f'nodes: unknown {unknown}; there are {", ".join(known)}')
    out = {word.removeprefix('-') for word in words if word.startswith('-')}
    if out and len(out) < len(bare):
        raise UserError(f'nodes: {names!r} names nodes to start and nodes to leave out; do one')
    return [entry for entry in TABLE if not words or (entry.name in bare) != bool(out)]


def starts(settings: Mapping[str, Any], nodes: str = '') -> list[Start]:
    """Nodes to start for these settings, in the order of activation.

    What is not set keeps the default of the node. In simulation all wait until they hear each
    other, so that nothing is lost at the start; a robot does not wait for its recorder. `nodes`
    chooses those that run on this machine, see `chosen`; the others are waited for all the same.

    Without a robot it is the one that a bag was recorded of.

    Raises:
        UserError: unknown robot or life or one that does not fit the robot, unknown node or core,
            nothing or no core is left, a setting that no node started takes, `out` exists, or
            prior or bag do not.
        KeyError: unknown setting.
    """
    unknown = set(settings) - {setting.name for setting in SETTINGS}
    if unknown:
        raise KeyError(f'unknown settings {sorted(unknown)}')
    lockstep = bool(settings.get('sim')) and not settings.get('realtime')
    if settings.get('bag') and not settings.get('robot'):
        settings = {**settings, 'robot': _recorded_robot(settings['bag'])}
    values = {'lockstep': lockstep, **settings}
    if settings.get('life'):
        values.setdefault('episode_length', load_life(settings['life']).episode)
    entries = [
        entry
        for entry in TABLE
        if (not entry.when or settings.get(entry.when)) and not settings.get(entry.unless)
    ]
    _check_use(settings, entries)
    if settings.get('robot'):
        spec = load_robot(settings['robot'])
        if settings.get('life'):
            life_of(spec, settings['life'])
    if settings.get('sim') or settings.get('bag'):
        values['wait_for'] = ','.join(entry.name for entry in entries)
    here = [entry for entry in entries if entry in chosen(nodes)]
    if not here:
        wanted = ', '.join(f'{e.name} by {e.when}' for e in chosen(nodes))
        raise UserError(f'nodes: {nodes!r} leaves nothing to start; ask for {wanted}')
    _check_paths(settings, [entry.name for entry in here])
    found = [
        Start(entry, {k: v for k, v in values.items() if k in (*entry.settings, 'wait_for')})
        for entry in here
    ]
    if own := settings.get('control_cpus'):
        rest = other_cores(own)
        for start in found:
            start.parameters['cpus'] = own if start.node.control else rest
    return found


def _recorded_robot(bag: str) -> str:
    """The shipped robot that a bag was recorded of.

    Raises:
        UserError: no bag, it does not tell, or it is of another robot.
    """
    from ..experiments.recordings import recorded_spec  # it needs torch, which few starts do

    try:
        spec = recorded_spec(Path(bag))
    except UserError as error:
        raise UserError(f'bag: {error}') from None
    if spec.name not in robot_names() or spec.differs(load_robot(spec.name)):
        raise UserError(
            f'robot: none is given, and {bag} is of {spec.name}, but not as it is shipped; give '
            'the robot file that it was recorded with'
        )
    return spec.name


def _check_paths(settings: Mapping[str, Any], here: Sequence[str]) -> None:
    """Refuse what the nodes that start here would find there, or not find."""
    out, prior, bag = (settings.get(name) or '' for name in ('out', 'prior', 'bag'))
    if 'recorder' in here and Path(out).exists():
        raise UserError(f'out: {out!r} is there already; give a folder that is not')
    if 'learner' in here and prior and not Path(prior).is_file():
        raise UserError(f'prior: {prior} does not exist; make it with `lifelong-bayes pretrain`')
    if 'player' in here and not Path(bag).exists():
        raise UserError(f'bag: {bag} does not exist; give the folder of a recording')


def _check_use(settings: Mapping[str, Any], entries: Iterable[NodeEntry]) -> None:
    """Refuse a bag beside a simulated robot, and what only nodes take that nothing starts."""
    if settings.get('sim') and settings.get('bag'):
        raise UserError(
            f'bag: {settings["bag"]!r} is played in the place of a robot, so none is simulated; '
            'leave out either bag or sim'
        )
    for name in settings:
        takers = [entry for entry in TABLE if name in entry.settings]
        if takers and all(e.when for e in takers) and not set(takers) & set(entries):
            nodes = ' or '.join(f'{e.name}, by {e.when}' for e in takers)
            raise UserError(
                f'{name}: is of no use without {nodes}; give that, too, or leave it out'
            )


def life_of(spec: RobotSpec, name: str) -> Life:
    """A life by name or path, if it is one for this simulated robot.

    Raises:
        UserError: as `load_life`; it is for another robot, or has shifts that do not fit this one.
    """
    life, faults = load_life(name), []
    if life.robot != spec.name:
        faults.append(
            f'robot: it is for {life.robot}, not for {spec.name}; give a life of {spec.name}'
        )
    try:
        import lifelong_bayes_ros_sim as sim
    except ImportError:  # without MuJoCo nobody can try; the machine that simulates can
        sim = None
    if sim is not None:
        robot = sim.make(spec.name, spec=spec)  # `load_life` tried the shipped one
        for regime, shifts in life.regimes.items():
            try:
                robot.set_shifts([sim.shift_from_dict(shift) for shift in shifts])
            except UserError as error:
                faults.append(f'regimes.{regime}: {error}')
    if faults:
        raise UserError('\n'.join(f'life {name}: {fault}' for fault in faults))
    return life


def check_words(words: Iterable[str], file: str, names: Iterable[str] = ()) -> None:
    """Refuse arguments `name:=value` that `launch` would drop without a word.

    Args:
        words: of the command line. One that names a launch file that is not ours may have
            arguments of its own.
        file: one of our launch files.
        names: of its arguments; none: those of robot.launch.py.

    Raises:
        UserError: a name is not known.
    """
    given = [Path(word).resolve() for word in words if word.endswith('.launch.py')]
    if PACKAGE not in words and Path(file).resolve().parent not in [p.parent for p in given]:
        return
    known = list(names) or [s.name for s in (*SETTINGS, *COMMON)]
    if {path.name for path in given} & {'sim.launch.py', 'experiment.launch.py'}:
        known.append('schedule')
    for name in [word.partition(':=')[0] for word in words if ':=' in word]:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            mend = f'did you mean {near[0]}?' if near else 'ros2 launch ... --show-args lists them'
            raise UserError(f'{name}: there is no such argument; {mend}')


def remappings(namespace: str, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Topics that two simulated robots would share, moved into the namespace of this one."""
    alone = namespace.strip('/') == NAMESPACE.strip('/')
    return (
        [] if alone or not settings.get('sim') else [('/clock', f'/{namespace.strip("/")}/clock')]
    )


def parameter_names() -> set[str]:
    """All that any node of the table is started with."""
    taken: Iterable[str] = (name for entry in TABLE for name in entry.settings)
    return {*taken, *(setting.name for setting in SETTINGS)}


def parse_settings(texts: Mapping[str, str]) -> dict[str, Any]:
    """Settings as a command line gives them; an empty text sets nothing.

    Raises:
        UserError: a text that is no value of its setting.
    """
    return _parse(SETTINGS, texts)


def parse_common(texts: Mapping[str, str]) -> Common:
    """As `parse_settings`, for how the nodes are started.

    Raises:
        UserError: a text that is no value, a file that is not there, no such level or namespace.
    """
    common = Common(**_parse(COMMON, texts))
    if common.log_level not in LOG_LEVELS:
        raise UserError(f'log_level: {common.log_level!r} is none of {", ".join(LOG_LEVELS)}')
    if common.params_file and not Path(common.params_file).is_file():
        raise UserError(f'params_file: {common.params_file} does not exist')
    parts = common.namespace.strip('/').split('/')
    if not all(re.fullmatch('[A-Za-z][A-Za-z0-9_]*', part) for part in parts):
        raise UserError(
            f'namespace: {common.namespace!r} is no ROS namespace; use letters, digits and _, '
            'parts separated by /, e.g. /robot1'
        )
    chosen(common.nodes)
    return replace(common, namespace='/' + '/'.join(parts))


def _parse(known: Iterable[Setting], texts: Mapping[str, str]) -> dict[str, Any]:
    return {s.name: s.parse(texts[s.name]) for s in known if texts.get(s.name)}
