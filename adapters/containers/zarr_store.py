"""Where a Zarr v2 array lives: a folder of files or one zip. Names come from metadata, so each is checked.

Nothing is unpacked: members of a zip are read into memory, each bounded before it is inflated. The index of a zip is kept,
because a store holds one member per picture and a worker asks once per episode.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from adapters.containers.safe_path import inside
from schemas.errors import Code, SourceError
from schemas.regular_file import file_stamp, open_regular, path_exists, read_regular

MIB = 1 << 20
MAX_MEMBER_BYTES = 64 * MIB
MAX_MEMBERS = 20_000_000
SUFFIXES = (".zarr", ".zarr.zip")


def is_store(path: Path) -> bool:
    """Whether `path` is a Zarr v2 group by name and form; a zip is not opened."""
    return (path / ".zgroup").is_file() or (path.is_file() and path.name.endswith(".zarr.zip"))


def looks_like_store(path: Path) -> bool:
    """Whether a folder is meant to be a store, damaged ones included: by its name, and by a `.zgroup` of any kind."""
    return path.name.endswith(".zarr.zip") or path_exists(path / ".zgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class ZarrStore:
    """A folder or a zip; `where` names it in messages."""

    path: Path
    where: str

    def get(self, name: str, *, max_bytes: int = MAX_MEMBER_BYTES) -> bytes | None:
        """The bytes of one member, or None when it is not there.

        Raises:
            SourceError: UNSAFE_PATH (a name that leads out), TOO_LARGE, UNREADABLE (no zip), TRUNCATED or
                CORRUPT_RECORD (a member that does not inflate to what the index says).
        """
        if self.path.is_dir():
            return self._file(name, max_bytes)
        if name.startswith("/") or ".." in name.split("/"):
            raise SourceError(Code.UNSAFE_PATH, f"member {name[:80]!r}", where=self.where)
        return self._member(name, max_bytes)

    def _stamp(self) -> tuple[int, ...]:
        return file_stamp(self.path, where=self.where, in_parts=True)

    def _file(self, name: str, max_bytes: int) -> bytes | None:
        path = inside(self.path, name)
        if not path.is_file():
            return None
        return read_regular(path, max_bytes=max_bytes, where=f"{self.where}/{name}")

    def _member(self, name: str, max_bytes: int) -> bytes | None:
        where = f"{self.where}/{name}"
        archive = _zip(self.path, self._stamp(), self.where)
        info = archive.NameToInfo.get(name)
        if info is None:
            return None
        if info.file_size > max_bytes:
            problem = f"{info.file_size} bytes; expected at most {max_bytes}"
            raise SourceError(Code.TOO_LARGE, problem, where=where)
        try:
            with archive.open(info) as member:
                data = member.read(max_bytes + 1)  # the index may lie; this does not
        except (
            zipfile.BadZipFile,
            EOFError,
            OSError,
            zlib.error,
            RuntimeError,
            ValueError,
        ) as error:
            problem = f"cannot be read back: {str(error)[:200]}"
            raise SourceError(Code.CORRUPT_RECORD, problem, where=where) from error
        if len(data) != info.file_size:
            problem = f"{len(data)} bytes; the index states {info.file_size}"
            raise SourceError(Code.CORRUPT_RECORD, problem, where=where)
        return data


class _Zip(zipfile.ZipFile):
    """Closes the file that it was given, too."""

    def close(self) -> None:
        file = self.fp
        super().close()
        if file is not None:
            file.close()


@lru_cache(maxsize=2)
def _zip(path: Path, stamp: tuple[int, ...], where: str) -> zipfile.ZipFile:
    """`stamp` only keys the cache."""
    file = open_regular(path, where=where, in_parts=True)
    try:
        archive = _Zip(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        file.close()
        problem = f"incomplete zip file: {str(error)[:200]}; download it again"
        raise SourceError(Code.UNREADABLE, problem, where=where) from error
    if len(archive.NameToInfo) > MAX_MEMBERS:
        problem = f"{len(archive.NameToInfo)} members; expected at most {MAX_MEMBERS}"
        raise SourceError(Code.TOO_LARGE, problem, where=where)
    return archive
