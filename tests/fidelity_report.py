"""Prints the tables of docs/results/fidelity.md: `python -m tests.fidelity_report [--json]`. Exits 1 when something is out of bounds.

`--json` prints them as one object of docs/results/data/fidelity.json.
The first is of the generators, the second of real samples, which are not part of the project: without them it says so.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks import result
from tests.conftest import SAMPLES
from tests.fidelity import Worst, case_of, measure, names
from tests.fidelity_real import MEASURES, rows_of
from tests.real.rows import REAL_COLUMNS, cells

COLUMNS = (
    "source, as its generator writes it",
    "rate, Hz",
    "poses",
    "worst position, mm (allowed)",
    "worst rotation, deg (allowed)",
    "worst gripper (allowed)",
    "worst keypoint, mm (allowed)",
    "pictures",
    "of another instant",
)


def cells_of(name: str, worst: Worst) -> list[str]:
    def cell(errors: dict[str, float], allowed: float) -> str:
        return f"{max(errors.values()):.2g} ({allowed:.2g})" if errors else "–"

    return [
        name,
        str(worst.rate_hz),
        str(worst.poses),
        cell(worst.mm, worst.allowed_mm),
        cell(worst.deg, worst.allowed_deg),
        cell(worst.gripper, worst.allowed_gripper),
        cell(worst.keypoint_mm, worst.allowed_mm),
        str(worst.pictures),
        str(worst.wrong_pictures),
    ]


def of_generators() -> tuple[list[list[str]], list[str]]:
    """The rows of the first table, and what is out of bounds."""
    rows, faults = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(names()):
            worst = measure(case_of(name), Path(folder) / str(number))
            rows.append(cells_of(name, worst))
            faults += [f"{name}: {fault}" for fault in worst.faults]
    return rows, faults


def of_real_data(samples: Path) -> tuple[list[list[str]], list[str]]:
    """The rows of the second table, and what is not as expected and not known. Without samples there are no rows."""
    if not samples.is_dir():
        return [], []
    rows = [(name, row) for name in MEASURES for row in rows_of(name, samples)]
    return [cells(name, row) for name, row in rows], [
        f"{name}: {row.what}: {row.value}; expected {row.expected}"
        for name, row in rows
        if row.is_fault
    ]


def main() -> int:
    measured_on = result.machine()
    (generated, faults), (real, real_faults) = of_generators(), of_real_data(SAMPLES)
    tables = {
        "generators": {"columns": COLUMNS, "rows": generated},
        "real": {"columns": REAL_COLUMNS, "rows": real},
    }
    if "--json" in sys.argv:
        sys.stdout.write(result.as_json("fidelity", measured_on, tables=tables) + "\n")
    else:
        lines = [" | ".join(row) for each in (generated, real) for row in (*each, [""])]
        sys.stdout.write("\n".join(lines))
        sys.stdout.write("" if real else "NOT RUN: no real sample data beside the checkout\n")
    sys.stderr.write("".join(f"{fault}\n" for fault in (*faults, *real_faults)))
    return 1 if faults or real_faults else 0


if __name__ == "__main__":
    sys.exit(main())
