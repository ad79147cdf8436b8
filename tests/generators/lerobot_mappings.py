"""A synthetic LeRobot set that a declared mapping fits: every column that the mapping names, filled with what it says is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.spatial.transform import Rotation

from adapters.lerobot.mapping import AnyChannel, ChannelPart, JointChannel, Mapping, PoseChannel
from adapters.lerobot.places import parts_of
from jobs.demo.raw.lerobot_files import write_json, write_lines, write_parquet

ROWS, FPS = 30, 30
_DEFAULT_WIDTH = {"T_base_eef": 3, "gripper_opening": 1}


@dataclass
class _Columns:
    """Column -> width and element names; modality key -> (column, start, end)."""

    widths: dict[str, int] = field(default_factory=dict)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    keys: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    rotations: dict[str, str] = field(default_factory=dict)  # modality key -> rotation_type


def write_mapped(
    root: Path, mapping: Mapping, *, names: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """One episode of ROWS rows; returns what each column holds, [ROWS, n]. `names` are those of rotations in modality.json."""
    columns = _columns(mapping)
    rng = np.random.default_rng(len(mapping.name))
    values = {c: rng.uniform(0.1, 0.9, (ROWS, w)) for c, w in sorted(columns.widths.items())}
    for channel in mapping.channels:
        if isinstance(channel, PoseChannel):
            _turn(values, columns, channel, rng, names)
    for column, elements in columns.names.items():
        extra = tuple(f"{column}.{i}" for i in range(len(elements), columns.widths[column]))
        columns.names[column] = (*elements, *extra)
    write_parquet(root / "data/chunk-000/episode_000000.parquet", _table(values))
    write_json(root / "meta/info.json", _info(mapping, columns))
    write_lines(root / "meta/tasks.jsonl", [{"task_index": 0, "task": "a", mapping.task_text: "a"}])
    write_lines(
        root / "meta/episodes.jsonl", [{"episode_index": 0, "tasks": ["a"], "length": ROWS}]
    )
    if columns.keys:
        write_json(root / "meta/modality.json", _modality(columns))
    return values


def numbers_of(
    mapping: Mapping, values: dict[str, np.ndarray], root: Path
) -> dict[str, np.ndarray]:
    """Channel -> [ROWS, n] as stored, for each channel of the mapping whose columns the set has."""
    columns = _columns(mapping)
    out: dict[str, np.ndarray] = {}
    for channel in mapping.channels:
        parts = [_slice(columns, part, values) for part in parts_of(channel)]
        if all(part is not None for part in parts):
            out.setdefault(channel.channel, np.concatenate(parts, axis=1))  # type: ignore[arg-type]
    return out


def _columns(mapping: Mapping) -> _Columns:
    out = _Columns()
    fixed = {c: w for c, w in mapping.match.columns.items() if not c.startswith("images.")}
    out.widths |= {column: width or 7 for column, width in fixed.items()}
    for column, elements in mapping.match.elements.items():
        _name(out, column, elements)
    for column in (*mapping.state, *mapping.action):
        out.widths.setdefault(column, 1)
    for channel in mapping.channels:
        for number, part in enumerate(parts_of(channel)):
            _add(out, part, _default_width(channel, number))
    for key in mapping.match.modality:
        _place(out, key, 4)
    for column, width in fixed.items():
        if width and out.widths.get(column, width) != width:
            _squeeze(out, column, width)
    return out


def _default_width(channel: AnyChannel, number: int) -> int:
    """Numbers of the part with that number, where the mapping leaves it to the set."""
    if isinstance(channel, PoseChannel) and number == 1:
        return channel.rotation_width
    if isinstance(channel, JointChannel) and channel.joints:
        count, parts = len(channel.joints), len(channel.parts)
        return count // parts + (number < count % parts)
    return _DEFAULT_WIDTH.get(channel.channel.rpartition(".")[2], 7)


def _squeeze(out: _Columns, column: str, width: int) -> None:
    """Fit the modality keys of a column into the width that the mapping asks for."""
    keys = [key for key, (c, _, _) in out.keys.items() if c == column]
    for number, key in enumerate(keys):
        each = width // len(keys)
        out.keys[key] = (column, number * each, (number + 1) * each)
    out.widths[column] = width


def _add(out: _Columns, part: ChannelPart, default: int) -> None:
    if part.modality:
        _place(out, part.modality, default)
    elif part.elements:
        _name(out, part.column or "", part.elements)
    else:
        width = part.end or (part.start or 0) + default
        column = part.column or ""
        out.widths[column] = max(out.widths.get(column, 0), width)


def _name(out: _Columns, column: str, elements: tuple[str, ...]) -> None:
    known = out.names.get(column, ())
    out.names[column] = (*known, *(e for e in elements if e not in known))
    out.widths[column] = max(out.widths.get(column, 0), len(out.names[column]))


def _place(out: _Columns, key: str, width: int) -> None:
    if key in out.keys:
        return
    column = "observation.state" if key.startswith("state.") else "action"
    used = max((end for c, _, end in out.keys.values() if c == column), default=0)
    out.keys[key] = (column, used, used + width)
    out.widths[column] = max(out.widths.get(column, 0), used + width)


def _slice(
    columns: _Columns, part: ChannelPart, values: dict[str, np.ndarray]
) -> np.ndarray | None:
    if part.modality:
        column, start, end = columns.keys[part.modality]
        return values[column][:, start:end]
    column = part.column or ""
    if part.elements:
        names = columns.names[column]
        return values[column][:, [names.index(e) for e in part.elements]]
    return values[column][:, part.start : part.end]


def _turn(
    values: dict[str, np.ndarray],
    columns: _Columns,
    channel: PoseChannel,
    rng: np.random.Generator,
    names: tuple[str, ...],
) -> None:
    """Put rotations of the channel's form where it has its rotation; the first entry of a channel decides."""
    where = _slice(columns, channel.rotation, values)
    if where is None or not where.flags.writeable:
        return
    turn = Rotation.from_rotvec(np.cumsum(rng.uniform(0.005, 0.02, (ROWS, 3)), axis=0))
    written = turn.as_quat() if where.shape[1] == 4 else turn.as_rotvec()
    if channel.form == "quat_wxyz" and not names:
        written = np.roll(written, 1, axis=1)
    _store(values, columns, channel.rotation, written)
    if channel.rotation.modality and names:
        column, start, end = columns.keys[channel.rotation.modality]
        known = columns.names.get(column, tuple(f"e{i}" for i in range(columns.widths[column])))
        columns.names[column] = (*known[:start], *names, *known[end:])


