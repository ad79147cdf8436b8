"""A snapshot names exactly the catalog parts that exist at one moment. Publishing it IS the commit (`ingest.corpus.publishing`).

`catalog/_snapshots/<n>.json`: {"snapshot": n, "format_version": 1, "run_id": ..., "tables": {table: [part, ...]}},
a part being {"path" (relative to the corpus), "rows", "num_bytes", "sha256"}, and "merged": {path of a merged part: `Part.content`}.
Numbers start at 1; 0 is the empty corpus.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.corpus.column_checks import DamagedCatalog, check_numbers, check_paths
from ingest.storage.local import LocalStorage, within
from ingest.storage.store import Gettable, get_json
from schemas.catalog import FORMAT_VERSION, TABLES
from schemas.catalog_rows import R, columns_of, rows_of, table_of
from schemas.errors import ConfigError, InvariantError, SourceError
from schemas.json_text import JsonLimits, parse_json
from schemas.parquet_file import read_schema, read_table, reading

FOLDER = "catalog/_snapshots"
_PART = re.compile(r"catalog/[a-z_]+/[A-Za-z0-9][A-Za-z0-9_.-]*\.parquet")
_FILE = re.compile(r"[0-9]{8,18}\.json")
_CONTENT = re.compile(r"([0-9a-f]{64})?")
# Batches grow with the length of a run, so 10^7 episodes from a thousand runs have about 10^5 parts; a part has five elements, a merged one six.
MAX_PARTS = 1 << 18
LIMITS = JsonLimits(max_bytes=MAX_PARTS * 512, max_elements=MAX_PARTS * 6 + 100)
MOST_ROWS_OF_EPISODE = 100_000  # in one table


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One immutable Parquet file of one table. `content`: the `content_of` the parts that it was merged from; "" of any other."""

    path: str
    rows: int
    num_bytes: int
    sha256: str
    content: str = ""

    def __post_init__(self) -> None:
        if not _CONTENT.fullmatch(self.content):
            raise ValueError(f"{self.path}: {self.content!r} is no digest of merged parts")
        if not _PART.fullmatch(self.path) or self.rows < 0 or self.num_bytes < 0:
            raise ValueError(
                f"{self.path!r} is not a catalog file; expected catalog/TABLE/NAME.parquet"
            )

    def file(self, corpus: Path) -> Path:
        """Where it lies.

        Raises:
            OutsideCorpus: a link or something else that is no plain file is there.
        """
        return within(corpus, self.path)


def content_of(parts: Iterable[Part]) -> str:
    """What rows some parts have together, whatever their order and however `compact` has merged them: the sum of the digests of the
    parts that were written first."""
    total = 0
    for part in parts:
        digest = part.content or hashlib.sha256(part.sha256.encode()).hexdigest()
        total += int(digest, 16)
    return f"{total % 2**256:064x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The parts of every table at one moment."""

    number: int = 0
    run_id: str = ""
    commit_id: str = ""  # of the entry of a commit log that made it; "" elsewhere
    tables: Mapping[str, tuple[Part, ...]] = field(default_factory=dict)

    def parts(self, table: str) -> tuple[Part, ...]:
        if table not in TABLES:
            raise KeyError(f"no table {table!r}; expected one of {', '.join(TABLES)}")
        return self.tables.get(table, ())

    def content(self, table: str) -> str:
        """Differs when rows of the table were added or erased; `compact` leaves it as it is."""
        return content_of(self.parts(table))

    def read(
        self,
        corpus: Path,
        table: str,
        columns: list[str] | None = None,
        *,
        only: pc.Expression | None = None,
        most_rows: int | None = None,
    ) -> pa.Table:
        """Rows of a table, all or those for which `only` holds. Columns that a part does not have read as NULL.

        Raises:
            OutsideCorpus: a row names a path outside the corpus.
            DamagedCatalog: a number of a row is out of range, or they are more than `most_rows`.
            DamagedParquet: a part is missing, or not what was written.
        """
        schema = TABLES[table]
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns])
        tables: list[pa.Table] = []
        left = None if most_rows is None else most_rows + 1
        for part in self.parts(table):
            path = part.file(corpus)
            have = read_schema(path).names
            present = [name for name in schema.names if name in have]
            tables.append(read_table(path, present, filters=only, most_rows=left))
            if left is not None and (left := left - tables[-1].num_rows) <= 0:
                message = f"more than {most_rows} rows for one episode"
                raise DamagedCatalog(
                    message,
                    remedy="treat this corpus as damaged and do not use it",
                    where=f"table {table}",
                )
        if not tables:
            return schema.empty_table()
        with reading(f"catalog/{table}"):
            merged = pa.concat_tables([*tables, schema.empty_table()], promote_options="default")
            rows = merged.select(schema.names).cast(schema)
        check_paths(table, rows)
        check_numbers(table, rows)
        return rows

    def rows(self, corpus: Path, kind: type[R], *, only: pc.Expression | None = None) -> list[R]:
        """`read` of the columns that a row type has, for tables or selections that are small enough for objects."""
        return rows_of(kind, self.read(corpus, kind.TABLE, list(columns_of(kind)), only=only))


def tables_sha256(current: Snapshot, tables: Iterable[str]) -> str:
    """What rows some tables have, as `Snapshot.content`."""
    contents = {name: current.content(name) for name in tables}
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def rows_of_episode(current: Snapshot, corpus: Path, table: str, uid: str) -> pa.Table:
    """All rows of one uid. Raises as `Snapshot.read`. Memory does not grow with the corpus."""
    only = pc.field("uid") == uid
    return current.read(corpus, table, only=only, most_rows=MOST_ROWS_OF_EPISODE)


