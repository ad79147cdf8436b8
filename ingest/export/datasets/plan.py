"""What an export contains: each segment of a manifest as an episode, in which dataset and with which number, what is left out, and the bytes."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.catalog.catalog import Catalog
from ingest.catalog.query_process import QueryLimits
from ingest.corpus.committed_episodes import CommittedEpisode, RowsByUid
from ingest.corpus.dataset_info import read_info
from ingest.corpus.layout import data_file, video_file
from ingest.corpus.snapshot import Snapshot, load
from schemas.committed_rows import ArtifactRow
from schemas.errors import ConfigError
from schemas.lerobot import DEFAULT_FEATURES
from schemas.manifest import ROW_SCHEMA, Manifest, ManifestRow, rows_at

SPLITS = ("train", "val", "test")
_DATASET_PATH = re.compile(r"datasets(/[\w-][\w.-]*)+", re.ASCII)
FREE = "permissive"  # the licence class that every export may hold
BATCH = 512  # segments whose files are looked up at a time
PLANNED = pa.schema(
    [
        *ROW_SCHEMA,
        ("length", pa.int64()),  # timesteps of the whole episode
        ("data_bytes", pa.int64()),  # of the whole episode
        ("video_bytes", pa.int64()),  # of all its cameras
        ("largest_video", pa.int64()),  # of one camera
        ("cameras", pa.list_(pa.string())),  # that have a video, in the order of their names
        (
            "committed_place",
            pa.string(),
        ),  # dataset, number and content of the episode as the catalog has them now
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentVideo:
    """The video of one camera of the whole episode; `stats` as LeRobot has them, of sampled pictures."""

    key: str  # of the feature: observation.images.NAME
    place: str  # its file, relative to the corpus
    num_bytes: int
    sha256: str
    stats: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedSegment:
    """Timesteps [row.start, row.end) of an episode, and its number in the dataset that is written."""

    index: int
    index_from: int  # rows of the dataset before it
    task_index: int  # number of its text: texts are numbered as they first appear
    row: ManifestRow
    length: int  # of the episode
    data_sha256: str  # of its data file, as it was committed
    videos: tuple[SegmentVideo, ...]

    @property
    def num_frames(self) -> int:
        return self.row.end - self.row.start

    @property
    def is_whole(self) -> bool:
        return self.num_frames == self.length

    @property
    def data_path(self) -> str:
        """Relative to the corpus."""
        return f"{self.row.dataset_path}/{data_file(self.row.episode_index)}"

    @property
    def name(self) -> str:
        """For messages."""
        return f"episode {self.row.uid}, timesteps {self.row.start} to {self.row.end - 1}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DatasetPlan:
    """One dataset that is written, from one of the corpus. `rows`: PLANNED, in the order of its episodes."""

    name: str  # of its folder below the export
    dataset_path: str  # in the corpus
    robot_type: str
    fps: int
    features: Mapping[str, Mapping[str, Any]]  # without the default ones
    rows: pa.Table

    @property
    def video_keys(self) -> tuple[str, ...]:
        return tuple(n for n, feature in self.features.items() if feature["dtype"] == "video")

    @property
    def numeric(self) -> dict[str, Mapping[str, Any]]:
        """The features that are columns."""
        return {n: f for n, f in self.features.items() if f["dtype"] != "video"}

    def names(self, feature: str) -> tuple[str, ...]:
        """Names of the elements of a feature; nothing for one that is not there."""
        return tuple(self.features.get(feature, {}).get("names") or ())

    @property
    def num_frames(self) -> int:
        return int(pc.sum(pc.subtract(self.rows["end"], self.rows["start"])).as_py() or 0)

    @property
    def splits(self) -> dict[str, str]:
        """As `info.json` has them: the numbers of the episodes of each split, "0:8"."""
        counts = Counter(self.rows["split"].to_pylist())
        out, start = {}, 0
        for split in SPLITS:
            if counts[split]:
                out[split] = f"{start}:{start + counts[split]}"
                start += counts[split]
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """Segments that are left out for one reason."""

    code: str
    text: str
    segments: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnfitRows:
    """Rows that a format cannot hold, and why. A row is in one of them at most."""

    code: str
    text: str
    rows: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExportPlan:
    """A whole export. `digest` names it: the same plan writes the same files."""

    corpus: Path
    manifest: Manifest
    format: str
    settings: Mapping[str, Any]  # of the format
    datasets: tuple[DatasetPlan, ...]
    left: tuple[Left, ...] = field(default=())

    @property
    def num_segments(self) -> int:
        return sum(dataset.rows.num_rows for dataset in self.datasets)

    @property
    def num_bytes(self) -> int:
        """About what is read: each segment's share of its episode's files."""
        total = 0.0
        for dataset in self.datasets:
            rows = dataset.rows
            share = pc.divide(
                pc.cast(pc.subtract(rows["end"], rows["start"]), pa.float64()), rows["length"]
            )
            each = pc.multiply(share, pc.add(rows["data_bytes"], rows["video_bytes"]))
            total += pc.sum(each).as_py() or 0.0
        return int(total)

    @property
    def digest(self) -> str:
        facts = self.manifest.facts
        digest = hashlib.sha256()
        page = [self.format, self.settings, facts.corpus_uid, facts.name, facts.rows_sha256]
        digest.update(json.dumps(page, sort_keys=True).encode())
        for dataset in self.datasets:
            places = dataset.rows.select(["uid", "start", "end"]).to_pydict()
            digest.update(json.dumps([dataset.name, places]).encode())
        return digest.hexdigest()


def plan_export(
    corpus: Path,
    manifest: Manifest,
    *,
    format_name: str,
    settings: Mapping[str, Any],
    left_out: Callable[[pa.Table], Iterable[UnfitRows]],
    divide: Callable[[DatasetPlan], Iterable[DatasetPlan]],
    allowed_licences: Sequence[str],
) -> ExportPlan:
    """Look up every segment of a manifest. Nothing is written.

    Args:
        left_out: which rows of PLANNED the format cannot hold.
        divide: which datasets a dataset of the corpus becomes.
        allowed_licences: licence classes besides `permissive` that the export may hold.

    Raises:
        ConfigError: nothing is left to export, segments have a licence class that is not allowed, or the manifest does not fit the corpus
            as it is now.
    """
    current = load(corpus)
    rows = _planned(corpus, current, manifest.rows)
    keep = np.ones(rows.num_rows, dtype=bool)
    left = []
    if manifest.num_erased:
        left.append(Left(code="erased", text="erased since", segments=manifest.num_erased))
    for each in left_out(rows):
        left.append(Left(code=each.code, text=each.text, segments=int(each.rows.sum())))
        keep &= ~each.rows
    left = [each for each in left if each.segments]
    rows = rows.filter(pa.array(keep))
    _check_names(rows, manifest)
    _check_segments(rows, manifest)
    if not rows.num_rows:
        reasons = ", ".join(f"{each.segments} {each.text}" for each in left)
        raise ConfigError(
            f"no segment of the manifest can be exported as {format_name} ({reasons or 'it is empty'})",
            where=f"manifest {manifest.facts.name}",
        )
    check_licences(rows, allowed_licences)
    return ExportPlan(
        corpus=corpus,
        manifest=manifest,
        format=format_name,
        settings=settings,
        datasets=tuple(part for whole in _datasets(corpus, rows) for part in divide(whole)),
        left=tuple(left),
    )


def _check_names(rows: pa.Table, manifest: Manifest) -> None:
    """What names files and is written into configs, which are programs.

    Raises:
        ConfigError: a dataset or a split is called what no dataset or split of a corpus is.
    """
    named = (
        ("dataset_path", _DATASET_PATH.fullmatch),
        ("split", SPLITS.__contains__),
    )
    for column, is_lawful in named:
        for value in pc.unique(rows[column]).to_pylist():
            if not is_lawful(value):
                remedy = "build the manifest again; treat a corpus of others as damaged"
                where = f"manifest {manifest.facts.name}"
                raise ConfigError(f"{column} {value!r}", remedy=remedy, where=where)


def _check_segments(rows: pa.Table, manifest: Manifest) -> None:
    """Every row has timesteps of an episode that is still where and what it was when the manifest was built.

    Raises:
        ConfigError: a segment ends before it begins or outside of its episode, or the episode was replaced.
    """
    count = pc.subtract(rows["end"], rows["start"])
    place = pc.binary_join_element_wise(
        rows["dataset_path"], rows["episode_index"].cast(pa.string()), rows["content_sha256"], " "
    )
    faults = (
        ("have no timestep", pc.less(count, 1)),
        ("begin or end outside of their episode", pc.greater(rows["end"], rows["length"])),
        ("are of episodes that were replaced since", pc.not_equal(place, rows["committed_place"])),
    )
    for text, mask in faults:
        bad = rows.filter(pc.fill_null(mask, fill_value=True))
        if bad.num_rows:
            uid, start, end, length = (bad[n][0].as_py() for n in ("uid", "start", "end", "length"))
            first = f"episode {uid} of {length} timesteps, [{start}, {end})"
            raise ConfigError(
                f"{bad.num_rows} segments {text}, such as {first}",
                remedy="build the manifest again",
                where=f"manifest {manifest.facts.name}",
            )


def _check_cameras(dataset: DatasetPlan) -> None:
    """
    Raises:
        ConfigError: an episode lacks the video of a camera of its dataset.
    """
    for key in dataset.video_keys:
        camera = key.removeprefix("observation.images.")
        cameras = dataset.rows["cameras"].to_pylist()
        rows_without = [i for i, each in enumerate(cameras) if camera not in each]
        if rows_without:
            uid = dataset.rows["uid"][rows_without[0]].as_py()
            raise ConfigError(
                f"{len(rows_without)} segments lack the video of {key}, such as of episode {uid}",
                remedy="run `eicorpus verify`; leave the episodes out of the manifest with --where",
                where=dataset.dataset_path,
            )


def check_licences(rows: pa.Table, allowed: Sequence[str]) -> None:
    """
    Raises:
        ConfigError: segments have a class that is neither free nor allowed.
    """
    counts = Counter(rows["licence_class"].to_pylist())
    refused = {name: n for name, n in sorted(counts.items()) if name not in (FREE, *allowed)}
    if refused:
        listed = ", ".join(f"{n} segments are {name}" for name, n in refused.items())
        flags = " ".join(f"--allow-licence {name}" for name in refused)
        remedy = (
            f"leave them out of the manifest with --where, or, if their terms let you, pass {flags}"
        )
        raise ConfigError(f"licence: {listed}", remedy=remedy)


def _planned(corpus: Path, current: Snapshot, rows: pa.Table) -> pa.Table:
    """The rows with what the catalog says of their files, in the order of PLANNED.

    Raises:
        ConfigError: the catalog does not know an episode of the manifest.
    """
    with Catalog(corpus, current, QueryLimits(timeout_s=3600.0)) as catalog:
        catalog.register("exported", pa.table({"uid": pc.unique(rows["uid"])}))
        files = catalog.arrow(
            """SELECT w.uid, any_value(e.length) AS length,
                coalesce(sum(a.num_bytes) FILTER (a.kind = 'data'), 0)::BIGINT AS data_bytes,
                coalesce(sum(a.num_bytes) FILTER (a.kind = 'video'), 0)::BIGINT AS video_bytes,
                coalesce(max(a.num_bytes) FILTER (a.kind = 'video'), 0)::BIGINT AS largest_video,
                coalesce(list_sort(list(DISTINCT a.camera) FILTER (a.kind = 'video')), []) AS cameras,
                any_value(concat_ws(' ', e.dataset_path, e.episode_index, e.content_sha256)) AS committed_place
            FROM exported w JOIN episodes e USING (uid) JOIN artifacts a USING (uid) GROUP BY w.uid"""
        )
        catalog.unregister("exported")
    place = pc.index_in(rows["uid"], value_set=files["uid"])
    if place.null_count:
        problem = f"{place.null_count} segments are of episodes that the catalog lacks"
        raise ConfigError(problem, remedy=f"run `eicorpus verify {corpus}`", where=str(corpus))
    for name in PLANNED.names[len(ROW_SCHEMA) :]:
        rows = rows.append_column(name, files[name].take(place))
    order = pc.fill_null(pc.index_in(rows["split"], value_set=pa.array(SPLITS)), len(SPLITS))
    keys = [(n, "ascending") for n in ("dataset_path", "order", "episode_index", "start")]
    ordered = rows.append_column("order", order).sort_by(keys)
    return ordered.select(PLANNED.names).cast(PLANNED).combine_chunks()


def _datasets(corpus: Path, rows: pa.Table) -> Iterator[DatasetPlan]:
    paths = rows["dataset_path"].to_pylist()
    bounds = [0, *(i for i in range(1, len(paths)) if paths[i] != paths[i - 1]), len(paths)]
    for start, end in pairwise(bounds):
        path = paths[start]
        info = read_info(corpus, path)
        features = {n: f for n, f in info.features.items() if n not in DEFAULT_FEATURES}
        dataset = DatasetPlan(
            name=path.removeprefix("datasets/").replace("/", "__"),
            dataset_path=path,
            robot_type=info.robot_type or "unknown",
            fps=info.fps,
            features=features,
            rows=rows.slice(start, end - start),
        )
        _check_cameras(dataset)
        yield dataset


def segments_of(
    plan: ExportPlan, dataset: DatasetPlan, files: RowsByUid[ArtifactRow]
) -> Iterator[ExportedSegment]:
    """The segments of a dataset in the order of their numbers, with their videos."""
    cameras = dataset.video_keys
    tasks: dict[str, int] = {}
    index_from = 0
    for start in range(0, dataset.rows.num_rows, BATCH):
        table = dataset.rows.slice(start, BATCH)
        lengths = table["length"].to_pylist()
        rows = rows_at(table.select(ROW_SCHEMA.names), np.arange(table.num_rows))
        artifacts = files.rows([row.uid for row in rows])
        for offset, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            own = artifacts.get(row.uid, ())
            videos = tuple(_videos(row, cameras, own))
            segment = ExportedSegment(
                index=start + offset,
                index_from=index_from,
                task_index=tasks.setdefault(row.text, len(tasks)),
                row=row,
                length=length,
                data_sha256=next((a.sha256 or "" for a in own if a.kind == "data"), ""),
                videos=videos,
            )
            index_from += segment.num_frames
            yield segment


def _videos(
    row: ManifestRow, keys: Iterable[str], artifacts: Iterable[ArtifactRow]
) -> Iterator[SegmentVideo]:
    """
    Raises:
        ConfigError: the catalog has no video for a camera of the dataset.
    """
    of_camera = {a.camera: a for a in artifacts if a.kind == "video"}
    for key in keys:
        artifact = of_camera.get(key.removeprefix("observation.images."))
        if artifact is None or artifact.num_bytes is None or artifact.sha256 is None:
            raise ConfigError(
                f"no video of {key}", remedy="run `eicorpus verify`", where=f"episode {row.uid}"
            )
        yield SegmentVideo(
            key=key,
            place=f"{row.dataset_path}/{video_file(row.episode_index, key)}",
            num_bytes=artifact.num_bytes,
            sha256=artifact.sha256,
            stats=CommittedEpisode.detail(artifact),
        )


def artifacts_of(corpus: Path) -> RowsByUid[ArtifactRow]:
    """The rows of files, for `segments_of`."""
    return RowsByUid(corpus, load(corpus), ArtifactRow)
