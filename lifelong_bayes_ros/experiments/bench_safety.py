"""What gets past the safety stage: hostile inputs, judged by the robot file alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..control.fence import Outlook, Rates
from ..control.safety import Safety
from ..robot.spec import RobotSpec, load_robot
from .published import report_object, row

Status = Callable[[str, float], None]

INPUTS = 1_000_000
ROBOTS = ('quad', 'arm', 'diffdrive', 'cartpole')
ULP = 1e-6  # relative rounding of float32 commands
EPISODES, STEPS = 200, 300  # of a robot that is driven at its limits


@dataclass(frozen=True)
class Question:
    """One call of the safety stage."""

    wanted: Any
    outlook: Outlook | None
    stamp_ns: int | None


class Judge:
    """Says what is wrong with an answer, by the robot file; shares no code with Safety."""

    def __init__(self, spec: RobotSpec) -> None:
        self.spec = spec
        self.neutral = [a.neutral for a in spec.action]
        self.start()

    def start(self) -> None:
        """Commands begin at neutral and at rest."""
        self.last = list(self.neutral)
        self.stopped = False
        self.pause()

    def pause(self) -> None:
        """The last command stands; a stop holds on."""
        self.change = [0.0] * len(self.last)
        self.unsafe = 0  # questions in a row that allow the safe action only
        self.stamp: int | None = None

    def enable(self) -> None:
        """The end of a stop gives nothing away of slew and jerk limits."""
        if self.stopped:
            self.stopped, self.unsafe, self.stamp = False, 0, None

    def verdict(self, question: Question, answer: Any) -> str:
        """What is wrong; empty: nothing."""
        bad = self.stopped or self._forbidden(question)
        self.stamp = question.stamp_ns
        return self._verdict(answer, bad, question.outlook)

    def of_safe_action(self, answer: Any) -> str:
        """The verdict on a safe action that was asked for."""
        return self._verdict(answer, True, None)

    def _verdict(self, answer: Any, bad: bool, outlook: Outlook | None) -> str:
        self.unsafe = self.unsafe + 1 if bad else 0
        if answer is None:
            self.change = [0.0] * len(self.last)
            if not bad:
                return 'silent without a reason'
            return '' if self.unsafe > self.spec.safe_action.ticks else 'silent too early'
        if bad and self.unsafe > self.spec.safe_action.ticks:
            return 'not silent'
        if not isinstance(answer, np.ndarray) or answer.shape != (len(self.last),):
            return 'of the wrong shape'
        command = [float(v) for v in answer]
        fault = self._limits(command)
        if not fault and bad and outlook is None:
            fault = self._direction(command)
        if not fault and not bad and outlook is not None:
            fault = self._brakes(command, outlook)
        self.change = [u - v for u, v in zip(command, self.last)]
        self.last = command
        return fault

    def _forbidden(self, question: Question) -> bool:
        if None not in (question.stamp_ns, self.stamp) and question.stamp_ns < self.stamp:
            return True
        wanted = question.wanted
        if not isinstance(wanted, np.ndarray) or wanted.shape != (len(self.last),):
            return True
        if wanted.dtype.kind != 'f' or not all(abs(v) < np.inf for v in wanted.tolist()):
            return True
        look = question.outlook
        if look is None:
            return False
        ds, da = len(self.spec.state), len(self.spec.action)
        if look.mean.shape != (ds,) or look.sd.shape != (ds,) or look.gain.shape != (ds, da):
            return True
        numbers = [*look.mean, *look.gain.ravel(), *look.sd, look.ood, look.age, look.trust]
        if look.rates is not None:
            numbers += [*look.rates.mean, *look.rates.gain.ravel(), *look.rates.sd]
            if min(look.rates.sd) < 0:
                return True
        if not all(abs(float(v)) <= 1e12 for v in numbers):
            return True
        if min(look.sd) < 0 or look.ood < 0 or look.trust <= 0:
            return True
        timeout = self.spec.safety.belief_timeout
        too_old = timeout is not None and look.age > timeout
        return too_old or look.ood >= self.spec.safety.ood.stop

    def _limits(self, command: list[float]) -> str:
        period = self.spec.period
        for i, (action, value) in enumerate(zip(self.spec.action, command)):
            if not abs(value) < np.inf:
                return 'not finite'
            slack = ULP * (action.high - action.low + abs(action.high) + abs(action.low))
            if not action.low - slack <= value <= action.high + slack:
                return 'out of range'
            change = value - self.last[i]
            if action.slew is not None and abs(change) > action.slew * period + slack:
                return 'too fast'
            jerk = np.inf if action.jerk is None else action.jerk * period**2
            if abs(change - self.change[i]) > jerk + slack:
                return 'too abrupt'
        return ''

    def _direction(self, command: list[float]) -> str:
        """A safe action that is a fixed command must be approached."""
        if any(a.jerk is not None for a in self.spec.action):
            return ''
        mode = self.spec.safe_action.mode
        goal = {'zero': [0.0] * len(command), 'hold': self.last}.get(mode, self.neutral)
        for action, value, before, safe in zip(self.spec.action, command, self.last, goal):
            slack = ULP * (action.high - action.low + abs(action.high) + abs(action.low))
            if abs(value - safe) > abs(before - safe) + slack:
                return 'away from the safe action'
        return ''

    def _brakes(self, command: list[float], look: Outlook) -> str:
        """Either braking step by step stays within a limit, or no other command brakes harder."""
        if any(a.jerk is not None for a in self.spec.action):
            return ''
        broken = self._broken(command, look)
        # Where several are broken, the first one named comes first.
        for place, rate, sign in broken[:1]:
            if (place, rate, -sign) in broken:  # ignorance leaves no room between two limits
                continue
            hardest = list(command)
            gain = self._rate(look, place, rate)[1]
            for j, action in enumerate(self.spec.action):
                slope = sign * gain[j]
                reach = np.inf if action.slew is None else action.slew * self.spec.period
                lowest, highest = self.last[j] - reach, self.last[j] + reach
                if abs(slope) * (action.high - action.low) > 1e-6:
                    hardest[j] = (
                        max(action.low, lowest) if slope > 0 else min(action.high, highest)
                    )
            # On the way there a limit that is no less important may want a step of reaction.
            ways = ([u + s * (v - u) for u, v in zip(command, hardest)] for s in (0.01, 0.1, 1.0))
            seen = [edge for way in ways for edge in self._broken(way, look, reaction=True)]
            if any(edge[0] <= place and edge != (place, rate, sign) for edge in seen):
                continue
            change = [v - u for u, v in zip(command, hardest)]
            gained = -sign * sum(gain[j] * v for j, v in enumerate(change))
            if gained > 1e-3 * sum(
                abs(gain[j]) * (a.high - a.low) for j, a in enumerate(self.spec.action)
            ):
                return 'beyond where it can brake'
        return ''

    def _broken(
        self, command: list[float], look: Outlook, reaction: bool = False
    ) -> list[tuple[int, int, int]]:
        """Limits that are broken: place in the file, channel that is too fast, direction."""
        broken = []
        names = [c.name for c in self.spec.state]
        k = self.spec.safety.sigmas
        for place, (name, limit) in enumerate(self.spec.safety.limits.items()):
            at = names.index(name)
            rate = next((i for i, c in enumerate(self.spec.state) if c.derivative_of == name), at)
            mean, gain, sd, ahead = self._rate(look, place, rate)
            moved = sum(gain[j] * (u - look.command[j]) for j, u in enumerate(command))
            for sign, edge in ((1, self.spec.state[at].high), (-1, self.spec.state[at].low)):
                if edge is None:
                    continue
                speed = sign * (mean + moved) + k * sd
                if ahead:
                    beyond = speed > sign * edge + 1e-4 * (1 + abs(edge))
                else:
                    room = max(sign * (edge - look.mean[at]) - k * look.sd[at], 0.0)
                    way = _way(speed, limit.deceleration, self.spec.period)
                    way += reaction * max(speed, 0.0) * self.spec.period
                    beyond = way > room + 1e-4 * (1 + room)
                if beyond:
                    broken.append((place, rate, sign))
        return broken

    def _rate(self, look: Outlook, place: int, rate: int) -> tuple[float, Any, float, bool]:
        """Mean, gain and deviation of a limited channel's rate; or, ahead only, of the channel."""
        name, limit = list(self.spec.safety.limits.items())[place]
        if self.spec.state[rate].name != name:
            return look.mean[rate], look.gain[rate], look.sd[rate], False
        if limit.deceleration is None or look.rates is None:
            return look.mean[rate], look.gain[rate], look.sd[rate], True
        return look.rates.mean[rate], look.rates.gain[rate], look.rates.sd[rate], False


