"""What all nodes share: parameters, lifecycle, diagnostics, starting and ending."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy._rclpy_pybind11 import RCLError
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterUninitializedException,
)
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from rclpy.timer import Timer

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

from ..cores import keep_to
from ..errors import UserError
from ..robot.names import NAMESPACE, check_topics
from ..robot.spec import RobotSpec, load_robot
from . import topics
from .executor import Executor, Unserved
from .inputs import Input, unheard
from .table import RANGES, parameter_names
from .topics import Topic

RECORDER = 'recorder'  # hears everything
LIMITS = 'limits.'  # prefix of the parameters of the operator's ranges, which the policy has
PARENT = 'LIFELONG_BAYES_PARENT'  # process that a node must not outlive
RECORDER_SECONDS = 20.0  # after which one that has not come is not waited for
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
SAY_EVERY, SAY_NEWS_EVERY = 5.0, 0.5  # s between two lines about what was skipped for one reason
UNREAD = 'bad message on '  # begins the reason why a message was left out
MENDS = {  # by the reason why a reading does not become a state
    'sources apart in time': 'synchronise the clocks of their publishers, or mend slop',
    'not finite': 'mend the driver, which sends NaN or infinity',
    'repeated stamp': 'let the driver stamp each reading, and see that time goes on',
    'time ran backwards': 'let one publisher send each topic, with stamps that grow',
}
PATIENCE = 3.0  # s that a publisher may take to be found by DDS


@dataclass(frozen=True)
class Parameter:
    """One row of a node's parameter table. Only `live` parameters change after the start."""

    name: str
    default: bool | int | float | str
    description: str
    low: float | None = None
    high: float | None = None
    live: bool = False

    def descriptor(self) -> ParameterDescriptor:
        """The row as ROS describes a parameter."""
        descriptor = ParameterDescriptor(description=self.description, read_only=not self.live)
        if self.low is not None and self.high is not None:
            if isinstance(self.default, int):
                limits = IntegerRange(from_value=int(self.low), to_value=int(self.high), step=0)
                descriptor.integer_range = [limits]
            else:
                limits = FloatingPointRange(
                    from_value=float(self.low), to_value=float(self.high), step=0.0
                )
                descriptor.floating_point_range = [limits]
        return descriptor


ROBOT = Parameter('robot', '', 'shipped robot by name, or path of a robot file (.yaml)')
SEED = Parameter('seed', 0, 'seed of all random numbers of the node', *RANGES['seed'])
AUTOSTART = Parameter('autostart', False, 'configure and activate without a lifecycle manager')
WAIT_FOR = Parameter('wait_for', '', 'nodes (comma-separated) that must be able to hear this one')
CPUS = Parameter('cpus', '', 'cores that it keeps to, a text like "0" or "2-3"; empty: any')
SHARED = (ROBOT, AUTOSTART, WAIT_FOR, CPUS)  # that every node has
ACK_SECONDS = 4.0  # Fast DDS sends again what was lost on its way after 3 s
FORGOTTEN = 30.0  # s after which DDS knows no more of a process that was killed
GIVE_WAY = 5e-4  # s that a thread beside the executor's may keep the interpreter to itself
ENDING = (signal.SIGINT, signal.SIGTERM)


