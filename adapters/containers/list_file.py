"""A small text file that lists names, one a line."""

from __future__ import annotations

from pathlib import Path

from schemas.errors import ConfigError, SourceError
from schemas.regular_file import read_regular

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
