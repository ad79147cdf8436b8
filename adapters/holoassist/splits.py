"""The official split files of HoloAssist: `train-v1_2.txt`, `val-v1_2.txt`, a test list of the challenge; one session a line.

Source: formats page hands.md (train and val seen in the toolkit, that a test list looks the same is inferred).
"""

from __future__ import annotations

from pathlib import Path

from adapters.containers.list_file import list_lines
from schemas.source_split import SPLITS, strictest

FOLDERS = ("", "labels", "data", "data/labels", "splits", "data_splits")


def source_splits(root: Path) -> dict[str, str]:
    """Split by session; the strictest where several files list one. Empty where no split file is there.

    Raises:
        ConfigError: a split file that is no text, or too large for one.
    """
    splits: dict[str, str] = {}
    for split in SPLITS:
        for path in sorted(p for f in FOLDERS for p in (root / f).glob(f"{split}-v*.txt")):
            for session in list_lines(path):
                splits[session] = strictest((splits.get(session, ""), split))
    return splits
