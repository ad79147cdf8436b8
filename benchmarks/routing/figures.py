"""The answer as pictures, for docs/results/routing.md: what the tiers make of each kind of play, and how success grows with data of lower quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.routing.cells import ALL, LABEL
from benchmarks.routing.page import variant_of

TIER_COLOURS = {"high": "#2a7f62", "low": "#d98c2b", "actionless": "#7a7f87", "excluded": "#b03a48"}
METHOD_COLOURS = {"clone": "#b03a48", "routed": "#2a7f62", "pretrained": "#3b6ea8"}
ARM_KEYS = ("method", "num_chunks", "tiers", "others")  # of a line; its scales are its points
SCALE_COLOURS = ("#3b6ea8", "#2a7f62", "#d98c2b", "#b03a48", "#7a7f87")


def draw(answer: Mapping[str, Any], folder: Path) -> list[Path]:
    """SVG files of what there is; the same answer gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    if "judge" in answer:
        paths.append(_saved(tiers(answer["judge"]), folder / "routing_tiers.svg"))
    if answer.get("study"):
        paths.append(_saved(study(answer["study"]), folder / "routing_study.svg"))
    if answer.get("plan"):
        paths.append(_saved(plan(answer["plan"]), folder / "routing_plan.svg"))
    return paths


def tiers(judge: Mapping[str, Any]) -> Figure:
    """Episodes of each kind of play by tier; those that succeeded above, those that failed below."""
    rows: dict[tuple[str, bool], dict[str, int]] = {}
    for line in judge["counts"]:
        if line["play"] == "video":
            continue
        row = rows.setdefault((line["play"], line["is_success"]), {})
        row[line["tier"]] = row.get(line["tier"], 0) + line["episodes"]
    keys = sorted(rows, key=lambda key: (key[1], key[0]))
    figure = Figure(figsize=(7.0, 0.5 + 0.32 * len(keys)), layout="constrained")
    axes = figure.add_subplot()
    left = [0] * len(keys)
    names = [f"{play}, {'succeeded' if is_success else 'failed'}" for play, is_success in keys]
    for tier, colour in TIER_COLOURS.items():
        widths = [rows[key].get(tier, 0) for key in keys]
        if any(widths):
            axes.barh(names, widths, left=left, color=colour, label=tier)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_xlabel("episodes")
    axes.legend(loc="lower right", frameon=False)
    return figure


def study(by_experts: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Success in the simulator against how much data of lower quality there is: the mean of each method with its interval, and a dot for each seed."""
    figure = Figure(figsize=(4.6 * len(by_experts) + 2, 3.4), layout="constrained")
    all_axes = figure.subplots(1, len(by_experts), sharey=True, squeeze=False)[0]
    for axes, (num, of) in zip(all_axes, by_experts.items(), strict=True):
        lines: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
        for row in of["success"]:
            arm = tuple(row[key] for key in ARM_KEYS)
            lines.setdefault(arm, []).append(row)
        for number, rows in enumerate(lines.values()):
            _line(axes, rows, beside=0.12 * (number - (len(lines) - 1) / 2))
        axes.set_title(f"{num} experts a task", fontsize=10)
        axes.set_xlabel("other data: x 20 episodes and 20 videos a task")
        axes.set_ylim(0, 1)
    all_axes[0].set_ylabel("success in the simulator")
    by_label: dict[str, Artist] = {}  # a method may be in one of them alone
    for axes in all_axes:
        handles, labels = axes.get_legend_handles_labels()
        by_label |= dict(zip(labels, handles, strict=True))
    figure.legend(by_label.values(), by_label.keys(), loc="outside right upper", frameon=False)
    return figure


def plan(by_experts: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Success, and what a chunk costs, against the number of chunks that a routed network chooses among; a line for each scale."""
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    success_axes, cost_axes = figure.subplots(1, 2)
    rows = [row for of in by_experts.values() for row in of["success"]]
    scales = sorted({row["scale"] for row in rows})
    for scale, colour in zip(scales, SCALE_COLOURS, strict=False):
        of = sorted((r for r in rows if r["scale"] == scale), key=lambda row: row["num_chunks"])
        chunks = [row["num_chunks"] for row in of]
        values = [row["success"]["value"] for row in of]
        ends = [
            [abs(r["success"][end] - r["success"]["value"]) for r in of] for end in ("low", "high")
        ]
        label = f"other data x {scale}"
        success_axes.errorbar(chunks, values, yerr=ends, capsize=3, color=colour, label=label)
        cost_axes.plot(
            chunks, [1e3 * row["chunk_cpu_s"] for row in of], "o-", color=colour, label=label
        )
    for axes in (success_axes, cost_axes):
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({row["num_chunks"] for row in rows}))
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.set_xlabel("chunks that the policy chooses among")
    success_axes.set_ylim(0, 1)
    success_axes.set_ylabel("success in the simulator")
    success_axes.legend(frameon=False)
    cost_axes.set_ylim(bottom=0)
    cost_axes.set_ylabel("CPU time of a chunk, ms")
    return figure


def _line(axes: Axes, rows: Sequence[Mapping[str, Any]], *, beside: float) -> None:
    """Of one method; dashed where it plans, diamonds where tiers are the policy's, dotted where other data teaches forecasting alone. `beside`: to the right of its place, so that no two lie on each other."""
    rows = sorted(rows, key=lambda row: row["scale"])
    places = [row["scale"] + beside for row in rows]
    values = [row["success"]["value"] for row in rows]
    ends = [
        [abs(row["success"][end] - row["success"]["value"]) for row in rows]
        for end in ("low", "high")
    ]
    method, chunks, tiers, others = (rows[0][key] for key in ARM_KEYS)
    axes.errorbar(
        places,
        values,
        yerr=ends,
        capsize=3,
        color=METHOD_COLOURS[method],
        linestyle="--" if chunks > 1 else ":" if others != ALL else "-",
        marker="o" if tiers == LABEL else "D",
        markersize=5,
        label=f"{method}{variant_of(rows[0])}",
    )
    for place, row in zip(places, rows, strict=True):
        seeds = list(row["by_seed"].values())
        axes.plot([place] * len(seeds), seeds, ".", color=METHOD_COLOURS[method], alpha=0.4)


def _saved(figure: Figure, path: Path) -> Path:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "eicorpus", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
    return path
