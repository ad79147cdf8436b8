"""Checks that `meta/` is byte for byte what the catalog gives, and that the datasets of a manifest can still be read by it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any, BinaryIO

from ingest.corpus.commit import datasets_without_episodes
from ingest.corpus.layout import data_file, video_file
from ingest.corpus.lerobot_meta import (
    ERASED_KEY,
    LINES_KEY,
    SIDECAR,
    WHOLE_LIMITS,
    Dataset,
    JsonlAppends,
    older_sidecar,
    whole_files,
)
from ingest.corpus.snapshot import Snapshot
from ingest.curation.manifests.issue import Issue, IssueKind
from ingest.storage.file_tree import entries_below
from ingest.storage.local import HALF_SUFFIX, LocalStorage, within
from ingest.storage.store import get_json
from ingest.verify.files import limit_bytes, problem_opening, unreadable
from ingest.verify.finding import CheckCode, Finding, excerpt, finding, first_differing
from schemas.errors import SourceError
from schemas.json_text import parse_json

HOW = "remove this dataset's meta/eicorpus.json and run any `eicorpus ingest` into this corpus; meta/ is rebuilt"
# Keys that grow with episodes.
GROWING = frozenset(
    [
        "total_episodes",
        "total_frames",
        "total_tasks",
        "total_videos",
        "total_chunks",
        "splits",
        "episodes",
        ERASED_KEY,
        LINES_KEY,
    ]
)


def meta_flaws(root: Path, current: Snapshot, dataset_paths: Iterable[str]) -> Iterator[Issue]:
    """Every key that is not what the catalog says. A dataset that the snapshot lacks is told by its episodes."""
    datasets = datasets_without_episodes(root, current)
    for path in sorted(set(dataset_paths) & datasets.keys()):
        for name, content in whole_files(datasets[path]).items():
            yield from _file_flaws(
                root, f"{path}/meta/{name}", parse_json(content, limits=WHOLE_LIMITS)
            )


def _file_flaws(root: Path, path: str, expected: Mapping[str, Any]) -> Iterator[Issue]:
    problem = problem_opening(root, path)
    if problem is not None:
        is_missing = problem.check is CheckCode.FILE_MISSING
        fault = IssueKind.FILE_MISSING if is_missing else IssueKind.FILE_UNREADABLE
        yield Issue(what=path, fault=fault, message=problem.message)
        return
    try:
        actual = dict(get_json(LocalStorage(root), path, limits=WHOLE_LIMITS))
    except (SourceError, ValueError, TypeError) as error:
        yield Issue(
            what=path, fault=IssueKind.FILE_UNREADABLE, message=f"not a JSON object: {error}"
        )
        return
    places = [
        p
        for k in sorted((expected.keys() | actual.keys()) - GROWING)
        for p in _odd(k, actual.get(k), expected.get(k))
    ]
    if places:
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        message = f"{'; '.join(places[:3])}{more}"
        yield Issue(what=path, fault=IssueKind.META_CHANGED, message=f"{message}; {HOW}")


def _odd(place: str, actual: Any, expected: Any) -> Iterator[str]:
    """The innermost places where two JSON values differ."""
    if actual == expected:
        return
    if isinstance(actual, dict) and isinstance(expected, dict):
        for key in sorted(actual.keys() | expected.keys()):
            yield from _odd(f"{place}.{key}", actual.get(key), expected.get(key))
    elif isinstance(actual, list) and isinstance(expected, list) and len(actual) == len(expected):
        for index, pair in enumerate(zip(actual, expected, strict=True)):
            yield from _odd(f"{place}[{index}]", *pair)
    else:
        yield f"{place} is {excerpt(json.dumps(actual))}; the catalog states {excerpt(json.dumps(expected))}"


class MetaComparison:
    """Reads the JSON Lines files of one dataset in step with what they should hold."""

    def __init__(self, corpus: Path, dataset_path: str) -> None:
        self._corpus, self._meta = corpus, f"{dataset_path}/meta"
        self._done = dict.fromkeys(
            JsonlAppends().files(), (0, 0)
        )  # name -> (bytes, lines) that agree
        self._broken: set[str] = set()  # said once; what follows a difference would differ too

    def feed(self, lines: JsonlAppends) -> Iterator[Finding]:
        """Compare the next lines of each file."""
        for name, expected in lines.files().items():
            if not expected or name in self._broken:
                continue
            offset, line = self._done[name]
            data = self._read(name, offset, len(expected))
            if isinstance(data, bytes) and data == expected:
                self._done[name] = offset + len(expected), line + expected.count(b"\n")
                continue
            self._broken.add(name)
            path = f"{self._meta}/{name}"
            yield (
                data if isinstance(data, Finding) else first_difference(path, data, expected, line)
            )

    def finish(self, dataset: Dataset) -> Iterator[Finding]:
        """Nothing may follow the last line. Then the files that are written whole."""
        for name, (offset, line) in self._done.items():
            if name in self._broken:
                continue
            data = self._read(name, offset, 1000)
            if isinstance(data, Finding):
                yield data
            elif data:
                yield first_difference(f"{self._meta}/{name}", data, b"", line)
        for name, expected in whole_files(dataset).items():
            data = self._read(name, 0, limit_bytes(len(expected)))
            if isinstance(data, Finding):
                yield data
            elif data not in (expected, *([older_sidecar(expected)] if name == SIDECAR else [])):
                yield first_difference(f"{self._meta}/{name}", data, expected, 0)

    def _read(self, name: str, offset: int, count: int) -> bytes | Finding:
        path = f"{self._meta}/{name}"
        problem = problem_opening(self._corpus, path)
        if problem is not None:
            if problem.check is CheckCode.FILE_MISSING:
                return finding(
                    CheckCode.META_MISSING, path, "nothing there", "a part of every dataset"
                )
            return problem
        try:
            with within(self._corpus, path).open("rb") as file:
                return _read_at(file, offset, count)
        except OSError as error:
            return unreadable(path, error)


def _read_at(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def first_difference(path: str, actual: bytes, expected: bytes, lines_before: int) -> Finding:
    """Name the first line that differs and show both around the first differing character."""
    lines = _lines(actual), _lines(expected)
    number = first_differing(*lines)
    a, b = (each[number] if number < len(each) else "" for each in lines)
    at = first_differing(a, b)
    shown = [excerpt(text, at) if text else "the end of the file" for text in (a, b)]
    where = f"line {lines_before + number + 1}: {shown[0]}"
    return finding(CheckCode.META_DIFFERS, path, where, shown[1])


def _lines(data: bytes) -> list[str]:
    """Lines with their ends, so that a missing last newline is a difference too. Only a newline ends one."""
    return list(StringIO(data.decode("utf-8", "replace"), newline="\n"))


def extra_files(corpus: Path, datasets: Mapping[str, Dataset]) -> Iterator[Finding]:
    """Files below `datasets/` that belong to no episode of the catalog. Latents have their own table and are let be."""
    refused: list[OSError] = []
    for entry in entries_below(corpus / "datasets", on_error=refused.append):
        if entry.is_dir(follow_symlinks=False):
            continue
        path = Path(entry.path).relative_to(corpus).as_posix()
        if entry.name.startswith(".") and entry.name.endswith(HALF_SUFFIX):
            what = "an incomplete file of a stopped run"
            yield finding(CheckCode.FILE_UNFINISHED, path, what, "no unfinished run")
        elif not _is_expected(path, datasets):
            what = "a file of no episode in the catalog"
            yield finding(CheckCode.FILE_EXTRA, path, what, "only files of committed episodes")
    for error in refused:
        yield unreadable(os.path.relpath(error.filename or corpus, corpus), error)


def _is_expected(path: str, datasets: Mapping[str, Dataset]) -> bool:
    parts = path.split("/")
    dataset, inside = datasets.get("/".join(parts[:3])), "/".join(parts[3:])
    if dataset is None:
        return False
    digits = Path(path).stem.removeprefix("episode_")
    number = int(digits) if digits.isascii() and digits.isdigit() else -1
    if parts[3] == "meta":
        return inside.removeprefix("meta/") in {*JsonlAppends().files(), *whole_files(dataset)}
    if parts[3] == "latents":
        return True
    if not 0 <= number < dataset.episodes:
        return False
    videos = {video_file(number, key) for key in dataset.video_keys}
    return inside in {data_file(number), *videos}
