"""A pack: many files of latents in one object, so that a corpus of 10^7 episodes is not 10^7 objects.

It is an uncompressed tar. A member is a whole file of latents (schemas/latent_header.py), so tar, webdataset and the safetensors library open
what is inside, and the catalog can be checked against it. A reader does not walk through it: the row of a member has its first byte
(`pack_offset`) and its length (`num_bytes`).
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from schemas.errors import ConfigError
from schemas.latents import FOLDER

BLOCK = tarfile.BLOCKSIZE  # a member begins and its head begins at a multiple of it
END = bytes(2 * BLOCK)  # of a tar
MAX_MEMBERS = 1 << 20  # that are read
MAX_FILES = 1 << 16  # that are written
PACK_BYTES = 256_000_000  # of all but the last of a dataset, at least, unless asked otherwise
_NAME_BYTES = tarfile.LENGTH_NAME  # of a name in one block
_ERASED = "erased."  # before the name of a member whose bytes `eicorpus forget` replaced by zeros
_PACKS = "packs"
_NAME = re.compile(r"[0-9a-f]{16}\.tar")
_DATASETS = "datasets"
_FILE = re.compile(
    r"chunk-[0-9]{3,}/[^/]+/episode_[0-9]{6,}\.safetensors"
)  # as `latent_file` writes it


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file in a pack: its bytes are [start, start + num_bytes), the block before `start` is its head."""

    name: str
    start: int
    num_bytes: int

    @property
    def end(self) -> int:
        """Where the head of the next one begins."""
        return self.start + -(-self.num_bytes // BLOCK) * BLOCK

    @property
    def is_erased(self) -> bool:
        return self.name.startswith(_ERASED)

    def is_of(self, episode_index: int) -> bool:
        """Whether it belongs to the episode of this number in the dataset of the pack."""
        return self.name.startswith(f"{_episode(episode_index)}.")

    def erased(self) -> Member:
        """The same place, with a name that no episode has."""
        name = f"{_ERASED}{self.name}".encode()[:_NAME_BYTES].decode(errors="ignore")
        return Member(name=name, start=self.start, num_bytes=self.num_bytes)

    def head(self) -> bytes:
        """The block before it. Its size is of up to 2^95 bytes, for an episode may be longer than eight gigabytes."""
        info = tarfile.TarInfo(self.name)
        info.size = self.num_bytes
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def member_at(at: int, name: str, num_bytes: int) -> Member:
    """The member whose head begins at byte `at` of a pack."""
    return Member(name=name, start=at + BLOCK, num_bytes=num_bytes)


def member_name(episode_index: int, camera: str) -> str:
    """Of an episode's file. webdataset makes one sample of all cameras of an episode: their names are equal up to the first dot."""
    name = f"{_episode(episode_index)}.{camera}.safetensors"
    if len(name.encode()) <= _NAME_BYTES:
        return name
    return f"{_episode(episode_index)}.{hashlib.sha256(camera.encode()).hexdigest()}.safetensors"


def _episode(index: int) -> str:
    return f"episode_{index:06d}"


def pack_file(encoder_id: str, digest: str) -> str:
    """Path of a pack relative to the dataset. `digest`: of what it holds, by names."""
    return f"{FOLDER}/{encoder_id}/{_PACKS}/{digest[:16]}.tar"


def is_pack_of(path: str, dataset_path: str, encoder_id: str) -> bool:
    """Whether a path, relative to the corpus, is that of a pack of this dataset and encoder."""
    folder, _, name = path.rpartition("/")
    place = f"{dataset_path}/{FOLDER}/{encoder_id}/{_PACKS}"
    return folder == place and _NAME.fullmatch(name) is not None


def is_place_of(path: str, encoder_id: str) -> bool:
    """Whether a path, relative to the corpus, is that of a pack or of a file of latents of this encoder, in any dataset."""
    names = path.split("/")
    if len(names) < 4 or names[0] != _DATASETS or {"", ".", ".."} & set(names):
        return False
    dataset_path, place = "/".join(names[:3]), "/".join(names[3:])
    folder = f"{FOLDER}/{encoder_id}/"
    is_file = place.startswith(folder) and _FILE.fullmatch(place.removeprefix(folder)) is not None
    return is_file or is_pack_of(path, dataset_path, encoder_id)


def member_before(block: bytes, start: int) -> Member | None:
    """The member whose head is `block` and whose bytes begin at `start`; None where `block` is no head of a file."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.TarError, ValueError):
        return None
    if not info.isreg() or info.size < 0:
        return None
    return Member(name=info.name, start=start, num_bytes=info.size)


def members_of(file: BinaryIO, *, where: str) -> Iterator[Member]:
    """The members of a pack, by their heads. The file is not trusted: each member must end inside it and begin after the one before.

    Raises:
        ConfigError: it is no pack, or was cut.
    """
    size = file.seek(0, 2)
    at = 0
    for _ in range(MAX_MEMBERS):
        file.seek(at)
        block = file.read(BLOCK)
        if block == END[:BLOCK]:
            return
        member = member_before(block, at + BLOCK)
        if member is None:
            problem = f"not a pack of latents: no head of a member at byte {at}"
            raise ConfigError(problem, remedy=_REPAIR, where=where)
        if member.num_bytes > size - member.start:
            problem = f"the member at byte {at} does not lie in the pack of {size} bytes"
            raise ConfigError(problem, remedy=_REPAIR, where=where)
        yield member
        at = member.end
    raise ConfigError(f"more than {MAX_MEMBERS} members", remedy=_REPAIR, where=where)


_REPAIR = "remove it and run `eicorpus latents images` again"
