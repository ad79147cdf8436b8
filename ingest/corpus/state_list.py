"""All states of a corpus in a bucket, by its commit log: what `eicorpus snapshot list` says of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ingest.corpus import commit_log, snapshot
from ingest.corpus.commit_log import LogEntry
from ingest.corpus.snapshot import Part, Snapshot
from ingest.corpus.snapshot_list import (
    SnapshotInfo,
    commands_recorded,
    manifests_by_snapshot,
    writer_of,
)
from ingest.corpus.working_copy import WorkingCopy
from schemas.catalog import TABLES

KIND_WRITERS = {
    "claim": "eicorpus ingest",
    "sweep": "eicorpus gc",
    "seal": "eicorpus gc",
    "erase": "eicorpus forget",
}


def list_states(copy: WorkingCopy) -> list[SnapshotInfo]:
    """Every state, oldest first. Counts are those of the commit: what was erased since is in them.

    Raises:
        ConfigError: an entry, a checkpoint or a manifest cannot be read.
        TransientError: the store does not answer.
    """
    manifests = manifests_by_snapshot(copy.root)
    commands = commands_recorded(copy.root, snapshot.load(copy.root))
    written_s = {
        each["key"]: each["modified_s"]
        for room in (commit_log.FOLDER, snapshot.FOLDER)
        for each in copy.store.entries(room)
    }
    infos = []
    for info, key in _infos(copy):
        infos.append(
            replace(
                info,
                command=commands.get(info.run_id) or info.command,
                published_s=written_s.get(key, 0.0),
                manifests=tuple(manifests.get(info.number, ())),
            )
        )
    return infos


def _infos(copy: WorkingCopy) -> Iterator[tuple[SnapshotInfo, str]]:
    """Each state, and the object that made it."""
    totals = _Totals()
    entries = [
        number
        for key in copy.store.list(commit_log.FOLDER)
        if (number := commit_log.number_of(key))
    ]
    first = min(entries, default=0)
    checkpoints = snapshot.numbers_in(copy.store.list(snapshot.FOLDER))
    # What was pushed has no entries: its states are checkpoints.
    base = [number for number in checkpoints if not first or number < first]
    for number in base:
        state, before = snapshot.load_from(copy.store, number), totals.rows
        totals = _Totals.of(state)
        command = writer_of(before, totals.rows, is_rewritten=True)
        yield totals.info(number, state.run_id, command), snapshot.key_of(number)
    for entry in copy.log.after(base[-1] if base else 0):
        before = totals.rows
        try:
            totals.add(entry)
        except (KeyError, TypeError) as error:
            raise snapshot.DamagedSnapshot(
                f"damaged (it does not fit the state before: {error})",
                remedy="restore the object from a copy of the corpus",
                where=commit_log.key_of(entry.number),
            ) from error
        command = KIND_WRITERS.get(entry.kind) or writer_of(
            before, totals.rows, is_rewritten=bool(entry.change.replaced)
        )
        yield totals.info(entry.number, entry.run_id, command), commit_log.key_of(entry.number)


@dataclass(slots=True)
class _Totals:
    """Sizes of the parts that a state has, so that a change costs no look at the other parts."""

    parts: dict[str, dict[str, Part]] = field(default_factory=lambda: {t: {} for t in TABLES})
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TABLES, 0))
    num_bytes: int = 0

    @staticmethod
    def of(state: Snapshot) -> _Totals:
        totals = _Totals()
        for table in TABLES:
            for part in state.parts(table):
                totals._take(table, part)
        return totals

    def add(self, entry: LogEntry) -> None:
        self.rows = dict(self.rows)  # that of the state before is compared with it
        for table, new in entry.change.replaced.items():
            for path in new.instead_of:
                part = self.parts[table].pop(path)
                self.rows[table] -= part.rows
                self.num_bytes -= part.num_bytes
            for part in new.parts:
                self._take(table, part)
        for table, parts in entry.change.added.items():
            for part in parts:
                self._take(table, part)

    def _take(self, table: str, part: Part) -> None:
        self.parts[table][part.path] = part
        self.rows[table] += part.rows
        self.num_bytes += part.num_bytes

    def info(self, number: int, run_id: str, command: str) -> SnapshotInfo:
        return SnapshotInfo(
            number=number,
            run_id=run_id,
            command=command,
            published_s=0.0,
            episodes=self.rows["episodes"],
            rows=sum(self.rows.values()),
            parts=sum(map(len, self.parts.values())),
            num_bytes=self.num_bytes,
            manifests=(),
        )
