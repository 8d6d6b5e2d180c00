"""Named outcomes of a step in a robot file, and how readings become labels of transitions."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from ..errors import UserError
from .section import Finite, Joint, Section, TopicName

if TYPE_CHECKING:
    from .spec import RobotSpec

UNKNOWN = -1  # label of a step that no reading tells about; of an outcome that is a number: NaN
FAR = 1e3  # times its scale; beyond, a reading is taken for a fault
Kind = tuple[str, ...] | float | None  # its classes; the scale of a number; it happens or does not
BOOL, INT, STRING = 'std_msgs/msg/Bool', 'std_msgs/msg/Int32', 'std_msgs/msg/String'
FLOAT, JOINTS = 'std_msgs/msg/Float64', 'sensor_msgs/msg/JointState'


class OutcomeSource(Section):
    """What happens in a step or how the world is there: a contact, a kind of terrain, a current.

    With `classes` it is one of these: a String holds the class's name, an Int32 its number in the
    list. With `scale` it is a number, which is about as large as that, in its own unit. Without
    either it happens or does not: a Bool says so, a number does by being `above` a threshold.
    `field` and `joint` say which number of a JointState.
    """

    topic: TopicName
    type: Literal[
        'std_msgs/msg/Bool',
        'std_msgs/msg/Int32',
        'std_msgs/msg/String',
        'std_msgs/msg/Float64',
        'sensor_msgs/msg/JointState',
    ]
    classes: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    above: Finite | None = None
    scale: Annotated[float, Field(ge=1e-9, le=1e9)] | None = None
    field: Literal['position', 'velocity', 'effort'] = 'effort'
    joint: Joint | None = None

    @model_validator(mode='after')
    def _consistent(self) -> OutcomeSource:
        if (self.type in (INT, STRING)) != (self.classes is not None):
            raise ValueError(
                f'classes: {STRING} and {INT} need a list of classes, other types take none'
            )
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise ValueError(f'classes: {list(self.classes)} holds a name twice')
        given = [key for key in ('above', 'scale') if getattr(self, key) is not None]
        if len(given) != (self.type in (FLOAT, JOINTS)):
            raise ValueError(
                f'{" and ".join(given) or "above or scale"}: {FLOAT} and {JOINTS} need either '
                '`above`, a threshold beyond which it happens, or `scale`, a typical size of the '
                'number that is to be learned; other types take none'
            )
        if (self.type == JOINTS) != (self.joint is not None):
            raise ValueError(f'joint: {JOINTS} needs one, other types take none')
        return self

    @property
    def kind(self) -> Kind:
        """What its labels are: classes, a number of some scale, or whether it happens."""
        return self.classes if self.scale is None else self.scale

    @property
    def unknown(self) -> float:
        """Label of a step that no reading tells about."""
        return UNKNOWN if self.scale is None else math.nan

    def admits(self, label: float) -> bool:
        """Whether a number is a label, or says that there is none."""
        if self.scale is not None:
            return math.isnan(label) or abs(label) <= FAR * self.scale
        count = 2 if self.classes is None else len(self.classes)
        return UNKNOWN <= label < count and label == int(label)

    def label(self, value: Any) -> float:
        """Label of a reading: the number of its class, 1 if it happened and 0 if not, or itself.

        Raises:
            UserError: no class of that name or number, not a number, or far beyond its scale.
        """
        if self.type == BOOL:
            return int(bool(value))
        if self.type in (FLOAT, JOINTS):
            if not math.isfinite(value):
                raise UserError(f'reading {value} on {self.topic} is not finite')
            if self.above is not None:
                return int(value > self.above)
            if not self.admits(value):
                raise UserError(
                    f'reading {value} on {self.topic} is over {FAR:g} times its scale '
                    f'{self.scale:g}; give another `scale` if it may be'
                )
            return float(np.float32(value))  # as the `transition` topic carries it
        if self.type == STRING and value in self.classes:
            return self.classes.index(value)
        if self.type == INT and 0 <= value < len(self.classes):
            return int(value)
        raise UserError(
            f'reading {value!r} on {self.topic} is none of the classes {list(self.classes)}'
        )


def check_outcomes(spec: RobotSpec) -> None:
    """Refuse names that channels have: both become named channels of the topics.

    Raises:
        ValueError: naming the key, the value and the mend.
    """
    twice = sorted(set(spec.outcomes) & {*spec.state_names, *spec.action_names})
    if twice:
        raise ValueError(f'outcomes: {twice} are names of channels or actions; choose others')


class Labels:
    """Readings of outcomes, handed out with the step that they tell about.

    A reading that carries a stamp tells about the step that it falls into, (before, after]; one
    that carries none, about the first step that ends after it came. Each tells about one step;
    of several for the same step the newest counts. Steps without a reading have the label
    `unknown`.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self.outcomes = spec.outcomes
        self.skipped: Counter[str] = Counter()
        self._waiting: dict[str, list[tuple[int | None, float]]] = {n: [] for n in spec.outcomes}

    def add(self, name: str, stamp_ns: int | None, value: Any) -> None:
        """Take a reading; `stamp_ns` is None where the message has none.

        Raises:
            UserError: as `OutcomeSource.label`.
        """
        self.put(name, stamp_ns, self.outcomes[name].label(value))

    def put(self, name: str, stamp_ns: int | None, label: float) -> None:
        """Take a reading that is a label already."""
        waiting = self._waiting[name]
        if stamp_ns is None:
            waiting.clear()
        waiting.append((stamp_ns, label))

    def take(self, before_ns: int, after_ns: int) -> tuple[float, ...]:
        """Label of every outcome, in the order of the robot file, for a step."""
        return tuple(self._take(name, before_ns, after_ns) for name in self._waiting)

    def _take(self, name: str, before_ns: int, after_ns: int) -> float:
        label, later = self.outcomes[name].unknown, []
        for stamp_ns, value in self._waiting[name]:
            if stamp_ns is not None and stamp_ns > after_ns:
                later.append((stamp_ns, value))
            elif stamp_ns is not None and stamp_ns <= before_ns:
                self.skipped[f'late reading of {name}'] += 1
            else:
                label = value
        self._waiting[name] = later[-1000:]  # stamps of another clock must not fill the memory
        return label
