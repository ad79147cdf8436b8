"""Decides whether a text is one query that only reads. DuckDB's own parser answers; no pattern matching on SQL.

A statement's type is not enough: DuckDB 2.0.0 parses `WITH x AS (COPY ... TO 'file') SELECT ...` as a SELECT and
writes the file, inside `allowed_directories` even when locked down (found by running it). So the syntax tree is
walked, and what is not known to read is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import duckdb

from ingest.catalog.sql_determinism import changing_functions, depends_on, objects
from schemas.document import DocumentError
from schemas.errors import ConfigError
from schemas.json_text import DOCUMENT, parse_json

MAX_CHARACTERS = 100_000
# The parser of DuckDB 2.0.0 needs memory without bound, and no limit of ours reaches it: a text of 100 characters with
# eight nested WITH and a mistake inside takes more than 5 GB, 4000 open brackets 2.5 GB (both measured).
MAX_BRACKETS = 200
MAX_TREE_DEPTH = 10 * MAX_BRACKETS  # a bracket of a query is several levels of its syntax tree
MAX_NESTED_WITH = 4
QUERY_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
# Not glob(): it lists names behind a link that leads out of the corpus (the contents stay closed).
FILE_READERS = frozenset(
    [
        "parquet_file_metadata",
        "parquet_kv_metadata",
        "parquet_metadata",
        "parquet_scan",
        "parquet_schema",
        "read_csv",
        "read_csv_auto",
        "read_json",
        "read_json_auto",
        "read_json_objects",
        "read_ndjson",
        "read_ndjson_auto",
        "read_ndjson_objects",
        "read_parquet",
        "read_text",
    ]
)
TABLE_FUNCTIONS = FILE_READERS | frozenset(
    [
        "duckdb_columns",
        "duckdb_functions",
        "duckdb_keywords",
        "duckdb_tables",
        "duckdb_types",
        "duckdb_views",
        "generate_series",
        "histogram",
        "histogram_values",
        "json_each",
        "json_tree",
        "pragma_table_info",
        "range",
        "repeat",
        "repeat_row",
        "unnest",
    ]
)


def reading_statement(connection: duckdb.DuckDBPyConnection, text: str) -> duckdb.Statement:
    """The single statement of `text`, known to be a query that only reads.

    Raises:
        ConfigError: it does not parse, is not exactly one query, writes somewhere inside, or calls a table function
            that is not listed here.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(
            f"the query has {len(text)} characters; expected at most {MAX_CHARACTERS}"
        )
    if "\x00" in text or not _is_unicode(text):
        raise ConfigError("the text contains a NUL byte or an incomplete character", where="query")
    _check_nesting(text)
    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as error:
        raise ConfigError(str(error), where="query") from error
    if len(statements) != 1:
        raise ConfigError(
            f"{len(statements)} statements; expected exactly one query", where="query"
        )
    kind = statements[0].type.name
    if kind != "SELECT":
        hint = "; PIVOT needs its values: ON x IN (...)" if kind == "MULTI" else ""
        raise _refused(f"a statement of type {kind}", hint)
    for node in objects(_syntax_tree(connection, text)):
        _check(node)
    return statements[0]


def reading_expression(
    connection: duckdb.DuckDBPyConnection, text: str, relation: str, tables: Iterable[str]
) -> str:
    """One truth value over the rows of `relation`, as SQL to put between brackets after WHERE.

    It may ask `tables` in sub-queries, and always gives the same result over the same snapshot: no files, no clock, no chance.

    Raises:
        ConfigError: it is anything else.
    """
    query = f"SELECT 1 FROM {relation} WHERE (\n{text}\n)"
    check_brackets(text)
    reading_statement(connection, query)
    tree, plain = (
        _syntax_tree(connection, sql) for sql in (query, f"SELECT 1 FROM {relation} WHERE (TRUE)")
    )
    node, shape = tree["statements"][0]["node"], plain["statements"][0]["node"]
    odd = [key for key in shape if key != "where_clause" and node.get(key) != shape[key]]
    if odd or node.keys() != shape.keys():
        raise ConfigError("expected one boolean expression", where="--where")
    known = {name.lower() for name in (*tables, relation)}
    known |= {str(cte["key"]).lower() for o in objects(tree) for cte in _ctes(o)}
    nondeterministic = changing_functions(connection)
    for each in objects(node):
        _check_constancy(each, known, nondeterministic)
    return text


