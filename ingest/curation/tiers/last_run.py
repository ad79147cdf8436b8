"""Whether the tiers of a corpus are those of a policy. It loads neither DuckDB nor Polars: a build that has nothing to do asks only this."""

from __future__ import annotations

from pathlib import Path

from ingest.corpus.snapshot import Snapshot, tables_sha256
from ingest.curation.tiers.policy import QualityPolicy

# The tables that `judge` of `tier.py` opens.
READS = ("episodes", "segments", "measurements", "signatures", "reviews")


def is_up_to_date(corpus: Path, current: Snapshot, policy: QualityPolicy) -> bool:
    """Whether the latest run was of this very policy, and nothing that it read has changed since. Its row says so: `gc` may have removed its snapshot."""
    columns = ["policy_digest", "reads_sha256", "snapshot"]
    runs = current.read(corpus, "policies", columns).to_pylist()
    latest = max(runs, key=lambda run: run["snapshot"], default=None)
    return latest is not None and (latest["policy_digest"], latest["reads_sha256"]) == (
        policy.digest,
        tables_sha256(current, READS),
    )
