"""The answer as pictures, for docs/results/routing.md: what the tiers make of each kind of play, and how the arms do seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

COLOURS = {"high": "#2a7f62", "low": "#d98c2b", "actionless": "#7a7f87", "excluded": "#b03a48"}


def draw(answer: Mapping[str, Any], folder: Path) -> list[Path]:
    """SVG files of what there is; the same answer gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    if "judge" in answer:
        paths.append(_saved(tiers(answer["judge"]), folder / "routing_tiers.svg"))
    if "compare" in answer:
        paths.append(_saved(arms(answer["compare"]), folder / "routing_arms.svg"))
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


def arms(compare: Mapping[str, Any]) -> Figure:
    """Success in the simulator: pooled with its interval, and a dot for each seed."""
    names = list(compare["success"])
    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for at, name in enumerate(names):
        pooled, seeds = compare["success"][name], compare["by_seed"][name].values()
        ends = [[pooled["value"] - pooled["low"]], [pooled["high"] - pooled["value"]]]
        axes.bar(at, pooled["value"], width=0.6, color="#9fc5b5", yerr=ends, capsize=4)
        axes.plot([at] * len(seeds), list(seeds), "o", color="#22313f", markersize=4)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylim(0, 1)
    axes.set_ylabel("success in the simulator")
    return figure


def _saved(figure: Figure, path: Path) -> Path:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "eicorpus", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
    return path
