"""The work of `eicorpus export --manifest`: segments of a manifest as datasets of another trainer."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.corpus.layout import CorpusLayout
from ingest.corpus.manifest_folders import open_manifest_folder
from ingest.export.datasets.format import Format
from ingest.export.datasets.lerobot_shared_files import LeRobotV3
from ingest.export.datasets.plan import ExportPlan, plan_export
from ingest.export.datasets.record import name_origin, record_export
from ingest.export.datasets.run import PAGE, check_export, check_files, read_page, run_export
from ingest.export.format_names import ExportFormat
from ingest.recipe import Limits
from jobs.run_context import new_run_id
from jobs.stages.resources import Resources
from jobs.ui.output import outside, progress_of
from schemas.errors import ConfigError
from schemas.manifest import load

# Of a lerobot-v3 export that this process writes alone: about a second or two of work.
SMALL_SEGMENTS, SMALL_BYTES = 1024, 1 << 30
UNIT_LIMITS = Limits(
    time_limit_s=3600, memory_limit_mib=4096
)  # a unit has some 100 MB of each camera, which may have to be encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetExport:
    """What an export did, or would do. `page`: of the finished one."""

    plan: ExportPlan
    page: Mapping[str, Any] | None
    num_units: int
    num_written: int
    elapsed_s: float


def run_dataset_export(
    corpus: CorpusLayout,
    name: str,
    out: Path,
    chosen: Format,
    resources: Resources,
    *,
    allowed_licences: Sequence[str] = (),
    dry_run: bool = False,
) -> DatasetExport:
    """Plan an export, and write it or go on with it. Shows progress on standard error.

    Raises:
        ConfigError: no such manifest, a licence that is not allowed, or what the format cannot hold; nothing was written.
            Or another command is writing to the corpus, which records the export before it begins and when it is finished: run again.
        TransientError: the disk is full or a worker died; run again to resume.
    """
    outside(corpus.root, out, "--out")
    started_s = time.monotonic()
    plan = plan_export(
        corpus.root,
        load(open_manifest_folder(corpus.root, name)),
        format_name=chosen.name,
        settings=chosen.settings(),
        left_out=chosen.left_out,
        divide=chosen.divide,
        allowed_licences=allowed_licences,
    )
    check_export(plan, chosen, out)
    if dry_run:
        return DatasetExport(
            plan=plan, page=None, num_units=0, num_written=0, elapsed_s=time.monotonic() - started_s
        )
    run_id = new_run_id()
    if not (out / PAGE).is_file():
        record_export(corpus, plan, "", out, run_id)  # a stopped one holds episodes too
    with progress_of("segments", plan.num_segments) as progress:
        executor = resources.executor(UNIT_LIMITS, usual_workers=_usual_workers(plan))
        done = run_export(plan, chosen, out, executor, progress)
    record_export(corpus, plan, done.page["sha256"], out, run_id)
    name_origin(out, corpus)
    return DatasetExport(
        plan=plan,
        page=done.page,
        num_units=done.num_units,
        num_written=done.num_written,
        elapsed_s=time.monotonic() - started_s,
    )


def _usual_workers(plan: ExportPlan) -> int | None:
    """None of its own for a small lerobot-v3: a worker starts for longer than this process copies the packets. Others decode."""
    is_small = plan.num_segments <= SMALL_SEGMENTS and plan.num_bytes <= SMALL_BYTES
    return 0 if plan.format == ExportFormat.LEROBOT_V3 and is_small else None


def format_of(name: str) -> Format:
    """The format of that name, with its usual settings."""
    from ingest.export.datasets.formats import FORMATS

    return FORMATS[name]()


def lda(low_tier: str | None) -> Format:
    """The format `lda` with the option of the command.

    Raises:
        ConfigError: an unknown word.
    """
    from ingest.export.datasets.lda import Lda

    if low_tier not in (None, "leave-out", "forecasting"):
        raise ConfigError(f"--low-tier {low_tier!r}; expected leave-out or forecasting")
    return Lda(low_as_video=low_tier == "forecasting")


def lingbot_va(
    weights: Path | None, untrained: int | None, frame_stride: int | None, size: str | None
) -> Format:
    """The format `lingbot-va` with the options of the command.

    Raises:
        ConfigError: both weights and a seed, or a size that is not HxW.
    """
    from ingest.export.datasets.lingbot_va import LingBotVa
    from ingest.models.wan_encoders import WanWeights

    if weights is not None and untrained is not None:
        raise ConfigError("--weights and --untrained exclude each other")
    named: dict[str, Any] = {} if frame_stride is None else {"frame_stride": frame_stride}
    if size is not None:
        pixels = re.fullmatch(r"([1-9]\d{1,3})x([1-9]\d{1,3})", size)
        if pixels is None:
            raise ConfigError(f"--size {size!r}; expected HxW, such as 256x320")
        named["height_px"], named["width_px"] = (int(n) for n in pixels.groups())
    if weights is not None or untrained is not None:
        folder = "" if weights is None else str(weights)
        named["weights"] = WanWeights(folder=folder, untrained_seed=untrained)
    return LingBotVa(**named)


def format_with(
    to: str,
    *,
    low_tier: str | None = None,
    weights: Path | None = None,
    untrained: int | None = None,
    frame_stride: int | None = None,
    size: str | None = None,
) -> Format:
    """The format of that name with the options of a command or a spec, which are its own.

    Raises:
        ConfigError: see `lda` and `lingbot_va`.
    """
    if to == ExportFormat.LINGBOT_VA:
        return lingbot_va(weights, untrained, frame_stride, size)
    if to == ExportFormat.LEROBOT_V3:
        return LeRobotV3()  # the modules of the others take a fifth of a second to load
    return lda(low_tier) if to == ExportFormat.LDA else format_of(to)


def verify_export(out: Path, name: str | None = None) -> tuple[Mapping[str, Any], list[str]]:
    """The page of an export, and what is wrong with its files: those that changed, then the rules of the format that they break.

    Raises:
        ConfigError: no finished export, or one of another format.
    """
    from ingest.export.rules.check import check_rules

    page = read_page(out)
    if name is not None and page["format"] != name:
        raise ConfigError(f"an export as {page['format']}; expected {name}", where=str(out))
    return page, [*check_files(out, page), *check_rules(out, page)]
