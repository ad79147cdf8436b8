"""Targets `manifests.NAME`, `exports.NAME`, `reports.NAME` and `verify`: what is made from the whole catalog.

The libraries of a stage load where it builds, not before: a build with nothing to do must start fast.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from ingest.catalog.views import tables_named
from ingest.corpus.manifest_folders import (
    manifest_folder,
    manifest_names,
    open_manifest_folder,
    version_and_folder,
)
from ingest.corpus.snapshot import tables_sha256
from ingest.curation.manifests.mixture_text import MixtureText, load_mixture
from ingest.curation.tiers.policy import QualityPolicy, load_policy
from ingest.export.format_names import ExportFormat
from jobs.build.records import StageCounts, sha256_of
from jobs.build.spec import ExportSpec, ManifestSpec, ReportSpec, VerifySpec
from jobs.build.spec_file import SpecFile
from jobs.build.stage import (
    BuildContext,
    PendingWork,
    StageResult,
    TargetState,
    TargetStatus,
    compared,
)
from jobs.machine import usable_cores
from jobs.stages.request_checks import shares_from
from schemas.catalog import TABLES
from schemas.errors import ConfigError
from schemas.manifest import load

WORDS = {
    "settings": "changed settings",
    "policy": "changed policy",
    "mixture": "changed mixture",
    "tables": "the catalog has changed",
    "manifests": "other manifests",
    "manifest": "another version of the manifest",
}


def _missing(why: str) -> TargetState:
    return TargetState(status=TargetStatus.MISSING, why=why)


@dataclass(frozen=True)
class ManifestStage:
    """A manifest with versions. Its `where` may read more tables than those in `reads`."""

    reads: ClassVar = (
        *("episodes", "segments", "measurements", "signatures", "reviews", "tiers", "policies"),
        *("duplicates", "dedups", "captions", "latents", "artifacts"),
    )
    file: SpecFile
    name: str
    unit: str = "segments"

    @property
    def target(self) -> str:
        return f"manifests.{self.name}"

    @property
    def spec(self) -> ManifestSpec:
        return self.file.spec.manifests[self.name]

    @cached_property
    def policy(self) -> tuple[QualityPolicy, str] | None:
        spec, tiers = self.spec, self.file.spec.tiers
        policy = spec.policy or (tiers.policy if tiers else None)
        return None if policy is None else load_policy(self.file.policy(policy))

    def state(self, context: BuildContext, *, counts: bool) -> TargetState:
        if not context.rows("episodes"):
            return _missing("no episodes yet")
        record = context.records.read(self.target)
        state = compared(record, self._made_from(context), WORDS)
        version = None if record is None else record.result.get("version")
        if state is None or not self._has(context, version):
            return _missing("never built")
        if context.check and (wrong := self._wrong(context)):
            return TargetState(status=TargetStatus.STALE, why=wrong)
        todo = PendingWork(count=record.counts.total if record else None)
        if state.is_up_to_date:
            return state
        return TargetState(status=state.status, why=state.why, todo=todo)

    def build(self, context: BuildContext) -> StageResult:
        from ingest.curation.manifests.manifest import ManifestRequest
        from jobs.stages.manifest import run_manifest

        spec, split = self.spec, self.spec.split
        request = ManifestRequest(
            name=self.name,
            where=spec.where,
            policy=self.policy,
            mixture=self.mixture,
            split_by=split.by,
            shares=shares_from(split.val, split.test),
            keeps_source_splits=split.keep_source_splits,
            text_policy=spec.text,
        )
        done = run_manifest(
            context.layout,
            request,
            context.resources,
            with_statistics=spec.statistics,
            is_versioned=True,
        )
        assert done.folder is not None
        total = done.facts.num_rows
        counts = StageCounts(total=total, **{"done" if done.is_new else "up_to_date": total})
        hours = sum(done.facts.hours.get("all", {}).values())
        latents = "" if done.has_latents else ", no latents: cannot be trained on"
        return StageResult(
            counts=counts,
            made_from=self._made_from(context),
            result={"version": done.folder.name},
            note=f"{done.folder.name}, {hours:.3g} hours{latents}",
        )

    def _has(self, context: BuildContext, version: str | None) -> bool:
        """Whether the record's version is there, and the newest."""
        try:
            folder = open_manifest_folder(context.layout.root, self.name)
        except ConfigError:
            return False
        return folder.name == version and folder != manifest_folder(context.layout.root, self.name)

    def _wrong(self, context: BuildContext) -> str:
        try:
            load(open_manifest_folder(context.layout.root, self.name))
        except ConfigError as error:
            return error.message
        return ""

    @cached_property
    def mixture(self) -> MixtureText:
        spec = self.spec
        if spec.mixture is None:
            return load_mixture(
                None if spec.mixture_file is None else self.file.at(spec.mixture_file)
            )
        text = json.dumps(spec.mixture.model_dump(mode="json", exclude_none=True))
        return MixtureText(mixture=spec.mixture, text=text)

    def _made_from(self, context: BuildContext) -> dict[str, str]:
        settings = self.spec.model_dump(
            mode="json", exclude={"after", "mixture", "mixture_file", "policy"}
        )
        return {
            "settings": sha256_of(settings),
            "policy": "" if self.policy is None else self.policy[0].digest,
            "mixture": self.mixture.digest,
            "tables": tables_sha256(context.current, {*self.reads, *tables_named(self.spec.where)}),
        }


