"""Starting, watching and ending all nodes of the table as processes, without `launch`."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import rclpy
import rclpy.logging
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy._rclpy_pybind11 import RCLError
from rclpy.client import Client
from rclpy.context import Context
from rclpy.task import Future

from ..errors import UserError
from .base import FORGOTTEN, PARENT
from .executor import Executor
from .table import Common, Start, remappings, starts
from .this_machine import environment, this_machine

CONFIGURE_SECONDS = 1800.0  # the learner may have to pre-train first
SECONDS = 30.0  # any other transition
OF_NODES, OF_PROCESSES = range(1, 51), range(51, 102)  # domains, see `claim_domain`


class Bringup:
    """All nodes as processes of their own, configured and activated in order.

    A context manager: whatever happens inside, no process is left behind. `node` is an rclpy node
    in the same ROS domain for the caller's own use; `spin` serves it.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        logs: Path,
        domain_id: int | None = None,
        private: bool = False,
        common: Common | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            settings: of `table.SETTINGS`.
            logs: folder for one log file per node.
            domain_id: ROS domain; the environment's if not given.
            private: use a domain of its own on this machine only, unlike a robot's.
            common: how the nodes are started.

        Raises:
            UserError: ROS does not take a file of parameters or a setting.
        """
        self.common = common = common or Common()
        check_parameters(common.params_file)
        self.starts = starts(settings, common.nodes)
        self._moved = remappings(common.namespace, settings)
        self.logs = logs
        self.processes: dict[str, subprocess.Popen] = {}
        self.exit_codes: dict[str, int] = {}  # of processes that have ended
        self._active: set[str] = set()
        self._since: dict[str, int] = {}  # bytes of each log that tell of earlier processes
        self._lock: IO | None = None
        self._environment = dict(os.environ)
        if private:
            self._environment |= this_machine()
            if domain_id is None:
                domain_id, self._lock = claim_domain(OF_PROCESSES)
        if domain_id is None:
            domain_id = int(os.environ.get('ROS_DOMAIN_ID', 0))
        self.domain_id = domain_id
        self._environment |= {
            'ROS_DOMAIN_ID': str(domain_id),
            'ROS_LOG_DIR': str(logs.absolute()),
            'PYTHONUNBUFFERED': '1',
            PARENT: str(os.getpid()),
        }
        self.context = Context()
        with environment(this_machine() if private else {}):
            self.context.init(domain_id=domain_id)
            self.node = rclpy.create_node(
                'bringup', namespace=common.namespace, context=self.context
            )
        self._executor = Executor(self.context)
        self._executor.add_node(self.node)
        self._clients: dict[str, Client] = {}

    def __enter__(self) -> Bringup:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # ------------------------------------------------------------------ start
    def start(self) -> None:
        """Start all processes; returns when every node is active, or with `autostart` off at once.

        Raises:
            UserError: a node died or could not be configured or activated, or one of its name
                runs already; says why.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        for start in self.starts:
            self._launch(start)
        if not self.common.autostart:
            return
        names = [start.node.name for start in self.starts]
        self._transition(names, Transition.TRANSITION_CONFIGURE, CONFIGURE_SECONDS)
        for name in names:
            self._activate(name)

    def restart(self, name: str) -> None:
        """Start a node that has ended once more.

        Raises:
            UserError: as for `start`.
        """
        self._active.discard(name)
        self._launch(self._start(name))
        if not self.common.autostart:
            return
        self._transition([name], Transition.TRANSITION_CONFIGURE, CONFIGURE_SECONDS)
        self._activate(name)

    def again(self, name: str) -> bool:
        """Whether a node that has ended may be started once more."""
        return self._start(name).node.again

    def give_up(self, name: str) -> None:
        """Go on without a node that has ended."""
        self.starts.remove(self._start(name))
        self._active.discard(name)
        for known in (self.processes, self.exit_codes):
            known.pop(name)
        for start in self.starts:
            peers = start.parameters.get('wait_for', '').split(',')
            if name in peers:
                start.parameters['wait_for'] = ','.join(p for p in peers if p != name)

    def _start(self, name: str) -> Start:
        return next(start for start in self.starts if start.node.name == name)

    def _activate(self, name: str) -> None:
        self._transition([name], Transition.TRANSITION_ACTIVATE, SECONDS)
        self._active.add(name)

    def _launch(self, start: Start) -> None:
        moved = [('__ns', self.common.namespace), *self._moved]
        # Brought up by services here, in order, so not by the nodes themselves.
        parameters = {**self.common.parameters, 'autostart': False, **start.parameters}
        arguments = ['--log-level', self.common.log_level]
        arguments += [word for a, b in moved for word in ('-r', f'{a}:={b}')]
        if self.common.params_file:
            arguments += ['--params-file', self.common.params_file]
        for key, value in parameters.items():
            arguments += ['-p', f'{key}:={json.dumps(value)}']
        with (self.logs / f'{start.node.name}.log').open('ab') as log:
            self._since[start.node.name] = log.tell()
            self.processes[start.node.name] = subprocess.Popen(
                [sys.executable, '-m', start.node.module, '--ros-args', *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        self.exit_codes.pop(start.node.name, None)

    def _transition(self, names: Iterable[str], transition: int, seconds: float) -> None:
        label = {
            Transition.TRANSITION_CONFIGURE: 'configure',
            Transition.TRANSITION_ACTIVATE: 'activate',
            Transition.TRANSITION_DEACTIVATE: 'deactivate',
        }[transition]
        deadline = time.monotonic() + seconds
        calls = {}
        for name in names:
            state = self._state(name)
            self._wait(state, deadline, [name], f'{label}: the node does not answer')
            if label == 'configure' and state() != State.PRIMARY_STATE_UNCONFIGURED:
                self._refuse([name])  # ours has only begun: what is asked of it reaches another
            request = ChangeState.Request(transition=Transition(id=transition))
            calls[name] = self._client(ChangeState, f'{name}/change_state').call_async(request)
        for name, call in calls.items():
            self._wait(call.done, deadline, calls, f'{label}: not done')
            if not call.result().success:
                raise UserError(f'{name} did not {label}:\n{self.reason(name)}')

    def _refuse(self, twins: Sequence[str]) -> None:
        if twins:
            raise UserError(
                f'in ROS domain {self.domain_id}, namespace {self.common.namespace}, '
                f'there runs already: {", ".join(twins)}; end it, or start in another namespace '
                'or domain'
            )

    def _state(self, name: str) -> Callable[[], int]:
        """Tells the state that a node answers with, asked again and again; 0 until it does.

        A service that is there may still be that of a process that was killed: DDS forgets it
        only after a while, and what is asked of it gets lost. So does the answer of one that has
        not discovered yet who asks.
        """
        client = self._client(GetState, f'{name}/get_state')
        calls: list[Future] = []
        asked = 0.0

        def state() -> int:
            nonlocal asked
            if time.monotonic() > asked + 0.5:
                asked = time.monotonic()
                calls.append(client.call_async(GetState.Request()))
            answered = (call.result().current_state.id for call in calls if call.done())
            return next(answered, State.PRIMARY_STATE_UNKNOWN)

        return state

    def _client(self, kind: type, service: str) -> Client:
        if service not in self._clients:
            self._clients[service] = self.node.create_client(kind, service)
        return self._clients[service]

    def _wait(
        self, done: Callable[[], object], deadline: float, names: Iterable[str], what: str
    ) -> None:
        begun = time.monotonic()
        while not done():
            self.spin(0.05)
            for name in names:
                if name in self.watch():
                    raise UserError(self.obituary(name))
            if time.monotonic() - begun > FORGOTTEN:  # twins that were not discovered in time
                there = Counter(self.node.get_node_names_and_namespaces())
                self._refuse([n for n in names if there[n, self.common.namespace] > 1])
            if time.monotonic() > deadline:
                reasons = '\n'.join(self.reason(name) for name in names)
                raise UserError(f'{", ".join(names)}: {what} in time:\n{reasons}')

    # ------------------------------------------------------------------ while they run
    def spin(self, seconds: float) -> None:
        """Serve subscriptions and timers of `node` for a while."""
        self._executor.round(seconds)

    def watch(self) -> dict[str, int]:
        """Exit code of every node whose process has ended; negative: killed by that signal."""
        for name, process in self.processes.items():
            code = process.poll()
            if code is not None:
                self.exit_codes[name] = code
        return self.exit_codes

    def obituary(self, name: str) -> str:
        """How a node ended and what its log says."""
        code = self.exit_codes[name]
        how = f'was killed by signal {-code}' if code < 0 else f'ended with code {code}'
        return f'{name} {how}; its log: {self.reason(name) or "empty"}'

    def reason(self, name: str) -> str:
        """The last error in the log of a node's process, or the end of it."""
        told = (self.logs / f'{name}.log').read_bytes()[self._since[name] :]
        lines = told.decode(errors='replace').splitlines()
        faults = [i for i, line in enumerate(lines) if '[ERROR]' in line or '[FATAL]' in line]
        return '\n'.join(lines[faults[-1] :] if faults else lines[-20:])

    # ------------------------------------------------------------------ end
    def stop(self) -> None:
        """Deactivate all nodes, the robot first, and end their processes; safe to call again."""
        try:
            for start in reversed(self.starts):
                name = start.node.name
                if name in self._active - self.watch().keys():
                    with suppress(UserError):  # on its way out already
                        self._transition([name], Transition.TRANSITION_DEACTIVATE, 10.0)
        finally:
            self._active.clear()
            self._end_processes()
            self._executor.shutdown()
            if self.context.ok():
                self.node.destroy_node()
                self.context.try_shutdown()
            if self._lock is not None:
                self._lock.close()

    def _end_processes(self) -> None:
        for number, seconds in (
            (signal.SIGINT, 10.0),
            (signal.SIGTERM, 3.0),
            (signal.SIGKILL, 5.0),
        ):
            running = [p for p in self.processes.values() if p.poll() is None]
            for process in running:
                signal_group(process.pid, number)
            deadline = time.monotonic() + seconds
            for process in running:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(deadline - time.monotonic(), 0.01))
        self.watch()
        for process in self.processes.values():
            signal_group(process.pid, signal.SIGKILL)  # what a node may have started itself
        self.processes.clear()


def signal_group(group: int, number: int) -> None:
    """Signal a process group, if it still exists."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def check_parameters(path: str) -> None:
    """Read a file of parameters as each node will, which dies of one that is broken.

    Raises:
        UserError: ROS does not take it; says why.
    """
    if not path:
        return
    context = Context()
    # ROS would say in the log, too, that it is broken, but not where.
    rclpy.logging.set_logger_level('rcl', rclpy.logging.LoggingSeverity.FATAL)
    try:
        context.init(args=['--ros-args', '--params-file', path])
    except RCLError as error:
        said = str(error).partition('Error: ')[2] or str(error)
        why = ' '.join(said.partition(', at /')[0].split())
        raise UserError(
            f'params_file: {path} is not YAML that ROS takes ({why}); write `name: value` under '
            '`/**:` and `ros__parameters:`'
        ) from None
    finally:
        rclpy.logging.set_logger_level('rcl', rclpy.logging.LoggingSeverity.UNSET)
        context.try_shutdown()


def claim_domain(among: range = OF_NODES) -> tuple[int, IO]:
    """A ROS domain that no other bring-up on this machine uses, and the lock that keeps it.

    A node that this process had for itself is still heard of after its context has ended, and
    takes no message any more: where others are started as processes it would be waited for.

    Raises:
        UserError: all are taken.
    """
    numbers = list(among)
    random.Random(os.getpid()).shuffle(numbers)
    for number in numbers:
        path = Path(tempfile.gettempdir()) / f'lifelong_bayes_domain_{number}.lock'
        try:
            lock = path.open('a')
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        return number, lock
    raise UserError(
        f'all ROS domains from {among[0]} to {among[-1]} are in use; end other runs, or give '
        'domain_id'
    )


def up(
    settings: Mapping[str, Any],
    common: Common,
    domain_id: int | None = None,
    logs: Path = Path('out/up'),
) -> int:
    """Start the nodes beside a robot, start again what dies, end with Ctrl-C.

    Raises:
        UserError: a node cannot be started.
    """
    with Bringup(settings, logs, domain_id, common=common) as bringup:
        print(
            f'starting in ROS domain {bringup.domain_id}, namespace {common.namespace}; '
            f'logs in {logs}',
            flush=True,
        )
        try:
            bringup.start()
            how = 'active' if common.autostart else 'started, for you to configure and activate'
            print(f'all nodes are {how}; Ctrl-C ends them', flush=True)
            while True:
                bringup.spin(0.5)
                for name in list(bringup.watch()):
                    if bringup.exit_codes[name] == 0 and settings.get('shutdown_at_end'):
                        print(f'{name} has come to its end', flush=True)
                        return 0
                    print(bringup.obituary(name), file=sys.stderr)
                    if bringup.again(name):
                        print('starting it again', file=sys.stderr, flush=True)
                        bringup.restart(name)
                    else:
                        print(f'going on without {name}', file=sys.stderr, flush=True)
                        bringup.give_up(name)
        except KeyboardInterrupt:
            with suppress(OSError):  # the terminal may be gone
                print('ending', flush=True)
    return 0
