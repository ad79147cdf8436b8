"""The answer as pictures, for docs/results/routing.md: what the tiers make of each kind of play, and how success grows with data of lower quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {"high": "#2a7f62", "low": "#d98c2b", "actionless": "#7a7f87", "excluded": "#b03a48"}

METHODS = {"clone": "#b03a48", "routed": "#2a7f62", "pretrained": "#3b6ea8"}


def draw(answer: Mapping[str, Any], folder: Path) -> list[Path]:
    """SVG files of what there is; the same answer gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    if "judge" in answer:
        paths.append(_saved(tiers(answer["judge"]), folder / "routing_tiers.svg"))
    if answer.get("study"):
        paths.append(_saved(study(answer["study"]), folder / "routing_study.svg"))
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
    for tier, colour in COLOURS.items():
        widths = [rows[key].get(tier, 0) for key in keys]
        if any(widths):
            axes.barh(names, widths, left=left, color=colour, label=tier)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_xlabel("episodes")
    axes.legend(loc="lower right", frameon=False)
    return figure


def study(by_experts: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Success in the simulator against how much data of lower quality there is: the mean of each method with its interval, and a dot for each seed."""
    figure = Figure(figsize=(3.6 * len(by_experts), 3.2), layout="constrained")
    all_axes = figure.subplots(1, len(by_experts), sharey=True, squeeze=False)[0]
    for axes, (num, of) in zip(all_axes, by_experts.items(), strict=True):
        lines: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
        for row in of["success"]:
            lines.setdefault((row["method"], row["num_chunks"]), []).append(row)
        for (method, chunks), rows in lines.items():
            _line(axes, method, chunks, rows)
        axes.set_title(f"{num} experts a task", fontsize=10)
        axes.set_xlabel("data of lower quality (x 20 episodes, 20 videos)")
        axes.set_ylim(0, 1)
    all_axes[0].set_ylabel("success in the simulator")
    all_axes[0].legend(frameon=False)
    return figure


def _line(axes: Axes, method: str, chunks: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Of one method; dashed where it plans."""
    rows = sorted(rows, key=lambda row: row["scale"])
    scales = [row["scale"] for row in rows]
    values = [row["success"]["value"] for row in rows]
    ends = [
        [abs(row["success"][end] - row["success"]["value"]) for row in rows]
        for end in ("low", "high")
    ]
    label = method if chunks == 1 else f"{method}, best of {chunks} chunks"
    axes.errorbar(
        scales,
        values,
        yerr=ends,
        capsize=3,
        color=METHODS[method],
        linestyle="-" if chunks == 1 else "--",
        label=label,
    )
    for row in rows:
        seeds = list(row["by_seed"].values())
        axes.plot([row["scale"]] * len(seeds), seeds, ".", color=METHODS[method], alpha=0.5)


def _saved(figure: Figure, path: Path) -> Path:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "eicorpus", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
    return path
