"""The names of everything that commands write into a corpus outside `catalog/` and `datasets/`. docs/how-to/erase.md says what each is."""

from __future__ import annotations

from fnmatch import fnmatchcase

from ingest.corpus.layout import BUILD, BUILD_LOCK, LINK, LOCK, MARKER, REPORT
from schemas.manifest import (
    ERASED_FILE,
    FACTS_FILE,
    FOLDER,
    NEWEST_FILE,
    REDACTION_FILE,
    ROWS_FILE,
)

OWN_CHECK = frozenset(["catalog", "datasets"])  # rooms that `verify` compares with a snapshot
_VERSION = "[0-9a-f]" * 16  # of a manifest
# `*` any name, part by part.
_FILES = (
    MARKER,
    LOCK,
    LINK,
    REPORT,
    ".unfinished",  # ingest/corpus/writer.py
    ".copying",  # ingest/corpus/working_copy.py
    ".erasing",
    ".nodes",  # ingest/executors/node_proof.py
    "ledger/*.jsonl",
    "quarantine/*.jsonl",
    "cache/captions/*/*.json",
    "reviews/*.json",  # ingest/corpus/reviews.py
    "reviews/.submitters",
    f"{FOLDER}/.builders",  # ingest/curation/manifests/building.py
    f"{FOLDER}/{ERASED_FILE}",
    f"{FOLDER}/[a-z0-9]*/{NEWEST_FILE}",
    *(
        f"{FOLDER}/{of}/{name}"
        for of in ("[a-z0-9]*", f"[a-z0-9]*/{_VERSION}")
        for name in (FACTS_FILE, ROWS_FILE, REDACTION_FILE)
    ),
    f"{BUILD}/{BUILD_LOCK}",  # of `eicorpus build`: jobs/build/records.py
    f"{BUILD}/*.json",
)
# Folders whose content is of no account: removed or made again when asked for.
_LET_BE = (f"{FOLDER}/_cache", f"{FOLDER}/.*.part", f"{FOLDER}/[a-z0-9]*/.*.part", "staging/*.*")


def is_known(path: str) -> bool:
    """Whether a command writes a file of this name. `path` is relative to the corpus."""
    return _matches(path, _FILES)


def is_let_be(folder: str) -> bool:
    """Whether everything may lie below this folder: staged episodes, caches, half a manifest."""
    return _matches(folder, _LET_BE)


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    parts = path.split("/")
    return any(
        len(parts) == len(pattern)
        and all(fnmatchcase(part, each) for part, each in zip(parts, pattern, strict=True))
        for pattern in (each.split("/") for each in patterns)
    )
