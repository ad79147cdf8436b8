"""`eicorpus latents CORPUS --vlm FOLDER`: what a frozen vision-language model makes of the instructions, for training with `text.kind: cached`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError

from ingest import snapshot
from ingest.corpus import Corpus, writer_lock
from ingest.disk import Disk
from ingest.models.vlm import LocalVlm
from ingest.snapshot import Snapshot
from ingest.text_features.encoding import TextEncoder, TextTally, encode_texts
from ingest.text_features.plan import Plan, plan_of, texts_of_episodes
from jobs.context import new_run_id
from jobs.output import answer_json, duration, gigabytes, progress_of, stderr, stdout, table
from schemas.errors import ConfigError
from schemas.text_features import PREFIX, FeatureSettings
from schemas.vlm_folder import model_sha256, model_type

MEASURED_TEXTS = 200  # whose tokens are counted for the plan


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
        _tell_plan(_plan_json(plan, encoder, vlm, device), as_json=as_json, is_all=True)
        return
    started_s = time.monotonic()
    with writer_lock(corpus):
        current = snapshot.load(corpus.root)
        plan = plan_of(corpus, current, encoder.encoder_id, settings, where=request.where)
        told = _plan_json(plan, encoder, vlm, device)
        if not as_json:
            _tell_plan(told, as_json=False)
        tally, current = _run(corpus, current, plan, encoder)
    _report(tally, encoder, current.number, time.monotonic() - started_s, told, as_json=as_json)
    if tally.failed:
        raise typer.Exit(1)


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
        raise ConfigError(str(first["msg"]), where=where) from error


def _device(asked: str) -> str:
    if asked != "auto":
        return asked
    return "cuda" if LocalVlm.has_gpu() else "cpu"


def _run(
    corpus: Corpus, current: Snapshot, plan: Plan, encoder: TextEncoder
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
            disk=Disk(),
            progress=lambda tally: advance(tally.encoded + tally.failed),
        )
    return tally, current


def _plan_json(plan: Plan, encoder: TextEncoder, vlm: LocalVlm, device: str) -> dict[str, Any]:
    some = sorted(plan.texts)[:MEASURED_TEXTS]
    mean = sum(vlm.num_tokens(encoder.told(text)) for text in some) / max(len(some), 1)
    settings = encoder.settings
    return {
        "encoder_id": encoder.encoder_id,
        "model_sha256": encoder.model_sha256,
        "device": device,
        "settings": settings.model_dump(mode="json"),
        "episodes": len(plan.lacking),
        "up_to_date": plan.up_to_date,
        "texts": len(plan.texts),
        "moments": plan.num_moments,
        "with_picture": plan.num_with_picture,
        "tokens_of_a_text": round(mean, 1),
        "width": vlm.width,
        "num_bytes_at_most": plan.num_bytes(mean, settings.max_picture_tokens, vlm.width),
    }


def _tell_plan(told: dict[str, Any], *, as_json: bool, is_all: bool = False) -> None:
    if as_json:
        answer_json({"plan": told})
        return
    lines = (
        f"plan {told['encoder_id']} on {told['device']}: {told['texts']:,} texts of {told['episodes']:,} episodes, "
        f"{told['moments']:,} moments, {told['with_picture']:,} of them with a picture; {told['up_to_date']:,} episodes are up to date",
        f"     about {gigabytes(told['num_bytes_at_most'])}: {told['tokens_of_a_text']} tokens a text"
        f"{', at most ' + str(told['settings']['max_picture_tokens']) + ' more a picture' if told['with_picture'] else ''}, "
        f"{told['width']} bfloat16 numbers a token",
    )
    for line in lines:
        (stdout if is_all else stderr).print(line, highlight=False, markup=False)


def _report(
    tally: TextTally,
    encoder: TextEncoder,
    number: int,
    elapsed_s: float,
    plan: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """discovered = encoded + up_to_date + failed, in episodes."""
    told: dict[str, Any] = {
        "encoder_id": encoder.encoder_id,
        "discovered": tally.discovered,
        "up_to_date": tally.up_to_date,
        "encoded": tally.encoded,
        "failed": tally.failed,
        "errors": dict(tally.errors),
        "moments": tally.moments,
        "num_bytes": tally.num_bytes,
        "snapshot": number,
        "elapsed_s": round(elapsed_s, 3),
    }
    if as_json:
        answer_json(told | {"failures": tally.failures, "plan": plan})
        return
    for failure in tally.failures:
        stderr.print(f"failed {failure}", highlight=False, markup=False)
    shown = told | {"num_bytes": gigabytes(tally.num_bytes), "elapsed_s": duration(elapsed_s)}
    stdout.print(table("latents --vlm", ["what", "value"], [[k, v] for k, v in shown.items()]))
