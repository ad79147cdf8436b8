"""Writes an export: units into folders of their own, then every file to its place, and `eicorpus_export.json` last.

An export that was stopped goes on: a unit whose record exists is not written again, and the files are those of an export that was never
stopped. Nothing in the folder is an export before its page exists.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.executors.inline import Executor
from ingest.export.datasets.format import (
    ExportUnit,
    Finishing,
    Format,
    UnitRecord,
    file_facts,
    units_of,
)
from ingest.export.datasets.info_checks import check_infos, check_video
from ingest.export.datasets.plan import ExportPlan, artifacts_of, segments_of
from ingest.export.datasets.record import ORIGIN
from ingest.storage.file_tree import entries_below
from ingest.storage.local import HALF_SUFFIX, LocalStorage, within
from ingest.storage.lock_file import open_lock
from ingest.storage.write_refusal import refused_write
from ingest.video.cut import check_committed
from schemas.errors import ConfigError, PipelineError, TransientError
from schemas.json_text import JsonLimits, parse_json
from schemas.outcome import WorkerFailure

PAGE = "eicorpus_export.json"
SEGMENTS = "eicorpus_export.parquet"  # which segment of the manifest is which episode
UNFINISHED = ".unfinished"
PLAN, LOCK = "plan.json", ".lock"  # in it
VERSION = 1
RECORD_LIMITS = JsonLimits(max_bytes=1 << 28, max_elements=1 << 24)
PAGE_LIMITS = JsonLimits(max_bytes=1 << 28, max_elements=1 << 24)
MAPPING = pa.schema(
    [
        ("dataset", pa.string()),  # folder in the export
        ("episode_index", pa.int64()),  # in that dataset
        ("uid", pa.string()),  # of the episode in the corpus
        ("start", pa.int64()),  # timesteps [start, end) of it
        ("end", pa.int64()),
        ("source", pa.string()),
        ("embodiment", pa.string()),
        ("tier", pa.string()),
        ("tasks", pa.list_(pa.string())),
        ("reasons", pa.list_(pa.string())),
        ("split", pa.string()),
        ("weight", pa.float64()),
        ("text", pa.string()),
        ("caption_id", pa.string()),
        ("licence_class", pa.string()),
        ("content_sha256", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportDone:
    """What is in the folder now. `num_written`: units that this run wrote."""

    page: Mapping[str, Any]
    num_units: int
    num_written: int


def run_export(
    plan: ExportPlan,
    chosen: Format,
    out: Path,
    executor: Executor,
    progress: Callable[[int], None] = lambda segments: None,
) -> ExportDone:
    """Write the export into `out`, or go on with it.

    Raises:
        ConfigError: the folder holds something else, or a file of the corpus is missing or damaged.
        TransientError: the disk is full, or a worker process ended; run again.
    """
    check_export(plan, chosen, out)
    if (out / PAGE).is_file() and not (out / UNFINISHED).exists():
        return ExportDone(page=_same(out, plan), num_units=0, num_written=0)
    disk = LocalStorage(out)
    with _claimed(out, plan, disk):
        if (out / PAGE).is_file():  # from before, or another process finished it just now
            done = ExportDone(page=_same(out, plan), num_units=0, num_written=0)
            disk.remove_tree(out / UNFINISHED)  # what a power cut left after the page
            return done
        return _written(plan, chosen, out, executor, disk, progress)


def _written(
    plan: ExportPlan,
    chosen: Format,
    out: Path,
    executor: Executor,
    disk: LocalStorage,
    progress: Callable[[int], None],
) -> ExportDone:
    num_units, num_written = _write_units(plan, chosen, out, executor, progress)
    finishing = Finishing(
        plan=plan,
        records=partial(_records, out, num_units),
        write=disk.put,
        folder=out,
    )
    page = _finish(finishing, chosen, disk)
    return ExportDone(page=page, num_units=num_units, num_written=num_written)


def _same(out: Path, plan: ExportPlan) -> Mapping[str, Any]:
    page = read_page(out)
    if page["plan"] != plan.digest:
        raise ConfigError(
            f"the folder holds another export: {page['format']} of manifest {page['manifest']['name']}",
            remedy="choose another folder, or remove this one",
            where=str(out),
        )
    return page


def read_page(out: Path) -> Mapping[str, Any]:
    """`eicorpus_export.json`.

    Raises:
        ConfigError: it is missing, damaged, or of a newer version.
    """
    try:
        page = parse_json(
            LocalStorage(out).read(out / PAGE, most=PAGE_LIMITS.max_bytes), limits=PAGE_LIMITS
        )
        version = int(page["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"no finished export ({error!r})",
            remedy="run the same `eicorpus export` again",
            where=str(out / PAGE),
        ) from error
    if version > VERSION:
        raise ConfigError(
            f"export version {version}", remedy="install a newer eicorpus", where=str(out / PAGE)
        )
    return dict(page)


def check_export(plan: ExportPlan, chosen: Format, out: Path) -> None:
    """Whether this export can begin or go on. Nothing is written.

    Raises:
        ConfigError: the format cannot hold the plan, `info.json` does not fit the files, or the folder holds something else.
        SourceError: a video is missing or damaged.
    """
    chosen.check(plan)
    check_infos(plan)
    _check_folder(out, plan)


def _check_folder(out: Path, plan: ExportPlan) -> None:
    """Whether this export can begin or go on in a folder. Nothing is written.

    Raises:
        ConfigError: it holds something else, or is no folder.
    """
    for above in (out, *out.absolute().parents):
        if above.exists() and not above.is_dir():
            raise ConfigError("is a file", remedy="choose another folder", where=str(above))
    if (out / PAGE).is_file():
        _same(out, plan)
        return
    mark = out / UNFINISHED / PLAN
    if mark.is_file():
        if LocalStorage(out).read(mark, most=len(_mark(plan)) + 1) != _mark(plan):
            raise ConfigError(
                "the folder holds the beginning of another export",
                remedy="choose another folder, or remove this one",
                where=str(out),
            )
        return
    if out.is_dir() and any(path.name != UNFINISHED for path in out.iterdir()):
        raise ConfigError(
            "the folder is not empty", remedy="choose an empty or a new folder", where=str(out)
        )


def _mark(plan: ExportPlan) -> bytes:
    return json.dumps({"version": VERSION, "plan": plan.digest}).encode()


@contextmanager
def _claimed(out: Path, plan: ExportPlan, disk: LocalStorage) -> Iterator[None]:
    """Hold the folder for one process of this machine. The kernel lets go when it dies.

    Raises:
        ConfigError: another process exports into it, it cannot be written, or it holds something else.
    """
    try:
        disk.make_dir(out / UNFINISHED)
    except OSError as error:
        raise refused_write(error, out) from error
    handle = open_lock(out / UNFINISHED / LOCK)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                "another process is exporting into this folder",
                remedy="wait until it ends, or stop it; then run the same command again",
                where=str(out),
            ) from error
        _check_folder(out, plan)  # again: it is ours only now
        if not (out / PAGE).is_file() and not (out / UNFINISHED / PLAN).is_file():
            disk.put(f"{UNFINISHED}/{PLAN}", _mark(plan), is_durable=True)
            disk.sync()  # its name too, before anything else is there
        yield
    finally:
        os.close(handle)


# --- units --------------------------------------------------------------------------------------------------------------


def _write_units(
    plan: ExportPlan,
    chosen: Format,
    out: Path,
    executor: Executor,
    progress: Callable[[int], None],
) -> tuple[int, int]:
    """(all units, units that were written now)."""
    files = artifacts_of(plan.corpus)
    units = units_of(plan, lambda dataset: segments_of(plan, dataset, files))
    num_units = num_written = num_segments = 0

    def next_unit() -> ExportUnit | None:
        nonlocal num_units, num_segments
        for unit in units:
            num_units += 1
            if not _is_written(out, unit, plan.digest):
                return unit
            num_segments += len(unit.segments)
        return None

    body = partial(_write_unit, chosen, out, plan.digest)
    for unit, done in executor.run(next_unit, body):
        if isinstance(done, WorkerFailure):
            raise TransientError(
                f"unit {unit.number}: {done.how}", remedy="run the same command again to resume"
            )
        if isinstance(done, PipelineError):
            raise done
        num_written += 1
        num_segments += len(unit.segments)
        progress(num_segments)
    return num_units, num_written


def _identity(unit: ExportUnit, plan_digest: str) -> str:
    """sha256 of what a unit holds: segments of this plan with their numbers. Another release may divide a plan into other units."""
    segments = [
        [s.row.uid, s.row.start, s.row.end, s.index, s.index_from, s.task_index]
        for s in unit.segments
    ]
    text = json.dumps([plan_digest, unit.dataset.name, segments])
    return hashlib.sha256(text.encode()).hexdigest()


def _is_written(out: Path, unit: ExportUnit, plan_digest: str) -> bool:
    """Whether the record of its number is of this unit.

    Raises:
        ConfigError: it is of another one, and files of such units are in their places already.
    """
    path = _record_file(out, unit.number)
    if not path.is_file():
        return False
    raw = parse_json(
        LocalStorage(out).read(path, most=RECORD_LIMITS.max_bytes), limits=RECORD_LIMITS
    )
    if raw.get("identity") == _identity(unit, plan_digest):
        return True
    if any(each.name != UNFINISHED for each in out.iterdir()):
        raise ConfigError(
            "another version of eicorpus began this export with other units",
            remedy="finish it with that version, or remove the folder and export again",
            where=str(out),
        )
    return False


def _write_unit(
    chosen: Format, out: Path, plan_digest: str, unit: ExportUnit, disk: LocalStorage
) -> PipelineError | None:
    """The worker body. The record is written when the files are on the disk."""
    own = LocalStorage(out)
    folder = out / UNFINISHED / f"{unit.number:06d}"
    try:
        own.remove_tree(folder)
        own.make_dir(folder)
        for segment in unit.segments:
            for video in segment.videos:
                path = within(unit.corpus, video.place)
                check_committed(path, video.sha256)
                check_video(path, video.key, unit.dataset)
        facts = chosen.write(unit, folder)
        names = _names_below(folder)
        files = {name: file_facts(folder / name) for name in names}
        own.adopt(folder / name for name in names)
        own.sync()
        record = {
            "identity": _identity(unit, plan_digest),
            "dataset": unit.dataset.name,
            "files": files,
            "facts": facts,
        }
        own.write(_record_file(out, unit.number), json.dumps(record).encode(), is_durable=True)
    except OSError as error:
        return TransientError(
            f"writing failed: {error.strerror}",
            remedy="check the disk, then run the same command again to resume",
            where=str(folder),
        )
    except PipelineError as error:
        return error
    return None


def _record_file(out: Path, number: int) -> Path:
    return out / UNFINISHED / f"{number:06d}.json"


def _records(out: Path, num_units: int) -> Iterator[UnitRecord]:
    """Not all at once: of a whole corpus they are gigabytes."""
    return (_record(out, number) for number in range(num_units))


@lru_cache(maxsize=8)  # the end of an export reads them several times
def _record(out: Path, number: int) -> UnitRecord:
    data = LocalStorage(out).read(_record_file(out, number), most=RECORD_LIMITS.max_bytes)
    raw = parse_json(data, limits=RECORD_LIMITS)
    files = {name: (size, sha256) for name, (size, sha256) in raw["files"].items()}
    return UnitRecord(number=number, dataset=raw["dataset"], files=files, facts=raw["facts"])


# --- the end ------------------------------------------------------------------------------------------------------------


def _finish(finishing: Finishing, chosen: Format, disk: LocalStorage) -> Mapping[str, Any]:
    out, plan = finishing.folder, finishing.plan
    known = {
        (r.number, name): facts for r in finishing.records() for name, facts in r.files.items()
    }
    files: dict[str, tuple[int, str]] = {}
    for number, name, place in chosen.places(finishing):
        source, target = out / UNFINISHED / f"{number:06d}" / name, out / place
        disk.make_dir(target.parent)
        if source.exists():  # else an earlier run moved it
            os.replace(source, target)
        elif not target.is_file():  # neither name outlived a power cut
            disk.remove(_record_file(out, number))
            raise TransientError(
                f"unit {number} lost {name}",
                remedy="run the same command again to write the unit again",
                where=str(out),
            )
        files[place] = known[number, name]
    of_format = chosen.finish(finishing)
    _write_mapping(plan, out / SEGMENTS)
    for place in _names_below(out):
        name = place.rpartition("/")[2]
        if name.startswith(".") and name.endswith(HALF_SUFFIX):  # of a run that was ended
            disk.remove(out / place)
        elif not place.startswith(f"{UNFINISHED}/") and place not in files:
            files[place] = file_facts(out / place)
    disk.adopt(out / place for place in files)
    disk.sync()
    page = _page(plan, files, of_format)
    disk.put(
        PAGE, (json.dumps(page, indent=2, ensure_ascii=False) + "\n").encode(), is_durable=True
    )
    disk.sync()  # its name too, before what could write it again goes
    disk.remove_tree(out / UNFINISHED)
    return page


def export_digest(files: Mapping[str, tuple[int, str]]) -> str:
    """sha256 over path and sha256 of every file but the page."""
    lines = "".join(f"{place} {sha256}\n" for place, (_, sha256) in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _page(
    plan: ExportPlan, files: Mapping[str, tuple[int, str]], of_format: Mapping[str, Any]
) -> dict[str, Any]:
    facts = plan.manifest.facts
    counts = {
        name: dict(sorted(_counts(plan, name).items()))
        for name in ("split", "tier", "licence_class")
    }
    return {
        "version": VERSION,
        "format": plan.format,
        "settings": dict(plan.settings),
        "plan": plan.digest,
        "manifest": {
            "name": facts.name,
            "corpus_uid": facts.corpus_uid,
            "snapshot": facts.snapshot,
            "rows_sha256": facts.rows_sha256,
            "segments": facts.num_rows,
        },
        "segments": plan.num_segments,
        "left_out": [asdict(each) for each in plan.left],
        "segments_of": counts,
        "datasets": [
            {
                "folder": dataset.name,
                "corpus_dataset": dataset.dataset_path,
                "robot_type": dataset.robot_type,
                "fps": dataset.fps,
                "episodes": dataset.rows.num_rows,
                "frames": dataset.num_frames,
            }
            for dataset in plan.datasets
        ],
        **of_format,
        "mapping": SEGMENTS,
        "sha256": export_digest(files),
        "files": {
            place: {"num_bytes": n, "sha256": sha} for place, (n, sha) in sorted(files.items())
        },
    }


def _counts(plan: ExportPlan, column: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for dataset in plan.datasets:
        counts.update(dataset.rows[column].to_pylist())
    return counts


def _write_mapping(plan: ExportPlan, path: Path) -> None:
    with pq.ParquetWriter(path, MAPPING) as writer:
        for dataset in plan.datasets:
            rows = dataset.rows
            columns = {name: rows[name] for name in MAPPING.names[2:]}
            place = {
                "dataset": pa.array([dataset.name] * rows.num_rows, pa.string()),
                "episode_index": pa.array(range(rows.num_rows), pa.int64()),
            }
            writer.write_table(pa.table({**place, **columns}).cast(MAPPING))


def check_files(out: Path, page: Mapping[str, Any]) -> Iterable[str]:
    """What is wrong with the files of an export: missing, extra, of another content, a link or another special file."""
    files = page["files"]
    left = f"{UNFINISHED}/"  # after a power cut; the same command removes it
    plain, special = (
        {name for name in names if not name.startswith(left)} for names in _kinds_below(out)
    )
    present = plain - {PAGE, ORIGIN}
    yield from (f"{place}: missing" for place in sorted(set(files) - present))
    yield from (f"{place}: not part of the export" for place in sorted(present - set(files)))
    yield from (f"{place}: a link or another special file" for place in sorted(special))
    for place in sorted(present & set(files)):
        if file_facts(out / place) != (files[place]["num_bytes"], files[place]["sha256"]):
            yield f"{place}: changed"


def _names_below(folder: Path) -> list[str]:
    """Paths of all files below a folder, relative to it."""
    return _kinds_below(folder)[0]


def _kinds_below(folder: Path) -> tuple[list[str], list[str]]:
    """Paths below a folder, relative to it: plain files; and what is neither a plain file nor a folder, such as links."""
    plain, special = [], []
    for entry in entries_below(folder):
        name = Path(entry.path).relative_to(folder).as_posix()
        if entry.is_file(follow_symlinks=False):
            plain.append(name)
        elif not entry.is_dir(follow_symlinks=False):
            special.append(name)
    return sorted(plain), sorted(special)
