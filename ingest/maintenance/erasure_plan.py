"""What an erasure removes: the episodes, and the rows of every catalog part in every snapshot that hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ingest.catalog.episode_lookup import LIST
from ingest.catalog.next_command import next_command
from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.manifest_folders import naming
from ingest.corpus.snapshot import Part, Snapshot
from ingest.corpus.snapshot_list import load_all
from ingest.corpus.tombstones import tombstones
from ingest.storage.local import LocalStorage
from schemas.catalog import TABLES
from schemas.committed_rows import EpisodeRow, ExportRow, VerdictRow
from schemas.errors import ConfigError
from schemas.parquet_file import read_batches, read_schema, read_table

BATCH_ROWS = 131_072
# What columns of a table decide; every other table that has a uid goes by it alone. Tombstones stay: they are what is left.
_MORE = {"duplicates": ["cluster", "kept_uid"], "artifacts": ["kind", "path"]}
_UNTOUCHED = ("tombstones",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureScope:
    """Rows of `uids`; rows of `copies` in `duplicates`, whose decision rests on an erased one; pinned tasks of `datasets`."""

    uids: pa.Array
    copies: pa.Array
    datasets: pa.Array

    def mask(self, table: str, rows: pa.Table) -> pa.ChunkedArray:
        """Which of `rows` go; never NULL."""
        affected = pc.is_in(rows["uid"], value_set=self.uids)
        if table == "duplicates":
            affected = pc.or_(affected, pc.is_in(rows["uid"], value_set=self.copies))
        if table == "artifacts":
            is_pinned = pc.fill_null(pc.equal(rows["kind"], "tasks"), False)  # noqa: FBT003  pyarrow's own
            of_dataset = pc.is_in(rows["path"], value_set=self.datasets)
            affected = pc.or_(affected, pc.and_(is_pinned, of_dataset))
        return affected


def tables_with_uid() -> list[str]:
    return [
        name for name, schema in TABLES.items() if "uid" in schema.names and name not in _UNTOUCHED
    ]


def copies_of(corpus: Path, snapshots: Iterable[Snapshot], uids: pa.Array) -> pa.Array:
    """Episodes whose decision in `duplicates` names one of `uids`: it must be made again."""
    copies: set[str] = set()
    for part in _parts(snapshots, "duplicates"):
        rows = read_table(part.file(corpus), ["uid", "cluster", "kept_uid"])
        names = pc.or_(
            pc.is_in(rows["cluster"], value_set=uids), pc.is_in(rows["kept_uid"], value_set=uids)
        )
        copies.update(rows.filter(names)["uid"].to_pylist())
    return pa.array(sorted(copies), pa.string())


@dataclass(frozen=True, slots=True, kw_only=True)
class AffectedPart:
    """A part with rows that go: how many of which table, and which of the uids it has."""

    table: str
    part: Part
    rows: int
    uids: frozenset[str]


def affected_parts(
    corpus: Path, snapshots: Iterable[Snapshot], doomed: ErasureScope
) -> list[AffectedPart]:
    """Every part of any snapshot that must be written again; only the deciding columns are read."""
    seen = list(snapshots)
    return [
        affected
        for table in tables_with_uid()
        for part in _parts(seen, table)
        if (affected := _touched(corpus, table, part, doomed)) is not None
    ]


def _touched(corpus: Path, table: str, part: Part, doomed: ErasureScope) -> AffectedPart | None:
    columns = ["uid", *_MORE.get(table, [])]
    rows = read_table(part.file(corpus), columns)
    erased = rows.filter(doomed.mask(table, rows))
    if not erased.num_rows:
        return None
    uids = frozenset(erased["uid"].to_pylist())
    return AffectedPart(table=table, part=part, rows=erased.num_rows, uids=uids)


def rewrite_parts(
    disk: LocalStorage, corpus: Path, affected: Iterable[AffectedPart], doomed: ErasureScope
) -> dict[str, Part | None]:
    """Path of each part -> the part that takes its place; None where nothing is left. Columns stay as they were."""
    out: dict[str, Part | None] = {}
    for each in affected:
        if each.rows == each.part.rows:
            out[each.part.path] = None
            continue
        path = each.part.file(corpus)
        kept = _kept(path, each.table, doomed)
        out[each.part.path] = snapshot.write_tables(
            disk, corpus, each.table, kept, schema=read_schema(path)
        )
    return out


def _kept(path: Path, table: str, doomed: ErasureScope) -> Iterator[pa.Table]:
    for batch in read_batches(path, BATCH_ROWS):
        rows = pa.Table.from_batches([batch])
        yield rows.filter(pc.invert(doomed.mask(table, rows)))


def replace_parts(each: Snapshot, by: Mapping[str, Part | None]) -> dict[str, list[Part]]:
    """The parts of a snapshot with those of `by` in their places."""
    return {
        table: [new for part in each.parts(table) if (new := by.get(part.path, part)) is not None]
        for table in TABLES
    }


def paths_of(each: Snapshot) -> set[str]:
    """Every part that a snapshot names."""
    return {part.path for table in each.tables for part in each.parts(table)}


def _parts(snapshots: Iterable[Snapshot], table: str) -> list[Part]:
    """Each part once, in the order of first mention."""
    return list({part.path: part for each in snapshots for part in each.parts(table)}.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSelection:
    """What is known of the episodes to forget. `episodes` by uid: those that are committed."""

    uids: tuple[str, ...]
    already: tuple[str, ...]  # forgotten before
    episodes: Mapping[str, EpisodeRow]
    verdicts: Mapping[str, Sequence[VerdictRow]]

    @property
    def datasets(self) -> list[str]:
        return sorted({row.dataset_path for row in self.episodes.values()})


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasurePreview:
    """What an erasure takes away. `rows` by table, of the latest snapshot; `manifests` that name an episode of it.

    `exports`: folders of exports, and addresses of pushed copies, that hold an episode of it. No erasure reaches them.
    """

    selection: EpisodeSelection
    rows: Mapping[str, int]
    snapshots: int  # that are written again
    manifests: tuple[str, ...]
    exports: tuple[str, ...]
    undecided: tuple[str, ...]  # others, whose decision in `duplicates` goes with it


def find_episodes(corpus: CorpusLayout, current: Snapshot, uids: Sequence[str]) -> EpisodeSelection:
    """Find the episodes, committed or not.

    Raises:
        ConfigError: the catalog knows nothing of one of them.
    """
    uids_once = tuple(dict.fromkeys(uids))
    only = pc.field("uid").isin(uids_once)
    episodes = {row.uid: row for row in current.rows(corpus.root, EpisodeRow, only=only)}
    verdicts: dict[str, list[VerdictRow]] = {}
    for verdict in current.rows(corpus.root, VerdictRow, only=only):
        verdicts.setdefault(verdict.uid, []).append(verdict)
    buried = {row.uid for row in tombstones(corpus.root, current)}
    already = tuple(uid for uid in uids_once if uid in buried and uid not in episodes)
    unknown = [uid for uid in uids_once if uid not in {*episodes, *verdicts, *buried}]
    if unknown:
        raise ConfigError(
            f"no episode {', '.join(unknown[:5])} in snapshot {current.number}",
            remedy=f"list some with: {next_command(LIST, corpus.root)}",
            where=str(corpus.root),
        )
    rest = tuple(uid for uid in uids_once if uid not in already)
    return EpisodeSelection(uids=rest, already=already, episodes=episodes, verdicts=verdicts)


def _exports_of(corpus: CorpusLayout, current: Snapshot, uids: set[str]) -> tuple[str, ...]:
    """Where exports and pushed copies hold one of the episodes."""
    rows = current.rows(corpus.root, ExportRow)
    return tuple(sorted({row.location for row in rows if not uids.isdisjoint(row.uids)}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureImpact:
    """`looked` is what is reported; `doomed` and `parts` are what must be written again for it."""

    looked: ErasurePreview
    doomed: ErasureScope
    parts: Sequence[AffectedPart]


def erasure_preview(corpus: CorpusLayout, current: Snapshot, uids: Sequence[str]) -> ErasurePreview:
    """What `forget` would take away. Touches nothing."""
    return erasure_impact(
        corpus, current, find_episodes(corpus, current, uids), load_all(corpus.root)
    ).looked


def erasure_impact(
    corpus: CorpusLayout,
    current: Snapshot,
    selection: EpisodeSelection,
    snapshots: Sequence[Snapshot],
) -> ErasureImpact:
    """Look through every part there is; only the deciding columns are read."""
    selected = pa.array(selection.uids, pa.string())
    copies = copies_of(corpus.root, snapshots, selected)
    datasets = pa.array(selection.datasets, pa.string())
    doomed = ErasureScope(uids=selected, copies=copies, datasets=datasets)
    parts = affected_parts(corpus.root, snapshots, doomed)
    now = {part.path for table in current.tables for part in current.parts(table)}
    rows: Counter[str] = Counter()
    for each in parts:
        rows[each.table] += each.rows if each.part.path in now else 0
    changed = {each.part.path for each in parts}
    looked = ErasurePreview(
        selection=selection,
        rows=dict(rows),
        snapshots=sum(not changed.isdisjoint(paths_of(each)) for each in snapshots),
        manifests=naming(corpus.root, selected),
        exports=_exports_of(corpus, current, {*selection.uids, *selection.already}),
        undecided=tuple(sorted(set(copies.to_pylist()) - set(selection.uids))),
    )
    return ErasureImpact(looked=looked, doomed=doomed, parts=parts)
