"""`eicorpus tier CORPUS`: apply a quality policy to every segment."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ingest.catalog.catalog import Catalog
from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout, open_corpus
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.writer import writing
from ingest.curation.tiers.count import (
    Count,
    Counts,
    cap_counts,
    judged_counts,
    rule_counts,
    stored_counts,
)
from ingest.curation.tiers.policy import BUILT_IN, QualityPolicy, load_policy
from ingest.curation.tiers.policy_sql import TIERS
from ingest.curation.tiers.tier import Judged, commit, is_up_to_date, judge
from ingest.storage.local import LocalStorage
from jobs.run_context import new_run_id
from jobs.ui.options import AsJson, CorpusArgument, DryRun
from jobs.ui.output import answer_json, progress_of, stdout, table

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
    opened = open_corpus(corpus)
    started = time.monotonic()
    if dry_run:
        current = snapshot.load(opened.root)
        judged, before = _judged(opened, current, chosen)
        answer = _answer(judged, before, current, started) | {"committed": False}
    else:
        disk = LocalStorage(opened.root)
        with writing(opened, disk):
            answer = _committed(opened, chosen, text, started, disk)
    _print_result(answer, chosen, as_json=as_json)


def _judged(
    corpus: CorpusLayout, current: Snapshot, policy: QualityPolicy
) -> tuple[Judged, Counts]:
    with progress_of("tier"):
        judged = judge(corpus.root, current, policy)
    with Catalog.open(corpus.root, snapshot=current.number or None) as catalog:
        return judged, stored_counts(catalog)


def _committed(
    corpus: CorpusLayout, policy: QualityPolicy, text: str, started: float, disk: LocalStorage
) -> dict[str, Any]:
    current = snapshot.load(corpus.root)
    judged, before = _judged(corpus, current, policy)
    if is_up_to_date(corpus.root, current, policy):
        return _answer(judged, before, current, started) | {"committed": False, "up_to_date": True}
    run_id = new_run_id()
    current = commit(corpus, current, judged, text, run_id=run_id, disk=disk)
    return _answer(judged, before, current, started) | {"committed": True}


def _answer(judged: Judged, before: Counts, current: Snapshot, started: float) -> dict[str, Any]:
    after = judged_counts(judged)
    nothing = Count()
    order = ["none", *(tier.value for tier in TIERS)]
    keys = sorted(before.keys() | after.keys(), key=lambda k: (k[0], order.index(k[1])))
    return {
        "policy": judged.policy.policy,
        "version": judged.policy.version,
        "policy_digest": judged.policy.digest,
        "snapshot": current.number,
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
        "up_to_date": False,
        "elapsed_s": round(time.monotonic() - started, 3),
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
