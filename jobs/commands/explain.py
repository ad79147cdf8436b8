"""`eicorpus explain CORPUS EPISODE`: why each segment has its tier, or why the episode was not committed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ingest.catalog.episode_lookup import find_uids
from ingest.catalog.next_command import next_command
from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.curation.tiers.explain import Explained, explain, policy_in_force
from ingest.curation.tiers.policy import BUILT_IN, load_policy
from jobs.ui.options import EPISODE_HELP, AsJson, CorpusArgument, PolicyName
from jobs.ui.output import answer_json, stdout, table
from schemas.remedies import remedy_of


def command(
    corpus: CorpusArgument,
    episode: Annotated[str, typer.Argument(metavar="EPISODE", help=EPISODE_HELP)],
    policy: PolicyName = None,
    as_json: AsJson = False,
) -> None:
    """Explain the tier of each segment of an episode, or why the episode was not committed."""
    root = open_corpus(corpus).root
    current = snapshot.load(root)
    chosen = load_policy(policy)[0] if policy else policy_in_force(root, current, BUILT_IN)
    (uid,) = find_uids(root, current, [episode])
    explained = explain(root, current, uid, chosen)
    if as_json:
        answer_json(asdict(explained))
    else:
        _show(explained, root)


def _show(explained: Explained, root: Path) -> None:
    heading = f"{explained.uid}: {explained.state}"
    if explained.code:
        message = explained.message.removeprefix(f"[{explained.code}] ")
        heading += f" [{explained.code}] {message}"
        if explained.state != "filtered":
            heading += f". What to do: {remedy_of(explained.code)}"
    elif explained.message:
        heading += f", {explained.message}"
    stdout.print(heading, highlight=False, markup=False)
    if not explained.facts:
        return
    facts = [[name, _plain(value)] for name, value in explained.facts.items()]
    stdout.print(table("\nfacts", ["fact", "value"], facts))
    rows = [
        [
            f"{s['start_s']:.1f} to {s['end_s']:.1f} s",
            s["tier"],
            ", ".join(s["tasks"]) or "none",
            "\n".join(_reason(r) for r in s["reasons"]),
        ]
        for s in explained.segments
    ]
    stdout.print(table(f"\n{explained.policy}", ["segment", "tier", "tasks", "reasons"], rows))
    stored = {
        "none": f"the catalog has no tiers for this episode: run {next_command('tier', root)}",
        "same": "the catalog has the same tiers",
        "differs": "the catalog has other tiers, from another policy or older measurements",
    }
    stdout.print(stored[explained.stored])
    if explained.reviews:
        columns = ["kind", "value", "author", "at", "timesteps", "state"]
        reviews = [
            [
                *(row[name] for name in ("kind", "value", "author", "at")),
                _span(row),
                "pending" if row["is_pending"] else "published",
            ]
            for row in explained.reviews
        ]
        stdout.print(table("\nreviews", columns, reviews))
    _show_measured(explained.measurements)


def _show_measured(measurements: Sequence[Mapping[str, Any]]) -> None:
    """Measurements as a table; those without a value by name, as they may be half of all."""
    numbers = [
        [m["name"], _plain(m["value"]), m["unit"], m["version"], _span(m)]
        for m in measurements
        if m["value"] is not None
    ]
    columns = ["measurement", "value", "unit", "version", "timesteps"]
    stdout.print(table("\nmeasurements", columns, numbers))
    unknown = sorted({m["name"] for m in measurements if m["value"] is None})
    if unknown:
        note = f"\nmeasured, no value: {', '.join(unknown)}"
        stdout.print(note, highlight=False, markup=False)


def _reason(reason: Mapping[str, Any]) -> str:
    value = "" if reason["value"] is None else f" (measured {reason['value']:.4g})"
    return f"{reason['code']}: {reason['text']}{value}"


def _span(row: Mapping[str, Any]) -> str:
    return "" if row["start"] is None else f"{row['start']} to {row['end']}"


def _plain(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
