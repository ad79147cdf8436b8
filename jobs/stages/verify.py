"""The work of `eicorpus verify`: every file of a corpus against its latest snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ingest.corpus import snapshot
from ingest.corpus.publishing import working_copy
from ingest.corpus.writer import complete_meta
from ingest.verify.corpus import VerifyProgress, verify
from ingest.verify.finding import Finding
from jobs.ui.output import stderr
from jobs.ui.progress import ProgressLine


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyResult:
    """What was looked at, and what is wrong with it."""

    seen: VerifyProgress
    findings: list[Finding]


def run_verify(corpus: Path, threads: int, *, deep: bool = False) -> VerifyResult:
    """Check; of a working copy, what the bucket has. Shows progress on standard error."""
    seen, bucket = VerifyProgress(), working_copy(corpus)
    if bucket is not None and bucket.link.is_pull:
        bucket = None
    if bucket is not None:
        complete_meta(bucket, snapshot.load(corpus))
    with ProgressLine(stderr, "verify") as line:

        def look(now: VerifyProgress) -> None:
            nonlocal seen
            seen = now
            line.update(now.episodes, total=now.total)

        findings = verify(corpus, progress=look, workers=threads, deep=deep, bucket=bucket)
    return VerifyResult(seen=seen, findings=findings)


def failure_of(findings: list[Finding]) -> str:
    """Why a run exits with 1; "" if it does not."""
    count = len(findings)
    return f"{count:,} findings: the corpus differs from its snapshot" if count else ""
