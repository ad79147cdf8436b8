"""Committed episodes as arrays and frames of rows: state, action and masks by name, poses, pictures by timestep, latents. docs/how-to/python.md.

The training loader (`training/data`) reads batches of many episodes; this reads one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from ingest.catalog.catalog import Catalog
from ingest.corpus.dataset_info import read_info
from ingest.curation.measurements.camera_track import camera_track
from ingest.curation.measurements.view import EpisodeView, open_view
from ingest.latents.token_file import Latents, read_latents
from ingest.storage.local import within
from ingest.transforms.hand_poses import hand_points
from ingest.video.timestep_pictures import pictures_at
from schemas.errors import ConfigError
from schemas.geometry import Array, transform
from schemas.latent_header import span_of

Float32 = npt.NDArray[np.float32]
Pictures = npt.NDArray[np.uint8]
# A picture is shown from its own instant on; a time that was computed may miss that instant by its rounding.
ROUNDING = 1e-6  # timesteps


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredEpisode:
    """K timesteps at `rate_hz`; timestep k is k / rate_hz seconds after the first. `row` is the episode's row of the catalog."""

    corpus: Path
    snapshot: int
    row: Mapping[str, Any]
    latent_rows: Sequence[
        Mapping[str, Any]
    ]  # of the table `latents`, the newest of a camera and encoder last
    view: EpisodeView

    masks: frozenset[str]  # features of booleans

    @classmethod
    def read(cls, catalog: Catalog, uid: str) -> Self:
        """An episode of the catalog's snapshot.

        Raises:
            ConfigError: no episode has this uid, or its files are not where the catalog says.
            SourceError: its rows cannot be read.
        """
        rows = catalog.arrow("FROM episodes WHERE uid = $uid", {"uid": uid}).to_pylist()
        if len(rows) != 1:
            raise ConfigError(
                f"no episode {uid!r} in snapshot {catalog.snapshot}", where=str(catalog.corpus)
            )
        (row,) = rows
        info = read_info(catalog.corpus, row["dataset_path"])
        latents = catalog.arrow("FROM latents WHERE uid = $uid ORDER BY run_id", {"uid": uid})
        return cls(
            corpus=catalog.corpus,
            snapshot=catalog.snapshot,
            row=row,
            latent_rows=latents.to_pylist(),
            view=open_view(catalog.corpus, row, (), info.features, float(info.fps)),
            masks=frozenset(n for n, f in info.features.items() if f["dtype"] == "bool"),
        )

    @property
    def length(self) -> int:
        """K, the number of timesteps."""
        return self.view.length

    @property
    def rate_hz(self) -> float:
        """Timesteps a second."""
        return self.view.rate_hz

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras that have a video."""
        return tuple(self.view.videos)

    @property
    def features(self) -> Mapping[str, tuple[str, ...]]:
        """The names of the elements of every numeric feature: `observation.state` -> ("left.position_m.x", ...)."""
        return self.view.names

    def values(self, feature: str, part: str | None = None) -> Float32:
        """[K, n] float32: a feature, or the slice `part` of it ("left.position_m").

        Raises:
            ConfigError: the episode has no such feature or slice; the message names those it has.
        """
        if feature not in self.view.columns:
            raise ConfigError(f"no feature {feature!r}; expected one of {', '.join(self.features)}")
        column = self.view.columns[feature] if part is None else self.view.part(feature, part)
        if column is None:
            names = ", ".join(self.features[feature])
            raise ConfigError(f"{feature} has no slice {part!r}; its elements are {names}")
        return column.astype(np.float32)

    def valid(self, feature: str, part: str) -> npt.NDArray[np.bool_]:
        """[K] whether the slice `part` of `observation.state` or `action` may be believed."""
        return self.view.valid(feature, part)

    @property
    def slices(self) -> Mapping[str, int]:
        """Slice -> how many elements of the state, or of the action where it has no state: {"left.position_m": 3, ...}."""
        widths: dict[str, int] = {}
        for feature, mask in (
            ("observation.state", "observation.valid"),
            ("action", "action.valid"),
        ):
            for name in self.features.get(mask, ()):
                part = self.view.part(feature, name)
                if part is not None:
                    widths.setdefault(name, part.shape[1])
        return widths

    @property
    def state(self) -> Float32:
        """[K, n] `observation.state`."""
        return self.values("observation.state")

    @property
    def action(self) -> Float32:
        """[K, n] `action`; row k is the target for timestep k + 1."""
        return self.values("action")

    def iter_frames(
        self, camera: str, timesteps: Sequence[int] | None = None
    ) -> Iterator[Pictures]:
        """[H, W, 3] uint8 RGB at each timestep, ascending; all of them by default. Decoded one by one.

        Raises:
            ConfigError: no such camera, or a timestep outside the episode.
            SourceError: the video is missing or damaged.
        """
        steps = list(range(self.length)) if timesteps is None else list(timesteps)
        if camera not in self.view.videos:
            raise ConfigError(
                f"no camera {camera!r}; expected one of {', '.join(self.cameras) or 'none'}"
            )
        if any(b <= a for a, b in pairwise(steps)):
            raise ConfigError("timesteps must increase")
        if steps and not (steps[0] >= 0 and steps[-1] < self.length):
            raise ConfigError(f"timesteps must lie in [0, {self.length})")
        if not steps:
            return iter(())
        path = within(self.corpus, self.view.videos[camera].relative_to(self.corpus).as_posix())
        return pictures_at(path, steps, self.rate_hz)

    def frames(
        self,
        camera: str,
        timesteps: int | Sequence[int] | None = None,
        *,
        at_s: float | Sequence[float] | None = None,
    ) -> Pictures:
        """[n, H, W, 3] uint8 RGB in memory, in the order asked for: of `timesteps`, or what is shown at each of `at_s` seconds; one is n = 1.

        Raises:
            ConfigError: no such camera, a time outside the episode, or both kinds of time, or none.
            SourceError: the video is missing or damaged.
        """
        if (timesteps is None) == (at_s is None):
            raise ConfigError("pass timesteps, or at_s in seconds", where="frames")
        if timesteps is None:
            asked = np.floor(np.atleast_1d(np.asarray(at_s, np.float64)) * self.rate_hz + ROUNDING)
        else:
            asked = np.atleast_1d(np.asarray(timesteps))
            if len(asked) and not np.issubdtype(asked.dtype, np.integer):
                raise ConfigError(
                    f"timesteps of type {asked.dtype}",
                    remedy="pass integers, or seconds as at_s=[...]",
                    where="frames",
                )
        if not np.isfinite(asked).all():
            raise ConfigError("a time is not finite", where="frames")
        steps, order = np.unique(asked.astype(np.int64), return_inverse=True)
        pictures = list(self.iter_frames(camera, steps.tolist()))
        if not pictures:
            size = next(c for c in self.row["cameras"] if c["name"] == camera)
            return np.zeros((0, size["height"], size["width"], 3), np.uint8)
        return np.stack(pictures)[order]

    def eef_poses(self, side: str, feature: str = "observation.state") -> Array | None:
        """[K, 4, 4] of the end-effector in the frame of the state: a robot's base, a person's world; None without one.

        Also of timesteps that are not valid; `valid(feature, "left.position_m")` says which.
        """
        position_m, rotmat = (
            self.view.part(feature, f"{side}.position_m"),
            self.view.rotmat(feature, side),
        )
        return None if position_m is None or rotmat is None else transform(rotmat, position_m)

    def hand_points_m(self, side: str) -> Array | None:
        """[K, 21, 3] points of a human hand in the frame of the state, in the order of `schemas.hand`; None without them."""
        T_ref_hand = self.eef_poses(side)
        points = self.view.part("observation.state", f"{side}.hand_keypoints_m")
        if T_ref_hand is None or points is None:
            return None
        return hand_points(points, T_ref_hand, str(self.row["embodiment"]), side)

    def camera_poses(self, camera: str) -> Array | None:
        """[K, 4, 4] of the camera, OpenCV axes, in the frame of the state; None where the source has no pose."""
        track = camera_track(self.view, camera)
        return None if track is None else transform(track.rotmat, track.position_m)

    def table(self) -> pl.DataFrame:
        """One row a timestep: `timestep`, `time_s`, `task`, `tier`, then every element of every feature, named with its unit."""
        steps = np.arange(self.length)
        columns = [
            pl.Series("timestep", steps, dtype=pl.Int64),
            pl.Series("time_s", steps / self.rate_hz),
            self._labels("task", self.segments.filter(kind="task"), "text"),
            self._labels("tier", self.tiers, "tier"),
        ]
        for feature, values in self.view.columns.items():
            kind = pl.Boolean if feature in self.masks else pl.Float32
            for name, column in zip(self.features[feature], values.T, strict=True):
                columns.append(pl.Series(_column_name(feature, name), column).cast(kind))
        return pl.DataFrame(columns)

    def _labels(self, name: str, spans: pl.DataFrame, label: str) -> pl.Series:
        """[K] the label of the span [start, end) that a timestep is in; null where it is in none."""
        labels: list[str | None] = [None] * self.length
        for start, end, text in spans.select("start", "end", label).iter_rows():
            labels[start:end] = [text] * (end - start)
        return pl.Series(name, labels, dtype=pl.String)

    @cached_property
    def segments(self) -> pl.DataFrame:
        """The episode's rows of the table `segments`: valid runs, tasks, subtasks."""
        return self._rows("segments", "start, segment_index")

    @cached_property
    def tiers(self) -> pl.DataFrame:
        """The episode's rows of the table `tiers`: what the latest `eicorpus tier` decided, and why."""
        return self._rows("tiers", "start")

    @cached_property
    def captions(self) -> pl.DataFrame:
        """The episode's rows of the table `captions`."""
        return self._rows("captions", "start, caption_id")

    @cached_property
    def measurements(self) -> pl.DataFrame:
        """The episode's rows of the table `measurements`."""
        return self._rows("measurements", "name, start NULLS FIRST")

    def _rows(self, table: str, order: str) -> pl.DataFrame:
        """Read from the snapshot that the episode was read from."""
        with Catalog.open(self.corpus, snapshot=self.snapshot) as catalog:
            return catalog.sql(
                f"FROM {table} WHERE uid = $uid ORDER BY {order}", {"uid": self.row["uid"]}
            )

    def latents(self, camera: str, encoder_id: str | None = None) -> Latents:
        """The stored latents of a camera; `encoder_id` may be left out where one encoder made all there are.

        Raises:
            ConfigError: there are none, several encoders made some, or the file is damaged.
        """
        rows = [row for row in self.latent_rows if row["camera"] == camera]
        encoders = sorted({row["encoder_id"] for row in rows})
        if encoder_id is None and len(encoders) > 1:
            raise ConfigError(
                "several encoders", remedy=f"pass encoder_id: one of {', '.join(encoders)}"
            )
        rows = [row for row in rows if encoder_id in (None, row["encoder_id"])]
        if not rows:
            have = ", ".join(encoders) or "none; run `eicorpus latents images`"
            raise ConfigError(
                f"no latents of camera {camera!r} from {encoder_id}; available: {have}"
            )
        newest = rows[-1]
        span = span_of(newest["pack_offset"], newest["num_bytes"])
        return read_latents(within(self.corpus, newest["path"]), span)


_AXES = {"x": "position_m", "y": "position_m", "z": "position_m"}


def _column_name(feature: str, element: str) -> str:
    """`observation.state` and `left.position_m.x` -> `state.left.position_m.x`; the poses of cameras are named as those of hands."""
    feature = feature.removeprefix("observation.")
    if element.startswith(f"{feature}."):  # an extra names its elements in full
        element = element.removeprefix(f"{feature}.")
        if feature.startswith(("camera_pose.", "source_eef_pose.")):
            element = f"{_AXES.get(element, 'rot6d_cols')}.{element}"
    return f"{feature}.{element}"
