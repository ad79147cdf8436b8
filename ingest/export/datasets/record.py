"""The table `exports`: what was exported or pushed where, so that an erasure can name the copies it does not reach.

A pushed copy is a row whose `location` is an address, such as hf://datasets/OWNER/NAME. Its `format` is that of the export, or CORPUS.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ingest.corpus import publishing, snapshot
from ingest.corpus.layout import CorpusLayout, open_corpus, uid_of
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.tombstones import tombstones
from ingest.corpus.writer import writing
from ingest.export.datasets.plan import ExportPlan
from ingest.storage.local import LocalStorage
from schemas.committed_rows import ExportRow
from schemas.errors import ConfigError

CORPUS = "corpus"  # the format of a pushed corpus
ORIGIN = ".corpus"  # in an export: where its corpus is on this machine. No part of the export, and not pushed
_LONGEST_PATH = 1 << 14


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
    _add(corpus, row, lambda current: _check_present(corpus, current, row))
    return True


def record_push(corpus: CorpusLayout, row: ExportRow) -> bool:
    """Add a copy to the catalog before its first byte is sent. Its `sha256` is that of the export's files, "" of a corpus.

    Returns False where a row says already that the place holds these episodes.

    Raises:
        ConfigError: another command is writing to the corpus, it cannot be written, or an episode was erased.
    """
    same = (row.location, row.format, row.sha256)
    uids = set(row.uids)
    for each in _rows(corpus):
        if (each.location, each.format, each.sha256) == same and uids <= set(each.uids):
            return False
    _add(corpus, row, lambda current: check_none_erased(corpus, current, row.uids))
    return True


def _add(corpus: CorpusLayout, row: ExportRow, check: Callable[[Snapshot], None]) -> None:
    disk = LocalStorage(corpus.root)
    with writing(corpus, disk):
        current = snapshot.load(corpus.root)
        check(current)
        part = snapshot.write_part(disk, corpus.root, ExportRow, [row])
        publishing.publish(disk, corpus.root, current, {ExportRow.TABLE: part}, row.run_id)


def _rows(corpus: CorpusLayout) -> list[ExportRow]:
    return list(snapshot.load(corpus.root).rows(corpus.root, ExportRow))


def _check_present(corpus: CorpusLayout, current: Snapshot, row: ExportRow) -> None:
    known = set(current.read(corpus.root, "episodes", ["uid"])["uid"].to_pylist())
    erased = [uid for uid in row.uids if uid not in known]
    if erased:
        raise ConfigError(
            f"{len(erased)} episodes were erased while they were exported, such as {erased[0]}",
            remedy="remove the folder, and export again",
            where=row.location,
        )


def check_none_erased(corpus: CorpusLayout, current: Snapshot, uids: Iterable[str]) -> None:
    """
    Raises:
        ConfigError: one of the episodes was erased from the corpus: no more copies of it.
    """
    erased = sorted(_erased(corpus, current).intersection(uids))
    if erased:
        raise ConfigError(
            f"{len(erased)} episodes of it were erased from {corpus.root}, such as {erased[0]}",
            remedy="remove the folder, and export again",
        )


def erased_at(corpus: CorpusLayout, location: str) -> set[str]:
    """The episodes that a place was recorded to hold, and that were erased from the corpus."""
    held = {uid for row in _rows(corpus) if row.location == location for uid in row.uids}
    return held & _erased(corpus, snapshot.load(corpus.root))


def _erased(corpus: CorpusLayout, current: Snapshot) -> set[str]:
    """Without those that were restored."""
    buried = {row.uid for row in tombstones(corpus.root, current)}
    if not buried:
        return buried
    return buried - set(current.read(corpus.root, "episodes", ["uid"])["uid"].to_pylist())


# --- which corpus an export is of ---------------------------------------------------------------------------------------


def name_origin(out: Path, corpus: CorpusLayout) -> None:
    """Write into a finished export where its corpus is, so that a push of it can be recorded. A folder that is not writable stays as it is."""
    disk, path = LocalStorage(out), os.fsencode(corpus.root.resolve())
    with suppress(OSError):
        if not (out / ORIGIN).is_file() or disk.read(out / ORIGIN, most=_LONGEST_PATH) != path:
            disk.put(ORIGIN, path)


def origin_of(out: Path, corpus_uid: str) -> CorpusLayout:
    """The corpus that an export was written from.

    Args:
        corpus_uid: as the page of the export has it.

    Raises:
        ConfigError: it is not named, not there, or another one.
    """
    try:
        data = LocalStorage(out).read(out / ORIGIN, most=_LONGEST_PATH)
    except FileNotFoundError as error:
        raise ConfigError("does not say where its corpus is", where=str(out)) from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read ({error})", where=str(out / ORIGIN)) from error
    if b"\0" in data or not data.startswith(b"/"):
        raise ConfigError("names no corpus", where=str(out / ORIGIN))
    corpus = open_corpus(Path(os.fsdecode(data)))
    if uid_of(corpus) != corpus_uid:
        raise ConfigError("is another corpus than that of the export", where=str(corpus.root))
    return corpus
