"""`eicorpus forget`: an episode is erased from datasets, latents and every table of every snapshot; a tombstone keeps its place.

    look -> parts without its rows, and what shall lie in its place, staged -> snapshot (THE COMMIT) -> ingest/corpus/erasure.py

Before the snapshot nothing that anybody reads has changed; after it `recover` finishes, in this run or in the next. No other episode's
files change, nor its number. Older snapshots are written again without the rows: the one case in which history changes, and its point.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ingest.corpus import snapshot
from ingest.corpus.commit import datasets_of
from ingest.corpus.erasure import INTENT, Intent, folder_of
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.recovery import recover
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.snapshot_list import load_all
from ingest.maintenance.affected_parts import rewrite_parts
from ingest.maintenance.erasure_plan import ErasurePreview, erasure_impact, find_episodes
from ingest.maintenance.snapshot_rewrite import SnapshotRewrite
from ingest.maintenance.tombstone_writer import (
    ErasureRequest,
    frozen_tasks,
    pinned_row,
    tombstone,
    write_placeholders,
)
from ingest.storage.local import LocalStorage


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
        ConfigError: an episode that nobody knows, or a damaged snapshot; nothing was changed.
        TransientError: another writer was first; run again.
    """
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
    disk.write(folder / INTENT, intent.to_json().encode(), is_durable=True)
    published = snapshot.publish_tables(disk, corpus.root, current, tables, run_id)
    recover(corpus, disk, published, datasets_of(corpus.root, published))
    return seen.looked, published
