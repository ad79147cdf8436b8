"""Answers and pictures that were made before, up to a number of bytes; what two clients ask for at once is made once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable


class ByteCache:
    """The entries asked for last. For any number of threads."""

    def __init__(self, max_bytes: int = 32 << 20) -> None:
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._entries: OrderedDict[Hashable, bytes] = OrderedDict()
        self._turns: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """The entry, made where there is none. Of several threads that ask for it one makes it; if that fails, the next one tries."""
        with self._lock:
            if (entry := self._recent(key)) is not None:
                return entry
            turn = self._turns.setdefault(key, threading.Lock())
        with turn:
            with self._lock:
                if (entry := self._recent(key)) is not None:
                    return entry
            try:
                entry = make()
                self._keep(key, entry)
            finally:
                with self._lock:
                    self._turns.pop(key, None)
        return entry

    def _recent(self, key: Hashable) -> bytes | None:
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def _keep(self, key: Hashable, entry: bytes) -> None:
        with self._lock:
            self._num_bytes += len(entry) - len(self._entries.get(key, b""))
            self._entries[key] = entry
            while self._num_bytes > self._max_bytes:
                self._num_bytes -= len(self._entries.popitem(last=False)[1])
