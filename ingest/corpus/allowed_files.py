"""What may lie in a corpus: plain files and folders. Looked through when one is opened, down to the folders that hold one file an episode.

What lies in those is looked at when it is used, by `within` and by `LocalStorage`: a corpus of 10^7 files opens in the time that its
folders take.
"""

from __future__ import annotations

from pathlib import Path

from ingest.storage.file_tree import entries_below
from schemas.within import refused

# Folders that are not looked into, by their depth below the corpus: `*` any name.
_LEAVES = (
    "datasets/*/*/data/*",
    "datasets/*/*/videos/*/*",
    "datasets/*/*/latents/*/*/*",
    "staging/*",
    "cache/*/*",
    "manifests/_cache/*/*",
)


def check_rooms(root: Path) -> None:
    """Refuse a corpus in which a room is something else than a plain file or folder.

    Raises:
        OutsideCorpus: a link, a pipe, a socket or a device; or folders lie deeper in each other than any corpus has them.
    """
    for entry in entries_below(root, _is_leaf):
        if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
            raise refused(Path(entry.path), entry.stat(follow_symlinks=False).st_mode)


def _is_leaf(relative: str) -> bool:
    parts = relative.split("/")
    return any(
        len(parts) == len(pattern)
        and all(want in ("*", part) for want, part in zip(pattern, parts, strict=True))
        for pattern in (leaf.split("/") for leaf in _LEAVES)
    )
