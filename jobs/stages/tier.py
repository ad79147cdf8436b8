"""The work of `eicorpus tier`: apply a quality policy to every segment."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ingest.catalog.catalog import Catalog
from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.writer import writing
from ingest.curation.tiers.count import Counts, stored_counts
from ingest.curation.tiers.last_run import is_up_to_date
from ingest.curation.tiers.policy import QualityPolicy
from ingest.curation.tiers.tier import Judged, commit, judge
from ingest.storage.local import LocalStorage
from jobs.run_context import new_run_id
from jobs.ui.output import progress_of


@dataclass(frozen=True, slots=True, kw_only=True)
class TierResult:
    """The decisions, and the counts that the corpus had before."""

    judged: Judged
    before: Counts
    snapshot: int
    committed: bool
    up_to_date: bool
    elapsed_s: float


def run_tier(
    corpus: CorpusLayout, policy: QualityPolicy, text: str, *, dry_run: bool = False
) -> TierResult:
    """Decide, and commit unless the corpus has these very decisions.

    Args:
        text: of the policy, stored with the decisions.
    """
    started_s = time.monotonic()
    if dry_run:
        return _decided(corpus, policy, text, started_s, None)
    disk = LocalStorage(corpus.root)
    with writing(corpus, disk):
        return _decided(corpus, policy, text, started_s, disk)


def _decided(
    corpus: CorpusLayout,
    policy: QualityPolicy,
    text: str,
    started_s: float,
    disk: LocalStorage | None,
) -> TierResult:
    """Without a disk nothing is written."""
    current = snapshot.load(corpus.root)
    with progress_of("tier"):
        judged = judge(corpus.root, current, policy)
    with Catalog.open(corpus.root, snapshot=current.number or None) as catalog:
        before = stored_counts(catalog)
    up_to_date = disk is not None and is_up_to_date(corpus.root, current, policy)
    if disk is not None and not up_to_date:
        current = commit(corpus, current, judged, text, run_id=new_run_id(), disk=disk)
    return TierResult(
        judged=judged,
        before=before,
        snapshot=current.number,
        committed=disk is not None and not up_to_date,
        up_to_date=up_to_date,
        elapsed_s=time.monotonic() - started_s,
    )
