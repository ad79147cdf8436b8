"""The work of `eicorpus latents text`: features of instructions from a frozen vision-language model, for `text.kind: cached`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.writer import writing
from ingest.latents.text_encoding import TextEncoder, TextTally, encode_texts
from ingest.latents.text_plan import TextPlan, plan_of, texts_of_episodes
from ingest.models.vlm import LocalVlm
from ingest.storage.local import LocalStorage
from jobs.machine import refuse_without_room
from jobs.run_context import new_run_id
from jobs.stages.failures import retry_message
from jobs.ui.latents_report import plan_json
from jobs.ui.output import progress_of
from schemas.errors import ConfigError
from schemas.invalid import problem
from schemas.text_features import PREFIX, FeatureSettings
from schemas.vlm import model_sha256, model_type

WAYS = "encode less with --where SQL or a larger --vlm-frame-every-s"


@dataclass(frozen=True, slots=True, kw_only=True)
class VlmRequest:
    """The options. `layer` -1: the last. `frame_every_s` None: text only."""

    folder: Path
    layer: int
    frame_every_s: float | None
    prompt: str
    camera: str
    where: str
    device: str
    batch: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenText:
    """A request whose model is loaded."""

    request: VlmRequest
    encoder: TextEncoder
    vlm: LocalVlm
    device: str

    def plan(self, corpus: CorpusLayout, current: Snapshot) -> tuple[TextPlan, dict[str, Any]]:
        """What is missing, and the page about it."""
        encoder = self.encoder
        plan = plan_of(
            corpus, current, encoder.encoder_id, encoder.settings, where=self.request.where
        )
        return plan, plan_json(corpus.root, plan, encoder, self.vlm, self.device)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextResult:
    """What a run did. `failure`: why it exits with 1; "" if it does not."""

    encoder: TextEncoder
    page: dict[str, Any]  # the plan
    tally: TextTally
    snapshot: int
    elapsed_s: float

    @property
    def failure(self) -> str:
        return retry_message(self.tally.failed, self.tally.discovered, "episodes")


def open_text(request: VlmRequest) -> OpenText:
    """Load the model.

    Raises:
        ConfigError: no such model or layer, or a prompt without `{text}`.
    """
    _settings(request, num_layers=None)
    device = _device(request.device)
    vlm = LocalVlm.load(request.folder, device)
    settings = _settings(request, vlm.num_layers)
    vlm.keep_for(settings.layer)
    encoder = TextEncoder(
        vlm=vlm,
        model=f"{PREFIX}{model_type(request.folder)}",
        model_sha256=model_sha256(request.folder),
        settings=settings,
        batch=request.batch,
    )
    return OpenText(request=request, encoder=encoder, vlm=vlm, device=device)


def run_text(
    corpus: CorpusLayout,
    opened: OpenText,
    *,
    on_plan: Callable[[dict[str, Any]], None] = lambda page: None,
) -> TextResult:
    """Encode what is missing. Shows progress on standard error.

    Args:
        on_plan: called with the page of the plan before the work.
    """
    started_s, disk = time.monotonic(), LocalStorage(corpus.root)
    with writing(corpus, disk):
        current = snapshot.load(corpus.root)
        plan, page = opened.plan(corpus, current)
        on_plan(page)
        refuse_without_room(corpus.root, page["num_bytes_at_most"], WAYS)
        tally, current = _run(corpus, current, plan, opened.encoder, disk)
    return TextResult(
        encoder=opened.encoder,
        page=page,
        tally=tally,
        snapshot=current.number,
        elapsed_s=time.monotonic() - started_s,
    )


def _settings(request: VlmRequest, num_layers: int | None) -> FeatureSettings:
    """Checked as far as possible before the model is loaded. The last layer is stored by its number."""
    layer = request.layer
    if num_layers is not None:
        if not -num_layers - 1 <= layer <= num_layers:
            message = f"{layer}; expected 0 to {num_layers}, or -1 for the last layer"
            raise ConfigError(message, where="--vlm-layer")
        layer = layer % (num_layers + 1)
    try:
        return FeatureSettings(
            prompt=request.prompt,
            layer=max(layer, 0),
            picture_every_s=request.frame_every_s,
            camera="*" if request.frame_every_s is None else request.camera,
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = f"--vlm-{'frame-every-s' if 'picture_every_s' in first['loc'] else 'prompt'}"
        raise ConfigError(problem(first), where=where) from error


def _device(asked: str) -> str:
    if asked != "auto":
        return asked
    return "cuda" if LocalVlm.has_gpu() else "cpu"


def _run(
    corpus: CorpusLayout,
    current: Snapshot,
    plan: TextPlan,
    encoder: TextEncoder,
    disk: LocalStorage,
) -> tuple[TextTally, Snapshot]:
    tally = TextTally(discovered=len(plan.due) + plan.up_to_date, up_to_date=plan.up_to_date)
    works = texts_of_episodes(corpus, current, encoder.settings, plan.due)
    with progress_of("latents text", len(plan.due)) as advance:
        current = encode_texts(
            corpus,
            current,
            works,
            encoder,
            tally,
            run_id=new_run_id(),
            disk=disk,
            progress=lambda tally: advance(tally.encoded + tally.failed),
        )
    return tally, current
