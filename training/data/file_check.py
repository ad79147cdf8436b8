"""Whether the files that a manifest names exist (one listing per folder) and which of them this process has found to match their digest."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import ConfigError
from schemas.latent_header import Span, sha256_within
from schemas.paths import within


class VerifiedFiles:
    """Each file is read once, however often it is opened. Eight bytes for one, for there may be 10^6; threads share it."""

    def __init__(self) -> None:
        self._seen, self._lock = array("q"), Lock()  # hashes of this process, sorted

    def other_digest(self, path: Path, sha256: str, span: Span | None = None) -> str:
        """The sha256 that the file has instead, or nothing. `span`: its offset and size in the pack `path`.

        Raises:
            OSError: it cannot be read.
        """
        key = hash((str(path), sha256, span))
        if self._has(key):
            return ""
        with path.open("rb") as stream:
            digest = sha256_within(stream, span)
        if digest != sha256:
            return digest
        with self._lock:
            self._seen.insert(bisect_left(self._seen, key), key)
        return ""

    def _has(self, key: int) -> bool:
        with self._lock:
            at = bisect_left(self._seen, key)
            return at < len(self._seen) and self._seen[at] == key


_PARTS = r"(?s)^(?P<folder>(?:.*/)?)(?P<name>[^/]*)$"


def refuse_absent(corpus: Path, paths: pa.Array, *, what: str, repair: str) -> None:
    """
    Args:
        paths: relative to the corpus; one may be there often. what: these files are. repair: what to do, to end a sentence.

    Raises:
        ConfigError: some are absent, or a folder cannot be listed.
        OutsideCorpus: a folder is a link, or lies elsewhere.
    """
    paths = pc.unique(paths)
    parts = pc.extract_regex(paths, _PARTS)
    folders, names = (
        pc.struct_field(parts, "folder").dictionary_encode(),
        pc.struct_field(parts, "name"),
    )
    number = folders.indices.to_numpy()
    order = np.argsort(number, kind="stable")
    ends = np.cumsum(np.bincount(number, minlength=len(folders.dictionary)))
    path_exists = np.zeros(len(paths), dtype=bool)
    by_folder = zip(folders.dictionary.to_pylist(), np.split(order, ends)[:-1], strict=True)
    for folder, rows in by_folder:
        listed = _listed(corpus, folder.removesuffix("/"))
        path_exists[rows] = [name in listed for name in names.take(pa.array(rows)).to_pylist()]
    if path_exists.all():
        return
    absent = np.flatnonzero(~path_exists)
    problem = f"{what} missing: {len(absent)} of {len(paths)} files of the manifest do not exist"
    raise ConfigError(f"{problem}, {paths[int(absent[0])]} first", remedy=repair, where=str(corpus))


def _listed(corpus: Path, folder: str) -> set[str]:
    try:
        return set(os.listdir(within(corpus, folder) if folder else corpus))
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise ConfigError(
            f"cannot be listed ({error.strerror})",
            remedy="check the permissions of the folder",
            where=folder,
        ) from error