def _store(
    values: dict[str, np.ndarray], columns: _Columns, part: ChannelPart, new: np.ndarray
) -> None:
    if part.modality:
        column, start, end = columns.keys[part.modality]
        values[column][:, start:end] = new
    elif part.elements:
        names = columns.names[part.column or ""]
        values[part.column or ""][:, [names.index(e) for e in part.elements]] = new
    else:
        values[part.column or ""][:, part.start : part.end] = new


def _table(values: dict[str, np.ndarray]) -> pa.Table:
    k = np.arange(ROWS)
    numbers = {name: pa.array(v.tolist(), pa.list_(pa.float64())) for name, v in values.items()}
    own = {"timestamp": (k / FPS).astype(np.float32), "frame_index": k, "index": k}
    zeros = {"episode_index": np.zeros(ROWS, int), "task_index": np.zeros(ROWS, int)}
    return pa.table(numbers | {name: pa.array(v) for name, v in (own | zeros).items()})


def _info(mapping: Mapping, columns: _Columns) -> dict[str, object]:
    features: dict[str, object] = {
        name: {
            "dtype": "float64",
            "shape": [width],
            "names": list(columns.names[name]) if name in columns.names else None,
        }
        for name, width in columns.widths.items()
    }
    # A picture whose size is what tells two robots apart; no file of it is needed here.
    for column, width in mapping.match.columns.items():
        if column.startswith("images."):
            features[column] = {"dtype": "float32", "shape": [width], "names": None}
    own = {
        "timestamp": "float32",
        "frame_index": "int64",
        "episode_index": "int64",
        "index": "int64",
        "task_index": "int64",
    }
    features |= {name: {"dtype": kind, "shape": [1], "names": None} for name, kind in own.items()}
    return {
        "codebase_version": "v2.1",
        "robot_type": (*mapping.match.robot_types, "some_robot")[0],
        "fps": FPS,
        "features": features,
    }


def _modality(columns: _Columns) -> dict[str, object]:
    groups: dict[str, dict[str, object]] = {"state": {}, "action": {}}
    for key, (column, start, end) in columns.keys.items():
        group, _, name = key.partition(".")
        groups[group][name] = {"start": start, "end": end, "original_key": column, "absolute": True}
    return groups
