"""Answers kept by content: the same pictures, prompt, backend and model are never asked twice, whatever corpus run they come from.

`CORPUS/cache/captions/<2 hex>/<key>.json`, one line each, which is also a line of a replay file. It is no part of any snapshot: removing
the folder loses nothing but the answers' price.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ingest.corpus.layout import CorpusLayout
from ingest.storage.local import LocalStorage, OutsideCorpus
from schemas.json_text import JsonLimits, parse_json

LIMITS = JsonLimits(max_bytes=1 << 24, max_elements=10_000)  # of a kept answer


def cache_key(**content: Any) -> str:
    """sha256 of everything that decides an answer, as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Cache:
    """A folder of answers. Safe for the threads of one process; other processes write the same bytes under the same name."""

    def __init__(self, folder: Path, disk: LocalStorage) -> None:
        self.folder, self.disk = folder, disk
        self._lock = threading.Lock()

    @staticmethod
    def of(corpus: CorpusLayout, disk: LocalStorage) -> Cache:
        return Cache(corpus.root / "cache" / "captions", disk)

    def get(self, key: str) -> str | None:
        """The text of the answer, or None. A damaged file counts as no answer: it is asked for again and written anew."""
        try:
            entry = parse_json(
                self.disk.read(self._path(key), most=LIMITS.max_bytes), limits=LIMITS
            )
            text = entry["text"] if entry["key"] == key else None
        except (OSError, OutsideCorpus, ValueError, KeyError, TypeError):
            return None
        return text if isinstance(text, str) else None

    def put(self, key: str, text: str, about: Mapping[str, Any]) -> None:
        line = json.dumps({"key": key, **about, "text": text}, sort_keys=True) + "\n"
        path = self._path(key)
        with self._lock:
            self.disk.make_dir(path.parent)
            self.disk.write(path, line.encode())

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
