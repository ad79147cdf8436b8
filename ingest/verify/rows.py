"""Checks that a data file is the Parquet that LeRobot v2.1 expects and that its five numbering columns are right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.corpus.committed_episodes import CommittedEpisode
from ingest.corpus.lerobot_meta import Dataset, JsonlAppends, add_episode
from ingest.corpus.lerobot_writer import arrow_schema
from ingest.storage.local import within
from ingest.verify.files import limit_bytes, unreadable
from ingest.verify.finding import CheckCode, Finding, excerpt, finding, first_differing
from schemas.json_text import parse_json
from schemas.lerobot import DEFAULT_FEATURES
from schemas.parquet_file import DamagedParquet, open_parquet


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodePlace:
    """What only the sequence of episodes tells about one of them. `tasks` maps the dataset's task index to its text."""

    dataset: Dataset
    index_from: int
    tasks: Mapping[int, str]
    gop: int  # pictures between keyframes at most


def number(
    stored: CommittedEpisode, dataset: Dataset, lines: JsonlAppends, gop: int
) -> EpisodePlace:
    """Give an episode the next place in `dataset`, as the committer did. Extends `dataset` and `lines`.

    Raises:
        ValueError, KeyError, TypeError: its rows lack what numbering needs.
    """
    index_from = dataset.frames
    indices = add_episode(lines, dataset, stored.row, feature_stats(stored))
    tasks = dict(zip(indices, stored.row.tasks, strict=True))
    return EpisodePlace(dataset=dataset, index_from=index_from, tasks=tasks, gop=gop)


def feature_stats(stored: CommittedEpisode) -> dict[str, Any]:
    """Statistics by feature as `episodes_stats.jsonl` has them: numeric columns, then videos."""
    out: dict[str, Any] = {}
    for artifact in sorted(stored.artifacts, key=lambda a: a.kind):  # data before video
        if artifact.kind == "data":
            out |= stored.detail(artifact)
        elif artifact.kind == "video":
            out[f"observation.images.{artifact.camera}"] = stored.detail(artifact)
    return out


def numbering_findings(
    stored: CommittedEpisode, place: EpisodePlace, episode_index: int
) -> Iterator[Finding]:
    """Does the catalog itself number without gaps, and do the episode's rows agree with each other?"""
    row = stored.row
    for name, expected in (("episode_index", episode_index), ("index_from", place.index_from)):
        if getattr(row, name) != expected:
            what = f"{name} {getattr(row, name)} of {row.uid}"
            yield finding(CheckCode.NUMBERING, row.dataset_path, what, expected)
    if row.length != sum(row.task_counts):
        what = f"{row.length} timesteps of {row.uid}"
        yield finding(
            CheckCode.NUMBERING,
            row.dataset_path,
            what,
            f"{sum(row.task_counts)}, the sum over its tasks",
        )
    kinds = sorted((a.kind, a.camera or "", a.path) for a in stored.artifacts)
    files = [("data", "", stored.data_path)]
    files += [("video", camera, stored.video_path(camera)) for camera in stored.cameras]
    if kinds != sorted(files):
        what = f"files {kinds} of {row.uid}"
        yield finding(CheckCode.NUMBERING, row.dataset_path, what, sorted(files))
    keys = sorted(f"observation.images.{camera}" for camera in stored.cameras)
    if keys != sorted(place.dataset.video_keys):
        what = f"cameras {keys} of {row.uid}"
        yield finding(CheckCode.NUMBERING, row.dataset_path, what, place.dataset.video_keys)


TOLERANCE_S = 1e-4  # of readers, on the difference of neighbouring timestamps
Columns = Mapping[str, npt.NDArray[Any]]  # [K, n] by name


def read_rows(
    corpus: Path, stored: CommittedEpisode, place: EpisodePlace
) -> tuple[pa.Table | None, list[Finding]]:
    """The table, or None and why it cannot be compared any further."""
    path = stored.data_path
    artifact = stored.artifact("data")
    try:
        with within(corpus, path).open("rb") as file:
            limit = limit_bytes((artifact and artifact.num_bytes) or 0)
            data = file.read(limit + 1)
    except OSError as error:
        return None, [unreadable(path, error)]
    if len(data) > limit:
        what = f"more than {limit} bytes"
        return None, [finding(CheckCode.DATA_UNREADABLE, path, what, "the file as committed")]
    try:
        with open_parquet(data, path) as parquet:
            findings = list(_layout_findings(parquet, stored, place))
            if any(f.check in (CheckCode.DATA_COLUMNS, CheckCode.DATA_LENGTH) for f in findings):
                return None, findings
            return parquet.read(), findings
    except DamagedParquet as error:
        return None, [
            finding(CheckCode.DATA_UNREADABLE, path, error.message, "a whole Parquet file")
        ]


def _layout_findings(
    parquet: pq.ParquetFile, stored: CommittedEpisode, place: EpisodePlace
) -> Iterator[Finding]:
    """Everything that the footer tells. Nothing is decoded before columns and length are right."""
    path, schema = stored.data_path, parquet.schema_arrow
    expected = arrow_schema({**place.dataset.features, **DEFAULT_FEATURES})
    if schema.names != expected.names:
        yield finding(CheckCode.DATA_COLUMNS, path, f"columns {schema.names}", expected.names)
    for field in expected:
        at = schema.get_field_index(field.name)
        if at >= 0 and schema.field(at).type != field.type:
            what = f"column {field.name!r} of type {schema.field(at).type}"
            yield finding(CheckCode.DATA_COLUMNS, path, what, field.type)
    if parquet.metadata.num_rows != stored.row.length:
        what = f"{parquet.metadata.num_rows} rows"
        yield finding(CheckCode.DATA_LENGTH, path, what, stored.row.length)
    if parquet.num_row_groups != 1:
        yield finding(CheckCode.DATA_ROW_GROUPS, path, f"{parquet.num_row_groups} row groups", 1)
    yield from _metadata_findings(path, schema.metadata or {}, expected.metadata)


