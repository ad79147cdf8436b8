"""The tables of docs/results/, from the JSON objects in docs/results/data/ and the `KEYS` of the benchmarks.

A page holds a pair of comments for each part: `<!-- dedup begins -->` for the figures of a benchmark, `<!-- routing.success begins -->` for one of its
tables. What stands between them is generated.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from docs.site.markdown import DOCS, PART, ROOT, code, table

FOLDER = DOCS / "results"


def filled(name: str) -> str:
    """The page below docs/results/ with its generated parts."""
    return PART.sub(_part, (FOLDER / name).read_text())


def _part(match: re.Match[str]) -> str:
    name, _, key = match[1].partition(".")
    runs = json.loads((FOLDER / "data" / f"{name}.json").read_text())
    parts = _tables(runs, key) if key else _figures(keys_of(name), runs)
    return "\n\n".join([f"<!-- {match[1]} begins -->", *parts, f"<!-- {match[1]} ends -->"])


def keys_of(benchmark: str) -> dict[str, str]:
    """Figure -> what it is: the literal `KEYS` of the benchmark, which is not imported."""
    tree = ast.parse((ROOT / "benchmarks" / f"{benchmark}.py").read_text())
    (value,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "KEYS"
    )
    return dict(ast.literal_eval(value))


def cases_of(pattern: str, figures: Mapping[str, Any]) -> list[str]:
    """What stands for the star of `step_s_*` among the names of the figures."""
    start = pattern.removesuffix("*")
    return [name.removeprefix(start) for name in figures if name.startswith(start)]


def _about(run: Mapping[str, Any]) -> str:
    machine = run["machine"]
    if isinstance(machine, dict):
        machine = ", ".join(f"{key} {value}" for key, value in machine.items())
    parts = [f"Machine: {machine}", run.get("conditions", "")]
    parts += [f"{key} {run[key]}" for key in ("commit", "date") if run[key]]
    if run["transcribed"]:
        parts.append("transcribed by hand")
    return " · ".join(part for part in parts if part) + "."


def _tables(runs: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    having = [run for run in runs if key in run["tables"]]
    if not having:
        raise KeyError(key)
    return [
        part
        for run in having
        for part in (table(run["tables"][key]["columns"], run["tables"][key]["rows"]), _about(run))
    ]


def _figures(keys: Mapping[str, str], runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """One table of all runs; and one for each run of the figures that each case has."""
    alone = [key for key in keys if not key.endswith("_*")]
    patterns = [key for key in keys if key.endswith("_*")]
    heads = ["figure", "what it is"]
    heads += ["measured"] if len(runs) == 1 else [f"run {n}" for n in range(1, len(runs) + 1)]
    rows = [[code(k), keys[k], *(number(run["figures"].get(k)) for run in runs)] for k in alone]
    rows += [[code(k), keys[k], *("see below" for _ in runs)] for k in patterns]
    parts = [table(heads, rows)]
    for count, run in enumerate(runs, start=1):
        parts.append(f"Run {count}: {_about(run)}" if len(runs) > 1 else _about(run))
        if having := [p for p in patterns if cases_of(p, run["figures"])]:
            parts.append(_cases(having, run["figures"]))
    return parts


def _cases(patterns: Sequence[str], figures: Mapping[str, Any]) -> str:
    cases = dict.fromkeys(case for pattern in patterns for case in cases_of(pattern, figures))
    rows = [
        [code(case), *(number(figures.get(pattern.replace("*", case))) for pattern in patterns)]
        for case in cases
    ]
    return table(["case", *(code(pattern.removesuffix("_*")) for pattern in patterns)], rows)


def number(value: Any) -> str:
    """Four digits, thousands apart; a figure that a run lacks is a dash, and counts by name stand beside each other."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{number(count)} {name}" for name, count in value.items())
    return f"{value:,.0f}" if isinstance(value, int) or value >= 1000 else f"{value:.4g}"
