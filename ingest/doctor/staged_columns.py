"""The numeric columns of one staged episode, by name: what the corpus would hold of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ingest.transforms.resample import Mask
from schemas.episode import SIDES
from schemas.geometry import Array, rotmat_from_rot6d_cols, transform
from schemas.hand import NUM_JOINTS
from schemas.outcome import StagedEpisode

STATE, ACTION = "observation.state", "action"
_VALID = {STATE: "observation.valid", ACTION: "action.valid"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoseColumn:
    """A pose in the base at every timestep, and where it is to be believed."""

    T: Array  # [K, 4, 4]
    valid: Mask  # [K]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """Feature -> [K, n] values and the n names of its elements; bools are 0 and 1."""

    values: Mapping[str, Array]
    names: Mapping[str, Sequence[str]]

    def element(self, feature: str, name: str) -> Array | None:
        """[K] one named element, or None."""
        names = list(self.names.get(feature, ()))
        return self.values[feature][:, names.index(name)] if name in names else None

    def valid(self, feature: str, part: str) -> Mask:
        """[K] whether the slice `part` of `observation.state` or `action` is valid."""
        values = self.element(_VALID.get(feature, "observation.valid"), part)
        if values is None:
            count = len(next(iter(self.values.values()), np.zeros((0, 1))))
            return np.ones(count, dtype=bool)
        return values > 0.5

    def hand(self, side: str, feature: str = STATE) -> PoseColumn | None:
        """`hand_xfz` of a side in the base; None when the vector has none."""
        names = list(self.names.get(feature, ()))
        if f"{side}.position_m.x" not in names:
            return None
        at = names.index(f"{side}.position_m.x")
        valid = self.valid(feature, f"{side}.position_m") & self.valid(
            feature, f"{side}.rot6d_cols"
        )
        return PoseColumn(T=_from_pose9(self.values[feature][:, at : at + 9]), valid=valid)

    def source_pose(self, side: str) -> PoseColumn | None:
        """The pose in the source's own axes, whose orientation in the hand is unknown."""
        return self._pose9(f"source_eef_pose.{side}")

    def cameras(self) -> Iterator[tuple[str, PoseColumn]]:
        """Every camera whose pose is known, in the frame of the hands."""
        for feature in self.values:
            name = feature.removeprefix("observation.")
            if name.startswith("camera_pose.") and (pose := self._pose9(name)) is not None:
                yield name.removeprefix("camera_pose."), pose

    def _pose9(self, name: str) -> PoseColumn | None:
        values = self.values.get(f"observation.{name}")
        if values is None:
            return None
        return PoseColumn(T=_from_pose9(values), valid=self.valid(STATE, name))

    def opening(self, side: str) -> Array | None:
        """[K] 1 open, 0 closed; None without a gripper that is measured."""
        name = f"{side}.gripper_opening"
        return self.element(STATE, name) if self.valid(STATE, name).any() else None

    def keypoints(self, side: str) -> tuple[Array, Mask] | None:
        """[K, 21, 3] points in the wrist frame and where they are valid."""
        names = list(self.names.get(STATE, ()))
        if f"{side}.hand_keypoints_m.wrist.x" not in names:
            return None
        at = names.index(f"{side}.hand_keypoints_m.wrist.x")
        points = self.values[STATE][:, at : at + 3 * NUM_JOINTS].reshape(-1, NUM_JOINTS, 3)
        return points, self.valid(STATE, f"{side}.hand_keypoints_m")

    @property
    def sides(self) -> tuple[str, ...]:
        """Sides with a pose of any kind."""
        return tuple(s for s in SIDES if (self.hand(s) or self.source_pose(s)) is not None)


def columns_of(table: pa.Table, staged: StagedEpisode) -> Columns:
    """The numeric columns of a table from `staged_rows`."""
    numeric = {
        name: feature
        for name, feature in staged.features.items()
        if feature["dtype"] in ("float32", "bool")
    }
    return Columns(
        values={
            name: np.array(table.column(name).to_pylist(), dtype=np.float64).reshape(len(table), -1)
            for name in numeric
        },
        names={name: tuple(feature["names"]) for name, feature in numeric.items()},
    )


def _from_pose9(values: Array) -> Array:
    """[K, 9] position and rot6d_cols -> [K, 4, 4]. A row of zeros, which no pose is, becomes the identity's turn."""
    turn = np.where(
        np.linalg.norm(values[:, 3:], axis=1, keepdims=True) > 0, values[:, 3:], _NO_TURN
    )
    return transform(rotmat_from_rot6d_cols(turn), values[:, :3])


_NO_TURN = np.array([1.0, 0, 0, 0, 1, 0])
