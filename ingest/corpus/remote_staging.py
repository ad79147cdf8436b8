"""Staged episodes in the bucket of a corpus: how workers hand over what they made where they share no file system with the driver.

Below `staging/<folder of the episode>/` a video has the name of its SHA-256, so an upload that is repeated or late changes nothing. `staged.arrow`
is created last and makes the episode count. The committer places videos by copies inside the bucket. `eicorpus gc` removes what is left.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from ingest.corpus.commit_log import Conflict
from ingest.corpus.staging import MOST_STAGED_BYTES, STAGED, outcome_in
from ingest.storage.local import LocalStorage
from schemas.errors import Code, SourceError, TransientError, UnknownOutcome
from schemas.outcome import Outcome, StagedVideo
from schemas.regular_file import read_regular

FOLDER = "staging"  # of a corpus; that of an episode is named `<uid>.<digest of the work>`
MOST_TRIES = 8
# What parsing raises of bytes that are no staged episode.
_DAMAGED = (pa.ArrowException, AttributeError, KeyError, OSError, TypeError, ValueError)
_NAME = "[A-Za-z0-9_][A-Za-z0-9_.-]*"
_GROUP = re.compile(f"datasets/{_NAME}/{_NAME}")
_CAMERA = re.compile(_NAME)
_SHA256 = re.compile("[0-9a-f]{64}")


class StagingStore(Protocol):
    """What is needed of a bucket. `ingest.storage.object_store.ObjectStore` does it."""

    def get(self, key: str, *, max_bytes: int) -> bytes: ...
    def create(self, key: str, data: bytes) -> bool: ...
    def entries(self, prefix: str) -> Iterable[Mapping[str, Any]]: ...
    def put_file(self, key: str, path: Path) -> None: ...
    def delete(self, key: str) -> None: ...
    def delete_all(self, keys: Sequence[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class RemoteStaging:
    """The staging folder of one episode in a bucket."""

    store: StagingStore
    name: str

    @property
    def folder(self) -> str:
        return f"{FOLDER}/{self.name}"

    @property
    def _rows(self) -> str:
        return f"{self.folder}/{STAGED}"

    def video(self, video: StagedVideo) -> str:
        """The key of a video."""
        return f"{self.folder}/{video['sha256']}.mp4"

    def before(self) -> Outcome | None:
        """The outcome of an episode that was handed over before and is whole; None where there is none.

        Raises:
            TransientError: the store does not answer.
        """
        try:
            data = self.store.get(self._rows, max_bytes=MOST_STAGED_BYTES)
        except SourceError as error:
            if error.code is not Code.MISSING_FILE:
                raise
            return None
        outcome = self._outcome_in(data)
        if outcome is None:
            return None
        sizes = {each["key"]: each["size"] for each in self.store.entries(self.folder)}
        has_all = all(sizes.get(self.video(v)) == v["num_bytes"] for v in _videos(outcome))
        return outcome if has_all else None

    def _outcome_in(self, data: bytes) -> Outcome | None:
        """None for bytes that are no staged episode of this name: anyone who may write to the bucket may have put them there."""
        try:
            outcome = outcome_in(data)
            staged = outcome.staged
            if staged is None or {outcome.uid, staged.episode.uid} != {uid_in(self._rows)}:
                return None
            videos = [
                (video["camera"], video["sha256"], video["num_bytes"]) for video in staged.videos
            ]
            is_sound = bool(_GROUP.fullmatch(staged.group)) and all(
                _CAMERA.fullmatch(camera) and _SHA256.fullmatch(sha256) and num_bytes >= 0
                for camera, sha256, num_bytes in videos
            )
        except _DAMAGED:
            return None
        return outcome if is_sound else None

    def upload(self, folder: Path, outcome: Outcome) -> Outcome:
        """Hand over what a worker has staged in a local folder. Returns the outcome that counts: of the worker that was first.

        Raises:
            TransientError: the store does not answer.
        """
        for video in _videos(outcome):
            self.store.put_file(self.video(video), folder / video["name"])
        data = read_regular(folder / STAGED, max_bytes=MOST_STAGED_BYTES)
        for _ in range(MOST_TRIES):
            with suppress(UnknownOutcome):
                if self.store.create(self._rows, data):
                    return outcome
                if (standing := self.before()) is not None:
                    return standing
                self.store.delete(self._rows)  # of an attempt whose videos were removed
        raise TransientError(
            "the store does not say whether it took a staged episode",
            remedy="run the same command again when the store answers",
            where=self._rows,
        )

    def fetch_rows(self, folder: Path, outcome: Outcome, disk: LocalStorage) -> None:
        """Copy the rows of an episode into its local staging folder.

        Raises:
            Conflict: they were removed or are those of another attempt. Its work is planned again.
            TransientError: the store does not answer.
        """
        try:
            data = self.store.get(self._rows, max_bytes=MOST_STAGED_BYTES)
        except SourceError as error:
            raise _taken(self._rows) from error
        if self._outcome_in(data) != outcome:
            raise _taken(self._rows)
        disk.make_dir(folder)
        disk.write(folder / STAGED, data)

    def remove(self, outcome: Outcome) -> None:
        """Remove an episode that is committed. What the store does not remove now is left to `eicorpus gc`."""
        with suppress(TransientError):
            self.store.delete_all([self._rows, *map(self.video, _videos(outcome))])


def uid_in(key: str) -> str:
    """Of which episode an object below `staging/` is; "" for one of no episode."""
    return key.split("/")[1].partition(".")[0]


def _videos(outcome: Outcome) -> Sequence[StagedVideo]:
    return outcome.staged.videos if outcome.staged is not None else ()


def _taken(key: str) -> Conflict:
    return Conflict(
        "a staged episode was removed from the bucket before it was committed",
        remedy="run the same command again; no data is lost",
        where=key,
    )
