"""Samples as tensors: for segments and timesteps, the inputs and the targets. The sampler decides the order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from schemas.errors import ConfigError, TransientError
from schemas.manifest import Latent, ManifestRow
from schemas.supervision import Task
from training.batch import Batch, Origin
from training.conditioning.protocol import TextReader
from training.data.action_layout import ACTION_WIDTH, LATENT_BODY
from training.data.actions import ActionStore
from training.data.broken import broken_sample, patiently
from training.data.camera_views import latents_of_views
from training.data.latent_reader import LatentReader, Memory, is_finite
from training.data.latent_targets import LatentTargets
from training.data.normalise import Normaliser
from training.data.recording import STATE_WIDTH
from training.data.sample_index import Records
from training.data.windows import BIT, Ints, Mask, Window
from training.model.network import KnownInputs
from training.tasks import INDEX

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
    targets: LatentTargets | None = None
    keeps_stored: bool = False

    def batch(
        self, segments: Records, rows: list[ManifestRow], now: Ints, task: npt.NDArray[np.int64]
    ) -> Batch:
        """
        Args:
            segments: [B] records of `training.data.sample_index.SEGMENT`. rows: [B] of the manifest. now: [B] timesteps. task: [B] into TASKS.

        Raises:
            SourceError: a sample cannot be read; the message has its file, episode and timestep.
        """
        is_label = segments["is_labelled"] & (task == INDEX[Task.POLICY])
        embodiment = torch.from_numpy(self._embodiment(segments, is_label))
        pictures, has_pictures = self.pictures(segments, rows, now)
        first = 0 if self.window.later_step is None else 1
        stored, values, has = self._latent_actions(
            *self.actions(segments, now), rows=rows, now=now, at=np.flatnonzero(is_label)
        )
        history, action, has_history, has_action = (
            torch.from_numpy(part)
            for array in (values, has)
            for part in np.split(array, [self.window.num_history], axis=1)
        )
        return Batch(
            known=KnownInputs(
                past=pictures[:, first:-1],
                has_past=has_pictures[:, first:-1],
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
            later=pictures[:, 0] if first else None,
            has_later=has_pictures[:, 0] if first else None,
            may_teach=torch.from_numpy((segments["may"] & BIT[Task.POLICY]) > 0),
            origin=Origin(row=segments["row"].astype(np.int64), timestep=now.astype(np.int64)),
            stored=(
                torch.from_numpy(stored[:, self.window.num_history :])
                if self.keeps_stored
                else None
            ),
        )

    def _embodiment(self, segments: Records, is_label: Mask) -> Ints:
        """[B] numbers of bodies: that of latent actions where they are what is said."""
        body: Ints = segments["embodiment"].astype(np.int64)
        if is_label.any():
            body[is_label] = self.normaliser.embodiments.index(LATENT_BODY)
        return body

    def _latent_actions(
        self,
        stored: Floats,
        values: Floats,
        has: Mask,
        *,
        rows: list[ManifestRow],
        now: Ints,
        at: Ints,
    ) -> tuple[Floats, Floats, Mask]:
        """What `actions` gives, with latent actions as the chunks of samples `at`."""
        if not len(at):
            return stored, values, has
        assert self.targets is not None  # segments are labelled by it
        body = self.normaliser.embodiments.index(LATENT_BODY)
        first, width = self.window.num_history, self.targets.width
        tokens = slice(first, first + self.targets.num_tokens)
        stored[at] = 0
        for b in at.tolist():
            stored[b, tokens, :width] = self.targets.read(rows[b], int(now[b]))
        has[at] = False
        has[at, tokens, :width] = True
        values[at] = self.normaliser.encode_array(stored[at], np.full(len(at), body)) * has[at]
        return stored, values, has

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
        row = (segments["offset"] - segments["start"])[:, None] + at
        for number in np.unique(segments["part"]).tolist():
            if number < 0:
                continue
            part = self.store.open_part(number)
            b, k = np.nonzero(inside & (segments["part"] == number)[:, None])
            rows, slots = row[b, k], part.slots[None]
            values[b[:, None], k[:, None], slots] = part.values[rows]
            valid[b[:, None], k[:, None], slots] = part.valid[rows]
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
        """[B, P+1, V * N, D] latents as they are read (`LatentShape.read_as`), in the order of `Window.picture_steps`, 0 where there are none, and [B, P+1, V] where there are.

        Raises:
            SourceError: see `batch`.
        """
        at, inside = self.window.pictures(now, segments["start"], segments["end"])
        shape = self.latents.shape
        assert shape is not None
        size = (*at.shape, len(self.cameras), shape.num_patches, shape.width)
        memory = np.empty(size, dtype=f"u{shape.read_as.itemsize}")
        has = np.zeros(size[:3], dtype=bool)
        for b, row in enumerate(rows):
            for v, latent in enumerate(
                latents_of_views(row.latents, self.encoder_id, self.cameras)
            ):
                if latent is not None:
                    has[b, :, v] = inside[b]
                    try:
                        out = at[b], inside[b], memory[b, :, v]
                        patiently(partial(self._read, latent, row, *out))
                    except (ConfigError, OSError, TransientError) as error:
                        raise broken_sample(row, int(now[b]), latent.path, error) from error
        memory[~has] = 0
        pictures = torch.from_numpy(memory).view(shape.read_as)
        return pictures.flatten(2, 3), torch.from_numpy(has)

    def reads(
        self, segments: Records, rows: list[ManifestRow], now: Ints
    ) -> list[tuple[Latent, ManifestRow, list[int]]]:
        """What `pictures` reads: of each view of each sample the file and the timesteps."""
        at, inside = self.window.pictures(now, segments["start"], segments["end"])
        return [
            (latent, row, at[b][inside[b]].tolist())
            for b, row in enumerate(rows)
            for latent in latents_of_views(row.latents, self.encoder_id, self.cameras)
            if latent is not None
        ]

    def _read(self, latent: Latent, row: ManifestRow, at: Ints, inside: Mask, out: Memory) -> None:
        """The pictures of one view of a sample that lie inside its segment. out: [P+1, N, D]."""
        file = self.latents.open(latent, row.uid, row.end)
        places = np.flatnonzero(inside).tolist()
        file.read_all([int(at[p]) for p in places], [out[p] for p in places])
        # One look at all costs less than one at each, where they lie side by side and are all there.
        parts = [out] if len(places) == len(out) else [out[p] for p in places]
        if not all(is_finite(part) for part in parts):
            raise ConfigError("NaN or infinity in the sample", where=latent.path)
