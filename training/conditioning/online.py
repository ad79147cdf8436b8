"""A frozen Qwen3-VL in the step: the reader makes its inputs, the conditioner runs it once a batch, whatever the number of draws.

The model is frozen as a whole; training parts of it is not offered. It is no part of the module's parameters, so it is in no checkpoint,
no optimiser and no gradient bucket, and every rank holds all of it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from schemas.errors import ConfigError
from schemas.manifest import ManifestRow
from schemas.text_features import is_of_text
from schemas.vlm import Inputs, Picture, chat_inputs, instruction_chat
from training.conditioning.protocol import Conditioner
from training.conditioning.video_frame import picture_of
from training.conditioning.vlm_parts import readers_of, weights_of
from training.model.network import Text
from training.recipe import OnlineText


@dataclass(kw_only=True, eq=False)
class OnlineReader:
    """Tokens and pixels. `folder`: of the model."""

    corpus: Path
    folder: Path
    settings: OnlineText
    _own: threading.local = field(
        default_factory=threading.local, repr=False
    )  # a tokenizer keeps state of padding

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker loads its own."""
        opener = partial(
            OnlineReader, corpus=self.corpus, folder=self.folder, settings=self.settings
        )
        return opener, ()

    def read(
        self, rows: Sequence[ManifestRow], timesteps: npt.NDArray[np.int64]
    ) -> dict[str, Tensor]:
        """`of` the texts of these rows with the picture of now; a sample without the camera has its text alone."""
        pictures = [self._picture(row, int(now)) for row, now in zip(rows, timesteps, strict=True)]
        return self.of([row.text for row in rows], pictures)

    def of(self, texts: Sequence[str], pictures: Sequence[Picture | None]) -> dict[str, Tensor]:
        """token_ids and has_token [B, T], filled up on the right; with a picture also pixels [B, P, values], grid [B, 3], zeros where there is none."""
        if getattr(self._own, "parts", None) is None:
            self._own.parts = readers_of(self.folder)
        s, (tokenizer, images) = self.settings, self._own.parts
        chat = chat_inputs(
            tokenizer,
            images,
            [
                instruction_chat(tokenizer, s.prompt, text, picture, s.max_tokens)
                for text, picture in zip(texts, pictures, strict=True)
            ],
            padding_side="right",
            max_picture_tokens=s.max_picture_tokens,
        )
        inputs = {
            "token_ids": torch.from_numpy(chat["input_ids"]),
            "has_token": torch.from_numpy(chat["attention_mask"]).bool(),
        }
        if "pixel_values" in chat:
            inputs |= _by_sample(chat, [picture is not None for picture in pictures])
            inputs["is_picture"] = torch.from_numpy(chat["mm_token_type_ids"])
        return inputs

    def _picture(self, row: ManifestRow, now: int) -> Picture | None:
        if not self.settings.with_pictures:
            return None
        cameras = sorted({x.camera for x in row.latents if not is_of_text(x.encoder_id)})
        shown = next((c for c in cameras if fnmatchcase(c, self.settings.camera)), None)
        return None if shown is None else picture_of(self.corpus, row, shown, now)


def _by_sample(chat: Inputs, has_picture: Sequence[bool]) -> dict[str, Tensor]:
    """Patches of all pictures end to end, as [B, ...]."""
    grids = torch.from_numpy(chat["image_grid_thw"])
    counts = grids.prod(dim=1).tolist()
    pixels = torch.from_numpy(chat["pixel_values"])
    out = pixels.new_zeros(len(has_picture), max(counts), pixels.shape[1])
    grid = grids.new_zeros(len(has_picture), 3)
    at = [b for b, has in enumerate(has_picture) if has]
    for b, patches, each in zip(at, torch.split(pixels, counts), grids, strict=True):
        out[b, : len(patches)], grid[b] = patches, each
    return {"pixels": out, "grid": grid}


class OnlineConditioner(Conditioner):
    """Hidden states of a layer, rounded to bfloat16 as `eicorpus latents text` stores them."""

    def __init__(self, folder: Path, layer: int) -> None:
        super().__init__()
        model = weights_of(folder)
        config = model.config.get_text_config()
        if not -config.num_hidden_layers - 1 <= layer <= config.num_hidden_layers:
            problem = (
                f"layer {layer}; expected 0 to {config.num_hidden_layers}, or -1 for the last layer"
            )
            raise ConfigError(problem, where="text.layer")
        self.width, self.layer = int(config.hidden_size), layer
        self.num_layers = int(config.num_hidden_layers)
        self._frozen = [model]  # in a list, so that torch does not count it as a part

    def forward(self, inputs: dict[str, Tensor]) -> Text:
        (model,) = self._frozen
        ids, has = inputs["token_ids"], inputs["has_token"]
        if model.device != ids.device:
            model.to(ids.device)
        seen: dict[str, Tensor] = {}
        if "pixels" in inputs and (is_shown := inputs["grid"][:, 0] > 0).any():
            grid, pixels = inputs["grid"], inputs["pixels"]
            place = torch.arange(pixels.shape[1], device=pixels.device)
            seen = {
                "pixel_values": pixels[place < grid.prod(dim=1, keepdim=True)],
                "image_grid_thw": grid[is_shown],
                "mm_token_type_ids": inputs["is_picture"],
            }
        with torch.no_grad(), torch.autocast(ids.device.type, enabled=False):
            arguments = {"input_ids": ids, "attention_mask": has.long(), **seen}
            output = model(**arguments, output_hidden_states=True, use_cache=False)
        values = output.hidden_states[self.layer].to(torch.bfloat16).float()
        return Text(values=values, has=has)

    def num_tokens(self, inputs: dict[str, Tensor]) -> Tensor:
        return inputs["has_token"].sum()
