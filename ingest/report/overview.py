"""What there is in all, and how episodes and hours became fewer on the way to a policy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ingest.catalog.catalog import Catalog
from ingest.curation.tiers.policy import QualityPolicy
from ingest.report import queries
from ingest.report.html import Markup, bar, listed, number, section, shown, table, tag
from ingest.report.queries import rows

LEFT: dict[str, tuple[str, ...]] = {  # what is left without which tiers
    "committed": (),
    "usable for any task": ("excluded",),
    "have actions": ("excluded", "actionless"),
    "usable for the policy task": ("excluded", "actionless", "low"),
}
ENDS = ("committed", "filtered", "quarantined", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequest:
    """What the page is made from. `made_at` is said, and not read from a clock here."""

    corpus: Path
    corpus_uid: str
    policy: QualityPolicy
    made_at: str


def head(catalog: Catalog, asked: ReportRequest) -> Markup:
    total = rows(
        catalog,
        "SELECT count(*) AS episodes, sum(hours) AS hours, sum(length) AS timesteps, count(DISTINCT dataset_path) AS sets FROM episodes",
    )[0]
    forgotten = rows(catalog, "SELECT count(*) AS n FROM tombstones")[0]["n"]
    copies = rows(catalog, "SELECT count(*) AS n FROM redundant")[0]["n"]
    facts = {
        "corpus": asked.corpus_uid or "(no name)",
        "snapshot": catalog.snapshot,
        "made": asked.made_at,
        "policy": f"{asked.policy.title} ({asked.policy.digest})",
        "timesteps": int(total["timesteps"] or 0),
        "redundant duplicates of another episode": copies,
        "forgotten": forgotten,
    }
    headline = _headline(catalog, total["episodes"], total["hours"] or 0.0, total["sets"])
    return Markup(tag("h1", "What is in this corpus") + headline + listed(facts))


def _headline(catalog: Catalog, episodes: int, hours: float, sets: int) -> Markup:
    """The figures that a reader looks for first."""
    tiers = {row["name"]: row["hours"] or 0.0 for row in rows(catalog, queries.TIERS)}
    aside = rows(catalog, queries.FUNNEL)[0]
    lost = aside["quarantined"] + aside["failed"]
    figures = [(shown(episodes), "episodes"), (number(hours), "hours"), (shown(sets), "data sets")]
    if hours and tiers.keys() != {"none"}:
        figures.append(
            (f"{tiers.get('high', 0.0) / hours:.0%}", "of the hours are usable for the policy task")
        )
    figures.append((shown(lost), "episodes quarantined or failed"))
    return tag(
        "p",
        *(tag("span", tag("b", value), f" {name}") for value, name in figures),
        class_="headline",
    )


def funnel(catalog: Catalog) -> Markup:
    """Episodes by how they ended, and hours that are left without each tier."""
    ends = rows(catalog, queries.FUNNEL)[0]
    names = ("discovered", *ENDS)
    most = max(ends[name] for name in names)
    counts = [(name, ends[name], bar(ends[name], most)) for name in names]
    inside = [
        tag("h3", "Episodes"),
        table("funnel", ["end", "episodes", ""], counts, note=_sum(ends)),
        tag("h3", "Hours"),
        *_hours_left(catalog),
    ]
    return section("funnel", "From discovered to tiers", *inside)


def _sum(ends: queries.Row) -> str:
    """The account, and what is wrong with it when it does not hold."""
    parts = " + ".join(f"{ends[name]:,} {name}" for name in ENDS)
    text = f"{ends['discovered']:,} discovered = {parts}."
    if sum(ends[name] for name in ENDS) != ends["discovered"]:
        text = f"THE COUNTS ARE INCONSISTENT: {text} Run `eicorpus verify`."
    if ends["committed"] != ends["episodes"]:
        text += f" THE CATALOG HAS {ends['episodes']:,} EPISODES. Run `eicorpus verify`."
    return text


def _hours_left(catalog: Catalog) -> list[Markup]:
    tiers = {row["name"]: row["hours"] or 0.0 for row in rows(catalog, queries.TIERS)}
    if not any(name != "none" for name in tiers):
        return [tag("p", "No tiers yet. Run `eicorpus tier`.", class_="none")]
    steps = [
        (name, sum(h for tier, h in sorted(tiers.items()) if tier not in without))
        for name, without in LEFT.items()
    ]
    most = max(h for _, h in steps)
    cells = [(name, h, bar(h, most)) for name, h in steps]
    return [table("hours_left", ["what", "hours", ""], cells)]
