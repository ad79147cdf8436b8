"""What a node must see as the driver does, and the proof. The proof runs in every worker process before its first episode.

The driver writes a random number into the corpus and notes size and digest of sampled files. A node reads both and writes an answer
into the corpus, which the driver looks for. A node that differs gets no work, so it never decides what happens to an episode.
Of a corpus in a bucket the number and the answers are objects: nodes need no file system that they share with the driver.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import adapters
import ingest
import schemas
from adapters.registry import adapter_for
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.remote_staging import FOLDER as STAGING
from ingest.executors.inline import Executor
from ingest.storage.local import LocalStorage
from ingest.storage.lock_file import held_with_others
from ingest.storage.open_store import probe_copies
from ingest.storage.process_folder import process_folder
from schemas.errors import PipelineError, UnknownOutcome, system_error_text
from schemas.regular_file import open_regular

if TYPE_CHECKING:
    from ingest.corpus.shared_store import SharedStore

PREFIX = ".nodes."  # of the folder of a run, in the corpus' staging
NONCE = "nonce"
LOCK = ".nodes"  # in the corpus; held while a run has such a folder
EDGE_BYTES = 4096  # of the head and of the tail of a file are compared
DEPTH = 5  # levels of folders below a root that are sampled
FOLDERS = 32  # of one level
LISTED = 1000  # entries of one folder
TRIES, PAUSE_S = 5, 1.0  # a network file system may show a new file late

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMark:
    """Size and digest of a file as the driver sees it."""

    path: str
    num_bytes: int
    sha256: str  # of the first and the last `EDGE_BYTES`


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedView:
    """What the driver sees, for a node to compare."""

    folder: str  # of the run, in the corpus; with `bucket` the staging folder of the machine that it is looked at on
    nonce: str
    marks: tuple[FileMark, ...] = ()
    adapter: str = ""  # to be importable
    bucket: str = ""  # URI of the corpus, where nodes do not see the folder of the driver
    key: str = ""  # in the bucket: of the folder of the run


@runtime_checkable
class Distributed(Protocol):
    """An executor whose workers may see another file system than the driver."""

    def share(self, view: SharedView, is_doubtful: Callable[[Any, Any], bool]) -> None:
        """Let every node prove that it sees what the driver sees.

        `is_doubtful(work, result)`: the result says that something is absent which the driver saw.

        Raises:
            ConfigError: no node does.
        """
        ...

    def expect(self, num_work: int) -> None:
        """The number of episodes of the run. The autoscaler request shrinks as they end."""
        ...

    def close(self) -> None:
        """Leave the cluster; end it if it is this process's own."""
        ...


def nothing_is_doubtful(work: Any, result: Any) -> bool:
    return False


@contextmanager
def shared(
    executor: Executor | Distributed,
    corpus: CorpusLayout,
    disk: LocalStorage,
    *,
    files: Callable[[], Iterable[Path]] = tuple,
    adapter: str = "",
    is_doubtful: Callable[[Any, Any], bool] = nothing_is_doubtful,
    num_work: int = 0,
    bucket: str = "",
) -> Iterator[Path | None]:
    """Before work on several machines: each node proves that it sees this corpus and `files`. Nothing to do on one machine.

    Yields a folder of this run that every node sees; None on one machine, and of a bucket.

    Args:
        num_work: how much work there is; 0 where that is not known.
        bucket: URI of the corpus, to which workers hand over what they make; "" where all nodes see its folder.

    Raises:
        ConfigError: no node does; the message says what each one sees instead. Or the bucket cannot copy objects safely.
        TransientError: the bucket does not answer.
    """
    if not isinstance(executor, Distributed):
        yield None
        return
    nonce = secrets.token_hex(16)
    with ExitStack() as stack:
        if bucket:
            key = stack.enter_context(_run_objects(bucket, nonce))
            folder, at = None, {"folder": str(corpus.staging), "bucket": bucket, "key": key}
        else:
            folder = stack.enter_context(_run_folder(corpus, disk))
            disk.write(folder / NONCE, nonce.encode(), is_durable=True)
            at = {"folder": str(folder)}
        stack.callback(executor.close)  # before the folder goes: workers use it
        marks = tuple(mark for path in files() if (mark := mark_of(path)) is not None)
        view = SharedView(**at, nonce=nonce, marks=marks, adapter=adapter)
        executor.expect(num_work)
        executor.share(view, is_doubtful)
        yield folder


