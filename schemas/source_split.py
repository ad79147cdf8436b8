"""The split that a source itself publishes an episode in, in the words of this project.

Held out by a source means held out here: a benchmark's own val and test stay out of training (docs/how-to/manifests.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

SPLITS = ("train", "val", "test")
HELD_OUT = ("val", "test")
_STRICTNESS = ("", *SPLITS)  # test outranks val, val outranks train
_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "eval": "val",
    "evaluation": "val",
    "test": "test",
    "testing": "test",
}


def source_split_of(name: str) -> str:
    """train, val or test for a source's own name of a split ("validation", "test_seen"); "" for a name that means none."""
    return _WORDS.get(re.split(r"[^a-z]", name.strip().lower(), maxsplit=1)[0], "")


def strictest(splits: Iterable[str]) -> str:
    """The split that outranks the others, where a source lists one episode in several: test, then val, then train."""
    return max(splits, key=_STRICTNESS.index, default="")
