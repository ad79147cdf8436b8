"""The one committer: numbers staged episodes in plan order, moves them in, appends facts, publishes the snapshot.

Everything before the snapshot can be repeated, everything after it can be rebuilt: a stop at any point costs nothing.
Files are hard-linked from staging, so a batch that was not published is still staged as a whole.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ingest.corpus import lerobot_meta, publishing, snapshot
from ingest.corpus.column_checks import DamagedCatalog
from ingest.corpus.layout import CorpusLayout, data_file, video_file
from ingest.corpus.lerobot_meta import Dataset, JsonlAppends
from ingest.corpus.lerobot_writer import data_schema, numbered, parquet_bytes
from ingest.corpus.numbering import by_dataset, count_episodes
from ingest.corpus.remote_staging import RemoteStaging, StagingStore
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.staging import staged_rows_of
from ingest.corpus.tombstones import (
    DatasetDetail,
    ErasedPlace,
    pinned_tasks,
    places,
    stats_of,
    tombstones,
)
from ingest.corpus.transfers import each_at_once
from ingest.storage.local import LocalStorage
from schemas.catalog_rows import CatalogRow, as_dict
from schemas.committed_rows import ArtifactRow, EpisodeRow, VerdictRow
from schemas.errors import ConfigError, InvariantError
from schemas.outcome import Outcome, StagedEpisode, StagedVideo, State

_QUARANTINE_COLUMNS = ("uid", "source", "episode_id", "code", "message")


@dataclass(kw_only=True)
class PendingOutcome:
    """One outcome waiting for its batch, with the folder it is staged in."""

    outcome: Outcome
    verdict: VerdictRow  # its snapshot is not known yet
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
    lane: str = ""  # of a working copy: ends the names of its datasets
    staged_in: StagingStore | None = None  # where workers upload to: what is staged lies there
    elsewhere: set[str] = field(default_factory=set)  # committed by others since this run began
    pending: list[PendingOutcome] = field(default_factory=list)
    is_broken_off: bool = (
        False  # a flush was left by an exception: this object must not be used again
    )
    ends: Counter[str] = field(default_factory=Counter)  # lasting ones: state -> episodes
    folders: set[Path] = field(default_factory=set)  # made by us already
    schemas: dict[str, pa.Schema] = field(default_factory=dict)  # of the data files, by dataset
    copies: dict[str, str] = field(
        default_factory=dict
    )  # video -> where it is staged in the bucket

    def add(
        self, outcome: Outcome, verdict: VerdictRow, folder: Path, *, episodes: int = 1
    ) -> None:
        """Queue an outcome. Nothing lasting happens before `flush`."""
        waiting = PendingOutcome(outcome=outcome, verdict=verdict, folder=folder, episodes=episodes)
        self.pending.append(waiting)

    def _list_quarantined(self) -> None:
        """A plain list for people beside the tables: what to mend, and how to find it again."""
        lines = [
            json.dumps({name: getattr(waiting.verdict, name) for name in _QUARANTINE_COLUMNS})
            for waiting in self.pending
            if waiting.outcome.state is State.QUARANTINED
        ]
        if lines:
            self.disk.make_dir(self.corpus.quarantine)
            text = "".join(f"{line}\n" for line in lines)
            self.disk.append(self.corpus.path(f"quarantine/{self.run_id}.jsonl"), text.encode())

    def flush(self, extra: Sequence[CatalogRow] = ()) -> list[Outcome]:
        """Commit the queue, and `extra` rows with it. Returns the outcomes that are now lasting.

        Raises:
            TransientError: another writer was first.
        """
        if not self.pending and not extra:
            return []
        if self.is_broken_off:
            raise InvariantError(
                "an aborted commit cannot continue; open the corpus again to recover"
            )
        self.is_broken_off = True
        done = self._flush(extra)
        self.is_broken_off = False
        return done

    def _flush(self, extra: Sequence[CatalogRow]) -> list[Outcome]:
        # Before anything is placed: in a folder that two processes write to, our numbers are the other's by now.
        before, self.parent = self.parent, publishing.newest(self.corpus.root, self.parent)
        self.elsewhere |= self._committed_since(before)
        self._fetch_staged()
        rows = list(extra)
        lines: dict[str, JsonlAppends] = {}
        with self.disk.holding_folders():
            for waiting in self.pending:
                if waiting.outcome.uid in self.elsewhere:
                    continue  # whatever became of it here: another machine has committed it
                if waiting.outcome.staged is not None:
                    self._place(waiting.outcome.staged, waiting.folder, rows, lines)
                rows.append(replace(waiting.verdict, snapshot=self.parent.number + 1))
        by_kind: dict[type[CatalogRow], list[CatalogRow]] = {}
        for row in rows:
            by_kind.setdefault(type(row), []).append(row)
        parts = {
            kind.TABLE: snapshot.write_part(self.disk, self.corpus.root, kind, of_kind)
            for kind, of_kind in by_kind.items()
        }
        if parts:
            root = self.corpus.root
            copies, self.copies = self.copies, {}
            before = self.parent
            self.parent = publishing.publish(
                self.disk, root, before, parts, self.run_id, copies=copies
            )
            # Others were first, perhaps with episodes of the next batches.
            if self.parent.number > before.number + 1:
                self.elsewhere |= self._committed_since(before)
        grown = ((self.datasets[path], added) for path, added in lines.items())
        lerobot_meta.append(self.disk, self.corpus.root, grown)
        self._list_quarantined()
        done, self.pending = self.pending, []
        with self.disk.holding_folders():
            for waiting in done:
                self.ends[waiting.verdict.state] += waiting.episodes
                self.disk.remove_tree(waiting.folder)
        self._each_staged(done, lambda remote, waiting: remote.remove(waiting.outcome))
        return [waiting.outcome for waiting in done]

    def _fetch_staged(self) -> None:
        """Copy the rows of what workers have uploaded, so that it is staged here as what a worker of this machine makes."""
        new = [each for each in self.pending if each.outcome.uid not in self.elsewhere]
        self._each_staged(
            new,
            lambda remote, waiting: remote.fetch_rows(waiting.folder, waiting.outcome, self.disk),
        )

    def _each_staged(
        self,
        pending: Sequence[PendingOutcome],
        act: Callable[[RemoteStaging, PendingOutcome], None],
    ) -> None:
        staged = [each for each in pending if each.outcome.staged is not None]
        if (store := self.staged_in) is not None:
            each_at_once(
                lambda waiting: act(RemoteStaging(store, waiting.folder.name), waiting), staged
            )

    def _committed_since(self, before: Snapshot) -> Set[str]:
        """Uids of episodes that other writers have committed, or erased, on top of a snapshot."""
        uids: set[str] = set()
        for table in ("episodes", "tombstones"):
            known = set(before.parts(table))
            new = tuple(part for part in self.parent.parts(table) if part not in known)
            later = replace(self.parent, tables={table: new})
            if new:
                uids.update(later.read(self.corpus.root, table, ["uid"])["uid"].to_pylist())
        return uids

    def _place(
        self,
        staged: StagedEpisode,
        folder: Path,
        rows: list[CatalogRow],
        lines: dict[str, JsonlAppends],
    ) -> None:
        """Give one episode its number, its files and its rows."""
        dataset = self._dataset(staged, rows)
        number, index_from = dataset.episodes, dataset.frames
        row = EpisodeRow(
            **as_dict(staged.episode),
            dataset_path=dataset.path,
            episode_index=number,
            index_from=index_from,
            run_id=self.run_id,
        )
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
        rows.append(self._place_rows(row.uid, dataset, number, table, staged))
        rows += (self._place_video(row.uid, dataset, number, v, folder) for v in staged.videos)
        rows += [row, *staged.segments, *staged.measurements]

    def _dataset(self, staged: StagedEpisode, rows: list[CatalogRow]) -> Dataset:
        path = f"{staged.group}.{self.lane}" if self.lane else staged.group
        known = self.datasets.get(path)
        if known is not None:
            if known.features != staged.features:
                raise InvariantError(f"{path}: two different feature tables for one dataset")
            return known
        dataset = Dataset(
            path=path,
            robot_type=staged.robot_type,
            fps=round(staged.episode.length / staged.episode.duration_s),
            features=staged.features,
            spec=staged.spec,
        )
        self.datasets[path] = dataset
        detail = {
            "robot_type": dataset.robot_type,
            "fps": dataset.fps,
            "features": dataset.features,
            "spec": dataset.spec,
        }
        rows.append(_artifact(kind="features", path=dataset.path, detail=detail))
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
    ) -> ArtifactRow:
        data = parquet_bytes(table)
        path = f"{dataset.path}/{data_file(number)}"
        file = self.corpus.root / path  # the walk of `write_new` follows no link either
        self._make_dir(file.parent)
        self.disk.write_new(file, data)
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
        self, uid: str, dataset: Dataset, number: int, video: StagedVideo, folder: Path
    ) -> ArtifactRow:
        key = f"observation.images.{video['camera']}"
        path = f"{dataset.path}/{video_file(number, key)}"
        if self.staged_in is not None:
            self.copies[path] = RemoteStaging(self.staged_in, folder.name).video(video)
        else:
            file = self.corpus.path(path)
            self._make_dir(file.parent)
            self.disk.hard_link_or_copy(folder / video["name"], file)
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


def _artifact(
    *,
    kind: str,
    path: str,
    detail: Mapping[str, Any],
    uid: str = "",
    camera: str | None = None,
    num_bytes: int | None = None,
    sha256: str | None = None,
    num_frames: int | None = None,
) -> ArtifactRow:
    return ArtifactRow(
        uid=uid,
        kind=kind,
        camera=camera,
        path=path,
        num_bytes=num_bytes,
        sha256=sha256,
        num_frames=num_frames,
        detail_json=json.dumps(detail, sort_keys=False),
    )


def feature_stats(staged: StagedEpisode) -> dict[str, Any]:
    """Statistics by feature name: numeric columns, then videos."""
    videos = {f"observation.images.{v['camera']}": v["stats"] for v in staged.videos}
    return {**staged.stats, **videos}


def datasets_of(corpus: Path, current: Snapshot) -> dict[str, Dataset]:
    """Every dataset of a snapshot with its numbering, ready to be continued.

    Raises:
        DamagedCatalog: its episodes and tombstones do not number it from 0 without a gap.
    """
    datasets = datasets_without_episodes(corpus, current)
    for path, episodes in by_dataset(corpus, current):
        count_episodes(_declared(datasets, path), episodes)
    return datasets


def datasets_without_episodes(corpus: Path, current: Snapshot) -> dict[str, Dataset]:
    """Every dataset of a snapshot, by its path, as the catalog describes it before its first episode. Tasks that an erasure pinned are numbered.

    Raises:
        ConfigError: the catalog's description of one is none, or leads out of the corpus.
    """
    datasets: dict[str, Dataset] = {}
    for artifact in current.rows(corpus, DatasetDetail, only=pc.field("kind") == "features"):
        datasets[artifact.path] = dataset_of(artifact)
    for path, texts in pinned_tasks(corpus, current).items():
        _declared(datasets, path).pin(texts)
    return datasets


def dataset_of(artifact: DatasetDetail) -> Dataset:
    """An empty dataset, by its row of kind `features`.

    Raises:
        DamagedCatalog: the row does not describe one.
    """
    path = artifact.path or ""
    detail = snapshot.json_of(artifact.detail_json, where=path)
    try:
        return Dataset(path=path, **detail)
    except TypeError as error:
        message = f"the features of a dataset cannot be read ({error})"
        raise DamagedCatalog(message, remedy="run `eicorpus verify`", where=path[:200]) from error


def _declared(datasets: Mapping[str, Dataset], path: str) -> Dataset:
    """The dataset that rows of the catalog name.

    Raises:
        ConfigError: no artifact says what its features are.
    """
    if path not in datasets:
        message = "the catalog is damaged: it has episodes of this dataset and no features"
        raise ConfigError(
            message, remedy="run `eicorpus verify` to list all damage", where=path[:200]
        )
    return datasets[path]


def stored_episodes(
    corpus: Path, current: Snapshot, dataset_path: str
) -> Iterator[tuple[EpisodeRow | ErasedPlace, Mapping[str, Any]]]:
    """(episode row, statistics by feature) of one dataset in episode order, from the catalog. Erased places among them.

    Raises:
        DamagedCatalog: an episode has no files.
    """
    stats: dict[str, dict[str, Any]] = {}
    mine_only = (pc.field("kind") != "features") & pc.starts_with(
        pc.field("path"), f"{dataset_path}/"
    )
    for artifact in current.rows(corpus, ArtifactRow, only=mine_only):
        detail = snapshot.json_of(artifact.detail_json, where=artifact.path)
        own = stats.setdefault(artifact.uid, {})
        if artifact.kind == "data":
            stats[artifact.uid] = {**detail, **own}
        elif artifact.kind == "video":
            own[f"observation.images.{artifact.camera}"] = detail
    here = pc.field("dataset_path") == dataset_path
    rows: list[EpisodeRow | ErasedPlace] = [*current.rows(corpus, EpisodeRow, only=here)]
    rows += places(tombstones(corpus, current), dataset_path)
    for row in sorted(rows, key=lambda row: row.episode_index):
        if isinstance(row, ErasedPlace):
            yield row, stats_of(row.tombstone)
            continue
        if row.uid not in stats:
            problem = f"the catalog lists no files for episode {row.uid[:80]!r}"
            raise DamagedCatalog(problem, remedy="run `eicorpus verify`", where=dataset_path)
        yield row, stats[row.uid]
