"""Does an export hold what the loader of its format relies on? `eicorpus verify DIR --as FORMAT` asks, beside the digests of the files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ingest.export.rules.export_files import BrokenFile, ExportFiles
from ingest.export.rules.groot import groot
from ingest.export.rules.lda import lda
from ingest.export.rules.lerobot_shared_files import lerobot_v3
from ingest.export.rules.lingbot_va import lingbot_va
from ingest.export.rules.openpi import openpi

RULES: dict[str, Callable[[ExportFiles, list[str]], Iterator[str]]] = {
    "lerobot-v3": lerobot_v3,
    "groot": groot,
    "lda": lda,
    "openpi": openpi,
    "lingbot-va": lingbot_va,
}


def check_rules(out: Path, page: Mapping[str, Any]) -> Iterator[str]:
    """What breaks a rule of the format that the page of an export names; nothing for a format without rules here. Files are read, none is run."""
    rules = RULES.get(page["format"])
    if rules is None:
        return
    try:
        folders = [each["folder"] for each in page["datasets"]]
        if not folders or not all(isinstance(folder, str) for folder in folders):
            raise TypeError("folders that are no text")
        yield from rules(ExportFiles(root=out), folders)
    except (BrokenFile, KeyError, TypeError) as error:
        yield f"eicorpus_export.json: its datasets cannot be found ({error})"
