"""`eicorpus forget`: an episode is erased from datasets, latents and every table of every snapshot; a tombstone keeps its place.

    look -> parts without its rows, and what shall lie in its place, staged -> snapshot (THE COMMIT) -> ingest/life/erasure.py

Before the snapshot nothing that anybody reads has changed; after it `recover` finishes, in this run or in the next. No other episode's
files change, nor its number. Older snapshots are written again without the rows: the one case in which history changes, and its point.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest import snapshot
from ingest.commit import datasets_of
from ingest.corpus import Corpus
from ingest.curation.manifest.store import manifest_names
from ingest.disk import Disk
from ingest.life.doomed import Doomed, Touched, copies_of, replaced, rewritten, touched
from ingest.life.erasure import INTENT, Intent, folder_of
from ingest.life.history import every
from ingest.life.placeholder import Filling, Hole, fill
from ingest.meta_projection import Dataset
from ingest.recovery import recover
from ingest.snapshot import Part, Snapshot
from ingest.tombstones import ERASED_TASK, tombstones
from schemas.errors import ConfigError
from schemas.manifest import FOLDER as MANIFESTS
from schemas.manifest import ROWS_FILE

Row = dict[str, Any]
_IDENTITY = ("uid", "source", "dataset", "episode_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is known of the episodes to forget. `episodes` by uid: those that are committed."""

    uids: tuple[str, ...]
    already: tuple[str, ...]  # forgotten before
    episodes: Mapping[str, Row]
    verdicts: Mapping[str, Sequence[Row]]

    @property
    def datasets(self) -> list[str]:
        return sorted({row["dataset_path"] for row in self.episodes.values()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What an erasure takes away. `rows` by table, of the latest snapshot; `manifests` that name an episode of it."""

    found: Found
    rows: Mapping[str, int]
    snapshots: int  # that are written again
    manifests: tuple[str, ...]
    undecided: tuple[str, ...]  # others, whose decision in `duplicates` goes with it


def look(corpus: Corpus, current: Snapshot, uids: Sequence[str]) -> Found:
    """Find the episodes, committed or not.

    Raises:
        ConfigError: the catalog knows nothing of one of them.
    """
    wanted = tuple(dict.fromkeys(uids))
    only = pc.field("uid").isin(wanted)
    episodes = {
        row["uid"]: row for row in current.read(corpus.root, "episodes", only=only).to_pylist()
    }
    verdicts: dict[str, list[Row]] = {}
    for row in current.read(corpus.root, "verdicts", only=only).to_pylist():
        verdicts.setdefault(row["uid"], []).append(row)
    buried = {row["uid"] for row in tombstones(corpus.root, current)}
    already = tuple(uid for uid in wanted if uid in buried and uid not in episodes)
    unknown = [uid for uid in wanted if uid not in {*episodes, *verdicts, *buried}]
    if unknown:
        raise ConfigError(
            f"no episode {', '.join(unknown[:5])} in snapshot {current.number}; "
            'see eicorpus query "SELECT uid, source, episode_id FROM verdicts"',
            where=str(corpus.root),
        )
    rest = tuple(uid for uid in wanted if uid not in already)
    return Found(uids=rest, already=already, episodes=episodes, verdicts=verdicts)


def preview(corpus: Corpus, current: Snapshot, uids: Sequence[str]) -> Preview:
    """What `forget` would take away. Touches nothing."""
    return _seen(corpus, current, look(corpus, current, uids), every(corpus.root))[0]


def _seen(
    corpus: Corpus, current: Snapshot, found: Found, snapshots: Sequence[Snapshot]
) -> tuple[Preview, Doomed, list[Touched]]:
    mine = pa.array(found.uids, pa.string())
    copies = copies_of(corpus.root, snapshots, mine)
    datasets = pa.array(found.datasets, pa.string())
    doomed = Doomed(uids=mine, copies=copies, datasets=datasets)
    parts = touched(corpus.root, snapshots, doomed)
    now = {part.path for table in current.tables for part in current.parts(table)}
    rows: Counter[str] = Counter()
    for each in parts:
        rows[each.table] += each.rows if each.part.path in now else 0
    changed = {each.part.path for each in parts}
    looked = Preview(
        found=found,
        rows=dict(rows),
        snapshots=sum(not changed.isdisjoint(_paths(each)) for each in snapshots),
        manifests=_naming(corpus.root, mine),
        undecided=tuple(sorted(set(copies.to_pylist()) - set(found.uids))),
    )
    return looked, doomed, parts


def _paths(each: Snapshot) -> set[str]:
    return {part.path for table in each.tables for part in each.parts(table)}


def _naming(corpus: Path, uids: pa.Array) -> tuple[str, ...]:
    """Manifests with a row of one of the uids."""
    only = pc.field("uid").isin(uids)
    return tuple(
        name
        for name in manifest_names(corpus)
        if pq.read_table(
            corpus / MANIFESTS / name / ROWS_FILE, columns=["uid"], filters=only, partitioning=None
        ).num_rows
    )


def forget(
    corpus: Corpus,
    disk: Disk,
    uids: Sequence[str],
    *,
    reason: str,
    run_id: str,
    erased_at: datetime,
) -> tuple[Preview, Snapshot]:
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
    snapshots = every(corpus.root)
    found = look(corpus, current, uids)
    looked, doomed, parts = _seen(corpus, current, found, snapshots)
    if not found.uids:
        return looked, current
    folder = folder_of(corpus, run_id)
    disk.make_dir(folder)
    pins, task_indices = _pins(corpus.root, current, found, datasets)
    fillings = _fillings(corpus, disk, found, folder, datasets, task_indices)
    buried = {
        uid: _tombstone(
            uid, found, fillings.get(uid, []), reason=reason, run_id=run_id, at=erased_at
        )
        for uid in found.uids
    }
    writing = _Writing(
        corpus=corpus.root,
        disk=disk,
        by=rewritten(disk, corpus.root, parts, doomed),
        parts=parts,
        tombstones=buried,
        pins=pins,
    )
    intent = Intent(
        run_id=run_id,
        files={each.name: each.row["path"] for some in fillings.values() for each in some},
        history=writing.history(snapshots),
    )
    tables = writing.tables(current, list(buried))
    disk.write(folder / INTENT, intent.to_json().encode(), is_durable=True)
    disk.sync()
    made = snapshot.publish_tables(disk, corpus.root, current, tables, run_id)
    recover(corpus, disk, made, datasets_of(corpus.root, made))
    return looked, made


def _pins(
    corpus: Path, current: Snapshot, found: Found, datasets: Mapping[str, Dataset]
) -> tuple[dict[str, Row], dict[str, int]]:
    """Row of `artifacts` with the tasks of each dataset that loses an episode, and the number of ERASED_TASK there.

    A text that no episode has any more goes; its number stays.
    """
    left: dict[str, set[str]] = {path: set() for path in found.datasets}
    only = pc.field("dataset_path").isin(pa.array(found.datasets, pa.string()))
    columns = ["uid", "dataset_path", "tasks"]
    for row in current.read(corpus, "episodes", columns, only=only).to_pylist():
        if row["uid"] not in found.episodes:
            left[row["dataset_path"]].update(row["tasks"])
    pins, indices = {}, {}
    for path in found.datasets:
        texts = _texts(datasets[path], left[path])
        indices[path] = texts.index(ERASED_TASK)
        pins[path] = {
            "uid": "",
            "kind": "tasks",
            "camera": None,
            "path": path,
            "num_bytes": None,
            "sha256": None,
            "num_frames": None,
            "detail_json": json.dumps({"tasks": texts}),
        }
    return pins, indices


def _texts(dataset: Dataset, left: Iterable[str]) -> list[str]:
    kept = {*left, ERASED_TASK}
    texts: list[str] = []
    for text, index in dataset.tasks.items():
        name = text if text in kept else f"[erased task {index}]"
        while text not in kept and name in kept:  # an odd task text of somebody's
            name += "'"
        texts.append(name)
    return texts if ERASED_TASK in texts else [*texts, ERASED_TASK]


def _fillings(
    corpus: Corpus,
    disk: Disk,
    found: Found,
    folder: Path,
    datasets: Mapping[str, Dataset],
    task_indices: Mapping[str, int],
) -> dict[str, list[Filling]]:
    out = {}
    for number, (uid, row) in enumerate(sorted(found.episodes.items())):
        path = row["dataset_path"]
        home = (corpus.root / "datasets").resolve()
        if not (corpus.root / path).resolve().is_relative_to(home):
            raise ConfigError(f"dataset {path} lies outside the corpus; not touched")
        hole = Hole(
            dataset=datasets[path],
            episode_index=row["episode_index"],
            index_from=row["index_from"],
            length=row["length"],
            task_index=task_indices[path],
        )
        out[uid] = fill(hole, folder, f"{number:06d}", disk)
    return out


def _tombstone(
    uid: str, found: Found, fillings: Sequence[Filling], *, reason: str, run_id: str, at: datetime
) -> Row:
    row = found.episodes.get(uid)
    verdicts = found.verdicts.get(uid, ())
    known = row if row is not None else verdicts[-1]
    place = ("dataset_path", "episode_index", "index_from", "length")
    return {
        **{name: known[name] for name in _IDENTITY},
        **{name: None if row is None else row[name] for name in place},
        "reason": reason,
        "erased_at": at,
        "run_id": run_id,
        "files": [each.row for each in fillings],
        "ends": [{"run_id": v["run_id"], "state": v["state"]} for v in verdicts],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writing:
    """Snapshots with the rows gone: `by` says which part takes the place of which, `parts` which uids each had."""

    corpus: Path
    disk: Disk
    by: Mapping[str, Part | None]
    parts: Sequence[Touched]
    tombstones: Mapping[str, Row]
    pins: Mapping[str, Row]

    def tables(self, of: Snapshot, uids: Sequence[str]) -> dict[str, list[Part]]:
        """Parts of a snapshot in which the episodes `uids` were."""
        tables = replaced(of, self.by)
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
            paths = _paths(each)
            if paths.isdisjoint(self.by):
                continue
            there = {
                uid
                for found in self.parts
                if found.table == "episodes" and found.part.path in paths
                for uid in found.uids
            }
            tables = self.tables(each, [uid for uid in self.tombstones if uid in there])
            made = Snapshot(
                number=each.number,
                run_id=each.run_id,
                tables={name: tuple(parts) for name, parts in tables.items()},
            )
            out[each.number] = snapshot.text_of(made)
        return out
