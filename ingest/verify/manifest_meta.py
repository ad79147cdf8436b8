"""Do the `meta` files of the datasets that a manifest names still say how to read them: which element of a vector is what, at which rate?

Data files and videos are compared by their digests; `meta/` grows with every commit and has none. What is not a count of episodes in it
follows from the catalog alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ingest.corpus.committed_episodes import empty_datasets
from ingest.corpus.lerobot_meta import ERASED_KEY, LINES_KEY, WHOLE_LIMITS, whole_files
from ingest.corpus.snapshot import Snapshot
from ingest.curation.manifests.issue import Issue, IssueKind
from ingest.storage.local import within
from ingest.verify.files import problem_opening
from ingest.verify.finding import CheckCode, excerpt
from schemas.errors import SourceError
from schemas.json_text import parse_json, read_json

HOW = "remove this dataset's meta/eicorpus.json and run any `eicorpus ingest` into this corpus: meta/ is made again"
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
    """Every key that is not what the catalog says; a dataset that the snapshot lacks is told by its episodes."""
    datasets = empty_datasets(root, current)
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
        actual = dict(read_json(within(root, path), limits=WHOLE_LIMITS))
    except (SourceError, ValueError, TypeError) as error:
        yield Issue(what=path, fault=IssueKind.FILE_UNREADABLE, message=f"no JSON object: {error}")
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
        yield f"{place} is {excerpt(json.dumps(actual))}, the catalog says {excerpt(json.dumps(expected))}"
