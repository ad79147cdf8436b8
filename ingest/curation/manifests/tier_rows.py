"""Tiers as the manifest reads them: of the latest run of `eicorpus tier`, or of a policy that nothing has stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingest.catalog.catalog import Catalog
from ingest.catalog.next_command import next_command
from ingest.corpus import snapshot
from ingest.curation.tiers.last_run import is_up_to_date
from ingest.curation.tiers.policy import QualityPolicy, Tier
from ingest.curation.tiers.tier import judge
from schemas.errors import ConfigError
from schemas.manifest import PolicyFacts

TIER_ROWS = pa.schema(
    [
        ("uid", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("tier", pa.string()),
        ("tasks", pa.list_(pa.string())),
        ("reasons", pa.list_(pa.string())),  # codes; `eicorpus explain` has the numbers
    ]
)
_STORED = """SELECT uid, "start", "end", tier, tasks, list_transform(reasons, lambda r: r.code) AS reasons
    FROM tiers WHERE $with_excluded OR tier <> 'excluded'"""
_LATEST = "SELECT policy, version, policy_digest, text FROM policies ORDER BY snapshot DESC LIMIT 1"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tiered:
    """Segments in TIER_ROWS, and the policy that says so."""

    policy: PolicyFacts
    rows: pa.Table


def tier_rows(
    catalog: Catalog, policy: tuple[QualityPolicy, str] | None, *, with_excluded: bool = False
) -> Tiered:
    """The segments of a snapshot that may teach something, or all.

    Args:
        policy: a policy and its text; None for the one that `eicorpus tier` applied last.

    Raises:
        ConfigError: none was asked for, and none was ever applied.
    """
    if policy is not None:
        parsed, text = policy
        facts = PolicyFacts(name=parsed.title, digest=parsed.digest, text=text)
        current = snapshot.load(catalog.corpus, catalog.snapshot)
        if is_up_to_date(catalog.corpus, current, parsed):
            return Tiered(policy=facts, rows=_stored(catalog, with_excluded=with_excluded))
        rows = _judged(catalog, current, parsed, with_excluded=with_excluded)
        return Tiered(policy=facts, rows=rows)
    latest = catalog.arrow(_LATEST).to_pylist()
    if not latest:
        raise ConfigError(
            "no quality policy was applied to this corpus",
            remedy=f"run {next_command('tier', catalog.corpus)}, or pass one with --policy",
            where=str(catalog.corpus),
        )
    row = latest[0]
    name = f"{row['policy']} v{row['version']}"
    facts = PolicyFacts(name=name, digest=row["policy_digest"], text=row["text"])
    return Tiered(policy=facts, rows=_stored(catalog, with_excluded=with_excluded))


def _stored(catalog: Catalog, *, with_excluded: bool) -> pa.Table:
    return catalog.arrow(_STORED, {"with_excluded": with_excluded}).cast(TIER_ROWS)


def _judged(
    catalog: Catalog, current: snapshot.Snapshot, policy: QualityPolicy, *, with_excluded: bool
) -> pa.Table:
    """What the policy gives now; nothing is written."""
    judged = judge(catalog.corpus, current, policy)
    uids = judged.episodes["uid"]
    pieces = [TIER_ROWS.empty_table()]
    for piece in judged.decisions():
        is_in = pc.or_(pc.not_equal(piece["tier"], Tier.EXCLUDED.value), with_excluded)
        kept = piece.filter(is_in)
        columns = {
            "uid": uids.gather(kept["row"].to_numpy()).to_arrow(),
            **{name: kept[name] for name in ("start", "end", "tier", "tasks")},
            "reasons": _codes(kept["reasons"].combine_chunks()),
        }
        pieces.append(pa.table([columns[n] for n in TIER_ROWS.names], names=TIER_ROWS.names))
    return pa.concat_tables([piece.cast(TIER_ROWS) for piece in pieces])


def _codes(reasons: pa.Array) -> pa.Array:
    """Lists of reasons as lists of their codes."""
    lengths = pc.fill_null(pc.list_value_length(reasons), 0).to_numpy().astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    codes = pc.struct_field(reasons.flatten(), ["code"]).cast(pa.string())
    return pa.ListArray.from_arrays(pa.array(offsets), codes)
