"""`.remote.json` in the folder of a working copy: which corpus in a bucket it is a copy of, and which lane it writes to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ingest.corpus.layout import LINK, MARKER_LIMITS
from ingest.storage.local import LocalStorage
from ingest.storage.store import get_json
from schemas.catalog import FORMAT_VERSION
from schemas.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """`.remote.json`. `place`: where the folder was when it got its lane; a copy of the folder gets a lane of its own.

    corpus_uid: "" until the corpus is made in the bucket. left: lanes that this folder wrote to before. is_pull: a copy that is being made;
    nothing is committed from it.
    """

    uri: str
    corpus_uid: str
    lane: str = ""
    token: int = 0
    place: str = ""
    left: tuple[str, ...] = ()
    is_pull: bool = False

    @property
    def lanes(self) -> tuple[str, ...]:
        """Lanes of which the folder may have files that were never committed."""
        return (*self.left, self.lane) if self.lane else self.left

    @property
    def data(self) -> bytes:
        raw = {name: getattr(self, name) for name in self.__slots__}
        return (json.dumps({"format_version": FORMAT_VERSION, **raw}, indent=2) + "\n").encode()


def read_link(root: Path) -> Link | None:
    """The link of a working copy. None of a corpus that is no working copy.

    Raises:
        ConfigError: it cannot be read.
    """
    if not (root / LINK).exists():
        return None
    try:
        raw = dict(get_json(LocalStorage(root), LINK, limits=MARKER_LIMITS))
        return Link(
            uri=str(raw["uri"]),
            corpus_uid=str(raw["corpus_uid"]),
            lane=str(raw["lane"]),
            token=int(raw["token"]),
            place=str(raw["place"]),
            left=tuple(map(str, raw["left"])),
            is_pull=bool(raw["is_pull"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"cannot be read: {error!r}",
            remedy="remove the folder: the bucket has everything that was committed",
            where=str(root / LINK),
        ) from error


def is_working_copy(root: Path) -> bool:
    """Whether a folder is one. Raises as `read_link`."""
    return read_link(root) is not None


def address_of(root: Path) -> str:
    """What a user calls a corpus: its URI, or the path of its folder."""
    link = read_link(root)
    return str(root) if link is None else link.uri


def lane_of(root: Path) -> str:
    """What ends the names of the datasets that commits of this folder add to. Empty for a corpus of one machine."""
    link = read_link(root)
    return "" if link is None else link.lane


def place_of(root: Path) -> str:
    """What a copy of a folder does not share with it. No host name: that of a container changes with each start.

    Two machines that share it all the same are safe: the claim of one ends the session of the other, and objects are only created.
    """
    stat = root.stat()
    return f"{stat.st_dev}:{stat.st_ino}"
