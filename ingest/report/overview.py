"""What there is in all, and how episodes and hours became fewer on the way to a policy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ingest.catalog import Catalog
from ingest.curation.policy.policy import Policy
from ingest.report import questions
from ingest.report.markup import Markup, listed, number, section, table, tag
from ingest.report.questions import rows
from ingest.report.svg import bars

LEFT: dict[str, tuple[str, ...]] = {  # what is left without which tiers
    "committed": (),
    "may teach anything": ("excluded",),
    "have actions": ("excluded", "actionless"),
    "may teach a policy": ("excluded", "actionless", "low"),
}
ENDS = ("committed", "filtered", "quarantined", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the page is made from. `made_at` is said, and not read from a clock here."""

    corpus: Path
    corpus_uid: str
    policy: Policy
    made_at: str


def head(catalog: Catalog, asked: Asked) -> Markup:
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
        "episodes": total["episodes"],
        "hours": total["hours"] or 0.0,
        "timesteps": int(total["timesteps"] or 0),
        "data sets": total["sets"],
        "copies that another episode makes redundant": copies,
        "forgotten": forgotten,
    }
    return Markup(tag("h1", "What is in this corpus") + listed(facts))


def funnel(catalog: Catalog) -> Markup:
    """Episodes by how they ended, and hours that are left without each tier."""
    ends = rows(catalog, questions.FUNNEL)[0]
    counts = [(name, ends[name]) for name in ("discovered", *ENDS)]
    drawn = bars([(n, float(c), f"{c:,}") for n, c in counts], "episodes by how they ended")
    inside = [
        tag("h3", "Episodes"),
        drawn,
        table("funnel", ["end", "episodes"], counts, note=_sum(ends)),
        tag("h3", "Hours"),
        *_hours_left(catalog),
    ]
    return section("funnel", "From discovered to tiers", *inside)


def _sum(ends: questions.Row) -> str:
    """The account, and what is wrong with it when it does not hold."""
    parts = " + ".join(f"{ends[name]:,} {name}" for name in ENDS)
    said = f"{ends['discovered']:,} discovered = {parts}."
    if sum(ends[name] for name in ENDS) != ends["discovered"]:
        said = f"THIS DOES NOT ADD UP: {said} Run eicorpus verify."
    if ends["committed"] != ends["episodes"]:
        said += f" THE CATALOG HAS {ends['episodes']:,} EPISODES. Run eicorpus verify."
    return said


def _hours_left(catalog: Catalog) -> list[Markup]:
    tiers = {row["name"]: row["hours"] or 0.0 for row in rows(catalog, questions.TIERS)}
    if not any(name != "none" for name in tiers):
        return [tag("p", "No tier policy was applied yet: eicorpus tier", class_="none")]
    steps = [
        (name, sum(h for tier, h in sorted(tiers.items()) if tier not in without))
        for name, without in LEFT.items()
    ]
    drawn = bars([(n, h, f"{number(h)} h") for n, h in steps], "hours that are left")
    return [drawn, table("hours_left", ["what", "hours"], steps)]
