"""Files that a process read whole and found to have the digest that the manifest says."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from pathlib import Path
from threading import Lock


class VerifiedFiles:
    """Each file is read once, however often it is opened. Eight bytes for one, for there may be 10^6; threads share it."""

    def __init__(self) -> None:
        self._seen, self._lock = array("q"), Lock()  # hashes of this process, sorted

    def other_digest(self, path: Path, sha256: str) -> str:
        """The sha256 that the file has instead, or nothing.

        Raises:
            OSError: it cannot be read.
        """
        key = hash((str(path), sha256))
        if self._has(key):
            return ""
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != sha256:
            return digest
        with self._lock:
            self._seen.insert(bisect_left(self._seen, key), key)
        return ""

    def _has(self, key: int) -> bool:
        with self._lock:
            at = bisect_left(self._seen, key)
            return at < len(self._seen) and self._seen[at] == key