def _way(speed: float, deceleration: float, period: float) -> float:
    """Way until a body stands that slows down by steps."""
    steps = int(min(max(speed, 0.0) / (deceleration * period), 1e6))
    return steps * speed * period - deceleration * period**2 * steps * (steps - 1) / 2


class Fuzz:
    """Hostile questions: not numbers, infinite, huge, denormal, jumps, wrong shapes, time going
    back, and Beliefs that are as bad."""

    def __init__(self, spec: RobotSpec, rng: np.random.Generator) -> None:
        self.spec, self.rng = spec, rng
        self.low, self.high = spec.action_low, spec.action_high
        self.stamp = 0

    def question(self) -> Question:
        """The next question."""
        rng = self.rng
        return Question(
            self._wanted(), self._outlook() if rng.random() < 0.5 else None, self._time()
        )

    def _wanted(self) -> Any:
        rng, kind = self.rng, self.rng.integers(12)
        da = len(self.low)
        plain = rng.uniform(self.low, self.high).astype(np.float32)
        if kind < 4:
            return plain
        if kind == 4:
            return (plain * rng.normal(0, 10)).astype(np.float32)
        if kind == 5:
            return np.where(rng.random(da) < 0.5, self.low, self.high)
        if kind in (6, 7):
            wild = (np.nan, np.inf, -np.inf, 1e300, -1e300, 3e38, 5e-324, 1e-42, -0.0)
            plain = plain.astype(float if kind == 6 else np.float32)
            with np.errstate(over='ignore'):
                plain[rng.integers(da)] = wild[rng.integers(len(wild))]
            return plain
        if kind == 8:
            # Any 32 bits are a float.
            return rng.integers(0, 2**32, da, dtype=np.uint32).view(np.float32)
        wrong = (None, 'stop', 1.0, [], np.zeros(0), np.zeros(da + 1), np.zeros((da, 1)), [[1], 2],
                 np.full(da, 1j), {}, [None] * da, 10**400)  # fmt: skip
        return wrong[rng.integers(len(wrong))] if kind < 11 else plain

    def _outlook(self) -> Outlook:
        rng, spec = self.rng, self.spec
        ds, da = len(spec.state), len(self.low)
        size = 10.0 ** rng.uniform(-3, 2)
        mean = rng.normal(size=ds) * size
        gain = rng.normal(size=(ds, da)) * 10.0 ** rng.uniform(-4, 1)
        sd = np.abs(rng.normal(size=ds)) * 10.0 ** rng.uniform(-6, 0)
        command = rng.uniform(self.low, self.high)
        ood, age, trust = float(rng.exponential(2.0)), float(rng.exponential()), 1.0
        kind = rng.integers(10)
        if kind == 0:
            ood = float(rng.choice([0.0, 10.0, 39.0, 1e9, np.inf, np.nan, -1.0]))
        elif kind == 1:
            target = (mean, gain, sd)[rng.integers(3)]
            target.flat[rng.integers(target.size)] = rng.choice([np.nan, np.inf, 1e308, -1e308])
        elif kind == 2:
            mean = mean[:-1]
        elif kind == 3:
            sd = -sd
        elif kind == 4:
            trust = float(rng.choice([0.0, 0.3, 0.9, -1.0, np.nan]))
        elif kind == 5:
            age = float(rng.choice([1e3, np.inf, np.nan]))
        rates = None
        if kind != 6:
            rates = Rates(mean[::-1], gain[:, ::-1], np.abs(rng.normal(size=len(mean))))
        return Outlook(command, mean, gain, sd, ood, age, trust, rates)

    def _time(self) -> int | None:
        kind = self.rng.integers(20)
        if kind == 0:
            return None
        if kind == 1:
            self.stamp = int(self.rng.integers(-(2**62), 2**62))
        elif kind == 2:
            self.stamp -= self.spec.period_ns
        else:
            self.stamp += self.spec.period_ns
        return self.stamp


