"""`eicorpus snapshot list | diff`: the history of a catalog."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.corpus.publishing import working_copy
from ingest.corpus.snapshot_list import SnapshotInfo, list_snapshots
from ingest.corpus.state_list import list_states
from ingest.maintenance.snapshot_diff import SnapshotDiff, snapshot_diff
from jobs.ui.options import STATE_NUMBER, AsJson, CorpusArgument
from jobs.ui.output import answer_json, size_text, stdout, table

SHOWN = 50
app = typer.Typer(no_args_is_help=True, help="List and compare snapshots of the catalog.")


@app.command("list")
def list_command(corpus: CorpusArgument, as_json: AsJson = False) -> None:
    """List the snapshots of a corpus and the manifests built from each."""
    root = open_corpus(corpus).root
    copy = working_copy(root)
    snapshots = list_snapshots(root) if copy is None else list_states(copy)
    if as_json:
        answer_json({"snapshots": [asdict(entry) for entry in snapshots]})
        return
    columns = ["snapshot", "published", "command", "episodes", "rows", "parts", "size", "manifests"]
    stdout.print(table("", columns, [_row(entry) for entry in snapshots]))


def _row(entry: SnapshotInfo) -> list[Any]:
    at = datetime.fromtimestamp(entry.published_s, UTC)
    return [
        entry.number,
        f"{at:%Y-%m-%d %H:%M:%S}",
        entry.command or "unknown",
        entry.episodes,
        entry.rows,
        entry.parts,
        size_text(entry.num_bytes),
        ", ".join(entry.manifests),
    ]


@app.command("diff")
def diff_command(
    corpus: CorpusArgument,
    a: Annotated[
        int,
        typer.Argument(metavar="A", min=0, help="First snapshot. 0 is the empty corpus."),
        STATE_NUMBER,
    ],
    b: Annotated[int, typer.Argument(metavar="B", min=0, help="Second snapshot."), STATE_NUMBER],
    as_json: AsJson = False,
) -> None:
    """Count the rows that each table gained and lost between two snapshots. `compact` changes no rows."""
    root = open_corpus(corpus).root
    difference = snapshot_diff(root, _snapshot(root, a), _snapshot(root, b))
    if as_json:
        answer_json({"a": a, "b": b, **asdict(difference)})
    else:
        _show(difference)


def _snapshot(root: Path, number: int) -> snapshot.Snapshot:
    return snapshot.load(root, number) if number else snapshot.Snapshot()


def _show(difference: SnapshotDiff) -> None:
    changed = [t for t in difference.tables if t.added or t.removed]
    if not changed:
        stdout.print("no row differs")
        return
    rows: list[list[Any]] = [[t.table, t.rows_a, t.rows_b, t.added, t.removed] for t in changed]
    stdout.print(table("", ["table", "rows of A", "rows of B", "added", "removed"], rows))
    for title, episodes in (
        ("episodes added", difference.added),
        ("episodes removed", difference.removed),
    ):
        if episodes:
            shown = [list(each) for each in episodes[:SHOWN]]
            stdout.print(table(f"\n{title}", ["uid", "source", "episode"], shown))
        if len(episodes) > SHOWN:
            stdout.print(f"and {len(episodes) - SHOWN} more; --json lists all")