@dataclass(frozen=True)
class _OfExports:
    """A target below `exports` of a spec."""

    file: SpecFile
    name: str

    @property
    def target(self) -> str:
        return f"exports.{self.name}"

    @property
    def spec(self) -> ExportSpec:
        return self.file.spec.exports[self.name]


@dataclass(frozen=True)
class ExportStage(_OfExports):
    """The catalog in another table format."""

    reads: ClassVar = tuple(TABLES)
    unit: str = "tables"

    def state(self, context: BuildContext, *, counts: bool) -> TargetState:
        folder = self._folder()
        state = compared(context.records.read(self.target), self._made_from(context), WORDS)
        if state is None or (folder is not None and not folder.is_dir()):
            return _missing("never exported")
        return state

    def build(self, context: BuildContext) -> StageResult:
        from ingest.export.warehouse import ExportStep
        from jobs.stages.export import run_export, warehouse_at

        spec = self.spec
        to = warehouse_at(context.layout.root, self._folder(), spec.catalog, spec.namespace)
        tables = run_export(context.layout, to).tables
        same = sum(each.step is ExportStep.NOTHING for each in tables)
        return StageResult(
            counts=StageCounts(total=len(tables), up_to_date=same, done=len(tables) - same),
            made_from=self._made_from(context),
        )

    def _folder(self) -> Path | None:
        return None if self.spec.warehouse is None else self.file.at(self.spec.warehouse)

    def _made_from(self, context: BuildContext) -> dict[str, str]:
        settings = self.spec.model_dump(mode="json", exclude={"after"})
        tables = tables_sha256(context.current, self.reads)
        return {"settings": sha256_of(settings), "tables": tables}


@dataclass(frozen=True)
class DatasetExportStage(_OfExports):
    """The newest version of a manifest as datasets of another trainer, in a folder of its own."""

    unit: str = "segments"

    def state(self, context: BuildContext, *, counts: bool) -> TargetState:
        from ingest.export.datasets.run import PAGE, read_page

        try:
            version, folder = self._place(context)
        except ConfigError:
            return _missing("no manifest yet")
        record = context.records.read(self.target)
        state = compared(record, self._made_from(version), WORDS)
        if state is None or record is None or not (folder / PAGE).is_file():
            return _missing("never exported")
        if context.check and read_page(folder)["sha256"] != record.result.get("sha256"):
            return TargetState(status=TargetStatus.STALE, why="the folder holds another export")
        return state

    def build(self, context: BuildContext) -> StageResult:
        from jobs.stages.export_datasets import format_with, run_dataset_export

        version, folder = self._place(context)
        spec, resources = self.spec, context.resources
        if spec.to is ExportFormat.LINGBOT_VA and resources.workers is None:
            resources = replace(resources, workers=0)  # each worker would load both networks
        weights = None if spec.weights is None else self.file.at(spec.weights)
        done = run_dataset_export(
            context.layout,
            version,
            folder,
            format_with(
                spec.to,
                low_tier=spec.low_tier,
                weights=weights,
                untrained=spec.untrained,
                frame_stride=spec.frame_stride,
                size=spec.size,
            ),
            resources,
            allowed_licences=spec.allow_licence,
        )
        assert done.page is not None
        total = done.plan.num_segments
        kept = {} if done.num_written else {"up_to_date": total}
        return StageResult(
            counts=StageCounts(total=total, **(kept or {"done": total})),
            made_from=self._made_from(version),
            result={"sha256": done.page["sha256"], "folder": folder.name},
            note=f"{spec.out}/{folder.name}",
        )

    def _place(self, context: BuildContext) -> tuple[str, Path]:
        """NAME/VERSION of the manifest, and the folder of its export.

        Raises:
            ConfigError: the manifest was never built.
        """
        spec = self.spec
        assert spec.manifest is not None  # looked at when the spec was read
        assert spec.out is not None
        if context.corpus is None:
            raise ConfigError("no corpus yet")
        return version_and_folder(context.corpus.root, spec.manifest, self.file.at(spec.out))

    def _made_from(self, version: str) -> dict[str, str]:
        settings = self.spec.model_dump(mode="json", exclude={"after"})
        return {"settings": sha256_of(settings), "manifest": version}


