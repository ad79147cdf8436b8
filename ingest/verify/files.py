"""Opening files of a corpus that may be missing, forbidden, enlarged or replaced by a link to somewhere else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import Executor
from itertools import islice
from pathlib import Path
from typing import Any

from ingest.storage.local import OutsideCorpus, within
from ingest.verify.finding import CheckCode, Finding, finding
from schemas.errors import Code, SourceError
from schemas.latent_header import Span, sha256_within

# Whole files are read up to this size, or four times what they should have: enough to say what is wrong with them.
READ_LIMIT_BYTES = 64 * 2**20


def problem_opening(corpus: Path, path: str) -> Finding | None:
    """Why `path` (relative to `corpus`) cannot be read as a file of the corpus, or None."""
    try:
        full = within(corpus, path)
        if full.is_dir():
            return finding(
                CheckCode.FILE_UNREADABLE, path, "something that is not a regular file", "one"
            )
        with full.open("rb") as file:
            file.read(1)
    except OutsideCorpus as error:
        return finding(CheckCode.UNSAFE_PATH, path, error.message, "a file of the corpus")
    except (FileNotFoundError, NotADirectoryError):
        return finding(
            CheckCode.FILE_MISSING, path, "nothing there", "the file that the catalog lists"
        )
    except OSError as error:
        return unreadable(path, error)
    return None


def unreadable(path: str, error: OSError) -> Finding:
    """The file system refused."""
    return finding(
        CheckCode.FILE_UNREADABLE, path, error.strerror or error, "a file that can be read"
    )


def differs_from_catalog(
    corpus: Path, path: str, num_bytes: int | None, sha256: str | None
) -> list[Finding]:
    """Compare a file with what its row says. It is read once, in blocks."""
    changed = difference(within(corpus, path), num_bytes, sha256)
    expected = f"{num_bytes} bytes, sha256 {sha256} as committed"
    return [finding(CheckCode.FILE_CHANGED, path, changed, expected)] if changed else []


def difference_within(path: Path, span: Span, sha256: str | None) -> str:
    """As `difference`, of a member of a pack."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not span.fits(size):
            return f"a pack of {size} bytes"
        digest = sha256_within(file, span)
    return "" if digest == sha256 else f"{span.num_bytes} bytes, sha256 {digest}"


def difference(path: Path, num_bytes: int | None, sha256: str | None) -> str:
    """How a file differs from what was written; "" for not at all. One of another size is not read: it may be of any size."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size != num_bytes:
            return f"{size} bytes"
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return "" if digest == sha256 else f"{size} bytes, sha256 {digest}"


def sha256_of(path: Path, expected: int | None = None) -> str:
    """In hex.

    Raises:
        SourceError: TOO_LARGE, where it is out of all proportion to the size that it should have.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if expected is not None and size > limit_bytes(expected):
            message = f"{size} bytes; expected {expected} as committed; run `eicorpus verify`"
            raise SourceError(Code.TOO_LARGE, message, where=str(path))
        return hashlib.file_digest(file, "sha256").hexdigest()


def limit_bytes(expected: int) -> int:
    """How much of a file that should have `expected` bytes is read at most."""
    return max(READ_LIMIT_BYTES, 4 * expected)


def in_batches(pool: Executor, work: Any, items: Iterable[Any], size: int = 256) -> Iterable[Any]:
    """`pool.map` in order, with at most `size` items under way, so that memory does not grow with their number."""
    left = iter(items)
    while batch := list(islice(left, size)):
        yield from pool.map(work, batch)
