"""The tables and the figure of docs/results/routing.md from the committed cells: `python -m benchmarks.routing.publish`, then `make reference`.

Two studies: `routing_cells`, and `routing_plan_cells`, where a routed network that plans is compared with the same network that does not.
Nothing is copied by hand: tests/test_routing_cells.py compares what is published with the cells.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from benchmarks.result import ROOT
from benchmarks.routing.cells import Answer, Cell, Store
from benchmarks.routing.contrasts import compared_cells
from benchmarks.routing.figures import draw
from benchmarks.routing.page import Table, contrast_table, success_table
from benchmarks.routing.settings import Settings

RESULTS = ROOT / "docs/results"

# What is published by name: its folder of cells, and their settings. One Euler step gives nearly the mean, among which there is nothing to choose.
STUDIES: Mapping[str, tuple[str, Settings]] = {
    "study": ("routing_cells", Settings()),
    "plan": ("routing_plan_cells", Settings(sampling_steps=4)),
}


def cells_of(name: str) -> list[tuple[Cell, Answer]]:
    """
    Raises:
        ConfigError: a cell was made under other settings than those of its study.
    """
    folder, settings = STUDIES[name]
    return list(Store(RESULTS / "data" / folder, settings).all())


def published(name: str) -> Answer:
    """One run of `routing.json`: the tables of a study, and where its cells were run."""
    cells = cells_of(name)
    compared = compared_cells(cells, seed=Settings().seed)
    tables = {name: success_table(compared), f"{name}_contrasts": contrast_table(compared)}
    minutes = sum(answer["core_minutes"] for _, answer in cells)
    return {
        "benchmark": "routing",
        "machine": _counted(cells, "machine"),
        "conditions": f"no GPU, with other work · {minutes:.0f} core-minutes",
        "commit": _counted(cells, "commit"),
        "date": _counted(cells, "date"),
        "transcribed": False,
        "tables": {key: _as_json(table) for key, table in tables.items()},
    }


def _counted(cells: list[tuple[Cell, Answer]], key: str) -> str:
    """What the cells say, with how many say it where they differ."""
    values = Counter(_words(answer[key]) for _, answer in cells)
    if len(values) == 1:
        return next(iter(values))
    return ", ".join(f"{value} ({count} cells)" for value, count in sorted(values.items()))


def _words(value: Any) -> str:
    return f"{value['cores']} cores of {value['cpu']}" if isinstance(value, dict) else str(value)


def _as_json(table: Table) -> Answer:
    columns, rows = table
    return {"columns": columns, "rows": [[str(value) for value in row] for row in rows]}


def main() -> None:
    path = RESULTS / "data/routing.json"
    fresh = [published(name) for name in STUDIES]
    own = {key for run in fresh for key in run["tables"]}
    runs = [
        run | {"tables": {key: table for key, table in run["tables"].items() if key not in own}}
        for run in json.loads(path.read_text())
    ]
    kept = [run for run in runs if run["tables"]]
    path.write_text(json.dumps([*kept, *fresh], indent=1, ensure_ascii=False) + "\n")
    for name in STUDIES:
        compared = compared_cells(cells_of(name), seed=Settings().seed)
        draw({name: compared}, RESULTS / "figures")


if __name__ == "__main__":
    main()
