"""Targets `measures`, `tiers`, `duplicates` and `captions`: what is computed from committed episodes.

The libraries of a stage load where it builds, not before: a build with nothing to do must start fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from ingest.corpus.snapshot import tables_sha256
from ingest.curation.captions.prompts import prompt_version_of
from ingest.curation.captions.settings import CaptionSettings
from ingest.curation.tiers.last_run import READS, is_up_to_date
from ingest.curation.tiers.policy import QualityPolicy, load_policy
from ingest.storage.local import LocalStorage
from jobs.build.listing import listing_of
from jobs.build.records import StageCounts, sha256_of
from jobs.build.spec_file import SpecFile
from jobs.build.stage import (
    BuildContext,
    PendingWork,
    StageResult,
    TargetState,
    TargetStatus,
    compared,
)
from jobs.stages.measure import MeasureRequest, measure_request, run_measure
from schemas.errors import ConfigError

NO_EPISODES = TargetState(status=TargetStatus.MISSING, why="no episodes yet")


@dataclass(frozen=True)
class MeasureStage:
    """Measurements. The state is that of the catalog: which episodes lack which measure at its present version."""

    file: SpecFile
    target: str = "measures"
    unit: str = "episodes"

    @cached_property
    def request(self) -> MeasureRequest:
        spec = self.file.spec.measures
        assert spec is not None
        model = None if spec.hand_landmarker is None else self.file.at(spec.hand_landmarker)
        return measure_request(spec.only, model)

    def state(self, context: BuildContext, *, counts: bool) -> TargetState:
        if not context.rows("episodes"):
            return NO_EPISODES
        todo = self.request.todo(context.layout, context.current)
        count, total = len(todo.lacks), len(todo.lacks) + todo.up_to_date
        if not count:
            counted = StageCounts(total=total, up_to_date=total)
            return TargetState(status=TargetStatus.UP_TO_DATE, counts=counted)
        if not context.rows("measurements"):
            return TargetState(
                status=TargetStatus.MISSING, why="never measured", todo=PendingWork(count=count)
            )
        why = "episodes without a measure, or with an older version of one"
        return TargetState(status=TargetStatus.STALE, why=why, todo=PendingWork(count=count))

    def build(self, context: BuildContext) -> StageResult:
        done = run_measure(context.layout, self.request, context.resources)
        tally = done.tally
        return StageResult(
            counts=StageCounts(
                total=tally.discovered,
                up_to_date=tally.up_to_date,
                done=tally.measured,
                failed=tally.failed,
            ),
            made_from={},
            note=f"{done.waiting:,} wait for a model" if done.waiting else "",
            failure=done.failure,
            is_partial=tally.failed < tally.discovered,
        )


@dataclass(frozen=True)
class TierStage:
    """Tiers. They are up to date where the last run was of this policy over these tables, whether a build or a command ran it."""

    reads: ClassVar = READS
    file: SpecFile
    target: str = "tiers"
    unit: str = "segments"

    @cached_property
    def policy(self) -> tuple[QualityPolicy, str]:
        spec = self.file.spec.tiers
        assert spec is not None
        return load_policy(self.file.policy(spec.policy))

    def state(self, context: BuildContext, *, counts: bool) -> TargetState:
        if not context.rows("episodes"):
            return NO_EPISODES
        policy, _ = self.policy
        if is_up_to_date(context.layout.root, context.current, policy):
            total = self._total(context)
            counted = StageCounts(total=total, up_to_date=total)
            return TargetState(status=TargetStatus.UP_TO_DATE, counts=counted)
        if not context.rows("policies"):
            return TargetState(status=TargetStatus.MISSING, why="no policy was applied yet")
        rows = context.current.read(context.layout.root, "policies", ["policy_digest", "snapshot"])
        last = max(rows.to_pylist(), key=lambda row: row["snapshot"])
        is_same = last["policy_digest"] == policy.digest
        why = (
            "new episodes, measurements or reviews" if is_same else f"changed policy {policy.title}"
        )
        todo = PendingWork(count=self._total(context) or None)
        return TargetState(status=TargetStatus.STALE, why=why, todo=todo)

    def _total(self, context: BuildContext) -> int:
        record = context.records.read(self.target)
        return 0 if record is None else record.counts.total

    def build(self, context: BuildContext) -> StageResult:
        from jobs.stages.tier import run_tier

        policy, text = self.policy
        done = run_tier(context.layout, policy, text)
        total = len(done.judged.segments)
        counts = StageCounts(total=total, **{"done" if done.committed else "up_to_date": total})
        return StageResult(counts=counts, made_from={"policy": policy.digest}, note=policy.title)


@dataclass(frozen=True)
class DuplicateStage:
    """Duplicates. A run that finds nothing new leaves no row in the catalog, so a record says which tables it compared."""

    reads: ClassVar = ("episodes", "artifacts", "signatures", "measurements", "tiers")
    file: SpecFile
    target: str = "duplicates"
    unit: str = "episodes"

    def state(self, context: BuildContext, *, counts: bool) -> TargetState:
        if not context.rows("episodes"):
            return NO_EPISODES
        state = compared(
            context.records.read(self.target),
            self._made_from(context),
            {"tables": "new signatures, measurements or tiers"},
        )
        todo = PendingWork(count=context.rows("episodes"))
        if state is None or not context.rows("dedups"):
            return TargetState(status=TargetStatus.MISSING, why="never compared", todo=todo)
        if state.is_up_to_date:
            return state
        return TargetState(status=state.status, why=state.why, todo=todo)

    def build(self, context: BuildContext) -> StageResult:
        from jobs.stages.dedup import run_dedup

        done = run_dedup(context.layout, context.resources)
        measured, total = done.compared.measured, done.compared.episodes
        redundant = done.clusters.exact + done.clusters.near
        return StageResult(
            counts=StageCounts(total=total, done=measured, left_out=total - measured),
            made_from=self._made_from(context),
            note=f"{redundant:,} redundant",
        )

    def _made_from(self, context: BuildContext) -> dict[str, str]:
        return {"tables": tables_sha256(context.current, self.reads)}


@dataclass(frozen=True)
class CaptionStage:
    """Captions. The state is that of the catalog, but for a model that would have to be loaded to say its name."""

    reads: ClassVar = ("episodes", "segments")
    file: SpecFile
    target: str = "captions"
    unit: str = "segments"

    @property
    def settings(self) -> CaptionSettings:
        """Paths of the spec from its folder."""
        spec = self.file.spec.captions
        assert spec is not None
        update = {}
        if spec.replay_file is not None:
            update["replay_file"] = str(self.file.at(spec.replay_file))
        if spec.backend == "transformers" and spec.model is not None:
            update["model"] = str(self.file.at(spec.model))
        return spec.settings.model_copy(update=update)

    def state(self, context: BuildContext, *, counts: bool) -> TargetState:
        if not context.rows("episodes"):
            return NO_EPISODES
        words = {
            "tables": "new segments",
            "settings": "changed settings",
            "prompts": "new version of the prompts",
            "files": "changed model or replay file",
        }
        state = compared(context.records.read(self.target), self._made_from(context), words)
        if state is not None and state.is_up_to_date:
            return state
        has_captions = context.rows("captions") > 0
        status = TargetStatus.STALE if has_captions else TargetStatus.MISSING
        why = "never captioned" if state is None and not has_captions else ""
        why = why or (state.why if state else "not built from this spec yet")
        if self.settings.backend == "transformers":
            return TargetState(status=status, why=why)
        from ingest.curation.captions.backends import backend_for
        from ingest.curation.captions.cache import Cache
        from jobs.stages.caption import num_uncaptioned

        try:
            cache = Cache.of(context.layout, LocalStorage(context.layout.root))
            backend = backend_for(self.settings, key="", cache=cache)
            todo = num_uncaptioned(context.layout, context.current, backend, self.settings)
        except ConfigError:  # the build says what is missing
            return TargetState(status=status, why=why)
        return TargetState(status=status, why=why, todo=PendingWork(count=todo))

    def build(self, context: BuildContext) -> StageResult:
        from jobs.stages.caption import caption_backend, run_caption

        settings = self.settings
        done = run_caption(context.layout, caption_backend(context.layout, settings), settings)
        tally = done.tally
        counts = StageCounts(
            total=done.total,
            done=tally.captioned,
            left_out=tally.skipped,
            failed=tally.failed,
            left=done.total - tally.captioned - tally.skipped - tally.failed,
        )
        return StageResult(
            counts=counts,
            made_from=self._made_from(context),
            note=done.backend,
            failure=done.failure,
            is_partial=not tally.stopped,
        )

    def _made_from(self, context: BuildContext) -> dict[str, str]:
        settings = self.settings
        model = settings.model if settings.backend == "transformers" else None
        files = [Path(each) for each in (settings.replay_file, model) if each is not None]
        named = {"replay_file", "model"} if files else set()
        return {
            "tables": tables_sha256(context.current, self.reads),
            "settings": sha256_of(settings.model_dump(mode="json", exclude=named)),
            "prompts": prompt_version_of(settings.backend),
            "files": listing_of(files).sha256,
        }
