"""Committed episodes as arrays: state, action and masks by name, pictures by timestep, latents. For notebooks and programs; docs/how-to/python.md.

The training loader (`training/data`) reads batches of many episodes; this reads one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.catalog.catalog import Catalog
from ingest.corpus.dataset_info import read_info
from ingest.curation.measurements.view import EpisodeView, open_view
from ingest.latents.frame_grid import pictures_at
from ingest.latents.token_file import Latents, read_latents
from ingest.storage.local import within
from schemas.errors import ConfigError

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredEpisode:
    """K timesteps at `rate_hz`; timestep k is k / rate_hz seconds after the first. `row` is the episode's row of the catalog."""

    corpus: Path
    row: Mapping[str, Any]
    latent_rows: Sequence[
        Mapping[str, Any]
    ]  # of the table `latents`, the newest of a camera and encoder last
    view: EpisodeView

    @property
    def length(self) -> int:
        return self.view.length

    @property
    def rate_hz(self) -> float:
        return self.view.rate_hz

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(self.view.videos)

    @property
    def features(self) -> Mapping[str, tuple[str, ...]]:
        """The names of the elements of every numeric feature: `observation.state` -> ("left.position_m.x", ...)."""
        return self.view.names

    def values(self, feature: str, part: str | None = None) -> Float32:
        """[K, n] a feature, or the slice `part` of it ("left.position_m").

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
    def state(self) -> Float32:
        """[K, n] `observation.state`."""
        return self.values("observation.state")

    @property
    def action(self) -> Float32:
        """[K, n] `action`; row k is the target for timestep k + 1."""
        return self.values("action")

    def frames(
        self, camera: str, timesteps: Sequence[int] | None = None
    ) -> Iterator[npt.NDArray[np.uint8]]:
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
        return read_latents(within(self.corpus, rows[-1]["path"]))


class StoredCorpus(Catalog):
    """One snapshot of a corpus: its tables by SQL (`Catalog`), its episodes as arrays. Programs know it as `eicorpus.Corpus`."""

    def episode(self, uid: str) -> StoredEpisode:
        """An episode of this snapshot.

        Raises:
            ConfigError: no episode has this uid, or its files are not where the catalog says.
            SourceError: its rows cannot be read.
        """
        rows = self.arrow("FROM episodes WHERE uid = $uid", {"uid": uid}).to_pylist()
        if len(rows) != 1:
            raise ConfigError(
                f"no episode {uid!r} in snapshot {self.snapshot}", where=str(self.corpus)
            )
        (row,) = rows
        info = read_info(self.corpus, row["dataset_path"])
        latents = self.arrow(
            "FROM latents WHERE uid = $uid ORDER BY run_id", {"uid": uid}
        ).to_pylist()
        view = open_view(self.corpus, row, (), info.features, float(info.fps))
        return StoredEpisode(corpus=self.corpus, row=row, latent_rows=latents, view=view)
