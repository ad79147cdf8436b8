"""Settings of a captioning run: a YAML file, and options over it. There is no default endpoint, and API keys are never part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from ingest.curation.captions.sheet import SheetPlan

BACKENDS = ("rules", "openai", "transformers", "replay")


class _CaptionSection(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SheetSettings(_CaptionSection):
    """How contact sheets are drawn: `SheetPlan`."""

    max_frames: int = Field(24, ge=4, le=60)
    max_sheets: int = Field(5, ge=1, le=20)
    rate_hz: float = Field(2.0, gt=0, le=30)
    tile_px: int = Field(224, ge=32, le=1024)
    columns: int = Field(5, ge=1, le=10)
    jpeg_quality: int = Field(85, ge=30, le=100)
    camera: str | None = None  # None: the first that is no wrist camera

    @property
    def plan(self) -> SheetPlan:
        from ingest.curation.captions.sheet import (
            SheetPlan,  # with video, which a spec does not need
        )

        return SheetPlan(**self.model_dump(exclude={"camera"}))


class AskSettings(_CaptionSection):
    """What decides an answer besides the prompt; part of the cache key."""

    max_tokens: int = Field(512, ge=16, le=32_768)
    # near-greedy lists of several events collapse to one (captioning.md §1, traps)
    describe_temperature: float = Field(0.3, ge=0, le=2)
    instruct_temperature: float = Field(0.0, ge=0, le=2)
    sample_temperature: float = Field(0.7, ge=0, le=2)
    seed: int = Field(0, ge=0)


class EndpointSettings(_CaptionSection):
    """An OpenAI-compatible server."""

    url: str | None = None  # up to and including /v1
    revision: str | None = None  # of the model there; part of its name in the catalog
    api_key_env: str | None = None  # NAME of the environment variable that holds the key
    extra_body: dict[str, object] = {}  # e.g. chat_template_kwargs of vLLM
    timeout_s: float = Field(120.0, gt=0)  # for one whole answer
    tries: int = Field(5, ge=1, le=20)
    wait_max_s: float = Field(30.0, ge=0)
    concurrency: int = Field(16, ge=1, le=256)
    failures_to_stop: int = Field(20, ge=1)  # in a row


class CaptionSettings(_CaptionSection):
    """Everything. `model` is a name for an endpoint, a folder for transformers."""

    backend: Literal["rules", "openai", "transformers", "replay"] = "rules"
    model: str | None = None
    replay_file: str | None = None
    device: str = "cpu"
    batch: int = Field(1, ge=1, le=256)  # answers at once, of transformers
    endpoint: EndpointSettings = EndpointSettings()
    ask: AskSettings = AskSettings()
    sheet: SheetSettings = SheetSettings()
    consistency_share: float = Field(0.02, ge=0, le=1)
    confidence_min: float = Field(0.5, ge=0, le=1)  # below it samples are drawn too
    controls: int = Field(3, ge=0, le=1000)  # segments asked again with wrong pictures, each way
    only_missing: bool = False  # leave alone what the source's own text says well enough
    min_segment_s: float = Field(1.0, ge=0)  # shorter stretches without a text are left alone
