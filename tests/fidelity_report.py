"""Prints the tables of docs/results/fidelity.md: `python -m tests.fidelity_report`. Exits 1 when something is out of bounds.

The first is of the generators, the second of real samples, which are not part of the project: without them it says so.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.conftest import SAMPLES
from tests.fidelity import Worst, case_of, measure, names
from tests.fidelity_real import MEASURES, rows_of
from tests.real.rows import table

HEAD = (
    "| source, as its generator writes it | rate, Hz | poses | worst position, mm (allowed) "
    "| worst rotation, deg (allowed) | worst gripper (allowed) | worst keypoint, mm (allowed) | pictures | of another instant |"
)


def row(name: str, worst: Worst) -> str:
    def cell(errors: dict[str, float], allowed: float) -> str:
        return f"{max(errors.values()):.2g} ({allowed:.2g})" if errors else "–"

    cells = (
        name,
        str(worst.rate_hz),
        str(worst.poses),
        cell(worst.mm, worst.allowed_mm),
        cell(worst.deg, worst.allowed_deg),
        cell(worst.gripper, worst.allowed_gripper),
        cell(worst.keypoint_mm, worst.allowed_mm),
        str(worst.pictures),
        str(worst.wrong_pictures),
    )
    return f"| {' | '.join(cells)} |"


def of_generators() -> tuple[list[str], list[str]]:
    """The lines of the first table, and what is out of bounds."""
    lines, faults = [HEAD, "|" + "---|" * 9], []
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(names()):
            worst = measure(case_of(name), Path(folder) / str(number))
            lines.append(row(name, worst))
            faults += [f"{name}: {fault}" for fault in worst.faults]
    return lines, faults


def of_real_data(samples: Path) -> tuple[list[str], list[str]]:
    """The lines of the second table, and what is not as expected and not known."""
    if not samples.is_dir():
        return ["NOT RUN: no real sample data beside the checkout"], []
    rows = [(name, row) for name in MEASURES for row in rows_of(name, samples)]
    return table(rows), [
        f"{name}: {row.what}: {row.value}; expected {row.expected}"
        for name, row in rows
        if row.is_fault
    ]


def main() -> int:
    found = (of_generators(), of_real_data(SAMPLES))
    sys.stdout.write("\n\n".join("\n".join(lines) for lines, _ in found) + "\n")
    faults = [fault for _, some in found for fault in some]
    sys.stderr.write("".join(f"{fault}\n" for fault in faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
