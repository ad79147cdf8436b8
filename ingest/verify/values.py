"""Do the vectors mean what their names say: rotations are rotations, grippers are shares, actions lead somewhere?

Only where the episode says that a slice is valid (`observation.valid`, `action.valid`); elsewhere values are fillers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.corpus.committed_episodes import CommittedEpisode
from ingest.verify.finding import CheckCode, Finding, finding
from ingest.verify.numbering import EpisodePlace
from ingest.verify.rows import Columns
from schemas.geometry import ROTATION_TOLERANCE

Mask = npt.NDArray[np.bool_]
_STATE, _ACTION = "observation.state", "action"
_POSES = (
    "observation.source_eef_pose.",
    "observation.camera_pose.",
)  # [K, 9]: position, rot6d_cols


def value_findings(
    columns: Columns, stored: CommittedEpisode, place: EpisodePlace
) -> Iterator[Finding]:
    """Every rule about vectors; a column with NaN or null is left to the check that says so."""
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
    """Validity by slice name; empty when the episode has no such column."""
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
    """An action is valid only where its state is; an achieved one is the next state, so the last has none.

    A slice that is commanded and not measured has no state: its mask is False everywhere.
    """
    path, row = stored.data_path, stored.row
    command_only = set(row.get("command_only") or ())
    coverage = float(np.mean(np.all([aimed[name] for name in slices], axis=0)))
    if coverage != row["action_coverage"]:
        what = f"{coverage} of the actions valid"
        yield finding(CheckCode.DATA_ACTION, path, what, f"{row['action_coverage']} by the catalog")
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
        if row["action_source"] != "achieved":
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
