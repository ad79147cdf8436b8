"""Samples that cannot be read: how often a read is tried, what is said of one, and which other sample is drawn in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import TypeVar

from pydantic import BaseModel, ConfigDict
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from schemas.errors import Code, ConfigError, SourceError, TransientError
from schemas.manifest import Manifest, ManifestRow
from schemas.regular_file import HICCUPS

TRIES, WAIT_S = 3, 0.25  # of a read that a disk or a network refused; the wait doubles
Read = TypeVar("Read")


class BadSample(BaseModel):
    """A sample that was replaced. `place` in global batch `step`, `attempt` which draw for it; `error` has the file.

    Step -1 is the held-out samples that a run evaluates (`training/run/validation.py`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    step: int
    place: int
    attempt: int
    task: str
    uid: str
    row: int
    timestep: int
    error: str


def broken_sample(row: ManifestRow, timestep: int, path: str, error: Exception) -> SourceError:
    """Where a sample that cannot be read is."""
    address = f"{path}, episode {row.uid} [{row.start}, {row.end}), timestep {timestep}"
    return SourceError(Code.UNREADABLE, f"broken sample: {error}", where=address)


def is_hiccup(error: BaseException) -> bool:
    """Whether the same read may succeed in a moment: an error of a disk, a network or a store, not a file that is wrong."""
    if isinstance(error, TransientError):
        return True
    return isinstance(error, OSError) and error.errno in HICCUPS


def patiently(read: Callable[[], Read]) -> Read:
    """What it reads; tried `TRIES` times where the machine cannot read now.

    Raises:
        OSError, TransientError: the last time, too.
    """
    try:
        return read()
    except (OSError, TransientError) as error:
        if not is_hiccup(error):
            raise
    again = Retrying(
        retry=retry_if_exception(is_hiccup),
        stop=stop_after_attempt(TRIES - 1),
        wait=wait_exponential(multiplier=WAIT_S, min=WAIT_S),
        reraise=True,
    )
    return again(read)


def first_readable(
    manifest: Manifest, index: Iterable[int], read: Callable[[ManifestRow], Read], *, max_bad: int
) -> Read:
    """What is read of the first of these rows that can be read, where any would do. A file is of an episode, so each is tried once.

    Raises:
        ConfigError, OSError, TransientError: of the last one tried; more than `max_bad` episodes cannot be read, or none can.
    """
    bad: list[ConfigError | OSError | TransientError] = []
    for _, rows in groupby((manifest.row(i) for i in index), key=attrgetter("uid")):
        try:
            return patiently(partial(read, next(rows)))
        except (ConfigError, OSError, TransientError) as error:
            bad.append(error)
        if len(bad) > max_bad:
            break
    raise bad[-1]
