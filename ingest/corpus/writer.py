"""How every command opens a corpus for writing: one writer at a time, after recovery from an interrupted command."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ingest.corpus import lanes, lerobot_meta, snapshot
from ingest.corpus.commit import datasets_of, datasets_without_episodes, stored_episodes
from ingest.corpus.erasure import finish_erasures
from ingest.corpus.latent_packs import orphan_packs
from ingest.corpus.layout import CorpusLayout, writer_lock
from ingest.corpus.lerobot_meta import Dataset
from ingest.corpus.publishing import working_copy
from ingest.corpus.remote_link import read_link
from ingest.corpus.reviews import publish_pending, sweep_submissions
from ingest.corpus.snapshot import FOLDER, Snapshot
from ingest.corpus.snapshot_list import load_all, named_parts
from ingest.corpus.working_copy import COPYING, WorkingCopy
from ingest.storage.file_tree import entries_below, paths_below
from ingest.storage.local import HALF_SUFFIX, LocalStorage
from ingest.storage.lock_file import held_with_others
from ingest.storage.write_refusal import refused_write
from schemas.errors import ConfigError, PipelineError
from schemas.lerobot import CHUNK_SIZE


def recover(
    corpus: CorpusLayout, disk: LocalStorage, current: Snapshot, datasets: dict[str, Dataset]
) -> list[str]:
    """Sweep what no snapshot names and rebuild projections that were cut short. Returns what was done, a line each."""
    done = finish_erasures(corpus, disk, current)
    done += _remove_orphan_files(corpus, disk, datasets)
    sweeps = (_remove_orphan_packs, _remove_orphan_parts, _remove_half_files)
    done += _swept(corpus, disk, *sweeps)
    sweep_submissions(corpus, disk)
    done += _remove_orphan_staging(corpus, disk, current)
    for dataset in own_datasets(corpus.root, datasets):
        if not lerobot_meta.is_current(disk, corpus.root, dataset):
            rebuild(corpus, disk, current, dataset)
            done.append(f"rebuilt {dataset.path}/meta from snapshot {current.number}")
    return done


def rebuild(corpus: CorpusLayout, disk: LocalStorage, current: Snapshot, dataset: Dataset) -> None:
    """Write all of a dataset's `meta/` from the catalog."""
    empty = datasets_without_episodes(corpus.root, current)[dataset.path]
    episodes = stored_episodes(corpus.root, current, dataset.path)
    lines = lerobot_meta.project(empty, episodes)
    lerobot_meta.replace(disk, corpus.root, empty, lines)
    dataset.files = empty.files


def complete(copy: WorkingCopy, current: Snapshot, *, without_images: bool = False) -> None:
    """Make a working copy a whole corpus: every file of every episode, and `meta/` of every dataset from the catalog.

    Args:
        without_images: neither videos nor latents of images.

    Raises:
        ConfigError: another process is writing to it.
        DamagedCopy, SourceError: an object is missing or not what was committed.
        TransientError: the store does not answer, or the disk is full.
    """
    copy.fetch(current, without_images=without_images)
    complete_meta(copy, current)


def complete_meta(copy: WorkingCopy, current: Snapshot) -> None:
    """Make `meta/` of every dataset from the catalog. Raises as `complete`."""
    corpus, disk = CorpusLayout(copy.root), LocalStorage(copy.root)
    datasets = datasets_of(copy.root, current)
    own = {dataset.path for dataset in own_datasets(copy.root, datasets)}
    others = [d for path, d in datasets.items() if path not in own]
    incomplete = [d for d in others if not lerobot_meta.is_current(disk, copy.root, d)]
    if not incomplete:
        return
    with writer_lock(corpus):
        for dataset in incomplete:
            disk.make_dir(corpus.path(f"{dataset.path}/meta"))
            rebuild(corpus, disk, current, dataset)
        disk.sync()


def _remove_orphan_files(
    corpus: CorpusLayout, disk: LocalStorage, datasets: dict[str, Dataset]
) -> list[str]:
    """Files of episodes that were moved in but never committed.

    Committed numbers are contiguous, so nothing is looked for in the folders of chunks that are full. Latents are left to
    `_remove_half_latents`.
    """
    folder = corpus.root / "datasets"
    entries = entries_below(folder, partial(_has_only_committed, datasets))
    done = []
    own = own_folder(corpus.root)
    for path in sorted(Path(entry.path) for entry in entries):
        relative = path.relative_to(corpus.root)
        # What a working copy has of other lanes is a copy of what they committed.
        if not path.is_file() or not own("/".join(relative.parts[:3])):
            continue
        dataset = datasets.get("/".join(relative.parts[:3]))
        is_half = path.name.endswith(".part")
        is_extra = path.stem.startswith("episode_") and _number(path) >= (
            dataset.episodes if dataset else 0
        )
        if is_half or is_extra or (dataset is None and relative.parts[3:4] != ("latents",)):
            disk.remove(path)
            done.append(f"removed {relative}, which no snapshot references")
    return done


