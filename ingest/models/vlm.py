"""A local vision-language model of the Qwen-VL family through `transformers`, without torchvision and without a network.

`AutoProcessor` cannot be built without torchvision, for its video part alone (transformers 5.23, tried); so the three steps are done here:
the tokenizer's chat template, as many `<|image_pad|>` as the picture has patches after merging (grid t h w / merge^2), and the image
processor's pixels. Same inputs as the processor gives (CODE: huggingface/transformers: models/qwen3_vl/processing_qwen3_vl.py).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError

IMAGE_PAD = "<|image_pad|>"
SUFFIX = ".safetensors"
# what a damaged or hostile folder was seen to end in
_LOAD_ERRORS = (OSError, ValueError, ImportError, KeyError, RuntimeError, TypeError, AttributeError)
Picture = npt.NDArray[np.uint8]  # [H, W, 3] RGB


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Message:
    """`picture` goes before the text."""

    role: Literal["system", "user", "assistant"]
    text: str
    picture: Picture | None = None


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
        _refuse_what_is_no_model(folder)
        try:
            import torch
            from safetensors import SafetensorError

            library: Any = import_module("transformers")  # its types say less than it does
        except ModuleNotFoundError as error:
            found = f"{error.name} is not installed; a local model needs the extra: pip install 'eicorpus[vlm]'"
            raise ConfigError(found) from error
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError(f"device {device!r}: torch sees no GPU here; use 'cpu'")
        here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = library.AutoTokenizer.from_pretrained(str(folder), **here)
            images = library.AutoImageProcessor.from_pretrained(str(folder), **here)
            model = library.AutoModelForImageTextToText.from_pretrained(
                str(folder),
                use_safetensors=True,
                dtype="auto",
                attn_implementation="sdpa",  # a config may name one to download
                **here,
            )
        except (*_LOAD_ERRORS, SafetensorError) as error:
            raise ConfigError(f"cannot be loaded: {error}", where=str(folder)) from error
        if tokenizer.convert_tokens_to_ids(IMAGE_PAD) in (None, tokenizer.unk_token_id):
            raise ConfigError(f"its tokenizer has no {IMAGE_PAD}: not Qwen-VL", where=str(folder))
        return LocalVlm(model.to(device).eval(), tokenizer, images)

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
                    f"the device's memory does not hold {len(chats)} at once; a smaller `batch` or `sheet.tile_px` does"
                ) from error
        ends = self._ends
        return [
            Generated(
                text=self._tokenizer.decode(new, skip_special_tokens=True),
                is_whole=len(new) < max_tokens or not ends.isdisjoint(new.tolist()),
            )
            for new in out[:, length:]
        ]

    @property
    def _ends(self) -> set[int]:
        ends = self._model.generation_config.eos_token_id
        return set(ends) if isinstance(ends, list) else {ends}

    def _inputs(self, chats: Sequence[Sequence[Message]]) -> dict[str, Any]:
        """[B, L] tokens, the shorter chats filled up on their left, and the pixels of all pictures in order."""
        import torch

        pictures = [m.picture for messages in chats for m in messages if m.picture is not None]
        seen: dict[str, Any] = {}
        pads: list[int] = []
        if pictures:
            found = self._images(images=pictures, return_tensors="pt")
            seen = {name: found[name] for name in ("pixel_values", "image_grid_thw")}
            pads = (seen["image_grid_thw"].prod(dim=1) // self._images.merge_size**2).tolist()
        counts = iter(pads)
        texts = [self._text(messages, counts) for messages in chats]
        ids = self._tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
        pad_id = self._tokenizer.convert_tokens_to_ids(IMAGE_PAD)
        # 1 where a picture is, 0 where text is: what the rotary positions go by
        kinds = (ids["input_ids"] == pad_id).to(torch.int64)
        inputs = {"input_ids": ids["input_ids"], "attention_mask": ids["attention_mask"], **seen}
        if pictures:
            inputs["mm_token_type_ids"] = kinds
        return {name: value.to(self._model.device) for name, value in inputs.items()}

    def _text(self, messages: Sequence[Message], pads: Iterator[int]) -> str:
        text = self._tokenizer.apply_chat_template(
            [_template_message(m) for m in messages], tokenize=False, add_generation_prompt=True
        )
        return _padded(text, [next(pads) for m in messages if m.picture is not None])


def _refuse_what_is_no_model(folder: Path) -> None:
    """Raises ConfigError: no model, or one whose weights would have to be unpickled."""
    if not (folder / "config.json").is_file():
        found = "no config.json; give the folder of a downloaded Qwen-VL model"
        raise ConfigError(found, where=str(folder))
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return  # one file, which the library finds by its name
    try:
        names = set(json.loads(index.read_text())["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"no index of weights: {error!r}", where=str(index)) from error
    for name in names:
        # the library unpickles whatever the index names otherwise
        if not isinstance(name, str) or Path(name).name != name or Path(name).suffix != SUFFIX:
            raise ConfigError(
                f"names {str(name)[:80]!r}; expected {SUFFIX} files", where=str(index)
            )


def _template_message(message: Message) -> dict[str, Any]:
    # a stranger's text must not bring picture tokens of its own
    text = {"type": "text", "text": message.text.replace("<|", "< |")}
    picture = [{"type": "image"}] if message.picture is not None else []
    return {"role": message.role, "content": [*picture, text]}


def _padded(text: str, pads: Sequence[int]) -> str:
    """Each picture's one placeholder, as many times as it has patches."""
    parts = text.split(IMAGE_PAD)
    if len(parts) != len(pads) + 1:
        raise ConfigError(f"the chat template shows {len(parts) - 1} of {len(pads)} pictures")
    out = parts[0]
    for count, part in zip(pads, parts[1:], strict=True):
        out += IMAGE_PAD * int(count) + part
    return out
