"""`eicorpus dedup CORPUS`: duplicate recordings and which to keep; with --against, leakage of evaluation data into training."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
import typer

from ingest.catalog.next_command import next_command
from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout, open_corpus
from ingest.corpus.manifest_folders import open_manifest_folder
from ingest.curation.duplicates.cluster import evidence_of, numbers_of
from ingest.curation.duplicates.compare import Thresholds
from ingest.curation.duplicates.find import Side, find_leaks
from ingest.curation.duplicates.leakage import REMEDIES
from ingest.curation.duplicates.signatures import Signatures
from jobs.stages.dedup import (
    MEASURES,
    DedupResult,
    counted,
    parts_of,
    run_dedup,
    signatures_of,
)
from jobs.stages.resources import Resources
from jobs.ui.options import AsJson, CorpusArgument, DryRun, OnRay, RayAddress, Workers
from jobs.ui.output import answer_json, duration, exit_1, progress_of, stdout, table
from schemas import manifest
from schemas.catalog_rows import as_dict
from schemas.committed_rows import DuplicateRow
from schemas.errors import ConfigError
from schemas.split import SPLITS

SHOWN = 200


def command(
    corpus: CorpusArgument,
    against: Annotated[
        str | None,
        typer.Option(
            help="Check for leakage instead: list episodes of the train split that have a duplicate in `val` or `test` of the corpus, or in a manifest (its folder, or FOLDER:val, FOLDER:test). Exit 1 if any."
        ),
    ] = None,
    workers: Workers = None,
    ray: OnRay = False,
    address: RayAddress = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Find duplicate recordings across sources and mark one copy of each to keep. Deletes nothing."""
    opened = open_corpus(corpus)
    resources = Resources(workers=workers, use_ray=ray, address=address)
    started = time.monotonic()
    with progress_of("dedup"):
        if against is not None:
            answer = _leaks(opened, against, resources)
        else:
            answer = _copies(run_dedup(opened, resources, dry_run=dry_run))
    answer["elapsed_s"] = round(time.monotonic() - started, 3)
    failure = ""
    if against is not None and (answer["leaks"] or answer["unmeasured"]):
        failure = f"{answer['leaks']:,} episodes have a duplicate in {against}, {answer['unmeasured']:,} are not measured"
    if as_json:
        answer_json(answer, failure)
    else:
        _print_result(answer, opened.root)
    if failure:
        exit_1(failure)


def _copies(done: DedupResult) -> dict[str, Any]:
    return {
        **asdict(done.compared),
        "candidates": done.candidates,
        "crowded": done.crowded,
        **asdict(done.clusters),
        "by_source": done.by_source,
        "duplicates": [_without_run(row) for row in done.rows[:SHOWN]],
        "snapshot": done.snapshot,
        "committed": done.committed,
    }


def _without_run(row: DuplicateRow) -> Mapping[str, object]:
    """A decision, committed or not."""
    return {n: value for n, value in as_dict(row).items() if n not in ("run_id", "snapshot")}


def _leaks(corpus: CorpusLayout, against: str, resources: Resources) -> dict[str, Any]:
    current = snapshot.load(corpus.root)
    signatures = signatures_of(corpus, current)
    splits = current.read(corpus.root, "episodes", ["uid", "split"]).sort_by("uid")["split"]
    is_reference, is_checked, absent = _sides(corpus, signatures, splits, against)
    with parts_of(corpus, resources) as parts:
        leaks = find_leaks(corpus.root, current, signatures, is_reference, Thresholds(), parts)
    rows = [
        {
            "uid": signatures.uids[checked],
            "of": signatures.uids[reference],
            "split": splits[int(checked)].as_py(),
            "evidence": evidence_of(leaks.judged, place, is_exact=bool(leaks.is_exact[place])),
            **numbers_of(leaks.judged, place),
        }
        for place, (checked, reference) in enumerate(
            zip(leaks.checked, leaks.reference, strict=True)
        )
        if is_checked[checked]
    ]
    if not is_reference.any():
        raise ConfigError(
            f"no episode of {against} is in this corpus ({absent} are missing): nothing to compare with",
            remedy="pass a manifest of this corpus",
        )
    return {
        **asdict(counted(signatures, is_reference | is_checked)),
        "against": against,
        "reference": int(is_reference.sum()),
        "reference_absent": absent,
        "checked": int(is_checked.sum()),
        "leaks": len({row["uid"] for row in rows}),
        "pairs": rows[:SHOWN],
        "crowded": leaks.crowded,
        "snapshot": current.number,
    }


def _sides(
    corpus: CorpusLayout, signatures: Signatures, splits: Any, against: str
) -> tuple[Side, Side, int]:
    """Which episodes are the reference, which are checked, and how many of a manifest are not in this corpus."""
    if against in SPLITS:
        if against == "train":
            raise ConfigError("expected val, test or a manifest, not train")
        return (
            pc.equal(splits, against).to_numpy(zero_copy_only=False).astype(bool),
            pc.equal(splits, "train").to_numpy(zero_copy_only=False).astype(bool),
            0,
        )
    matched = re.fullmatch(
        r"([A-Za-z0-9][A-Za-z0-9._-]*(?:/[0-9a-f]{16})?)(?::(val|test))?", against
    )
    if matched is None:
        raise ConfigError(
            f"{against!r} is neither a split (val, test) nor a manifest (NAME, NAME:val, NAME:test)"
        )
    name, split = matched.groups()
    rows = manifest.load(open_manifest_folder(corpus.root, name)).rows.select(["uid", "split"])
    named = rows.filter(pc.equal(rows["split"], split)) if split else rows
    is_reference, absent = _in_corpus(signatures, named)
    if split is None:
        return is_reference, ~is_reference, absent
    is_checked, _ = _in_corpus(signatures, rows.filter(pc.equal(rows["split"], "train")))
    return is_reference, is_checked, absent


def _in_corpus(signatures: Signatures, rows: pa.Table) -> tuple[Side, int]:
    """[N] which episodes the rows name, and how many of those are not in this corpus."""
    uids = pc.unique(rows["uid"])
    all_uids = pa.array(signatures.uids, pa.string())
    is_named = pc.is_in(all_uids, value_set=uids).to_numpy(zero_copy_only=False)
    return is_named, len(uids) - int(is_named.sum())


def _print_result(answer: dict[str, Any], root: Path) -> None:
    if not answer["episodes"]:
        note = f"nothing to compare: snapshot {answer['snapshot']} has no episode"
        stdout.print(note, highlight=False)
        return
    lists = {name: value for name, value in answer.items() if isinstance(value, list)}
    plain = [
        [name, duration(value) if name == "elapsed_s" else value]
        for name, value in answer.items()
        if name not in lists
    ]
    stdout.print(table("dedup", ["item", "value"], plain))
    for name, rows in lists.items():
        if rows:
            columns = list(rows[0])
            cells = [["" if row[c] is None else row[c] for c in columns] for row in rows]
            stdout.print(table(name, columns, cells))
    if answer.get("leaks"):
        build = next_command("manifest build NAME", root)
        stdout.print(
            f"run {next_command('dedup', root)}, then {build} with:\n{REMEDIES}", markup=False
        )
    if answer["unmeasured"]:
        stdout.print(
            f"{answer['unmeasured']} episodes have no signatures and were compared by bytes at most; "
            f"run {next_command(f'measure {MEASURES}', root)}",
            markup=False,
        )
