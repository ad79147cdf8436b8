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
from training.conditioning.inputs import TextInputs, distinct
from training.conditioning.protocol import Conditioner
from training.conditioning.video_frame import picture_of
from training.conditioning.vlm_parts import readers_of, weights_of
from training.model.text import Text, TextLayout, on_device
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

    def read(self, rows: Sequence[ManifestRow], timesteps: npt.NDArray[np.int64]) -> TextInputs:
        """`of` the texts of these rows with the picture of now; a sample without the camera has its text alone."""
        pictures = [self._picture(row, int(now)) for row, now in zip(rows, timesteps, strict=True)]
        return self.of([row.text for row in rows], pictures)

    def of(self, texts: Sequence[str], pictures: Sequence[Picture | None]) -> TextInputs:
        """By text token_ids and has_token [U, T], filled up on the right; with a picture also pixels [U, P, values], grid [U, 3], zeros where there is none.

        Texts without a picture are equal where their letters are; one with a picture is equal to no other.
        """
        keys = [text if pictures[b] is None else b for b, text in enumerate(texts)]
        first, text_of = distinct(keys)
        texts, pictures = [texts[b] for b in first], [pictures[b] for b in first]
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
        by_text = {
            "token_ids": torch.from_numpy(chat["input_ids"]),
            "has_token": torch.from_numpy(chat["attention_mask"]).bool(),
        }
        if "pixel_values" in chat:
            by_text |= _by_text(chat, [picture is not None for picture in pictures])
            by_text["is_picture"] = torch.from_numpy(chat["mm_token_type_ids"])
        lengths = chat["attention_mask"].sum(axis=1).astype(np.int64)
        return TextInputs(layout=TextLayout(num_tokens=lengths, text_of=text_of), by_text=by_text)

    def _picture(self, row: ManifestRow, now: int) -> Picture | None:
        if not self.settings.with_pictures:
            return None
        cameras = sorted({x.camera for x in row.latents if not is_of_text(x.encoder_id)})
        shown = next((c for c in cameras if fnmatchcase(c, self.settings.camera)), None)
        return None if shown is None else picture_of(self.corpus, row, shown, now)


def _by_text(chat: Inputs, has_picture: Sequence[bool]) -> dict[str, Tensor]:
    """Patches of all pictures end to end, as [U, ...]."""
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

    def forward(self, inputs: TextInputs) -> Text:
        (model,) = self._frozen
        by_text = inputs.by_text
        ids, has = by_text["token_ids"], by_text["has_token"]
        if model.device != ids.device:
            model.to(ids.device)
        seen: dict[str, Tensor] = {}
        if "pixels" in by_text and (is_shown := by_text["grid"][:, 0] > 0).any():
            grid, pixels = by_text["grid"], by_text["pixels"]
            place = torch.arange(pixels.shape[1], device=pixels.device)
            seen = {
                "pixel_values": pixels[place < grid.prod(dim=1, keepdim=True)],
                "image_grid_thw": grid[is_shown],
                "mm_token_type_ids": by_text["is_picture"],
            }
        with torch.no_grad(), torch.autocast(ids.device.type, enabled=False):
            arguments = {"input_ids": ids, "attention_mask": has.long(), **seen}
            output = model(**arguments, output_hidden_states=True, use_cache=False)
        values = output.hidden_states[self.layer].to(torch.bfloat16).float()
        is_token = np.arange(ids.shape[1]) < inputs.layout.num_tokens[:, None]
        rows = on_device(np.flatnonzero(is_token), ids.device)
        return Text(values=values.flatten(0, 1).index_select(0, rows), layout=inputs.layout)
