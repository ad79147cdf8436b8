"""What an exported table holds, kept with it as properties, and what is left to do for another snapshot."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from ingest.corpus.snapshot import Part, Snapshot, text_of
from schemas.catalog import TABLES
from schemas.errors import ConfigError

PREFIX = "eicorpus."


class ExportStep(StrEnum):
    """What becomes of a table."""

    NOTHING = "nothing"  # it holds this snapshot's rows
    APPEND = "append"  # it holds the first parts of them
    REPLACE = "replace"  # its rows are in other parts now: a compaction
    ANEW = "anew"  # it, or its history, has rows of erased episodes: nothing of it may stay


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Which snapshot of which corpus, and its parts of one table, in order. `erasures`: tombstones there were."""

    corpus: str
    snapshot: int
    snapshot_sha256: str
    num_parts: int
    parts_sha256: str
    erasures: int

    @staticmethod
    def of(corpus_uid: str, current: Snapshot, table: str) -> Mark:
        return Mark(
            corpus=corpus_uid,
            snapshot=current.number,
            snapshot_sha256=hashlib.sha256(text_of(current).encode()).hexdigest(),
            num_parts=len(current.parts(table)),
            parts_sha256=_sha256(current.parts(table)),
            erasures=sum(part.rows for part in current.parts("tombstones")),
        )

    @staticmethod
    def read(properties: Mapping[str, str], where: str) -> Mark:
        """
        Raises:
            ConfigError: the table is not one of ours.
        """
        try:
            values = {name: properties[f"{PREFIX}{name}"] for name in Mark.__dataclass_fields__}
            return Mark(
                corpus=values["corpus"],
                snapshot=int(values["snapshot"]),
                snapshot_sha256=values["snapshot_sha256"],
                num_parts=int(values["num_parts"]),
                parts_sha256=values["parts_sha256"],
                erasures=int(values["erasures"]),
            )
        except (KeyError, ValueError) as error:
            message = "a table of this name is there, and eicorpus did not write it; name another --namespace"
            raise ConfigError(message, where=where) from error

    @property
    def nothing(self) -> Mark:
        """Of a table to which no row was written yet: a stopped export goes on from here."""
        return replace(self, snapshot=0, snapshot_sha256="", num_parts=0, parts_sha256=_sha256(()))

    @property
    def properties(self) -> dict[str, str]:
        return {f"{PREFIX}{name}": str(value) for name, value in asdict(self).items()}

    @property
    def summary(self) -> dict[str, str]:
        """What an Iceberg snapshot says of itself."""
        names = ("corpus", "snapshot", "snapshot_sha256")
        return {f"{PREFIX}{name}": str(getattr(self, name)) for name in names}


def step_to(now: Mark, table: str, parts: Sequence[Part], was: Mark) -> ExportStep:
    """From what a table holds to what it shall hold.

    Raises:
        ConfigError: it holds another corpus.
    """
    if was.corpus != now.corpus:
        message = f"it holds corpus {was.corpus or '(no name)'}, this is {now.corpus or '(no name)'}; name another --namespace"
        raise ConfigError(message, where=table)
    can_tell = "uid" in TABLES[table].names and table != "tombstones"
    if can_tell and was.erasures != now.erasures:
        return ExportStep.ANEW
    if (was.num_parts, was.parts_sha256) == (now.num_parts, now.parts_sha256):
        return ExportStep.NOTHING
    is_start = was.num_parts <= len(parts) and _sha256(parts[: was.num_parts]) == was.parts_sha256
    return ExportStep.APPEND if is_start else ExportStep.REPLACE


def _sha256(parts: Sequence[Part]) -> str:
    return hashlib.sha256("\n".join(part.sha256 for part in parts).encode()).hexdigest()
