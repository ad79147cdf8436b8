"""A vision-language model of the Qwen-VL family: which files of its folder may be read, and its chat and image layout in NumPy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError, SourceError, system_error_text
from schemas.json_text import DOCUMENT, read_json

SUFFIX = ".safetensors"
# How `transformers` is asked for anything of it: nothing is fetched, no code of the folder runs, nothing is unpickled.
FROM_HERE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
WEIGHTS_FROM_HERE: dict[str, Any] = FROM_HERE | {
    "use_safetensors": True,
    "attn_implementation": "sdpa",  # a config may name one to download
    "dtype": "auto",
}
# what a damaged or hostile folder was seen to end in
LOAD_ERRORS = (OSError, ValueError, ImportError, KeyError, RuntimeError, TypeError, AttributeError)
# what decides how a text becomes tokens and a picture patches
SETTING_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                 "chat_template.json", "preprocessor_config.json", "special_tokens_map.json",
                 "added_tokens.json", "vocab.json", "merges.txt")  # fmt: skip


def refuse_what_is_no_model(folder: Path) -> None:
    """Raises ConfigError: no model, or one whose weights would have to be unpickled."""
    if not (folder / "config.json").is_file():
        problem = "no config.json"
        raise ConfigError(
            problem, remedy="pass the folder of a downloaded Qwen-VL model", where=str(folder)
        )
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return  # one file, which the library finds by its name
    try:
        names = set(read_json(index, limits=DOCUMENT)["weight_map"].values())
    except (SourceError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"not a safetensors index: {error!r}",
            remedy="download the model again",
            where=str(index),
        ) from error
    for name in names:
        # the library unpickles whatever the index names otherwise
        if not isinstance(name, str) or Path(name).name != name or Path(name).suffix != SUFFIX:
            raise ConfigError(
                f"the index names {str(name)[:80]!r}; expected {SUFFIX} files",
                remedy="download the model again",
                where=str(index),
            )


def model_sha256(folder: Path) -> str:
    """Of the weights and of every file that decides what they are given; all of it is read.

    Raises:
        ConfigError: there are no weights, or something cannot be read.
    """
    sha = hashlib.sha256()
    try:
        weights = sorted(folder.glob(f"*{SUFFIX}"))
        if not weights:
            raise ConfigError(
                f"no {SUFFIX} files",
                remedy="pass the folder of a downloaded model",
                where=str(folder),
            )
        for path in [*weights, *(folder / name for name in SETTING_FILES)]:
            if path.is_file():
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                sha.update(f"{path.name} {digest}\n".encode())
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {system_error_text(error, str(folder))}",
            remedy="check the path and the permissions",
            where=str(folder),
        ) from error
    return sha.hexdigest()


def model_type(folder: Path) -> str:
    """The family by its `config.json`: "qwen3_vl".

    Raises:
        ConfigError: it says none.
    """
    path = folder / "config.json"
    try:
        stated = read_json(path, limits=DOCUMENT)["model_type"]
    except (SourceError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"the file has no model_type ({error!r})",
            remedy="download the model again",
            where=str(path),
        ) from error
    return str(stated)


def cut_after(model: Any, layer: int, identity: Any) -> None:
    """Leave out of a model without its head what comes after hidden state `layer`, which is then its `last_hidden_state`, to the bit.

    Args:
        layer: 0, the embedded tokens, to the number of layers, after which nothing but the final norm comes: it is a part of that hidden state.
        identity: a module that returns what it is given, for the norm where it is no part.
    """
    text, seen = model.language_model, model.visual
    if layer == len(text.layers):
        return
    text.layers, text.norm = text.layers[:layer], identity
    # What the first layers of a Qwen3-VL add of the picture is no part of the hidden state after which it is added.
    if hasattr(seen, "deepstack_visual_indexes"):
        added = max(layer - 1, 0)
        seen.deepstack_visual_indexes = seen.deepstack_visual_indexes[:added]
        seen.deepstack_merger_list = seen.deepstack_merger_list[:added]


IMAGE_PAD = "<|image_pad|>"
MAX_ASPECT = 50  # a stripe is no picture, and encoders that keep the aspect end in an error at 200
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
    """An instruction as a policy receives it: `prompt` with `text`, of at most `max_tokens` tokens, in the place of `{text}`."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) > max_tokens:
        # a character cut in two decodes to a replacement
        text = tokenizer.decode(ids[:max_tokens], skip_special_tokens=False).rstrip("\ufffd")
    return (Message(role="user", text=prompt.replace(TEXT_SLOT, text), picture=picture),)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conversation:
    """One chat whose answers are to be predicted. token_ids: [L]; is_answer: [L] bool, the tokens of the assistant and the end of its turn.

    With a picture also pixels [patches, values], grid [3], and is_picture [L] as in `chat_inputs`.
    """

    token_ids: npt.NDArray[np.int64]
    is_answer: npt.NDArray[np.bool_]
    is_picture: npt.NDArray[np.bool_]
    pixels: npt.NDArray[np.float32] | None
    grid: npt.NDArray[np.int64] | None


