"""Rows of the catalog that commands make: an episode's place, how its run ended, and what curation adds. See `schemas/catalog_rows.py`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, TypedDict

from schemas.catalog_rows import (
    CatalogRow,
    EpisodeFacts,
    FactValue,
    MeasurementRow,
    SegmentRow,
    SignatureRow,
)
from schemas.review import Review


class ReasonValue(TypedDict):
    code: str
    text: str
    value: float | None
    threshold: float | None


class ErasedFileValue(TypedDict):
    kind: str
    camera: str | None
    path: str
    num_bytes: int
    sha256: str
    detail_json: str


class EndValue(TypedDict):
    run_id: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow(CatalogRow):
    TABLE: ClassVar[str] = "sources"

    source: str
    dataset: str
    root: str
    adapter_version: int
    licence: str
    licence_class: str
    facts: list[FactValue]
    notes: list[str]
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRow(EpisodeFacts):
    dataset_path: str
    episode_index: int
    index_from: int
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow(CatalogRow):
    TABLE: ClassVar[str] = "verdicts"

    uid: str
    source: str
    dataset: str
    episode_id: str
    state: str
    code: str
    message: str
    attempts: int
    run_id: str
    snapshot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TierRow(CatalogRow):
    TABLE: ClassVar[str] = "tiers"

    uid: str
    policy: str
    policy_digest: str
    segment_index: int
    start: int
    end: int
    tier: str
    tasks: list[str]
    reasons: list[ReasonValue]
    run_id: str
    snapshot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRow(CatalogRow):
    TABLE: ClassVar[str] = "policies"

    policy: str
    version: int
    policy_digest: str
    text: str
    run_id: str
    snapshot: int
    reads_sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateRow(CatalogRow):
    """All None but the uid and the run: the episode was a duplicate and is none any more."""

    TABLE: ClassVar[str] = "duplicates"

    uid: str
    cluster: str | None
    kept_uid: str | None
    kind: str | None
    evidence: str | None
    path_distance: float | None
    opening_distance: float | None
    look_distance: float | None
    duration_ratio: float | None
    reason: str | None
    run_id: str
    snapshot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRow(CatalogRow):
    TABLE: ClassVar[str] = "exports"

    sha256: str
    format: str
    location: str
    manifest: str
    manifest_sha256: str
    num_segments: int
    uids: list[str]
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DedupRow(CatalogRow):
    TABLE: ClassVar[str] = "dedups"

    episodes: int
    measured: int
    clusters: int
    redundant: int
    run_id: str
    snapshot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionRow(CatalogRow):
    TABLE: ClassVar[str] = "captions"

    caption_id: str
    uid: str
    start: int
    end: int
    text: str
    language: str | None
    backend: str
    prompt_version: str
    outcome: str
    run_id: str
    model: str
    prompt_sha256: str
    params_json: str
    source_text: str | None
    rephrasings: list[str]
    checks_failed: list[str]
    checks_silent: list[str]
    detail: str
    confidence: float | None
    description_json: str | None
    camera: str | None
    sheet_sha256: str | None
    frames_s: list[float]
    cache_key: str
    latency_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentRow(CatalogRow):
    TABLE: ClassVar[str] = "latents"

    uid: str
    camera: str
    encoder_id: str
    path: str
    num_frames: int
    dtype: str
    sha256: str
    video_sha256: str
    run_id: str
    num_bytes: int
    pack_offset: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRow(CatalogRow):
    TABLE: ClassVar[str] = "artifacts"

    uid: str
    kind: str
    camera: str | None
    path: str
    num_bytes: int | None
    sha256: str | None
    num_frames: int | None
    detail_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TombstoneRow(CatalogRow):
    TABLE: ClassVar[str] = "tombstones"

    uid: str
    source: str
    dataset: str
    episode_id: str
    reason: str
    erased_at: datetime
    run_id: str
    dataset_path: str | None
    episode_index: int | None
    index_from: int | None
    length: int | None
    files: list[ErasedFileValue]
    ends: list[EndValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow(CatalogRow):
    TABLE: ClassVar[str] = "runs"

    run_id: str
    command: str
    started_at: datetime
    finished_at: datetime
    executor: str
    recipe_digest: str
    recipe_json: str
    discovered: int
    committed: int
    filtered: int
    quarantined: int
    failed: int
    not_reached: int | None
    suspect_nodes: list[str] | None


# The type of a whole row, by table.
ROWS: dict[str, type[CatalogRow]] = {
    kind.TABLE: kind
    for kind in (
        *(SourceRow, EpisodeRow, SegmentRow, MeasurementRow, SignatureRow, VerdictRow, TierRow),
        *(PolicyRow, DuplicateRow, DedupRow, CaptionRow, LatentRow, ArtifactRow, TombstoneRow),
        *(RunRow, Review, ExportRow),
    )
}
