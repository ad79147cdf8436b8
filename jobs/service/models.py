"""What the REST API answers, as pydantic models: the OpenAPI page is made from them. Texts from data are text."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Row = dict[str, Any]  # a row of a catalog table, by the columns of docs/reference/catalog.md


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="null")


class CorpusAnswer(_Model):
    name: str
    uid: str
    snapshot: int | None = Field(description="Snapshot served; null while its cache is built.")
    newest_snapshot: int
    is_building: bool
    problem: str = Field(description="Why the last cache could not be built.")
    episodes: int | None
    hours: float | None
    policy: str | None
    policy_digest: str | None


class CorporaAnswer(_Model):
    corpora: list[CorpusAnswer]


class _OfSnapshot(_Model):
    snapshot: int = Field(description="Snapshot that the answer is of.")
    newest_snapshot: int = Field(
        description="Newest snapshot of the corpus; greater: a newer one exists."
    )


class ColumnAnswer(_Model):
    name: str
    kind: Literal["number", "coded", "text"]
    unit: str


class ColumnsAnswer(_OfSnapshot):
    columns: list[ColumnAnswer]


class EpisodesAnswer(_OfSnapshot):
    episodes: list[Row]
    total: int
    hours: float
    cursor: str | None = Field(
        description="Pass it as `cursor` for the next page; null at the end."
    )


class FacetValueAnswer(_Model):
    value: str | None = Field(description="null: unknown.")
    episodes: int
    hours: float


class FacetsAnswer(_OfSnapshot):
    facets: dict[str, list[FacetValueAnswer]]
    total: int
    hours: float


class HistogramSeriesAnswer(_Model):
    group: str | None
    episodes: list[int]
    hours: list[float]


class HistogramAnswer(_OfSnapshot):
    column: str
    unit: str
    edges: list[float]
    unknown: int
    below: int
    above: int
    series: list[HistogramSeriesAnswer]


class SegmentAnswer(_Model):
    segment_index: int | None
    start: int | None
    end: int | None
    start_s: float | None
    end_s: float | None
    tier: str | None
    tasks: list[str]
    reasons: list[Row]


class MeasurementAnswer(_Model):
    name: str | None
    version: int | None
    value: float | None
    unit: str | None
    start: int | None
    end: int | None
    denominator: int | None


class VideoAnswer(_Model):
    camera: str
    href: str
    width: int | None
    height: int | None


class EpisodeAnswer(_OfSnapshot):
    uid: str
    rate_hz: float | None
    episode: Row = Field(description="Its row of `episodes`.")
    tier: str | None
    segments: list[SegmentAnswer]
    spans: list[Row] = Field(description="Its rows of `segments`: valid runs, tasks, subtasks.")
    captions: list[Row] = Field(description="Each beside `source_text`.")
    measurements: list[MeasurementAnswer]
    duplicate: Row | None
    copies: list[Row] = Field(description="Other episodes of its cluster.")
    videos: list[VideoAnswer]
    latents: list[Row]
    artifacts: list[Row]
    provenance: Row


class ExplainAnswer(_OfSnapshot):
    uid: str
    state: str
    code: str
    message: str
    facts: Row
    policy: str
    segments: list[Row]
    measurements: list[Row]
    stored: str


class ChannelAnswer(_Model):
    feature: str
    name: str
    timesteps: list[int]
    values: list[float | None]


class InvalidAnswer(_Model):
    feature: str
    part: str
    start: int
    end: int


class SeriesAnswer(_OfSnapshot):
    uid: str
    rate_hz: float
    length: int
    decimation: Literal["min-max"] = "min-max"
    channels: list[ChannelAnswer]
    invalid: list[InvalidAnswer]


class RowsAnswer(_OfSnapshot):
    rows: list[Row]
    cursor: str | None = None


class ManifestsAnswer(_Model):
    manifests: list[Row]
    damaged: dict[str, str] = Field(description="Manifests that cannot be read, and why.")


class ManifestAnswer(_Model):
    manifest: Row


class ManifestDiffAnswer(_Model):
    same: int
    built_from: dict[str, list[str]]
    summary: list[Row]
    num_rows: int
    rows: list[Row]


class SqlQuestion(_Model):
    sql: str = Field(min_length=1, max_length=100_000)
    format: Literal["json", "csv", "arrow"] = "json"
    snapshot: int | None = Field(default=None, ge=1)
    limit_rows: int = Field(default=10_000, ge=1, le=100_000, description="Of a JSON answer.")


class SqlAnswer(_Model):
    snapshot: int
    columns: list[str]
    rows: list[list[Any]]
    num_rows: int = Field(description="Of the whole result.")
    is_cut: bool = Field(description="Whether rows were left out.")


class LinkAnswer(_Model):
    path: str = Field(description="Opens a browser session once, within ten minutes.")
