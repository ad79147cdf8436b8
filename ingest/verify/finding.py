"""What `eicorpus verify` says: which check does not hold, in which file, what was found, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class CheckCode(StrEnum):
    """Everything that is checked. Closed list. Each has an entry in `RULES` and in `REMEDIES`."""

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
    "remove this dataset's meta/eicorpus.json and run any `eicorpus ingest` into this corpus again; "
    "meta/ is rebuilt from the catalog"
)
_SWEEP = (
    "run any `eicorpus ingest` into this corpus again, which removes what a stopped run left; "
    "remove remaining files by hand"
)
_REPORT = "damage cannot cause this; report it as a bug with the output of `eicorpus verify --json`"
_ENCODE = "remove the file and run `eicorpus latents images` again with the encoder and the options of its folder's name: it will be written again"
_PERMISSION = "fix the read permission, and check the disk and the mount"

_EXCEPTIONS = {
    CheckCode.SNAPSHOT: (
        "remove this snapshot and run its `eicorpus ingest` again; the previous snapshot becomes the latest, and episodes added "
        "since are ingested again"
    ),
    CheckCode.CATALOG_EXTRA: _SWEEP,
    CheckCode.NUMBERING: _REPORT,
    CheckCode.ACCOUNTING: _REPORT,
    CheckCode.META_MISSING: _REBUILD,
    CheckCode.META_DIFFERS: _REBUILD,
    CheckCode.FILE_UNREADABLE: _PERMISSION,
    CheckCode.FILE_EXTRA: _SWEEP,
    CheckCode.FILE_UNFINISHED: (
        "run `eicorpus gc`, which removes it and completes the stopped run; committed data is not lost"
    ),
    CheckCode.LATENTS_MISSING: _ENCODE,
    CheckCode.LATENTS_CHANGED: _ENCODE,
    CheckCode.LATENTS_DIFFER: _ENCODE,
    CheckCode.LATENTS_NOT_FINITE: _ENCODE,
    CheckCode.UNSAFE_PATH: "replace the link with the file itself; a corpus contains no links",
    CheckCode.CONTENT_CHANGED: (
        "the catalog rows of this episode differ from the committed ones; restore catalog/ from a copy"
    ),
    CheckCode.ERASURE_UNFINISHED: "run `eicorpus gc` to finish it, then verify again",
    CheckCode.PEER: "fix the other findings first; if there are none, report it as a bug",
}

# What to do, by check. Damage of a file that cannot be made again from the catalog is the rule, the rest are exceptions.
REMEDIES: dict[CheckCode, str] = {check: _EXCEPTIONS.get(check, _RESTORE) for check in CheckCode}


# What must hold, by check: docs/reference/codes.md is generated from this and from `REMEDIES`.
RULES: dict[CheckCode, str] = {
    CheckCode.CORPUS_MARKER: "`corpus.json` names the format, the corpus and the recipe that made it",
    CheckCode.SNAPSHOT: "the latest `catalog/_snapshots/<n>.json` is complete and contains its own number",
    CheckCode.CATALOG_FILE: "every part that the snapshot names has the size, sha256 and number of rows that the snapshot states",
    CheckCode.CATALOG_SCHEMA: "the columns of a part are declared ones with the declared types; later columns may be absent",
    CheckCode.CATALOG_CONTENT: "parts lie in their table's folder, each once; the rows describe datasets, recipes and episodes as ingestion writes them",
    CheckCode.CATALOG_EXTRA: "`catalog/` contains no other files",
    CheckCode.NUMBERING: "episode and frame numbers of a dataset have no gaps; task counts, files and cameras of an episode agree",
    CheckCode.ACCOUNTING: "each committed uid has one episode and one verdict, and no other uid has rows; for each run discovered = committed + filtered + quarantined + failed + not_reached, with as many verdicts",
    CheckCode.META_MISSING: "all six files of `meta/` exist",
    CheckCode.META_DIFFERS: "each file of `meta/` equals, byte for byte, what the catalog generates; the message names the first differing line",
    CheckCode.FILE_MISSING: "every file that the catalog names exists",
    CheckCode.FILE_UNREADABLE: "every file that the catalog names can be read",
    CheckCode.FILE_CHANGED: "size and sha256 of every data file and video are those committed",
    CheckCode.FILE_EXTRA: "`datasets/` holds nothing that no committed episode has (`latents/` is not checked), and the root and every other folder only files that commands write",
    CheckCode.FILE_UNFINISHED: "`datasets/`, `ledger/`, `quarantine/`, `cache/` and the root contain no half-written `.<name>.part` of an interrupted run",
    CheckCode.UNSAFE_PATH: "no file of the corpus is a link",
    CheckCode.DATA_UNREADABLE: "a data file is complete Parquet, and not far larger than when committed",
    CheckCode.DATA_ROW_GROUPS: "a data file has one row group",
    CheckCode.DATA_COLUMNS: "the columns of a data file have the names, order, types and widths of the features",
    CheckCode.DATA_METADATA: "the `huggingface` metadata of a data file uses `Sequence`",
    CheckCode.DATA_LENGTH: "a data file has one row per timestep of its episode",
    CheckCode.DATA_NOT_FINITE: "a data file contains no null, NaN or infinity",
    CheckCode.DATA_FRAME_INDEX: "`frame_index` is 0, 1, 2, …",
    CheckCode.DATA_TIMESTAMP: "`timestamp` is exactly float32(frame_index / fps), and steps are within 1e-4 s of 1 / fps, as readers require",
    CheckCode.DATA_EPISODE_INDEX: "every row has the number of its episode",
    CheckCode.DATA_INDEX: "`index` increases by 1 through the whole dataset",
    CheckCode.DATA_TASK_INDEX: "`task_index` has the tasks of the episode, in the order and with the counts that the catalog states",
    CheckCode.DATA_ROTATION: "every valid `rot6d_cols` is two columns of a rotation, within 1e-3; camera and source poses too",
    CheckCode.DATA_GRIPPER: "every valid `gripper_opening` is in 0 … 1",
    CheckCode.DATA_ACTION: "an action is valid only where its state is; the valid share is the catalog's; an achieved action equals the next state, and the last row has none",
    CheckCode.STATS_INCOMPLETE: "statistics of every feature exist, with min, max, mean, std and count",
    CheckCode.STATS_DIFFER: "statistics equal those of the rows (mean and std within 1e-6); for images: shape (3, 1, 1), in 0 … 1, count by LeRobot's rule",
    CheckCode.VIDEO_UNREADABLE: "the packets can be listed; the first and last frame decode, with `--deep` all frames",
    CheckCode.VIDEO_FORMAT: "a video has one stream, H.264, yuv420p, with the size of the feature",
    CheckCode.VIDEO_FRAMES: "a video has one frame per row",
    CheckCode.VIDEO_TIMES: "frame k is at exactly k / fps",
    CheckCode.VIDEO_KEYFRAMES: "the first frame is a keyframe, keyframes are at most the recipe's `gop` apart, and each is an IDR (closed groups)",
    CheckCode.LATENTS_MISSING: "every latents file that the catalog names last for its episode, camera and encoder exists",
    CheckCode.LATENTS_CHANGED: "the sha256 of a latents file is the one in the catalog",
    CheckCode.LATENTS_DIFFER: "a latents file lies at the path of its encoder, camera and episode; its metadata agrees with the catalog, its tensors with its metadata, and its video with the stored one; with `--deep` its timesteps are the grid",
    CheckCode.LATENTS_NOT_FINITE: "with `--deep`: latents contain no NaN and no infinity",
    CheckCode.CONTENT_CHANGED: "rows, task texts, videos and catalog facts give the content digest that was committed",
    CheckCode.ERASURE_UNFINISHED: "no `eicorpus forget` was interrupted after its commit; other checks run only after it is finished",
    CheckCode.PEER: "with `--peer`: LeRobot 0.3.3 opens the dataset and returns every episode as stored",
}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Finding:
    """One thing that does not hold. `path` is relative to the corpus."""

    path: str
    check: CheckCode
    message: str
    remedy: str


def finding(check: CheckCode, path: str, actual: object, expected: object) -> Finding:
    """A finding with its message in the house's form and its remedy."""
    return Finding(
        path=path,
        check=check,
        message=f"found {actual}; expected {expected}",
        remedy=REMEDIES[check],
    )


def excerpt(text: str, at: int = 0, width: int = 100) -> str:
    """`text` around position `at`, quoted, at most about `width` characters."""
    start = max(0, at - width // 4)
    shown = text[start : start + width]
    return f"{'…' if start else ''}{shown!r}{'…' if start + width < len(text) else ''}"


def first_differing(a: Sequence[str], b: Sequence[str]) -> int:
    """The first position where two texts, or two lists of lines, differ. The shorter length when one starts the other."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))