def tight(spec: RobotSpec, mode: str) -> RobotSpec:
    """The robot with limits that bind: slew, jerk, all its state limits, an early timeout."""
    data = spec.model_dump()
    for action in data['action']:
        span = action['high'] - action['low']
        action['slew'] = 2 * span
        if mode == 'hold':
            action['jerk'] = 10 * span
    if mode == 'brake':
        for channel in data['state']:
            rated = any(c['derivative_of'] == channel['name'] for c in data['state'])
            if channel['encode'] != 'angle':
                low, high = channel['low'], channel['high']
                channel |= {'low': -5.0 if low is None else low, 'high': high or 5.0}
                data['safety']['limits'][channel['name']] = {
                    'deceleration': 2.0 if rated or len(channel['name']) % 2 else None
                }
    rated = any(d['deceleration'] for d in data['safety']['limits'].values())
    data['safe_action'] = {'mode': mode if rated or mode != 'brake' else 'neutral', 'ticks': 3}
    data['safety']['belief_timeout'] = 2.0
    return RobotSpec.model_validate(data)


def variants() -> list[RobotSpec]:
    """Every shipped robot as it is, and with tight limits and every safe action."""
    robots = [load_robot(name) for name in ROBOTS]
    return robots + [
        tight(r, mode) for r in robots for mode in ('neutral', 'hold', 'zero', 'brake')
    ]


