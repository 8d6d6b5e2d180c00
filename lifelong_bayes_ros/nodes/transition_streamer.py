"""Node: robot state and applied commands in, transitions out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from std_srvs.srv import Trigger

from ..robot.transitions import StateAssembler, Transition, TransitionBuilder
from . import qos, topics
from .base import ERROR, OK, WARN, BaseNode, Parameter, run
from .codecs import (
    action_from_msg,
    json_to_msg,
    read_channels,
    read_outcome,
    transition_to_msg,
)
from .table import RANGES


class TransitionStreamer(BaseNode):
    """Aligns the robot's sensors into states and pairs them with the commands in force."""

    NAME = 'transition_streamer'
    TASK = 'transitions'
    PARAMETERS = (
        Parameter(
            'episode_length',
            0,
            'transitions per episode; 0: ends by service',
            *RANGES['episode_length'],
        ),
    )

    def configure(self) -> None:
        self.spec = self.load_spec()
        self.assembler = StateAssembler(self.spec)
        self.builder = TransitionBuilder(self.spec, self.value('episode_length'))
        self.running: int | None = None  # episode that was announced
        self.readings = self.states = self.states_before = self.skipped_before = 0
        self.output = self.advertise(topics.TRANSITION)
        self.episode = self.advertise(topics.EPISODE)
        # Before the states: where both wait, what happened in a step is taken before its end.
        for name, topic in topics.outcome_topics(self.spec).items():
            self.listen(topic, partial(self._on_outcome, name), qos.SENSOR)
        for source, topic in topics.state_topics(self.spec).items():
            self.listen(
                topic,
                partial(self._on_state, source),
                qos.SENSOR,
                mend=f"start the robot's driver, or mend sources.{source} in the robot file",
                period=self.spec.period,
                frame=self.spec.frame if topic.type in (Odometry, PoseStamped) else '',
            )
        self.listen(topics.ACTION, self._on_action, mend='start the policy, or enable it')
        self.serve(Trigger, '~/end_episode', self._on_end_episode)

    def activate(self) -> None:
        self.assembler.reset()

    def diagnose(self) -> tuple[bytes, str, dict[str, Any]]:
        rate, self.states_before = self.states - self.states_before, self.states
        figures = {
            'sent': self.builder.sequence,
            'state rate': rate,
            'readings': self.readings,
            **self.assembler.skipped,
            **self.builder.labels.skipped,
        }
        skipped = self.assembler.skipped.total()
        recently, self.skipped_before = skipped - self.skipped_before, skipped
        self.why = self.left_out(self.assembler.skipped)
        if not rate:
            return ERROR, 'no state comes in', figures
        if recently > rate:
            return WARN, 'few states come in', figures
        self.why = ''
        return OK, 'streaming', figures

    def _on_state(self, source: str, message: Any) -> None:
        self.readings += 1
        now_ns = self.get_clock().now().nanoseconds
        state = self.assembler.update(source, *read_channels(self.spec, source, message, now_ns))
        if state is not None:
            self.states += 1
            self._send(self.builder.add_state(state))

    def _on_outcome(self, name: str, message: Any) -> None:
        self.builder.labels.add(name, *read_outcome(self.spec, name, message))

    def _on_action(self, message: Any) -> None:
        self._send(self.builder.add_command(*action_from_msg(self.spec, message)))

    def _on_end_episode(self, request: Trigger.Request) -> tuple[bool, str]:
        self.builder.end_episode()
        return True, f'episode {self.builder.episode} ends with the next transition'

    def _send(self, transitions: Iterable[Transition]) -> None:
        for transition in transitions:
            self.output.publish(transition_to_msg(self.spec, transition))
            if transition.episode != self.running:
                self._announce(transition, 'start')
            if transition.ends_episode:
                self._announce(transition, 'end')

    def _announce(self, transition: Transition, event: str) -> None:
        self.running = transition.episode
        content = {'episode': self.running, 'event': event, 'stamp_ns': transition.stamp_ns}
        self.episode.publish(json_to_msg(content))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit code."""
    return run(TransitionStreamer, argv)


if __name__ == '__main__':
    raise SystemExit(main())
