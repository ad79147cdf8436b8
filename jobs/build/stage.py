"""What every kind of target has: its state, and how it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from ingest.corpus import snapshot
from ingest.corpus.layout import MARKER, CorpusLayout, open_corpus
from ingest.corpus.snapshot import Snapshot
from jobs.build.records import Records, StageCounts, TargetRecord
from jobs.stages.resources import Resources
from schemas.catalog import TABLES
from schemas.errors import ConfigError


class TargetStatus(StrEnum):
    UP_TO_DATE = "up to date"
    STALE = "stale"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingWork:
    """How much there is to do; None: unknown until what comes before is built."""

    count: int | None = None
    hours: float | None = None
    num_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetState:
    """Of one target now. `why` it is stale or missing. `counts` and `note`: of an up-to-date target."""

    status: TargetStatus
    why: str = ""
    todo: PendingWork = PendingWork()
    counts: StageCounts = field(default_factory=StageCounts)
    note: str = ""

    @property
    def is_up_to_date(self) -> bool:
        return self.status is TargetStatus.UP_TO_DATE


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """One target after it was built. `failure`: why it did not end well, so that it is built again. `is_partial`: only some items failed, and
    what reads the target is built all the same."""

    counts: StageCounts
    made_from: Mapping[str, str]
    result: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    failure: str = ""
    is_partial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildContext:
    """The corpus at one moment, and where work runs. `corpus` None: there is none yet."""

    corpus: CorpusLayout | None
    current: Snapshot
    records: Records
    resources: Resources
    check: bool = False  # compare contents, not only sizes and times

    @staticmethod
    def at(folder: Path, resources: Resources, *, check: bool = False) -> BuildContext:
        """The latest snapshot of the corpus in a folder."""
        corpus = open_corpus(folder) if (folder / MARKER).is_file() else None
        current = Snapshot() if corpus is None else snapshot.load(corpus.root)
        records = Records(corpus)
        return BuildContext(
            corpus=corpus, current=current, records=records, resources=resources, check=check
        )

    def now(self) -> BuildContext:
        """The same corpus at its latest snapshot."""
        return replace(self, current=snapshot.load(self.layout.root))

    @property
    def layout(self) -> CorpusLayout:
        """The corpus; for stages that run after the sources.

        Raises:
            ConfigError: there is none.
        """
        if self.corpus is None:
            raise ConfigError("there is no corpus yet; build the sources first")
        return self.corpus

    def rows(self, table: str) -> int:
        if table not in TABLES:
            raise KeyError(table)
        return sum(part.rows for part in self.current.parts(table))


class Stage(Protocol):
    """A target of the spec. `unit`: what its counts count."""

    @property
    def target(self) -> str: ...
    @property
    def unit(self) -> str: ...
    def state(self, context: BuildContext, *, counts: bool) -> TargetState:
        """
        Args:
            counts: also find out how much there is to do, where that takes more than the state.
        """
        ...

    def build(self, context: BuildContext) -> StageResult: ...


def compared(
    record: TargetRecord | None, now: Mapping[str, str], words: Mapping[str, str]
) -> TargetState | None:
    """Up to date, or why not, by what the result was made from; None: there is no record.

    Args:
        words: name in `made_from` -> what is reported of it when it differs.
    """
    if record is None:
        return None
    changed = [words.get(key, key) for key in now if record.made_from.get(key) != now[key]]
    if changed or set(now) != set(record.made_from):
        return TargetState(status=TargetStatus.STALE, why=", ".join(changed) or "other settings")
    return TargetState(status=TargetStatus.UP_TO_DATE, counts=settled(record.counts))


def settled(counts: StageCounts) -> StageCounts:
    """The counts of a build as the next one sees them: what was done is up to date."""
    return counts.model_copy(update={"up_to_date": counts.up_to_date + counts.done, "done": 0})
