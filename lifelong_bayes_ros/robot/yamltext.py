"""YAML text read into a model, with errors that name file, line, key, value and mend."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import UserError

Model = TypeVar('Model', bound=BaseModel)

KEY = re.compile(r'[\w.]+')  # what an error of a whole section begins with
SECTION = 'expected keys and values; write each on a line of its own, as `key: value`'


def parse_yaml(kind: type[Model], text: str, where: str) -> Model:
    """Validate YAML text against a model.

    Raises:
        UserError: one line per fault, `where:line: key: what is wrong and the mend`.
    """
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        twice = list(_twice(root, ()))
        data = None if twice or root is None else loader.construct_document(root)
    except yaml.YAMLError as error:
        raise UserError(f'{where}{_line_of(error)}: not valid YAML: {error}') from None
    except (ValueError, OverflowError, RecursionError) as error:  # no date, no number; too deep
        raise UserError(f'{where}: not valid YAML: {error}') from None
    if twice:
        raise UserError('\n'.join(f'{where}:{line}: {said}' for line, said in twice))
    if not isinstance(data, dict):
        given = 'nothing' if data is None else _shown(data)
        raise UserError(f'{where}:1: {SECTION} (got {given})')
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        faults = [_explain(where, root, fault) for fault in error.errors()]
        raise UserError('\n'.join(dict.fromkeys(faults))) from None


def line_of(root: yaml.Node | None, path: Sequence[Any]) -> int:
    """Line of the deepest part of a path that there is; list entries go by their names too."""
    line = 1
    for part in path:
        found = _child(root, part)
        if found is None:
            break
        line, root = found
    return line


def _child(node: yaml.Node | None, part: Any) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == str(part):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode):
        for i, entry in enumerate(node.value):
            name = _child(entry, 'name') if isinstance(entry, yaml.MappingNode) else None
            if str(part) == str(i) or (name and str(name[1].value) == str(part)):
                return entry.start_mark.line + 1, entry
    return None


def _twice(node: yaml.Node | None, above: tuple[yaml.Node, ...]) -> Iterator[tuple[int, str]]:
    """Line and message of every key that stands twice; YAML would let the last one win."""
    if node is None or any(node is other for other in above):  # an alias of what it is part of
        return
    above = (*above, node)
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.value in first:
                    yield (
                        line,
                        (f'{key.value}: stands here and in line {first[key.value]}; remove one'),
                    )
                first.setdefault(key.value, line)
            yield from _twice(value, above)
    elif isinstance(node, yaml.SequenceNode):
        for entry in node.value:
            yield from _twice(entry, above)


def _line_of(error: yaml.YAMLError) -> str:
    mark = getattr(error, 'problem_mark', None)
    return f':{mark.line + 1}' if mark is not None else ''


def _explain(where: str, root: yaml.Node, fault: dict[str, Any]) -> str:
    path = [part for part in fault['loc'] if part != '[key]']
    key = '.'.join(map(_short, path))
    message = fault['msg'].removeprefix('Value error, ')
    if fault['type'] == 'extra_forbidden':
        message = 'unknown key; remove it or correct its spelling'
    elif fault['type'] == 'missing':
        message = 'missing; add it'
    elif fault['type'] in ('model_type', 'dict_type'):
        message = SECTION
    elif fault['type'] == 'too_short':
        least, held = fault['ctx']['min_length'], fault['ctx']['actual_length']
        message = f'holds {held or "nothing"}; give at least {least}'
    elif fault['type'] == 'string_pattern_mismatch':
        message = _PATTERNS.get(fault['ctx']['pattern'], message)
    elif not path:  # of the file as a whole: the message begins with the key
        named = KEY.match(message)
        path = named[0].strip('.').split('.') if named else []
    if fault['type'] not in ('extra_forbidden', 'missing') and not isinstance(
        fault['input'], dict | list | BaseModel
    ):
        message += f' (got {_shown(fault["input"])})'
    return f'{where}:{line_of(root, path)}: {key}{": " if key else ""}{message}'


_PATTERNS = {  # what a name must be, instead of its regular expression
    r'^[A-Za-z][A-Za-z0-9_]*$': 'give a name of letters, digits and _ that begins with a letter',
    r'^/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*$': (
        'this is no topic; give names of letters, digits and _ joined by /, e.g. /joint_states'
    ),
    r'^[A-Za-z0-9_][A-Za-z0-9_./-]*$': (
        'this is no frame; give letters, digits, _, - or /, without a leading /'
    ),
    r'^([A-Za-z0-9_][A-Za-z0-9_./-]*)?$': (
        'this is no frame; give letters, digits, _, - or /, without a leading /, or leave it out'
    ),
    r'\S': "this is no joint; give its name as the robot's messages have it, or leave it out",
}


def _short(part: Any) -> str:
    text = str(part) if not isinstance(part, int) or abs(part) < 1e9 else hex(part)
    text = text if text.isprintable() else repr(text)  # an error is one line
    return text if len(text) <= 40 else text[:37] + '...'


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = hex(value)
    return text if len(text) <= 80 else text[:77] + '...'
