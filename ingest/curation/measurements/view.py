"""A committed episode as a measure sees it: its rows by name, its masks, its segments, and its pictures, decoded once.

K timesteps at `rate_hz`. Nothing here is resampled or judged. Arrays are read-only float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.corpus.layout import data_file, video_file
from ingest.curation.measurements.arm import ArmTrack, arms_of
from ingest.curation.measurements.hoi.hand_observer import HandObserver, SeenHands
from ingest.curation.measurements.pictures import ImageFacts, look_at
from ingest.models.hand_landmarker import HandDetector
from ingest.storage.local import within
from schemas.episode import SIDES
from schemas.errors import Code, SourceError, system_error_text
from schemas.geometry import Array, rotmat_from_rot6d_cols
from schemas.parquet_file import DamagedParquet, read_table

Mask = npt.NDArray[np.bool_]
PERSON = "human"  # what the embodiments of people begin with: human_hands, human_video


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeView:
    """`row` and `segments` are the episode's catalog rows; `names` the element names of each numeric feature."""

    row: Mapping[str, Any]
    segments: Sequence[Mapping[str, Any]]
    columns: Mapping[str, Array]  # feature -> [K, n]
    names: Mapping[str, tuple[str, ...]]
    videos: Mapping[str, Path] = field(default_factory=dict)  # camera -> file
    rate_hz: float = 10.0
    hand_detector: HandDetector | None = None  # looks for people's hands in the same pass

    @property
    def is_person(self) -> bool:
        """Whether a person is recorded, and not a robot."""
        return str(self.row.get("embodiment") or "").startswith(PERSON)

    @property
    def length(self) -> int:
        return int(self.row["length"])

    @property
    def sides(self) -> tuple[str, ...]:
        """Sides that have an end-effector pose in the state."""
        return tuple(
            s for s in SIDES if self.part("observation.state", f"{s}.position_m") is not None
        )

    @property
    def command_only(self) -> tuple[str, ...]:
        """Slices of the action without a measured state."""
        return tuple(self.row.get("command_only") or ())

    def part(self, feature: str, name: str) -> Array | None:
        """[K, n] the slice `name` ("left.position_m") of a feature; None when the episode has none."""
        if feature not in self.columns:
            return None
        at = [i for i, n in enumerate(self.names[feature]) if n == name or n.startswith(f"{name}.")]
        return self.columns[feature][:, at] if at else None

    def valid(self, feature: str, name: str) -> Mask:
        """[K] whether the slice may be believed: `observation.valid` or `action.valid`; all False when it is not there."""
        masks = "action.valid" if feature == "action" else "observation.valid"
        mask = self.part(masks, name)
        if mask is None:
            return np.zeros(self.length, dtype=bool)
        return mask[:, 0].astype(bool)

    def rotmat(self, feature: str, side: str) -> Array | None:
        """[K, 3, 3] rotation of an end-effector."""
        rot6d = self.part(feature, f"{side}.rot6d_cols")
        return None if rot6d is None else rotmat_from_rot6d_cols(rot6d)

    @cached_property
    def arms(self) -> tuple[ArmTrack, ...]:
        """Every end-effector whose motion is its own, not a camera's."""
        return arms_of(self)

    @property
    def pictures(self) -> Mapping[str, ImageFacts]:
        """What one pass over each camera's video saw; decoded when first asked for, and once."""
        return self._looked[0]

    @property
    def seen_hands(self) -> Mapping[str, SeenHands]:
        """Hands by camera, from the same pass; empty for robots and without a detector."""
        return self._looked[1] if self.is_person and self.hand_detector is not None else {}

    @cached_property
    def _looked(self) -> tuple[Mapping[str, ImageFacts], Mapping[str, SeenHands]]:
        pictures, hands = {}, {}
        for camera, path in self.videos.items():
            if self.hand_detector is None or not self.is_person:
                pictures[camera] = look_at(path, self.length)
                continue
            watch = HandObserver(self.hand_detector, self.rate_hz)
            pictures[camera] = look_at(path, self.length, watch)
            hands[camera] = watch.seen()
        return pictures, hands


def open_view(
    corpus: Path,
    row: Mapping[str, Any],
    segments: Sequence[Mapping[str, Any]],
    features: Mapping[str, Any],
    rate_hz: float,
    hand_detector: HandDetector | None = None,
) -> EpisodeView:
    """Read the rows of one committed episode; `features` is the feature table of its dataset (`meta/info.json`).

    Raises:
        SourceError: its data file is missing or not what the catalog says.
    """
    dataset, index = within(corpus, row["dataset_path"]), row["episode_index"]
    path = within(dataset, data_file(index))
    numeric = {
        n: f for n, f in features.items() if f["dtype"] in ("float32", "bool") and f["names"]
    }
    try:
        table = read_table(path, sorted(numeric))
    except DamagedParquet as error:
        raise SourceError(
            Code.UNREADABLE, f"{error.message}; {error.remedy}", where=error.where
        ) from error
    except OSError as error:
        raise SourceError(
            Code.UNREADABLE,
            f"{system_error_text(error, str(path))}; run `eicorpus verify`",
            where=str(path),
        ) from error
    if len(table) != row["length"]:
        problem = f"the file has {len(table)} rows, the catalog states {row['length']}; run `eicorpus verify`"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=str(path))
    columns = {}
    for name in numeric:
        column = table.column(name).combine_chunks()
        # a feature of one element is a plain column, not one of lists
        flat = column.flatten() if pa.types.is_nested(column.type) else column
        values = flat.to_numpy(zero_copy_only=False).astype(np.float64).reshape(len(table), -1)
        values.flags.writeable = False
        columns[name] = values
    videos = {
        camera["name"]: within(dataset, video_file(index, f"observation.images.{camera['name']}"))
        for camera in row["cameras"]
    }
    return EpisodeView(
        row=row,
        segments=segments,
        columns=columns,
        names={name: tuple(feature["names"]) for name, feature in numeric.items()},
        videos=videos,
        rate_hz=rate_hz,
        hand_detector=hand_detector,
    )
