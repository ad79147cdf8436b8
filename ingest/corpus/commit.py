"""The one committer: numbers staged episodes in plan order, moves them in, appends facts, publishes the snapshot.

Everything before the snapshot can be repeated, everything after it can be rebuilt: a stop at any point costs nothing.
Files are hard-linked from staging, so a batch that was not published is still staged as a whole.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ingest.corpus import lerobot_meta, snapshot
from ingest.corpus.column_checks import DamagedCatalog
from ingest.corpus.layout import CorpusLayout, data_file, video_file
from ingest.corpus.lerobot_meta import Dataset, JsonlAppends
from ingest.corpus.lerobot_writer import data_schema, numbered, parquet_bytes
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.staging import staged_rows_of
from ingest.corpus.tombstones import pinned_tasks, places, stats_of, tombstones
from ingest.storage.local import LocalStorage
from schemas.catalog import ADDED_COLUMNS
from schemas.errors import ConfigError, InvariantError
from schemas.outcome import Outcome, StagedEpisode, State

Rows = dict[str, list[dict[str, Any]]]
_QUARANTINE_COLUMNS = ("uid", "source", "episode_id", "code", "message")


@dataclass(kw_only=True)
class PendingOutcome:
    """One outcome waiting for its batch, with the folder it is staged in."""

    outcome: Outcome
    verdict: dict[str, Any]
    folder: Path
    episodes: int  # that it stands for


@dataclass(kw_only=True)
class Committer:
    """Holds the numbering of every dataset of a corpus, and the snapshot it builds on."""

    corpus: CorpusLayout
    disk: LocalStorage
    run_id: str
    parent: Snapshot
    datasets: dict[str, Dataset] = field(default_factory=dict)
    pending: list[PendingOutcome] = field(default_factory=list)
    is_broken_off: bool = (
        False  # a flush was left by an exception: this object must not be used again
    )
    ends: Counter[str] = field(default_factory=Counter)  # lasting ones: state -> episodes
    folders: set[Path] = field(default_factory=set)  # made by us already
    schemas: dict[str, pa.Schema] = field(default_factory=dict)  # of the data files, by dataset

    def add(
        self, outcome: Outcome, verdict: dict[str, Any], folder: Path, *, episodes: int = 1
    ) -> None:
        """Queue an outcome. Nothing lasting happens before `flush`."""
        waiting = PendingOutcome(outcome=outcome, verdict=verdict, folder=folder, episodes=episodes)
        self.pending.append(waiting)

    def _list_quarantined(self) -> None:
        """A plain list for people beside the tables: what to mend, and how to find it again."""
        lines = [
            json.dumps({name: waiting.verdict[name] for name in _QUARANTINE_COLUMNS})
            for waiting in self.pending
            if waiting.outcome.state is State.QUARANTINED
        ]
        if lines:
            self.disk.make_dir(self.corpus.quarantine)
            text = "".join(f"{line}\n" for line in lines)
            self.disk.append(self.corpus.path(f"quarantine/{self.run_id}.jsonl"), text.encode())

    def flush(self, extra: Mapping[str, list[dict[str, Any]]] | None = None) -> list[Outcome]:
        """Commit the queue, and `extra` rows with it. Returns the outcomes that are now lasting.

        Raises:
            TransientError: another writer was first.
        """
        if not self.pending and not extra:
            return []
        if self.is_broken_off:
            raise InvariantError("a broken-off commit cannot go on; start anew and recover")
        self.is_broken_off = True
        done = self._flush(extra or {})
        self.is_broken_off = False
        return done

    def _flush(self, extra: Mapping[str, list[dict[str, Any]]]) -> list[Outcome]:
        if snapshot.has_successor(self.corpus.root, self.parent):
            # Before anything is placed: our numbers are the other writer's by now, and so are the files of that name.
            raise snapshot.overtaken(self.parent.number + 1, self.corpus.root / snapshot.FOLDER)
        rows: Rows = {name: list(table_rows) for name, table_rows in extra.items()}
        lines: dict[str, JsonlAppends] = {}
        for waiting in self.pending:
            if waiting.outcome.staged is not None:
                self._place(waiting.outcome.staged, waiting.folder, rows, lines)
            verdict = {**waiting.verdict, "snapshot": self.parent.number + 1}
            rows.setdefault("verdicts", []).append(verdict)
        parts = {
            table: snapshot.write_part(self.disk, self.corpus.root, table, table_rows)
            for table, table_rows in rows.items()
            if table_rows
        }
        self.parent = snapshot.publish(self.disk, self.corpus.root, self.parent, parts, self.run_id)
        grown = ((self.datasets[path], added) for path, added in lines.items())
        lerobot_meta.append(self.disk, self.corpus.root, grown)
        self._list_quarantined()
        done, self.pending = self.pending, []
        for waiting in done:
            self.ends[waiting.verdict["state"]] += waiting.episodes
            self.disk.remove_tree(waiting.folder)
        return [waiting.outcome for waiting in done]

    def _place(
        self, staged: StagedEpisode, folder: Path, rows: Rows, lines: dict[str, JsonlAppends]
    ) -> None:
        """Give one episode its number, its files and its rows."""
        dataset = self._dataset(staged, rows)
        number, index_from = dataset.episodes, dataset.frames
        row = {
            **dict.fromkeys(ADDED_COLUMNS["episodes"]),  # an older version may have staged it
            **staged.episode,
            "dataset_path": dataset.path,
            "episode_index": number,
            "index_from": index_from,
            "run_id": self.run_id,
        }
        added = lines.setdefault(dataset.path, JsonlAppends())
        tasks = lerobot_meta.add_episode(added, dataset, row, feature_stats(staged))
        table = numbered(
            staged_rows_of(folder),
            self._schema(dataset),
            fps=dataset.fps,
            episode_index=number,
            index_from=index_from,
            task_indices=tasks,
        )
        uid = row["uid"]
        rows.setdefault("artifacts", []).append(
            self._place_rows(uid, dataset, number, table, staged)
        )
        for video in staged.videos:
            rows["artifacts"].append(self._place_video(uid, dataset, number, video, folder))
        rows.setdefault("episodes", []).append(row)
        rows.setdefault("segments", []).extend({"uid": uid, **s} for s in staged.segments)
        rows.setdefault("measurements", []).extend({"uid": uid, **m} for m in staged.measurements)

    def _dataset(self, staged: StagedEpisode, rows: Rows) -> Dataset:
        known = self.datasets.get(staged.group)
        if known is not None:
            if known.features != staged.features:
                raise InvariantError(f"{staged.group}: two feature tables share one dataset name")
            return known
        dataset = Dataset(
            path=staged.group,
            robot_type=staged.robot_type,
            fps=round(staged.episode["length"] / staged.episode["duration_s"]),
            features=staged.features,
            spec=staged.spec,
        )
        self.datasets[staged.group] = dataset
        detail = {
            "robot_type": dataset.robot_type,
            "fps": dataset.fps,
            "features": dataset.features,
            "spec": dataset.spec,
        }
        rows.setdefault("artifacts", []).append(
            _artifact(kind="features", path=dataset.path, detail=detail)
        )
        return dataset

    def _make_dir(self, folder: Path) -> None:
        if folder not in self.folders:
            self.disk.make_dir(folder)
            self.folders.add(folder)

    def _schema(self, dataset: Dataset) -> pa.Schema:
        if dataset.path not in self.schemas:
            self.schemas[dataset.path] = data_schema(dataset.features)
        return self.schemas[dataset.path]

    def _place_rows(
        self, uid: str, dataset: Dataset, number: int, table: pa.Table, staged: StagedEpisode
    ) -> dict[str, Any]:
        data = parquet_bytes(table)
        path = f"{dataset.path}/{data_file(number)}"
        self._make_dir((self.corpus.path(path)).parent)
        self.disk.create(self.corpus.path(path), data)
        return _artifact(
            uid=uid,
            kind="data",
            path=path,
            num_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            num_frames=table.num_rows,
            detail=staged.stats,
        )

    def _place_video(
        self, uid: str, dataset: Dataset, number: int, video: dict[str, Any], folder: Path
    ) -> dict[str, Any]:
        key = f"observation.images.{video['camera']}"
        path = f"{dataset.path}/{video_file(number, key)}"
        self._make_dir((self.corpus.path(path)).parent)
        self.disk.hard_link_or_copy(folder / video["name"], self.corpus.path(path))
        return _artifact(
            uid=uid,
            kind="video",
            camera=video["camera"],
            path=path,
            num_bytes=video["num_bytes"],
            sha256=video["sha256"],
            num_frames=video["num_frames"],
            detail=video["stats"],
        )


def _artifact(*, detail: Mapping[str, Any], **columns: Any) -> dict[str, Any]:
    empty = {
        "uid": "",
        "camera": None,
        "num_bytes": None,
        "sha256": None,
        "num_frames": None,
    }
    return {**empty, **columns, "detail_json": json.dumps(detail, sort_keys=False)}


def feature_stats(staged: StagedEpisode) -> dict[str, Any]:
    """Statistics by feature name: numeric columns, then videos."""
    videos = {f"observation.images.{v['camera']}": v["stats"] for v in staged.videos}
    return {**staged.stats, **videos}


def datasets_of(corpus: Path, current: Snapshot) -> dict[str, Dataset]:
    """Every dataset of a snapshot with its numbering, ready to be continued.

    Raises:
        DamagedCatalog: its episodes and tombstones do not number it from 0 without a gap.
    """
    datasets = empty_datasets(corpus, current)
    columns = ["dataset_path", "episode_index", "length", "tasks"]
    rows = current.read(corpus, "episodes", columns).sort_by("episode_index").to_pylist()
    if erased := places(tombstones(corpus, current)):
        rows = sorted([*rows, *erased], key=lambda row: row["episode_index"])
    for row in rows:
        dataset = _declared(datasets, row["dataset_path"])
        if row["episode_index"] != dataset.episodes:
            problem = f"episode {row['episode_index']} where {dataset.episodes} was expected"
            raise DamagedCatalog(f"{problem}; run eicorpus verify", where=dataset.path)
        dataset.task_indices(row["tasks"])
        dataset.grow(row)
    return datasets


def empty_datasets(corpus: Path, current: Snapshot) -> dict[str, Dataset]:
    """Every dataset of a snapshot before its first episode. Tasks that an erasure pinned are numbered."""
    datasets: dict[str, Dataset] = {}
    features = current.read(
        corpus, "artifacts", ["path", "detail_json"], only=pc.field("kind") == "features"
    )
    for artifact in features.to_pylist():
        datasets[artifact["path"]] = dataset_of(artifact)
    for path, texts in pinned_tasks(corpus, current).items():
        _declared(datasets, path).pin(texts)
    return datasets


def dataset_of(artifact: Mapping[str, Any]) -> Dataset:
    """An empty dataset, by its row of kind `features`.

    Raises:
        DamagedCatalog: the row does not describe one.
    """
    path = artifact["path"] or ""
    detail = snapshot.json_of(artifact["detail_json"], where=path)
    try:
        return Dataset(path=path, **detail)
    except TypeError as error:
        message = f"the features of a dataset cannot be read ({error}); run eicorpus verify"
        raise DamagedCatalog(message, where=path[:200]) from error


def _declared(datasets: Mapping[str, Dataset], path: str) -> Dataset:
    """The dataset that rows of the catalog name.

    Raises:
        ConfigError: no artifact says what its features are.
    """
    if path not in datasets:
        message = "the catalog has episodes of this dataset and no features of it; it is damaged"
        raise ConfigError(f"{message}, run eicorpus verify to see what else is", where=path[:200])
    return datasets[path]


def stored_episodes(
    corpus: Path, current: Snapshot, dataset_path: str
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(episode row, statistics by feature) of one dataset in episode order, from the catalog. Erased places among them.

    Raises:
        DamagedCatalog: an episode has no files.
    """
    stats: dict[str, dict[str, Any]] = {}
    mine_only = (pc.field("kind") != "features") & pc.starts_with(
        pc.field("path"), f"{dataset_path}/"
    )
    for artifact in current.read(corpus, "artifacts", only=mine_only).to_pylist():
        detail = snapshot.json_of(artifact["detail_json"], where=artifact["path"])
        own = stats.setdefault(artifact["uid"], {})
        if artifact["kind"] == "data":
            stats[artifact["uid"]] = {**detail, **own}
        elif artifact["kind"] == "video":
            own[f"observation.images.{artifact['camera']}"] = detail
    here = pc.field("dataset_path") == dataset_path
    rows = current.read(corpus, "episodes", only=here).sort_by("episode_index").to_pylist()
    if erased := places(tombstones(corpus, current), dataset_path):
        rows = sorted([*rows, *erased], key=lambda row: row["episode_index"])
    for row in rows:
        tombstone = row.get("erased")
        if tombstone is None and row["uid"] not in stats:
            problem = f"episode {row['uid'][:80]!r} has no files in the catalog"
            raise DamagedCatalog(f"{problem}; run eicorpus verify", where=dataset_path)
        yield row, stats[row["uid"]] if tombstone is None else stats_of(tombstone)
