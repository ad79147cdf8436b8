"""Text output of `eicorpus latents text`: the plan and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ingest.latents.text_encoding import TextEncoder, TextTally
from ingest.latents.text_plan import TextPlan
from ingest.models.vlm import LocalVlm
from jobs.disk_space import free_bytes
from jobs.output import answer_json, duration, size_text, stderr, stdout, table

MEASURED_TEXTS = 200  # whose tokens are counted for the plan


def plan_json(
    corpus: Path, plan: TextPlan, encoder: TextEncoder, vlm: LocalVlm, device: str
) -> dict[str, Any]:
    """The prompts, and the size of the features."""
    some = sorted(plan.texts)[:MEASURED_TEXTS]
    mean = sum(vlm.num_tokens(encoder.messages(text)) for text in some) / max(len(some), 1)
    settings = encoder.settings
    return {
        "encoder_id": encoder.encoder_id,
        "model_sha256": encoder.model_sha256,
        "device": device,
        "settings": settings.model_dump(mode="json"),
        "episodes": len(plan.due),
        "up_to_date": plan.up_to_date,
        "texts": len(plan.texts),
        "moments": plan.num_moments,
        "with_picture": plan.num_with_picture,
        "tokens_of_a_text": round(mean, 1),
        "width": vlm.width,
        "num_bytes_at_most": plan.num_bytes(mean, settings.max_picture_tokens, vlm.width),
        "free_bytes": free_bytes(corpus),
    }


def tell_plan(page: dict[str, Any], *, as_json: bool, is_all: bool = False) -> None:
    """The plan: on stderr before any work, on stdout when it `is_all` that was asked for."""
    if as_json:
        answer_json({"plan": page})
        return
    lines = (
        f"plan {page['encoder_id']} on {page['device']}: {page['texts']:,} texts of {page['episodes']:,} episodes, "
        f"{page['moments']:,} prompts, {page['with_picture']:,} of them with a frame; {page['up_to_date']:,} episodes are up to date",
        f"     about {size_text(page['num_bytes_at_most'])}: {page['tokens_of_a_text']} tokens a text"
        f"{', at most ' + str(page['settings']['max_picture_tokens']) + ' more a frame' if page['with_picture'] else ''}, "
        f"{page['width']} bfloat16 numbers a token; {size_text(page['free_bytes'])} free on disk",
    )
    for line in lines:
        (stdout if is_all else stderr).print(line, highlight=False, markup=False)


def report(
    tally: TextTally,
    encoder: TextEncoder,
    number: int,
    elapsed_s: float,
    plan: dict[str, Any],
    failure: str,
    *,
    as_json: bool,
) -> None:
    """discovered = encoded + up_to_date + failed, in episodes."""
    answer: dict[str, Any] = {
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
        answer_json(answer | {"failures": tally.failures, "plan": plan}, failure)
        return
    for failure in tally.failures:
        stderr.print(f"failed {failure}", highlight=False, markup=False)
    shown = answer | {"num_bytes": size_text(tally.num_bytes), "elapsed_s": duration(elapsed_s)}
    stdout.print(table("latents text", ["item", "value"], [[k, v] for k, v in shown.items()]))
