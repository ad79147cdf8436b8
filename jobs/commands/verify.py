"""`eicorpus verify CORPUS [--peer]` and `eicorpus digest CORPUS`. Every check and its remedy: docs/how-to/verify.md."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ingest.corpus import snapshot
from ingest.corpus.publishing import working_copy
from ingest.corpus.remote_link import address_of
from ingest.corpus.writer import complete
from ingest.export.format_names import ExportFormat
from ingest.verify.corpus import VerifyProgress
from ingest.verify.digest import digest
from ingest.verify.finding import Finding
from ingest.verify.peer import Peer, findings_of, peer_reports
from jobs.commands.peer import peer as reference_reader
from jobs.machine import usable_cores
from jobs.stages.verify import failure_of, run_verify
from jobs.ui.options import AsJson, CorpusArgument, CorpusWithFiles, Threads
from jobs.ui.output import answer_json, exit_1, stderr, stdout, table
from jobs.ui.progress import ProgressLine

SHOWN_FINDINGS = 200


def command(
    corpus: CorpusArgument,
    as_format: Annotated[
        ExportFormat | None,
        typer.Option("--as", help="CORPUS is the folder of an export in this format."),
    ] = None,
    peer: Annotated[
        bool,
        typer.Option(
            "--peer", help="Also read every episode with LeRobot 0.3.3 (see `eicorpus peer`)."
        ),
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Decode every frame instead of the first and the last.")
    ] = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Check every file of a corpus against its latest snapshot, or of an export against its page and the rules of its format."""
    if as_format is not None:
        _verify_export(corpus, as_format, as_json=as_json)
        return
    reader = reference_reader() if peer else None
    done = run_verify(corpus, threads or usable_cores(), deep=deep)
    seen, findings, summary = done.seen, done.findings, None
    if reader is not None:
        if (copy := working_copy(corpus)) is not None:
            complete(copy, snapshot.load(corpus))
        of_reader, summary = read_by_peer(corpus, seen.datasets, reader)
        findings += of_reader
    answer = {
        "ok": not findings,
        "corpus": address_of(corpus),
        "snapshot": seen.snapshot,
        "datasets": len(seen.datasets),
        "episodes": seen.episodes,
        "frames": seen.frames,
        "findings": [asdict(each) for each in findings],
        "notices": notices_of(seen),
        "peer": summary,
    }
    failure = failure_of(findings)
    if as_json:
        answer_json(answer, failure)
    else:
        show(answer, findings)
    if failure:
        exit_1(failure)


def _verify_export(out: Path, as_format: ExportFormat, *, as_json: bool) -> None:
    from jobs.stages.export_datasets import verify_export

    page, problems = verify_export(out, as_format)
    failure = (
        f"{len(problems):,} findings: files that changed, or rules of {as_format} that are broken"
        if problems
        else ""
    )
    if as_json:
        answer_json(
            {"ok": not problems, "files": len(page["files"]), "findings": problems}, failure
        )
    else:
        for each in problems[:SHOWN_FINDINGS]:
            stdout.print(each, markup=False, highlight=False)
        outcome = f"{len(problems)} findings" if problems else "OK"
        count = f"{page['segments']:,} segments, {len(page['files']):,} files"
        stdout.print(f"{outcome}: {count}", highlight=False)
    if failure:
        exit_1(failure)


def read_by_peer(
    corpus: Path, datasets: list[str], peer: Peer
) -> tuple[list[Finding], dict[str, Any]]:
    """Findings of the reference reader, and how much it read."""
    findings: list[Finding] = []
    episodes = frames = 0
    reader = ""
    with ProgressLine(stderr, "peer", len(datasets)) as line:
        answers = peer_reports(corpus, datasets, peer, progress=line.update)
        for path, answer in answers:
            findings += findings_of(path, answer)
            if not isinstance(answer, Finding):
                episodes, frames = episodes + answer.episodes, frames + answer.frames
                reader = answer.reader
    return findings, {
        "ok": not findings,
        "reader": reader,
        "datasets": len(datasets),
        "episodes": episodes,
        "frames": frames,
    }


def notices_of(seen: VerifyProgress) -> list[str]:
    """What holds, and a user should know."""
    return [
        f"{each.videos:,} videos have the H.264 profile {profile}, which Firefox and Safari do not play (one is {each.first}). "
        "Training reads them, and nothing was lost by encoding them again. Where a browser does not play them, `eicorpus serve` shows single frames."
        for profile, each in sorted(seen.not_played.items())
    ]


def show(answer: dict[str, Any], findings: list[Finding]) -> None:
    """A table of findings with their remedies, or one line. Notices come first."""
    for notice in answer["notices"]:
        stdout.print(f"Note: {notice}", markup=False, highlight=False, soft_wrap=True)
    size = (
        f"{answer['episodes']:,} episodes, {answer['frames']:,} timesteps, "
        f"{answer['datasets']:,} datasets of snapshot {answer['snapshot']}"
    )
    if answer["peer"]:
        size += f"; {answer['peer']['episodes']:,} episodes read by {answer['peer']['reader']}"
    if not findings:
        stdout.print(f"OK: {size}", highlight=False, soft_wrap=True)
        return
    rows = [[f.path, f.check.value, f.message] for f in findings]
    stdout.print(table("", ["file", "check", "finding"], rows[:SHOWN_FINDINGS]))
    if len(rows) > SHOWN_FINDINGS:
        stdout.print(f"and {len(rows) - SHOWN_FINDINGS} more; --json lists all")
    remedies = {f.check: f.remedy for f in findings}
    for check, count in Counter(f.check for f in findings).most_common():
        text = f"{check} ({count}): {remedies[check]}"
        stdout.print(text, markup=False, highlight=False, soft_wrap=True)
    stdout.print(f"{len(findings)} findings in {size}", highlight=False, soft_wrap=True)


def digest_command(
    corpus: CorpusWithFiles, threads: Threads = None, as_json: AsJson = False
) -> None:
    """Print a digest of all episodes, computed from the files. Corpora with equal episodes have equal digests."""
    with ProgressLine(stderr, "digest") as line:
        digested = digest(corpus, progress=line.update, workers=threads or usable_cores())
    if digested.changed:
        stderr.print(
            f"{digested.changed} of {digested.episodes} episodes changed after their commit; "
            f"run eicorpus verify {corpus} for the list",
            markup=False,
        )
    if as_json:
        answer_json(
            {"digest": digested.sha256, "episodes": digested.episodes, "changed": digested.changed}
        )
    else:
        typer.echo(digested.sha256)
