"""Every place of a split where a sample can begin, and which tasks it can serve there: small tables, memory-mapped by all workers.

`<cache>/anchors-<key>/` holds `segments.npy`, `timestep.npy` and `serves.npy` of the anchors, and the manifest's rows as uncompressed Arrow. An anchor is a
timestep with a picture whose window can serve a task that its segment allows and the recipe gives a weight: no draw is ever in vain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.manifest import Manifest, ManifestRow, rows_at
from schemas.paths import within
from schemas.supervision import Task
from training.data.actions import ActionStore
from training.data.cache import build_once, damaged, mapped
from training.data.normalise import Normaliser
from training.data.routing import LIMITED, RoutingSettings
from training.data.windows import BIT, Ints, Window
from training.tasks import INDEX, TASKS

SEGMENT = np.dtype(
    [
        ("row", np.int64),  # of the manifest
        ("start", np.int64),
        ("end", np.int64),
        ("weight", np.float64),
        ("embodiment", np.int64),
        ("part", np.int64),  # of the store of actions; -1 for none
        ("offset", np.int64),  # there
        ("may", np.uint8),  # tasks its tier allows, as bits
        ("is_low", np.bool_),  # by quality alone: `low_policy_share` is about it
        ("is_labelled", np.bool_),  # video whose latent actions the policy says
        ("first", np.int64),  # of its anchors
        ("num_anchors", np.int64),
        # [4] by task: how many of its anchors can serve it, and the first of them, counted from `first`; and of which tasks (as bits) these
        # anchors follow each other without a gap.
        ("num_serving", np.int64, (len(TASKS),)),
        ("first_serving", np.int64, (len(TASKS),)),
        ("is_run", np.uint8),
    ]
)
TABLE_VERSION = 3  # higher whenever the same work would give other tables
ROWS_FILE = "rows.arrow"
_BLOCK = 1 << 20  # anchors that are weighed at once
_KEPT_ROWS = 1 << 14  # of the manifest: 40 MB
_SEGMENTS = 1 << 10  # segments that are looked through at once
Records = npt.NDArray[np.void]
Bytes = npt.NDArray[np.uint8]


class SampleIndex:
    """The tables of one split. Pickled by its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kept: dict[int, ManifestRow] = {}
        self.segments: Records = mapped(folder, "segments.npy")
        self.timestep: npt.NDArray[np.int32] = mapped(folder, "timestep.npy")
        self.serves: Bytes = mapped(folder, "serves.npy")
        try:
            with pa.memory_map(str(within(folder, ROWS_FILE))) as source:
                self._rows = pa.ipc.open_file(source).read_all()
        except (OSError, pa.ArrowException) as error:
            raise damaged(folder, ROWS_FILE, error) from error

    def __reduce__(self) -> tuple[type[SampleIndex], tuple[Path]]:
        return SampleIndex, (self.folder,)

    def rows(self, index: Ints) -> list[ManifestRow]:
        """Rows of the manifest. Those read last are kept, for to make them costs as much as to read a sample's actions."""
        indices, kept = index.tolist(), self._kept
        if absent := sorted(set(indices) - kept.keys()):
            if len(kept) + len(absent) > _KEPT_ROWS:
                kept = self._kept = {}  # another thread goes on with what it holds
                absent = sorted(set(indices))
            kept |= zip(absent, rows_at(self._rows, np.array(absent)), strict=True)
        return [kept[row] for row in indices]


def allowed(anchors: SampleIndex) -> Iterator[tuple[Ints, Ints, Bytes]]:
    """Every anchor once, in order and some segments at a time, for a table of all would be GBs: its segment, itself, and the tasks that are
    allowed and possible there, as bits.
    """
    segments = anchors.segments
    for first in range(0, len(segments), _SEGMENTS):
        part = segments[first : first + _SEGMENTS]
        inside = np.repeat(np.arange(len(part)), part["num_anchors"])
        begin = int(part["first"][0])
        can = anchors.serves[begin : begin + len(inside)]
        yield first + inside, begin + np.arange(len(inside)), np.asarray(can & part["may"][inside])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampleIndexRequest:
    """What decides which anchors there are. `is_seen` [S]: rows of the manifest that have a view with latents. `is_labelled` [S]: video with latent actions,
    each of which leads `label_steps` timesteps on.
    """

    manifest: Manifest
    split: str
    embodiments: tuple[str, ...]
    store: ActionStore
    normaliser: Normaliser
    window: Window
    routing: RoutingSettings
    is_seen: npt.NDArray[np.bool_]
    is_labelled: npt.NDArray[np.bool_]
    label_steps: int

    @property
    def key(self) -> str:
        sha = hashlib.sha256(self.store.folder.name.encode())
        routing = (int(weighted_bits(self.routing)), teaches_low(self.routing))
        for part in (TABLE_VERSION, self.split, self.embodiments, self.window, routing):
            sha.update(repr(part).encode())
        sha.update(self.normaliser.is_known.numpy().tobytes())
        sha.update(self.is_seen.tobytes())
        if self.is_labelled.any():
            sha.update(repr(self.label_steps).encode() + self.is_labelled.tobytes())
        return sha.hexdigest()[:20]


