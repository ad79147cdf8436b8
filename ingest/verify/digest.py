"""The content digest of a corpus from what lies on disk: rows, task texts, bytes of videos, catalog facts.

Nothing stored is believed but the list of episodes, so it tells two corpora apart by what they hold, whatever they claim.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from ingest.corpus import snapshot
from ingest.corpus.committed_episodes import CommittedEpisode, committed_batches
from ingest.corpus.digest import corpus_digest
from ingest.corpus.layout import open_corpus
from ingest.storage.local import within
from ingest.verify.files import in_batches, problem_opening, sha256_of
from schemas.document import DocumentError
from schemas.errors import Code, ConfigError, SourceError
from schemas.json_text import JsonLimits, parse_json
from schemas.parquet_file import DamagedParquet, open_parquet
from schemas.regular_file import lines_of_regular

MAX_TASKS_BYTES = 4 << 30  # 10^7 texts of 400 characters
TASK_LIMITS = JsonLimits(max_bytes=1 << 24, max_elements=100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """The digest of a corpus, and how many of its episodes are not what was committed."""

    sha256: str
    episodes: int
    changed: int


def digest(
    path: Path, *, progress: Callable[[int], None] = lambda done: None, workers: int = 2
) -> Digest:
    """Recompute the content digest of every episode, and of the corpus.

    Raises:
        ConfigError: no corpus, one of a newer format, or a list of tasks that is none.
        SourceError: a file is missing or cannot be read, so there is no content to tell.
    """
    corpus = open_corpus(path).root
    tasks = cache(partial(_tasks, corpus))
    pairs: list[tuple[str, str]] = []
    changed = 0
    pool = ThreadPoolExecutor(workers, thread_name_prefix="digest")
    try:
        for batch in committed_batches(corpus, _snapshot(corpus)):
            for stored in batch:
                tasks(stored.row.dataset_path)  # read once, here, not by every thread
            contents = in_batches(pool, lambda stored: _content(corpus, stored, tasks), batch)
            for stored, content in zip(batch, contents, strict=True):
                pairs.append((stored.row.uid, content))
                changed += content != stored.row.content_sha256
                progress(len(pairs))
    except (DamagedParquet, OSError, ValueError, KeyError) as error:
        raise _unreadable(str(path), error) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return Digest(sha256=corpus_digest(pairs), episodes=len(pairs), changed=changed)


def _snapshot(corpus: Path) -> snapshot.Snapshot:
    try:
        return snapshot.load(corpus)
    except snapshot.DamagedSnapshot as error:
        raise ValueError(error.message) from error  # told with the rest of what cannot be read


def _content(corpus: Path, stored: CommittedEpisode, tasks: Callable[[str], dict[int, str]]) -> str:
    """The content digest of one episode, from its files."""
    videos = {}
    for camera in stored.cameras:
        artifact = stored.artifact("video", camera)
        path = _file(corpus, stored.video_path(camera))
        videos[camera] = sha256_of(path, (artifact and artifact.num_bytes) or 0)
    with open_parquet(_file(corpus, stored.data_path)) as parquet:
        table = parquet.read()
    texts = tasks(stored.row.dataset_path)
    indices = table.column("task_index").to_pylist()
    return stored.content_sha256(table, [texts[i] for i in indices], videos)


def _tasks(corpus: Path, dataset_path: str) -> dict[int, str]:
    """Task texts by index, from `tasks.jsonl`.

    Raises:
        ConfigError: a line is no task; the message has its number.
        SourceError: the file is missing or cannot be read.
    """
    path = f"{dataset_path}/meta/tasks.jsonl"
    texts: dict[int, str] = {}
    lines = lines_of_regular(
        _file(corpus, path), max_bytes=MAX_TASKS_BYTES, max_line_bytes=TASK_LIMITS.max_bytes
    )
    try:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                index, text = _task(line, number)
                texts[index] = text
    except (DocumentError, SourceError) as error:
        problem = error.message if isinstance(error, SourceError) else str(error)
        raise ConfigError(problem, remedy="run `eicorpus verify`", where=path) from error
    return texts


def _task(line: bytes, number: int) -> tuple[int, str]:
    try:
        task = parse_json(line, limits=TASK_LIMITS)
    except DocumentError as error:
        raise DocumentError(f"line {number}: {error}") from error
    index, text = (
        (task.get("task_index"), task.get("task")) if isinstance(task, dict) else (None, None)
    )
    if type(index) is not int or not isinstance(text, str):
        raise DocumentError(f"line {number}: expected an object with `task_index` and `task`")
    return index, text


def _file(corpus: Path, path: str) -> Path:
    problem = problem_opening(corpus, path)
    if problem is not None:
        raise SourceError(Code.UNREADABLE, f"{problem.message}; {problem.remedy}", where=path)
    return within(corpus, path)


def _unreadable(path: str, error: Exception) -> SourceError:
    problem = f"{type(error).__name__}: {error}; `eicorpus verify` lists what is damaged"
    return SourceError(Code.UNREADABLE, problem, where=path)