def numbers(corpus: Path) -> list[int]:
    """Every snapshot there is, oldest first."""
    return numbers_in(LocalStorage(corpus).list(FOLDER))


def numbers_in(keys: Iterable[str]) -> list[int]:
    """Of the snapshots among these keys, oldest first."""
    names = (key.removeprefix(f"{FOLDER}/") for key in keys)
    return sorted(int(name.removesuffix(".json")) for name in names if _FILE.fullmatch(name))


def key_of(number: int) -> str:
    """Of the object of a snapshot."""
    return f"{FOLDER}/{number:08d}.json"


def load(corpus: Path, number: int | None = None) -> Snapshot:
    """The latest snapshot of a corpus, or the one asked for. The empty one when nothing was ever committed.

    Raises:
        ConfigError: no such snapshot, or one written by a newer format.
    """
    known = numbers(corpus)
    if number is None:
        if not known:
            return Snapshot()
        number = known[-1]
    if number not in known:
        raise ConfigError(
            f"no snapshot {number}; available: {known or 'none'}",
            remedy="list snapshots with `eicorpus snapshot list CORPUS`",
            where=str(corpus / FOLDER),
        )
    return load_from(LocalStorage(corpus), number, where=str(corpus / key_of(number)))


def load_from(store: Gettable, number: int, *, where: str = "") -> Snapshot:
    """The snapshot that a store has under a number. `where`: what messages call it.

    Raises:
        DamagedSnapshot: it is missing, or not what was published.
        ConfigError: a newer format wrote it.
    """
    where = where or key_of(number)
    raw = _parsed(store, number, where)
    if raw["snapshot"] != number:
        raise DamagedSnapshot(
            f"contains the number {raw['snapshot']}",
            remedy="restore the file from a copy of the corpus",
            where=where,
        )
    if raw["format_version"] > FORMAT_VERSION:
        problem = (
            f"format {raw['format_version']}; this eicorpus reads up to format {FORMAT_VERSION}"
        )
        raise ConfigError(problem, remedy="install a newer eicorpus", where=where)
    return Snapshot(
        number=raw["snapshot"],
        run_id=raw["run_id"],
        commit_id=raw["commit_id"],
        tables=raw["tables"],
    )


class DamagedSnapshot(ConfigError):
    """The file of a snapshot is not what was published."""


def json_of(text: str | None, *, where: str) -> dict[str, Any]:
    """The object of a column of JSON.

    Raises:
        DamagedCatalog: it is none.
    """
    try:
        return dict(parse_json(text or ""))
    except (ValueError, TypeError) as error:
        problem = f"a JSON column contains no object ({error})"
        raise DamagedCatalog(problem, remedy="run `eicorpus verify`", where=where[:200]) from error


def _parsed(store: Gettable, number: int, where: str) -> dict[str, Any]:
    try:
        raw = get_json(store, key_of(number), limits=LIMITS)
        merged = dict(raw.get("merged", {}))
        tables = {
            name: tuple(Part(**part, content=merged.get(part["path"], "")) for part in parts)
            for name, parts in raw["tables"].items()
        }
        return {
            "format_version": int(raw["format_version"]),
            "snapshot": int(raw["snapshot"]),
            "run_id": str(raw["run_id"]),
            "commit_id": str(raw.get("commit_id", "")),
            "tables": tables,
        }
    except (ValueError, KeyError, TypeError, AttributeError, SourceError) as error:
        problem = f"damaged ({type(error).__name__}: {error})"
        raise DamagedSnapshot(
            problem,
            remedy="restore the file from a copy of the corpus; without it, the files of episodes that only this snapshot references are deleted",
            where=where,
        ) from error


def write_part(disk: LocalStorage, corpus: Path, kind: type[R], rows: Iterable[R]) -> Part:
    """Write rows as one part named by their content, so that writing them again changes nothing."""
    return write_tables(disk, corpus, kind.TABLE, [table_of(kind, rows)])


def write_tables(
    disk: LocalStorage,
    corpus: Path,
    table: str,
    pieces: Iterable[pa.Table],
    *,
    schema: pa.Schema | None = None,
) -> Part:
    """`write_part` of Arrow tables, one after the other, for what is too large for Python objects.

    Args:
        schema: of an older part that is written again; columns that came later stay absent.

    Raises:
        InvariantError: a piece has another schema than the one declared.
    """
    schema = TABLES[table] if schema is None else schema
    sink = pa.BufferOutputStream()
    num_rows = 0
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for piece in pieces:
            if not piece.schema.equals(schema):
                raise InvariantError(
                    f"table {table} has schema {piece.schema}, which differs from the declared one"
                )
            writer.write_table(piece)
            num_rows += piece.num_rows
    data = sink.getvalue().to_pybytes()
    digest = hashlib.sha256(data).hexdigest()
    key = f"catalog/{table}/part-{digest[:32]}.parquet"
    disk.at(corpus).put(key, data)
    return Part(path=key, rows=num_rows, num_bytes=len(data), sha256=digest)


def text_of(snapshot: Snapshot) -> str:
    """The file of a snapshot."""
    raw = {
        "snapshot": snapshot.number,
        "parent": snapshot.number - 1,
        "format_version": FORMAT_VERSION,
        "run_id": snapshot.run_id,
        **({"commit_id": snapshot.commit_id} if snapshot.commit_id else {}),
        "tables": {
            name: [
                {"path": p.path, "rows": p.rows, "num_bytes": p.num_bytes, "sha256": p.sha256}
                for p in snapshot.parts(name)
            ]
            for name in TABLES
        },
        "merged": {
            part.path: part.content
            for name in TABLES
            for part in snapshot.parts(name)
            if part.content
        },
    }
    return json.dumps(raw, indent=1)
