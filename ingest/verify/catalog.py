"""Is the catalog itself sound: the marker, the latest snapshot, and every part that it names."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from ingest.corpus import snapshot
from ingest.corpus.layout import MARKER, MARKER_LIMITS
from ingest.corpus.snapshot import FOLDER, Part, Snapshot
from ingest.corpus.snapshot_list import named_parts
from ingest.storage.file_tree import paths_below
from ingest.storage.local import LocalStorage
from ingest.storage.store import get_json
from ingest.verify.bucket import FetchedObjects
from ingest.verify.files import difference, in_batches, problem_opening, unreadable
from ingest.verify.finding import CheckCode, Finding, finding
from schemas.catalog import TABLES
from schemas.parquet_file import DamagedParquet, read_footer

# Tables that every other check leans on: with one of them damaged nothing else can be compared.
NEEDED = ("episodes", "artifacts", "segments", "measurements", "verdicts", "runs")
_MARKER_KEYS = {"format_version": int, "uid": str, "created_by_recipe": str}


def marker_findings(corpus: Path) -> list[Finding]:
    """`corpus.json` says what a corpus is. That it can be read and is not too new was checked on opening."""
    marker = get_json(LocalStorage(corpus), MARKER, limits=MARKER_LIMITS)
    wrong = [key for key, kind in _MARKER_KEYS.items() if not isinstance(marker.get(key), kind)]
    if not wrong:
        return []
    return [finding(CheckCode.CORPUS_MARKER, MARKER, f"no {', '.join(wrong)}", list(_MARKER_KEYS))]


def latest_snapshot(corpus: Path) -> tuple[Snapshot | None, list[Finding]]:
    """The latest snapshot, or None and why it cannot be read.

    Raises:
        ConfigError: it was written by a newer eicorpus.
    """
    numbers = (int(p.stem) for p in (corpus / FOLDER).glob("*.json") if p.stem.isdigit())
    path = f"{FOLDER}/{max(numbers, default=0):08d}.json"
    whole = "a whole snapshot with its number, run and tables"
    try:
        current = snapshot.load(corpus)
    except OSError as error:
        return None, [unreadable(path, error)]
    except snapshot.DamagedSnapshot as error:
        return None, [finding(CheckCode.SNAPSHOT, path, error.message, whole)]
    if current.number and path != f"{FOLDER}/{current.number:08d}.json":
        return None, [finding(CheckCode.SNAPSHOT, path, f"number {current.number} inside", whole)]
    return current, []


def part_findings(
    corpus: Path, current: Snapshot, pool: Executor, objects: FetchedObjects | None = None
) -> list[Finding]:
    """Every part of every table, and files in `catalog/` that are no part.

    Args:
        objects: of the bucket that `corpus` is a working copy of.
    """

    def look(item: tuple[str, Part]) -> list[Finding]:
        if objects is None:
            return list(_part_findings(corpus, *item))
        with objects.files([(item[1].path, item[1].num_bytes)]) as folder:
            return list(_part_findings(folder, *item))

    named = [(table, part) for table in TABLES for part in current.parts(table)]
    findings: list[Finding] = []
    for problems in in_batches(pool, look, named):
        findings += problems
    paths = [part.path for _, part in named]
    for path in sorted({path for path in paths if paths.count(path) > 1}):
        findings.append(
            finding(
                CheckCode.CATALOG_CONTENT,
                path,
                "the same part listed twice",
                "each part to be listed once",
            )
        )
    return findings + list(_extra_findings(corpus, set(paths) | _older(corpus, current)))


def blocks_the_rest(findings: list[Finding]) -> bool:
    """Whether a table that all other checks need is damaged."""
    damage = {CheckCode.CATALOG_FILE, CheckCode.CATALOG_SCHEMA, CheckCode.FILE_MISSING}
    damage |= {CheckCode.FILE_UNREADABLE, CheckCode.UNSAFE_PATH, CheckCode.CATALOG_CONTENT}
    folders = tuple(f"catalog/{table}/" for table in NEEDED)
    return any(f.check in damage and f.path.startswith(folders) for f in findings)


def _part_findings(corpus: Path, table: str, part: Part) -> Iterator[Finding]:
    if not part.path.startswith(f"catalog/{table}/"):
        what = f"a part at {part.path}"
        yield finding(
            CheckCode.CATALOG_CONTENT,
            f"catalog/{table}/",
            what,
            "parts of this table to be in its folder",
        )
        return
    problem = problem_opening(corpus, part.path)
    if problem is not None:
        yield problem
        return
    if changed := difference(part.file(corpus), part.num_bytes, part.sha256):
        was = f"{part.num_bytes} bytes, sha256 {part.sha256}"
        yield finding(CheckCode.CATALOG_FILE, part.path, changed, was)
        return
    try:
        metadata = read_footer(part.file(corpus))
        schema = metadata.schema.to_arrow_schema()
    except (DamagedParquet, pa.ArrowException) as error:
        yield finding(CheckCode.CATALOG_FILE, part.path, str(error), "a Parquet file")
        return
    if metadata.num_rows != part.rows:
        yield finding(CheckCode.CATALOG_FILE, part.path, f"{metadata.num_rows} rows", part.rows)
    yield from _schema_findings(schema, table, part.path)


def _schema_findings(schema: pa.Schema, table: str, path: str) -> Iterator[Finding]:
    """A part may lack columns that came later. It may not have others or of another type."""
    declared = TABLES[table]
    for field in schema:
        if field.name not in declared.names:
            what = f"a column {field.name!r}"
            yield finding(CheckCode.CATALOG_SCHEMA, path, what, f"columns of the table {table}")
        elif field.type != declared.field(field.name).type:
            type_ = declared.field(field.name).type
            what = f"column {field.name!r} of type {field.type}"
            yield finding(CheckCode.CATALOG_SCHEMA, path, what, type_)
    if table in NEEDED and "uid" in declared.names and "uid" not in schema.names:
        yield finding(CheckCode.CATALOG_SCHEMA, path, "no column 'uid'", "one")


def _older(corpus: Path, current: Snapshot) -> set[str]:
    """What older snapshots name stays until `eicorpus gc`. A damaged one is of no use, and no harm to the latest."""
    parts: set[str] = set()
    for number in snapshot.numbers(corpus):
        if number != current.number:
            with suppress(snapshot.DamagedSnapshot):
                parts |= named_parts([snapshot.load(corpus, number)])
    return parts


def _extra_findings(corpus: Path, named: set[str]) -> Iterator[Finding]:
    for path in sorted(paths_below(corpus / "catalog")):
        relative = path.relative_to(corpus).as_posix()
        is_snapshot = relative.startswith(f"{FOLDER}/") and path.suffix == ".json"
        if not path.is_dir() and relative not in named and not is_snapshot:
            what = "a file that no snapshot references"
            yield finding(CheckCode.CATALOG_EXTRA, relative, what, "only referenced files")
