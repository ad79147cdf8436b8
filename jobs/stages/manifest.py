"""The work of `eicorpus manifest build`: select segments, assign splits and weights, publish."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.catalog.catalog import Catalog
from ingest.catalog.query_process import QueryLimits
from ingest.catalog.sql_guard import check_brackets
from ingest.catalog.views import literal
from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout, uid_of
from ingest.corpus.manifest_folders import (
    existing,
    make_newest,
    manifest_folder,
    publish,
    publish_version,
    refuse_unversioned,
    version_of,
)
from ingest.corpus.publishing import working_copy
from ingest.corpus.shared_manifests import share_manifest
from ingest.curation.duplicates.leakage import LeakageReport, leakage_report
from ingest.curation.manifests.action_stats import Selection, num_missing, selection, statistics
from ingest.curation.manifests.building import building
from ingest.curation.manifests.manifest import Built, ManifestRequest, build
from ingest.executors.inline import Executor
from ingest.storage.local import LocalStorage
from jobs.stages.resources import Resources, limits_from
from jobs.ui.output import progress_of
from schemas.errors import ConfigError, SourceError
from schemas.manifest import ManifestFacts, has_latents, load_facts
from schemas.regular_file import read_regular

LIMITS = QueryLimits(timeout_s=3600.0, memory_mb=4096)
MAX_UIDS_BYTES = 8 << 20
FEW_SEGMENTS = 500  # at 3 ms each: processes would take longer to start


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestResult:
    """What was built. `folder` None: nothing was published; `is_new`: it was not there before."""

    facts: ManifestFacts
    folder: Path | None
    is_new: bool
    has_latents: bool
    shared: LeakageReport
    elapsed_s: float


def run_manifest(
    corpus: CorpusLayout,
    request: ManifestRequest,
    resources: Resources,
    *,
    with_snapshot: int | None = None,
    with_statistics: bool = True,
    dry_run: bool = False,
    is_versioned: bool = False,
) -> ManifestResult:
    """Build, and publish unless it is a dry run. Shows progress on standard error.

    Args:
        is_versioned: publish a version of the name, as corpus specs do, and make it the newest.

    Raises:
        ConfigError: an invalid name, no segment is left, or the name belongs to another manifest.
    """
    manifest_folder(corpus.root, request.name)  # an invalid name is refused before any work
    started_s = time.monotonic()
    with Catalog.open(corpus.root, snapshot=with_snapshot, limits=LIMITS) as catalog:
        built = build(catalog, request, uid_of(corpus))
        shared = leakage_report(catalog, built.rows)

    def executor_of(num_segments: int) -> Executor:
        few = num_segments < FEW_SEGMENTS and not resources.is_on_ray
        return resources.executor(limits_from(), usual_workers=0 if few else None)

    on = executor_of if with_statistics else None
    facts, folder, is_new = built.facts, None, False
    if not dry_run:
        publishing = _version if is_versioned else _once
        facts, folder, is_new = publishing(corpus, built, on)
    return ManifestResult(
        facts=facts,
        folder=folder,
        is_new=is_new,
        has_latents=has_latents(built.rows),
        shared=shared,
        elapsed_s=time.monotonic() - started_s,
    )


def read_uids(path: Path) -> list[str]:
    """The lines of a file, or of standard input for `-`.

    Raises:
        ConfigError: it cannot be read, is too large, or names nothing.
    """
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(MAX_UIDS_BYTES + 1)
        else:
            data = read_regular(path, max_bytes=MAX_UIDS_BYTES)
        text = data.decode()
    except (OSError, SourceError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=f"--uids {path}") from error
    uids = sorted({line.strip() for line in text.splitlines()} - {""})
    if not uids or len(data) > MAX_UIDS_BYTES:
        raise ConfigError(
            f"expected 1 to {MAX_UIDS_BYTES} bytes of uids, one on each line",
            where=f"--uids {path}",
        )
    return uids


def where_of(corpus: CorpusLayout, uids: Sequence[str], where: str, number: int) -> str:
    """A condition that selects episodes by uid, beside another condition.

    Raises:
        ConfigError: a snapshot lacks one of them, or brackets of `where` do not match.
    """
    current = snapshot.load(corpus.root, number)
    known = set(current.read(corpus.root, "episodes", ["uid"])["uid"].to_pylist())
    if unknown := [uid for uid in uids if uid not in known]:
        problem = f"snapshot {current.number} lacks {len(unknown)} of {len(uids)} episodes, the first of them {unknown[0]!r}"
        raise ConfigError(problem, where="--uids")
    chosen = f"uid IN ({', '.join(map(literal, uids))})"
    if not where.strip():
        return chosen
    check_brackets(where)  # `a) OR (b` would end ours, and a comment needs its line break
    return f"(\n{where}\n) AND {chosen}"


_Published = tuple[ManifestFacts, Path, bool]
_ExecutorFor = Callable[[int], Executor]


def _once(corpus: CorpusLayout, built: Built, on: _ExecutorFor | None) -> _Published:
    """A manifest whose name is taken from then on."""
    folder = manifest_folder(corpus.root, built.facts.name)
    published = existing(corpus.root, built.facts)
    if published is not None:
        if on is not None and published.statistics is None:
            problem = (
                f"{built.facts.name} was published without statistics, and manifests are immutable"
            )
            raise ConfigError(problem, remedy="choose another name, or add --no-stats")
        _share(corpus, published, folder)  # a run that was stopped may not have
        return published, folder, False
    disk = LocalStorage(corpus.root)
    with building(corpus.root, disk):
        facts = _with_statistics(corpus, built, on, disk)
        publish(corpus.root, facts, built.rows, disk)
    _share(corpus, facts, folder)
    return facts, folder, True


def _version(corpus: CorpusLayout, built: Built, on: _ExecutorFor | None) -> _Published:
    """A version of a name; one that is there is made the newest."""
    name = built.facts.name
    refuse_unversioned(corpus.root, name)
    version = version_of(built.facts, has_statistics=on is not None)
    folder = manifest_folder(corpus.root, f"{name}/{version}")
    disk = LocalStorage(corpus.root)
    with building(corpus.root, disk):
        if folder.exists():
            make_newest(corpus.root, name, version, disk)
            facts = load_facts(folder)
            _share(corpus, facts, folder)
            return facts, folder, False
        facts = _with_statistics(corpus, built, on, disk)
        publish_version(corpus.root, facts, built.rows, disk)
    _share(corpus, facts, folder)
    return facts, folder, True


def _share(corpus: CorpusLayout, facts: ManifestFacts, folder: Path) -> None:
    """Into the bucket, where the corpus is in one."""
    copy = working_copy(corpus.root)
    if copy is not None:
        share_manifest(copy, folder, facts.snapshot)


def _with_statistics(
    corpus: CorpusLayout, built: Built, on: _ExecutorFor | None, disk: LocalStorage
) -> ManifestFacts:
    if on is None:
        return built.facts
    current = snapshot.load(corpus.root, built.facts.snapshot)
    chosen = selection(corpus.root, current, built.rows)
    return built.facts.model_copy(update={"statistics": _statistics(chosen, on, disk)})


def _statistics(chosen: Selection, on: _ExecutorFor, disk: LocalStorage) -> Any:
    count = num_missing(chosen)
    with progress_of("statistics", count) as advance:
        return statistics(chosen, on(count), disk, progress=advance)
