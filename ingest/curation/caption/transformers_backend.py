"""A model in this process instead of a server. It is loaded when it is first asked, and asked for one answer at a time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np

from ingest.curation.caption.chat import ChatRequest, Completion, Finish, Turn
from ingest.models.vlm import LocalVlm, Message
from schemas.errors import ConfigError


class TransformersChat:
    """A folder with a Qwen-VL model; `model` is its name and the digest of its configuration and of its weights' sizes."""

    id = "transformers"

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Raises ConfigError: there is no model in `folder`."""
        self._folder, self._device = folder, device
        self.model = f"{folder.name}@{_fingerprint(folder)}"
        self._vlm: LocalVlm | None = None

    def complete(self, request: ChatRequest) -> Completion:
        if self._vlm is None:
            self._vlm = LocalVlm.load(self._folder, self._device)
        made = self._vlm.generate(
            [_message(turn) for turn in request.turns],
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            seed=request.seed,
        )
        return Completion(text=made.text, finish=Finish.STOP if made.is_whole else Finish.LENGTH)


def _fingerprint(folder: Path) -> str:
    """Hashing gigabytes for a name would take longer than captioning a sample: sizes tell models apart well enough."""
    try:
        sha = hashlib.sha256((folder / "config.json").read_bytes())
        for path in sorted(folder.glob("*.safetensors")):
            sha.update(f"{path.name} {path.stat().st_size}\n".encode())
    except OSError as error:
        raise ConfigError(f"no model here: {error}", where=str(folder)) from error
    return sha.hexdigest()[:12]


def _message(turn: Turn) -> Message:
    if turn.jpeg is None:
        return Message(role=turn.role, text=turn.text)
    bgr = cv2.imdecode(np.frombuffer(turn.jpeg, dtype=np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None  # we made it ourselves
    picture = np.ascontiguousarray(bgr[:, :, ::-1], dtype=np.uint8)
    return Message(role=turn.role, text=turn.text, picture=picture)