def fuzz(spec: RobotSpec, inputs: int, seed: int) -> tuple[dict[str, int], list[float]]:
    """Faults by kind, and the seconds of every 100th call."""
    rng = np.random.default_rng(seed)
    safety, judge, source = Safety(spec), Judge(spec), Fuzz(spec, rng)
    faults: dict[str, int] = {}
    seconds = []
    for n in range(inputs):
        event = rng.random()
        if event < 0.002:
            safety.stop('fuzz')
            judge.unsafe = judge.unsafe if judge.stopped else 0
            judge.stopped = True
        elif event < 0.004:
            safety.resume()
            judge.pause()
        elif event < 0.01:
            safety.enable()
            judge.enable()
        if event > 0.98:
            verdict = judge.of_safe_action(safety.safe_action())
        else:
            question = source.question()
            started = time.perf_counter()
            answer = safety.check(question.wanted, question.outlook, question.stamp_ns)
            if n % 100 == 0:
                seconds.append(time.perf_counter() - started)
            verdict = judge.verdict(question, answer)
        if verdict:
            faults[verdict] = faults.get(verdict, 0) + 1
    return faults, seconds


def drive(spec: RobotSpec, name: str, seed: int) -> tuple[int, int]:
    """Steps beyond a channel's limits when the planner wants to go there; and steps in all.

    The channel is a body on a line whose actuator is weaker or stronger than the Belief's mean by
    up to two of its standard deviations, and no weaker than the robot file says. Its rate need not
    be a channel.
    """
    rng = np.random.default_rng(seed)
    at = spec.state_names.index(name)
    rate = [i for i, c in enumerate(spec.state) if c.derivative_of == name]
    low, high = spec.state[at].low, spec.state[at].high
    half, neutral = spec.action_half_range, spec.neutral
    reach = min(
        h - abs(n - m) for h, n, m in zip(half, neutral, (spec.action_low + spec.action_high) / 2)
    )
    needed = spec.safety.limits[name].deceleration / (reach * len(half))
    true = needed * rng.uniform(1.0, 3.0)
    sd = 0.1 * true
    believed = true + sd * rng.uniform(-2, 2)
    safety, x, speed, beyond = Safety(spec), np.zeros(len(spec.state)), 0.0, 0
    x[at] = (low + high) / 2
    for step in range(STEPS):
        if step % 40 == 0:
            wanted = np.where(rng.random() < 0.5, spec.action_low, spec.action_high)
        force = wanted - neutral
        mean, gain, spread = x.copy(), np.zeros((len(x), len(half))), np.full(len(x), 1e-6)
        gain[rate], gain[at] = believed * spec.period, believed * spec.period**2 / 2
        mean[at] += spec.period * speed
        mean += gain @ force
        spread[rate] = sd * spec.period * np.abs(force).sum()
        spread[at] = sd * spec.period**2 / 2 * np.abs(force).sum()
        rates = Rates(*(np.zeros_like(part) for part in (mean, gain, spread)))
        rates.gain[at] = believed * spec.period
        rates.mean[at] = speed + rates.gain[at] @ force
        rates.sd[at] = sd * spec.period * np.abs(force).sum()
        look = Outlook(wanted, mean, gain, spread, rates=rates)
        sent = safety.check(wanted, look, step * spec.period_ns)
        push = true * (sent - neutral).sum()
        x[at] += spec.period * speed + push * spec.period**2 / 2
        speed += push * spec.period
        x[rate] = speed
        beyond += not low <= x[at] <= high
    return beyond, STEPS


