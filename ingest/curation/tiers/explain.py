"""Why an episode has the tiers it has: its facts, its numbers, and for every segment which rules hold and which decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isclose
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from ingest.catalog.episode_lookup import LIST
from ingest.catalog.next_command import next_command
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.reviews import read
from ingest.corpus.snapshot import Snapshot, rows_of_episode
from ingest.corpus.tombstones import FORGOTTEN, tombstones
from ingest.curation.measurements.runner import latest
from ingest.curation.tiers.policy import QualityPolicy, load_policy, policy_from
from ingest.curation.tiers.policy_fields import EPISODE_FACTS
from ingest.curation.tiers.policy_loader import parse_policy_text
from ingest.curation.tiers.policy_sql import REVIEW_CODE, TIERS
from ingest.curation.tiers.tier import Judged, judge
from schemas.catalog_rows import as_dict
from schemas.errors import ConfigError

DECIDED = ("segment_index", "start", "end", "tier", "tasks")
SHOWN = ("source", "dataset", "episode_id", "embodiment", "dataset_path", "episode_index", "length")


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """Everything that is known about the tiers of one uid."""

    uid: str
    state: str  # of its latest verdict
    code: str
    message: str
    facts: Mapping[str, Any]  # of the episode; empty when it was never committed
    policy: str
    segments: tuple[Mapping[str, Any], ...]
    measurements: tuple[Mapping[str, Any], ...]
    stored: str  # none | same | differs: the decisions in the catalog against these
    reviews: tuple[Mapping[str, Any], ...]  # rows of the table, and `is_pending`


def explain(corpus: Path, current: Snapshot, uid: str, policy: QualityPolicy) -> Explained:
    """Of one uid, under a policy.

    Raises:
        ConfigError: the corpus knows no such uid.
    """
    rows_of = partial(rows_of_episode, current, corpus, uid=uid)
    verdicts = rows_of("verdicts").to_pylist()
    rows = rows_of("episodes").to_pylist()
    if not verdicts and not rows:
        return _forgotten(corpus, current, uid, policy)
    order = ("snapshot", "attempts", "run_id")
    verdict = max(verdicts, key=lambda v: [v[k] for k in order]) if verdicts else {}
    judged = judge(corpus, current, policy, uid=uid) if rows else None
    segments = tuple(_segments(judged)) if judged is not None else ()
    return Explained(
        uid=uid,
        state=verdict.get("state", "committed"),
        code=verdict.get("code", ""),
        message=verdict.get("message", ""),
        facts=_facts(rows[0]) if rows else {},
        policy=policy.title,
        segments=segments,
        measurements=tuple(_measurements(rows_of("measurements"))),
        stored=_stored(rows_of("tiers").to_pylist(), segments, policy),
        reviews=tuple(_reviews(corpus, current, uid)),
    )


def _forgotten(corpus: Path, current: Snapshot, uid: str, policy: QualityPolicy) -> Explained:
    """What a tombstone still says of an episode."""
    buried = [row for row in tombstones(corpus, current) if row.uid == uid]
    if not buried:
        hint = f"list some with: {next_command(LIST, corpus)}"
        raise ConfigError(f"no episode has the uid {uid!r}", remedy=hint)
    last = max(buried, key=lambda row: row.erased_at)
    why = f", because: {last.reason}" if last.reason else ""
    return Explained(
        uid=uid,
        state=FORGOTTEN,
        code="",
        message=f"erased on {last.erased_at:%Y-%m-%d}{why}",
        facts={},
        policy=policy.title,
        segments=(),
        measurements=(),
        stored="none",
        reviews=(),
    )


def policy_in_force(corpus: Path, current: Snapshot, built_in: str) -> QualityPolicy:
    """The policy of the latest run, from its text in the catalog; the built-in one before any ran."""
    runs = current.read(corpus, "policies").to_pylist()
    if not runs:
        return load_policy(built_in)[0]
    run = max(runs, key=lambda r: r["snapshot"])
    return policy_from(parse_policy_text(run["text"], f"policy of snapshot {run['snapshot']}"))


def _facts(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in (*SHOWN, *EPISODE_FACTS, "supervision_limits")}


def _segments(judged: Judged) -> list[dict[str, Any]]:
    rate_hz = float(judged.rate_hz[0])
    holds = judged.rules_hold().to_pylist()
    rules = [*judged.policy.rules, judged.policy.otherwise]
    out = []
    rows = [row for piece in judged.decisions() for row in piece.to_pylist()]
    for index, (row, hold, is_reviewed) in enumerate(
        zip(rows, holds, judged.is_reviewed, strict=True)
    ):
        out.append(
            {
                "segment_index": index,
                **{name: row[name] for name in ("start", "end", "tier", "tasks", "reasons")},
                "start_s": row["start"] / rate_hz,
                "end_s": row["end"] / rate_hz,
                "decided_by": REVIEW_CODE if is_reviewed else rules[hold["rule"]].code,
                "at_best": TIERS[hold["cap"]].value,
                "rules": [
                    {"code": rule.code, "tier": rule.tier.value, "holds": hold[f"rule_{i}"]}
                    for i, rule in enumerate(judged.policy.rules)
                ],
            }
        )
    return out


def _measurements(table: pa.Table) -> list[dict[str, Any]]:
    """The newest rows, by name and time."""
    frame = latest(pl.DataFrame(table)).sort("name", "start", "end")
    return frame.drop("uid").to_dicts()


def _reviews(corpus: Path, current: Snapshot, uid: str) -> Iterator[dict[str, Any]]:
    """Pending ones change no tier yet."""
    for each in read(CorpusLayout(corpus), current, uid):
        row = as_dict(each.review)
        yield {**row, "at": each.review.at.isoformat(), "is_pending": each.is_pending}


def _stored(
    rows: Sequence[Mapping[str, Any]],
    segments: tuple[Mapping[str, Any], ...],
    policy: QualityPolicy,
) -> str:
    newest = max((row["snapshot"] for row in rows), default=None)
    have = [row for row in rows if row["snapshot"] == newest]
    if not have:
        return "none"
    have.sort(key=lambda row: row["segment_index"])
    is_same = len(have) == len(segments) and all(
        row["policy_digest"] == policy.digest and _is_same(row, now)
        for row, now in zip(have, segments, strict=True)
    )
    return "same" if is_same else "differs"


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two decisions about a segment agree, reasons and their numbers included."""
    own, others = one["reasons"], other["reasons"]
    return (
        all(one[name] == other[name] for name in DECIDED)
        and len(own) == len(others)
        and all(_is_same_reason(a, b) for a, b in zip(own, others, strict=True))
    )


def _is_same_reason(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one[name] == other[name] for name in ("code", "text")) and all(
        _is_same_number(one[name], other[name]) for name in ("value", "threshold")
    )


def _is_same_number(one: float | None, other: float | None) -> bool:
    """One among the others of a task may differ in its last bits: for one episode it is summed in another order."""
    if one is None or other is None:
        return one is other
    return isclose(one, other, rel_tol=1e-9)