def conversation_of(
    tokenizer: Any, image_processor: Any, messages: Sequence[Message], *, max_picture_tokens: int
) -> Conversation:
    """
    Args:
        tokenizer: a fast one of `transformers`, which says where in the text a token lies.
        messages: of which those of the assistant are answers; one picture at most.

    Raises:
        ConfigError: the chat template does not write a conversation turn after turn.
    """
    pictures = [m.picture for m in messages if m.picture is not None]
    pixels = grid = None
    pads: list[int] = []
    if pictures:
        size = _size(image_processor, max_picture_tokens)
        processed = image_processor(images=pictures, return_tensors="np", **size)
        pixels, grids = (np.asarray(processed[n]) for n in ("pixel_values", "image_grid_thw"))
        grid = grids[0]
        pads = [int(grid.prod()) // image_processor.merge_size**2]

    def written(num: int, *, asks: bool) -> str:
        return _rendered(tokenizer, messages[:num], iter(pads), asks=asks)

    text = written(len(messages), asks=False)
    spans = []
    for turn, message in enumerate(messages):
        if message.role != "assistant":
            continue
        before, after = written(turn, asks=True), written(turn + 1, asks=False)
        if not (text.startswith(after) and after.startswith(before)):
            problem = "the chat template does not write a conversation turn after turn"
            raise ConfigError(problem, remedy="use a Qwen-VL model that is not a thinking one")
        spans.append((len(before), len(after.rstrip())))
    ids = tokenizer(text, return_offsets_mapping=True, return_tensors="np")
    first, last = np.asarray(ids["offset_mapping"])[0].T
    token_ids = np.asarray(ids["input_ids"], dtype=np.int64)[0]
    is_answer = np.zeros(len(token_ids), dtype=bool)
    for start, end in spans:
        is_answer |= (first >= start) & (last <= end) & (last > first)
    is_picture = token_ids == tokenizer.convert_tokens_to_ids(IMAGE_PAD)
    return Conversation(
        token_ids=token_ids, is_answer=is_answer, is_picture=is_picture, pixels=pixels, grid=grid
    )


def _size(image_processor: Any, max_tokens: int | None) -> dict[str, Any]:
    """The processor counts pixels of the whole picture: `shortest_edge` is the fewest, `longest_edge` the most."""
    if max_tokens is None:
        return {}
    most = max_tokens * (image_processor.patch_size * image_processor.merge_size) ** 2
    fewest = min(int(image_processor.size["shortest_edge"]), most)
    return {"size": {"shortest_edge": fewest, "longest_edge": most}}


def _rendered(
    tokenizer: Any, messages: Sequence[Message], pads: Iterator[int], *, asks: bool = True
) -> str:
    """`asks`: for an answer, after the last message."""
    text = tokenizer.apply_chat_template(
        [_template_message(m) for m in messages], tokenize=False, add_generation_prompt=asks
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
        raise ConfigError(
            f"the chat template has a placeholder for {len(parts) - 1} of {len(pads)} images"
        )
    out = parts[0]
    for count, part in zip(pads, parts[1:], strict=True):
        out += IMAGE_PAD * int(count) + part
    return out
