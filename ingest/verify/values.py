"""Checks of vectors and statistics: rotations are rotations, grippers lie in [0, 1], and the statistics are complete and those of the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.corpus.committed_episodes import CommittedEpisode
from ingest.corpus.lerobot_writer import column_stats
from ingest.verify.finding import CheckCode, Finding, excerpt, finding
from ingest.verify.rows import Columns, EpisodePlace
from ingest.video.stats import sampled_frames
from schemas.geometry import ROTATION_TOLERANCE
from schemas.lerobot import DEFAULT_FEATURES

_KINDS = {"min", "max", "mean", "std", "count"}
_RELATIVE = 1e-6  # of mean and std: sums may be added up in another order elsewhere


def stats_findings(
    columns: Columns, stored: CommittedEpisode, place: EpisodePlace
) -> Iterator[Finding]:
    """The statistics that the catalog has, and `episodes_stats.jsonl` repeats, of one episode."""
    for artifact in stored.artifacts:
        detail = stored.detail(artifact)
        if artifact.kind == "data":
            yield from _numeric_findings(columns, detail, stored, place)
        elif artifact.kind == "video":
            path = stored.video_path(str(artifact.camera))
            yield from image_findings(path, detail, stored.row.length)


def _numeric_findings(
    columns: Columns, statistics: Mapping[str, Any], stored: CommittedEpisode, place: EpisodePlace
) -> Iterator[Finding]:
    features = {n for n, f in place.dataset.features.items() if f["dtype"] != "video"}
    if statistics.keys() != features:
        what = f"statistics of {sorted(statistics)}"
        yield finding(CheckCode.STATS_INCOMPLETE, stored.data_path, what, sorted(features))
    for name in sorted(statistics.keys() & columns.keys() - DEFAULT_FEATURES.keys()):
        expected = column_stats(columns[name])
        for kind in sorted(_KINDS):
            if not _is_same(kind, statistics[name].get(kind), expected[kind]):
                shown = excerpt(str(expected[kind]))
                what = f"{kind} of {name!r} {excerpt(str(statistics[name].get(kind)))}"
                yield finding(
                    CheckCode.STATS_DIFFER, stored.data_path, what, f"{shown} of its rows"
                )


def _is_same(kind: str, actual: Any, expected: list[Any]) -> bool:
    if kind not in ("mean", "std"):
        return bool(actual == expected)
    if np.shape(actual) != np.shape(expected):
        return False
    return bool(np.allclose(actual, expected, rtol=_RELATIVE, atol=_RELATIVE**2))


def image_findings(path: str, statistics: Mapping[str, Any], length: int) -> Iterator[Finding]:
    """min, max, mean, std of shape (3, 1, 1) in 0..1, and the count of sampled frames."""
    if statistics.keys() != _KINDS:
        yield finding(
            CheckCode.STATS_INCOMPLETE, path, f"statistics {sorted(statistics)}", sorted(_KINDS)
        )
        return
    count = [len(sampled_frames(length))]
    if statistics["count"] != count:
        yield finding(
            CheckCode.STATS_DIFFER, path, f"count {statistics['count']}", f"{count} by the rule"
        )
    values = {kind: np.asarray(statistics[kind], dtype=np.float64) for kind in _KINDS - {"count"}}
    shapes = {kind: value.shape for kind, value in values.items() if value.shape != (3, 1, 1)}
    if shapes:
        yield finding(CheckCode.STATS_DIFFER, path, f"shapes {shapes}", (3, 1, 1))
        return
    low, middle, high = values["min"], values["mean"], values["max"]
    is_sound = np.all((low >= 0) & (low <= middle) & (middle <= high) & (high <= 1))
    if not (is_sound and np.all((values["std"] >= 0) & (values["std"] <= 0.5 + 1e-12))):
        shown = excerpt(str({kind: value.ravel().tolist() for kind, value in values.items()}))
        yield finding(
            CheckCode.STATS_DIFFER, path, shown, "0 <= min <= mean <= max <= 1, std <= 0.5"
        )


Mask = npt.NDArray[np.bool_]
_STATE, _ACTION = "observation.state", "action"
_POSES = (
    "observation.source_eef_pose.",
    "observation.camera_pose.",
)  # [K, 9]: position, rot6d_cols


def value_findings(
    columns: Columns, stored: CommittedEpisode, place: EpisodePlace
) -> Iterator[Finding]:
    """Every rule about vectors. A column with NaN or null is left to the check that says so."""
    path = stored.data_path
    valid = {
        name: _masks(columns, place, f"{name.split('.')[0]}.valid") for name in (_STATE, _ACTION)
    }
    slices = dict(_slices(place))
    for vector in (_STATE, _ACTION):
        for name, span in slices.items() if vector in columns else ():
            mask = valid[vector].get(name)
            if mask is not None:
                values = columns[vector][:, span]
                yield from _slice_findings(path, f"{vector}: {name}", values, mask)
    for name in columns:
        mask = valid[_STATE].get(name.removeprefix("observation."))
        if name.startswith(_POSES) and mask is not None:
            yield from _rotation_findings(path, name, columns[name][:, 3:9], mask)
    if slices and _STATE in columns and _ACTION in columns:
        yield from _action_findings(columns, stored, slices, valid[_STATE], valid[_ACTION])


def _slices(place: EpisodePlace) -> Iterator[tuple[str, slice]]:
    start = 0
    for name, width, _ in place.dataset.spec:
        yield name, slice(start, start + width)
        start += width


def _masks(columns: Columns, place: EpisodePlace, name: str) -> dict[str, Mask]:
    """Validity by slice name. Empty when the episode has no such column."""
    feature: Mapping[str, Any] = place.dataset.features.get(name, {})
    if name not in columns:
        return {}
    return {each: columns[name][:, i] for i, each in enumerate(feature["names"])}


def _slice_findings(
    path: str, what: str, values: npt.NDArray[np.float32], mask: Mask
) -> Iterator[Finding]:
    if what.endswith("rot6d_cols"):
        yield from _rotation_findings(path, what, values, mask)
    elif what.endswith("gripper_opening"):
        off = mask & ((values < 0) | (values > 1)).any(axis=1)
        if off.any():
            k = int(np.argmax(off))
            actual = f"{what} is {values[k, 0]} in row {k} ({off.sum()} such rows)"
            yield finding(CheckCode.DATA_GRIPPER, path, actual, "0 (closed) to 1 (open)")


def _rotation_findings(
    path: str, what: str, rot6d_cols: npt.NDArray[np.float32], mask: Mask
) -> Iterator[Finding]:
    """Two columns of a rotation matrix have length 1 and a right angle between them."""
    columns = rot6d_cols.reshape(-1, 2, 3).astype(np.float64)
    gram = columns @ np.swapaxes(columns, 1, 2)
    error = np.abs(gram - np.eye(2)).max(axis=(1, 2))
    off = mask & (error > ROTATION_TOLERANCE)
    if off.any():
        k = int(np.argmax(off))
        actual = f"{what} is off by {error[k]:.3g} in row {k} ({off.sum()} such rows)"
        expected = f"two columns of a rotation within {ROTATION_TOLERANCE}"
        yield finding(CheckCode.DATA_ROTATION, path, actual, expected)


def _action_findings(
    columns: Columns,
    stored: CommittedEpisode,
    slices: Mapping[str, slice],
    observed: Mapping[str, Mask],
    aimed: Mapping[str, Mask],
) -> Iterator[Finding]:
    """An action is valid only where its state is. An achieved one is the next state, so the last has none.

    A slice that is commanded and not measured has no state: its mask is False everywhere.
    """
    path, row = stored.data_path, stored.row
    command_only = set(row.command_only or ())
    coverage = float(np.mean(np.all([aimed[name] for name in slices], axis=0)))
    if coverage != row.action_coverage:
        what = f"{coverage} of the actions valid"
        yield finding(CheckCode.DATA_ACTION, path, what, f"{row.action_coverage} by the catalog")
    for name, span in slices.items():
        if name in command_only:
            yield from _unmeasured_findings(path, name, observed[name])
            continue
        odd = aimed[name] & ~observed[name]
        if odd.any():
            what = f"a valid action of {name} in row {int(np.argmax(odd))}, where its state is not"
            yield finding(
                CheckCode.DATA_ACTION, path, what, "actions only where the state is valid"
            )
        if row.action_source != "achieved":
            continue
        if aimed[name][-1]:
            what = f"a valid achieved action of {name} in the last row"
            yield finding(CheckCode.DATA_ACTION, path, what, "none: there is no next state")
        this, following = columns[_ACTION][:-1, span], columns[_STATE][1:, span]
        off = aimed[name][:-1] & (this != following).any(axis=1)
        if off.any():
            what = f"an achieved action of {name} in row {int(np.argmax(off))} that is not the next state"
            yield finding(CheckCode.DATA_ACTION, path, what, "the state of the next row")


def _unmeasured_findings(path: str, name: str, observed: Mask) -> Iterator[Finding]:
    if observed.any():
        what = f"a valid state of {name} in row {int(np.argmax(observed))}, which is commanded only"
        yield finding(CheckCode.DATA_ACTION, path, what, "no valid state, by `command_only`")
