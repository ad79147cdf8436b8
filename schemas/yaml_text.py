"""YAML of other people as values, within bounds: the only place that loads YAML.

The text is first read as a stream of events, which neither depth nor aliases can harm: composing is recursive, in C too. A
number of many digits, a scalar of megabytes and a billion aliases are refused there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from schemas.document import MAX_INT_DIGITS, DocumentError, bounded_int, shortened
from schemas.errors import ConfigError, SourceError
from schemas.regular_file import read_regular

_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DECIMAL = re.compile(r"[-+]?[0-9][0-9_]*")
_OTHER_BASE = re.compile(r"[-+]?0(x[0-9a-fA-F_]+|b[01_]+)")
_NOT_DECIMAL = re.compile(rf"{_OTHER_BASE.pattern}|[-+]?[0-9][0-9_]*(:[0-9]{{1,2}})+(\.[0-9_]*)?")
_REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlLimits:
    """How much a text may ask for. Nodes are counted as often as aliases repeat them."""

    max_bytes: int = 1 << 20
    max_depth: int = 32
    max_scalar_chars: int = 64 << 10
    max_nodes: int = 200_000


SETTINGS = YamlLimits()


class _BoundedLoader(_Safe):  # type: ignore[misc]
    """The safe loader, which refuses a key that is given twice; YAML 1.1 lets the last one win."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002  the base's signature
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    problem = f"duplicate key {shortened(key.value)!r}"
                    raise DocumentError(problem, _place(key.start_mark))
                seen.add((key.tag, key.value))
        return dict(super().construct_mapping(node, deep=deep))


def parse_yaml(text: str | bytes, *, limits: YamlLimits = SETTINGS) -> Any:
    """The value of a YAML text of one document; None for an empty one.

    Raises:
        DocumentError: the text is no YAML, asks for a type outside YAML's own, or is beyond the limits.
    """
    try:
        if len(text) > limits.max_bytes:
            raise DocumentError(f"{len(text)} bytes; expected at most {limits.max_bytes}")
        text = text if isinstance(text, str) else text.decode("utf-8-sig")
        check_yaml_events(text, limits)
        return yaml.load(text, Loader=_BoundedLoader)
    except UnicodeDecodeError as error:
        raise DocumentError(f"not UTF-8 text: {error.reason}") from error
    except yaml.YAMLError as error:
        raise DocumentError(f"not valid YAML: {yaml_problem(error)}") from error
    except DocumentError:
        raise
    except (ValueError, RecursionError) as error:  # a date without a day, say
        raise DocumentError(f"not valid YAML: {error}") from error


def read_yaml(path: Path, *, limits: YamlLimits = SETTINGS) -> Any:
    """The value of a YAML file that the user named.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or is beyond the limits.
    """
    try:
        return parse_yaml(read_regular(path, max_bytes=limits.max_bytes), limits=limits)
    except SourceError as error:
        raise ConfigError(
            f"cannot be read: {error.message}",
            remedy="check the path and the permissions",
            where=str(path),
        ) from error
    except DocumentError as error:
        raise ConfigError(str(error), where=str(path)) from error


def yaml_problem(error: yaml.YAMLError) -> str:
    """What the parser found, on one line and with its place."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return str(DocumentError(str(problem), None if mark is None else _place(mark)))


def check_yaml_events(text: str, limits: YamlLimits) -> None:
    """Raises DocumentError where a text goes beyond the limits, and yaml.YAMLError where it is none."""
    size = _DocumentSize()
    for event in yaml.parse(text, Loader=_Safe):
        at = _place(event.start_mark)
        size.add(event, at)
        if len(size.open) > limits.max_depth:
            raise DocumentError(f"nested more than {limits.max_depth} levels deep", at)
        if size.num_nodes > limits.max_nodes:
            raise DocumentError(
                f"more than {limits.max_nodes} values after aliases are expanded", at
            )
        if isinstance(event, yaml.ScalarEvent):
            _check_scalar(event, at, limits)


class _DocumentSize:
    """How many nodes there are so far with every alias written out, and the collections that are open."""

    def __init__(self) -> None:
        self.num_nodes = 0
        self.open: list[tuple[str | None, int]] = []  # (anchor, nodes before it)
        self._of_anchor: dict[str, int] = {}

    def add(self, event: yaml.Event, at: tuple[int, int]) -> None:
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = self.open.pop()
            self._keep(anchor, self.num_nodes - before)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._of_anchor:
                raise DocumentError(
                    f"the alias *{shortened(event.anchor or '')} is not defined", at
                )
            self.num_nodes += self._of_anchor[event.anchor]
        elif isinstance(event, yaml.NodeEvent):
            self.num_nodes += 1
            if isinstance(event, yaml.CollectionStartEvent):
                self.open.append((event.anchor, self.num_nodes - 1))
            else:
                self._keep(event.anchor, 1)

    def _keep(self, anchor: str | None, num_nodes: int) -> None:
        if anchor is not None:
            self._of_anchor[anchor] = num_nodes


def _check_scalar(event: yaml.ScalarEvent, at: tuple[int, int], limits: YamlLimits) -> None:
    value = event.value
    if len(value) > limits.max_scalar_chars:
        problem = f"a scalar of unsupported type {len(value)} characters; expected at most {limits.max_scalar_chars}"
        raise DocumentError(problem, at)
    if not event.implicit[0] and event.tag is None:  # quoted: a text
        return
    try:
        if _DECIMAL.fullmatch(value):
            bounded_int(value.replace("_", ""))
        elif _OTHER_BASE.fullmatch(value) and len(value) < 100:
            bounded_int(str(int(value.replace("_", ""), 0)))
        elif len(value) > MAX_INT_DIGITS and _NOT_DECIMAL.fullmatch(value):
            raise DocumentError(f"the number {shortened(value)} does not fit in 64 bits")
        elif _NOT_FINITE.fullmatch(value) or (
            _REAL.fullmatch(value) and math.isinf(float(value.replace("_", "")))
        ):
            raise DocumentError(f"{shortened(value)} is not a finite number")
    except DocumentError as error:
        raise DocumentError(error.problem, at) from error


def _place(mark: Any) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1
