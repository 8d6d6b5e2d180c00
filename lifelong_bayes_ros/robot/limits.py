"""The safety stage's part of a robot file, and what makes its limits contradict each other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from .section import NonNegative, Positive, Section, Share

if TYPE_CHECKING:
    from .spec import Chance, Channel, RobotSpec


CREDIBLE = 1e12  # a number beyond this says nothing about a robot


class SafeAction(Section):
    """What is sent when acting is unsafe: for `ticks` control steps, then silence.

    `neutral` and `zero` go to that command, `hold` repeats the last one, `brake` brings the rates
    of the channels with a braking distance to zero as fast as the Belief and the limits of the
    command allow; where no motion is known, it goes to neutral.
    """

    mode: Literal['neutral', 'hold', 'zero', 'brake'] = 'neutral'
    ticks: Annotated[int, Field(ge=0)] = 10


class StateLimit(Section):
    """Keeps a channel within its `low` and `high` by overruling the command.

    `deceleration`, in the channel's unit per s², is what the command can surely bring about: it
    gives the braking distance. A channel that has a `derivative_of` it needs it; without, another
    one's limit is looked at one step ahead only.
    """

    deceleration: Positive | None = None


class OutOfDistribution(Section):
    """Authority is whole up to an ood score of `begin` and shrinks smoothly to nothing at `stop`.

    The score is 1 on the data of pre-training; it grows with the square of the distance.
    """

    begin: Positive = 9.0
    stop: Positive = 100.0

    @model_validator(mode='after')
    def _ordered(self) -> OutOfDistribution:
        if not self.begin < self.stop:
            raise ValueError(f'begin {self.begin} must be below stop {self.stop}')
        return self


class Safety(Section):
    """Settings of the last stage before a command leaves.

    `limits` names the state channels whose limits the command is overruled for, at `sigmas`
    standard deviations of the Belief, the most important one first. `stale` and `new_regime` are
    the authority, a share of the command's range, left while the belief is stale or the regime
    unknown; after `belief_timeout` seconds without a belief the safe action follows. A plan that
    is not there after `deadline`, a share of the control period, is late: the last one goes on.
    """

    limits: dict[str, StateLimit] = {}
    sigmas: NonNegative = 2.0
    ood: OutOfDistribution = OutOfDistribution()
    stale: Share = 0.5
    new_regime: Share = 1.0
    belief_timeout: Positive | None = None
    deadline: Annotated[float, Field(gt=0, le=1)] = 0.6


def rate_of(spec: RobotSpec, name: str) -> Channel | None:
    """The channel that is the derivative of the named one."""
    return next((c for c in spec.state if c.derivative_of == name), None)


def beyond(channel: Channel, low: float, high: float, chance: Chance | None = None) -> str:
    """What of an interval is outside a channel's limits, in words; empty: nothing.

    `chance`: the channel's chance constraint, which it must not be outside of either.
    """
    for limits, where in ((channel, 'state'), (chance, 'cost.chance')):
        if limits is not None and limits.low is not None and low < limits.low:
            return f'{low:g} is below low {limits.low:g} of {where}.{channel.name}'
        if limits is not None and limits.high is not None and high > limits.high:
            return f'{high:g} is above high {limits.high:g} of {where}.{channel.name}'
    if not (abs(low) <= CREDIBLE and abs(high) <= CREDIBLE):
        return f'{low:g} to {high:g} is no state.{channel.name} that a robot could have'
    return ''


def check_limits(spec: RobotSpec) -> None:
    """Refuse limits that contradict each other.

    Raises:
        ValueError: naming the key, the value and the mend.
    """
    names = spec.state_names
    for name, limit in spec.safety.limits.items():
        where = f'safety.limits.{name}'
        if name not in names:
            raise ValueError(f'{where}: unknown channel; use one of {names}')
        channel, rate = spec.state[names.index(name)], rate_of(spec, name)
        if channel.low is None and channel.high is None:
            raise ValueError(f'{where}: state.{name} has neither low nor high; give it one')
        if rate is not None and limit.deceleration is None:
            raise ValueError(
                f'{where}: {rate.name} is the derivative_of {name}; give the deceleration that '
                'the command can surely bring about'
            )
    timeout = spec.safety.belief_timeout
    if timeout is not None and timeout < spec.period:
        raise ValueError(
            f'safety.belief_timeout: {timeout:g} s is less than the period {spec.period:g} s, in '
            'which one belief comes; give a few periods'
        )
    _check_safe_action(spec)
    for name, wave in spec.goal.track.items():
        if wave.along is None:
            far, rate = abs(wave.amplitude), rate_of(spec, name)
            fault = beyond(spec.state[names.index(name)], wave.center - far, wave.center + far)
            if rate is not None and not fault:
                fast = far * 2 * math.pi / wave.period
                fault = beyond(rate, -fast, fast)
            if fault:
                raise ValueError(f'goal.track.{name}: out of reach: {fault}')


def check_chances(spec: RobotSpec) -> None:
    """Refuse chance constraints that contradict themselves, a channel's limits or the goal.

    Raises:
        ValueError: naming the key, the value and the mend.
    """
    for name, chance in spec.cost.chance.items():
        where, channel = f'cost.chance.{name}', spec.state[spec.state_names.index(name)]
        low = -math.inf if chance.low is None else chance.low
        high = math.inf if chance.high is None else chance.high
        if math.isinf(low) and math.isinf(high):
            raise ValueError(f'{where}: has neither low nor high; give it one')
        if low >= high:
            raise ValueError(f'{where}: low {low:g} must be below high {high:g}')
        if channel.low is not None and high <= channel.low:
            raise ValueError(
                f'{where}: high {high:g} is not above low {channel.low:g} of state.{name}; no '
                'state satisfies both'
            )
        if channel.high is not None and low >= channel.high:
            raise ValueError(
                f'{where}: low {low:g} is not below high {channel.high:g} of state.{name}; no '
                'state satisfies both'
            )
        if channel.wraps and (low > math.pi or high < -math.pi):
            raise ValueError(
                f'{where}: no angle is between {low:g} and {high:g}; give radians from -pi to pi'
            )
        wave = spec.goal.track.get(name)
        if wave is not None and wave.along is None:
            least, most = wave.center - abs(wave.amplitude), wave.center + abs(wave.amplitude)
            if least < low or most > high:
                raise ValueError(
                    f'goal.track.{name}: moves from {least:g} to {most:g}, out of the limits '
                    f'[{low:g}, {high:g}] of {where}; move either'
                )


def _check_safe_action(spec: RobotSpec) -> None:
    mode = spec.safe_action.mode
    for action in spec.action:
        if mode == 'zero' and not action.low <= 0 <= action.high:
            raise ValueError(
                f'safe_action.mode: zero is outside [{action.low}, {action.high}] of action '
                f'{action.name}; use neutral'
            )
    if mode == 'brake' and not any(x.deceleration for x in spec.safety.limits.values()):
        raise ValueError(
            'safe_action.mode: brake needs a channel with a deceleration in safety.limits; add '
            'one, or use neutral'
        )
