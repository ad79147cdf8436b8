"""How well the built-in tier policy tells good demonstrations from bad: `python -m tests.tier_quality_report [--json]`.

The demonstrations that its thresholds were chosen on; three sets with faults from faint to gross (fresh, held out, and the one that the
measures were worked on with); real episodes with faults put in (NOT RUN without the samples beside the checkout). Prints the tables of
docs/results/fidelity.md, section "Tiers"; with `--json` as one object of docs/results/data/tier_quality.json. Seeded: another run prints the
same; `--seed` makes other demonstrations of the fresh set.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import result
from tests.conftest import SAMPLES
from tests.curation.demonstrations import demonstrations
from tests.curation.held_out import LOOKED_AT_ONCE, WORKED_ON
from tests.curation.held_out_faults import held_out
from tests.curation.held_out_scores import report, tried
from tests.curation.real_scores import real_report
from tests.curation.scores import auroc, outcome, per_fault, per_tier

FRESH_SEED, WORKED_ON_SEED = 5_000, 1_000
SETS = {
    "fresh": "fresh, looked at once",
    "held_out": "held out, seen by its totals",
    "worked_on": "worked on",
}
SOUND, FAULTY = 4, 3  # held-out demonstrations of each body: of a style, of a fault's size


def tuning(root: Path) -> dict[str, Any]:
    """The demonstrations that the thresholds were chosen on."""
    episodes = list(demonstrations(8, 4))
    done = outcome(root, episodes)
    return {
        "episodes": len(episodes),
        "auroc": auroc(done),
        "faults": {name: list(v) for name, v in per_fault(done).items()},
        "tiers": {name: list(v) for name, v in per_tier(done).items()},
    }


def measured(seed: int) -> dict[str, Any]:
    """All of it; the set that was worked on without the faults of pictures, which nothing was worked on for."""
    started = time.process_time()
    with TemporaryDirectory(prefix="eicorpus-tier-quality-") as folder:
        root = Path(folder)
        answer = {
            "chosen_on": tuning(root / "tuning"),
            "fresh": report(
                tried(root / "fresh", held_out(SOUND, FAULTY, first=seed, rigs=LOOKED_AT_ONCE))
            ),
            "held_out": report(tried(root / "held_out", held_out(SOUND, FAULTY))),
            "worked_on": report(
                tried(
                    root / "worked_on",
                    held_out(
                        SOUND, FAULTY, first=WORKED_ON_SEED, rigs=WORKED_ON, has_pictures=False
                    ),
                )
            ),
            "real": real_report(SAMPLES, root / "real") if SAMPLES.is_dir() else None,
        }
    return answer | {"cpu_s": time.process_time() - started}


# --- as tables ----------------------------------------------------------------------------------------------------------


Table = dict[str, Any]  # columns: names, rows: lists of texts


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    return {"columns": list(head), "rows": [[str(cell) for cell in row] for row in rows]}


def tables(answer: Mapping[str, Any]) -> dict[str, Table]:
    """The tables of docs/results/fidelity.md by their names there."""
    chosen = answer["chosen_on"]
    return {
        "auroc": _summary(answer),
        "chosen_on": table(
            ["demonstrations that thresholds were chosen on", "AUROC"],
            [[chosen["episodes"], f"{chosen['auroc']:.3f}"]],
        ),
        "sweeps": _sweeps(answer["fresh"]),
        "precision_recall": _beside(answer),
        "tiers": _tiers(answer),
        "styles": _styles(answer["fresh"]),
        **(_real(answer["real"]) if answer["real"] else {}),
    }


def _summary(answer: Mapping[str, Any]) -> Table:
    sets = [answer[name] for name in SETS]
    rows = [
        ["episodes", *(each["episodes"] for each in sets)],
        ["sizes that count", *_three(each["auroc"] for each in sets)],
        ["every size", *_three(each["auroc_of_every_size"] for each in sets)],
        [
            "sizes that count, waits on purpose as high",
            *_three(each["auroc_with_waits_sound"] for each in sets),
        ],
        *(
            [f"{name} against sound", *_three(each["auroc_by_fault"][name] for each in sets)]
            for name in sets[0]["auroc_by_fault"]
        ),
        ["bodies", *(_of_bodies(each["auroc_by_body"]) for each in sets)],
    ]
    return table(["high against low, by timestep: AUROC", *SETS.values()], rows)


def _three(values: Iterable[float]) -> Iterator[str]:
    return (f"{value:.3f}" for value in values)


def _of_bodies(figures: Mapping[str, float]) -> str:
    return ", ".join(f"`{name}` {value:.3f}" for name, value in figures.items())


def _sweeps(held: Mapping[str, Any]) -> Table:
    rows = []
    for name, fault in held["faults"].items():
        sizes = ", ".join(f"{s}: {h}/{n}" for s, (h, n) in fault["by_size"].items())
        wrong_counts = ", ".join(f"{t} {n}" for t, n in fault["wrong_timesteps_given"].items())
        rows.append(
            [
                f"{name}, {fault['unit']}",
                sizes,
                fault["half_from"],
                fault["most_from"],
                f"{fault['counts_from']:g}",
                wrong_counts,
            ]
        )
    head = ["fault, fresh set", "found, by size", "half found", "nine in ten", "counts from"]
    return table([*head, "tiers its timesteps got"], rows)


def _beside(answer: Mapping[str, Any]) -> Table:
    rows = []
    for name in answer["fresh"]["faults"]:
        faults = [answer[each]["faults"].get(name) for each in SETS]
        cells = [
            f"{f['precision']:.2f} / {f['recall']:.2f} of {f['of']}" if f else "–" for f in faults
        ]
        rows.append([name, *cells])
    return table(["fault, sizes that count (precision / recall)", *SETS.values()], rows)


def _tiers(answer: Mapping[str, Any]) -> Table:
    rows = []
    for tier, (precision, recall, count) in answer["chosen_on"]["tiers"].items():
        others = [answer[name]["tiers"][tier] for name in SETS]
        rows.append(
            [
                tier,
                *(f"{o['precision']:.3f} / {o['recall']:.3f} of {o['of']:,}" for o in others),
                f"{precision:.3f} / {recall:.3f} of {count:,}",
            ]
        )
    head = ["tier, by timestep (precision / recall)", *SETS.values(), "chosen on"]
    return table(head, rows)


def _styles(held: Mapping[str, Any]) -> Table:
    rows = [
        [
            style,
            f"{figures['alarmed']} of {figures['of']}",
            f"{figures['lost_share']:.2f}",
            ", ".join(f"{code} {n}" for code, n in figures["rules"].items()) or "–",
        ]
        for style, figures in held["styles"].items()
    ]
    head = ["sound, fresh set", "with a segment wrongly not high", "share of time", "rules"]
    return table(head, rows)


def _real(real: Mapping[str, Any]) -> dict[str, Table]:
    sources = list(real["untouched"])
    by_fault: dict[str, dict[str, list[str]]] = {}
    for row in real["faults"]:
        cells = by_fault.setdefault(row["fault"], {})
        cell = f"{row['size']:g}: {row['found']}/{row['of']}"
        cells.setdefault(row["source"], []).append(cell)
    rows = [[f, *(", ".join(c.get(s, ["–"])) for s in sources)] for f, c in by_fault.items()]
    faults = table(["real episodes, fault put in (size: found)", *sources], rows)
    rows = [
        [
            source,
            figures["of"],
            ", ".join(f"{code} {n}" for code, n in figures["rules"].items()) or "–",
            ", ".join(f"{tier} {n}" for tier, n in figures["timesteps"].items()),
        ]
        for source, figures in real["untouched"].items()
    ]
    untouched = table(["real, as they came", "episodes", "rules (episodes)", "timesteps"], rows)
    lists = [
        [f"`{d['class']}`", d["of"], d["known_defect"], d["seen_as"], d["unseen"]]
        for d in real["defect_lists"]
    ]
    head = ["AgiBot's defect lists", "episodes", "`known_defect`", "without the list we see"]
    return {
        "real_faults": faults,
        "real_untouched": untouched,
        "defect_lists": table([*head, "unseen"], lists),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seed", type=int, default=FRESH_SEED, help="of the fresh set")
    args = parser.parse_args()
    measured_on = result.machine()
    named = tables(measured(args.seed))
    if args.json:
        sys.stdout.write(result.as_json("tier_quality", measured_on, tables=named) + "\n")
        return
    if not SAMPLES.is_dir():
        sys.stdout.write("NOT RUN: no real sample data.\n")
    for each in named.values():
        lines = [" | ".join(row) for row in (each["columns"], *each["rows"], [])]
        sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
