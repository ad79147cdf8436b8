"""Targets `latents.NAME` and `text_features.NAME`: what training reads beside the episodes.

An encoder's id depends on its weights. The record of the last build has it, so that a build with nothing to do loads no model.

The libraries of an encoder load where it encodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from ingest.catalog.views import tables_named
from ingest.corpus.snapshot import tables_sha256
from ingest.models.encoder import EncoderChoice, encoder_id
from ingest.models.encoders import encoder_spec
from jobs.build.listing import listing_of
from jobs.build.records import StageCounts, sha256_of
from jobs.build.spec import LatentsSpec, TextFeaturesSpec
from jobs.build.spec_file import SpecFile
from jobs.build.stage import (
    BuildContext,
    PendingWork,
    StageResult,
    TargetState,
    TargetStatus,
    compared,
)
from jobs.stages.request_checks import weight_source

NO_EPISODES = TargetState(status=TargetStatus.MISSING, why="no episodes yet")
UNKNOWN_ID = "not-encoded-yet"


@dataclass(frozen=True)
class LatentsStage:
    """Image tokens of one encoder."""

    file: SpecFile
    name: str
    unit: str = "videos"

    @property
    def target(self) -> str:
        return f"latents.{self.name}"

    @property
    def spec(self) -> LatentsSpec:
        return self.file.spec.latents[self.name]

    @cached_property
    def choice(self) -> EncoderChoice:
        spec = self.spec
        weights = None if spec.weights is None else self.file.at(spec.weights)
        return EncoderChoice(
            model=spec.encoder,
            source=weight_source(encoder_spec(spec.encoder), weights, spec.hub_id, spec.untrained),
            fit=spec.fit,
            storage=spec.dtype,
            grid_stride=spec.stride,
            keeps_prefix=spec.keep_prefix,
            device=spec.device,
            batch=spec.batch,
            is_compiled=spec.compile,
        )

    def state(self, context: BuildContext, *, counts: bool) -> TargetState:
        if not context.rows("episodes"):
            return NO_EPISODES
        from ingest.latents.plan import todo_of

        record = context.records.read(self.target)
        words = {"encoder": "changed encoder", "weights": "other weights"}
        same = compared(record, self._made_from(), words)
        known = record.result.get("encoder_id") if same and same.is_up_to_date and record else None
        todo = todo_of(
            context.layout,
            context.current,
            known or UNKNOWN_ID,
            cameras=self.spec.cameras,
            where=self.spec.where,
        )
        total = len(todo) + todo.up_to_date
        if known and not len(todo):
            counted = StageCounts(total=total, up_to_date=total)
            return TargetState(status=TargetStatus.UP_TO_DATE, counts=counted)
        why = "videos without latents" if known else same.why if same else "never encoded"
        status = TargetStatus.MISSING if same is None else TargetStatus.STALE
        return TargetState(status=status, why=why, todo=PendingWork(count=len(todo)))

    def build(self, context: BuildContext) -> StageResult:
        from jobs.stages.latents_images import ImagesRequest, run_images

        resources = context.resources
        request = ImagesRequest(
            choice=self.choice,
            cameras=self.spec.cameras,
            where=self.spec.where,
            workers=resources.workers,
            is_on_ray=resources.is_on_ray,
            address=resources.address,
        )
        done = run_images(context.layout, request)
        tally = done.tally
        return StageResult(
            counts=StageCounts(
                total=tally.discovered,
                up_to_date=tally.up_to_date,
                done=tally.encoded,
                failed=tally.failed,
            ),
            made_from=self._made_from(),
            result={"encoder_id": done.plan.encoder.id},
            note=done.plan.encoder.id,
            failure=done.failure,
            is_partial=tally.failed < tally.discovered,
        )

    def _made_from(self) -> dict[str, str]:
        folder = self.choice.source.folder
        weights = listing_of([self.file.at(folder)]).sha256 if folder else self.spec.hub_id or ""
        return {"encoder": encoder_id(self.choice, ""), "weights": weights}


@dataclass(frozen=True)
class TextStage:
    """Features of instructions. Its `where` may read more tables than those in `reads`."""

    reads: ClassVar = ("episodes", "segments", "captions", "artifacts")
    file: SpecFile
    name: str
    unit: str = "episodes"

    @property
    def target(self) -> str:
        return f"text_features.{self.name}"

    @property
    def spec(self) -> TextFeaturesSpec:
        return self.file.spec.text_features[self.name]

    def state(self, context: BuildContext, *, counts: bool) -> TargetState:
        if not context.rows("episodes"):
            return NO_EPISODES
        words = {
            "settings": "changed settings",
            "model": "other model",
            "tables": "new texts or episodes",
        }
        state = compared(context.records.read(self.target), self._made_from(context), words)
        if state is not None and state.is_up_to_date:
            return state
        status = TargetStatus.MISSING if state is None else TargetStatus.STALE
        why = "never encoded" if state is None else state.why
        return TargetState(status=status, why=why, todo=PendingWork(count=context.rows("episodes")))

    def build(self, context: BuildContext) -> StageResult:
        from jobs.stages.latents_text import VlmRequest, open_text, run_text

        spec = self.spec
        request = VlmRequest(
            folder=self.file.at(spec.vlm),
            layer=spec.layer,
            frame_every_s=spec.frame_every_s,
            prompt=spec.prompt,
            camera=spec.camera,
            where=spec.where,
            device=spec.device,
            batch=spec.batch,
        )
        done = run_text(context.layout, open_text(request))
        tally = done.tally
        return StageResult(
            counts=StageCounts(
                total=tally.discovered,
                up_to_date=tally.up_to_date,
                done=tally.encoded,
                failed=tally.failed,
            ),
            made_from=self._made_from(context),
            result={"encoder_id": done.encoder.encoder_id},
            note=done.encoder.encoder_id,
            failure=done.failure,
            is_partial=tally.failed < tally.discovered,
        )

    def _made_from(self, context: BuildContext) -> dict[str, str]:
        settings = self.spec.model_dump(mode="json", exclude={"after", "device", "batch"})
        return {
            "settings": sha256_of(settings),
            "model": listing_of([self.file.at(self.spec.vlm)]).sha256,
            "tables": tables_sha256(context.current, {*self.reads, *tables_named(self.spec.where)}),
        }
