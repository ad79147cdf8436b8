"""The one door from a name to a path of a corpus that is read: nothing on the way is a link, and nothing leads out.

`schemas/safe_path.py` is the counterpart for raw data, where links are followed as long as they stay inside.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from schemas.doc_page import doc_page
from schemas.errors import ConfigError


class OutsideCorpus(ConfigError):
    """A path of a corpus leads out of it, or to something that is no plain file or folder."""


def within(root: Path, relative: str) -> Path:
    """Where something of a corpus lies that data names: the one door from a name to a path that is read.

    Nothing on the way below `root` is a link, and what lies there is a plain file, a folder, or nothing. Look right before the use.

    Raises:
        OutsideCorpus: it is something else, absolute, or leads out by `..`.
    """
    names = relative.split("/")
    if any(name in ("", ".", "..") or "\0" in name for name in names):
        raise OutsideCorpus(f"{relative!r} is no path inside the corpus", where=str(root))
    path = root
    for name in names:
        path = path / name
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return root.joinpath(*names)
        except OSError as error:  # a name too long, say
            raise OutsideCorpus(
                f"no usable path: {error.strerror}", where=relative[:200]
            ) from error
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            raise refused(path, mode)
    return path


def refused(path: Path, mode: int) -> OutsideCorpus:
    """The error for something of this mode where a corpus has plain files and folders."""
    kind = "a link" if stat.S_ISLNK(mode) else "a pipe, a socket or a device"
    expected = "a corpus has plain files and folders only, and this one was not followed"
    page = doc_page("results/corpus-safety.md")
    return OutsideCorpus(f"is {kind}; {expected}; see {page}", where=str(path))
