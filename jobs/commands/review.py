"""`eicorpus review import | export | sample | agreement`: what people say of episodes."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.corpus.reviews import read, submit
from ingest.curation.reviews.agreement import CountedShare, agreement
from ingest.curation.reviews.files import Defaults, as_file, check_suffix, read_reviews
from ingest.curation.reviews.sample import near_threshold
from ingest.curation.tiers.explain import policy_in_force
from ingest.curation.tiers.policy import BUILT_IN, QualityPolicy, load_policy
from ingest.curation.tiers.tier import judge
from jobs.ui.options import AsJson, CorpusArgument, PolicyName
from jobs.ui.output import answer_json, outside, stdout, table
from jobs.ui.output_file import Overwrite, check_absent, write_file

app = typer.Typer(
    no_args_is_help=True,
    help="Import and export reviews by people, and compare them with a policy.",
)


@app.command("import")
def import_command(
    corpus: CorpusArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .csv, .jsonl or .parquet file.")],
    author: Annotated[str | None, typer.Option(help="Author of rows that have none.")] = None,
    as_json: AsJson = False,
) -> None:
    """Store reviews, also while another command writes. The next command that writes publishes them. The same file again adds nothing."""
    opened = open_corpus(corpus)
    now = snapshot.load(opened.root).number
    defaults = Defaults(author=author, at=datetime.now(UTC), snapshot=now)
    rows = read_reviews(file, defaults)
    new = len({each.review_id for each in submit(opened, rows) if each.is_new})
    if as_json:
        answer_json({"rows": len(rows), "new": new})
    else:
        stdout.print(f"{len(rows):,} reviews, {new:,} of them new; the next write publishes them")


@app.command("export")
def export_command(
    corpus: CorpusArgument,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="File to write: .csv, .jsonl or .parquet.")
    ],
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write all reviews to a file that `review import` reads, pending ones too. Texts in a CSV are not made safe for spreadsheets."""
    opened = open_corpus(corpus)
    check_suffix(out)
    outside(opened.root, out, "--out")
    check_absent(out, f"--out {out}", overwrite=overwrite)
    stored = read(opened)
    data = as_file(out.suffix, [each.review for each in stored])
    write_file(out, data, f"--out {out}", overwrite=overwrite)
    pending = sum(each.is_pending for each in stored)
    if as_json:
        answer_json({"reviews": len(stored), "pending": pending, "out": str(out)})
    else:
        stdout.print(f"{len(stored):,} reviews, {pending:,} of them pending")


@app.command("sample")
def sample_command(
    corpus: CorpusArgument,
    measurement: Annotated[str, typer.Option(help="A measurement that the policy compares.")],
    near_threshold_: Annotated[
        int, typer.Option("--near-threshold", min=1, help="How many episodes or stretches.")
    ] = 50,
    policy: PolicyName = None,
    seed: Annotated[int, typer.Option(help="Decides between equal distances.")] = 0,
    as_json: AsJson = False,
) -> None:
    """List the episodes and stretches whose measurement is nearest to a threshold of the policy."""
    root = open_corpus(corpus).root
    current = snapshot.load(root)
    chosen = _policy(root, current, policy)
    nearest = near_threshold(root, current, chosen, measurement, near_threshold_, seed)
    if as_json:
        answer_json({"policy": chosen.title, "candidates": [asdict(each) for each in nearest]})
        return
    columns = ["uid", "start", "end", "value", "threshold", "distance"]
    rows = [[getattr(each, name) for name in columns] for each in nearest]
    stdout.print(table(chosen.title, columns, rows))


@app.command("agreement")
def agreement_command(
    corpus: CorpusArgument, policy: PolicyName = None, as_json: AsJson = False
) -> None:
    """Compare the policy with the reviewers: precision and recall of each tier with 95 % intervals. Pending reviews do not count."""
    root = open_corpus(corpus).root
    current = snapshot.load(root)
    chosen = _policy(root, current, policy)
    tiers = agreement(root, current, judge(root, current, chosen))
    if as_json:
        answer_json({"policy": chosen.title, "tiers": [asdict(each) for each in tiers]})
        return
    rows: list[list[Any]] = [
        [each.tier, _shown(each.precision), _shown(each.recall)] for each in tiers
    ]
    stdout.print(table(chosen.title, ["tier", "precision", "recall"], rows))


def _policy(root: Path, current: snapshot.Snapshot, name: str | None) -> QualityPolicy:
    return load_policy(name)[0] if name else policy_in_force(root, current, BUILT_IN)


def _shown(share: CountedShare) -> str:
    if share.value is None:
        return "no reviewed segments"
    return (
        f"{share.value:.2f} ({share.low:.2f} to {share.high:.2f}; {share.correct} of {share.total})"
    )
