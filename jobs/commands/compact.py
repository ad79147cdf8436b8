"""`eicorpus compact CORPUS`: fewer, larger catalog files in a new snapshot."""

from __future__ import annotations

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.corpus.writer import writing
from ingest.maintenance.compact import compact, count_parts, plan_merges
from ingest.storage.local import LocalStorage
from jobs.run_context import new_run_id
from jobs.ui.options import AsJson, CorpusArgument, DryRun
from jobs.ui.output import answer_json, progress_of, stdout, table


def command(corpus: CorpusArgument, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Merge small catalog files so that queries open fewer. Rows stay the same; `gc` deletes the old files."""
    opened = open_corpus(corpus)
    if dry_run:
        before = after = snapshot.load(opened.root)
        merges = plan_merges(opened.root, before)
    else:
        disk = LocalStorage(opened.root)
        with writing(opened, disk, always_recovers=True):
            before = snapshot.load(opened.root)
            merges = plan_merges(opened.root, before)
            with progress_of("compact"):
                after = compact(opened, disk, before, merges, new_run_id())
    rows = count_parts(merges, before)
    if as_json:
        answer_json({"snapshot": after.number, "committed": after != before, "tables": rows})
        return
    columns = ["table", "rows", "parts", "parts_after"]
    stdout.print(table("", columns, [[row[column] for column in columns] for row in rows]))
    outcome = f"snapshot {after.number}" if after != before else "dry run: nothing was changed"
    stdout.print(outcome if merges else "nothing to merge")
