"""What a vision-language model of the Qwen-VL family is given: one definition for everyone who runs one, in NumPy.

`AutoProcessor` cannot be built without torchvision, for its video part alone (transformers 5.23, tried); so the three steps are done here:
the tokenizer's chat template, as many `<|image_pad|>` as the picture has patches after merging (grid t h w / merge^2), and the image
processor's pixels. Same inputs as the processor gives (CODE: huggingface/transformers: models/qwen3_vl/processing_qwen3_vl.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError

IMAGE_PAD = "<|image_pad|>"
TEXT_SLOT = "{text}"  # in a prompt: where the instruction goes
Picture = npt.NDArray[np.uint8]  # [H, W, 3] RGB
Inputs = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Message:
    """`picture` goes before the text."""

    role: Literal["system", "user", "assistant"]
    text: str
    picture: Picture | None = None


def chat_inputs(
    tokenizer: Any,
    image_processor: Any,
    chats: Sequence[Sequence[Message]],
    *,
    padding_side: Literal["left", "right"],
    max_picture_tokens: int | None = None,
) -> Inputs:
    """Arguments of the model's forward pass for B chats, filled up to the longest.

    Args:
        tokenizer, image_processor: of `transformers`.
        padding_side: "left" to go on from the last token.
        max_picture_tokens: a picture is shrunk, its aspect kept, until it has no more. None: as the image processor is set.

    Returns:
        input_ids, attention_mask [B, L]; with a picture also pixel_values [patches, values] and image_grid_thw [pictures, 3] of all pictures in
        order, and mm_token_type_ids [B, L], 1 where a picture is: what the rotary positions go by.
    """
    pictures = [m.picture for messages in chats for m in messages if m.picture is not None]
    seen: Inputs = {}
    pads: list[int] = []
    if pictures:
        size = _size(image_processor, max_picture_tokens)
        processed = image_processor(images=pictures, return_tensors="np", **size)
        seen = {name: np.asarray(processed[name]) for name in ("pixel_values", "image_grid_thw")}
        pads = (seen["image_grid_thw"].prod(axis=1) // image_processor.merge_size**2).tolist()
    counts = iter(pads)
    texts = [_rendered(tokenizer, messages, counts) for messages in chats]
    ids = tokenizer(texts, return_tensors="np", padding=True, padding_side=padding_side)
    inputs = {name: np.asarray(ids[name]) for name in ("input_ids", "attention_mask")} | seen
    if pictures:
        is_picture = inputs["input_ids"] == tokenizer.convert_tokens_to_ids(IMAGE_PAD)
        inputs["mm_token_type_ids"] = is_picture.astype(np.int64)
    return inputs


def instruction_chat(
    tokenizer: Any, prompt: str, text: str, picture: Picture | None, max_tokens: int
) -> tuple[Message, ...]:
    """An instruction as a policy is told it: `prompt` with `text`, of at most `max_tokens` tokens, in the place of `{text}`."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) > max_tokens:
        # a character cut in two decodes to a replacement
        text = tokenizer.decode(ids[:max_tokens], skip_special_tokens=False).rstrip("\ufffd")
    return (Message(role="user", text=prompt.replace(TEXT_SLOT, text), picture=picture),)


def _size(image_processor: Any, max_tokens: int | None) -> dict[str, Any]:
    """The processor counts pixels of the whole picture: `shortest_edge` is the fewest, `longest_edge` the most."""
    if max_tokens is None:
        return {}
    most = max_tokens * (image_processor.patch_size * image_processor.merge_size) ** 2
    fewest = min(int(image_processor.size["shortest_edge"]), most)
    return {"size": {"shortest_edge": fewest, "longest_edge": most}}


def _rendered(tokenizer: Any, messages: Sequence[Message], pads: Iterator[int]) -> str:
    text = tokenizer.apply_chat_template(
        [_template_message(m) for m in messages], tokenize=False, add_generation_prompt=True
    )
    return _padded(text, [next(pads) for m in messages if m.picture is not None])


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
