"""Files of a corpus that no command writes, in its root and in the rooms beside `catalog/` and `datasets/`, which have checks of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ingest.corpus.known_files import OWN_CHECK, is_known, is_let_be
from ingest.storage.file_tree import entries_below
from ingest.storage.local import HALF_SUFFIX
from ingest.verify.files import unreadable
from ingest.verify.finding import CheckCode, Finding, finding


def foreign_files(corpus: Path) -> Iterator[Finding]:
    """One finding for each such file, and for each file that a run that was stopped left half-written."""
    refused: list[OSError] = []
    for entry in entries_below(corpus, _is_skipped, refused.append):
        if not entry.is_dir(follow_symlinks=False):
            yield from _problem(Path(entry.path).relative_to(corpus).as_posix())
    for error in refused:
        yield unreadable(os.path.relpath(error.filename or corpus, corpus), error)


def _is_skipped(folder: str) -> bool:
    return folder in OWN_CHECK or is_let_be(folder)


def _problem(path: str) -> Iterator[Finding]:
    name = path.rpartition("/")[2]
    # Half a file in manifests/ may be of a build at work, which takes no writer lock, and which sweeps there.
    if name.startswith(".") and name.endswith(HALF_SUFFIX):
        if not path.startswith("manifests/"):
            what = "half a file, which a run that was stopped left"
            yield finding(CheckCode.FILE_UNFINISHED, path, what, "no run that is not finished")
    elif not is_known(path):
        yield finding(
            CheckCode.FILE_EXTRA, path, "a file that no command writes", "only what one does"
        )
