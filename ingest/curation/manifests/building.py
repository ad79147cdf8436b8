"""Who builds manifests in a corpus: any number at a time, beside a writer. The first of them removes what killed ones left.

A build reads snapshots, which never change, and publishes a folder of its own name, so it takes no writer lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ingest.storage.file_tree import paths_below
from ingest.storage.local import HALF_SUFFIX, LocalStorage
from ingest.storage.lock_file import held_with_others
from schemas.manifest import FOLDER

LOCK = ".builders"


@contextmanager
def building(corpus: Path, disk: LocalStorage) -> Iterator[None]:
    """Hold `manifests/` while a manifest is built and published."""
    folder = corpus / FOLDER
    disk.make_dir(folder)
    with held_with_others(folder / LOCK, partial(_remove_abandoned, folder, disk)):
        yield


def _remove_abandoned(folder: Path, disk: LocalStorage) -> None:
    """Half a manifest, and halves of kept statistics."""
    halves = (*folder.glob(f".*{HALF_SUFFIX}"), *folder.glob(f"[a-z0-9]*/.*{HALF_SUFFIX}"))
    for path in sorted(halves):
        if path.is_dir() and not path.is_symlink():
            disk.remove_tree(path)
        else:
            disk.remove(path)
    for path in sorted(paths_below(folder / "_cache", f".*{HALF_SUFFIX}")):
        disk.remove(path)
