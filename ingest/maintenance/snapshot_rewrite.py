"""Snapshots as they are without the erased episodes: the latest, which becomes a new one, and all older ones, written again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest.corpus import snapshot
from ingest.corpus.snapshot import Part, Snapshot
from ingest.corpus.tombstones import Row, tombstones
from ingest.maintenance.affected_parts import AffectedPart, paths_of, replace_parts
from ingest.storage.local import LocalStorage


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRewrite:
    """Snapshots with the rows gone: `by` says which part takes the place of which, `parts` which uids each had."""

    corpus: Path
    disk: LocalStorage
    by: Mapping[str, Part | None]
    parts: Sequence[AffectedPart]
    tombstones: Mapping[str, Row]
    pins: Mapping[str, Row]

    def tables(self, of: Snapshot, uids: Sequence[str]) -> dict[str, list[Part]]:
        """Parts of a snapshot in which the episodes `uids` were."""
        tables = replace_parts(of, self.by)
        rows = [self.tombstones[uid] for uid in uids]
        holes = {row["dataset_path"] for row in [*rows, *tombstones(self.corpus, of)]}
        for name, added in (
            ("tombstones", rows),
            ("artifacts", [row for path, row in self.pins.items() if path in holes]),
        ):
            if added:
                tables[name].append(snapshot.write_part(self.disk, self.corpus, name, added))
        return tables

    def history(self, snapshots: Sequence[Snapshot]) -> dict[int, str]:
        """The new text of every snapshot there is that has such rows."""
        out = {}
        for each in snapshots:
            paths = paths_of(each)
            if paths.isdisjoint(self.by):
                continue
            uids = {
                uid
                for affected in self.parts
                if affected.table == "episodes" and affected.part.path in paths
                for uid in affected.uids
            }
            tables = self.tables(each, [uid for uid in self.tombstones if uid in uids])
            rewritten = Snapshot(
                number=each.number,
                run_id=each.run_id,
                tables={name: tuple(parts) for name, parts in tables.items()},
            )
            out[each.number] = snapshot.text_of(rewritten)
        return out
