"""Whether an expression always gives the same result over the same snapshot, decided from DuckDB's syntax tree.

DuckDB's own `stability` of a function is not enough: 2.0.0 calls age(ts), which counts from today, `CONSISTENT`, and current_localtimestamp()
and version() too (read from duckdb_functions()). And a function that is constant of its rows may depend on the order in which threads
bring them. Two rows that an ORDER BY does not tell apart may still come either way round: no tree shows that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb

# Words that SQL reads as functions of the clock or of the session where no column is called so.
CLOCK_WORDS = frozenset(
    [
        "current_catalog",
        "current_date",
        "current_role",
        "current_schema",
        "current_time",
        "current_timestamp",
        "current_user",
        "localtime",
        "localtimestamp",
        "session_user",
        "user",
    ]
)
_CLOCK = "the clock, the session or the version of DuckDB"
_CLOCK_NAMES = frozenset(["ago", "create_sort_key", "hash", "json_serialize_plan", "vector_type"])
_CLOCK_NAMES |= frozenset(["version"])
_CLOCK_PREFIXES = ("current_", "get_current_", "pg_", "has_", "inet_")
_ROW_ORDER = "the order of rows"
_BY_NAME = frozenset(["aggregate", "array_aggr", "array_aggregate", "list_aggr", "list_aggregate"])
# Aggregates that see rows in an order, or choose one of several that are alike.
_IN_ORDER = frozenset(
    [
        "any_value",
        "arbitrary",
        "arg_max",
        "arg_max_null",
        "arg_max_nulls_last",
        "arg_min",
        "arg_min_null",
        "arg_min_nulls_last",
        "argmax",
        "argmin",
        "array_agg",
        "first",
        "group_concat",
        "json_group_array",
        "json_group_object",
        "json_group_structure",
        "last",
        "list",
        "listagg",
        "lttb",
        "max_by",
        "min_by",
        "mode",
        "string_agg",
        "variant_group_array",
        "variant_group_object",
    ]
)


def changing_functions(connection: duckdb.DuckDBPyConnection) -> frozenset[str]:
    """Functions whose answer is another next time, by DuckDB's own account."""
    rows = connection.execute(
        "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE stability IN "
        "('VOLATILE', 'CONSISTENT_WITHIN_QUERY')"
    ).fetchall()
    return frozenset(row[0] for row in rows)


def depends_on(node: dict[str, Any], nondeterministic: frozenset[str]) -> str:
    """What the answer of one object of a syntax tree depends on besides the snapshot, or ""; `nondeterministic`: `changing_functions`."""
    for rule in (_of_modifiers, _of_join, _of_window, _of_order):
        if function := rule(node):
            return f"{function}: the result would depend on {_ROW_ORDER}; add ORDER BY"
    if node.get("sample"):
        return "the result would be random: a sample differs on every run"
    if function := _of_clock(node, nondeterministic):
        return f"{function}() gives different results on different runs: it depends on {_CLOCK}"
    if function := _of_estimate(node):
        return f"{function}() is an estimate: the result would depend on chance and {_ROW_ORDER}"
    return ""


def _name(node: dict[str, Any]) -> str:
    return str(node.get("function_name", "")).lower()


def _of_clock(node: dict[str, Any], nondeterministic: frozenset[str]) -> str:
    name = _name(node)
    if node.get("type") == "COLUMN_REF" and len(node["column_names"]) == 1:
        column = str(node["column_names"][0]).lower()
        name = column if column in CLOCK_WORDS else ""
    elif name == "age" and len(node["arguments"]) != 2:
        return "age with one argument: age"
    is_named = name in nondeterministic or name in CLOCK_WORDS or name in _CLOCK_NAMES
    return name if is_named or name.startswith(_CLOCK_PREFIXES) else ""


def _of_estimate(node: dict[str, Any]) -> str:
    """Aggregates that sample or sketch, also those that are called by a text."""
    name = _name(node)
    names = [name]
    if name in _BY_NAME:
        literals = [a["expression"].get("literal") for a in node["arguments"][1:2]]
        if not literals or literals[0] is None:
            return f"{name} without the name of its aggregate as a literal, {name}"
        names.append(str(literals[0].get("text", "")).lower())
    is_estimate = any(n == "reservoir_quantile" or "approx_" in n for n in names)
    return names[-1] if is_estimate else ""


def _of_order(node: dict[str, Any]) -> str:
    """An aggregate, also as a window."""
    name = _name(node)
    if name not in _IN_ORDER:
        return ""
    orders = [*(node.get("order_bys") or {}).get("orders", []), *node.get("orders", [])]
    return "" if _is_order([*orders, *node.get("arg_orders", [])]) else f"{name}() without ORDER BY"


def _of_window(node: dict[str, Any]) -> str:
    if node.get("class") != "WINDOW" or _is_order([*node["orders"], *node["arg_orders"]]):
        return ""
    counts_rows = any(str(node[side]).endswith("_ROWS") for side in ("start", "end"))
    is_whole = node["type"] == "WINDOW_AGGREGATE" and not counts_rows
    return "" if is_whole else f"{_name(node)}() OVER a window without an order"


def _of_modifiers(node: dict[str, Any]) -> str:
    """LIMIT, OFFSET and DISTINCT ON of a sub-query."""
    modifiers = node.get("modifiers") or []
    orders = [order for each in modifiers for order in each.get("orders", [])]
    if _is_order(orders, is_of_query=True):
        return ""
    for each in modifiers:
        if "limit" in str(each["type"]).lower():
            return "LIMIT or OFFSET without ORDER BY"
        if each.get("distinct_on_targets"):
            return "DISTINCT ON without ORDER BY"
    return ""


def _of_join(node: dict[str, Any]) -> str:
    return "a POSITIONAL JOIN" if node.get("ref_type") == "POSITIONAL" else ""


def _is_order(orders: list[dict[str, Any]], *, is_of_query: bool = False) -> bool:
    """Does anything in it differ from row to row? A constant orders nothing, but in a query it is the number of a column."""

    def differs(value: dict[str, Any]) -> bool:
        is_number = "INTEGER" in str((value.get("literal") or {}).get("kind"))
        return value.get("type") in ("COLUMN_REF", "STAR") or (is_of_query and is_number)

    return any(differs(value) for order in orders for value in objects(order))


def objects(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of the tree, at any depth; a stack, because hostile text nests deeper than Python recurses."""
    stack = [tree]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            yield value
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
