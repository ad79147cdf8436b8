"""Where a page of the documentation lies, for messages that name one."""

from __future__ import annotations

from pathlib import Path

_PACKAGES = Path(__file__).parents[1]


def doc_page(name: str) -> str:
    """The path of `docs/NAME`: beside the packages in a checkout; a wheel has the pages in `jobs/docs` (pyproject.toml)."""
    installed = _PACKAGES / "jobs" / "docs" / name
    return str(installed if installed.is_file() else _PACKAGES / "docs" / name)
