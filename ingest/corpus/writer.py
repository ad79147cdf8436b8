"""How every command opens a corpus for writing: one writer at a time, after recovery from an interrupted command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ingest.corpus import lerobot_meta, snapshot
from ingest.corpus.commit import datasets_of, datasets_without_episodes, stored_episodes
from ingest.corpus.erasure import finish_erasures
from ingest.corpus.latent_packs import orphan_packs
from ingest.corpus.layout import CorpusLayout, writer_lock
from ingest.corpus.lerobot_meta import Dataset
from ingest.corpus.reviews import publish_pending, sweep_submissions
from ingest.corpus.snapshot import FOLDER, Snapshot
from ingest.corpus.snapshot_list import load_all, named_parts
from ingest.storage.file_tree import paths_below
from ingest.storage.local import HALF_SUFFIX, LocalStorage
from ingest.storage.write_refusal import refused_write
from schemas.errors import ConfigError, PipelineError


def recover(
    corpus: CorpusLayout, disk: LocalStorage, current: Snapshot, datasets: dict[str, Dataset]
) -> list[str]:
    """Sweep what no snapshot names and rebuild projections that were cut short. Returns what was done, a line each."""
    done = finish_erasures(corpus, disk, current)
    done += _remove_orphan_files(corpus, disk, datasets)
    done += _remove_orphan_packs(corpus, disk)
    done += _remove_orphan_parts(corpus, disk)
    done += _remove_half_files(corpus, disk)
    sweep_submissions(corpus, disk)
    done += _remove_orphan_staging(corpus, disk, current)
    for dataset in datasets.values():
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


def _remove_orphan_files(
    corpus: CorpusLayout, disk: LocalStorage, datasets: dict[str, Dataset]
) -> list[str]:
    """Files of episodes that were moved in but never committed."""
    done = []
    for path in sorted(paths_below(corpus.root / "datasets")):
        if not path.is_file():
            continue
        relative = path.relative_to(corpus.root)
        dataset = datasets.get("/".join(relative.parts[:3]))
        is_half = path.name.endswith(".part")
        is_extra = path.stem.startswith("episode_") and _number(path) >= (
            dataset.episodes if dataset else 0
        )
        if is_half or is_extra or (dataset is None and relative.parts[3:4] != ("latents",)):
            disk.remove(path)
            done.append(f"removed {relative}, which no snapshot references")
    return done


def _number(path: Path) -> int:
    digits = path.stem.removeprefix("episode_")
    return int(digits) if digits.isdigit() else -1


def _remove_orphan_packs(corpus: CorpusLayout, disk: LocalStorage) -> list[str]:
    """Packs of latents that were written but never committed. What an older snapshot names stays."""
    try:
        orphans = orphan_packs(corpus, load_all(corpus.root))
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
    committed = set(current.read(corpus.root, "episodes", ["uid"]).column("uid").to_pylist())
    done = []
    for folder in folders:
        uid = folder.name.partition(".")[0]
        if uid in committed:
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
                []
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
    return all(lerobot_meta.has_sizes(disk, corpus.root, path) for path in datasets)


def _check(corpus: CorpusLayout, disk: LocalStorage) -> None:
    """A commit must be possible before hours of work are done for it."""
    try:
        disk.check()
    except OSError as error:
        raise refused_write(error, corpus.root) from error


def _recovered(corpus: CorpusLayout, disk: LocalStorage) -> list[str]:
    current = snapshot.load(corpus.root)
    return recover(corpus, disk, current, datasets_of(corpus.root, current))


def _end(corpus: CorpusLayout, disk: LocalStorage) -> None:
    """Nothing that a cut of the power could take back is left: `.unfinished` may go."""
    disk.sync()
    disk.remove(corpus.root / UNFINISHED)
