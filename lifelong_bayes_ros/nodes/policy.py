"""Node: states and beliefs in, commands out."""

from __future__ import annotations

import gc
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from rclpy.parameter import Parameter as RosParameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_srvs.srv import SetBool

from ..control.controller import Act, Controller
from ..control.deadline import Deadline
from ..control.forecast import Forecast
from ..control.goals import Goal
from ..control.safety import Safety
from ..dynamics.belief import Belief, outcome_channels
from ..dynamics.model import Dynamics
from ..errors import UserError
from ..learning.codec import decode_belief, decode_prior, fingerprint
from ..learning.policy_state import decode_policy
from ..learning.policy_thread import due
from ..memory.regimes import NEW
from ..robot.transitions import State, StateAssembler
from . import qos, topics
from .base import ERROR, LIMITS, OK, SEED, WARN, BaseNode, Parameter, run
from .choices import choice_to_msg
from .codecs import (
    action_to_msg,
    command_to_msg,
    msg_to_bytes,
    read_channels,
    table_to_msg,
)
from .devices import usable_device
from .figures import Figures
from .forecaster import Forecaster
from .goals import read_goal
from .operator import NOT_YET, Operator
from .table import RANGES

torch.set_num_threads(1)

CAREFUL = 0.99  # authority below which it is said
MANY, FEW = 0.1, 5  # share of late plans from which on it is said, of more ticks than a few
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class Policy(BaseNode):
    """Answers every state with a command, planned through the newest belief.

    In lockstep a state waits for the belief that knows of it, and for its plan. Otherwise the
    policy acts at once, the last plan answers where the new one is late, and a watchdog sends the
    safe action, then nothing, when no state comes in. A goal that is refused changes nothing. A
    stop and limits that an operator gave hold on in a process that is started in the place of
    this one. Where the robot file wants a policy posterior, it publishes what its planner
    chooses, for the learner to learn from, and acts by the posterior that comes of it.
    """

    NAME = 'policy'
    TASK = 'control'
    PARAMETERS = (
        Parameter('lockstep', False, 'wait for the belief that knows of a state'),
        Parameter(
            'max_belief_age',
            1.0,
            'seconds after which a belief is stale',
            *RANGES['max_belief_age'],
            live=True,
        ),
        Parameter('enabled_at_start', True, 'act without a call of ~/enable'),
        Parameter('enabled', True, 'false: stop as ~/estop does; true: as ~/enable', live=True),
        Parameter(
            'plan_rate_hz',
            5.0,
            'most plans published per second',
            *RANGES['plan_rate_hz'],
            live=True,
        ),
        Parameter(
            'beta',
            -1.0,
            'weight of epistemic spread in the cost of a plan; -1: that of the robot file',
            -1.0,
            1e3,
            live=True,
        ),
        Parameter('planner_device', 'cpu', 'where plans are weighed: cpu, cuda, or auto'),
        SEED,
    )

    def configure(self) -> None:
        self.spec = self.load_spec()
        self.lockstep = self.value('lockstep')
        self.device = usable_device('planner_device', self.value('planner_device'))
        self.acts_at_start = self.value('enabled_at_start') and self.value('enabled')
        self.assembler = StateAssembler(self.spec)
        self.safety = Safety(self.spec)
        self.operator = Operator(self, self.spec, self.safety)
        self.controller: Controller | None = None
        self.deadline: Deadline | None = None
        self.prior_id = ''
        self.belief: Belief | None = None
        self.belief_ns: int | None = None  # stamp of the newest state when it came
        self.foreign = ''  # why what the learner sends is not of this robot
        self.newest_head: Any = None  # message, kept until its trunk is here
        self.next_trunk: tuple[str, Dynamics] | None = None  # kept until its head is here
        self.anew = False  # whether the learner began anew, and its head is still to come
        self.own_beta: float | None = None  # the planner's, before a parameter changed it
        self.newest_policy: Any = None  # message, kept until its trunk is here
        self.seconds: deque[float] = deque(maxlen=200)
        self.tick_seconds: deque[float] = deque(maxlen=6000)  # with publishing
        if hasattr(self, 'forecaster'):
            self.forecaster.close()
        self.forecaster = Forecaster(self._tell_plan, wait=self.lockstep)
        self.counted: Counter[str] = Counter()  # of ticks, when it was reported last
        self._forget()
        mend = "start the robot's controller, or mend command in the robot file"
        self.commands = self.advertise(topics.command_topic(self.spec), mend)
        self.actions = self.advertise(topics.ACTION)
        self.uncertainty = Figures(self, topics.UNCERTAINTY, topics.UNCERTAINTY_DISPLAY)
        self.choices = self.advertise(topics.CHOICE) if self.spec.policy.used else None
        self.plans = self.advertise(topics.PLAN)
        self.plan_spreads = self.advertise(topics.PLAN_SPREAD)
        for source, topic in topics.state_topics(self.spec).items():
            # Of states that came in while the process could not run only the newest is answered.
            wanted = qos.SENSOR if self.lockstep else NEWEST
            mend = f"start the robot's driver, or mend sources.{source} in the robot file"
            self.listen(topic, partial(self._on_state, source), wanted, mend=mend)
        self.listen(topics.TRUNK, self._on_trunk)
        self.listen(topics.HEAD, self._on_belief, mend='start the learner')
        if self.choices is not None:
            self.listen(topics.POLICY, self._on_policy)
        self.listen(topics.ESTOP, self._on_estop, always=True)
        goal_topic = topics.goal_topic(self.spec)
        if goal_topic is not None:
            self.listen(goal_topic, self._on_goal)
        self.serve(SetBool, '~/enable', self._on_enable)
        # Put off by every state: it costs a round of the executor only where none comes.
        self.watchdog = None if self.lockstep else self.every(self.spec.max_age, self._watch)

    def activate(self) -> None:
        self._forget()
        if not (self.acts_at_start or self.safety.stopped):
            self.safety.stop(NOT_YET)
        self._tell_enabled()

    def deactivate(self) -> None:
        last = self.assembler.last
        if last is not None and not (self.lockstep or self.safety.stopped):
            # The last command must not stay in force. A simulation in lockstep just waits.
            known = self.controller is not None and self.belief is not None
            self._send_safe(
                last.stamp_ns,
                self.controller.safe_action(last, self.belief)
                if known
                else self.safety.safe_action(),
            )
        self._settle()
        self.forecaster.settle()

    def fail(self) -> None:
        """The last command must not stay in force; nothing learned is asked."""
        if self.active and not self.lockstep:
            last = self.assembler.last
            self._send_safe(last.stamp_ns if last else 0, self.safety.safe_action())

    def destroy_node(self) -> None:
        """An orderly end: nothing is kept for another process."""
        if hasattr(self, 'operator'):
            self.operator.kept.forget()
        super().destroy_node()

    def check(self, news: Mapping[str, Any]) -> None:
        if hasattr(self, 'operator'):
            self.operator.check(_limits(news))

    def change(self, news: Mapping[str, Any]) -> None:
        if not hasattr(self, 'controller'):
            return  # taken up when configured
        if limits := _limits(news):
            self.operator.narrow(limits)
            self._plan_within_limits()
        enabled = news.get('enabled')
        if self.active and enabled == bool(self.safety.stopped):
            self._enable(enabled, 'stopped by the parameter enabled')
        if self.controller is not None:
            age = news.get('max_belief_age', self.controller.max_belief_age)
            self.controller.max_belief_age = age
            if 'beta' in news:
                self._weigh(news['beta'])

    def _weigh(self, beta: float) -> None:
        """Give the planner its weight of epistemic spread."""
        planner = self.controller.planner
        if self.own_beta is None:
            self.own_beta = planner.beta
        planner.beta = beta if beta >= 0 else self.own_beta

    def _tell_enabled(self) -> None:
        """Let the parameter `enabled` say what is so, whoever changed it."""
        if self.value('enabled') == bool(self.safety.stopped):
            self.set_parameters([RosParameter('enabled', value=not self.safety.stopped)])

    def _forget(self) -> None:
        """Begin anew, but with the belief at hand."""
        self.assembler.reset()
        self.safety.resume()
        self._begin()
        self._follow(None)
        self.refusal = ''  # why the goal that came last was refused
        self.conservative = ''  # why authority is held down
        self.silence = ''  # why the last tick ended without a command
        self.held: State | None = None  # in lockstep: the state that waits for its belief,
        self.unawaited: State | None = None  # and one that will never have it
        self.answer: tuple[Any, Any] | None = None  # the messages sent last,
        self.answered_ns = -1  # and the stamp of the state that they answer
        self.heard_at = time.monotonic()  # when a new state came in
        self.planned = False  # whether there was ever a plan
        self.tick_at = time.perf_counter()  # when the reading came that is being answered
        self.planned_ns = 0  # stamp of the plan published last
        self.taught_ns = -1  # stamp of the last choice that a policy posterior is due after

    def _begin(self) -> None:
        """Forget what was planned."""
        if self.controller is not None:
            self._settle()
            self.controller.forget()

    def _settle(self) -> None:
        """Wait until nothing is being planned."""
        if self.deadline is not None:
            self.deadline.settle()

    def diagnose(self) -> tuple[bytes, str, dict[str, Any]]:
        milliseconds = 1e3 * np.array(self.seconds or [0.0])
        figures = {
            'plan ms p50': f'{np.median(milliseconds):.2f}',
            'plan ms max': f'{milliseconds.max():.2f}',
            **{f'tick ms p{q:g}': f'{v:.2f}' for q, v in self._percentiles(50, 99, 99.9)},
            **{f'skipped: {k}': v for k, v in self.assembler.skipped.items()},
            **{f'intervened: {k}': v for k, v in self.safety.interventions.items()},
        }
        recent = self.counts - self.counted
        self.counted = self.counts.copy()
        if self.belief is not None and self.belief.stamp_ns and self.assembler.last is not None:
            age = (self.assembler.last.stamp_ns - self.belief.stamp_ns) * 1e-9
            figures['belief age s'] = f'{age:.3f}'
        if self.refusal:
            figures['goal refused last'] = self.refusal
        why, self.why = self.left_out(self.assembler.skipped), ''
        if self.safety.stopped:
            figures['why stopped'] = self.safety.stopped
            return WARN, 'stopped; call ~/enable to go on', figures
        if time.monotonic() - self.heard_at > self.spec.max_age:
            self.why = why
            return ERROR, 'no state comes in', figures
        if self.controller is None or self.belief is None:
            return WARN, f'no belief yet{self.foreign and f": {self.foreign}"}', figures
        if self.silence:
            return ERROR, f'no command is sent: {self.silence}', figures
        remarks = []
        if self.belief.mode == 'nominal':
            remarks.append('guard: acting on the nominal model')
        if self.conservative:
            remarks.append(f'acting carefully: {self.conservative}')
        if self._lacks_goal():
            remarks.append('no goal yet: safe action')
        elif self.refusal:
            remarks.append(f'goal refused, the one before is kept: {self.refusal}')
        if recent['ticks'] > FEW and recent['late plans'] > MANY * recent['ticks']:
            share = recent['late plans'] / recent['ticks']
            remarks.append(f'acting on earlier plans: {share:.0%} come late; plan less')
        if remarks:
            return WARN, '; '.join(remarks), figures
        return OK, 'acting', figures

    def _percentiles(self, *percent: float) -> list[tuple[float, float]]:
        ticks = self.tick_seconds or [0.0]
        return list(zip(percent, 1e3 * np.percentile(ticks, percent), strict=True))

    # ------------------------------------------------------------------ beliefs
    def _on_trunk(self, message: Any) -> None:
        prior, _ = decode_prior(msg_to_bytes(message), 'belief/trunk')
        dynamics = prior.dynamics
        self.foreign = self.spec.differs(dynamics.spec)
        if self.foreign:
            self.foreign += '; start the learner with the robot file of this node'
            self.skip('belief of another robot', self.foreign)
            return
        prior_id = fingerprint(prior)
        if prior_id == self.prior_id:  # the learner was started again
            self.next_trunk, self.anew = None, True
            return
        # Goal, cost and limits are those of the robot file here, not of the one pre-trained with.
        dynamics = replace(dynamics, spec=self.spec)
        if self.controller is None:
            seed, age = self.value('seed'), self.value('max_belief_age')
            self.controller = Controller(dynamics, seed, age, self.safety, self.device)
            self.prior_id = prior_id
            self.controller.aim(self.goal)
            self._plan_within_limits()
            if not self.lockstep:
                seconds = self.spec.safety.deadline * self.spec.period
                self.deadline = Deadline(self.controller, seconds)
            self._weigh(self.value('beta'))
            self._catch_up()
        else:
            # Until its head is here, too, the old trunk and its belief answer.
            self.next_trunk = (prior_id, dynamics)
        if self.newest_head is not None:
            # The small head may overtake its large trunk; one of the old trunk is of no use.
            with suppress(UserError):
                self._take_head()

    def _on_belief(self, message: Any) -> None:
        self.newest_head = message
        if self.controller is not None:
            self._take_head()

    def _take_head(self) -> None:
        data = msg_to_bytes(self.newest_head)
        before, first = self.belief, self.belief is None
        try:
            self.belief = decode_belief(data, self.prior_id, 'belief/head')
        except UserError:
            if self.next_trunk is None:
                raise
            prior_id, dynamics = self.next_trunk
            self.belief = decode_belief(data, prior_id, 'belief/head')
            self._settle()
            self.controller.adopt(dynamics)
            self.prior_id, self.next_trunk = prior_id, None
            self._catch_up()
        last = self.assembler.last
        self.belief_ns = None if last is None else last.stamp_ns
        if before is not None and (self.anew or self.belief.stamp_ns < before.stamp_ns):
            # What leads to the state that waits came while the learner was away.
            self.unawaited = self.held
        self.anew = False
        if first and self.deadline is not None:
            self._settle()
            self.deadline.warm(self.belief)
            gc.collect()
            gc.freeze()  # what is there by now stays; looking through it takes many milliseconds
        self._act_if_due()

    def _on_policy(self, message: Any) -> None:
        self.newest_policy = message
        if self.controller is not None:
            self._take_policy()
            self._act_if_due()

    def _catch_up(self) -> None:
        """Take the policy posterior that came before its trunk."""
        if self.newest_policy is not None:
            with suppress(UserError):  # it was said when it came
                self._take_policy()

    def _take_policy(self) -> None:
        adviser = self.controller.adviser
        data = msg_to_bytes(self.newest_policy)
        posterior = decode_policy(data, adviser.senses.fingerprint)
        adviser.take(posterior)
        # One from before the last choice that is due comes of a learner that began anew.
        self.taught_ns = min(self.taught_ns, posterior.stamp_ns)
        self.counts['policy posteriors'] += 1

    def _unlearned(self, belief: Belief, state: State) -> bool:
        """Whether a belief, or a policy posterior, that lockstep waits for has not come."""
        if belief.stamp_ns < state.stamp_ns and state is not self.unawaited:
            return True
        if self.choices is None:
            return False
        posterior = self.controller.adviser.posterior
        return posterior is None or posterior.stamp_ns < self.taught_ns

    # ------------------------------------------------------------------ states
    def _on_state(self, source: str, message: Any) -> None:
        self.tick_at = time.perf_counter()
        now_ns = self.get_clock().now().nanoseconds
        stamp_ns, values = read_channels(self.spec, source, message, now_ns)
        last = self.assembler.last
        state = self.assembler.update(source, stamp_ns, values)
        if state is not None:
            self.heard_at = time.monotonic()
            self._put_off()
            self.held = state
            self._act_if_due()
        elif self.lockstep and last is not None and stamp_ns == last.stamp_ns:
            # The robot asks again: an answer was lost on its way, or was silence.
            self._send_again()
            if self.answered_ns != stamp_ns:
                self.held = last
                self._act_if_due()

    def _act_if_due(self) -> None:
        state, belief = self.held, self.belief
        if state is None:
            return
        controller, stopped = self.controller, self.safety.stopped
        if controller is None or belief is None:
            if self.lockstep and not stopped:
                return
            self._send_safe(state.stamp_ns, self.safety.safe_action())
        elif self.lockstep and not stopped and self._unlearned(belief, state):
            return
        elif stopped or self._lacks_goal():
            self._send_safe(state.stamp_ns, controller.safe_action(state, belief))
        else:
            self._act(controller, state, belief if self.lockstep else self._aged(belief, state))
        self.held = None

    def _aged(self, belief: Belief, state: State) -> Belief:
        """The belief, no younger than it is here: its stamp may be none, or of another clock."""
        if self.belief_ns is None or self.belief_ns > state.stamp_ns:  # or the clock was set back
            self.belief_ns = state.stamp_ns
        stamp_ns = min(belief.stamp_ns or self.belief_ns, self.belief_ns)
        return belief if stamp_ns == belief.stamp_ns else replace(belief, stamp_ns=stamp_ns)

    def _act(self, controller: Controller, state: State, belief: Belief) -> None:
        past = np.array(controller.past)
        act = (self.deadline or controller).act(state, belief)
        if act.command is not None:
            planned = () if act.plan is None else (act.plan.actions[0], act.plan.spread)
            self._send(act.stamp_ns, act.command, *planned)
        if act.choice is not None:
            self.choices.publish(choice_to_msg(act.choice))
            if due(act.choice.stamp_ns, self.spec.period_ns):
                self.taught_ns = act.choice.stamp_ns
        self.tick_seconds.append(time.perf_counter() - self.tick_at)
        self.counts['ticks'] += 1
        self.planned |= act.plan is not None
        self.silence = self.safety.fault if act.command is None else ''
        if act.late and act.command is None and self.planned:
            self.counts['late, silent'] += 1
            self.counts[f'silent: {self.silence}'] += 1
        self.seconds.append(act.seconds)
        self.counts['late'] += act.seconds > self.spec.period
        self.counts['late plans'] += act.late
        self.counts['alone'] += act.alone
        self.counts['stale belief'] += act.stale
        self.conservative = _why_careful(act, belief, self.spec.safety.ood.begin)
        if act.spread is not None and self.uncertainty.wanted(act.stamp_ns):
            command = controller.safety.last if act.command is None else act.command
            outcomes = outcome_channels(controller.dynamics, belief, state.x, command)
            self._publish_uncertainty(act, belief, outcomes)
        if act.plan is not None and not act.late:
            self._publish_plan(controller, act, belief, state, past)
        if self.deadline is not None:
            self.deadline.rest()

    def _publish_plan(
        self, controller: Controller, act: Act, belief: Belief, state: State, past: np.ndarray
    ) -> None:
        since = state.stamp_ns - self.planned_ns
        if 0 <= since < 1e9 / self.value('plan_rate_hz'):
            return
        outputs = (self.plans, self.plan_spreads)
        if not any(output.get_subscription_count() for output in outputs):
            return
        plan = (belief, state.x, act.plan.actions, past)
        if self.forecaster.offer(controller.dynamics, *plan):
            self.planned_ns = state.stamp_ns

    def _tell_plan(self, ahead: Forecast) -> None:
        self.plans.publish(table_to_msg(ahead.members, topics.PLAN_AXES))
        self.plan_spreads.publish(table_to_msg(_spread_table(ahead), topics.SPREAD_AXES))

    def _send(self, stamp_ns: int, command: np.ndarray, *planned: np.ndarray) -> None:
        message = command_to_msg(self.spec, command, self.get_clock().now().to_msg())
        self.commands.publish(message)  # before all that is only about it
        action = action_to_msg(self.spec, stamp_ns, command, *planned)
        self.actions.publish(action)
        self.answered_ns, self.answer = stamp_ns, (message, action)

    def _send_again(self) -> None:
        if self.answer is not None:
            command, action = self.answer
            self.commands.publish(command)
            self.actions.publish(action)

    def _publish_uncertainty(self, act: Act, belief: Belief, outcomes: dict[str, float]) -> None:
        values = {f'{n}.mean': m for n, m in zip(self.spec.state_names, act.spread.mean)}
        for kind in ('epistemic', 'aleatoric'):
            spread = np.sqrt(getattr(act.spread, kind))
            values |= {f'{n}.{kind}': s for n, s in zip(self.spec.state_names, spread)}
        values |= {
            'ood': act.spread.ood,
            'regime_entropy': belief.entropy,
            'belief_age': (act.stamp_ns - belief.stamp_ns) * 1e-9 if belief.stamp_ns else 0.0,
            'nominal': act.stale or belief.mode == 'nominal',
            'authority': act.authority,
            'late': act.late,
        }
        if act.advice is not None:
            half = self.spec.action_half_range
            command = self.controller.adviser.commands(act.advice.mean[0])
            for i, name in enumerate(a.name for a in self.spec.action):
                values[f'{name}.policy'] = command[i]
                values[f'{name}.policy_epistemic'] = act.advice.spread[i] * half[i]
        self.uncertainty.publish(values | outcomes, act.stamp_ns)

    # ------------------------------------------------------------------ safety
    def _put_off(self) -> None:
        """Let the watchdog wait for `max_age` from now on."""
        if self.watchdog is not None:
            self._pace(self.spec.max_age)
            self.watchdog.reset()

    def _pace(self, seconds: float) -> None:
        nanoseconds = round(1e9 * seconds)
        if self.watchdog.timer_period_ns != nanoseconds:
            self.watchdog.timer_period_ns = nanoseconds
            self.watchdog.reset()

    def _watch(self) -> None:
        if time.monotonic() - self.heard_at > self.spec.max_age:
            self._pace(self.spec.period)
            last = self.assembler.last
            self._send_safe(last.stamp_ns if last else 0, self.safety.safe_action())

    def _send_safe(self, stamp_ns: int, command: np.ndarray | None) -> None:
        self.counts['safe action'] += 1
        if command is not None:
            self._send(stamp_ns, command)

    def _on_estop(self, message: Any) -> None:
        if message.data and not self.safety.stopped:
            self._stop('stopped by estop')
            self._tell_enabled()

    def _on_enable(self, request: SetBool.Request) -> tuple[bool, str]:
        self._enable(request.data, 'stopped by ~/enable')
        self._tell_enabled()
        return True, 'acting' if request.data else 'stopped'

    def _enable(self, wanted: bool, reason: str) -> None:
        if wanted and self.safety.stopped:
            self._begin()
            self.safety.enable()
            self.operator.keep()
        elif wanted:
            return
        else:
            self._stop(reason)

    def _stop(self, reason: str) -> None:
        self.get_logger().warning(reason)
        self.safety.stop(reason)
        self.counts[reason] += 1
        self._follow(None)  # a trajectory must not go on somewhere in its middle
        self._act_if_due()
        self.operator.keep()

    # ------------------------------------------------------------------ goals
    def _on_goal(self, message: Any) -> None:
        try:
            if self.assembler.last is None:
                raise UserError('goal: no state of the robot is known yet; send it again later')
            goal = read_goal(self.spec, message, self.assembler.last.stamp_ns)
        except UserError as error:
            self.refusal = str(error)
            self.skip('goal refused', self.refusal)
            return
        self.refusal = ''
        self.counts['goals taken'] += 1
        self._follow(goal)

    def _follow(self, goal: Goal | None) -> None:
        self.goal = goal
        if self.controller is not None:
            self._once_planned(partial(self.controller.aim, goal))

    def _plan_within_limits(self) -> None:
        """Let the planner search among the commands that the operator allows."""
        if getattr(self, 'controller', None) is not None:
            self._once_planned(partial(self.controller.planner.narrow, *self.safety.allowed))

    def _once_planned(self, change: Callable[[], None]) -> None:
        """Change the controller without waiting for a plan under way: a stop must not."""
        if self.deadline is None:
            change()
        else:
            self.deadline.later(change)

    def _lacks_goal(self) -> bool:
        wanted = self.spec.goal_input
        return wanted is not None and wanted.required and self.goal is None


def _limits(news: Mapping[str, Any]) -> dict[str, float]:
    """Those of an operator's limits that are among new values of parameters."""
    return {name: value for name, value in news.items() if name.startswith(LIMITS)}


def _why_careful(act: Act, belief: Belief, far: float) -> str:
    """Why authority is held down; `far`: the out-of-distribution score from which it is."""
    if act.stale:
        return 'the belief is stale'
    if act.plan is None or act.authority >= CAREFUL:
        return ''
    if act.spread is not None and act.spread.ood > far:
        return 'far from what it was trained on'
    return f'the regime is unknown ({belief.regimes.get(NEW, 0.0):.0%})'


def _spread_table(ahead: Forecast) -> np.ndarray:
    return np.stack([ahead.mean, np.sqrt(ahead.epistemic), np.sqrt(ahead.aleatoric)])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit code."""
    sys.setswitchinterval(2e-4)  # s; the planner's thread must not keep an answer waiting
    return run(Policy, argv)


if __name__ == '__main__':
    raise SystemExit(main())
