"""Node: transitions in, beliefs out."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rclpy.parameter import Parameter as RosParameter
from std_srvs.srv import SetBool, Trigger

from ..control.policy_posterior import PolicyPosterior, Senses
from ..dynamics.model import Prior
from ..errors import UserError
from ..learning.broad import SCRATCH
from ..learning.codec import decode_prior, encode_belief, encode_prior, fingerprint
from ..learning.learner import Learner
from ..learning.policy_learner import PolicyLearner
from ..learning.policy_state import POLICY, encode_policy, load_policy, save_policy
from ..learning.policy_thread import PolicyThread
from ..learning.report import Event
from ..learning.saver import Saved, Saver
from ..learning.settings import LearnerConfig
from ..learning.store import STATE, claim, load_state
from ..memory.sensitivity import memory_map
from ..paths import check_writable
from . import topics
from .base import OK, SEED, WARN, BaseNode, Parameter, run
from .choices import choice_from_msg
from .codecs import (
    bytes_to_msg,
    event_to_msg,
    table_to_msg,
    transition_from_msg,
)
from .devices import usable_device
from .disk import room
from .figures import Figures

torch.set_num_threads(1)

BOUNDS = ('capacity', 'memory_bytes', 'journal')  # of memory, if they are given
AS_BEFORE = '0: as before, at first'


class LearnerNode(BaseNode):
    """Learns from every transition and publishes the belief that came of it."""

    NAME = 'learner'
    TASK = 'learning'
    PARAMETERS = (
        Parameter(
            'prior',
            '',
            'prior file (.safetensors); empty: pre-trained in simulation, else from scratch',
        ),
        Parameter('state_dir', '', 'folder that keeps the posterior; empty: not kept'),
        Parameter('resume', True, 'go on from state_dir where it holds a posterior'),
        Parameter('device', 'cpu', 'where the trunk is learned: cpu, cuda, or auto'),
        Parameter('lockstep', False, 'wait for what the background learns, where it is late'),
        Parameter('capacity', 0, f'regimes kept, with the nominal one; {AS_BEFORE} 12', 0, 1000),
        Parameter('memory_bytes', 0, f'most bytes of memory; {AS_BEFORE} no limit', 0, 10**15),
        Parameter('journal', 0, f'steps kept, to be forgotten; {AS_BEFORE} 4000', 0, 10**9),
        Parameter('learning', True, 'learn; if not, predict and publish only', live=True),
        SEED,
    )

    def configure(self) -> None:
        self.spec = self.load_spec()
        self.folder = Path(self.value('state_dir')) if self.value('state_dir') else None
        if self.folder is not None:
            check_writable(self.folder, 'parameter state_dir')
            self._owned.append((os.close, claim(self.folder)))  # until cleanup
        self.saver = None if self.folder is None else Saver(self.folder)
        self.unsaved = ''  # why the state could not be kept the last time
        self.learner = self._new_learner()
        if self.learner.dynamics.spec.fingerprint != self.spec.fingerprint:
            what, mend = 'the prior was made', 'pre-train it again'
            if self.resumed:
                what = f'parameter state_dir: {self.folder} was learned'
                mend = 'give the folder of this robot, or begin anew with resume:=false'
            raise UserError(
                f'{what} for robot {self.learner.dynamics.spec.name!r} with other channels, '
                f'actions or period than {self.value("robot")!r}; {mend}'
            )
        self._check_outcomes()
        self.learner.learning = self.value('learning')
        self.policy: PolicyThread | None = None  # where the robot file wants a policy posterior
        if self.spec.policy.used:
            self.senses = Senses(replace(self.learner.dynamics, spec=self.spec))
            self.policy = self._new_policy()
            self.policies = self.advertise(topics.POLICY)
            self.listen(topics.CHOICE, self._on_choice)
        self.expected: int | None = None  # sequence number of the next transition
        self.lost = self.lost_before = 0
        self.trunk = self.advertise(topics.TRUNK)
        self.head = self.advertise(topics.HEAD)
        self.memory = self.advertise(topics.MEMORY)
        self.figures = Figures(self, topics.LEARNER_STATE, topics.LEARNER_DISPLAY)
        self.events = self.advertise(topics.EVENT)
        self.listen(topics.TRANSITION, self._on_transition, mend='start transition_streamer')
        self.serve(Trigger, '~/consolidate', self._on_consolidate)
        self.serve(Trigger, '~/save', self._on_save)
        self.serve(Trigger, '~/reset', self._on_reset)
        self.serve(SetBool, '~/set_learning', self._on_set_learning)
        self.every(1.0, self._publish_memory)
        self.every(0.1, self._note_saved)

    def activate(self) -> None:
        self._publish_trunk()
        self._publish_belief()
        if self.policy is not None:
            self._publish_policy(self.policy.ask(lambda learner: learner.posterior()))
        self.memory_due = True

    def deactivate(self) -> None:
        if self.saver is not None:
            self._save(wait=True)
        if self.learner.background is not None:
            self.learner.background.close()
        if self.policy is not None:
            self.policy.close()

    def change(self, news: Mapping[str, Any]) -> None:
        if 'learning' in news and hasattr(self, 'learner'):
            self._switch(news['learning'])

    def diagnose(self) -> tuple[bytes, str, dict[str, Any]]:
        learner, background = self.learner, self.learner.background
        figures = {
            'transitions': learner.step,
            'learned from': learner.learned,
            'lost': self.lost,
            'regime': learner.regime,
            'regimes stored': len(learner.library.regimes),
            'memory bytes': learner.nbytes(),
            'seconds per transition': f'{learner.report.seconds:.4f}',
            **({} if background is None else {'trunk not done in time': background.abandoned}),
            **learner.skipped,
            **({} if self.policy is None else {'choices left out': self.policy.left_out}),
        }
        recently, self.lost_before = self.lost - self.lost_before, self.lost
        self.why = self.left_out({})  # such as transitions of another robot
        if self.unsaved:
            return WARN, self.unsaved, figures
        if recently:
            return WARN, f'{recently} transitions were lost on the way just now', figures
        if learner.guarded:
            return WARN, 'guard: acting on the nominal model', figures
        if self.folder is not None:
            figures['disk free MB'], low = room(self.folder)
            if low:
                return WARN, low, figures
        return OK, 'learning' if learner.learning else 'learning is off', figures

    # ------------------------------------------------------------------ start
    def _new_learner(self) -> Learner:
        device = usable_device('device', self.value('device'))
        keeps = self.folder is not None and self.value('resume')
        self.resumed = keeps and (self.folder / STATE).exists()
        if self.resumed:
            learner = load_state(self.folder, device, self.value('lockstep'))
            self.get_logger().info(f'goes on from {self.folder} at transition {learner.step}')
        else:
            prior, config = self._prior()
            seed, wait = self.value('seed'), self.value('lockstep')
            learner = Learner(prior, config, seed, device, wait)
        learner.bound(**{name: self.value(name) for name in BOUNDS if self.value(name)})
        return learner

    def _new_policy(self) -> PolicyThread:
        if self.folder is not None and self.value('resume') and (self.folder / POLICY).exists():
            learner = load_policy(self.folder, self.senses)
            self.get_logger().info(f'the policy goes on at choice {learner.version}')
        else:
            learner = PolicyLearner(self.senses, seed=self.value('seed'))
        return PolicyThread(learner, self.spec.period_ns, self.value('lockstep'))

    def _prior(self) -> tuple[Prior, LearnerConfig]:
        """The prior and the settings that go with it."""
        path = self.value('prior')
        if path:
            if not Path(path).is_file():
                raise UserError(
                    f'prior {path} does not exist; make it with lifelong-bayes pretrain'
                )
            prior, meta = decode_prior(Path(path).read_bytes(), path)
            if prior.dynamics.spec.fingerprint == self.spec.fingerprint:
                prior = replace(prior, dynamics=replace(prior.dynamics, spec=self.spec))
            return prior, LearnerConfig(**meta.get('config', {}))
        from ..experiments.priors import prior_or_broad

        prior, remark = prior_or_broad(self.spec, progress=self._on_progress)
        if remark:
            self.get_logger().warning(remark)
        return prior, SCRATCH if remark else LearnerConfig()

    def _check_outcomes(self) -> None:
        wanted, known = (s.outcomes for s in (self.spec, self.learner.dynamics.spec))
        if wanted != known:
            raise UserError(
                f'{self.folder}: was learned with outcomes {list(known)} as the robot file had '
                f'them, which now has {list(wanted)}; put `outcomes` back as it was, or begin '
                'anew with resume:=false'
            )

    def _on_progress(self, share: float, what: str) -> None:
        if self.stop.is_set():
            raise KeyboardInterrupt
        self.get_logger().info(f'{what}: {share:.0%}', throttle_duration_sec=5.0)

    # ------------------------------------------------------------------ one transition
    def _on_transition(self, message: Any) -> None:
        transition = transition_from_msg(self.spec, message)
        if self.expected is not None and transition.sequence > self.expected:
            self.lost += transition.sequence - self.expected
        self.expected = transition.sequence + 1
        trunk = self.learner.dynamics.trunk
        self.learner.observe(transition)
        if self.learner.dynamics.trunk is not trunk:
            self._publish_trunk()
        self._publish_belief()
        self._publish_figures()
        self._publish_events()

    # ------------------------------------------------------------------ one choice
    def _on_choice(self, message: Any) -> None:
        choice = choice_from_msg(self.senses, message)
        self._publish_policy(self.policy.offer(choice, self.learner.learning))

    def _publish_policy(self, posterior: PolicyPosterior | None) -> None:
        if posterior is not None:
            data = encode_policy(posterior, self.senses.fingerprint)
            self.policies.publish(bytes_to_msg(data))

    def _publish_belief(self) -> None:
        data = encode_belief(self.learner.belief(), self.prior_id)
        self.head.publish(bytes_to_msg(data))

    def _publish_trunk(self) -> None:
        learner = self.learner
        self.prior_id = fingerprint(learner.prior)
        data = encode_prior(learner.prior, seed=learner.seed, config=vars(learner.config))
        self.trunk.publish(bytes_to_msg(data))

    def _publish_figures(self) -> None:
        learner = self.learner
        if not self.figures.wanted(learner.stamp_ns):
            return
        report = learner.report
        scale, names = learner.dynamics.scale, self.spec.state_names
        noise, offset = np.sqrt(learner.live.noise.variance) * scale, learner.offset * scale
        values = {
            'version': learner.learned,
            'nis': report.nis,
            'inside90': report.inside,
            'surprise.fast': learner.surprise.fast,
            'surprise.slow': learner.surprise.slow,
            'guarded': learner.guarded,
            'lost': self.lost,
            'seconds': report.seconds,
            **{f'noise.{n}': s for n, s in zip(names, noise, strict=True)},
            **{f'offset.{n}': s for n, s in zip(names, offset, strict=True)},
            **{f'regime.{n}': p for n, p in learner.filter.probabilities.items()},
            **{f'changed.{n}': p for n, p in learner.changed.items()},
            **learner.outcomes.channels(),
        }
        self.figures.publish(values, learner.stamp_ns)

    def _publish_events(self) -> None:
        for event in self.learner.take_events():
            self._publish_event(event)
            if event.event == 'consolidated':
                self.memory_due = True
                if self.saver is not None:  # so that a crash costs one episode at most
                    self._save()

    def _publish_event(self, event: Event) -> None:
        self.events.publish(event_to_msg(event.event, event.stamp_ns, event.step, event.detail))
        self.get_logger().info(f'step {event.step}: {event.event} {event.detail}')

    def _publish_memory(self) -> None:
        """The memory map, after consolidation, for whoever looks at it: it takes a while."""
        if self.memory_due and self.memory.get_subscription_count():
            self.memory_due = False
            learner = self.learner
            table = memory_map(learner.dynamics, learner.library, learner.prior.noise)
            states = [s.x for r in learner.library.regimes for s in r.reservoir.samples]
            states = np.reshape(states, (len(table), len(self.spec.state)))
            table = np.hstack([table, states])
            self.memory.publish(table_to_msg(table, topics.MEMORY_AXES))

    # ------------------------------------------------------------------ services
    def _on_consolidate(self, request: Trigger.Request) -> tuple[bool, str]:
        result = self.learner.consolidate()
        self._publish_belief()
        self._publish_events()
        return result.accepted, result.reason or f'{len(result.library.regimes)} regimes'

    def _on_save(self, request: Trigger.Request) -> tuple[bool, str]:
        if self.saver is None:
            raise UserError('parameter state_dir is empty; start the learner with a folder')
        self._save(wait=True)
        if self.unsaved:
            raise UserError(self.unsaved)
        return True, self.learner.digest()

    def _on_reset(self, request: Trigger.Request) -> tuple[bool, str]:
        old = self.learner
        prior, config = self._prior()  # its trunk is forgotten, too
        config = replace(config, **{name: getattr(old.config, name) for name in BOUNDS})
        wait = self.value('lockstep')
        self.learner = Learner(prior, config, old.seed, str(old.device), wait)
        self.learner.learning = old.learning
        if old.background is not None:
            old.background.close()
        if self.policy is not None:
            self.policy.close()
            fresh = PolicyLearner(self.senses, seed=old.seed)
            self.policy = PolicyThread(fresh, self.spec.period_ns, wait)
            self._publish_policy(fresh.posterior())
        self._publish_trunk()
        self._publish_belief()
        self._event('reset', transitions=old.step)
        self.memory_due = True
        return True, f'what {old.step} transitions taught is forgotten'

    def _on_set_learning(self, request: SetBool.Request) -> tuple[bool, str]:
        # The parameter says what is so, whoever changed it; it does the rest.
        self.set_parameters([RosParameter('learning', value=request.data)])
        return True, 'learning is ' + ('on' if request.data else 'off')

    def _switch(self, learning: bool) -> None:
        changed = self.learner.learning != learning
        self.learner.learning = learning
        if self.active and changed:
            self._event('learning', on=learning)

    def _save(self, wait: bool = False) -> None:
        """Have the state written beside learning; `wait`: until it is."""
        self.saver.save(self.learner)
        if self.policy is not None:
            (self.policy.ask if wait else self.policy.later)(self._save_policy)
        if wait:
            self._tell(self.saver.wait())

    def _save_policy(self, learner: PolicyLearner) -> None:
        try:
            save_policy(learner, self.folder)
        except OSError as error:
            self.get_logger().error(f'{self.folder}: the policy could not be written ({error})')

    def _note_saved(self) -> None:
        if self.saver is not None:
            self._tell(self.saver.take())

    def _tell(self, outcomes: Sequence[Saved]) -> None:
        """Say what has been written to the state directory, or why it has not."""
        for saved in outcomes:
            name, detail = 'saved', {'digest': saved.digest, 'folder': str(self.saver.folder)}
            if saved.error:
                name, detail = 'not_saved', {'reason': saved.error}
                self.counts['not saved'] += 1
                self.get_logger().error(saved.error)
            self.unsaved = saved.error
            detail['seconds'] = round(saved.seconds, 3)
            self._publish_event(Event(name, saved.stamp_ns, saved.step, detail))

    def _event(self, name: str, **detail: Any) -> None:
        learner = self.learner
        self._publish_event(Event(name, learner.stamp_ns, learner.step, detail))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit code."""
    os.nice(5)  # the policy beside it comes first
    sys.setswitchinterval(5e-4)  # s; the threads beside it must not keep a transition waiting
    return run(LearnerNode, argv)


if __name__ == '__main__':
    raise SystemExit(main())
