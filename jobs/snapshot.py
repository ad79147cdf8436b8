"""`eicorpus snapshot list | diff A B`: the history of a catalog."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.corpus.snapshot_list import SnapshotInfo, list_snapshots
from ingest.maintenance.snapshot_diff import SnapshotDiff, snapshot_diff
from jobs.output import answer_json, size_text, stdout, table

SHOWN = 50
app = typer.Typer(no_args_is_help=True, help="The history of a catalog: list, diff.")
CorpusOption = Annotated[Path, typer.Option("--corpus", help="The corpus; it is only read.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.command("list")
def list_command(corpus: CorpusOption, as_json: Json = False) -> None:
    """Every snapshot that is still there, and the manifests that were built from it."""
    found = list_snapshots(open_corpus(corpus).root)
    if as_json:
        answer_json({"snapshots": [asdict(entry) for entry in found]})
        return
    columns = ["snapshot", "published", "command", "episodes", "rows", "parts", "size", "manifests"]
    stdout.print(table("", columns, [_row(entry) for entry in found]))


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
    a: Annotated[int, typer.Argument(min=0, help="A snapshot; 0 is the empty corpus.")],
    b: Annotated[int, typer.Argument(min=0, help="Another one.")],
    corpus: CorpusOption,
    as_json: Json = False,
) -> None:
    """Rows of each table that came and went from A to B. Compaction changes none."""
    root = open_corpus(corpus).root
    found = snapshot_diff(root, _snapshot(root, a), _snapshot(root, b))
    if as_json:
        answer_json({"a": a, "b": b, **asdict(found)})
    else:
        _show(found)


def _snapshot(root: Path, number: int) -> snapshot.Snapshot:
    return snapshot.load(root, number) if number else snapshot.Snapshot()


def _show(found: SnapshotDiff) -> None:
    changed = [t for t in found.tables if t.added or t.removed]
    if not changed:
        stdout.print("not a row differs")
        return
    rows: list[list[Any]] = [[t.table, t.rows_a, t.rows_b, t.added, t.removed] for t in changed]
    stdout.print(table("", ["table", "rows of A", "rows of B", "added", "removed"], rows))
    for title, episodes in (("episodes added", found.added), ("episodes removed", found.removed)):
        if episodes:
            shown = [list(each) for each in episodes[:SHOWN]]
            stdout.print(table(f"\n{title}", ["uid", "source", "episode"], shown))
        if len(episodes) > SHOWN:
            stdout.print(f"and {len(episodes) - SHOWN} more; --json lists all")
