"""Writers of tiny raw data in each source's TRUE layout, as those of the demo (`jobs/demo/raw`), for all other sources.

Each module offers `write(root: Path) -> Written`: a healthy data set (at least two episodes) and what must come out.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from jobs.demo.raw import SOURCES, Written


def write(source: str, root: Path) -> Written:
    """Generated raw data of any source under `root`."""
    written: Written = import_module(module_of(source)).write(root)
    return written


def module_of(source: str) -> str:
    """The module that writes raw data of a source, whether or not it exists."""
    package = "jobs.demo.raw" if source in SOURCES else "tests.generators"
    return f"{package}.{source}"
