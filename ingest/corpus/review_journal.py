"""The journal of reviews: files `reviews/<sha256>.json`, each complete and durable before its name appears, and never changed.

Each process that stores or publishes holds one lock, so that nothing is published or stored between a check and what relies on it. Readers hold none.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ingest.corpus.layout import CorpusLayout
from ingest.storage.local import HALF_SUFFIX, LocalStorage
from ingest.storage.lock_file import held_alone
from schemas.catalog_rows import as_dict
from schemas.errors import ConfigError, SourceError
from schemas.json_text import JsonLimits, parse_json
from schemas.review import Review, utc_time

FOLDER = "reviews"
LOCK = f"{FOLDER}/.submitters"
MOST_OF_FILE = 1_000  # reviews
_LIMITS = JsonLimits(max_bytes=64 << 20, max_elements=MOST_OF_FILE * 16)
_FILE = re.compile(rf"{FOLDER}/[0-9a-f]{{64}}\.json")
LOCK_WAIT_S = 30.0
MAX_KEPT = 50_000  # reviews of one corpus, parsed
# Folder of the journal -> file -> its reviews: a name is the digest of the bytes, so no file is read twice by a process.
_kept: defaultdict[Path, dict[str, Sequence[Review]]] = defaultdict(dict)
_keeping = threading.Lock()


@contextmanager
def held(corpus: CorpusLayout, disk: LocalStorage, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Hold the journal for one process, and remove what killed ones left. Short: it waits for no writer of the corpus.

    Raises:
        LockHeld: another process holds it for longer than `wait_s`.
    """
    disk.make_dir(corpus.root / FOLDER)
    with held_alone(corpus.root / LOCK, wait_s):
        for path in sorted((corpus.root / FOLDER).glob(f".*{HALF_SUFFIX}")):
            disk.remove(path)
        yield


def keys(corpus: CorpusLayout) -> list[str]:
    """Its files."""
    if not (corpus.root / FOLDER).is_dir():
        return []
    return [key for key in LocalStorage(corpus.root).list(FOLDER) if _FILE.fullmatch(key)]


def store(disk: LocalStorage, reviews: Sequence[Review]) -> Iterator[int]:
    """Write them, at most `MOST_OF_FILE` in a file. Yields after each file how many are on the disk. The caller holds the journal."""
    for start in range(0, len(reviews), MOST_OF_FILE):
        piece = reviews[start : start + MOST_OF_FILE]
        text = json.dumps([as_json(each) for each in piece], ensure_ascii=False).encode()
        disk.create(f"{FOLDER}/{hashlib.sha256(text).hexdigest()}.json", text)
        yield start + len(piece)


def read_all(corpus: CorpusLayout, names: Sequence[str]) -> list[Review]:
    """The reviews of all files of the journal; none of one that a writer has just published. Files are read once.

    Raises:
        ConfigError: a file is not what `store` writes.
    """
    folder = corpus.root.resolve() / FOLDER
    with _keeping:
        before = _kept[folder]
    reviews, kept = list[Review](), dict[str, Sequence[Review]]()
    for key in names:
        own = before.get(key)
        if own is None:
            own = _read(corpus, key)
        reviews += own
        if own and len(reviews) <= MAX_KEPT:
            kept[key] = own
    with _keeping:
        _kept[folder] = (
            kept  # without the files that were published, and so without erased episodes
        )
    return reviews


def as_json(review: Review) -> dict[str, Any]:
    return {**as_dict(review), "at": review.at.isoformat()}


def _read(corpus: CorpusLayout, key: str) -> list[Review]:
    try:
        data = LocalStorage(corpus.root).get(key, max_bytes=_LIMITS.max_bytes)
    except SourceError as error:
        if not (corpus.root / key).exists():
            return []
        raise _damaged(key, error.message) from error
    if hashlib.sha256(data).hexdigest() != key.removeprefix(f"{FOLDER}/").removesuffix(".json"):
        raise _damaged(key, "its bytes do not have the sha256 of its name")
    try:
        return [
            Review(**{**row, "at": utc_time(row["at"])}) for row in parse_json(data, limits=_LIMITS)
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(key, str(error)) from error


def _damaged(key: str, problem: str) -> ConfigError:
    remedy = "restore the file, or move it out of the corpus and submit its reviews again"
    return ConfigError(f"pending reviews cannot be read: {problem}", remedy=remedy, where=key)
