"""Samples as tensors: for segments and timesteps, what is known and what is to be said. The order of samples is somebody else's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from torch import Tensor

from schemas.errors import ConfigError
from schemas.manifest import ManifestRow
from training.batch import Batch, Origin
from training.conditioning.protocol import TextReader
from training.data.actions import ActionStore
from training.data.anchors import Records
from training.data.broken import broken_sample
from training.data.latent_reader import LatentReader, is_finite
from training.data.layout import ACTION_WIDTH
from training.data.normalise import Normaliser
from training.data.state import STATE_WIDTH
from training.data.views import latents_of_views
from training.data.windows import Ints, Mask, Window
from training.model.network import Known

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assembler:
    """All that a sample is made of; workers share it."""

    window: Window
    store: ActionStore
    normaliser: Normaliser
    latents: LatentReader
    encoder_id: str
    cameras: tuple[str, ...]
    reader: TextReader
    with_state: bool
    keeps_stored: bool = False

    def batch(
        self, segments: Records, rows: list[ManifestRow], now: Ints, task: npt.NDArray[np.int64]
    ) -> Batch:
        """
        Args:
            segments: [B] records of `training.data.anchors.SEGMENT`. rows: [B] of the manifest. now: [B] timesteps. task: [B] into TASKS.

        Raises:
            SourceError: a sample cannot be read; the message has its file, episode and timestep.
        """
        embodiment = torch.from_numpy(segments["embodiment"].astype(np.int64))
        pictures, has_pictures = self.pictures(segments, rows, now)
        stored, values, has = self.actions(segments, now)
        history, action, has_history, has_action = (
            torch.from_numpy(part)
            for array in (values, has)
            for part in np.split(array, [self.window.num_history], axis=1)
        )
        return Batch(
            known=Known(
                past=pictures[:, :-1],
                has_past=has_pictures[:, :-1],
                history=history,
                has_history=has_history,
                embodiment=embodiment,
                task=torch.from_numpy(task),
                state=self._state(segments, now) if self.with_state else None,
            ),
            action=action,
            has_action=has_action,
            asked=self.normaliser.is_known[embodiment],
            future=pictures[:, -1],
            has_future=has_pictures[:, -1],
            action_t_s=torch.from_numpy(self.window.action_t_s).float(),
            future_t_s=self.window.future_t_s,
            text_inputs=self.reader.read(rows, now),
            origin=Origin(row=segments["row"].astype(np.int64), timestep=now.astype(np.int64)),
            stored=(
                torch.from_numpy(stored[:, self.window.num_history :])
                if self.keeps_stored
                else None
            ),
        )

    def actions(self, segments: Records, now: Ints) -> tuple[Floats, Floats, Mask]:
        """[B, H + K, 172] of history and chunk: as stored, normalised, and whether they are there. Normalised ones are 0 where they are not."""
        at, inside = self.window.rows(now, segments["start"], segments["end"])
        stored, is_valid = self._rows(segments, at, inside)
        embodiment = segments["embodiment"].astype(np.int64)
        has = is_valid & self.normaliser.is_known.numpy()[embodiment][:, None]
        values = np.where(has, self.normaliser.encode_array(stored, embodiment), np.float32(0))
        return stored, values, has

    def _rows(self, segments: Records, at: Ints, inside: Mask) -> tuple[Floats, Mask]:
        """[B, H + K, 172] stored values of rows of the segments, and where they are valid. 0 elsewhere."""
        values = np.zeros((*at.shape, ACTION_WIDTH), dtype=np.float32)
        valid = np.zeros(values.shape, dtype=bool)
        for b, segment in enumerate(segments):
            if segment["part"] < 0 or not inside[b].any():
                continue
            part = self.store.open_part(int(segment["part"]))
            k = np.flatnonzero(inside[b])
            first = int(segment["offset"] - segment["start"] + at[b, k[0]])
            rows = slice(first, first + len(k))  # they follow each other
            values[b][k[0] : k[-1] + 1, part.slots] = part.values[rows]
            valid[b][k[0] : k[-1] + 1, part.slots] = part.valid[rows]
        return values, valid

    def _state(self, segments: Records, now: Ints) -> Tensor:
        out = np.zeros((len(now), STATE_WIDTH), dtype=np.float32)
        for b, segment in enumerate(segments):
            if segment["part"] >= 0:
                state = self.store.open_part(int(segment["part"])).state
                assert state is not None  # the store was made with it
                out[b] = state[int(segment["offset"] + now[b] - segment["start"])]
        return torch.from_numpy(out)

    def pictures(
        self, segments: Records, rows: list[ManifestRow], now: Ints
    ) -> tuple[Tensor, Tensor]:
        """[B, P+1, V * N, D] latents as they are read (`LatentShape.read_as`), the future last, 0 where there are none, and [B, P+1, V] where there are.

        Raises:
            SourceError: see `batch`.
        """
        at, inside = self.window.pictures(now, segments["start"], segments["end"])
        shape = self.latents.shape
        assert shape is not None
        num_views, num_patches = len(self.cameras), shape.num_patches
        size = (*at.shape, num_views, num_patches, shape.width)
        out = _zeros(size, shape.read_as)
        has = torch.zeros(size[:3], dtype=torch.bool)
        for b, row in enumerate(rows):
            files = latents_of_views(row.latents, self.encoder_id, self.cameras)
            for v, latent in enumerate(files):
                if latent is None:
                    continue
                try:
                    file = self.latents.open(latent, row.uid, row.end)
                    for p in np.flatnonzero(inside[b]):
                        file.read(int(at[b, p]), out[b, p, v])
                        has[b, p, v] = True
                    if not is_finite(out[b, :, v]):
                        raise ConfigError("not finite", where=latent.path)
                except (ConfigError, SafetensorError, OSError, RuntimeError) as error:
                    raise broken_sample(row, int(now[b]), latent.path, error) from error
        return out.flatten(2, 3), has


def _zeros(size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Pages that the kernel clears when they are first written to, which most are anyway."""
    memory = np.zeros(size, dtype=f"u{dtype.itemsize}")
    return torch.from_numpy(memory).view(dtype)
