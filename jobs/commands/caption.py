"""`eicorpus caption CORPUS`: writes captions for segments that have none of this backend. Source texts stay."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
import typer

from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout, open_corpus
from ingest.corpus.snapshot import Snapshot
from ingest.curation.captions.audit import as_csv, as_html, result_of, sample
from ingest.curation.captions.settings import CaptionSettings
from ingest.curation.captions.work import sheets_of
from jobs.stages.caption import (
    CaptionResult,
    caption_backend,
    num_uncaptioned,
    run_caption,
    settings_from,
)
from jobs.ui.options import AsJson, CorpusWithFiles, DryRun
from jobs.ui.output import answer_json, exit_1, outside, stdout, table
from schemas.errors import ConfigError, SourceError, system_error_text
from schemas.regular_file import read_regular

MAX_TEXT_BYTES = 256 << 20


def text_of(path: Path) -> str:
    """A file that the user named; raises ConfigError."""
    try:
        return read_regular(path, max_bytes=MAX_TEXT_BYTES).decode("utf-8")
    except (SourceError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot be read: {error}", remedy="check the path and the permissions", where=str(path)
        ) from error


def command(
    corpus: CorpusWithFiles,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="rules|openai|transformers|replay",
            help="Backend that writes captions. Default: rules, which rewrites the source's own texts without a model.",
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="EICORPUS_CAPTION_ENDPOINT",
            help="OpenAI-compatible server, such as http://127.0.0.1:8000/v1.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            envvar="EICORPUS_CAPTION_MODEL",
            help="Model name (openai) or folder (transformers).",
        ),
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSONL of captions for --backend replay.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file with caption settings.")
    ] = None,
    only_missing: Annotated[
        bool,
        typer.Option(
            "--only-missing",
            help="Caption only segments without a usable source text: skip those whose own text passes the caption checks.",
        ),
    ] = False,
    limit: Annotated[int | None, typer.Option(min=0, help="Caption at most N segments.")] = None,
    dry_run: DryRun = False,
    audit: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a sample of captions for human review."),
    ] = None,
    audited: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Print the accuracy from an audit.csv of --audit that people filled in.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write captions for segments that have none of this backend, model and prompt. Run it again to resume."""
    options = {"backend": backend, "model": model, "replay_file": str(replay) if replay else None}
    settings = settings_from(config, options | {"only_missing": only_missing or None}, endpoint)
    opened = open_corpus(corpus)
    if audit is not None:
        # for a model folder the catalog also has a digest, which is not worth reading here
        only = {"backend": backend, "model": model if backend == "openai" else None}
        _print_result(_write_audit(opened, settings, audit, only), as_json=as_json)
        return
    if audited is not None:
        result = result_of(text_of(audited), str(audited))
        failure = f"the captions failed the audit: {result.why}" if result.has_failed else ""
        _print_result({"audit": result.verdict.value, "why": result.why}, failure, as_json=as_json)
        return
    asked = caption_backend(opened, settings)
    if dry_run:
        todo = num_uncaptioned(opened, snapshot.load(opened.root), asked, settings)
        _print_result({"to_do": todo, "backend": asked.id}, as_json=as_json)
        return
    done = run_caption(opened, asked, settings, limit)
    _print_result(_report(done), done.failure, as_json=as_json)


def _report(done: CaptionResult) -> dict[str, Any]:
    tally, total = done.tally, done.total
    return {
        "backend": done.backend,
        "model": done.model,
        "to_do": total,
        "captioned": tally.captioned,
        "skipped": tally.skipped,
        "failed": tally.failed,
        "left": total - tally.captioned - tally.skipped - tally.failed,
        "outcomes": dict(tally.outcomes),
        "checks_failed": dict(tally.checks_failed),
        "reasons": dict(tally.reasons),
        "from_cache": tally.cached,
        "controls": {kind: list(counts) for kind, counts in tally.false_captions.items()},
        "run_checks": {
            check.name: f"{check.verdict.value} {check.why}".strip() for check in tally.run_checks()
        },
        "stopped": tally.stopped,
        "snapshot": done.snapshot,
        "elapsed_s": round(done.elapsed_s, 3),
    }


def _write_audit(
    corpus: CorpusLayout, settings: CaptionSettings, folder: Path, only: dict[str, str | None]
) -> dict[str, Any]:
    """A sample of all captions, or of those of a backend and model."""
    outside(corpus.root, folder, "--audit")
    current = snapshot.load(corpus.root)
    chosen = _drawn(corpus, current, only)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "audit.csv").write_text(as_csv(chosen))
        shown = list(zip(chosen, sheets_of(corpus, current, chosen, settings), strict=True))
        (folder / "audit.html").write_text(as_html(shown))
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {system_error_text(error, str(folder))}",
            remedy="check the permissions and the disk, or choose another folder",
            where=str(folder),
        ) from error
    return {"captions": len(chosen), "written": str(folder)}


def _drawn(
    corpus: CorpusLayout, current: Snapshot, only: dict[str, str | None]
) -> list[Mapping[str, Any]]:
    """By few columns first: a million captions with their descriptions are gigabytes."""
    rows = current.read(corpus.root, "captions", ["caption_id", "outcome", "backend", "model"])
    for name, value in only.items():
        rows = rows.filter(pc.equal(rows[name], value)) if value is not None else rows
    drawn = [row["caption_id"] for row in sample(rows.to_pylist(), count=100, seed=0)]
    whole = current.read(
        corpus.root, "captions", only=pc.field("caption_id").isin(pa.array(drawn, pa.string()))
    )
    return sample(whole.to_pylist(), count=100, seed=0)


def _print_result(answer: dict[str, Any], failure: str = "", *, as_json: bool) -> None:
    """Print the answer; exit with 1 if there is a failure."""
    if as_json:
        answer_json(answer, failure)
    else:
        _show(answer)
    if failure:
        exit_1(failure)


def _show(answer: dict[str, Any]) -> None:
    rows = [
        [key, ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value]
        for key, value in answer.items()
        if value not in ({}, "")
    ]
    stdout.print(table("caption", ["item", "value"], rows))
