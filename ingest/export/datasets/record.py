"""The table `exports`: what was exported where, so that an erasure can name the copies it does not reach."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.writer import writing
from ingest.export.datasets.plan import ExportPlan
from ingest.storage.local import LocalStorage
from schemas.committed_rows import ExportRow
from schemas.errors import ConfigError


def record_export(
    corpus: CorpusLayout, plan: ExportPlan, sha256: str, out: Path, run_id: str
) -> bool:
    """Add an export to the catalog: when it begins, so that an erasure names its folder whatever stops it, and when it is finished.

    Args:
        sha256: of its files; "" of one that begins.

    Returns False where it is recorded already.

    Raises:
        ConfigError: another command is writing to the corpus, it cannot be written, or an episode was erased since the plan.
    """
    row = ExportRow(
        sha256=sha256,
        format=plan.format,
        location=str(out.resolve()),
        manifest=plan.manifest.facts.name,
        manifest_sha256=plan.manifest.facts.rows_sha256,
        num_segments=plan.num_segments,
        uids=sorted({uid for each in plan.datasets for uid in each.rows["uid"].to_pylist()}),
        run_id=run_id,
    )
    if any(replace(each, run_id=run_id) == row for each in _rows(corpus)):
        return False
    disk = LocalStorage(corpus.root)
    with writing(corpus, disk):
        current = snapshot.load(corpus.root)
        _check_erased(corpus, current, row)
        part = snapshot.write_part(disk, corpus.root, ExportRow, [row])
        snapshot.publish(disk, corpus.root, current, {ExportRow.TABLE: part}, run_id)
    return True


def _rows(corpus: CorpusLayout) -> list[ExportRow]:
    return list(snapshot.load(corpus.root).rows(corpus.root, ExportRow))


def _check_erased(corpus: CorpusLayout, current: Snapshot, row: ExportRow) -> None:
    known = set(current.read(corpus.root, "episodes", ["uid"])["uid"].to_pylist())
    erased = [uid for uid in row.uids if uid not in known]
    if erased:
        raise ConfigError(
            f"{len(erased)} episodes were erased while they were exported, such as {erased[0]}",
            remedy="remove the folder, and export again",
            where=row.location,
        )
