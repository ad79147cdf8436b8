"""The table `exports`: what was exported where, so that an erasure can name the copies it does not reach."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.writer import writing
from ingest.export.datasets.plan import ExportPlan
from ingest.storage.local import LocalStorage
from schemas.committed_rows import ExportRow


def record_export(
    corpus: CorpusLayout, plan: ExportPlan, page: Mapping[str, Any], out: Path, run_id: str
) -> bool:
    """Add a finished export to the catalog. Returns False where it is recorded already.

    Raises:
        ConfigError: another command is writing to the corpus, or it cannot be written.
    """
    location = str(out.resolve())
    if _is_recorded(corpus, page["sha256"], location):
        return False
    disk = LocalStorage(corpus.root)
    with writing(corpus, disk):
        current = snapshot.load(corpus.root)
        row = ExportRow(
            sha256=page["sha256"],
            format=plan.format,
            location=location,
            manifest=plan.manifest.facts.name,
            manifest_sha256=plan.manifest.facts.rows_sha256,
            num_segments=plan.num_segments,
            uids=sorted({uid for each in plan.datasets for uid in each.rows["uid"].to_pylist()}),
            run_id=run_id,
        )
        part = snapshot.write_part(disk, corpus.root, ExportRow, [row])
        snapshot.publish(disk, corpus.root, current, {ExportRow.TABLE: part}, run_id)
    return True


def _is_recorded(corpus: CorpusLayout, sha256: str, location: str) -> bool:
    rows = snapshot.load(corpus.root).read(corpus.root, ExportRow.TABLE, ["sha256", "location"])
    return {"sha256": sha256, "location": location} in rows.to_pylist()
