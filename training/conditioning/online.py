"""A Qwen3-VL in the step: the reader makes its inputs, the conditioner runs it once a batch, whatever the number of draws.

What of it is frozen is no part of the module's parameters, so it is in no checkpoint, no optimiser and no gradient bucket, and every rank holds
all of it. Layers that are trained (`text.train_last`) are parameters in fp32, as those of the network are.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from schemas.errors import ConfigError
from schemas.manifest import ManifestRow
from schemas.text_features import is_of_text
from schemas.vlm import Inputs, Picture, chat_inputs, cut_after, instruction_chat
from training.conditioning.inputs import TextInputs, distinct
from training.conditioning.protocol import Conditioner
from training.conditioning.video_frame import picture_of
from training.conditioning.vlm_parts import readers_of, weights_of
from training.model.text import Text, TextLayout, on_device
from training.recipe import OnlineText

AT_ONCE = 1024  # tokens of answers: their logits over 151,936 words are 0.6 GB in fp32


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
    """Hidden states of a layer. Of a model that is frozen as a whole they are rounded to bfloat16, as `eicorpus latents text` stores them."""

    def __init__(
        self, folder: Path, layer: int, train_last: int = 0, *, has_answers: bool = False
    ) -> None:
        """
        Args:
            train_last: layers before that hidden state that are trained.
            has_answers: `answer_loss` will be asked for, which needs the whole model; without it, what comes after `layer` is left out.

        Raises:
            ConfigError: there is no such model, hidden state, or number of layers.
        """
        super().__init__()
        whole = weights_of(folder)
        config = whole.config.get_text_config()
        self.num_layers = int(config.num_hidden_layers)
        if not -self.num_layers - 1 <= layer <= self.num_layers:
            problem = f"layer {layer}; expected 0 to {self.num_layers}, or -1 for the last layer"
            raise ConfigError(problem, where="text.layer")
        last = layer % (self.num_layers + 1)
        if train_last > last:
            problem = f"{train_last} layers; the hidden state {last} of text.layer has {last} layers before it"
            raise ConfigError(problem, remedy="set fewer", where="text.train_last")
        self.width = int(config.hidden_size)
        if not has_answers:
            cut_after(whole.model, last, nn.Identity())
        # None: the last hidden state of what is left of the model.
        self._inner = None if last == len(whole.model.language_model.layers) else last
        # By their number in the model, so that a checkpoint names them alike however many are trained.
        self.layers = nn.ModuleDict(
            {
                str(number): whole.model.language_model.layers[number].float().requires_grad_()
                for number in range(last - train_last, last)
            }
        )
        # In lists, so that torch does not count them as parts.
        self._frozen = [whole.model]
        self._head = [whole.lm_head] if has_answers else []

    @property
    def tuned_layers(self) -> list[nn.Module]:
        return list(self.layers.values())

    @property
    def frozen_bytes(self) -> int:
        modules = nn.ModuleList([*self._frozen, *self._head])
        return sum(p.nbytes for p in modules.parameters() if not p.requires_grad)

    def forward(self, inputs: TextInputs) -> Text:
        if self._inner is None:
            hidden = self._run(inputs.by_text).last_hidden_state
        else:
            every = self._run(inputs.by_text, output_hidden_states=True).hidden_states
            hidden = every[self._inner]
        if not self.layers:
            hidden = hidden.to(torch.bfloat16)
        is_token = np.arange(hidden.shape[1]) < inputs.layout.num_tokens[:, None]
        rows = on_device(np.flatnonzero(is_token), hidden.device)
        values = hidden.float().flatten(0, 1).index_select(0, rows)
        return Text(values=values, layout=inputs.layout)

    def answer_loss(self, inputs: dict[str, Tensor]) -> Tensor:
        """A few tokens at a time, whose logits are computed again in the backward pass: those of all would take gigabytes."""
        (head,) = self._head
        if head.weight.device != inputs["token_ids"].device:
            head.to(inputs["token_ids"].device)
        hidden = self._run(inputs).last_hidden_state[:, :-1]
        is_target = inputs["is_target"][:, 1:]
        hidden, targets = hidden[is_target], inputs["token_ids"][:, 1:][is_target]
        total: Tensor = hidden.new_zeros((), dtype=torch.float32)
        for at in range(0, len(targets), AT_ONCE):
            few = hidden[at : at + AT_ONCE], targets[at : at + AT_ONCE]
            total = total + checkpoint(_negative_log_likelihood, head, *few, use_reentrant=False)
        return total

    def _run(self, by_text: dict[str, Tensor], **more: Any) -> Any:
        """What the model makes of them. Autograd keeps nothing before the first layer that is trained: nothing there needs a gradient."""
        (model,) = self._frozen
        ids, has = by_text["token_ids"], by_text["has_token"]
        if model.device != ids.device:
            model.to(ids.device)
        shown: dict[str, Tensor] = {}
        if "pixels" in by_text and (is_shown := by_text["grid"][:, 0] > 0).any():
            grid, pixels = by_text["grid"], by_text["pixels"]
            place = torch.arange(pixels.shape[1], device=pixels.device)
            shown = {
                "pixel_values": pixels[place < grid.prod(dim=1, keepdim=True)],
                "image_grid_thw": grid[is_shown],
                "mm_token_type_ids": by_text["is_picture"],
            }
        arguments = {"input_ids": ids, "attention_mask": has.long(), **shown, **more}
        with nullcontext() if self.layers else _frozen_run(ids.device.type):
            return model(**arguments, use_cache=False)


@contextmanager
def _frozen_run(kind: str) -> Iterator[None]:
    """For a model that is frozen: in the type of its weights, and nothing is kept."""
    with torch.no_grad(), torch.autocast(kind, enabled=False):
        yield


def _negative_log_likelihood(head: nn.Module, hidden: Tensor, ids: Tensor) -> Tensor:
    weight: Any = head.weight
    logits: Tensor = head(hidden.to(weight.dtype))
    return cross_entropy(logits.float(), ids, reduction="sum")
