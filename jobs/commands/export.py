"""`eicorpus export CORPUS --to FORMAT`: the catalog as Iceberg tables, or a manifest as datasets of another trainer. docs/how-to/export.md."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingest.corpus.layout import open_corpus
from ingest.export.format_names import ExportFormat
from jobs.ui.options import AsJson, CorpusWithFiles, DryRun, Workers
from jobs.ui.output import answer_json, duration, size_text, stdout, table
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from ingest.export.iceberg import Exported
    from jobs.stages.export_datasets import DatasetExport

To = Annotated[ExportFormat, typer.Option("--to", help="Format.")]


def command(
    corpus: CorpusWithFiles,
    to: To,
    manifest: Annotated[
        str | None, typer.Option(metavar="NAME", help="Manifest whose segments are exported.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Output folder, outside of the corpus. Resumes."),
    ] = None,
    allow_licence: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS",
            help="Also export this licence class: non_commercial, no_redistribution or unknown. Repeatable.",
        ),
    ] = None,
    low_tier: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="lda: leave-out segments that may not supervise a policy, or use their pictures for forecasting. Default leave-out.",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="lingbot-va: folder with vae, text_encoder and tokenizer of Wan 2.2.",
        ),
    ] = None,
    untrained: Annotated[
        int | None,
        typer.Option(metavar="SEED", help="lingbot-va: seeded networks instead, to try it."),
    ] = None,
    frame_stride: Annotated[
        int | None,
        typer.Option(metavar="N", help="lingbot-va: timesteps between two pictures. Default 1."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="lingbot-va: pixels of a picture. Default 256x320."),
    ] = None,
    warehouse: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="iceberg: folder for the tables and their SQLite catalog."
        ),
    ] = None,
    catalog: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="iceberg: catalog of the pyiceberg configuration."),
    ] = None,
    namespace: Annotated[
        str, typer.Option(help="iceberg: namespace of the tables. Use one per corpus.")
    ] = "corpus",
    dry_run: DryRun = False,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Export a manifest as datasets for another trainer, or the catalog as Iceberg tables. Run it again to resume."""
    of_datasets = {"manifest": manifest, "out": out}
    own: dict[ExportFormat, dict[str, Any]] = {  # options that one format alone has
        ExportFormat.ICEBERG: {"warehouse": warehouse, "catalog": catalog},
        ExportFormat.LDA: {"low-tier": low_tier},
        ExportFormat.LINGBOT_VA: {
            "weights": weights,
            "untrained": untrained,
            "frame-stride": frame_stride,
            "size": size,
        },
    }
    unfit = of_datasets if to is ExportFormat.ICEBERG else {}
    for each, options in own.items():
        unfit |= {} if each is to else options
    for name, value in unfit.items():
        if value is not None:
            raise ConfigError(f"--{name} does not go with --to {to}")
    if to is ExportFormat.ICEBERG:
        if dry_run:
            raise ConfigError(f"--dry-run does not go with --to {to}")
        _export_tables(corpus, warehouse, catalog, namespace, as_json=as_json)
        return
    if manifest is None or out is None:
        raise ConfigError(f"--to {to} needs --manifest NAME and --out DIR")
    from jobs.stages.export_datasets import format_with, run_dataset_export
    from jobs.stages.resources import Resources

    chosen = format_with(
        to,
        low_tier=low_tier,
        weights=weights,
        untrained=untrained,
        frame_stride=frame_stride,
        size=size,
    )
    if to is ExportFormat.LINGBOT_VA and workers is None:
        workers = 0  # each worker would load both networks
    done = run_dataset_export(
        open_corpus(corpus),
        manifest,
        out,
        chosen,
        Resources(workers=workers),
        allowed_licences=allow_licence or (),
        dry_run=dry_run,
    )
    if as_json:
        answer_json(_as_object(done, out))
    else:
        _show_datasets(done, out)


def _as_object(done: DatasetExport, out: Path) -> dict[str, Any]:
    plan = done.plan
    page = {} if done.page is None else {n: v for n, v in done.page.items() if n != "files"}
    return {
        "format": plan.format,
        "folder": str(out),
        "segments": plan.num_segments,
        "bytes_to_read": plan.num_bytes,
        "left_out": [asdict(each) for each in plan.left],
        "datasets": [
            {"folder": each.name, "episodes": each.rows.num_rows, "frames": each.num_frames}
            for each in plan.datasets
        ],
        "units": done.num_units,
        "units_written": done.num_written,
        "elapsed_s": round(done.elapsed_s, 3),
        "export": page or None,
    }


def _show_datasets(done: DatasetExport, out: Path) -> None:
    plan = done.plan
    rows = [[each.name, each.rows.num_rows, each.num_frames] for each in plan.datasets]
    stdout.print(table("", ["dataset", "episodes", "timesteps"], rows))
    for each in plan.left:
        stdout.print(f"left out: {each.segments:,} segments, {each.text}", highlight=False)
    size = f"{plan.num_segments:,} segments, about {size_text(plan.num_bytes)}"
    if done.page is None:
        stdout.print(f"{size}\ndry run: nothing was written", highlight=False)
        return
    outcome = "unchanged" if not done.num_units else f"written in {duration(done.elapsed_s)}"
    resumed = done.num_units - done.num_written
    kept = f", {resumed} of {done.num_units} parts kept from before" if resumed else ""
    stdout.print(f"{size}\n{outcome}{kept}: {done.page['sha256']}\n{out}", highlight=False)


def _export_tables(
    corpus: Path, warehouse: Path | None, catalog: str | None, namespace: str, *, as_json: bool
) -> None:
    from jobs.stages.export import run_export, warehouse_at

    opened = open_corpus(corpus)
    done = run_export(opened, warehouse_at(opened.root, warehouse, catalog, namespace))
    if as_json:
        tables = [asdict(each) for each in done.tables]
        answer_json({"snapshot": done.snapshot, "tables": tables})
    else:
        _show_tables(done.tables, done.snapshot)


def _show_tables(done: list[Exported], number: int) -> None:
    from ingest.export.warehouse import ExportStep

    words = {
        ExportStep.NOTHING: "up to date",
        ExportStep.APPEND: "rows added",
        ExportStep.REPLACE: "rows replaced",
        ExportStep.ANEW: "rewritten",
    }
    rows = [[each.table, each.rows, each.written, words[each.step]] for each in done]
    stdout.print(table("", ["table", "rows", "written", "change"], rows))
    stdout.print(f"snapshot {number}", highlight=False)
