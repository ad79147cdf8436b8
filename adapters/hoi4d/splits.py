"""Which split HOI4D publishes a sequence in, by the two lists of the repository HOI4D-Instructions; one sequence a line.

    testset.txt    the test set
    release.txt    what was released while "the rest of the data is temporarily kept as a testset" (README.md): the training set
31 sequences are in both lists (counted in the lists; issue 24 of the repository is open): they are test. Source:
`leolyliu/HOI4D-Instructions:{README.md,release.txt,testset.txt}` (doc; that release.txt is the training set is inferred, also from issue 2).
`prepare_4Dseg/datalists/train_all.txt` is no split: it lists every sequence with a label file (`prepare_datalists.py`).
"""

from __future__ import annotations

from pathlib import Path

from adapters.containers.list_file import list_lines
from schemas.regular_file import is_there

RELEASED, TEST = "release.txt", "testset.txt"


def listed(root: Path, name: str) -> set[str]:
    """The sequences of one list; none where it is not there.

    Raises:
        ConfigError: it is no text.
    """
    return set(list_lines(root / name)) if is_there(root / name) else set()


def source_splits(root: Path) -> dict[str, str]:
    """Split by sequence; one that neither list has is not in it."""
    trained = dict.fromkeys(listed(root, RELEASED), "train")
    return trained | dict.fromkeys(listed(root, TEST), "test")
