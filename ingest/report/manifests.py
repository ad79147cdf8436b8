"""Manifests that were published from the corpus: what training runs may read, by which mixture."""

from __future__ import annotations

from pathlib import Path

from ingest.corpus.manifest_folders import manifest_names
from ingest.report.html import Markup, section, table, tag
from ingest.storage.local import within
from schemas.errors import ConfigError
from schemas.manifest import FOLDER, ManifestFacts, load_facts

MAX_MANIFESTS, MAX_GROUPS = 20, 25


def manifests(corpus: Path, snapshot: int) -> Markup:
    """Those of this snapshot and of older ones, the newest first; of each its mixture."""
    pages, damaged = _read(corpus)
    known = sorted(
        (facts for facts in pages if facts.snapshot <= snapshot),
        key=lambda facts: (-facts.snapshot, facts.name),
    )
    cells = [
        (
            facts.name,
            facts.snapshot,
            facts.num_episodes,
            facts.num_rows,
            facts.mixture.draw_hours,
            facts.policy.name,
            facts.rows_sha256[:16],
        )
        for facts in known
    ]
    columns = ["name", "snapshot", "episodes", "segments", "hours drawn", "policy", "digest"]
    notes = (
        [f"Damaged manifests (see `eicorpus manifest verify`): {', '.join(damaged)}."]
        if damaged
        else []
    )
    if len(known) > MAX_MANIFESTS:
        notes.append(f"The mixtures of the newest {MAX_MANIFESTS} are shown.")
    if not known:
        notes.append("No manifest yet. Build one with `eicorpus manifest build`.")
    whole = table("manifests", columns, cells, note=" ".join(notes))
    mixtures = [_mixture(facts) for facts in known[:MAX_MANIFESTS]]
    return section("manifests", "Manifests", whole, *mixtures)


def _read(corpus: Path) -> tuple[list[ManifestFacts], list[str]]:
    """(pages that can be read, names of the others)."""
    pages, damaged = [], []
    for name in manifest_names(corpus):
        try:
            pages.append(load_facts(within(corpus, f"{FOLDER}/{name}")))
        except ConfigError:
            damaged.append(name)  # said on the page
    return pages, damaged


def _mixture(facts: ManifestFacts) -> Markup:
    groups = facts.mixture.groups
    cells = [
        (", ".join(each.group.values()) or "all", each.hours, each.share, each.epochs, each.rule)
        for each in groups[:MAX_GROUPS]
    ]
    by = ", ".join(facts.mixture.by) or "group"
    note = f"{len(groups) - MAX_GROUPS} more groups." if len(groups) > MAX_GROUPS else ""
    columns = [by, "hours", "share of draws", "epochs", "stopped by"]
    return Markup(
        tag("h3", f"mixture of {facts.name}") + table("mixture", columns, cells, note=note)
    )
