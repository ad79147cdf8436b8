"""The groups that a split keeps whole. A corpus spec and `--help` name them without the libraries that deal them (`splits`)."""

from __future__ import annotations

from enum import StrEnum


class SplitBy(StrEnum):
    AUTO = "auto"
    SUBJECT = "subject"
    SCENE = "scene"
    TASK = "task"
    EPISODE = "episode"
    COPIES = "copies"
    SOURCE = "source"
