"""`eicorpus latents CORPUS --vlm FOLDER`: what a frozen vision-language model makes of the instructions, for training with `text.kind: cached`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ingest.corpus import snapshot
from ingest.corpus.layout import Corpus
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.writing import writing
from ingest.latents.text_encoding import TextEncoder, TextTally, encode_texts
from ingest.latents.text_plan import Plan, plan_of, texts_of_episodes
from ingest.models.vlm import LocalVlm
from ingest.storage.local import LocalStorage
from jobs.disk_space import refuse_without_room
from jobs.latents_vlm_report import plan_json, report, tell_plan
from jobs.output import exit_1, progress_of
from jobs.run_context import new_run_id
from schemas.errors import ConfigError
from schemas.invalid import problem
from schemas.text_features import PREFIX, FeatureSettings
from schemas.vlm_folder import model_sha256, model_type

WAYS = "encode less with --where SQL or a larger --vlm-pictures"


@dataclass(frozen=True, slots=True, kw_only=True)
class VlmRequest:
    """What the options say. `layer` -1: the last. `pictures`: "none", or seconds from one to the next."""

    folder: Path
    layer: int
    pictures: str
    prompt: str
    cameras: tuple[str, ...]
    where: str
    device: str
    batch: int


def encode(corpus: Corpus, request: VlmRequest, *, dry_run: bool, as_json: bool) -> None:
    """Tell the plan, then do it."""
    settings = _settings(request, num_layers=None)
    device = _device(request.device)
    vlm = LocalVlm.load(request.folder, device)
    settings = _settings(request, vlm.num_layers)
    encoder = TextEncoder(
        vlm=vlm,
        model=f"{PREFIX}{model_type(request.folder)}",
        model_sha256=model_sha256(request.folder),
        settings=settings,
        batch=request.batch or 8,
    )
    if dry_run:
        current = snapshot.load(corpus.root)
        plan = plan_of(corpus, current, encoder.encoder_id, settings, where=request.where)
        told = plan_json(corpus.root, plan, encoder, vlm, device)
        tell_plan(told, as_json=as_json, is_all=True)
        return
    started_s, disk = time.monotonic(), LocalStorage(corpus.root)
    with writing(corpus, disk):
        current = snapshot.load(corpus.root)
        plan = plan_of(corpus, current, encoder.encoder_id, settings, where=request.where)
        told = plan_json(corpus.root, plan, encoder, vlm, device)
        if not as_json:
            tell_plan(told, as_json=False)
        refuse_without_room(corpus.root, told["num_bytes_at_most"], WAYS)
        tally, current = _run(corpus, current, plan, encoder, disk)
    report(tally, encoder, current.number, time.monotonic() - started_s, told, as_json=as_json)
    if tally.failed:
        exit_1(
            f"{tally.failed:,} of {tally.discovered:,} episodes failed; run the command again to try them again"
        )


def _settings(request: VlmRequest, num_layers: int | None) -> FeatureSettings:
    """Checked before the model is loaded, as far as that goes; the last layer is named by its number."""
    layer, every_s, camera = request.layer, None, "*"
    if num_layers is not None:
        if not -num_layers - 1 <= layer <= num_layers:
            found = f"layer {layer}; the model has 0 to {num_layers}, -1 the last"
            raise ConfigError(found, where="--vlm-layer")
        layer = layer % (num_layers + 1)
    if request.pictures != "none":
        try:
            every_s = float(request.pictures)
        except ValueError as error:
            found = f"{request.pictures!r}; expected seconds, or none"
            raise ConfigError(found, where="--vlm-pictures") from error
        camera = (*request.cameras, "*")[0]
    if len(request.cameras) > 1:
        raise ConfigError("the model is shown one camera; name one, or a glob", where="--camera")
    try:
        return FeatureSettings(
            prompt=request.prompt,
            layer=max(layer, 0),
            picture_every_s=every_s,
            camera=camera,
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = f"--vlm-{'pictures' if 'picture_every_s' in first['loc'] else 'prompt'}"
        raise ConfigError(problem(first), where=where) from error


def _device(asked: str) -> str:
    if asked != "auto":
        return asked
    return "cuda" if LocalVlm.has_gpu() else "cpu"


def _run(
    corpus: Corpus, current: Snapshot, plan: Plan, encoder: TextEncoder, disk: LocalStorage
) -> tuple[TextTally, Snapshot]:
    tally = TextTally(discovered=len(plan.lacking) + plan.up_to_date, up_to_date=plan.up_to_date)
    works = texts_of_episodes(corpus, current, encoder.settings, plan.lacking)
    with progress_of("latents --vlm", len(plan.lacking)) as advance:
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
