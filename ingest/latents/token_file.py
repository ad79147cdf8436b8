"""A file of latents in the making: every byte has its place before the first picture is encoded, so memory holds no more than a piece of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from io import BufferedRandom

import numpy as np

from schemas.errors import InvariantError
from schemas.latent_header import header_of
from schemas.latents import FRAME_INDEX, LatentFacts


class TokenFile:
    """Fills an empty file that can be read too. Tensors are filled side by side: of eight bits each piece has tokens and their scales.

    Bytes are hashed as they come while each follows the last, as all of bfloat16 and of a single piece do; what came before its turn is
    read again at the end.
    """

    def __init__(self, file: BufferedRandom, facts: LatentFacts) -> None:
        head, header = header_of(facts)
        self._file, self._held = file, header.tensors
        self._at = {name: held.start for name, held in header.tensors.items()}
        self._digest, self._num_hashed = hashlib.sha256(), 0
        self._write(0, memoryview(head))
        index = np.arange(facts.num_frames, dtype="<i8") * facts.grid_stride
        self._put(FRAME_INDEX, memoryview(index.tobytes()))

    def add(self, piece: Mapping[str, memoryview]) -> None:
        """The bytes of the next pictures, by tensor.

        Raises:
            InvariantError: they are more than the file has room for.
        """
        for name in sorted(piece, key=lambda name: self._held[name].start):
            self._put(name, piece[name])

    def finish(self) -> tuple[int, str]:
        """(bytes, sha256) of the whole.

        Raises:
            InvariantError: some of it is missing.
        """
        for name, held in self._held.items():
            if self._at[name] != held.end:
                raise InvariantError(f"{self._at[name] - held.start} bytes of {name}, not {held}")
        self._file.seek(self._num_hashed)
        hashlib.file_digest(self._file, lambda: self._digest)
        return self._file.tell(), self._digest.hexdigest()

    def _put(self, name: str, data: memoryview) -> None:
        start = self._at[name]
        if start + len(data) > self._held[name].end:
            raise InvariantError(f"more of {name} than {self._held[name]}")
        self._write(start, data)
        self._at[name] = start + len(data)

    def _write(self, start: int, data: memoryview) -> None:
        self._file.seek(start)
        self._file.write(data)
        if start == self._num_hashed:
            self._digest.update(data)
            self._num_hashed += len(data)
