"""The work of `eicorpus report`: the content of a corpus in one self-contained HTML file."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ingest.catalog.catalog import Catalog
from ingest.catalog.query_process import QueryLimits
from ingest.corpus import snapshot
from ingest.corpus.layout import REPORT, CorpusLayout, uid_of
from ingest.corpus.writer import writing
from ingest.curation.tiers.explain import policy_in_force
from ingest.curation.tiers.policy import BUILT_IN, load_policy
from ingest.report.overview import ReportRequest
from ingest.report.page import report
from ingest.storage.local import LocalStorage
from jobs.ui.output import outside
from jobs.ui.output_file import write_file
from schemas.errors import ConfigError, system_error_text

LIMITS = QueryLimits(timeout_s=600.0, memory_mb=8192)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportResult:
    """The file, and the snapshot that it shows."""

    html: Path
    num_bytes: int
    snapshot: int


def run_report(
    corpus: CorpusLayout,
    html: Path | None = None,
    *,
    policy: str | None = None,
    with_snapshot: int | None = None,
) -> ReportResult:
    """Write the page.

    Args:
        html: where; None: `report.html` in the corpus.

    Raises:
        ConfigError: no such policy or snapshot, or the file is inside the corpus or cannot be written.
    """
    with ExitStack() as stack:
        if html is None:
            # `forget` deletes this file: nothing may be erased between reading the snapshot and writing it.
            disk = LocalStorage(corpus.root)
            stack.enter_context(writing(corpus, disk))
            path = corpus.root / REPORT
            data, number = _page(corpus, policy, with_snapshot)
            disk.put(REPORT, data)
        else:
            path = html
            outside(corpus.root, html, "--html")
            data, number = _page(corpus, policy, with_snapshot)
            _write(html, data)
    return ReportResult(html=path, num_bytes=len(data), snapshot=number)


def _page(corpus: CorpusLayout, policy: str | None, with_snapshot: int | None) -> tuple[bytes, int]:
    """The page, and the number of its snapshot."""
    current = snapshot.load(corpus.root, with_snapshot)
    chosen = load_policy(policy)[0] if policy else policy_in_force(corpus.root, current, BUILT_IN)
    asked = ReportRequest(
        corpus=corpus.root,
        corpus_uid=uid_of(corpus),
        policy=chosen,
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    with Catalog.open(corpus.root, snapshot=with_snapshot, limits=LIMITS) as catalog:
        return report(catalog, asked).encode(), current.number


def _write(path: Path, data: bytes) -> None:
    """Readers see the old page or the new one. Links are followed, and /dev/stdout stays what it is."""
    where = f"--html {path}"
    if path.is_file() or not path.exists():
        write_file(path.resolve(), data, where, overwrite=True)
        return
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {system_error_text(error, str(path))}",
            remedy="choose another file",
            where=where,
        ) from error
