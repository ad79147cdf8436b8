"""The source's own state and action, element by element, and what a set declares of them.

`source_state` holds the state elements that no channel carries, `raw_command` the whole action. Both reach every column that the
mapping or modality.json names, wherever it lies: a declared number is in a stream, in a raw vector, or known to be lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adapters.containers.lerobot_table import TableRows
from adapters.lerobot.places import (
    SetMeta,
    Where,
    action_columns,
    mapped_places,
    spans_of,
    state_columns,
)
from schemas.declared import Declared
from schemas.episode import Stream, Unit, vector_channel
from schemas.errors import SourceError

Place = tuple[str, int]  # a column and the index of an element in it


@dataclass(frozen=True, slots=True, kw_only=True)
class RawVectors:
    """Element -> its name, in order, of the source's state and of its action."""

    state: dict[Place, str]
    action: dict[Place, str]

    def without(self, *, used: Collection[Place], copied: Collection[Place]) -> RawVectors:
        """What is left of the state beside the channels, and of the action beside copies of the state."""
        return RawVectors(
            state={place: name for place, name in self.state.items() if place not in used},
            action={place: name for place, name in self.action.items() if place not in copied},
        )

    def streams(self, rows: TableRows, t_ns: npt.NDArray[np.int64]) -> Iterator[Stream]:
        """`source_state` and `raw_command`, those that have elements."""
        for name, elements in (("source_state", self.state), ("raw_command", self.action)):
            if elements:
                yield _stream(name, elements, rows, t_ns, hold=name == "raw_command")

    def names_of(self, places: Collection[Place], *, is_command: bool) -> tuple[str, ...]:
        """Their names in the raw vector; () when one of them is not in it."""
        elements = self.action if is_command else self.state
        names = tuple(elements[place] for place in places if place in elements)
        return names if len(names) == len(places) else ()


def extra_vector_columns(meta: SetMeta) -> tuple[str, ...]:
    """Columns of numbers that only the mapping's channels or modality.json name, beside the source's own vectors."""
    usual = {*state_columns(meta), *action_columns(meta)}
    spans = [where for _, places in mapped_places(meta) for where in places]
    for group in ("state", "action"):
        spans += [where for _, where in spans_of(meta, group) if where is not None]
    return tuple(
        dict.fromkeys(
            where.column
            for where in spans
            if where.column not in usual and meta.info.features[where.column].is_numeric
        )
    )


def raw_vectors(rows: TableRows, meta: SetMeta) -> RawVectors:
    """Every element of the source's state and action.

    Raises:
        SourceError: a column of the source's own vectors is missing or holds no numbers.
    """
    return RawVectors(
        state=_elements(rows, meta, state_columns(meta), commands=False),
        action=_elements(rows, meta, action_columns(meta), commands=True),
    )


def declared_of(
    meta: SetMeta, raw: RawVectors, *, used: Collection[Place], copied: Collection[Place]
) -> tuple[Declared, ...]:
    """What the mapping and modality.json declare, less what is verified to be a copy of the state."""
    out: dict[str, Declared] = {}
    for channel, places_of_channel in mapped_places(meta):
        left = [place for place in _places(places_of_channel) if place not in copied]
        if left:
            names = raw.names_of(left, is_command=channel.startswith("command."))
            out.setdefault(channel, Declared(channel=channel, raw=names))
    for group in ("state", "action"):
        for key, where in spans_of(meta, group):
            excluded = copied if group == "action" else used
            left = [p for p in (_places([where]) if where is not None else []) if p not in excluded]
            if left:
                name = f"modality.{group}.{key}"
                names = raw.names_of(left, is_command=group == "action")
                out[name] = Declared(channel=name, raw=names)
    return tuple(out.values())


def _places(spans: list[Where]) -> list[Place]:
    return [(where.column, i) for where in spans for i in where.indices]


def _elements(
    rows: TableRows, meta: SetMeta, columns: tuple[str, ...], *, commands: bool
) -> dict[Place, str]:
    """All elements of `columns`, then those of other columns that are declared and can be read."""
    out: dict[Place, str] = {}
    for column in columns:
        width = rows.matrix(column).shape[1]
        out |= {(column, i): _name(meta, column, i, width) for i in range(width)}
    taken = set(out.values())
    more = [w for w in _declared_places(meta, commands=commands) if w.column not in columns]
    widths = {column: _readable_width(rows, meta, column) for column in {w.column for w in more}}
    for where in more:
        width = widths[where.column]
        for i in (i for i in where.indices if i < width and (where.column, i) not in out):
            name = _name(meta, where.column, i, width)
            out[where.column, i] = f"{where.column}.{name}" if name in taken else name
            taken.add(out[where.column, i])
    return out


def _declared_places(meta: SetMeta, *, commands: bool) -> Iterator[Where]:
    for channel, places in mapped_places(meta):
        if channel.startswith("command.") == commands:
            yield from places
    for _, where in spans_of(meta, "action" if commands else "state"):
        if where is not None:
            yield where


def _readable_width(rows: TableRows, meta: SetMeta, column: str) -> int:
    """Numbers in a row of a column; 0 for one that is no column of finite numbers, of which nothing is handed on."""
    if not rows.has(column) or not meta.info.features[column].is_numeric:
        return 0
    try:
        values = rows.matrix(column)
    except SourceError:
        return 0
    return values.shape[1] if np.isfinite(values).all() else 0


def _name(meta: SetMeta, column: str, index: int, width: int) -> str:
    """As info.json has it, made up where it has none."""
    names = meta.info.features[column].names
    if len(names) == width:
        return names[index]
    return column if width == 1 else f"{column}.{index}"


def _stream(
    name: str,
    elements: dict[Place, str],
    rows: TableRows,
    t_ns: npt.NDArray[np.int64],
    *,
    hold: bool,
) -> Stream:
    columns = {column: rows.matrix(column) for column, _ in elements}
    values = np.stack([columns[column][:, i] for column, i in elements], axis=1)
    names = tuple(elements.values())
    spec = vector_channel(name, len(elements), Unit.SOURCE, names=names, hold=hold)
    return Stream(spec=spec, t_ns=t_ns, values=values)
