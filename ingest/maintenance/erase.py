"""`eicorpus forget`: erases an episode from datasets, latents and every table of every snapshot. The snapshots are rewritten without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ingest.corpus import publishing, snapshot
from ingest.corpus.commit import datasets_of
from ingest.corpus.erasure import INTENT, Intent, folder_of
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.remote_link import read_link
from ingest.corpus.snapshot import Part, Snapshot
from ingest.corpus.snapshot_list import load_all
from ingest.corpus.tombstones import tombstones
from ingest.corpus.writer import recover
from ingest.maintenance.erasure_plan import (
    AffectedPart,
    ErasurePreview,
    erasure_impact,
    find_episodes,
    paths_of,
    replace_parts,
    rewrite_parts,
)
from ingest.maintenance.tombstone_writer import (
    ErasureRequest,
    frozen_tasks,
    pinned_row,
    tombstone,
    write_placeholders,
)
from ingest.storage.local import LocalStorage
from schemas.committed_rows import ArtifactRow, TombstoneRow
from schemas.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRewrite:
    """Snapshots with the rows gone: `by` says which part takes the place of which, `parts` which uids each had."""

    corpus: Path
    disk: LocalStorage
    by: Mapping[str, Part | None]
    parts: Sequence[AffectedPart]
    tombstones: Mapping[str, TombstoneRow]
    pins: Mapping[str, ArtifactRow]

    def tables(self, of: Snapshot, uids: Sequence[str]) -> dict[str, list[Part]]:
        """Parts of a snapshot in which the episodes `uids` were."""
        tables = replace_parts(of, self.by)
        rows = [self.tombstones[uid] for uid in uids]
        holes = {row.dataset_path for row in [*rows, *tombstones(self.corpus, of)]}
        pins = [row for path, row in self.pins.items() if path in holes]
        if rows:
            part = snapshot.write_part(self.disk, self.corpus, TombstoneRow, rows)
            tables[TombstoneRow.TABLE].append(part)
        if pins:
            part = snapshot.write_part(self.disk, self.corpus, ArtifactRow, pins)
            tables[ArtifactRow.TABLE].append(part)
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


def forget(
    corpus: CorpusLayout,
    disk: LocalStorage,
    uids: Sequence[str],
    *,
    reason: str,
    run_id: str,
    erased_at: datetime,
) -> tuple[ErasurePreview, Snapshot]:
    """Erase episodes. The caller holds the writer lock.

    Returns:
        What went, and the snapshot without it; the one there was when all were forgotten before.

    Raises:
        ConfigError: an unknown episode, or a damaged snapshot; nothing was changed.
        TransientError: another writer was first; run again.
    """
    if (link := read_link(corpus.root)) is not None:
        raise ConfigError(
            f"a working copy of {link.uri}: an erasure there would leave the objects of the bucket",
            remedy="erase in the bucket by hand what `eicorpus explain` names, or in a local copy of the corpus",
            where=str(corpus.root),
        )
    current = snapshot.load(corpus.root)
    datasets = datasets_of(corpus.root, current)
    recover(corpus, disk, current, datasets)
    snapshots = load_all(corpus.root)
    selection = find_episodes(corpus, current, uids)
    seen = erasure_impact(corpus, current, selection, snapshots)
    if not selection.uids:
        return seen.looked, current
    folder = folder_of(corpus, run_id)
    disk.make_dir(folder)
    tasks = frozen_tasks(corpus.root, current, selection, datasets)
    lying = write_placeholders(
        corpus, disk, selection, folder, {p: (datasets[p], tasks[p]) for p in tasks}
    )
    asked = ErasureRequest(reason=reason, run_id=run_id, at=erased_at)
    rewriting = SnapshotRewrite(
        corpus=corpus.root,
        disk=disk,
        by=rewrite_parts(disk, corpus.root, seen.parts, seen.doomed),
        parts=seen.parts,
        tombstones={
            uid: tombstone(uid, selection, lying.get(uid, ()), asked) for uid in selection.uids
        },
        pins={path: pinned_row(path, texts) for path, texts in tasks.items()},
    )
    intent = Intent(
        run_id=run_id,
        files={each.name: each.row["path"] for some in lying.values() for each in some},
        history=rewriting.history(snapshots),
    )
    tables = rewriting.tables(current, selection.uids)
    key = (folder / INTENT).relative_to(corpus.root).as_posix()
    disk.at(corpus.root).put(key, intent.to_json().encode(), is_durable=True)
    published = publishing.publish_tables(disk, corpus.root, current, tables, run_id)
    recover(corpus, disk, published, datasets_of(corpus.root, published))
    return seen.looked, published
