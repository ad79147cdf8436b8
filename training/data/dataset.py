"""A manifest as a `torch.utils.data.Dataset`, for a training loop of one's own: samples as `eicorpus train` makes them, without its order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from schemas.manifest import load
from schemas.supervision import Task
from training.conditioning.hashed_words import NoTextReader
from training.data.loader import Loader
from training.data.routing import RoutingSettings
from training.data.sampler import Drawn
from training.data.windows import BIT, from_bits
from training.recipe import DataSettings, TrainRecipe
from training.tasks import INDEX


class ManifestDataset(Dataset[dict[str, Any]]):
    """Every timestep of a split at which a sample can begin, once and in order. Safe in workers of a `DataLoader`.

    A sample is a dict; `torch.utils.data.default_collate` makes batches of it. K = `data.num_actions`, H = `data.num_history`, P = len(`data.past_s`), V =
    len(`data.cameras`) views of N tokens with D channels, 172 action elements (`training/data/action_layout.py`, `slot_names`).

    | key | shape, type | what |
    |---|---|---|
    | past | [P, V * N, D] float32 | latents of the pictures at `data.past_s`, the last one of now; 0 where there is none |
    | has_past | [P, V] bool | which of them there are |
    | future, has_future | [V * N, D] float32, [V] bool | the picture at `data.future_s` |
    | action | [K, 172] float32 | normalised by the manifest's statistics; 0 where there is none |
    | action_stored | [K, 172] float32 | the same in metres, radians (rotation vectors in the frame of the body), fractions of opening |
    | has_action | [K, 172] bool | which elements were recorded and are valid; row j is reached (j + 1) / rate_hz after now |
    | history, has_history | [H, 172] | normalised actions before now |
    | embodiment | int | its number in `embodiments`; `latent_action` where `action` is a latent action of video (`data.latent_actions`) |
    | may | [4] bool | which of `training.tasks.TASKS` it may be trained on: what its tier allows and the window can serve |
    | weight | float | of its segment in the manifest: what a mixture says of it |
    | text, uid, timestep | str, str, int | instruction, episode, and which timestep of it is now |
    """

    def __init__(
        self,
        folder: Path,
        *,
        split: str = "train",
        data: DataSettings | None = None,
        cache: Path | None = None,
    ) -> None:
        """
        Args:
            folder: CORPUS/manifests/NAME. data: windows, cameras and normalisation; default as in a recipe. cache: where derived actions are kept; default in
                the corpus.

        Raises:
            ConfigError: the manifest, its latents or its statistics do not fit, or no sample is left.
        """
        recipe = TrainRecipe(
            name="dataset", data=data or DataSettings(), routing=RoutingSettings(min_per_batch=0)
        )
        loader = Loader(load(folder), recipe, reader=NoTextReader(), split=split, cache=cache)
        self.embodiments, self.rate_hz = loader.embodiments, loader.window.rate_hz
        self._anchors = loader.anchors
        self._source = loader.stored_source

    def __len__(self) -> int:
        return len(self._anchors.timestep)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """
        Raises:
            IndexError: there is no such sample.
            SourceError: it cannot be read; the message has its file, episode and timestep.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} is out of range; the dataset has {len(self)}")
        at = np.array([index % len(self)])
        segment = np.searchsorted(self._anchors.segments["first"], at, side="right") - 1
        now = np.asarray(self._anchors.timestep[at], dtype=np.int64)
        segments = self._anchors.segments[segment]
        may = segments["may"] | segments["is_labelled"] * BIT[Task.POLICY]
        can = from_bits(np.asarray(self._anchors.serves[at] & may, dtype=np.uint8))
        # The task decides what is read in one case only: the policy's chunks of video are its latent actions, which not every timestep has.
        is_policy = can[0, INDEX[Task.POLICY]]
        task = np.full(1, INDEX[Task.POLICY if is_policy else Task.VISUAL_FORECASTING])
        batch = self._source.load(Drawn(segment=segment, now=now, task=task))
        assert batch.stored is not None
        (row,) = self._anchors.rows(batch.origin.row)
        return {
            "past": batch.known.past[0].float(),
            "has_past": batch.known.has_past[0],
            "future": batch.future[0].float(),
            "has_future": batch.has_future[0],
            "action": batch.action[0],
            "action_stored": batch.stored[0],
            "has_action": batch.has_action[0],
            "history": batch.known.history[0],
            "has_history": batch.known.has_history[0],
            "embodiment": int(batch.known.embodiment[0]),
            "may": can[0],
            "weight": float(segments["weight"][0]),
            "text": row.text,
            "uid": row.uid,
            "timestep": int(now[0]),
        }
