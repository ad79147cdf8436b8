"""A model in this process instead of a server, loaded when it is first asked.

It answers what is asked together: while it works, the requests of other threads wait, and those that are alike go next at once.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ingest.curation.captions.chat import ChatRequest, Completion, Finish, TransportFailed, Turn
from ingest.models.vlm import LocalVlm, Message
from schemas.errors import ConfigError, system_error_text

SAMPLES, SAMPLE_BYTES = 256, 1 << 14  # of each file of weights
SMALL = 1 << 25  # a file that is hashed whole


@dataclass(kw_only=True, eq=False)
class _Waiting:
    request: ChatRequest
    completion: Completion | None = None

    @property
    def kind(self) -> tuple[int, float, int]:
        return self.request.max_tokens, self.request.temperature, self.request.seed


class TransformersChat:
    """A folder with a Qwen-VL model; `model` is its name and a digest of what is in it. Safe for threads."""

    id = "transformers"

    def __init__(self, folder: Path, device: str = "cpu", batch: int = 1) -> None:
        """Raises ConfigError: there is no model in `folder`."""
        self._folder, self._device = folder, device
        self.model = f"{folder.name}@{_fingerprint(folder)}"
        self._vlm: LocalVlm | None = None
        self._batch = batch
        self._waiting: list[_Waiting] = []
        self._few, self._model = threading.Lock(), threading.Lock()
        self._is_stopped = False

    def stop(self) -> None:
        self._is_stopped = True

    def complete(self, request: ChatRequest) -> Completion:
        own = _Waiting(request=request)
        with self._few:
            self._waiting.append(own)
        with self._model:
            if own.completion is None:  # nobody took it along
                self._answer(self._with_its_like(own))
        assert own.completion is not None
        return own.completion

    def _with_its_like(self, own: _Waiting) -> list[_Waiting]:
        with self._few:
            like = [w for w in self._waiting if w is not own and w.kind == own.kind]
            taken = [own, *like[: self._batch - 1]]
            self._waiting = [w for w in self._waiting if w not in taken]
        return taken

    def _answer(self, taken: list[_Waiting]) -> None:
        if self._is_stopped:
            raise TransportFailed("interrupted")
        if self._vlm is None:
            self._vlm = LocalVlm.load(self._folder, self._device)
        max_tokens, temperature, seed = taken[0].kind
        generated = self._vlm.generate(
            [[_message(turn) for turn in one.request.turns] for one in taken],
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
        )
        for one, result in zip(taken, generated, strict=True):
            finish = Finish.STOP if result.is_whole else Finish.LENGTH
            one.completion = Completion(text=result.text, finish=finish)


def _fingerprint(folder: Path) -> str:
    """Of gigabytes of weights a sample, spread over each file: fine-tuning keeps sizes and changes all of them. The rest is hashed whole."""
    sha = hashlib.sha256()
    try:
        (folder / "config.json").stat()
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.suffix in (".json", ".jinja", ".txt", ".safetensors"):
                sha.update(f"{path.name} {path.stat().st_size}\n".encode())
                sha.update(_sampled(path))
    except OSError as error:
        raise ConfigError(
            f"not a model folder: {system_error_text(error, str(folder))}",
            remedy="pass the folder of a downloaded model with --model",
            where=str(folder),
        ) from error
    return sha.hexdigest()[:12]


def _sampled(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= SMALL:
            return hashlib.sha256(file.read(SMALL)).digest()
        sha = hashlib.sha256()
        for at in np.linspace(0, size - SAMPLE_BYTES, SAMPLES).astype(int).tolist():
            file.seek(at)
            sha.update(file.read(SAMPLE_BYTES))
    return sha.digest()


def _message(turn: Turn) -> Message:
    if turn.jpeg is None:
        return Message(role=turn.role, text=turn.text)
    bgr = cv2.imdecode(np.frombuffer(turn.jpeg, dtype=np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None  # we made it ourselves
    picture = np.ascontiguousarray(bgr[:, :, ::-1], dtype=np.uint8)
    return Message(role=turn.role, text=turn.text, picture=picture)
