"""What `eicorpus verify` says: which check does not hold, in which file, what was found, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Check(StrEnum):
    """Everything that is checked. Closed list: `docs/verify.md` has a row for each."""

    CORPUS_MARKER = "corpus_marker"
    SNAPSHOT = "snapshot"
    CATALOG_FILE = "catalog_file"
    CATALOG_SCHEMA = "catalog_schema"
    CATALOG_CONTENT = "catalog_content"
    CATALOG_EXTRA = "catalog_extra"
    NUMBERING = "numbering"
    ACCOUNTING = "accounting"
    META_MISSING = "meta_missing"
    META_DIFFERS = "meta_differs"
    FILE_MISSING = "file_missing"
    FILE_UNREADABLE = "file_unreadable"
    FILE_CHANGED = "file_changed"
    FILE_EXTRA = "file_extra"
    FILE_UNFINISHED = "file_unfinished"
    UNSAFE_PATH = "unsafe_path"
    DATA_UNREADABLE = "data_unreadable"
    DATA_ROW_GROUPS = "data_row_groups"
    DATA_COLUMNS = "data_columns"
    DATA_METADATA = "data_metadata"
    DATA_LENGTH = "data_length"
    DATA_NOT_FINITE = "data_not_finite"
    DATA_FRAME_INDEX = "data_frame_index"
    DATA_TIMESTAMP = "data_timestamp"
    DATA_EPISODE_INDEX = "data_episode_index"
    DATA_INDEX = "data_index"
    DATA_TASK_INDEX = "data_task_index"
    DATA_ROTATION = "data_rotation"
    DATA_GRIPPER = "data_gripper"
    DATA_ACTION = "data_action"
    STATS_INCOMPLETE = "stats_incomplete"
    STATS_DIFFER = "stats_differ"
    VIDEO_UNREADABLE = "video_unreadable"
    VIDEO_FORMAT = "video_format"
    VIDEO_FRAMES = "video_frames"
    VIDEO_TIMES = "video_times"
    VIDEO_KEYFRAMES = "video_keyframes"
    LATENTS_MISSING = "latents_missing"
    LATENTS_CHANGED = "latents_changed"
    LATENTS_DIFFER = "latents_differ"
    LATENTS_NOT_FINITE = "latents_not_finite"
    CONTENT_CHANGED = "content_changed"
    ERASURE_UNFINISHED = "erasure_unfinished"
    PEER = "peer"


_RESTORE = (
    "restore the file from a copy of this corpus; without one, ingest its source into a new corpus"
)
_REBUILD = (
    "remove this dataset's meta/eicorpus.json and run any `eicorpus ingest` into this corpus again: "
    "meta/ is rebuilt from the catalog"
)
_SWEEP = (
    "run any `eicorpus ingest` into this corpus again, which removes what a stopped run left; "
    "remove by hand what remains"
)
_REPORT = "no damage explains this: report it as a bug with the output of `eicorpus verify --json`"
_ENCODE = "remove the file and run `eicorpus latents` again with the encoder and the options of its folder's name: it is made anew"
_PERMISSION = "give yourself permission to read it, and check the disk and the mount"

_EXCEPTIONS = {
    Check.SNAPSHOT: (
        "remove this snapshot and run its `eicorpus ingest` again: the snapshot before it counts, and what was added "
        "since is ingested again"
    ),
    Check.CATALOG_EXTRA: _SWEEP,
    Check.NUMBERING: _REPORT,
    Check.ACCOUNTING: _REPORT,
    Check.META_MISSING: _REBUILD,
    Check.META_DIFFERS: _REBUILD,
    Check.FILE_UNREADABLE: _PERMISSION,
    Check.FILE_EXTRA: _SWEEP,
    Check.FILE_UNFINISHED: (
        "run `eicorpus gc`, which removes it and finishes what the stopped run had begun; nothing that was committed is lost"
    ),
    Check.LATENTS_MISSING: _ENCODE,
    Check.LATENTS_CHANGED: _ENCODE,
    Check.LATENTS_DIFFER: _ENCODE,
    Check.LATENTS_NOT_FINITE: _ENCODE,
    Check.UNSAFE_PATH: "replace the link by the file itself; a corpus holds all its files",
    Check.CONTENT_CHANGED: (
        "the catalog's rows of this episode are not those that were committed: restore catalog/ from a copy"
    ),
    Check.ERASURE_UNFINISHED: "run `eicorpus gc`, which finishes it, and verify again",
    Check.PEER: "mend the other findings first; if there are none, report it as a bug",
}

# What to do, by check. Damage of a file that cannot be made again from the catalog is the rule, the rest are exceptions.
REMEDIES: dict[Check, str] = {check: _EXCEPTIONS.get(check, _RESTORE) for check in Check}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Finding:
    """One thing that does not hold. `path` is relative to the corpus."""

    path: str
    check: Check
    message: str
    remedy: str


def finding(check: Check, path: str, found: object, expected: object) -> Finding:
    """A finding with its message in the house's form and its remedy."""
    return Finding(
        path=path,
        check=check,
        message=f"found {found}; expected {expected}",
        remedy=REMEDIES[check],
    )


def excerpt(text: str, at: int = 0, width: int = 100) -> str:
    """`text` around position `at`, quoted, at most about `width` characters."""
    start = max(0, at - width // 4)
    shown = text[start : start + width]
    return f"{'…' if start else ''}{shown!r}{'…' if start + width < len(text) else ''}"


def first_differing(a: Sequence[str], b: Sequence[str]) -> int:
    """The first position where two texts, or two lists of lines, differ; the shorter length when one starts the other."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))
