"""Where in a LeRobot set the numbers of a mapping are, and the intrinsics that a mapping declares.

Where in a LeRobot set the numbers of a mapping lie: columns, elements of them, and what modality.json adds.

Intrinsics that a mapping declares for a camera: stated once for the set, or in a column of the rows.

A camera whose numbers change or cannot belong to its picture gets none: InternData-A1's converter halves the pictures of
1280 pixels and, for the hand cameras, not their intrinsics (`policy/lmdb2lerobotv21`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from adapters.containers.lerobot_meta import ColumnSpan, Modality, SetInfo
from adapters.containers.lerobot_table import TableRows
from adapters.lerobot.mapping import (
    AnyChannel,
    ChannelPart,
    GripperChannel,
    Intrinsics,
    Mapping,
    PoseChannel,
)
from schemas.episode import Camera
from schemas.fact import Certainty, Fact, fact

# -- places --------------------------------------------------------------------------------------------------------

STATE = ("observation.state", "states", "state")
ACTION = ("action", "actions")


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMeta:
    """What the columns of a set are called and what they mean."""

    info: SetInfo
    modality: Modality
    mapping: Mapping | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Elements of one column: which, what they are called, and what modality.json adds."""

    column: str
    indices: tuple[int, ...]
    names: tuple[str, ...]  # as info.json has them; () when it has none
    span: ColumnSpan | None = None

    def labels(self, key: str) -> tuple[str, ...]:
        """One name per element, made up from `key` where the source has none."""
        return self.names or tuple(f"{key}.{i}" for i in self.indices)


def state_columns(meta: SetMeta) -> tuple[str, ...]:
    """The columns that make up the source's state vector, in declared order."""
    return _declared(meta, STATE, meta.mapping.state if meta.mapping else ())


def action_columns(meta: SetMeta) -> tuple[str, ...]:
    """The columns that make up the source's action vector, in declared order."""
    return _declared(meta, ACTION, meta.mapping.action if meta.mapping else ())


def mapped_places(meta: SetMeta) -> Iterator[tuple[str, list[Where]]]:
    """Every channel of the mapping of which this set has some column, with where the found parts are."""
    for channel in meta.mapping.channels if meta.mapping else ():
        if places := [where for part in parts_of(channel) if (where := resolve(meta, part))]:
            yield channel.channel, places


def spans_of(meta: SetMeta, group: str) -> Iterator[tuple[str, Where | None]]:
    """Every key of modality.json's `state` or `action`, and where it is; None when the set has no such column."""
    for key in meta.modality.state if group == "state" else meta.modality.action:
        yield key, resolve(meta, ChannelPart(modality=f"{group}.{key}"))


def resolve(meta: SetMeta, part: ChannelPart) -> Where | None:
    """Where `part` lies in this set; None when the set has no such column, element or modality key."""
    start, end, span = part.start, part.end, None
    if part.modality:
        group, _, key = part.modality.partition(".")
        span = (meta.modality.state if group == "state" else meta.modality.action).get(key)
        if span is None:
            return None
        column = span.original_key or ("observation.state" if group == "state" else "action")
        start, end = span.start, span.end
    else:
        column = part.column or ""
    feature = meta.info.features.get(column)
    if feature is None:
        return None
    width = int(np.prod(feature.shape, dtype=np.int64)) if feature.shape else 1
    if part.elements:
        # Fewer names than numbers (RoboCOIN G1edu: 28 for 30): nobody knows which number lacks one.
        if len(feature.names) != width or not set(part.elements) <= set(feature.names):
            return None
        indices = tuple(feature.names.index(e) for e in part.elements)
    else:
        indices = tuple(range(start or 0, width if end is None else end))
    if not indices:
        return None  # the rest of a column of undeclared width: say how much of it is meant
    names = feature.names if len(feature.names) == width else ()
    if part.elements:
        return Where(column=column, indices=indices, names=part.elements)
    named = tuple(names[i] for i in indices) if names and indices[-1] < width else ()
    return Where(column=column, indices=indices, names=named, span=span)


def _declared(meta: SetMeta, names: tuple[str, ...], declared: tuple[str, ...]) -> tuple[str, ...]:
    if declared:
        return tuple(c for c in declared if c in meta.info.features)
    info = meta.info
    for name in names:
        if name in info.features:
            return (name,)
    prefixes = tuple(f"{name}." for name in names)
    return tuple(n for n, f in info.features.items() if n.startswith(prefixes) and f.is_numeric)


def parts_of(channel: AnyChannel) -> tuple[ChannelPart, ...]:
    """The parts of the columns that a channel is made of."""
    if isinstance(channel, PoseChannel):
        return channel.position, channel.rotation
    return (channel.at,) if isinstance(channel, GripperChannel) else channel.parts


# -- intrinsics ----------------------------------------------------------------------------------------------------


def with_intrinsics(
    camera: Camera, key: str, rows: TableRows, info: SetInfo, mapping: Mapping | None
) -> tuple[Camera, tuple[Fact, ...]]:
    """`camera` with what the mapping declares for its feature `key`, or as it is with the reason why not."""
    declared = [i for i in (mapping.intrinsics if mapping else ()) if i.camera == key]
    feature = info.features[key]
    if not declared or len(feature.shape) != 3 or feature.shape[2] != 3:
        return camera, ()
    height, width = feature.shape[:2]
    px, problem = _numbers(declared[0], rows)
    if problem is None and not (px[:2] > 0).all():
        problem = f"focal lengths {px[:2].tolist()} px"
    if problem is None and not (0 < px[2] < width and 0 < px[3] < height):
        problem = f"centre {px[2:].tolist()} px lies outside {width} x {height}"
    if problem is not None:
        left_out = fact(f"intrinsics.{camera.name}", "left out", Certainty.VERIFIED, problem)
        return camera, (left_out,)
    fx, fy, cx, cy = px.tolist()
    K_cam = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    return replace(camera, K_cam=K_cam, K_size=(width, height)), ()


def _numbers(declared: Intrinsics, rows: TableRows) -> tuple[np.ndarray, str | None]:
    if declared.px is not None:
        return np.array(declared.px), None
    column = declared.column or ""
    if not rows.has(column):
        return np.zeros(4), f"no column {column}"
    values = rows.matrix(column)
    if values.shape[1] != 4 or not np.isfinite(values).all():
        return np.zeros(4), f"{column} is not four numbers a row"
    if not (values == values[0]).all():
        return np.zeros(4), f"{column} changes within the episode"
    return values[0], None
