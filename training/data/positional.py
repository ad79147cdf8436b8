"""A file of a corpus that is read by position, not mapped: a disk that fails, or a file that is cut while it is open, raises, where a mapped
page would end the process by SIGBUS, and nothing is copied twice.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError


class PositionalFile:
    """One open file; closed with the last who has it. `where` names it in errors, `repair` is what to do about damage."""

    def __init__(self, path: Path, *, where: str, repair: str) -> None:
        """
        Raises:
            OSError: it cannot be opened now.
        """
        self.where, self.repair = where, repair
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)  # of several threads the last one lets go

    def damaged(self, why: str) -> ConfigError:
        """The error for a file that is not what was written."""
        return ConfigError(f"damaged ({why}); {self.repair}", where=self.where)

    def fill(self, out: npt.NDArray[Any], start: int) -> None:
        """All of `out`, which is contiguous, with the bytes of the file from `start` on. The interpreter's lock is free meanwhile.

        Raises:
            ConfigError: it ends before that.
            OSError: it cannot be read now.
        """
        left = memoryview(out.reshape(-1).view(np.uint8).data)
        while len(left):
            num = os.preadv(self._file, [left], start)
            if not num:
                raise self.damaged(f"it ends at byte {start}")
            left, start = left[num:], start + num