def _store_of(bucket: str) -> SharedStore:
    from ingest.corpus.publishing import store_of  # other worker processes start without it

    return store_of(bucket)


@contextmanager
def _run_objects(bucket: str, nonce: str) -> Iterator[str]:
    """The objects of a run of workers that upload. Those of a driver that was killed are removed by `eicorpus gc`."""
    store, key = _store_of(bucket), f"{STAGING}/{PREFIX}{secrets.token_hex(16)}"
    probe_copies(store, key)
    try:
        store.create(f"{key}/{NONCE}", nonce.encode())
        yield key
    finally:
        with suppress(PipelineError):
            store.delete_all(list(store.list(key)))


@contextmanager
def _run_folder(corpus: CorpusLayout, disk: LocalStorage) -> Iterator[Path]:
    """A folder for one run. Several runs may work on a corpus at a time: `manifest build` takes no writer lock."""
    disk.make_dir(corpus.staging)
    with held_with_others(corpus.root / LOCK, partial(_sweep_left, corpus, disk)):
        folder = corpus.path(f"staging/{PREFIX}{secrets.token_hex(16)}")
        disk.make_dir(folder)
        try:
            yield folder
        finally:
            _sweep(folder, disk)


def _sweep_left(corpus: CorpusLayout, disk: LocalStorage) -> None:
    """Remove the folders of drivers that were killed."""
    for left in corpus.staging.glob(f"{PREFIX}*"):
        _sweep(left, disk)


def _sweep(folder: Path, disk: LocalStorage) -> None:
    """Remove the folder of a run. NFS refuses while a worker of this machine has a file in it open: then the next run does it."""
    with suppress(OSError):
        disk.remove_tree(folder)


def mark_of(path: Path) -> FileMark | None:
    """None when the file cannot be read here either."""
    try:
        with open_regular(path) as file:
            head = file.read(EDGE_BYTES)
            num_bytes = file.seek(0, 2)
            file.seek(max(num_bytes - EDGE_BYTES, 0))
            digest = hashlib.sha256(head + file.read(EDGE_BYTES)).hexdigest()
    except (PipelineError, OSError):
        return None
    return FileMark(path=str(path), num_bytes=num_bytes, sha256=digest)


# --- in a worker process ----------------------------------------------------------------------------------------------


@cache
def difference(view: SharedView, node_id: str) -> str:
    """What this process sees otherwise than the driver; "" for nothing. Leaves its answer in the corpus."""
    of_corpus = _of_bucket if view.bucket else _of_corpus
    return of_corpus(view, node_id) or _of_files(view) or _of_adapter(view)


def _of_bucket(view: SharedView, node_id: str) -> str:
    try:
        process_folder(Path(view.folder))
        store = _store_of(view.bucket)
        if store.get(f"{view.key}/{NONCE}", max_bytes=EDGE_BYTES).decode() != view.nonce:
            return f"{view.bucket} differs from the driver's"
        for _ in range(TRIES):
            with suppress(UnknownOutcome):  # an answer that got lost, or a request
                store.create(f"{view.key}/{node_id}", view.nonce.encode())
                return ""
    except (OSError, PipelineError) as error:
        return f"this node cannot work with {view.bucket} ({system_error_text(error)})"
    return ""


def _of_corpus(view: SharedView, node_id: str) -> str:
    folder = Path(view.folder)
    try:
        text = _patiently(partial(_text, folder / NONCE))
        if text != view.nonce:
            return f"{folder / NONCE} differs from the driver's; the corpus must be on storage that all nodes share"
        # Rooted in the corpus: links above it are the caller's and are followed, as in a local run. A file of its own for each
        # process: two that write one file at a time take its half-written name away from each other.
        answer = folder / f"{node_id}.{os.getpid()}"
        LocalStorage(folder.parent).write(answer, view.nonce.encode(), is_durable=True)
    except (OSError, PipelineError) as error:
        return f"the corpus differs from the driver's ({system_error_text(error)}); it must be on storage that all nodes share"
    return ""


