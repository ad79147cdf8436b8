"""Checked paths: local paths from the user, names from data joined to the folder that they must stay in, and the path of a corpus file without links."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from schemas.errors import ConfigError
from schemas.remedies import doc_page

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # Path writes `s3://b` as `s3:/b`


def check_local(path: Path, where: str) -> None:
    """
    Raises:
        ConfigError: it is a URL.
    """
    if _SCHEME.match(str(path)):
        url = str(path).replace(":/", "://", 1)
        message = f"{url} is a URL; expected a local path"
        todo = "mount the bucket (FUSE or CSI driver), or copy it to this machine"
        raise ConfigError(message, remedy=todo, where=where)


def contained(root: Path, *parts: str) -> Path:
    """The resolved `root / parts`, links followed; it need not exist.

    Raises:
        ValueError: it lies outside the resolved root (an absolute part, `..`, a link that leads out), or a part cannot be a path at all.
    """
    try:
        base = root.resolve()
        path = base.joinpath(*parts).resolve()
    except (ValueError, OSError, RuntimeError) as error:  # NUL byte, name too long, link loop
        raise ValueError(f"not a valid path: {error}") from error
    if not path.is_relative_to(base):
        problem = f"leads to {path}, outside {base}; a path in the data must stay below the root"
        raise ValueError(problem)
    return path


class OutsideCorpus(ConfigError):
    """A path of a corpus leads out of it, or to something that is no plain file or folder."""


def key_names(key: str, where: str) -> list[str]:
    """The names of a key, which is a relative path with `/` between names.

    Raises:
        OutsideCorpus: a name is empty, `.` or `..`, or holds a NUL byte.
    """
    names = key.split("/")
    if any(name in ("", ".", "..") or "\0" in name for name in names):
        raise OutsideCorpus(f"{key!r} is not a path inside the corpus", where=where)
    return names


def within(root: Path, relative: str) -> Path:
    """Where something of a corpus lies that data names: the one door from a name to a path that is read.

    Nothing on the way below `root` is a link, and what lies there is a plain file, a folder, or nothing. Look right before the use.

    Raises:
        OutsideCorpus: it is something else, absolute, or leads out by `..`.
    """
    names = key_names(relative, where=str(root))
    path = str(root)  # texts: a `Path` for each step takes ten times as long
    for name in names:
        path = f"{path}/{name}"
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            break
        except OSError as error:  # a name too long, say
            raise OutsideCorpus(
                f"not a valid path: {error.strerror}", where=relative[:200]
            ) from error
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            raise refused(Path(path), mode)
    return root.joinpath(*names)


def refused(path: Path, mode: int) -> OutsideCorpus:
    """The error for something of this mode where a corpus has plain files and folders."""
    kind = "a link" if stat.S_ISLNK(mode) else "a pipe, a socket or a device"
    expected = "a corpus contains only regular files and folders, so this was not followed"
    page = doc_page("results/corpus-safety.md")
    return OutsideCorpus(f"is {kind}; {expected}", remedy=f"see {page}", where=str(path))
