"""What a download holds: entries by name, names in a list file, numbers in natural order.

Order in which people number files: episode_2 before episode_10.

Entries of one name below a folder, whatever they are.

A small text file that lists names, one a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import ConfigError, SourceError
from schemas.regular_file import read_regular

# -- natural order -------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"([0-9]+)")


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that compares runs of digits as numbers; ties ("1" and "01") by the text itself."""
    parts = (part for part in _NUMBER.split(text) if part)
    key = tuple(
        (0, int(part), part) if part.isascii() and part.isdigit() else (1, 0, part)
        for part in parts
    )
    return (*key, (2, 0, text))


# -- named entries -------------------------------------------------------------------------------------------------


def entries_named(root: Path, name: str) -> Iterator[Path]:
    """Every entry of that name below `root`; links to folders are not followed.

    `Path.rglob` of a plain name asks whether the file is there, and so passes over a link to a file that was never fetched.
    """
    return (path for path in root.rglob(f"*{name}") if path.name == name)


# -- list file -----------------------------------------------------------------------------------------------------

MAX_BYTES = 16 << 20  # the longest real one, HOI4D's release.txt, has 0.1 MB


def list_lines(path: Path) -> list[str]:
    """The lines that are not blank, without the space around them.

    Raises:
        ConfigError: the file is no text, or too large for a list.
    """
    try:
        data = read_regular(path, max_bytes=MAX_BYTES)
        return [line.strip() for line in data.decode().splitlines() if line.strip()]
    except (SourceError, UnicodeDecodeError) as error:
        raise ConfigError(f"not a list of names: {error}", where=str(path)) from error
