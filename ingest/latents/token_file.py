"""A file of latents in the making: every byte has its place before the first picture is encoded, so memory holds no more than a piece of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from io import BufferedRandom

import numpy as np

from ingest.latents.header import header_of
from schemas.errors import InvariantError
from schemas.latents import FRAME_INDEX, LatentFacts


class TokenFile:
    """Fills an empty file that can be read too. Tensors are filled side by side: of eight bits each piece has tokens and their scales."""

    def __init__(self, file: BufferedRandom, facts: LatentFacts) -> None:
        head, header = header_of(facts)
        self._file, self._held = file, header.tensors
        self._at = {name: held.start for name, held in header.tensors.items()}
        file.write(head)
        index = np.arange(facts.num_frames, dtype="<i8") * facts.grid_stride
        self._put(FRAME_INDEX, memoryview(index.tobytes()))

    def add(self, piece: Mapping[str, memoryview]) -> None:
        """The bytes of the next pictures, by tensor.

        Raises:
            InvariantError: they are more than the file has room for.
        """
        for name, data in piece.items():
            self._put(name, data)

    def finish(self) -> tuple[int, str]:
        """(bytes, sha256) of the whole.

        Raises:
            InvariantError: some of it is missing.
        """
        for name, held in self._held.items():
            if self._at[name] != held.end:
                raise InvariantError(f"{self._at[name] - held.start} bytes of {name}, not {held}")
        self._file.seek(0)
        sha256 = hashlib.file_digest(self._file, "sha256").hexdigest()
        return self._file.tell(), sha256

    def _put(self, name: str, data: memoryview) -> None:
        start = self._at[name]
        if start + len(data) > self._held[name].end:
            raise InvariantError(f"more of {name} than {self._held[name]}")
        self._file.seek(start)
        self._file.write(data)
        self._at[name] = start + len(data)