def _patiently(read: Callable[[], T]) -> T:
    for _ in range(TRIES - 1):
        try:
            return read()
        except OSError:
            time.sleep(PAUSE_S)
    return read()


def _text(path: Path) -> str:
    """What one of us wrote into the folder of the run."""
    with path.open("rb") as file:
        return file.read(EDGE_BYTES).decode()


def _of_files(view: SharedView) -> str:
    differing = [(mark, seen) for mark in view.marks if (seen := mark_of(Path(mark.path))) != mark]
    if not differing:
        return ""
    mark, seen = differing[0]
    if seen is None:
        what = "cannot be read on this node"
    elif seen.num_bytes != mark.num_bytes:
        what = f"has {seen.num_bytes} bytes on this node, {mark.num_bytes} on the driver"
    else:
        what = "has different content on this node and on the driver"
    return f"{mark.path} {what} ({len(differing)} of {len(view.marks)} sampled files differ)"


def _of_adapter(view: SharedView) -> str:
    try:
        if view.adapter:
            adapter_for(view.adapter)
    except PipelineError as error:
        return str(error)
    return ""


def is_answered(view: SharedView, node_id: str) -> bool:
    """Whether what a process of a node wrote into the corpus is here."""
    if view.bucket:
        return _store_of(view.bucket).size(f"{view.key}/{node_id}") is not None
    try:
        return _patiently(partial(_answer, view, node_id)) == view.nonce
    except OSError:
        return False


def _answer(view: SharedView, node_id: str) -> str:
    """
    Raises:
        FileNotFoundError: the node has not answered yet.
    """
    for path in Path(view.folder).glob(f"{node_id}.*"):
        return _text(path)
    raise FileNotFoundError(view.folder)


@cache
def code_id() -> str:
    """Version and digest of the packages that work on episodes: the same code gives the same bytes."""
    digest = hashlib.sha256()
    for package in (schemas, adapters, ingest):
        root = Path(next(iter(package.__path__)))
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(path.relative_to(root).as_posix().encode() + b"\0")
                digest.update(path.read_bytes())
    try:
        version = metadata.version("eicorpus")
    except metadata.PackageNotFoundError:
        version = "not installed"
    return f"{version} ({digest.hexdigest()[:12]})"


# --- which files are sampled ------------------------------------------------------------------------------------------


def sampled_files(root: Path) -> list[Path]:
    """Files below `root` that touch every folder of the first level, every file system and some of each deeper level."""
    if not root.is_dir():
        return [root]
    files: list[Path] = []
    level = [root, *_mounts(root)]
    for depth in range(DEPTH):
        below: list[Path] = []
        for folder in level:
            entries = _listed(folder)
            files += spread([path for path, is_dir in entries if not is_dir], 2)
            below += [path for path, is_dir in entries if is_dir]
        level = spread(below, FOLDERS) if depth else below
    return list(dict.fromkeys(files))


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` items, the first and the last among them, evenly between."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def _listed(folder: Path) -> list[tuple[Path, bool]]:
    """(path, is a folder) of regular files and folders; the first `LISTED` that the file system gives, by name."""
    try:
        with os.scandir(folder) as entries_of_folder:
            entries = sorted(islice(entries_of_folder, LISTED), key=lambda entry: entry.name)
        return [(folder / e.name, e.is_dir()) for e in entries if e.is_dir() or e.is_file()]
    except OSError:
        return []


def _mounts(root: Path) -> list[Path]:
    """Folders below `root` where another file system begins."""
    inside = f"{root.resolve()}/"
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split(" ")[4].replace("\\040", " ") for line in lines]
    return sorted(Path(point) for point in points if point.startswith(inside))
