"""What a build would do: the state of every target, and how long it takes at the rates of earlier builds. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest.corpus.reviews import has_pending
from ingest.export.format_names import ExportFormat
from jobs.build.curation import CaptionStage, DuplicateStage, MeasureStage, TierStage
from jobs.build.features import LatentsStage, TextStage
from jobs.build.outputs import (
    DatasetExportStage,
    ExportStage,
    ManifestStage,
    ReportStage,
    VerifyStage,
)
from jobs.build.sources import SourceStage
from jobs.build.spec_file import SpecFile
from jobs.build.stage import BuildContext, PendingWork, Stage, TargetState, TargetStatus
from jobs.build.targets import chosen, section_of
from jobs.stages.raw_data import RawCache

# Units of a target that are episodes, or about as many: what sources add comes to them too.
PER_EPISODE = ("measures", "duplicates", "text_features")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTarget:
    """One line of the plan. `estimated_s` None: no earlier build tells."""

    target: str
    unit: str
    state: TargetState
    estimated_s: float | None


def stages_of(
    file: SpecFile, mano_dir: Path | None = None, cache: RawCache | None = None
) -> dict[str, Stage]:
    """Target -> how it is built, in order.

    Args:
        mano_dir: the hand model of sources that name none.
        cache: of raw data in buckets.
    """
    cache = cache or RawCache()
    return {target: _stage(file, target, mano_dir, cache) for target in file.needs}


_OF_SECTION: dict[str, Callable[[SpecFile, str], Stage]] = {
    "measures": lambda file, _: MeasureStage(file),
    "tiers": lambda file, _: TierStage(file),
    "duplicates": lambda file, _: DuplicateStage(file),
    "captions": lambda file, _: CaptionStage(file),
    "latents": LatentsStage,
    "text_features": TextStage,
    "manifests": ManifestStage,
    "exports": lambda file, name: (
        ExportStage(file, name)
        if file.spec.exports[name].to is ExportFormat.ICEBERG
        else DatasetExportStage(file, name)
    ),
    "reports": ReportStage,
    "verify": lambda file, _: VerifyStage(file),
}


def _stage(file: SpecFile, target: str, mano_dir: Path | None, cache: RawCache) -> Stage:
    section, _, name = target.partition(".")
    if section == "sources":
        return SourceStage(file, name, mano_dir, cache)
    return _OF_SECTION[section](file, name)


def make_plan(
    file: SpecFile, stages: Mapping[str, Stage], context: BuildContext, words: Sequence[str] = ()
) -> list[PlannedTarget]:
    """The state of the targets that the words name, and of those before them; all without any.

    A target that is up to date by itself is stale when one before it is not: it will be looked at again after that.
    """
    planned: dict[str, PlannedTarget] = {}
    has_reviews = context.corpus is not None and has_pending(context.corpus)  # published first
    for target in chosen(file.needs, words):
        state = stages[target].state(context, counts=True)
        if (
            has_reviews
            and state.is_up_to_date
            and "reviews" in getattr(stages[target], "reads", ())
        ):
            todo = PendingWork(count=state.counts.total)
            state = TargetState(status=TargetStatus.STALE, why="new reviews", todo=todo)
        before = [planned[name] for name in file.needs[target]]
        state = _after(target, state, before)
        planned[target] = PlannedTarget(
            target=target,
            unit=stages[target].unit,
            state=state,
            estimated_s=0.0 if state.is_up_to_date else _estimate(context, target, state.todo),
        )
    return list(planned.values())


def _after(target: str, state: TargetState, before: Sequence[PlannedTarget]) -> TargetState:
    waiting = [each.target for each in before if not each.state.is_up_to_date]
    if not waiting:
        return state
    todo = state.todo
    if section_of(target) in PER_EPISODE:
        new = [each.state.todo.count for each in before if each.unit == "episodes" and _adds(each)]
        counts = [count for count in new if count is not None]
        known = state.todo.count or 0
        todo = PendingWork(count=known + sum(counts)) if len(counts) == len(new) else PendingWork()
    if not state.is_up_to_date:
        return TargetState(status=state.status, why=state.why, todo=todo)
    more = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
    return TargetState(status=TargetStatus.STALE, why=f"after {waiting[0]}{more}", todo=todo)


def _adds(each: PlannedTarget) -> bool:
    return section_of(each.target) == "sources" and not each.state.is_up_to_date


def _estimate(context: BuildContext, target: str, todo: PendingWork) -> float | None:
    """At the rate of all earlier builds of this target."""
    record = context.records.read(target)
    if record is None or not record.num_done or todo.count is None:
        return None
    return todo.count * record.elapsed_s / record.num_done
