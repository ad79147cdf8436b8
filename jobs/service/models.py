"""What the REST API answers, as pydantic models: the OpenAPI page is made from them. Texts from data are text."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Row = dict[str, Any]  # a row of a catalog table, by the columns of docs/reference/catalog.md


class StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="null")


class CorpusAnswer(StrictModel):
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


class CorporaAnswer(StrictModel):
    corpora: list[CorpusAnswer]


class OfSnapshot(StrictModel):
    snapshot: int = Field(description="Snapshot that the answer is of.")
    newest_snapshot: int = Field(
        description="Newest snapshot of the corpus; greater: a newer one exists."
    )


class ColumnAnswer(StrictModel):
    name: str
    kind: Literal["number", "coded", "text"]
    unit: str


class ColumnsAnswer(OfSnapshot):
    columns: list[ColumnAnswer]


class EpisodesAnswer(OfSnapshot):
    episodes: list[Row]
    total: int
    hours: float
    cursor: str | None = Field(
        description="Pass it as `cursor` for the next page; null at the end."
    )


class FacetValueAnswer(StrictModel):
    value: str | None = Field(description="null: unknown.")
    episodes: int
    hours: float


class FacetsAnswer(OfSnapshot):
    facets: dict[str, list[FacetValueAnswer]]
    total: int
    hours: float


class HistogramSeriesAnswer(StrictModel):
    group: str | None
    episodes: list[int]
    hours: list[float]


class HistogramAnswer(OfSnapshot):
    column: str
    unit: str
    edges: list[float]
    unknown: int
    below: int
    above: int
    series: list[HistogramSeriesAnswer]


class SegmentAnswer(StrictModel):
    segment_index: int | None
    start: int | None
    end: int | None
    start_s: float | None
    end_s: float | None
    tier: str | None
    tasks: list[str]
    reasons: list[Row]


class MeasurementAnswer(StrictModel):
    name: str | None
    version: int | None
    value: float | None
    unit: str | None
    start: int | None
    end: int | None
    denominator: int | None


class VideoAnswer(StrictModel):
    camera: str
    href: str
    width: int | None
    height: int | None


class EpisodeAnswer(OfSnapshot):
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


class NeighboursAnswer(OfSnapshot):
    previous: str | None = Field(description="uid; null at the beginning.")
    next: str | None


class ExplainAnswer(OfSnapshot):
    uid: str
    state: str
    code: str
    message: str
    facts: Row
    policy: str
    segments: list[Row]
    measurements: list[Row]
    stored: str
    reviews: list[Row]


class ChannelAnswer(StrictModel):
    feature: str
    name: str
    timesteps: list[int]
    values: list[float | None]


class InvalidAnswer(StrictModel):
    feature: str
    part: str
    start: int
    end: int


class SeriesAnswer(OfSnapshot):
    uid: str
    rate_hz: float
    length: int
    decimation: Literal["min-max"] = "min-max"
    channels: list[ChannelAnswer]
    invalid: list[InvalidAnswer]


class RowsAnswer(OfSnapshot):
    rows: list[Row]
    cursor: str | None = None


class ManifestsAnswer(StrictModel):
    manifests: list[Row]
    damaged: dict[str, str] = Field(description="Manifests that cannot be read, and why.")


class ManifestAnswer(StrictModel):
    manifest: Row


class ManifestDiffAnswer(StrictModel):
    same: int
    built_from: dict[str, list[str]]
    summary: list[Row]
    num_rows: int
    rows: list[Row]


class SqlQuestion(StrictModel):
    sql: str = Field(min_length=1, max_length=100_000)
    format: Literal["json", "csv", "arrow"] = "json"
    snapshot: int | None = Field(default=None, ge=1)
    limit_rows: int = Field(default=10_000, ge=1, le=100_000, description="Of a JSON answer.")


class SqlAnswer(StrictModel):
    snapshot: int
    columns: list[str]
    rows: list[list[Any]]
    num_rows: int = Field(description="Of the whole result.")
    is_cut: bool = Field(description="Whether rows were left out.")


class ErrorAnswer(StrictModel):
    """Why there is no result."""

    code: str
    message: str
    where: str | None
    remedy: str | None
    exit_code: int = Field(description="Of a command that ends so.")


class FailedAnswer(StrictModel):
    """The envelope of every answer that is no success."""

    command: str
    version: str
    ok: Literal[False]
    result: None
    error: ErrorAnswer