def _ctes(node: dict[str, Any]) -> list[dict[str, Any]]:
    cte_map = node.get("cte_map")
    return list(cte_map["map"]) if isinstance(cte_map, dict) else []


def check_brackets(text: str) -> None:
    """No bracket of the text may close one that it did not open: it would close ours."""
    depth = 0
    data = text.encode(errors="replace")
    for offset, kind in duckdb.tokenize(text):
        if kind == duckdb.token_type.operator:
            depth += (data[offset : offset + 1] == b"(") - (data[offset : offset + 1] == b")")
        if depth < 0:
            problem = f"unmatched ) at character {offset + 1}"
            raise ConfigError(f"{problem}; expected one expression", where="--where")


def _check_constancy(
    node: dict[str, Any], tables: set[str], nondeterministic: frozenset[str]
) -> None:
    kind = node.get("type")
    dependence = depends_on(node, nondeterministic)
    if kind == "TABLE_FUNCTION" and node["function"]["function_name"].lower() in FILE_READERS:
        dependence = "files are not part of a snapshot"
    elif kind == "BASE_TABLE" and node["table_name"].lower() not in tables:
        dependence = f"no table {node['table_name']!r}; expected one of {', '.join(sorted(tables))}"
    elif kind == "VALUE_PARAMETER":
        dependence = "parameters have no value here"
    if dependence:
        raise ConfigError(dependence, where="--where")


def _is_unicode(text: str) -> bool:
    """A Python string may hold lone surrogates, which no UTF-8 can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_nesting(text: str) -> None:
    """Refuse, by tokens alone, what could make the parser run away."""
    has_with = [False]  # for every open bracket: was there a WITH at this level?
    data = text.encode()  # offsets count bytes
    for offset, kind in duckdb.tokenize(text):
        if kind not in (duckdb.token_type.operator, duckdb.token_type.keyword):
            continue
        if data[offset : offset + 1] in (b"(", b"[", b"{"):
            has_with.append(False)
        elif data[offset : offset + 1] in (b")", b"]", b"}"):
            del has_with[max(len(has_with) - 1, 1) :]  # never the outermost level
        elif data[offset : offset + 4].lower() == b"with":
            has_with[-1] = True
        if len(has_with) > MAX_BRACKETS or sum(has_with) > MAX_NESTED_WITH:
            problem = f"more than {MAX_BRACKETS} nested parentheses or {MAX_NESTED_WITH} nested WITH clauses"
            raise ConfigError(problem, remedy="simplify the query", where="query")


def _syntax_tree(connection: duckdb.DuckDBPyConnection, text: str) -> Any:
    try:
        rows = connection.execute("SELECT json_serialize_sql($1::VARCHAR)", [text]).fetchall()
        # DuckDB says "nowhere in the text" with the largest unsigned number, of what `FROM t` alone implies.
        text_of_tree = rows[0][0].replace(f'"query_location":{2**64 - 1}', '"query_location":null')
        tree = parse_json(text_of_tree, limits=replace(DOCUMENT, max_depth=MAX_TREE_DEPTH))
    except (duckdb.Error, DocumentError) as error:
        raise ConfigError(f"the query cannot be parsed: {error}", where="query") from error
    if tree["error"]:
        reason = tree.get("error_message", "no syntax tree")
        raise ConfigError(f"the query cannot be parsed: {reason}", where="query")
    return tree


def _check(node: dict[str, Any]) -> None:
    kind = node.get("type")
    if not isinstance(kind, str):
        return
    # Two independent marks of a query node, so that a kind added by a newer DuckDB is refused, not overlooked.
    if ("cte_map" in node or kind.endswith("_NODE")) and kind not in QUERY_NODES:
        raise _refused(f"{kind.removesuffix('_QUERY_NODE')} inside the query")
    if kind == "TABLE_FUNCTION":
        name = str(node["function"]["function_name"]).lower()
        if name not in TABLE_FUNCTIONS:
            raise _refused(
                f"table function {name}()", "; there are: " + ", ".join(sorted(TABLE_FUNCTIONS))
            )


def _refused(what: str, hint: str = "") -> ConfigError:
    return ConfigError(
        f"{what} is not allowed",
        remedy=f"use one SELECT, SHOW, DESCRIBE or SUMMARIZE that only reads{hint}",
        where="query",
    )
