"""Whether files that a manifest names are there: each folder is listed once and no file is looked at, so that 10^6 of them take seconds.

Half a copy of a large corpus is found before the first step, not hours later when the first file that is lacking is drawn.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import ConfigError
from schemas.within import within

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
    is_there = np.zeros(len(paths), dtype=bool)
    by_folder = zip(folders.dictionary.to_pylist(), np.split(order, ends)[:-1], strict=True)
    for folder, rows in by_folder:
        listed = _listed(corpus, folder.removesuffix("/"))
        is_there[rows] = [name in listed for name in names.take(pa.array(rows)).to_pylist()]
    if is_there.all():
        return
    absent = np.flatnonzero(~is_there)
    problem = (
        f"{what} missing: {len(absent)} of {len(paths)} files that the manifest names are not there"
    )
    raise ConfigError(f"{problem}, {paths[int(absent[0])]} first; {repair}", where=str(corpus))


def _listed(corpus: Path, folder: str) -> set[str]:
    try:
        return set(os.listdir(within(corpus, folder) if folder else corpus))
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise ConfigError(f"cannot be listed ({error.strerror})", where=folder) from error
