"""Which split TACO publishes a sequence in.

    [data_lists/]v1_overall_data_train_test_split.txt    20230927_032,train: a sequence (date_number) and its split, one a line
Splits are train and test_1 to test_4: no generalisation, new geometry, new interaction, both (`leolyliu/TACO-Instructions:README.md`, doc; the
list itself was read: 2,317 lines, each sequence once). The file is in that repository, not in the archives.
"""

from __future__ import annotations

from pathlib import Path

from adapters.containers.list_file import list_lines
from schemas.regular_file import is_there
from schemas.source_split import source_split_of, strictest

LIST = "data_lists/v1_overall_data_train_test_split.txt"
PLACES = (LIST, Path(LIST).name)


def split_list(root: Path) -> Path | None:
    """The list below `root`; None if it is missing."""
    return next((root / place for place in PLACES if is_there(root / place)), None)


def source_splits(root: Path) -> dict[str, str]:
    """Split by `<date>_<number>`; empty without the list.

    Raises:
        ConfigError: the list is no text.
    """
    path = split_list(root)
    splits: dict[str, str] = {}
    for line in list_lines(path) if path is not None else ():
        sequence, _, split = line.partition(",")
        splits[sequence] = strictest((splits.get(sequence, ""), source_split_of(split)))
    return splits
