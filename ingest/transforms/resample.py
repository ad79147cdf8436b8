"""Resamples one stream at given instants (linear, slerp, hold, nearest), never across a gap, and finds runs of timesteps under a mask or an instruction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ingest.transforms.time_grid import Instants, gap_limit_ns, nearest
from schemas.catalog_rows import SegmentRow
from schemas.episode import Instruction, Interpolation, Stream
from schemas.geometry import slerp_rotmat

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """A stream on the grid: `values` [K, *shape], and `valid` [K] where they come from real neighbours.

    Where not valid the value is that of the nearest valid sample: finite, and never to be learnt from.
    """

    values: Array
    valid: Mask


def resample(stream: Stream, at: Instants, *, gap_periods: int, gap_ms: int) -> Samples:
    """Read `stream` at the instants `at` [K] (increasing)."""
    good = stream.valid
    if not good.any():
        values = np.broadcast_to(stream.values[:1], (len(at), *stream.spec.shape)).copy()
        return Samples(values=values, valid=np.zeros(len(at), dtype=bool))
    limit = gap_limit_ns(stream.t_ns, gap_periods=gap_periods, gap_ms=gap_ms)
    t, values = stream.t_ns[good], stream.values[good]
    how = stream.spec.interpolation
    if how is Interpolation.HOLD:
        return _hold(t, values, at, limit)
    if how is Interpolation.NEAREST:
        index = nearest(t, at)
        return Samples(values=values[index], valid=np.abs(t[index] - at) <= limit // 2)
    return _between(t, values, at, limit, is_pose=how is Interpolation.SLERP)


def _hold(t: Instants, values: Array, at: Instants, limit: int) -> Samples:
    index = np.searchsorted(t, at, side="right") - 1
    age = at - t[np.maximum(index, 0)]
    return Samples(values=values[np.maximum(index, 0)], valid=(index >= 0) & (age <= limit))


def _between(t: Instants, values: Array, at: Instants, limit: int, *, is_pose: bool) -> Samples:
    """Interpolate between the samples around each instant; instants outside the stream are not valid."""
    inside = np.clip(at, t[0], t[-1])
    right = np.clip(np.searchsorted(t, inside, side="left"), 1, max(len(t) - 1, 1))
    if len(t) == 1:
        return Samples(values=np.repeat(values, len(at), axis=0), valid=np.abs(at - t[0]) <= 1)
    left = right - 1
    is_exact = (inside == t[left]) | (inside == t[right])
    is_close = t[right] - t[left] <= limit
    # The grid grants its last instant a nanosecond of rounding beyond the stream's end.
    valid = (np.abs(at - inside) <= 1) & (is_exact | is_close)
    share = ((inside - t[left]) / (t[right] - t[left])).reshape(-1, *([1] * (values.ndim - 1)))
    # In a gap nothing is blended: the nearer end is repeated, and marked.
    share = np.where((is_exact | is_close).reshape(share.shape), share, np.round(share))
    # a + 1.0 * (b - a) is not b to the last bit, and a sample that is hit must come out as it is.
    out = np.where(
        share == 1.0, values[right], values[left] + share * (values[right] - values[left])
    )
    if is_pose:
        blend_at = t[left] + share.reshape(-1) * (t[right] - t[left])
        out[:, :3, :3] = slerp_rotmat(t - t[0], values[:, :3, :3], blend_at - t[0])
    return Samples(values=out, valid=valid)


def both_neighbours(t_ns: Instants, flags: Mask, at: Instants) -> Mask:
    """[N, ...] flags of samples -> [K, ...]: whether they hold at both samples around each instant; False outside."""
    right = np.clip(np.searchsorted(t_ns, at, side="left"), 0, len(t_ns) - 1)
    left = np.maximum(np.where(t_ns[right] > at, right - 1, right), 0)
    inside = (at >= t_ns[0] - 1) & (at <= t_ns[-1] + 1)
    return np.asarray((flags[left].T & flags[right].T & inside).T)


def holds_between(t_ns: Instants, good: Mask, start: Instants, end: Instants) -> Mask:
    """[K]: no sample of [N] in [start, end] is bad."""
    bad = np.concatenate([[0], np.cumsum(~good)])
    first = np.searchsorted(t_ns, start, side="left")
    last = np.searchsorted(t_ns, end, side="right")
    return np.asarray(bad[last] == bad[first])


def runs(mask: Mask) -> list[tuple[int, int]]:
    """Half-open [start, end) runs of True in `mask` [K]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def span(instruction: Instruction, at: Instants) -> tuple[int, int]:
    """Timesteps [start, end) whose instant lies in the instruction's [start_ns, end_ns)."""
    start = int(np.searchsorted(at, instruction.start_ns, side="left"))
    if instruction.end_ns is None:
        return start, len(at)
    return start, int(np.searchsorted(at, instruction.end_ns, side="left"))


def task_of_timesteps(instructions: tuple[Instruction, ...], at: Instants) -> list[str]:
    """The text that holds at each timestep: a sub-task where one is given, else the whole task, else "".

    Where sub-tasks overlap the one that starts later wins: it is the more specific.
    """
    texts = [""] * len(at)
    order = {"task": 0, "subtask": 1}
    for instruction in sorted(
        (i for i in instructions if i.kind in order), key=lambda i: (order[i.kind], i.start_ns)
    ):
        start, end = span(instruction, at)
        texts[start:end] = [instruction.text] * (max(end, start) - start)
    return texts


def segment_rows(
    uid: str, valid: Mask, instructions: tuple[Instruction, ...], at: Instants, rate_hz: float
) -> list[SegmentRow]:
    """The valid runs first, then every instruction that covers a timestep."""
    segments = [("valid_run", start, end, "") for start, end in runs(valid)]
    for instruction in instructions:
        start, end = span(instruction, at)
        if end > start:
            segments.append((instruction.kind, start, end, instruction.text))
    return [
        SegmentRow(
            uid=uid,
            segment_index=index,
            kind=kind,
            start=start,
            end=end,
            start_s=start / rate_hz,
            end_s=end / rate_hz,
            text=text,
        )
        for index, (kind, start, end, text) in enumerate(segments)
    ]