def open_sample_index(work: SampleIndexRequest, cache: Path) -> SampleIndex:
    """Made when they are not there."""
    folder = cache / f"anchors-{work.key}"
    build_once(folder, partial(_write, work))
    return SampleIndex(folder)


def _write(work: SampleIndexRequest, folder: Path) -> None:
    segments, timestep, serves = build_sample_index(work)
    arrays = {"segments": segments, "timestep": timestep, "serves": serves}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    table = work.manifest.rows.combine_chunks()
    with (
        pa.OSFile(str(folder / ROWS_FILE), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)


def build_sample_index(work: SampleIndexRequest) -> tuple[Records, npt.NDArray[np.int32], Bytes]:
    """Segments of the split, timesteps of their anchors, and what each can serve."""
    segments = _segments(work)
    _, count = work.window.grid(segments["start"], segments["end"])
    bits_of_rows = wanted_bits(segments, work.routing)
    timesteps: list[npt.NDArray[np.int32]] = []
    serves: list[Bytes] = []
    num_anchors = np.zeros(len(segments), dtype=np.int64)
    # By part, so that one table of known rows is in memory; then put back in the order of segments.
    order = np.argsort(segments["part"], kind="stable")
    for block in _blocks(order, segments["part"], count):
        part = segments[block]
        known = _known_before(work, int(part["part"][0]), int(part["embodiment"][0]))
        segment, now, bits = _of_block(work, part, known)
        keep = (bits & bits_of_rows[block][segment]) > 0
        num_anchors[block] = np.bincount(segment[keep], minlength=len(block))
        segments[block] = with_serving(part, segment[keep], bits[keep])
        timesteps.append(now[keep].astype(np.int32))
        serves.append(bits[keep])
    segments["num_anchors"] = num_anchors
    segments["first"] = np.cumsum(num_anchors) - num_anchors
    put = _by_segment(order, num_anchors)
    none = np.zeros(0, dtype=np.int32)
    return (
        segments,
        np.concatenate([none, *timesteps])[put],
        np.concatenate([none.astype(np.uint8), *serves])[put],
    )


def with_serving(segments: Records, segment: Ints, bits: Bytes) -> Records:
    """The segments with `num_serving`, `first_serving` and `is_run`.

    Args:
        segment: [N] of each anchor, ascending. bits: [N] what each can serve.
    """
    out, num = segments.copy(), len(segments)
    count = np.bincount(segment, minlength=num)
    inside = np.arange(len(segment)) - (np.cumsum(count) - count)[segment]
    out["is_run"] = 0
    for task, index in INDEX.items():
        at = np.flatnonzero(bits & BIT[task])
        first, last = np.zeros(num, dtype=np.int64), np.full(num, -1)
        last[segment[at]] = inside[at]  # of several values the last one stays
        first[segment[at[::-1]]] = inside[at[::-1]]
        serving = np.bincount(segment[at], minlength=num)
        out["num_serving"][:, index], out["first_serving"][:, index] = serving, first
        out["is_run"] |= (last - first + 1 == serving) * BIT[task]
    return out


def _of_block(
    work: SampleIndexRequest, segments: Records, known_before: Ints
) -> tuple[Ints, Ints, Bytes]:
    """[N] of each timestep with a picture: its segment, itself, and what its window can serve."""
    first, count = work.window.grid(segments["start"], segments["end"])
    segment = np.repeat(np.arange(len(segments)), count)
    inside = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    now = first[segment] + inside * work.window.grid_stride
    at = segments[segment]
    row = np.where(at["part"] >= 0, at["offset"] + now - at["start"], -1)
    serves = work.window.serves(now, at["end"], known_before, row)
    # Both pictures of a latent action lie in the segment.
    is_label = at["is_labelled"] & (now + work.label_steps < at["end"])
    return segment, now, np.asarray(serves | is_label * BIT[Task.POLICY], dtype=np.uint8)


def _segments(work: SampleIndexRequest) -> Records:
    """The rows of the split that can be seen, in the manifest's order."""
    rows = work.manifest.rows
    in_split = pc.equal(rows["split"], work.split).to_numpy() & work.is_seen
    at = np.flatnonzero(in_split)
    out = np.zeros(len(at), dtype=SEGMENT)
    out["row"] = at
    for name in ("start", "end", "weight"):
        out[name] = rows[name].to_numpy()[at]
    codes = rows["embodiment"].combine_chunks().dictionary_encode()
    number = [work.embodiments.index(name) for name in codes.dictionary.to_pylist()]
    out["embodiment"] = np.array(number)[codes.indices.to_numpy()[at]]
    out["part"], out["offset"] = work.store.part_of[at], work.store.offset_of[at]
    out["may"] = _may(rows, at)
    is_low = pc.equal(rows["tier"], "low").to_numpy()
    out["is_low"] = (is_low & ~_list_has(rows["reasons"], LIMITED))[at]
    out["is_labelled"] = work.is_labelled[at]
    return out


def _may(rows: pa.Table, at: Ints) -> Bytes:
    bits = np.zeros(len(rows), dtype=np.uint8)
    for task in TASKS:
        bits |= _list_has(rows["tasks"], task.value) * BIT[task]
    return bits[at]


def _list_has(column: pa.ChunkedArray, value: str) -> npt.NDArray[np.bool_]:
    """[S] whether the list of a row has this value."""
    lists = column.combine_chunks()
    out = np.zeros(len(lists), dtype=bool)
    parent = pc.list_parent_indices(lists).to_numpy()
    out[parent[pc.equal(lists.flatten(), value).to_numpy(zero_copy_only=False)]] = True
    return out


def weighted_bits(routing: RoutingSettings) -> np.uint8:
    """Tasks with a share or weight."""
    return np.uint8(sum(int(BIT[task]) for task in routing.trained))


def teaches_low(routing: RoutingSettings) -> bool:
    """Whether a low segment can be drawn for the policy for certain: in a lottery after the draw it may lose, and then teach nothing."""
    share = routing.low_policy_share
    return share >= 1 if routing.draw == "segment" else share > 0


def wanted_bits(segments: Records, routing: RoutingSettings) -> Bytes:
    """[S] tasks that a segment may be trained on for certain."""
    may = segments["may"] | segments["is_labelled"] * BIT[Task.POLICY]
    if teaches_low(routing):
        may |= segments["is_low"] * BIT[Task.POLICY]
    return np.asarray(may & weighted_bits(routing), dtype=np.uint8)


def _known_before(work: SampleIndexRequest, part: int, embodiment: int) -> Ints:
    """[R + 1] how many of a part's first r rows have a valid element that can be normalised.

    One is enough: a hand that was seen says something of what comes next, and the network is shown that the other was not.
    """
    if part < 0:
        return np.zeros(1, dtype=np.int64)
    stored = work.store.open_part(part)
    usable = work.normaliser.is_known[embodiment].numpy()[stored.slots]
    return np.concatenate([[0], np.cumsum(stored.valid[:, usable].any(axis=1))])


def _blocks(order: Ints, part: Ints, count: Ints) -> list[Ints]:
    """`order` cut where the part changes, and where a block would hold too many anchors."""
    piece = np.cumsum(count[order]) // _BLOCK
    cuts = np.flatnonzero((np.diff(part[order]) != 0) | (np.diff(piece) != 0)) + 1
    return [block for block in np.split(order, cuts) if len(block)]


def _by_segment(order: Ints, num: Ints) -> Ints:
    """Where the anchors of segments 0, 1, 2 ... are among those that were found segment by segment in `order`."""
    begins = np.zeros(len(num), dtype=np.int64)
    begins[order] = np.cumsum(num[order]) - num[order]
    inside = np.arange(num.sum()) - np.repeat(np.cumsum(num) - num, num)
    return np.asarray(np.repeat(begins, num) + inside)
