"""A local vision-language model of the Qwen-VL family through `transformers`, without torchvision and without a network.

What it is given is made in `schemas/vlm.py`, for training too.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError
from schemas.vlm import (
    FROM_HERE,
    IMAGE_PAD,
    LOAD_ERRORS,
    WEIGHTS_FROM_HERE,
    Message,
    Picture,
    chat_inputs,
    cut_after,
    instruction_chat,
    refuse_what_is_no_model,
)

__all__ = ["Generated", "LocalVlm", "Message", "Picture"]
Bfloat16Bits = npt.NDArray[np.uint16]  # NumPy has no bfloat16: its bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """`is_whole`: it ended by itself, within the tokens allowed."""

    text: str
    is_whole: bool


class LocalVlm:
    """One model in this process. Calls wait for each other."""

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any) -> None:
        self._model, self._tokenizer, self._images = model, tokenizer, image_processor
        self._lock = threading.Lock()

    @staticmethod
    def load(folder: Path, device: str = "cpu") -> LocalVlm:
        """Weights of a folder (safetensors only: nothing is unpickled, no code of the folder runs, nothing is fetched).

        Raises:
            ConfigError: the `vlm` extra is not installed, no such device, or the folder holds no such model.
        """
        refuse_what_is_no_model(folder)
        try:
            import torch
            from safetensors import SafetensorError

            library: Any = import_module("transformers")  # its types say less than it does
        except ModuleNotFoundError as error:
            problem = f"{error.name} is not installed"
            raise ConfigError(problem, remedy="run pip install 'eicorpus[vlm]'") from error
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError(f"device {device!r}: torch sees no GPU here", remedy="use 'cpu'")
        try:
            tokenizer = library.AutoTokenizer.from_pretrained(str(folder), **FROM_HERE)
            images = library.AutoImageProcessor.from_pretrained(str(folder), **FROM_HERE)
            model = library.AutoModelForImageTextToText.from_pretrained(
                str(folder), **WEIGHTS_FROM_HERE
            )
        except (*LOAD_ERRORS, SafetensorError) as error:
            raise ConfigError(
                f"cannot be loaded: {error}", remedy="download the model again", where=str(folder)
            ) from error
        if tokenizer.convert_tokens_to_ids(IMAGE_PAD) in (None, tokenizer.unk_token_id):
            raise ConfigError(
                f"the tokenizer has no {IMAGE_PAD}; expected a Qwen-VL model",
                remedy="pass the folder of a Qwen-VL model",
                where=str(folder),
            )
        return LocalVlm(model.to(device).eval(), tokenizer, images)

    @staticmethod
    def has_gpu() -> bool:
        """Whether "cuda" is a device here; False without torch too."""
        try:
            import torch
        except ModuleNotFoundError:
            return False
        return torch.cuda.is_available()

    @property
    def width(self) -> int:
        """Of a hidden state."""
        return int(self._model.config.get_text_config().hidden_size)

    @property
    def num_layers(self) -> int:
        """Hidden states are 0, the embedded tokens, to this."""
        return int(self._model.config.get_text_config().num_hidden_layers)

    def keep_for(self, layer: int) -> None:
        """Free the memory of what features of `layer` do not need: of later layers and of the head. Nothing else can be asked of the model then."""
        from torch.nn import Identity

        cut_after(self._model.model, layer % (self.num_layers + 1), Identity())
        self._model.lm_head = Identity()

    def generate(
        self,
        chats: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        temperature: float,
        seed: int,
    ) -> list[Generated]:
        """Continue chats, all of them at once; the same call gives the same texts on the same machine."""
        import torch

        inputs = self._inputs(chats)
        length = inputs["input_ids"].shape[1]
        sampling = (
            {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        )
        with self._lock, torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            try:
                out = self._model.generate(**inputs, max_new_tokens=max_tokens, **sampling)
            except torch.OutOfMemoryError as error:
                raise ConfigError(
                    f"the device's memory is too small for {len(chats)} per batch",
                    remedy="use a smaller `batch` or `sheet.tile_px`",
                ) from error
        ends = self._ends
        return [
            Generated(
                text=self._tokenizer.decode(new, skip_special_tokens=True),
                is_whole=len(new) < max_tokens or not ends.isdisjoint(new.tolist()),
            )
            for new in out[:, length:]
        ]

    def instruction(
        self, prompt: str, text: str, picture: Picture | None, max_tokens: int
    ) -> tuple[Message, ...]:
        """`schemas.vlm.instruction_chat` by this tokenizer."""
        return instruction_chat(self._tokenizer, prompt, text, picture, max_tokens)

    def num_tokens(self, messages: Sequence[Message]) -> int:
        """Of a chat without pictures."""
        inputs = chat_inputs(self._tokenizer, self._images, [messages], padding_side="right")
        return int(inputs["attention_mask"].sum())

    def features(
        self,
        chats: Sequence[Sequence[Message]],
        *,
        layer: int,
        max_picture_tokens: int | None = None,
    ) -> list[Bfloat16Bits]:
        """[T, width] hidden states after `layer` of each chat's own tokens, -1 the last layer, as bits of bfloat16."""
        import torch

        inputs = self._inputs(chats, "right", max_picture_tokens)
        layer %= self.num_layers + 1
        is_last = layer == len(self._model.model.language_model.layers)
        with self._lock, torch.inference_mode():
            try:
                out = self._model.model(**inputs, output_hidden_states=not is_last, use_cache=False)
            except torch.OutOfMemoryError as error:
                raise ConfigError(
                    f"the device's memory is too small for {len(chats)} per batch",
                    remedy="use a smaller --batch",
                ) from error
        hidden = out.last_hidden_state if is_last else out.hidden_states[layer]
        bits = hidden.to(torch.bfloat16).cpu().view(torch.int16).numpy()
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        return [
            each[:length].view(np.uint16).copy() for each, length in zip(bits, lengths, strict=True)
        ]

    @property
    def _ends(self) -> set[int]:
        ends = self._model.generation_config.eos_token_id
        return set(ends) if isinstance(ends, list) else {ends}

    def _inputs(
        self,
        chats: Sequence[Sequence[Message]],
        padding_side: Literal["left", "right"] = "left",
        max_picture_tokens: int | None = None,
    ) -> dict[str, Any]:
        """[B, L] tokens, the shorter chats filled up, and the pixels of all pictures in order."""
        import torch

        chat = chat_inputs(
            self._tokenizer,
            self._images,
            chats,
            padding_side=padding_side,
            max_picture_tokens=max_picture_tokens,
        )
        return {name: torch.from_numpy(x).to(self._model.device) for name, x in chat.items()}