class BaseNode(LifecycleNode):
    """A lifecycle node that hears and publishes nothing unless it is active.

    Subclasses fill in `configure`, `activate`, `deactivate` and `diagnose`. An `UserError` in one
    of the first three fails the transition with its text in the log; in a message callback the
    message is skipped, counted and reported.
    """

    NAME = ''
    TASK = ''  # what `/diagnostics` says the node does
    PARAMETERS: tuple[Parameter, ...] = ()

    def __init__(self) -> None:
        super().__init__(self.NAME, namespace=NAMESPACE)
        self.active, self._active_at = False, 0.0
        self.stop = threading.Event()  # set: the process ends after the running callback
        self.counts: Counter[str] = Counter()
        self._owned: list[tuple[Callable[[Any], Any], Any]] = []
        self._offered: list[tuple[Topic, Publisher]] = []
        self._inputs: dict[Subscription, Input] = {}
        self._unserved = Unserved()
        self._complaints: set[str] = set()  # those in force, each logged once
        self._must_hear: list[tuple[Topic, str]] = []  # what somebody must hear, and the mend
        self._left_out: Counter[str] = Counter()  # of readings, by reason, at the last report
        self.why = ''  # they are left out, where `diagnose` finds that it matters
        self._failed = ''  # why the last transition failed
        # By what was skipped: when it was logged last, and its text.
        self._said: dict[str, tuple[float, str]] = {}
        self._alone_at = time.monotonic()  # when no other node had our name
        self._refused = ''  # why the parameter that was set last was refused
        for row in (*SHARED, *self.PARAMETERS):
            self.declare_parameter(row.name, row.default, row.descriptor())
        self.add_on_set_parameters_callback(self._on_parameters)
        self.name_unknown_parameters()
        # Not a lifecycle's: why a node cannot be configured must be heard, too.
        self._diagnostics = self.create_publisher(
            topics.DIAGNOSTICS.type, topics.DIAGNOSTICS.name, topics.DIAGNOSTICS.qos
        )
        # Wall time: a watchdog that follows simulated time does not notice that it stopped.
        self.steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._report, clock=self.steady)

    # ------------------------------------------------------------------ for subclasses to fill in
    def configure(self) -> None:
        """Read parameters and files, create publishers and subscriptions."""

    def activate(self) -> None:
        """Start; publishing works from here on."""

    def deactivate(self) -> None:
        """Stop; publishing still works."""

    def check(self, news: Mapping[str, Any]) -> None:
        """Raise `UserError` where new values of live parameters, set together, do not go."""

    def change(self, news: Mapping[str, Any]) -> None:
        """Take new values of live parameters, which were checked."""

    def diagnose(self) -> tuple[bytes, str, dict[str, Any]]:
        """Level, message and figures for `/diagnostics`; `counts` are added."""
        return OK, 'active', {}

    # ------------------------------------------------------------------ for subclasses to use
    def value(self, name: str) -> Any:
        """Value of a parameter."""
        return self.get_parameter(name).value

    def load_spec(self) -> RobotSpec:
        """The robot of the parameter `robot`.

        Raises:
            UserError: not given, or not a valid robot file.
        """
        if not self.value('robot'):
            raise UserError('parameter robot is empty; give a shipped robot or a robot file')
        spec = load_robot(self.value('robot'))
        try:
            check_topics(spec, self.get_namespace())
        except ValueError as error:
            raise UserError(f'parameter robot: {self.value("robot")}: {error}') from None
        return spec

    def advertise(self, topic: Topic, mend: str = '') -> Publisher:
        """Publisher of a topic; silent while the node is not active.

        `mend`: for the case that nobody hears it, which is then said; empty: nobody need.
        """
        if mend:
            self._must_hear.append((topic, mend))
        publisher = self.create_lifecycle_publisher(
            topic.type,
            topic.name,
            topic.qos,
            event_callbacks=PublisherEventCallbacks(
                incompatible_qos=partial(self._on_misfit, topic) if not topic.readers else None,
                use_default_callbacks=False,
            ),
        )
        self._owned.append((self.destroy_lifecycle_publisher, publisher))
        self._offered.append((topic, publisher))
        return publisher

    def listen(
        self,
        topic: Topic,
        callback: Callable[[Any], None],
        qos: QoSProfile | None = None,
        raw: bool = False,
        always: bool = False,
        **expected: Any,
    ) -> Subscription:
        """Subscribe to a topic.

        Messages that come while the node is not active are dropped, but for latched ones, which
        come only once, and where they are `always` wanted. `expected`: `mend`, `period` and
        `frame` of `inputs.Input`, for what must come in; what is wrong with it is then said in the
        log and on `/diagnostics`.
        """
        profile = qos or topic.qos
        latched = profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
        entry = Input(topic, profile, now=self._now_ns, **expected)
        saw = entry.saw

        def receive(message: Any) -> None:
            saw(message)
            if not (self.active or latched or always):
                return
            try:
                callback(message)
            except UserError as error:
                self.skip(f'{UNREAD}{topic.name}', str(error))

        # An event handler costs the executor time in every round: only what comes from others than
        # our own nodes has one. The graph tells of the rest, see `Input`.
        events = SubscriptionEventCallbacks(
            incompatible_qos=partial(self._on_misfit, topic) if not topic.node else None,
            use_default_callbacks=False,
        )
        subscription = self.create_subscription(
            topic.type, topic.name, receive, profile, raw=raw, event_callbacks=events
        )
        self._owned.append((self.destroy_subscription, subscription))
        self._inputs[subscription] = entry
        return subscription

    def glance(
        self,
        topic: Topic,
        callback: Callable[[Any], None],
        qos: QoSProfile | None = None,
        **expected: Any,
    ) -> Subscription:
        """Subscribe to a topic of which only the newest message matters, when `look` asks for it.

        Messages that nobody looks at cost no Python: at 5 Hz of 100 that is most of the work.
        `expected`: as for `listen`.
        """
        profile = qos or topic.qos
        subscription = self.create_subscription(
            topic.type,
            topic.name,
            callback,
            QoSProfile(depth=1, reliability=profile.reliability, durability=profile.durability),
            callback_group=self._unserved,
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
        )
        self._owned.append((self.destroy_subscription, subscription))
        self._inputs[subscription] = Input(topic, profile, **expected)
        return subscription

    def look(self, subscriptions: Iterable[Subscription]) -> None:
        """Hand the newest message of each subscription of `glance` to its callback."""
        for subscription in subscriptions:
            with subscription.handle:
                taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
            if taken is None:
                continue
            entry = self._inputs[subscription]
            entry.saw(taken[0])
            try:
                subscription.callback(taken[0])
            except UserError as error:
                self.skip(f'{UNREAD}{entry.topic.name}', str(error))

    def forget(self, subscription: Subscription) -> None:
        """End a subscription of `listen` or `glance`."""
        self._owned.remove((self.destroy_subscription, subscription))
        self._inputs.pop(subscription, None)
        self.destroy_subscription(subscription)

    def serve(self, kind: type, name: str, answer: Callable[[Any], tuple[bool, str]]) -> None:
        """Offer a service whose response is success and message."""

        def respond(request: Any, response: Any) -> Any:
            try:
                if not self.active:
                    raise UserError(f'{self.NAME} is not active')
                response.success, response.message = answer(request)
            except UserError as error:
                response.success, response.message = False, str(error)
            return response

        service = self.create_service(kind, name, respond)
        self._owned.append((self.destroy_service, service))

    def every(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back at this interval of wall time while the node is active."""

        def tick() -> None:
            if self.active:
                callback()

        timer = self.create_timer(seconds, tick, clock=self.steady)
        self._owned.append((self.destroy_timer, timer))
        return timer

    def skip(self, reason: str, detail: str) -> None:
        """Count something that was left out, and say so: now and then, or if it is another one."""
        self.counts[reason] += 1
        now, (before, said) = time.monotonic(), self._said.get(reason, (-math.inf, ''))
        if now - before >= (SAY_EVERY if detail == said else SAY_NEWS_EVERY):
            self._said[reason] = now, detail
            self.get_logger().warning(f'{reason}: {detail}')

    # ------------------------------------------------------------------ lifecycle
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition; see `configure`."""
        result = self._attempt(self.configure)
        if result != TransitionCallbackReturn.SUCCESS:
            self._release()
            return result
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition; see `activate`."""
        super().on_activate(state)
        self.active, self._active_at = True, time.monotonic()
        for entry in self._inputs.values():
            entry.begin()
        result = self._attempt(self._start)
        if result != TransitionCallbackReturn.SUCCESS:
            self.active = False
            super().on_deactivate(state)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition; see `deactivate`."""
        result = self._attempt(self.deactivate)
        self.active = False
        super().on_deactivate(state)
        return result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition: give back what `configure` created."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition; deactivates first."""
        if self.active:
            self.on_deactivate(state)
        return self.on_cleanup(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition: a fault of ours; start over from unconfigured."""
        self.active = False
        return self.on_cleanup(state)

    def _start(self) -> None:
        self._wait_for_readers()
        self.activate()

    def _wait_for_readers(self) -> None:
        """Wait until those who must not miss a message of ours are matched."""
        peers = self.value('wait_for').split(',')
        given_up = time.monotonic() + RECORDER_SECONDS
        for topic, _ in self._offered:
            readers = {node for node in (*topic.readers, RECORDER) if node in peers}
            while missing := readers - {
                info.node_name for info in self.get_subscriptions_info_by_topic(topic.name)
            }:
                if self.stop.is_set():
                    raise KeyboardInterrupt
                if missing == {RECORDER} and time.monotonic() > given_up:
                    self.get_logger().warning(f'no recorder hears {topic.name}; goes on without')
                    peers.remove(RECORDER)
                    break
                self.get_logger().warning(
                    f'waiting for {sorted(missing)} to subscribe to {topic.name}',
                    throttle_duration_sec=5.0,
                    skip_first=True,
                )
                time.sleep(0.01)  # DDS matches in threads of its own

    def _attempt(self, step: Callable[[], None]) -> TransitionCallbackReturn:
        self._failed = ''
        try:
            step()
        except UserError as error:
            self._failed = str(error)
        except OSError as error:
            self._failed = f'{error}; mend the file, its folder or its permissions'
        except Exception:
            # rclpy would drop it without a word.
            self.get_logger().fatal(traceback.format_exc())
            return TransitionCallbackReturn.ERROR
        if not self._failed:
            return TransitionCallbackReturn.SUCCESS
        self.get_logger().error(self._failed)
        self._report()
        return TransitionCallbackReturn.FAILURE

    def _release(self) -> None:
        for destroy, entity in self._owned:
            destroy(entity)
        self._owned.clear()
        self._offered.clear()
        self._inputs.clear()
        self._must_hear.clear()
        self._complaints.clear()

    # ------------------------------------------------------------------ parameters, diagnostics
    def _on_parameters(self, parameters: Sequence[Any]) -> SetParametersResult:
        fixed = {'use_sim_time', *(row.name for row in self.PARAMETERS if not row.live)}
        news = {p.name: p.value for p in parameters if p.name not in fixed}
        try:
            self.check(news)
        except UserError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.change(news)
        return SetParametersResult(successful=True)

    def set_parameters_atomically(self, parameter_list: list[Any]) -> SetParametersResult:
        """As every node does, and say in the log and on `/diagnostics` what is refused."""
        result = super().set_parameters_atomically(parameter_list)
        names = ', '.join(p.name for p in parameter_list)
        self._refused = '' if result.successful else f'{names}: {result.reason}'
        if self._refused:
            self.get_logger().warning(f'parameter refused, the old value is kept: {self._refused}')
        return result

    def name_unknown_parameters(self, prefix: str = '') -> None:
        """A parameter that no node has would be ignored without a word.

        `prefix`: of those to look at; none: all whose names are known before the robot file is.
        """
        known = parameter_names() | set(self._parameters) | {'use_sim_time'}
        others = () if prefix else ('qos_overrides.', 'start_type', LIMITS)
        for name in self._parameter_overrides:
            if name.startswith(prefix) and name not in known and not name.startswith(others):
                shown = (
                    [n for n in self._parameters if n.startswith(prefix)]
                    if prefix
                    else sorted(p.name for p in self.PARAMETERS)
                )
                self.get_logger().warning(
                    f'parameter {name} is unknown and ignored; this node has {", ".join(shown)}'
                )

    def _on_misfit(self, topic: Topic, event: Any) -> None:
        """The middleware found a peer whose quality of service does not fit."""
        kind = getattr(event.last_policy_kind, 'name', event.last_policy_kind)
        policy = str(kind).rpartition('_')[2]  # of RMW_QOS_POLICY_RELIABILITY
        name = self.resolve_topic_name(topic.name)
        self.counts['incompatible QoS'] += 1
        self.get_logger().warning(f'{name}: a peer offers or asks for another {policy}')

    def may_end(self) -> bool:
        """Whether nothing more is worth waiting for once the process is asked to end."""
        return True

    def complaints(self) -> list[str]:
        """What is wrong with what comes in, and with who should hear what goes out."""
        found = [entry.complaint(self, PATIENCE) for entry in self._inputs.values()]
        if self.counts['incompatible QoS']:
            found += [unheard(self, topic) for topic, _ in self._offered if not topic.readers]
        if time.monotonic() - self._active_at > PATIENCE:
            found += [unheard(self, topic, mend) for topic, mend in self._must_hear]
            found += [self._no_time(), self._twin()]
        found.append(self.why)
        return [text for text in found if text]

    def left_out(self, skipped: Mapping[str, int]) -> str:
        """Why most readings did not become states since the last call; empty: none was left out.

        `skipped`: how many, by reason; messages that could not be read are added.
        """
        unread = {k: n for k, n in self.counts.items() if k.startswith(UNREAD)}
        all_ = Counter(skipped) + Counter(unread)
        recent, self._left_out = all_ - self._left_out, all_
        if not recent:
            return ''
        reason, _ = recent.most_common(1)[0]
        mend = MENDS[reason] if reason in MENDS else self._said[reason][1]
        return f'readings are left out, most: {reason}; {mend}'

    def _no_time(self) -> str:
        if self._now_ns() or not self.value('use_sim_time'):
            return ''
        return 'use_sim_time is on, but no time comes by /clock; start what publishes it'

    def _twin(self) -> str:
        now, name, space = time.monotonic(), self.get_name(), self.get_namespace()
        if self.get_node_names_and_namespaces().count((name, space)) < 2:
            self._alone_at = now
        if now - self._alone_at < FORGOTTEN:
            return ''
        return (
            f'two nodes are called {space.rstrip("/")}/{name}; end one, or start it in another '
            'namespace or domain'
        )

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def _report(self) -> None:
        if not self.active and not self._failed:
            return
        if self._failed:
            level, message, figures = ERROR, self._failed, {}
        else:
            level, message, figures = self.diagnose()
        complaints = [] if self._failed else self.complaints()
        for text in complaints:
            if text not in self._complaints:
                self.get_logger().warning(text)
        self._complaints = set(complaints)
        if complaints:
            level = max(level, WARN)
            message = '; '.join([message, *complaints])
        if self._refused:
            figures = {**figures, 'parameter refused last': self._refused}
        space = self.get_namespace()
        name = f'{self.get_name()}: {self.TASK}'
        status = DiagnosticStatus(
            level=level,
            name=name if space == NAMESPACE else f'{space.strip("/")}/{name}',
            message=message,
            hardware_id=self.value('robot'),
            values=[
                KeyValue(key=key, value=str(value))
                for key, value in {**figures, **self.counts}.items()
            ],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    # ------------------------------------------------------------------ the process
    def fail(self) -> None:
        """A fault of ours ends the process: what must not wait for another one to take its place.

        For subclasses.
        """

    def autostart(self) -> bool:
        """Configure and activate if the parameter `autostart` wants it; whether all is well."""
        if not self.value('autostart'):
            return True
        success = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == success and self.trigger_activate() == success

    def close(self) -> None:
        """Deactivate in good order."""
        if self.active:
            self.trigger_deactivate()
        self.flush()

    def flush(self) -> None:
        """Let subscribers have what was published last."""
        deadline = time.monotonic() + ACK_SECONDS
        for _, publisher in self._offered:
            left = deadline - time.monotonic()
            if left > 0 and publisher.get_subscription_count():
                publisher.wait_for_all_acked(Duration(seconds=left))


def run(make: Callable[[], BaseNode], args: Sequence[str] | None = None) -> int:
    """Run a node until it is done, interrupted or orphaned; returns the exit code."""
    sys.setswitchinterval(GIVE_WAY)  # Python's own 5 ms are a plan's whole time
    # Our own handlers: a signal must end the node between two callbacks, while it can still save
    # and publish, and rclpy's would take the context away first.
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = make()
        keep_to(node.value(CPUS.name))
    except (
        InvalidParameterTypeException,
        InvalidParameterValueException,
        ParameterUninitializedException,
        UserError,
    ) as error:
        print(error, file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    except RCLError as error:  # arguments that ROS does not take, a file of parameters among them
        print(str(error).partition(', at /')[0], file=sys.stderr)
        return 2
    for number in ENDING:
        signal.signal(number, lambda *_: node.stop.set())
    parent = int(os.environ.get(PARENT, 0))
    executor = Executor()
    executor.add_node(node)
    code = 0
    try:
        if not node.autostart():
            code = 1
            node.stop.set()
        while rclpy.ok() and not (node.stop.is_set() and node.may_end()):
            try:
                executor.round(0.1)
            except RCLError as error:
                # Raised when a lifecycle transition is asked for that is not possible now.
                node.get_logger().error(str(error))
            if parent and os.getppid() != parent:
                node.stop.set()
        node.close()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except BaseException:
        node.fail()
        node.flush()
        raise
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
        # All is saved and said; a second signal must not turn a clean end into a killed one.
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
    return code
