"""Targets `sources.NAME`: raw data that one adapter reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pyarrow.compute as pc

from adapters.base import Adapter
from adapters.containers.raw_file import raw_file_of
from adapters.registry import adapter_for, resolved
from ingest.pipeline.assets import MANO
from ingest.pipeline.plan import Plan, Request, survey
from jobs.build.listing import RawListing, listing_of
from jobs.build.records import StageCounts, sha256_of
from jobs.build.spec import SourceSpec
from jobs.build.spec_file import SpecFile
from jobs.build.stage import (
    BuildContext,
    PendingWork,
    StageResult,
    TargetState,
    TargetStatus,
    compared,
)
from jobs.stages.raw_data import RawCache, RawData, listed_raw, reading_raw
from jobs.ui.options import assets_from
from schemas.errors import ConfigError, SourceError

WORDS = {
    "adapter": "other adapter",
    "adapter_version": "new adapter version",
    "recipe": "changed recipe",
    "options": "changed options",
    "selection": "other path, select or limit",
    "listing": "new data",
    "limits": "changed limits of an episode",
}
# Of `limits`, the shares that may be lost refuse no episode.
SHARES = {"max_quarantined_ratio", "max_failed_ratio", "threads_per_episode"}
SHOWN = 3


@dataclass(frozen=True)
class SourceStage:
    """One source. Ingest leaves what is committed as it is, so another recipe or adapter version changes new episodes only."""

    file: SpecFile
    name: str
    mano_dir: Path | None = None  # EICORPUS_MANO_DIR
    cache: RawCache = field(default_factory=RawCache)
    unit: str = "episodes"
    # Number of a snapshot -> what `_changed` has found.
    checked: dict[int, list[tuple[str, str]]] = field(default_factory=dict)

    @property
    def target(self) -> str:
        return f"sources.{self.name}"

    @property
    def spec(self) -> SourceSpec:
        return self.file.spec.sources[self.name]

    @cached_property
    def adapter(self) -> Adapter:
        return adapter_for(resolved(self.spec.adapter, self.file.location.parent))

    @cached_property
    def request(self) -> Request:
        """As `eicorpus ingest` makes it."""
        spec, file = self.spec, self.file
        paths = set(getattr(self.adapter, "path_options", ()))
        options = {
            key: str(file.at(value)) if key in paths else value
            for key, value in spec.options.items()
        }
        mano = None if spec.assets.mano is None else file.at(spec.assets.mano)
        urdf, poses = spec.assets.urdf, spec.assets.camera_poses
        return Request(
            source=resolved(spec.adapter, file.location.parent),
            root=self.raw.root,
            uri=self.raw.uri,
            bucket=self.raw.bucket,
            options=options | ({} if spec.dataset is None else {"set": spec.dataset}),
            recipe=spec.recipe,
            limit=spec.limit,
            select=spec.select,
            assets=assets_from(
                mano or self.mano_dir,
                spec.assets.mano_device,
                None if urdf is None else file.at(urdf),
                None if poses is None else file.at(poses),
            ),
        )

    @cached_property
    def raw(self) -> RawData:
        """Listed once: what comes into a bucket during a build is new data of the next one.

        Raises:
            ConfigError: nothing is there, with line and column.
        """
        spec = self.spec
        try:
            place = self.file.raw_place(spec.path)
            return listed_raw(place, self.cache.folder, self.cache.gb)
        except ConfigError as error:
            where = self.file.place(self.target, "path")
            raise ConfigError(f"{where}: {error} ({self.target}.path)") from error

    def survey(self) -> None:
        """
        Raises:
            ConfigError: the data cannot be of this source, with line and column.
        """
        try:
            with reading_raw(self.raw):
                survey(self.request)
        except ConfigError as error:
            place = self.file.place(self.target)
            raise ConfigError(f"{place}: {error} ({self.target})") from error

    def state(self, context: BuildContext, *, counts: bool) -> TargetState:
        with reading_raw(self.raw):
            return self._state(context, counts=counts)

    def _state(self, context: BuildContext, *, counts: bool) -> TargetState:
        listing = self.listing
        record = context.records.read(self.target)
        state = compared(record, self._made_from(listing), WORDS)
        if state is None:
            known = context.rows("episodes") > 0
            why = "not built from this spec yet" if known else "never built"
            state = TargetState(
                status=TargetStatus.STALE if known else TargetStatus.MISSING, why=why
            )
        elif not state.is_up_to_date and record is not None and "new data" in state.why:
            more = listing.num_files - int(record.result.get("files", 0))
            change = f"{more:+,} files" if more else "other sizes or times"
            state = TargetState(status=state.status, why=f"{state.why} ({change})")
        changed = self._changed(context)
        note = _note(changed)
        if changed and (record is None or record.result.get("changed") != sha256_of(changed)):
            state = TargetState(status=TargetStatus.STALE, why=note)
        elif state.is_up_to_date:
            return replace(state, note=note)
        if state.is_up_to_date or not counts:
            return state
        plan = self._plan(context)
        todo = PendingWork(
            count=sum(ref.stands_for for ref in plan.todo),
            hours=plan.hours or None,
            num_bytes=plan.num_bytes or None,
        )
        return TargetState(status=state.status, why=state.why, todo=todo)

    def build(self, context: BuildContext) -> StageResult:
        with reading_raw(self.raw):
            return self._build(context)

    def _build(self, context: BuildContext) -> StageResult:
        # with the pipeline: not for a build with nothing to do
        from jobs.stages.ingest import run_ingest

        listing, changed = self.listing, self._changed(context)
        limits = self.spec.limits
        done = run_ingest(
            self._placed(context), self.file.corpus, context.resources.executor(limits), limits
        )
        tally = done.tally
        counts = StageCounts(
            total=tally.discovered,
            up_to_date=tally.committed_before,
            done=tally.committed - tally.committed_before,
            left_out=tally.filtered + tally.quarantined,
            failed=tally.failed,
            left=tally.not_reached,
        )
        notes = [f"{count:,} {code}" for code, count in tally.codes.most_common()]
        if tally.stale:
            notes.append(f"{tally.stale:,} of another recipe or adapter version are kept")
        record = context.records.read(self.target)
        is_other = record is not None and record.made_from.get("listing") != listing.sha256
        if is_other and not context.check and not counts.done:
            notes.append("raw files changed and no episode is new: --check compares them")
        if changed:
            notes.append(f"{_note(changed)}; the episodes stay as they were committed")
        failure = done.failure or (f"{tally.failed:,} episodes failed" if tally.failed else "")
        return StageResult(
            counts=counts,
            made_from=self._made_from(listing),
            result={
                "files": str(listing.num_files),
                "bytes": str(listing.num_bytes),
                "changed": sha256_of(changed) if context.check else self._reported(context),
            },
            note=", ".join(notes),
            failure=failure,
            is_partial=not done.failure,  # the spec allows that many: the others are built from
        )

    def _plan(self, context: BuildContext) -> Plan:
        from jobs.stages.ingest import plan_ingest

        try:
            folder = self.file.corpus if context.corpus is None else context.corpus.root
            return plan_ingest(self._placed(context), folder)
        except ConfigError as error:
            place = self.file.place(self.target)
            raise ConfigError(f"{place}: {error} ({self.target})") from error

    def _placed(self, context: BuildContext) -> Request:
        """The request. A target that was built before and has another root now was moved; without a record it may be another set of the
        same name, which ingest refuses."""
        return replace(self.request, has_moved=context.records.read(self.target) is not None)

    def _roots(self) -> list[Path]:
        """Everything that an episode may be made from."""
        request = self.request
        needs = set(getattr(self.adapter, "needs", ()))
        needs |= {MANO} if request.recipe.hands.fit_mano else set()
        assets = request.assets.used_by(needs, getattr(self.adapter, "uses", ()))
        paths = set(getattr(self.adapter, "path_options", ()))
        options = [value for key, value in sorted(request.options.items()) if key in paths]
        named = (assets.mano_dir, assets.urdf, assets.camera_poses)
        return [request.root, *map(Path, options), *(Path(each) for each in named if each)]

    @cached_property
    def listing(self) -> RawListing:
        """Before the work: what is added during it is new data of the next build."""
        listing = listing_of(
            self._roots(), without=self.file.location
        )  # a spec inside its raw data
        bucket = self.raw.bucket
        if bucket is None:
            return listing
        # Sizes and times of the local tree say what was fetched; its name, a digest of ETags, says what is there.
        others = listing_of(self._roots()[1:]).sha256
        return replace(listing, sha256=sha256_of([bucket.tree, others]))

    def _made_from(self, listing: RawListing) -> dict[str, str]:
        spec, request = self.spec, self.request
        return {
            "adapter": spec.adapter,
            "adapter_version": str(self.adapter.version),
            "recipe": spec.recipe.digest,
            "options": sha256_of([sorted(request.options), sorted(spec.options.items())]),
            "selection": sha256_of([spec.path, spec.dataset, spec.select, spec.limit]),
            "listing": listing.sha256,
            "limits": sha256_of(spec.limits.model_dump(exclude=SHARES)),
        }

    def _reported(self, context: BuildContext) -> str:
        """The changed files that a build has reported before."""
        record = context.records.read(self.target)
        return "" if record is None else record.result.get("changed", "")

    def _changed(self, context: BuildContext) -> list[tuple[str, str]]:
        """With `check`: raw files whose content is not that from which an episode was committed, each with the digest that it has now.
        Parts of files and files elsewhere are not looked at. Files are read once for each snapshot."""
        if not context.check or context.corpus is None:
            return []
        number = context.current.number
        if number not in self.checked:
            self.checked[number] = list(self._differing(context, context.corpus.root))
        return self.checked[number]

    def _differing(self, context: BuildContext, corpus: Path) -> Iterator[tuple[str, str]]:
        root = self.request.root
        info, _ = survey(self.request)  # not the rows with this root: raw data may have moved
        is_own = (pc.field("source") == info.source) & (pc.field("dataset") == info.dataset)
        rows = context.current.read(corpus, "episodes", ["raw_files"], only=is_own)
        known = {
            (file["path"], file["digest"])
            for row in rows["raw_files"].to_pylist()
            for file in row or ()
        }
        folder = root if root.is_dir() else root.parent
        for path, digest in sorted(known):
            if ".." in Path(path).parts or not (folder / path).is_file():
                continue
            try:
                now = raw_file_of(folder / path, folder).digest
            except SourceError as error:
                now = error.code.value
            if now != digest:
                yield path, now


def _note(changed: Sequence[tuple[str, str]]) -> str:
    if not changed:
        return ""
    first = ", ".join(path for path, _ in changed[:SHOWN])
    return f"{len(changed):,} raw files are not those that were committed (raw_changed): {first}"
