"""What a list shows of each manifest. A page that did not change is read once: a corpus built each night has hundreds of versions."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from jobs.ui.manifest_report import as_object
from jobs.ui.query_result import json_value
from schemas.errors import SourceError
from schemas.manifest import FACTS_FILE, load_facts
from schemas.regular_file import file_stamp

MOST_KEPT = 4096
_LONG = ("where", "mixture", "statistics")  # one manifest's page has them


def listed(folder: Path) -> dict[str, Any]:
    """The page of a manifest without the parts that grow with its text or its groups. Raises as `load_facts`."""
    try:
        stamp = file_stamp(folder / FACTS_FILE)
    except SourceError:
        return _row(folder)  # it says what is wrong, and where
    return _kept(folder, stamp)


@lru_cache(maxsize=MOST_KEPT)
def _kept(folder: Path, _stamp: tuple[int, int, int]) -> dict[str, Any]:
    return _row(folder)


def _row(folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = json_value(as_object(load_facts(folder)))
    return {name: value for name, value in row.items() if name not in _LONG}