@dataclass(frozen=True)
class ReportStage:
    """An HTML report."""

    reads: ClassVar = (
        *("episodes", "verdicts", "measurements", "tiers", "policies", "duplicates"),
        *("captions", "tombstones"),
    )
    file: SpecFile
    name: str
    unit: str = "files"

    @property
    def target(self) -> str:
        return f"reports.{self.name}"

    @property
    def spec(self) -> ReportSpec:
        return self.file.spec.reports[self.name]

    def state(self, context: BuildContext, *, counts: bool) -> TargetState:
        record = context.records.read(self.target)
        state = compared(record, self._made_from(context), WORDS)
        if state is None or record is None or not self._html.is_file():
            return _missing("no report yet")
        if str(self._html.stat().st_size) != record.result.get("bytes"):
            return TargetState(status=TargetStatus.STALE, why="the file has changed")
        return state

    def build(self, context: BuildContext) -> StageResult:
        from jobs.stages.report import run_report

        policy = self.spec.policy
        policy = None if policy is None else self.file.policy(policy)
        done = run_report(context.layout, self._html, policy=policy)
        return StageResult(
            counts=StageCounts(total=1, done=1),
            made_from=self._made_from(context),
            result={"bytes": str(done.num_bytes)},
            note=self.spec.html,
        )

    @property
    def _html(self) -> Path:
        return self.file.at(self.spec.html)

    def _made_from(self, context: BuildContext) -> dict[str, str]:
        policy = self.spec.policy
        return {
            "settings": sha256_of([self.spec.html]),
            "policy": "" if policy is None else load_policy(self.file.policy(policy))[0].digest,
            "tables": tables_sha256(context.current, self.reads),
        }


@dataclass(frozen=True)
class VerifyStage:
    """A check of every file."""

    reads: ClassVar = tuple(TABLES)
    file: SpecFile
    target: str = "verify"
    unit: str = "episodes"

    def state(self, context: BuildContext, *, counts: bool) -> TargetState:
        state = compared(context.records.read(self.target), self._made_from(context), WORDS)
        return state or _missing("never verified")

    def build(self, context: BuildContext) -> StageResult:
        from jobs.stages.verify import failure_of, run_verify

        done = run_verify(context.layout.root, usable_cores(), deep=self.spec.deep)
        seen = done.seen.episodes
        return StageResult(
            counts=StageCounts(total=seen, done=seen),
            made_from=self._made_from(context),
            note=f"{len(done.findings):,} findings",
            failure=failure_of(done.findings),
        )

    @property
    def spec(self) -> VerifySpec:
        assert self.file.spec.verify is not None
        return self.file.spec.verify

    def _made_from(self, context: BuildContext) -> dict[str, str]:
        settings = self.spec.model_dump(mode="json", exclude={"after"})
        names = [] if context.corpus is None else manifest_names(context.corpus.root)
        return {
            "settings": sha256_of(settings),
            "tables": tables_sha256(context.current, self.reads),
            "manifests": sha256_of(names),
        }
