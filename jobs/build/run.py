"""Builds the targets of a spec that are missing or stale, in order. Each stage runs through the function that its own command calls.

Everything that a stage commits stays whatever stops it, so the same build goes on after Ctrl-C, SIGKILL or a power cut. A target's
record is written after its result is in the corpus, never before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ingest.corpus.layout import CorpusLayout, open_or_create
from ingest.corpus.publishing import working_copy
from ingest.corpus.reviews import has_pending
from ingest.corpus.writer import UNFINISHED, complete, writing
from ingest.storage.local import LocalStorage
from ingest.storage.store_uri import OBJECT_SCHEMES, scheme_of
from jobs.build.records import Records, StageCounts, one_build
from jobs.build.sources import SourceStage
from jobs.build.spec_file import SpecFile
from jobs.build.stage import BuildContext, Stage
from jobs.build.targets import chosen, section_of
from jobs.run_context import new_corpus_uid
from jobs.stages.resources import Resources
from jobs.ui.options import BucketUse, cache_folder, uri_of
from jobs.ui.output import progress_of
from schemas.errors import ClusterLost, ConfigError, InvariantError, SourceError, TransientError

# Sections whose targets read data, videos or latents of episodes, and not only the catalog.
READS_FILES = {"measures", "captions", "latents", "text_features", "manifests", "exports"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetResult:
    """One line of the closing table. `outcome`: up to date | built | failed | not built."""

    target: str
    unit: str
    outcome: str
    counts: StageCounts
    note: str = ""
    failure: str = ""
    is_partial: bool = False
    elapsed_s: float = 0.0


@dataclass(kw_only=True)
class BuildResult:
    """Every target that was asked for, once."""

    targets: list[TargetResult] = field(default_factory=list)
    snapshot: int = 0
    elapsed_s: float = 0.0

    @property
    def failure(self) -> str:
        failed = [each.target for each in self.targets if each.outcome == "failed"]
        return f"failed: {', '.join(failed)}; run the same command again" if failed else ""

    @property
    def adds_up(self) -> bool:
        return all(each.counts.adds_up for each in self.targets)


def build(
    file: SpecFile,
    stages: Mapping[str, Stage],
    resources: Resources,
    words: Sequence[str] = (),
    *,
    check: bool = False,
    on_start: Callable[[str, str], None] = lambda target, why: None,
) -> BuildResult:
    """Build what the words name, with what comes before it; everything without any.

    Args:
        check: compare contents of raw files and manifests, not only sizes and times.
        on_start: called with a target and why it is built.

    Raises:
        ConfigError: the spec cannot be built, before any work; or another build or command is writing to the corpus.
    """
    started_s = time.monotonic()
    targets = chosen(file.needs, words)
    bring_corpus(file.spec.corpus)
    context = BuildContext.at(file.corpus, resources)
    for target in targets:
        stage = stages[target]
        if isinstance(stage, SourceStage) and not stage.state(context, counts=False).is_up_to_date:
            stage.survey()
    create_corpus(file)
    result = BuildResult()
    context = BuildContext.at(file.corpus, resources, check=check)
    with one_build(context.layout):
        _recover(context.layout)
        lost: dict[str, str] = {}  # target -> what failed
        for target in targets:
            blocking = _blocking(file.needs[target], lost)
            if blocking is not None:
                lost[target] = blocking
                result.targets.append(_not_built(stages[target], blocking))
                continue
            done = _build_one(stages[target], context.now(), on_start)
            if done.failure and not done.is_partial:
                lost[target] = target
            result.targets.append(done)
    result.snapshot = context.now().current.number
    result.elapsed_s = time.monotonic() - started_s
    if not result.adds_up:
        wrong = [each for each in result.targets if not each.counts.adds_up]
        raise InvariantError(f"counts do not add up: {wrong}")
    return result


def _blocking(needs: Sequence[str], lost: Mapping[str, str]) -> str | None:
    """What a target cannot be built without: a stage that failed, or its sources where none is left."""
    sources = [name for name in needs if section_of(name) == "sources"]
    if any(name not in lost for name in sources):
        needs = [name for name in needs if name not in sources]
    return next((lost[name] for name in needs if name in lost), None)


def bring_corpus(named: str) -> None:
    """Bring the working copy of a corpus up to date, where a spec names one in a bucket.

    Raises:
        ConfigError: something else is at its address.
        TransientError: the store does not answer.
    """
    if scheme_of(named) in OBJECT_SCHEMES:
        from jobs.stages.bucket_corpus import opened  # not for local corpora

        opened(uri_of(named), BucketUse.BUILDS, cache_folder())


def create_corpus(file: SpecFile) -> None:
    """The corpus of a spec, empty, unless it is there. Raises as `open_or_create`."""
    first = next(iter(file.spec.sources.values()))
    disk = LocalStorage(file.corpus)
    open_or_create(file.corpus, uid=new_corpus_uid(), recipe_digest=first.recipe.digest, disk=disk)


def _recover(corpus: CorpusLayout) -> None:
    """Complete or undo what a killed command left, and publish reviews that wait, also where no target has to write."""
    if (corpus.root / UNFINISHED).exists() or has_pending(corpus):
        with writing(corpus, LocalStorage(corpus.root)):
            pass


def _build_one(
    stage: Stage, context: BuildContext, on_start: Callable[[str, str], None]
) -> TargetResult:
    """One target as it is now: what earlier targets of this build did is in the catalog."""
    started_s = time.monotonic()
    try:
        state = stage.state(context, counts=False)
        if state.is_up_to_date:
            return TargetResult(
                target=stage.target,
                unit=stage.unit,
                outcome="up to date",
                counts=state.counts,
                note=state.note,
            )
        on_start(stage.target, state.why)
        _fetch_files(context, stage.target)
        done = stage.build(context)
    except ClusterLost:
        raise
    except (ConfigError, TransientError, SourceError) as error:
        failure = str(error)
        return TargetResult(
            target=stage.target,
            unit=stage.unit,
            outcome="failed",
            counts=StageCounts(),
            failure=failure,
            elapsed_s=time.monotonic() - started_s,
        )
    elapsed_s = time.monotonic() - started_s
    if not done.failure:
        Records(context.layout).write(
            stage.target,
            made_from=done.made_from,
            result=done.result,
            counts=done.counts,
            elapsed_s=elapsed_s,
        )
    return TargetResult(
        target=stage.target,
        unit=stage.unit,
        outcome="failed" if done.failure else "built",
        counts=done.counts,
        note=done.note,
        failure=done.failure,
        is_partial=done.is_partial,
        elapsed_s=elapsed_s,
    )


def _fetch_files(context: BuildContext, target: str) -> None:
    """Copy the files of episodes into a working copy, for a target that reads them."""
    copy = None if context.corpus is None else working_copy(context.corpus.root)
    if copy is not None and section_of(target) in READS_FILES:
        with progress_of("copying files of the corpus"):
            complete(copy, context.current)


def _not_built(stage: Stage, blocking: str) -> TargetResult:
    return TargetResult(
        target=stage.target,
        unit=stage.unit,
        outcome="not built",
        counts=StageCounts(),
        note=f"needs {blocking}",
    )
