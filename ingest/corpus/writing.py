"""How every command takes a corpus for writing: one writer at a time, and nothing half-done before it, nor after an interrupt.

`.unfinished` lies in the corpus while a writer works. It appears durably before the first change and goes when all changes are durable, so
its presence means that the last writer was killed, or lost its power: the next writer, whatever its command, recovers first. A writer that
is interrupted or fails recovers before it lets go.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ingest.corpus import lerobot_meta, snapshot
from ingest.corpus.commit import datasets_of, empty_datasets
from ingest.corpus.layout import CorpusLayout, writer_lock
from ingest.corpus.recovery import recover
from ingest.storage.local import LocalStorage
from ingest.storage.write_refusal import refused_write
from schemas.errors import PipelineError

UNFINISHED = ".unfinished"


@contextmanager
def writing(
    corpus: CorpusLayout,
    disk: LocalStorage,
    *,
    always_recovers: bool = False,
    block_recovers: bool = False,
) -> Iterator[list[str]]:
    """Hold a corpus for one writer; yields what recovery did at the start, a line each.

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
            disk.write(mark, b"")
            disk.sync()  # a name that a killed writer left may not have reached the disk either
            yield (
                []
                if block_recovers
                else _at_start(corpus, disk, is_due=was_left or always_recovers)
            )
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
    datasets = empty_datasets(corpus.root, snapshot.load(corpus.root))
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
