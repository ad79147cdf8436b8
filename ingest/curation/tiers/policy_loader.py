"""YAML with the place of everything in it: plain values, and for each of them its line and column. Text of strangers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from schemas.document import DocumentError
from schemas.errors import ConfigError, SourceError
from schemas.regular_file import read_regular
from schemas.yaml_text import YamlLimits, check_yaml_events

MAX_BYTES = 200_000
MAX_DEPTH = 24
Key = tuple[str | int, ...]  # ("rules", 2, "when"): the way from the root to a value


class _PolicyLoader(yaml.SafeLoader):
    """SafeLoader for which 1e3, 1.0e3, 1.e3 and .5e3 are numbers, as YAML 1.2 has them; 1.1 wants 1.0e+3 and reads words."""


_PolicyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyText:
    """A policy file as read. `marks` has (line, column), from 1, of each value and, where it is in a mapping, of its key."""

    where: str
    text: str
    data: Any
    marks: Mapping[Key, tuple[int, int]]

    def place(self, way: Sequence[str | int]) -> str:
        """`file:line:column` of a value, or of the nearest thing around it."""
        for length in range(len(way), -1, -1):
            if (mark := self.marks.get(tuple(way[:length]))) is not None:
                return f"{self.where}:{mark[0]}:{mark[1]}"
        return self.where


def read_policy_text(path: Path) -> PolicyText:
    """Read a file.

    Raises:
        ConfigError: it cannot be read, is too large or no UTF-8, or what `parse_policy_text` says.
    """
    try:
        text = read_regular(path, max_bytes=MAX_BYTES).decode()
    except (SourceError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot be read: {error}",
            remedy="check the path, its permissions and its size",
            where=str(path),
        ) from error
    return parse_policy_text(text, str(path))


def parse_policy_text(text: str, where: str) -> PolicyText:
    """Values and places.

    Raises:
        ConfigError: no YAML, an alias (it could stand for a value of any size), nesting without end, a key twice.
    """
    try:
        _check_events(text, where)
        check_yaml_events(text, YamlLimits(max_bytes=MAX_BYTES, max_depth=MAX_DEPTH))
        root = yaml.compose(text, Loader=_PolicyLoader)
        marks: dict[Key, tuple[int, int]] = {}
        data = None if root is None else _value(root, (), marks, where)
    except DocumentError as error:
        place = where if error.place is None else "{}:{}:{}".format(where, *error.place)
        raise ConfigError(error.problem, where=place) from error
    except yaml.YAMLError as error:
        place = _place(where, getattr(error, "problem_mark", None))
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"not valid YAML: {problem}", where=place) from error
    return PolicyText(where=where, text=text, data=data, marks=marks)


def _place(where: str, mark: Any) -> str:
    return where if mark is None else f"{where}:{mark.line + 1}:{mark.column + 1}"


def _check_events(text: str, where: str) -> None:
    """Before a tree is made: the parser is a stream, so neither depth nor aliases can hurt here."""
    depth = 0
    for event in yaml.parse(text, Loader=_PolicyLoader):
        place = _place(where, event.start_mark)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            problem = f"nested more than {MAX_DEPTH} levels deep"
            raise ConfigError(
                problem,
                remedy="write it flatter; a policy has `conditions` for its parts",
                where=place,
            )
        if isinstance(event, yaml.AliasEvent):
            problem = f"the alias *{event.anchor} is not supported"
            raise ConfigError(
                problem,
                remedy="write that part out where it is used; a policy has `conditions` for it",
                where=place,
            )


def _value(node: yaml.Node, way: Key, marks: dict[Key, tuple[int, int]], where: str) -> Any:
    mark = (node.start_mark.line + 1, node.start_mark.column + 1)
    marks.setdefault(way, mark)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, way, marks, where)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*way, i), marks, where) for i, item in enumerate(node.value)]
    try:
        return _PolicyLoader("").construct_object(node)
    except ValueError as error:  # a date without a day, say
        place = f"{where}:{mark[0]}:{mark[1]}"
        raise ConfigError(f"{node.value!r} is not a valid value: {error}", where=place) from error


def _mapping(
    node: yaml.MappingNode, way: Key, marks: dict[Key, tuple[int, int]], where: str
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
        key = key_node.value
        if not isinstance(key_node, yaml.ScalarNode) or not isinstance(key, str):
            raise ConfigError("a key must be text", where=f"{where}:{line}:{column}")
        if key in out:
            raise ConfigError(f"duplicate key {key!r}", where=f"{where}:{line}:{column}")
        marks[(*way, key)] = (line, column)
        out[key] = _value(value_node, (*way, key), marks, where)
    return out
