"""`eicorpus tier CORPUS`: apply a quality policy to every segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ingest.corpus.layout import open_corpus
from ingest.curation.tiers.count import Count, cap_counts, judged_counts, rule_counts
from ingest.curation.tiers.policy import BUILT_IN, QualityPolicy, load_policy
from ingest.curation.tiers.policy_sql import TIERS
from jobs.stages.tier import TierResult, run_tier
from jobs.ui.options import AsJson, CorpusArgument, DryRun
from jobs.ui.output import answer_json, stdout, table

LACKS_SHOWN = 3


def command(
    corpus: CorpusArgument,
    policy: Annotated[
        str, typer.Option("--policy", help="Quality policy: a name or a YAML file.")
    ] = BUILT_IN,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Assign a tier to every segment: high, low, actionless or excluded. Uses stored measurements; run `measure` first."""
    chosen, text = load_policy(policy)
    done = run_tier(open_corpus(corpus), chosen, text, dry_run=dry_run)
    _print_result(_answer(done), chosen, as_json=as_json)


def _answer(done: TierResult) -> dict[str, Any]:
    judged, before = done.judged, done.before
    after = judged_counts(judged)
    nothing = Count()
    order = ["none", *(tier.value for tier in TIERS)]
    keys = sorted(before.keys() | after.keys(), key=lambda k: (k[0], order.index(k[1])))
    return {
        "policy": judged.policy.policy,
        "version": judged.policy.version,
        "policy_digest": judged.policy.digest,
        "snapshot": done.snapshot,
        "episodes": len(judged.episodes),
        "segments": len(judged.segments),
        "tiers": [
            {
                "source": source,
                "tier": tier,
                "before": asdict(before.get((source, tier), nothing)),
                "after": asdict(after.get((source, tier), nothing)),
            }
            for source, tier in keys
        ],
        "rules": [asdict(rule) for rule in rule_counts(judged)],
        "capped": [asdict(cap) for cap in cap_counts(judged)],
        "reviewed": int(judged.is_reviewed.sum()),
        "up_to_date": done.up_to_date,
        "elapsed_s": round(done.elapsed_s, 3),
        "committed": done.committed,
    }


def _print_result(answer: Mapping[str, Any], policy: QualityPolicy, *, as_json: bool) -> None:
    if as_json:
        answer_json(answer)
        return
    parts = ("episodes", "segments", "hours")
    rows = [
        [row["source"], row["tier"], *(row[when][p] for p in parts for when in ("before", "after"))]
        for row in answer["tiers"]
    ]
    columns = ["source", "tier", *(f"{p} {when}" for p in parts for when in ("before", "after"))]
    stdout.print(table(policy.title, columns, rows))
    decided = [
        [rule["code"], rule["tier"], rule["segments"], rule["hours"], _because(rule)]
        for rule in answer["rules"]
        if rule["segments"]
    ]
    stdout.print(
        table("\ndeciding rules", ["rule", "tier", "segments", "hours", "reason"], decided)
    )
    _print_capped(answer["capped"])
    if answer["reviewed"]:
        stdout.print(f"\nsegments whose tier a reviewer gave: {answer['reviewed']:,}")
    if silent := [rule["code"] for rule in answer["rules"] if not rule["segments"]]:
        stdout.print(f"rules that matched no segment: {', '.join(silent)}", highlight=False)
    if answer["committed"]:
        end = f"committed as snapshot {answer['snapshot']}"
    elif answer["up_to_date"]:
        end = f"up to date: snapshot {answer['snapshot']} already has the tiers of this policy"
    else:
        end = "dry run: nothing was changed"
    stdout.print(f"\n{end}", highlight=False)


def _because(rule: Mapping[str, Any]) -> str:
    """The rule's text, and the first missing measurements with the number of segments that lack them."""
    lacks = [f"{name} ({count:,})" for name, count in list(rule["lacks"].items())[:LACKS_SHOWN]]
    more = ", ..." if len(rule["lacks"]) > LACKS_SHOWN else ""
    unmeasured = f"; missing measurements: {', '.join(lacks)}{more}" if lacks else ""
    return f"{rule['text']}{unmeasured}"


def _print_capped(capped: Sequence[Mapping[str, Any]]) -> None:
    if not capped:
        return
    rows = [
        [c["tier"], c["segments"], c["hours"], c["text"], f"{c['rule']} ({c['rule_tier']})"]
        for c in capped
    ]
    columns = ["tier", "segments", "hours", "reason", "tier by rule"]
    stdout.print(
        table("\nlowered because of facts about the episode (see eicorpus explain)", columns, rows)
    )
