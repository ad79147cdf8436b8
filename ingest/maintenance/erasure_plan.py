"""What an erasure would take away: the episodes as the catalog knows them, and every part of every snapshot with a row of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ingest.catalog.episode_lookup import LIST
from ingest.catalog.next_command import next_command
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.redaction import naming
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.snapshot_list import load_all
from ingest.corpus.tombstones import Row, tombstones
from ingest.maintenance.affected_parts import (
    AffectedPart,
    ErasureScope,
    affected_parts,
    copies_of,
    paths_of,
)
from schemas.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSelection:
    """What is known of the episodes to forget. `episodes` by uid: those that are committed."""

    uids: tuple[str, ...]
    already: tuple[str, ...]  # forgotten before
    episodes: Mapping[str, Row]
    verdicts: Mapping[str, Sequence[Row]]

    @property
    def datasets(self) -> list[str]:
        return sorted({row["dataset_path"] for row in self.episodes.values()})


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasurePreview:
    """What an erasure takes away. `rows` by table, of the latest snapshot; `manifests` that name an episode of it."""

    selection: EpisodeSelection
    rows: Mapping[str, int]
    snapshots: int  # that are written again
    manifests: tuple[str, ...]
    undecided: tuple[str, ...]  # others, whose decision in `duplicates` goes with it


def find_episodes(corpus: CorpusLayout, current: Snapshot, uids: Sequence[str]) -> EpisodeSelection:
    """Find the episodes, committed or not.

    Raises:
        ConfigError: the catalog knows nothing of one of them.
    """
    uids_once = tuple(dict.fromkeys(uids))
    only = pc.field("uid").isin(uids_once)
    episodes = {
        row["uid"]: row for row in current.read(corpus.root, "episodes", only=only).to_pylist()
    }
    verdicts: dict[str, list[Row]] = {}
    for row in current.read(corpus.root, "verdicts", only=only).to_pylist():
        verdicts.setdefault(row["uid"], []).append(row)
    buried = {row["uid"] for row in tombstones(corpus.root, current)}
    already = tuple(uid for uid in uids_once if uid in buried and uid not in episodes)
    unknown = [uid for uid in uids_once if uid not in {*episodes, *verdicts, *buried}]
    if unknown:
        raise ConfigError(
            f"no episode {', '.join(unknown[:5])} in snapshot {current.number}; "
            f"list some with: {next_command(LIST, corpus.root)}",
            where=str(corpus.root),
        )
    rest = tuple(uid for uid in uids_once if uid not in already)
    return EpisodeSelection(uids=rest, already=already, episodes=episodes, verdicts=verdicts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureImpact:
    """`looked` is what people are told; `doomed` and `parts` are what must be written again for it."""

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
        undecided=tuple(sorted(set(copies.to_pylist()) - set(selection.uids))),
    )
    return ErasureImpact(looked=looked, doomed=doomed, parts=parts)
