"""What every section of a robot file is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

LONGEST = 200  # characters of a topic; ROS takes 247, with the namespace


def _in_every_node(topic: Any) -> Any:
    if isinstance(topic, str) and len(topic) > LONGEST:
        raise ValueError(f'{len(topic)} characters are too many for ROS; give at most {LONGEST}')
    if isinstance(topic, str) and topic.startswith('~'):
        raise ValueError(
            'a name that begins with ~ is another topic in each node; leave ~ out, or give the '
            'whole name, e.g. /joint_states'
        )
    return topic


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r'^[A-Za-z][A-Za-z0-9_]*$')]
TopicName = Annotated[
    str,
    Field(pattern=r'^/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*$'),
    BeforeValidator(_in_every_node),
]
Frame = Annotated[str, Field(pattern=r'^[A-Za-z0-9_][A-Za-z0-9_./-]*$')]
FrameOrNone = Annotated[str, Field(pattern=r'^([A-Za-z0-9_][A-Za-z0-9_./-]*)?$')]
Joint = Annotated[str, Field(pattern=r'\S')]


def _not_true_or_false(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError('true or false where a number belongs; give a number')
    return value


def _guarded(schema: Any) -> Any:
    """Every number in a schema, or in a part of one, checked before pydantic converts it."""
    if isinstance(schema, list):
        return [_guarded(part) for part in schema]
    if not isinstance(schema, dict) or schema.get('function') == _GUARD:
        return schema
    if schema.get('type') in ('float', 'int'):
        return core_schema.no_info_before_validator_function(_not_true_or_false, schema)
    return {k: v if k in ('default', 'metadata') else _guarded(v) for k, v in schema.items()}


_GUARD = {'type': 'no-info', 'function': _not_true_or_false}


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values do not change after loading.

    A number is not written as `true` or `no`, which pydantic would take for 1 and 0.
    """

    model_config = ConfigDict(extra='forbid', frozen=True)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """As pydantic makes it, with every number in it guarded."""
        return _guarded(handler(source))