_Sweep = Callable[[CorpusLayout, LocalStorage], list[str]]


def _swept(corpus: CorpusLayout, disk: LocalStorage, *sweeps: _Sweep) -> list[str]:
    """What sweeps of unnamed files did. Nothing in a working copy into which another process copies files now."""
    done: list[str] = []

    def sweep() -> None:
        done.extend(line for each in sweeps for line in each(corpus, disk))

    if read_link(corpus.root) is None:
        sweep()
    else:
        with held_with_others(corpus.root / COPYING, sweep):
            pass
    return done


def own_folder(root: Path) -> Callable[[str], bool]:
    """Whether this folder's commits add to a dataset: to each in a corpus of one machine, to those of its lanes in a working copy."""
    link = read_link(root)
    endings = ("",) if link is None else tuple(f".{lane}" for lane in link.lanes)
    return lambda dataset_path: dataset_path.endswith(endings)


def own_datasets(root: Path, datasets: Mapping[str, Dataset]) -> list[Dataset]:
    """Those of `own_folder`."""
    own = own_folder(root)
    return [dataset for path, dataset in datasets.items() if own(path)]


_CHUNK = re.compile(r"chunk-([0-9]{3,18})")


def _has_only_committed(datasets: Mapping[str, Dataset], relative: str) -> bool:
    """Whether a folder below `datasets/` is that of a full chunk, or the latents, of a dataset that is known."""
    source, _, rest = relative.partition("/")
    body, _, rest = rest.partition("/")
    dataset = datasets.get(f"datasets/{source}/{body}")
    if dataset is None:
        return False
    kind, _, name = rest.partition("/")
    matched = _CHUNK.fullmatch(name) if kind in ("data", "videos") else None
    if matched is None:
        return rest == "latents"
    return int(matched[1]) < dataset.episodes // CHUNK_SIZE


def _remove_half_latents(corpus: CorpusLayout, disk: LocalStorage) -> list[str]:
    """Half-written files of latents. They are written in any order, so all folders of latents are listed: only after an unfinished writer."""
    folders = corpus.root.glob("datasets/*/*/latents")
    done = []
    for path in sorted(path for each in folders for path in paths_below(each, f"*{HALF_SUFFIX}")):
        if path.is_file():
            disk.remove(path)
            done.append(f"removed {path.relative_to(corpus.root)}, which no snapshot references")
    return done


def _number(path: Path) -> int:
    digits = path.stem.removeprefix("episode_")
    return int(digits) if digits.isdigit() else -1


def _remove_orphan_packs(corpus: CorpusLayout, disk: LocalStorage) -> list[str]:
    """Packs of latents that were written but never committed. What an older snapshot names stays."""
    try:
        orphans = orphan_packs(corpus, partial(load_all, corpus.root))
    except ConfigError as error:  # of a damaged snapshot or part it cannot be known what it names
        return [f"kept all packs of latents, because the catalog is damaged: {error}"]
    for path in orphans:
        disk.remove(corpus.path(path))
    return [f"removed {path}, which no snapshot references" for path in orphans]


def _remove_orphan_parts(corpus: CorpusLayout, disk: LocalStorage) -> list[str]:
    """Catalog parts that were written but never published, and half-written files. What an older snapshot names stays."""
    try:
        named = named_parts(load_all(corpus.root))
    except snapshot.DamagedSnapshot as error:
        return [
            f"kept all catalog files, because a snapshot is damaged: {error}"
        ]  # what it named cannot be known
    done = []
    for path in sorted(paths_below(corpus.root / "catalog")):
        relative = path.relative_to(corpus.root).as_posix()
        if not path.is_file() or (relative in named and not path.name.endswith(".part")):
            continue
        if path.name.endswith(".part") or not relative.startswith(FOLDER):
            disk.remove(path)
            done.append(f"removed {relative}, which no snapshot references")
    return done


