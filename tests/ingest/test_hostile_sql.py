"""SQL from strangers: it reads the corpus and nothing else, and it changes nothing."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from ingest.catalog.catalog import Catalog
from ingest.catalog.query_process import QueryLimits
from schemas.errors import ConfigError
from tests.generators.corpus import write_catalog

SECRET = "s3cr3t-9f1c"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A corpus with readable data, a secret beside it and links that lead to the secret."""
    root = write_catalog(tmp_path / "corpus", num_episodes=3).root
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret.txt").write_text(SECRET)
    (tmp_path / "corpus_evil").mkdir()
    (tmp_path / "corpus_evil/secret.txt").write_text(SECRET)
    pl.DataFrame({"secret": [SECRET]}).write_parquet(tmp_path / "outside/secret.parquet")
    (root / "datasets").mkdir()
    (root / "datasets/rows.csv").write_text("a,b\n1,2\n")
    (root / "datasets/link.txt").symlink_to(tmp_path / "outside/secret.txt")
    (root / "datasets/link.parquet").symlink_to(tmp_path / "outside/secret.parquet")
    (root / "datasets/folder").symlink_to(tmp_path / "outside")
    (root / "staging").mkdir()
    (root / "staging/secret.txt").write_text(SECRET)
    return root


@pytest.fixture
def catalog(root: Path) -> Iterator[Catalog]:
    with Catalog.open(root, limits=QueryLimits(timeout_s=20, memory_mb=500, threads=2)) as catalog:
        yield catalog