def fenced(spec: RobotSpec, name: str) -> RobotSpec:
    """A robot with a fence at a channel's limits, its own where it has one."""
    safety = spec.safety.model_dump()
    safety['limits'] = {name: {'deceleration': 3.0}} | safety['limits']
    return RobotSpec.model_validate(spec.model_dump() | {'safety': safety})


def safety_report(status: Status, inputs: int = INPUTS) -> dict[str, Any]:
    """Measure, and return the report object."""
    robots = variants()
    faults: dict[str, int] = {}
    seconds: list[float] = []
    for n, spec in enumerate(robots):
        status(f'fuzzing {spec.name}', n / len(robots))
        found, times = fuzz(spec, -(-inputs // len(robots)), n)
        seconds += times
        for kind, count in found.items():
            faults[kind] = faults.get(kind, 0) + count
    silent = sum(n for kind, n in faults.items() if kind.startswith('silent'))
    unsafe = sum(faults.values()) - silent
    crossed = total = 0
    for robot, name in (('cartpole', 'x'), ('quad', 'z')):
        spec = fenced(load_robot(robot), name)
        for seed in range(EPISODES):
            status(f'driving {robot} at its limits', seed / EPISODES)
            beyond, steps = drive(spec, name, seed)
            crossed, total = crossed + beyond, total + steps
    kinds = ''.join(f'; {k}: {n}' for k, n in faults.items())
    rows = [
        row(
            f'unsafe commands past the safety stage, {inputs} inputs{kinds}',
            unsafe,
            '',
            'lower',
            0,
            0,
        ),
        row('silent although a command was due', silent, '', 'lower', 0, 0),
        row(f'steps beyond a limit, driven at it for {total} steps', crossed, '', 'lower', 0, 0),
        row('one check, median', 1e6 * float(np.median(seconds)), 'µs', 'lower', None),
        row('one check, p99', 1e6 * float(np.percentile(seconds, 99)), 'µs', 'lower', None),
    ]
    return report_object('bench safety', list(range(len(robots))), rows)
