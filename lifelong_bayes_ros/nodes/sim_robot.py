"""Node: a simulated robot that publishes its state and takes commands, with hidden shifts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger

from ..errors import UserError
from ..experiments.schedule import Life
from . import topics
from .base import OK, SEED, BaseNode, Parameter, run
from .codecs import (
    action_from_msg,
    command_from_msg,
    json_to_msg,
    outcome_message,
    state_messages,
    to_stamp,
)
from .table import RANGES, life_of

REMEMBERED = 100  # states whose answers may still come late
RESEND = 0.5  # s of wall time without an answer after which a state is published again


class SimRobot(BaseNode):
    """Steps a simulator through a life.

    In lockstep it steps once for each `action` that answers its newest state and waits otherwise,
    so that a run does not depend on the speed of the machine. In real time it applies the newest
    `command` at every period of wall time, as robots do.
    """

    NAME = 'sim_robot'
    TASK = 'simulation'
    PARAMETERS = (
        Parameter('life', '', 'life of hidden shifts: shipped robot name or file; empty: none'),
        Parameter('steps', 0, 'control steps to run; 0: the whole life', *RANGES['steps']),
        Parameter('lockstep', True, 'wait for the action that answers a state'),
        Parameter('realtime', False, 'follow the wall clock instead of lockstep'),
        Parameter('shutdown_at_end', False, 'end the process after the last step'),
        SEED,
    )

    def configure(self) -> None:
        self.spec = self.load_spec()
        try:
            import lifelong_bayes_ros_sim as sim
        except ImportError as error:
            raise UserError(
                f'the simulator needs MuJoCo ({error}); '
                "install the extra: pip install 'lifelong_bayes_ros[sim]'"
            ) from None
        self.sim = sim
        self.realtime = self.value('realtime') or not self.value('lockstep')
        life = self.value('life')
        self.life: Life | None = life_of(self.spec, life) if life else None
        self.last_step = self.value('steps') or (self.life.steps if self.life else None)
        self.env = sim.make(self.spec.name, spec=self.spec, seed=self.value('seed'))
        self.outputs = {
            source: self.advertise(topic)
            for source, topic in topics.state_topics(self.spec).items()
        }
        self.sensed = {
            name: self.advertise(topic) for name, topic in topics.outcome_topics(self.spec).items()
        }
        self.clock = self.advertise(topics.CLOCK)
        self.truth = self.advertise(topics.REGIME)
        self.serve(Trigger, '~/reset', self._on_reset)
        self.listen(topics.ACTION, self._on_action)
        if self.realtime:
            self.newest = self.glance(topics.command_topic(self.spec), self._on_command)
            self.every(self.spec.period, self._tick)
        else:
            self.every(RESEND / 2, self._resend)

    def activate(self) -> None:
        self.step = 0
        self.done = False
        self.late = 0  # steps in real time that began before the newest state was answered
        self.answered = False  # whether the newest state was answered
        self.unanswered: dict[int, float] = {}  # stamp of a state: wall time it was published
        self.latencies: list[float] = []  # s of wall time from a state to its answer
        if self.realtime:
            self.look([self.newest])  # one from before the start is not for this life
        self.command = self.spec.neutral
        self.shifts = self._wanted_shifts()
        options = {'shifts': self._objects(self.shifts)}
        observation, _ = self.env.reset(seed=self.value('seed'), options=options)
        self._publish(observation)

    def diagnose(self) -> tuple[bytes, str, dict[str, Any]]:
        figures = {'step': self.step, 'late': self.late}
        return OK, 'life is over' if self.done else self._regime(), figures

    # ------------------------------------------------------------------ commands
    def _on_command(self, message: Any) -> None:
        self.command = command_from_msg(self.spec, message)

    def _tick(self) -> None:
        self.look([self.newest])
        self.late += not self.answered
        self._step(self.command)

    def _on_action(self, message: Any) -> None:
        stamp_ns, command = action_from_msg(self.spec, message)
        if stamp_ns in self.unanswered:
            self.latencies.append(time.monotonic() - self.unanswered.pop(stamp_ns))
        if stamp_ns != self.env.stamp_ns:
            self.counts['action for an old state'] += 1
            return
        self.answered = True
        if not self.realtime:
            self._step(command)

    def _on_reset(self, request: Trigger.Request) -> tuple[bool, str]:
        self._publish(self.env.recover())
        return True, 'on the reference again'

    # ------------------------------------------------------------------ one step
    def _step(self, command: np.ndarray) -> None:
        if self.done:
            return
        wanted = self._wanted_shifts()
        if wanted is not self.shifts:
            self.shifts = wanted
            self.env.set_shifts(self._objects(wanted))
        regime = self._regime()
        observation, score, _, _, info = self.env.step(command)
        self.step += 1
        self.done = self.step == self.last_step
        truth = {
            'step': self.step - 1,
            'stamp_ns': self.env.stamp_ns,
            'regime': regime,
            'score': float(score),
            'crashed': bool(info['crashed']),
            'late': self.late,
            'latencies': self.latencies,
            'state': np.asarray(info['state']).tolist(),
            'done': self.done,
        }
        self.truth.publish(json_to_msg(truth))
        self._publish(observation)
        if self.done and self.value('shutdown_at_end'):
            self.stop.set()

    def _publish(self, observation: np.ndarray) -> None:
        # Rounded to float32 here, so that turning velocities back and forth between frames cannot
        # change what the receiver rounds to: a run through ROS equals one without it.
        x = self.spec.wrap(observation).astype(np.float32)
        stamp_ns = self.env.stamp_ns
        self.clock.publish(Clock(clock=to_stamp(stamp_ns)))
        self.messages = state_messages(self.spec, stamp_ns, x)
        self.answered, self.latencies = False, []
        self.unanswered[stamp_ns] = time.monotonic()
        if len(self.unanswered) > REMEMBERED:
            del self.unanswered[next(iter(self.unanswered))]
        self._send()

    def _send(self) -> None:
        self.sent_at = time.monotonic()
        for name, label in self.env.labels.items():
            message = outcome_message(self.spec, name, label, self.env.stamp_ns)
            self.sensed[name].publish(message)
        for source, message in self.messages.items():
            self.outputs[source].publish(message)

    def _resend(self) -> None:
        """The state, or the answer to it, may have been lost: it came by a best-effort topic."""
        if not self.done and time.monotonic() - self.sent_at > RESEND:
            self.counts['state sent again'] += 1
            self._send()

    # ------------------------------------------------------------------ the life
    def _regime(self) -> str:
        return self.life.regime_at(self.step) if self.life else 'nominal'

    def _wanted_shifts(self) -> Sequence[dict[str, Any]]:
        return self.life.shift_dicts_at(self.step) if self.life else ()

    def _objects(self, shifts: Sequence[dict[str, Any]]) -> list[Any]:
        return [self.sim.shift_from_dict(shift) for shift in shifts]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit code."""
    return run(SimRobot, argv)


if __name__ == '__main__':
    raise SystemExit(main())
