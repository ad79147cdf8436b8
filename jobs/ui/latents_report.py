"""Text output of `eicorpus latents images` and `latents text`: progress lines, the plan of text features and the reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ingest.latents.run import LatentTally
from ingest.latents.text_encoding import TextEncoder, TextTally
from ingest.latents.text_plan import TextPlan
from ingest.models.vlm import LocalVlm
from jobs.machine import free_bytes
from jobs.ui.latents_plan import LatentsPlan
from jobs.ui.output import answer_json, duration, size_text, stderr, stdout, table
from jobs.ui.progress import ProgressLine


class LatentsProgress:
    """One progress line on stderr: videos, images per second, how busy the encoder is, and how long it waits for images and for the disk."""

    def __init__(self, plan: LatentsPlan, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s, self._began_s = monotonic_s, monotonic_s()
        self._line = ProgressLine(stderr, "latents", len(plan.todo))

    def update(self, tally: LatentTally) -> None:
        elapsed_s = self._monotonic_s() - self._began_s
        shares = shares_of(tally, elapsed_s)
        failed = f", {tally.failed} failed" if tally.failed else ""
        note = f"{shares['pictures_per_s']:,.1f} images/s, encoder busy {shares['encoder_busy_share']:.0%}, "
        note += f"waits for images {shares['decode_wait_share']:.0%}, for the disk {shares['write_wait_share']:.0%}{failed}"
        self._line.update(tally.encoded + tally.failed, note=note)

    def __enter__(self) -> LatentsProgress:
        self._line.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._line.__exit__(kind, error, trace)


def shares_of(tally: LatentTally, elapsed_s: float) -> dict[str, float]:
    """Images per second, and the shares of all encoders' time in which they worked, waited for images and waited for the disk."""
    all_s = elapsed_s * tally.num_encoders
    return {
        "pictures_per_s": round(tally.num_pictures / elapsed_s, 2) if elapsed_s else 0.0,
        "encoder_busy_share": round(tally.busy_s / all_s, 3) if all_s else 0.0,
        "decode_wait_share": round(tally.wait_s / all_s, 3) if all_s else 0.0,
        "write_wait_share": round(tally.write_wait_s / all_s, 3) if all_s else 0.0,
    }


def show_report(
    plan: LatentsPlan,
    tally: LatentTally,
    number: int,
    elapsed_s: float,
    failure: str,
    *,
    as_json: bool,
) -> None:
    """discovered = encoded + up_to_date + failed, in videos."""
    answer: dict[str, Any] = {
        "encoder_id": plan.encoder.id,
        "discovered": tally.discovered,
        "up_to_date": tally.up_to_date,
        "encoded": tally.encoded,
        "failed": tally.failed,
        "errors": dict(tally.errors),
        "pictures": tally.num_pictures,
        "num_bytes": tally.num_bytes,
        **shares_of(tally, elapsed_s),
        "encoders": tally.num_encoders,
        "snapshot": number,
        "elapsed_s": round(elapsed_s, 3),
    }
    if as_json:
        answer_json(answer | {"failures": tally.failures, "plan": plan.as_json()}, failure)
        return
    for failure in tally.failures:
        stderr.print(f"failed {failure}", highlight=False, markup=False)
    shown = answer | {"num_bytes": size_text(tally.num_bytes), "elapsed_s": duration(elapsed_s)}
    stdout.print(table("latents images", ["item", "value"], [[k, v] for k, v in shown.items()]))


def show_actions(answer: Mapping[str, object], *, as_json: bool, failure: str = "") -> None:
    """The plan or the report of `eicorpus latents actions`."""
    if as_json:
        answer_json(dict(answer), failure)
        return
    for each in answer.get("failures", ()):  # type: ignore[attr-defined]
        stderr.print(f"failed {each}", highlight=False, markup=False)
    rows = []
    for key, value in answer.items():
        if isinstance(value, dict):  # counts by code
            rows += [[f"{key}: {code}", count] for code, count in value.items()]
        elif key != "failures":
            rows.append([key, value])
    stdout.print(table("latents actions", ["item", "value"], rows))


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


def print_plan(page: dict[str, Any], *, as_json: bool, is_all: bool = False) -> None:
    """The plan: on stderr before any work, on stdout with --dry-run (`is_all`)."""
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