def tree(folder: Path) -> dict[str, str]:
    """Every path below a folder, and the content of every file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else ""
        for path in sorted(folder.rglob("*"))
    }


OUTSIDE = [
    "FROM read_text('{tmp}/outside/secret.txt')",
    "FROM read_csv('{tmp}/outside/secret.txt')",
    "FROM read_json('{tmp}/outside/secret.txt')",
    "FROM read_parquet('{tmp}/outside/secret.parquet')",
    "FROM read_parquet(['{root}/datasets/rows.csv', '{tmp}/outside/secret.parquet'])",
    "FROM '{tmp}/outside/secret.parquet'",
    'FROM "{tmp}/outside/secret.parquet"',
    "FROM parquet_metadata('{tmp}/outside/secret.parquet')",
    "FROM parquet_schema('{tmp}/outside/secret.parquet')",
    "FROM read_text('{root}/../outside/secret.txt')",
    "FROM read_text('{root}/datasets/../../outside/secret.txt')",
    "FROM read_text(getvariable('corpus') || '/../outside/secret.txt')",
    "FROM read_text('{tmp}/corpus_evil/secret.txt')",
    "FROM read_text('{root}/datasets/link.txt')",
    "FROM read_parquet('{root}/datasets/link.parquet')",
    "FROM '{root}/datasets/link.parquet'",
    "FROM read_text('{root}/datasets/folder/secret.txt')",
    "FROM read_text('{root}/datasets/fold*/secret.txt')",
    "FROM read_text('{root}/staging/secret.txt')",
    "FROM read_text('file://{tmp}/outside/secret.txt')",
    "FROM read_text('/proc/self/environ')",
    "FROM read_text('/etc/passwd')",
    "FROM '/etc/passwd'",
    "FROM read_text('/dev/stdin')",
    "FROM glob('/*')",
    "FROM glob('*')",
    "FROM glob('{tmp}/*')",
    "FROM glob('{root}/datasets/*/*')",
    "FROM read_text('{root}/datasets/*/*')",
    "FROM 'https://example.org/a.parquet'",
    "FROM read_parquet('http://127.0.0.1:1/a.parquet')",
    "FROM 's3://bucket/a.parquet'",
    "SELECT getenv('HOME')",
    "FROM duckdb_secrets()",
    "FROM which_secret('s3://x', 's3')",
    "FROM duckdb_settings()",
    "FROM read_blob('{tmp}/outside/secret.txt')",
    "FROM sniff_csv('{tmp}/outside/secret.txt')",
    "FROM read_duckdb('{tmp}/outside/x.db')",
    "SELECT (SELECT content FROM read_text('{tmp}/outside/secret.txt'))",
    "WITH x AS (FROM read_text('{tmp}/outside/secret.txt')) FROM x",
    "DESCRIBE FROM read_csv('{tmp}/outside/secret.txt')",
    "SUMMARIZE FROM read_csv('{tmp}/outside/secret.txt')",
]


@pytest.mark.parametrize("sql", OUTSIDE)
def test_nothing_outside_is_read(catalog: Catalog, root: Path, sql: str) -> None:
    with pytest.raises(ConfigError) as caught:
        catalog.arrow(sql.format(root=root, tmp=root.parent))
    assert SECRET not in str(caught.value)


FORBIDDEN = [
    "COPY (SELECT 1) TO '{root}/datasets/w.parquet'",
    "COPY episodes TO '{tmp}/w.csv'",
    "COPY episodes FROM '{root}/datasets/rows.csv'",
    "EXPORT DATABASE '{root}/datasets/export'",
    "IMPORT DATABASE '{root}/datasets'",
    "COPY FROM DATABASE memory TO x",
    # These parse as SELECT in DuckDB 2.0.0, and the first ones write:
    "WITH x AS (COPY (SELECT 1) TO '{root}/datasets/w.parquet') SELECT * FROM x",
    "SELECT (WITH x AS (COPY (SELECT 1) TO '{root}/datasets/w.csv') SELECT count(*) FROM x)",
    "FROM (WITH x AS (COPY (SELECT 1) TO '{root}/datasets/w.csv') FROM x)",
    "SELECT 1 UNION ALL (WITH x AS (COPY (SELECT 1) TO '{root}/datasets/w.csv') SELECT 1 FROM x)",
    "DESCRIBE WITH x AS (COPY (SELECT 1) TO '{root}/datasets/w.csv') FROM x",
    "FROM query('WITH x AS (COPY (SELECT 1) TO ''{root}/datasets/w.csv'') FROM x')",
    "FROM json_execute_serialized_sql(json_serialize_sql("
    "'WITH x AS (COPY (SELECT 1) TO ''{root}/datasets/w.csv'') FROM x'))",
    "WITH x AS (INSERT INTO episodes BY NAME SELECT 'u' AS uid RETURNING *) FROM x",
    "WITH x AS (DELETE FROM episodes RETURNING *) FROM x",
    "WITH x AS (UPDATE episodes SET uid = '' RETURNING *) FROM x",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{root}/datasets/w.parquet'",
    "EXPLAIN SELECT 1",
    "PREPARE p AS COPY (SELECT 1) TO '{root}/datasets/w.parquet'",
    "EXECUTE p",
    "ATTACH ':memory:' AS other",
    "ATTACH '{root}/datasets/x.db' AS other",
    "DETACH memory",
    "USE memory",
    "INSTALL httpfs",
    "LOAD httpfs",
    "FORCE INSTALL httpfs FROM '{root}'",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "SET threads = 1",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET VARIABLE corpus = '/'",
    "RESET allowed_directories",
    "CALL pragma_version()",
    "CALL enable_logging(storage = 'file', storage_config = {{'path': '{root}/datasets'}})",
    "FROM enable_logging(storage = 'file', storage_config = {{'path': '{root}/datasets'}})",
    "FROM enable_profiling(save_location = '{root}/datasets/profile.json')",
    "CREATE TABLE t (a INT)",
    "CREATE TEMP TABLE t AS SELECT 1",
    "CREATE OR REPLACE VIEW episodes AS SELECT 1",
    "CREATE MACRO f(x) AS x",
    "CREATE SECRET s (TYPE s3)",
    "CREATE SEQUENCE s",
    "CREATE TYPE e AS ENUM ('a')",
    "INSERT INTO episodes VALUES (1)",
    "UPDATE episodes SET uid = ''",
    "DELETE FROM episodes",
    "TRUNCATE episodes",
    "MERGE INTO episodes USING episodes AS e ON true WHEN MATCHED THEN DELETE",
    "DROP VIEW episodes",
    "ALTER VIEW episodes RENAME TO e",
    "COMMENT ON VIEW episodes IS 'x'",
    "BEGIN",
    "COMMIT",
    "CHECKPOINT",
    "VACUUM",
    "ANALYZE",
    "FROM checkpoint()",
    "FROM query('SELECT 1')",
    "FROM query_table('episodes')",
    "FROM arrow_scan(1, 2, 3)",
    "FROM pandas_scan(1)",
    "FROM python_map_function(1, 2)",
    "FROM truncate_duckdb_logs()",
    "PIVOT episodes ON source USING sum(length)",
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY (SELECT 1) TO '{root}/datasets/w.parquet'",
    "",
    ";",
]


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_nothing_but_a_query_runs(catalog: Catalog, root: Path, sql: str) -> None:
    before = tree(root.parent)
    with pytest.raises(ConfigError):
        catalog.arrow(sql.format(root=root, tmp=root.parent))
    assert tree(root.parent) == before
    assert catalog.sql("SELECT count(*) FROM episodes").item() == 3


def test_variables_of_the_process_are_not_tables(catalog: Catalog) -> None:
    local = pl.DataFrame({"secret": [SECRET]})
    with pytest.raises(ConfigError, match="local does not exist"):
        catalog.sql("SELECT * FROM local")
    assert local.height == 1
    # The lock on external access stops it too; this is the wall behind that wall.
    assert catalog.sql("SELECT current_setting('python_enable_replacements') AS s").item() is False


def test_files_inside_the_corpus_may_be_read(catalog: Catalog, root: Path) -> None:
    answer = catalog.sql(f"SELECT b FROM read_csv('{root}/datasets/rows.csv')")
    assert answer.rows() == [(2,)]
    again = catalog.sql("SELECT b FROM read_csv(getvariable('corpus') || '/datasets/*.csv')")
    assert again.rows() == [(2,)]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SHOW TABLES", 12),
        ("DESCRIBE episodes", 38),
        ("SUMMARIZE SELECT length FROM episodes", 1),
        ("TABLE episodes", 3),
        ("VALUES (1), (2)", 2),
        ("FROM range(3)", 3),
        ("SELECT unnest(tasks) FROM episodes", 4),
        ("PIVOT episodes ON source IN ('oxe', 'egodex') USING sum(length) GROUP BY licence", 2),
        ("WITH RECURSIVE t AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM t WHERE a < 4) FROM t", 4),
        ("SELECT 1 UNION ALL SELECT 2 EXCEPT SELECT 3", 2),
        ("SELECT DISTINCT ON (source) * FROM episodes ORDER BY length LIMIT 2", 2),
        ("SELECT * FROM episodes e, LATERAL (SELECT e.length)", 3),
        ("SELECT * FROM episodes WHERE uid IN (SELECT uid FROM verdicts)", 3),
        ("SELECT count(*) OVER (PARTITION BY source) FROM episodes QUALIFY true", 3),
        ("SELECT list_transform(tasks, lambda t: upper(t)) FROM episodes", 3),
        ("FROM histogram(episodes, length)", 1),
        ("FROM information_schema.tables", 12),
        ("SELECT 'COPY x TO y; DROP TABLE z' AS s -- INSTALL httpfs", 1),
    ],
)
def test_what_reads_is_not_refused(catalog: Catalog, sql: str, expected: int) -> None:
    assert catalog.arrow(sql).num_rows >= expected


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE (a.range * b.range) % 7 = 3",
        "WITH RECURSIVE t AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM t) SELECT count(*) FROM t",
    ],
)
def test_a_runaway_query_is_stopped(root: Path, sql: str) -> None:
    with Catalog.open(root, limits=QueryLimits(timeout_s=0.3, threads=1)) as catalog:
        started = time.monotonic()
        with pytest.raises(ConfigError, match=r"stopped after 0\.3 s"):
            catalog.arrow(sql)
        assert time.monotonic() - started < 5
        assert catalog.sql("SELECT 1").item() == 1


def test_memory_is_bounded_while_working_and_in_the_result(root: Path) -> None:
    with Catalog.open(root, limits=QueryLimits(memory_mb=50, threads=1)) as catalog:
        with pytest.raises(ConfigError, match="Out of Memory"):
            catalog.arrow("SELECT len(list(range)) FROM range(100000000)")
        with pytest.raises(ConfigError, match="larger than 50 MB"):
            catalog.arrow("FROM range(100000000000)")
        assert catalog.sql("SELECT 1").item() == 1


MONSTERS = {
    "open brackets": "SELECT " + "(" * 50_000 + "1" + ")" * 40_000,
    "closed brackets": "SELECT " + "(" * 3_000 + "1" + ")" * 3_000,
    "open nested WITH": "WITH a AS (" * 8,
    "nested WITH and a mistake": "WITH a AS (" * 8 + "SELECT 1 FROM FROM" + ") SELECT 1" * 8,
    "closers first": ")" * 50 + "wItH a AS (" * 8,
    "bytes before": "/* éééééééééééé */ " + "WITH a AS (" * 8,
    "open brackets in WITH": ("WITH a AS (" + "(" * 45) * 4,
    "sums": "SELECT " + "1+" * 20_000 + "1",
    "subqueries": "SELECT * FROM " + "(SELECT * FROM " * 3_000 + "episodes" + ")" * 3_000,
    "lists": "SELECT " + "[" * 2_000 + "1" + "]" * 2_000,
    "long": "SELECT '" + "x" * 200_000 + "'",
    "nul": "SELECT 1 \x00; COPY (SELECT 1) TO 'x'",
    "half a character": "SELECT '\ud800'",
}


@pytest.mark.parametrize("name", MONSTERS)
def test_monstrous_text_is_refused_at_once(catalog: Catalog, name: str) -> None:
    """Some of these take the parser of DuckDB 2.0.0 all memory of the machine."""
    started = time.monotonic()
    with pytest.raises(ConfigError):
        catalog.arrow(MONSTERS[name])
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "sql",
    [
        "WITH a AS (SELECT 1), b AS (FROM a), c AS (FROM b), d AS (FROM c), e AS (FROM d) FROM e",
        "SELECT 'WITH (WITH (WITH (WITH (WITH (' AS s -- WITH ( WITH ( WITH ( WITH ( WITH (",
        "SELECT (SELECT count(*) FROM (WITH a AS (FROM episodes) FROM a))",
        "SELECT " + "abs(" * 100 + "1" + ")" * 100,
    ],
)
def test_ordinary_nesting_passes(catalog: Catalog, sql: str) -> None:
    assert catalog.arrow(sql).num_rows == 1


def test_deep_text_that_parses_is_walked_whole(catalog: Catalog, root: Path) -> None:
    inner = f"(WITH x AS (COPY (SELECT 1) TO '{root}/datasets/w.csv') SELECT count(*) FROM x)"
    with pytest.raises(ConfigError):
        catalog.arrow("SELECT " + "abs(" * 60 + inner + ")" * 60)
    assert not (root / "datasets/w.csv").exists()