def _remove_half_files(corpus: CorpusLayout, disk: LocalStorage) -> list[str]:
    """Half-written files of what is no part of a snapshot. `manifests/` is swept by those who build there, who need no writer lock."""
    halves = [*corpus.root.glob(f".*{HALF_SUFFIX}")]
    for folder in (corpus.ledger, corpus.quarantine, corpus.root / "cache"):
        halves += paths_below(folder, f".*{HALF_SUFFIX}")
    done = []
    for path in sorted(path for path in halves if path.is_file()):
        disk.remove(path)
        done.append(f"removed the incomplete file {path.relative_to(corpus.root)}")
    return done


def _remove_orphan_staging(
    corpus: CorpusLayout, disk: LocalStorage, current: Snapshot
) -> list[str]:
    """Staging of episodes that were committed just before the stop."""
    if not corpus.staging.is_dir():
        return []
    folders = sorted(corpus.staging.iterdir())
    if not folders:
        return []
    uids = [folder.name.partition(".")[0] for folder in folders]
    committed = current.read(corpus.root, "episodes", ["uid"])["uid"]
    is_committed = pc.is_in(pa.array(uids, pa.string()), value_set=pc.unique(committed))
    done = []
    for folder, uid, is_done in zip(folders, uids, is_committed.to_pylist(), strict=True):
        if is_done:
            disk.remove_tree(folder)
            done.append(f"removed the staging folder of {uid}, which is committed")
    return done


UNFINISHED = ".unfinished"


@contextmanager
def writing(
    corpus: CorpusLayout,
    disk: LocalStorage,
    *,
    always_recovers: bool = False,
    block_recovers: bool = False,
) -> Iterator[list[str]]:
    """Hold a corpus for one writer. Yields what recovery did at the start, a line each. Pending reviews are published first and last.

    Args:
        always_recovers: at the start, even where the last writer ended in order; for commands whose purpose it is, and for corpora that
            an eicorpus without `.unfinished` has written to.
        block_recovers: the block calls `recover` before it changes anything (`ingest`, `forget`), so nothing is done at the start.

    Raises:
        ConfigError: another process is writing, or the folder is not writable.
        TransientError: the disk is full.
    """
    mark = corpus.root / UNFINISHED
    with writer_lock(corpus):
        _check(corpus, disk)
        was_left = mark.exists()
        try:
            disk.at(corpus.root).put(UNFINISHED, b"")
            disk.sync()  # a name that a killed writer left may not have reached the disk either
            publish_pending(corpus, disk)
            yield (
                (_swept(corpus, disk, _remove_half_latents) if was_left else [])
                if block_recovers
                else _at_start(corpus, disk, is_due=was_left or always_recovers)
            )
            publish_pending(corpus, disk)  # what came while the block ran
        except (Exception, KeyboardInterrupt):
            # What stopped the writer may stop this too (a full disk, a damaged catalog): then the next writer does it. After a
            # failed `sync` every other one fails, so the mark stays.
            with suppress(OSError, PipelineError):
                _recovered(corpus, disk)
                _end(corpus, disk)
            raise
        _end(corpus, disk)


def _at_start(corpus: CorpusLayout, disk: LocalStorage, *, is_due: bool) -> list[str]:
    return _recovered(corpus, disk) if is_due or not _has_meta(corpus, disk) else []


def _has_meta(corpus: CorpusLayout, disk: LocalStorage) -> bool:
    """Whether the `meta/` of every dataset has the sizes that it should."""
    datasets = datasets_without_episodes(corpus.root, snapshot.load(corpus.root))
    return all(
        lerobot_meta.has_sizes(disk, corpus.root, dataset.path)
        for dataset in own_datasets(corpus.root, datasets)
    )


def _check(corpus: CorpusLayout, disk: LocalStorage) -> None:
    """A commit must be possible before hours of work are done for it."""
    try:
        disk.check()
    except OSError as error:
        raise refused_write(error, corpus.root) from error


def _recovered(corpus: CorpusLayout, disk: LocalStorage) -> list[str]:
    current = snapshot.load(corpus.root)
    done = recover(corpus, disk, current, datasets_of(corpus.root, current))
    return done + _swept(corpus, disk, _remove_half_latents)


def _end(corpus: CorpusLayout, disk: LocalStorage) -> None:
    """Nothing that a cut of the power could take back is left: `.unfinished` may go."""
    disk.sync()
    copy = working_copy(corpus.root)
    while copy is not None and lanes.finish(copy):
        _recovered(corpus, disk)  # an erasure has removed `meta/`
    disk.remove(corpus.root / UNFINISHED)
