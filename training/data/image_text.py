"""Image-text pairs beside the robot's samples: a JSONL file, a pair in each line, and images in a folder.

A line has `prompt` and `answer`, or `conversations` as LLaVA writes them (turns `{"from": "human" | "gpt", "value": ...}`), and may have `image`, a
path below the folder. It is shown before the first prompt, wherever that has `<image>`. Other keys are passed over.

The pairs of a step are a function of (seed, step): all lines once an epoch, in an order of that epoch. A pair that cannot be read is replaced and
recorded as a sample of the robot is (`replaced.py`). Its places come after those of the global batch.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from schemas.av_options import MAX_PIXELS
from schemas.document import DocumentError
from schemas.errors import Code, ConfigError, SourceError, TransientError
from schemas.json_text import JsonLimits, parse_json
from schemas.paths import within
from schemas.regular_file import lines_of_regular, open_regular, read_regular
from schemas.vlm import MAX_ASPECT, Conversation, Message, Picture, conversation_of
from training.batch import Batch
from training.conditioning.vlm_parts import readers_of
from training.data.broken import BadSample, patiently
from training.data.replaced import Attempts, with_repair
from training.data.rng_keys import Purpose, key_of, permuted
from training.recipe import ImageTextSettings

TASK = "image_text"  # of a `BadSample`
LINE = JsonLimits(max_bytes=1 << 20, max_elements=10_000)
MAX_FILE_BYTES = 1 << 37
MAX_IMAGE_BYTES = 64 << 20
FORMATS = ("JPEG", "PNG", "WEBP")
PLACEHOLDER = "<image>"
_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}
# what Pillow was seen to raise on damaged files
_NO_IMAGE = (OSError, ValueError, SyntaxError, struct.error, EOFError)


class _Turn(BaseModel):
    model_config = ConfigDict(frozen=True)
    role: Literal["system", "human", "user", "gpt", "assistant"] = Field(alias="from")
    value: str


class _Pair(BaseModel):
    model_config = ConfigDict(frozen=True)
    image: str | None = None
    prompt: str
    answer: str = Field(min_length=1)

    @property
    def turns(self) -> tuple[tuple[str, str], ...]:
        return (("user", self.prompt), ("gpt", self.answer))


class _Chat(BaseModel):
    model_config = ConfigDict(frozen=True)
    image: str | None = None
    conversations: Annotated[tuple[_Turn, ...], Field(min_length=2)]

    @property
    def turns(self) -> tuple[tuple[str, str], ...]:
        return tuple((turn.role, turn.value) for turn in self.conversations)


_LINE_OF: TypeAdapter[_Pair | _Chat] = TypeAdapter(_Pair | _Chat)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageTextFile:
    """Where its lines begin, [N + 1] with the end of the file, and the digest of all of it: text is read when it is drawn."""

    data: Path
    images: Path
    starts: np.ndarray[Any, np.dtype[np.int64]]
    sha256: str

    def __len__(self) -> int:
        return len(self.starts) - 1

    def messages(self, number: int) -> tuple[Message, ...]:
        """
        Args:
            number: of a line, from 0.

        Raises:
            SourceError: it is no pair, or its image is no image, too large, or outside of the folder.
            TransientError, OSError: the machine cannot read now.
        """
        where = f"{self.data.name}, line {number + 1}"
        start, end = self.starts[number : number + 2].tolist()
        with open_regular(self.data) as file:
            file.seek(start)
            line = file.read(end - start)
        try:
            pair = _LINE_OF.validate_python(parse_json(line, limits=LINE))
        except DocumentError as error:
            raise SourceError(Code.UNREADABLE, f"broken sample: {error}", where=where) from error
        except ValidationError as error:
            expected = "expected prompt and answer, or conversations"
            raise SourceError(
                Code.UNREADABLE, f"broken sample: not a pair; {expected}", where=where
            ) from error
        turns = [(_ROLES[role], text) for role, text in pair.turns]
        num_marks = sum(text.count(PLACEHOLDER) for _, text in turns)
        if num_marks > (pair.image is not None) or turns[-1][0] != "assistant":
            problem = f"broken sample: {num_marks} places for an image and {int(pair.image is not None)} images; a conversation has one at most and ends with an answer"
            raise SourceError(Code.UNREADABLE, problem, where=where)
        picture = None if pair.image is None else self._picture(pair.image, where)
        first = next((i for i, (role, _) in enumerate(turns) if role == "user"), 0)
        return tuple(
            Message(
                role=role,
                text=text.replace(PLACEHOLDER, "").strip(),
                picture=picture if i == first else None,
            )
            for i, (role, text) in enumerate(turns)
        )

    def _picture(self, name: str, where: str) -> Picture:
        try:
            data = read_regular(within(self.images, name), max_bytes=MAX_IMAGE_BYTES, where=name)
            return decoded(data)
        except (ConfigError, SourceError) as error:
            problem = f"broken sample: image {name[:200]!r}: {error.message}"
            raise SourceError(Code.UNREADABLE, problem, where=where) from error


def open_image_text(settings: ImageTextSettings) -> ImageTextFile:
    """Read the file once.

    Raises:
        ConfigError: it or the folder of images is not there, it has no line, or one that is too long.
    """
    path = Path(settings.data)
    images = path.parent if settings.images is None else Path(settings.images)
    if not images.is_dir():
        raise ConfigError("not a folder", where=f"image_text.images {images}")
    digest, starts, at = hashlib.sha256(), array("q"), 0
    try:
        for line in lines_of_regular(
            path, max_bytes=MAX_FILE_BYTES, max_line_bytes=LINE.max_bytes, where=str(path)
        ):
            digest.update(line)
            if line.strip():
                starts.append(at)
            at += len(line)
    except (SourceError, TransientError) as error:
        remedy = "pass a JSONL file, a pair in each line (docs/concepts/conditioning.md)"
        raise ConfigError(
            f"cannot be read ({error.message})", remedy=remedy, where=f"image_text.data {path}"
        ) from error
    if not starts:
        raise ConfigError("no pairs", where=f"image_text.data {path}")
    starts.append(at)
    return ImageTextFile(
        data=path, images=images, starts=np.array(starts), sha256=digest.hexdigest()
    )


def decoded(data: bytes) -> Picture:
    """[H, W, 3] RGB of a JPEG, PNG or WebP file, turned as its metadata says.

    Raises:
        SourceError: it is none, or has too many pixels, which is known before they are decoded.
    """
    from PIL import Image, ImageOps  # of the extra that the language model needs

    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS or max(width, height) > MAX_ASPECT * min(width, height):
                problem = f"{width} x {height} pixels; expected at most {MAX_PIXELS} and an aspect ratio of at most {MAX_ASPECT}"
                raise SourceError(Code.TOO_LARGE, problem)
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"), dtype=np.uint8)
    except (*_NO_IMAGE, Image.DecompressionBombError) as error:
        raise SourceError(Code.UNREADABLE, f"not an image ({error})") from error


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageTextSource:
    """This rank's part of the pairs of every step. Safe to call from several threads.

    folder: of the model. seed, batch_size: of the recipe, whose places come first. max_bad, was_replaced: as those of `Replacer`.
    """

    file: ImageTextFile
    settings: ImageTextSettings
    folder: Path
    seed: int
    batch_size: int
    max_bad: int = 0
    rank: int = 0
    world_size: int = 1
    was_replaced: Attempts = field(default_factory=dict)
    _own: threading.local = field(
        default_factory=threading.local, repr=False
    )  # a tokenizer keeps state of padding

    def __post_init__(self) -> None:
        """
        Raises:
            ConfigError: ranks would have different numbers of pairs.
        """
        if self.settings.batch_size % self.world_size:
            problem = (
                f"{self.settings.batch_size} pairs are not divisible by {self.world_size} ranks"
            )
            remedy = "set image_text.batch_size to a multiple of the number of ranks"
            raise ConfigError(problem, remedy=remedy, where="recipe key image_text.batch_size")

    def __reduce__(self) -> tuple[Any, ...]:
        """A process loads its own tokenizer."""
        settings = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "_own"}
        return partial(ImageTextSource, **settings), ()

    def line(self, step: int, number: int, attempt: int) -> int:
        """The line of pair `number` of a step, in place of `attempt` others that cannot be read."""
        if attempt:
            return int(key_of(self.seed, Purpose.REDRAWN_PAIR, step, number, attempt)) % len(
                self.file
            )
        done = step // self.settings.every * self.settings.batch_size + number
        epoch, place = divmod(done, len(self.file))
        order = key_of(self.seed, Purpose.PAIR_ORDER, epoch)
        return int(permuted(order, np.array([place]), len(self.file))[0])

    def beside(self, batch: Batch, step: int) -> Batch:
        """The batch of a step with its pairs, where the step has any.

        Raises:
            SourceError: more pairs cannot be read than may be.
        """
        if not self.settings.is_due(step):
            return batch
        share = self.settings.batch_size // self.world_size
        first = self.rank * share
        bad: list[BadSample] = []
        pairs = [self._pair(step, number, bad) for number in range(first, first + share)]
        return replace(batch, image_text=collated(pairs), replaced=(*batch.replaced, *bad))

    def _pair(self, step: int, number: int, bad: list[BadSample]) -> Conversation:
        place = self.batch_size + number
        attempt = self.was_replaced.get((step, place), 0)
        while True:
            line = self.line(step, number, attempt)
            try:
                return self._conversation(line)
            except SourceError as error:
                bad.append(
                    BadSample(
                        step=step,
                        place=place,
                        attempt=attempt,
                        task=TASK,
                        uid=self.file.data.name,
                        row=line + 1,
                        timestep=0,
                        error=str(error),
                    )
                )
                if len(bad) > self.max_bad:
                    raise with_repair(error, self.max_bad) from error
            attempt += 1

    def _conversation(self, line: int) -> Conversation:
        if getattr(self._own, "parts", None) is None:
            self._own.parts = readers_of(self.folder)
        try:
            messages = patiently(partial(self.file.messages, line))
        except (OSError, TransientError) as error:
            where = f"{self.file.data.name}, line {line + 1}"
            raise SourceError(Code.UNREADABLE, f"broken sample: {error}", where=where) from error
        tokenizer, images = self._own.parts
        most, most_of_picture = self.settings.max_tokens, self.settings.max_picture_tokens
        whole = conversation_of(tokenizer, images, messages, max_picture_tokens=most_of_picture)
        if whole.is_picture[most:].any() or not whole.is_answer[1:most].any():
            problem = f"broken sample: no answer within {most} tokens (image_text.max_tokens)"
            raise SourceError(
                Code.UNREADABLE, problem, where=f"{self.file.data.name}, line {line + 1}"
            )
        return replace(
            whole,
            token_ids=whole.token_ids[:most],
            is_answer=whole.is_answer[:most],
            is_picture=whole.is_picture[:most],
        )


def collated(pairs: Sequence[Conversation]) -> dict[str, Tensor]:
    """token_ids, has_token and is_target [B, L], filled up on the right; with a picture also is_picture [B, L], pixels [B, P, values] and grid [B, 3],
    zeros where there is none.
    """
    inputs = {
        "token_ids": _side_by_side([each.token_ids for each in pairs]),
        "has_token": _side_by_side([np.ones_like(each.is_answer) for each in pairs]),
        "is_target": _side_by_side([each.is_answer for each in pairs]),
    }
    shown = [each.pixels for each in pairs if each.pixels is not None]
    if shown:
        none = np.zeros((0, shown[0].shape[1]), shown[0].dtype)
        absent = np.zeros(3, dtype=np.int64)
        inputs |= {
            "is_picture": _side_by_side([each.is_picture.astype(np.int64) for each in pairs]),
            "pixels": _side_by_side([none if e.pixels is None else e.pixels for e in pairs]),
            "grid": torch.from_numpy(
                np.stack([absent if e.grid is None else e.grid for e in pairs])
            ),
        }
    return inputs


def _side_by_side(rows: Sequence[np.ndarray[Any, np.dtype[Any]]]) -> Tensor:
    return pad_sequence([torch.from_numpy(row) for row in rows], batch_first=True)


def pairs_of(inputs: Mapping[str, Tensor], which: slice) -> dict[str, Tensor] | None:
    """Some of them; None where that is none."""
    some = {name: x[which] for name, x in inputs.items()}
    return some if len(some["token_ids"]) else None
