"""Some episodes of a corpus in a bucket as a corpus of this machine. Only their files are fetched.

LeRobot v2.1 numbers the episodes of a dataset without gaps, so they get new numbers, by the committer that ingestion uses. What the catalog
says of them comes along: segments, measurements, signatures, captions, reviews and the newest tiers. Latents and manifests name places, and
duplicates rest on other episodes: they are made anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ingest.catalog.catalog import Catalog
from ingest.corpus import publishing, snapshot
from ingest.corpus.commit import Committer, datasets_of, datasets_without_episodes
from ingest.corpus.committed_episodes import CommittedEpisode, committed_batches
from ingest.corpus.committed_files import CommittedFile
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.lerobot_meta import Dataset
from ingest.corpus.lerobot_writer import TASK_COLUMN
from ingest.corpus.manifest_folders import open_manifest_folder
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.staging import write_staged
from ingest.corpus.working_copy import WorkingCopy
from ingest.corpus.writer import recover
from ingest.storage.local import LocalStorage, within
from schemas.catalog import TABLES
from schemas.catalog_rows import PLACE, EpisodeFacts, columns_of
from schemas.committed_rows import EpisodeRow, SourceRow, VerdictRow
from schemas.errors import ConfigError
from schemas.lerobot import DEFAULT_FEATURES
from schemas.manifest import load_rows
from schemas.outcome import Outcome, StagedEpisode, StagedVideo, State
from schemas.parquet_file import read_table

BATCH = 64  # episodes of a commit, and whose files are here at a time
WORK = "part"  # ends the names of staging folders
# Beside what is committed with an episode: by uid, all rows, or those of the newest run.
_LATER = ("signatures", "captions", "reviews")
_NEWEST = ("tiers", "policies")
_LANE = re.compile(r"\.lane-[1-9][0-9]{0,17}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusPart:
    """Episodes of one state of a bucket."""

    copy: WorkingCopy
    current: Snapshot
    uids: frozenset[str]

    @property
    def root(self) -> Path:
        return self.copy.root

    def batches(self) -> Iterator[list[CommittedEpisode]]:
        """In the order of commits."""
        chosen: list[CommittedEpisode] = []
        for batch in committed_batches(self.root, self.current):
            chosen += [each for each in batch if each.row.uid in self.uids]
            while len(chosen) >= BATCH:
                yield chosen[:BATCH]
                chosen = chosen[BATCH:]
        if chosen:
            yield chosen

    @property
    def num_bytes(self) -> int:
        """Of the files of the episodes."""
        columns = ["uid", "kind", "num_bytes"]
        rows = self.current.read(self.root, "artifacts", columns)
        is_own = pc.is_in(rows["uid"], value_set=pa.array(sorted(self.uids), pa.string()))
        return int(pc.sum(rows.filter(is_own)["num_bytes"]).as_py() or 0)


def part_of(copy: WorkingCopy, current: Snapshot, *, manifest: str, where: str) -> CorpusPart:
    """The episodes of a manifest, or those for which an SQL expression over `episodes` holds.

    Raises:
        ConfigError: no such manifest, no such expression, or no episode.
    """
    if manifest:
        rows = load_rows(open_manifest_folder(copy.root, manifest))
        uids = frozenset(rows["uid"].to_pylist())
    else:
        with Catalog.open(copy.root, snapshot=current.number or None) as catalog:
            try:
                expression = catalog.expression(where, "episodes")
                sql = f"SELECT uid FROM episodes WHERE (\n{expression}\n)"
                uids = frozenset(catalog.arrow_of_stranger(sql)["uid"].to_pylist())
            except ConfigError as error:
                raise ConfigError(error.message, remedy=error.remedy, where="--where") from error
    known = current.read(copy.root, "episodes", ["uid"])["uid"].to_pylist()
    uids &= frozenset(known)
    if not uids:
        raise ConfigError(
            "no episode is chosen",
            remedy="list some with `eicorpus query`",
            where=f"--manifest {manifest}" if manifest else "--where",
        )
    return CorpusPart(copy=copy, current=current, uids=uids)


def write_part_of(
    part: CorpusPart,
    corpus: CorpusLayout,
    disk: LocalStorage,
    *,
    run_id: str,
    progress: Callable[[int], None] = lambda episodes: None,
) -> Snapshot:
    """Add the episodes to a corpus of this machine that lacks them. The caller holds its writer lock. Run it again to resume.

    Raises:
        ConfigError: the folder has other episodes.
        DamagedCopy, SourceError: an object is missing or not what was committed.
        TransientError: the store does not answer, or the disk is full.
    """
    current = snapshot.load(corpus.root)
    known = set(current.read(corpus.root, "episodes", ["uid"])["uid"].to_pylist())
    _refuse_another(part, corpus, current, known)
    own = datasets_of(corpus.root, current)
    recover(corpus, disk, current, own)
    current = _publish_sources(part, corpus, disk, current, run_id)
    committer = Committer(
        corpus=corpus,
        disk=disk,
        run_id=run_id,
        parent=current,
        datasets=own,
    )
    datasets = datasets_without_episodes(part.root, part.current)
    done = 0
    for batch in part.batches():
        _add_batch(part, [e for e in batch if e.row.uid not in known], datasets, committer)
        done += len(batch)
        progress(done)
    return _publish_later(part, corpus, disk, committer.parent, run_id)


def _refuse_another(
    part: CorpusPart, corpus: CorpusLayout, current: Snapshot, known: set[str]
) -> None:
    """What curation has added is published once, for all episodes, so a folder takes one selection.

    Raises:
        ConfigError: the folder holds another one, or half of another one.
    """
    is_done = _has_later(current)
    if (is_done and not part.uids <= known) or (not is_done and not known <= part.uids):
        raise ConfigError(
            "the folder has other episodes than those that are chosen now",
            remedy="choose the same episodes again, or use a new folder",
            where=str(corpus.root),
        )


def _has_later(current: Snapshot) -> bool:
    return any(current.parts(table) for table in (*_LATER, *_NEWEST))


def _add_batch(
    part: CorpusPart,
    batch: Sequence[CommittedEpisode],
    datasets: Mapping[str, Dataset],
    committer: Committer,
) -> None:
    files = [file for stored in batch for file in _files_of(stored)]
    absent = [file for file in files if not within(part.root, file.path).exists()]
    part.copy.fetch_files(files)
    for stored in batch:
        assert isinstance(stored.row, EpisodeRow)  # a place is no episode
        folder = committer.corpus.staging_dir(stored.row.uid, WORK)
        committer.disk.remove_tree(folder)
        committer.disk.make_dir(folder)
        row = stored.row
        dataset = datasets[row.dataset_path]
        outcome = _staged(part, stored, dataset, committer.corpus, committer.disk)
        verdict = VerdictRow(
            uid=row.uid,
            source=row.source,
            dataset=row.dataset,
            episode_id=row.episode_id,
            state=State.COMMITTED.value,
            code="",
            message="",
            attempts=1,
            run_id=committer.run_id,
            snapshot=0,
        )
        committer.add(outcome, verdict, folder)
    committer.flush()
    for file in absent:  # the bucket has it
        LocalStorage(part.root).remove(within(part.root, file.path))


def _files_of(stored: CommittedEpisode) -> Iterator[CommittedFile]:
    """Its data and videos, where its number places them: what else a row of a stranger names is not looked at."""
    pairs = [(stored.data_path, stored.artifact("data"))]
    pairs += [(stored.video_path(each), stored.artifact("video", each)) for each in stored.cameras]
    for path, file in pairs:
        if file is not None and file.num_bytes is not None:
            yield CommittedFile(path, file.num_bytes, file.sha256 or "")


def _staged(
    part: CorpusPart,
    stored: CommittedEpisode,
    dataset: Dataset,
    corpus: CorpusLayout,
    disk: LocalStorage,
) -> Outcome:
    """Stage an episode as a worker does."""
    folder = corpus.staging_dir(stored.row.uid, WORK)
    row, data = stored.row, stored.artifact("data")
    if data is None:
        raise ConfigError(
            f"the catalog lists no file for episode {row.uid}",
            remedy="run `eicorpus verify`",
            where=row.dataset_path,
        )
    assert isinstance(row, EpisodeRow)
    table = read_table(within(part.root, stored.data_path))
    codes = table["task_index"].combine_chunks().dictionary_encode().indices  # first appearance
    staged_table = table.drop_columns(list(DEFAULT_FEATURES)).append_column(
        TASK_COLUMN, codes.cast(pa.int64())
    )
    videos: list[StagedVideo] = []
    for number, camera in enumerate(stored.cameras):
        video = stored.artifact("video", camera)
        if video is None or video.num_bytes is None or video.sha256 is None:
            continue
        name = f"{number}.mp4"
        key = within(folder, name).relative_to(corpus.root).as_posix()
        disk.at(corpus.root).put_file(key, within(part.root, stored.video_path(camera)))
        videos.append(
            {
                "camera": camera,
                "name": name,
                "num_bytes": video.num_bytes,
                "sha256": video.sha256,
                "num_frames": video.num_frames or 0,
                "stats": dict(stored.detail(video)),
            }
        )
    facts = {name: getattr(row, name) for name in columns_of(EpisodeRow) if name not in PLACE}
    staged = StagedEpisode(
        group=_LANE.sub("", row.dataset_path),
        robot_type=dataset.robot_type,
        features=dict(dataset.features),
        spec=[list(each) for each in dataset.spec],
        episode=EpisodeFacts(**facts),
        segments=list(stored.segments),
        measurements=list(stored.measurements),
        stats=dict(stored.detail(data)),
        videos=videos,
    )
    outcome = Outcome(uid=row.uid, state=State.STAGED, num_frames=row.length, staged=staged)
    write_staged(folder, staged_table, outcome, disk)
    return outcome


def _publish_sources(
    part: CorpusPart, corpus: CorpusLayout, disk: LocalStorage, current: Snapshot, run_id: str
) -> Snapshot:
    """The rows of their sources, licences and facts, that are not here yet."""
    is_own = pc.field("uid").isin(pa.array(sorted(part.uids), pa.string()))
    pairs = part.current.read(part.root, "episodes", ["source", "dataset"], only=is_own)
    chosen = set(zip(pairs["source"].to_pylist(), pairs["dataset"].to_pylist(), strict=True))
    rows = {
        (row.source, row.dataset): replace(row, run_id=run_id)
        for row in part.current.rows(part.root, SourceRow)
        if (row.source, row.dataset) in chosen
    }
    here = {(row.source, row.dataset) for row in current.rows(corpus.root, SourceRow)}
    if not (missing := [row for name, row in rows.items() if name not in here]):
        return current
    written = snapshot.write_part(disk, corpus.root, SourceRow, missing)
    return publishing.publish(disk, corpus.root, current, {"sources": written}, run_id)


def _publish_later(
    part: CorpusPart, corpus: CorpusLayout, disk: LocalStorage, current: Snapshot, run_id: str
) -> Snapshot:
    """What curation has added to the episodes, in one commit. Nothing where a run before has published it."""
    if _has_later(current):
        return current
    uids = pa.array(sorted(part.uids), pa.string())
    tables: dict[str, pa.Table] = {"measurements": _measured_later(part, uids)}
    for table in (*_LATER, *_NEWEST):
        rows = part.current.read(part.root, table)
        if "uid" in rows.column_names:
            rows = rows.filter(pc.is_in(rows["uid"], value_set=uids))
        if table in _NEWEST:
            rows = rows.filter(pc.equal(rows["snapshot"], pc.max(rows["snapshot"])))
            index = rows.schema.get_field_index("snapshot")
            number = pa.array([current.number + 1] * rows.num_rows, rows.schema.field(index).type)
            rows = rows.set_column(index, rows.schema.field(index), number)
        tables[table] = rows
    added = {
        table: snapshot.write_tables(disk, corpus.root, table, [rows.cast(TABLES[table])])
        for table, rows in tables.items()
        if rows.num_rows
    }
    return publishing.publish(disk, corpus.root, current, added, run_id) if added else current


def _measured_later(part: CorpusPart, uids: pa.Array) -> pa.Table:
    """Measurements but those that were committed with the episodes: they are in the first part that has rows of an episode."""
    seen, pieces = pa.array([], pa.string()), [TABLES["measurements"].empty_table()]
    for each in part.current.parts("measurements"):
        alone = Snapshot(tables={"measurements": (each,)})
        rows = alone.read(part.root, "measurements")
        own = rows.filter(pc.is_in(rows["uid"], value_set=uids))
        pieces.append(own.filter(pc.is_in(own["uid"], value_set=seen)))
        seen = pa.chunked_array([seen, pc.unique(own["uid"])]).unique()
    return pa.concat_tables(pieces)