def _metadata_findings(
    path: str, actual: Mapping[bytes, bytes], expected: Mapping[bytes, bytes]
) -> Iterator[Finding]:
    """The Hugging Face description. With `List` instead of `Sequence` lerobot 0.3.3 refuses the file."""
    stated, declared = (each.get(b"huggingface", b"") for each in (actual, expected))
    try:
        is_same = stated == declared or parse_json(stated) == parse_json(declared)
    except ValueError:
        is_same = False
    if not is_same:
        a, b = stated.decode("utf-8", "replace"), declared.decode()
        at = first_differing(a, b)
        shown = f"`huggingface` metadata {excerpt(a, at)}"
        yield finding(CheckCode.DATA_METADATA, path, shown, excerpt(b, at))


def columns_of(table: pa.Table, path: str) -> tuple[Columns, list[Finding]]:
    """Every column as [K, n] where it is whole and finite, and a finding for each that is not."""
    columns: dict[str, npt.NDArray[Any]] = {}
    findings: list[Finding] = []
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        is_list = pa.types.is_fixed_size_list(column.type)
        flat = column.flatten() if is_list else column
        if column.null_count or flat.null_count:
            what = f"null in column {name!r}"
            findings.append(finding(CheckCode.DATA_NOT_FINITE, path, what, "a value everywhere"))
            continue
        values = flat.to_numpy(zero_copy_only=False).reshape(table.num_rows, -1)
        odd = ~np.isfinite(values)
        if odd.any():
            k, n = np.argwhere(odd)[0]
            what = (
                f"{values[k, n]} in column {name!r}, row {k}, element {n} ({odd.sum()} such values)"
            )
            findings.append(finding(CheckCode.DATA_NOT_FINITE, path, what, "finite values"))
        columns[name] = values
    return columns, findings


def numbering_columns(
    columns: Columns, stored: CommittedEpisode, place: EpisodePlace
) -> Iterator[Finding]:
    """frame_index, timestamp, episode_index, index and task_index of every row."""
    path, count = stored.data_path, stored.row.length
    frame = np.arange(count, dtype=np.int64)
    at_s = (frame / place.dataset.fps).astype(np.float32)
    number = np.full(count, stored.row.episode_index, dtype=np.int64)
    yield from _differs(CheckCode.DATA_FRAME_INDEX, path, columns, "frame_index", frame)
    yield from _differs(CheckCode.DATA_TIMESTAMP, path, columns, "timestamp", at_s)
    yield from _differs(CheckCode.DATA_EPISODE_INDEX, path, columns, "episode_index", number)
    yield from _differs(CheckCode.DATA_INDEX, path, columns, "index", frame + place.index_from)
    if "timestamp" in columns:
        steps_s = np.diff(columns["timestamp"][:, 0])  # float32, as readers compute it
        off = np.abs(steps_s - 1 / place.dataset.fps) > TOLERANCE_S
        if off.any():
            k = int(np.argmax(off))
            what = f"{steps_s[k]} s between rows {k} and {k + 1}"
            expected = f"{1 / place.dataset.fps} s within {TOLERANCE_S}, the tolerance of readers"
            yield finding(CheckCode.DATA_TIMESTAMP, path, what, expected)
    yield from _task_findings(columns, stored, place)


def _differs(
    check: CheckCode, path: str, columns: Columns, name: str, expected: npt.NDArray[Any]
) -> Iterator[Finding]:
    """Name the first row whose value is not the expected one."""
    if name in columns and not np.array_equal(columns[name][:, 0], expected):
        off = columns[name][:, 0] != expected
        k = int(np.argmax(off))
        what = f"{name} {columns[name][k, 0]} in row {k} ({off.sum()} of {len(off)} rows differ)"
        yield finding(check, path, what, expected[k])


def _task_findings(
    columns: Columns, stored: CommittedEpisode, place: EpisodePlace
) -> Iterator[Finding]:
    texts = texts_of(columns, place.tasks)
    if texts is None:
        if "task_index" in columns:
            indices = sorted(set(columns["task_index"][:, 0].tolist()))
            what, expected = (
                f"task_index {indices}",
                f"only {sorted(place.tasks)}, the tasks of the episode",
            )
            yield finding(CheckCode.DATA_TASK_INDEX, stored.data_path, what, expected)
        return
    counts = {text: texts.count(text) for text in dict.fromkeys(texts)}
    declared = dict(zip(stored.row.tasks, stored.row.task_counts, strict=True))
    if list(counts.items()) != list(declared.items()):
        what = f"tasks in order with their rows {counts}"
        yield finding(CheckCode.DATA_TASK_INDEX, stored.data_path, what, declared)


def texts_of(columns: Columns, tasks: Mapping[int, str]) -> list[str] | None:
    """The task text of each row; None when an index has none."""
    indices = columns["task_index"][:, 0].tolist() if "task_index" in columns else [-1]
    return [tasks[i] for i in indices] if tasks.keys() >= set(indices) else None
