"""A corpus as an earlier commit of eicorpus writes it, left unfinished. Runs under that commit: `python -P released.py FOLDER`.

Nothing of the present checkout is imported here: `tests`, `ingest` and `jobs` are those of the commit on PYTHONPATH.
Last line of standard output: one JSON object, what that commit says about its own corpus.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ingest.executor import (
    InlineExecutor,
)  # has the disk of that commit, whatever its class is called
from ingest.plan import Request, make_plan
from ingest.process import Work, process
from typer.testing import CliRunner

from ingest import snapshot
from ingest.corpus import Corpus
from ingest.recipe import Recipe
from jobs.cli import app
from jobs.demo.raw import agibot_world, egodex, lerobot, oxe
from tests.faults.toy import write_toy

TOY = "tests.faults.toy:Toy"
TOY_EPISODES = {"a": "good", "b": "quarantine", "c": "good", "d": "short", "e": "good", "f": "good"}
LIMITS = ((TOY, 4), ("lerobot", 2), ("oxe", 3), ("agibot_world", 1), ("egodex", 2))
COUNTED = ("episodes", "segments", "measurements", "tiers", "runs", "sources", "tombstones")


def main() -> None:
    root = Path(sys.argv[1])
    corpus = root / "corpus"
    raw = raw_data(root / "raw")
    lenient = ("--max-quarantined", "1")
    for source, limit in LIMITS:
        words = ("--out", str(corpus), "--workers", "0", "--limit", str(limit), *lenient)
        eicorpus("ingest", source, str(raw[source]), *words)
    eicorpus("forget", str(corpus), uid_of_one(corpus, "oxe"))
    eicorpus("measure", str(corpus), "--workers", "0")
    eicorpus("tier", str(corpus))
    eicorpus("manifest", "build", "before", "--corpus", str(corpus), "--workers", "0")
    stage_one_more(corpus, raw[TOY])
    now = snapshot.load(corpus)
    counts = {table: now.read(corpus, table).num_rows for table in COUNTED}
    digest = json.loads(eicorpus("digest", str(corpus), "--json"))["digest"]
    raw_paths = {source: str(path) for source, path in raw.items()}
    sys.stdout.write(json.dumps({"counts": counts, "digest": digest, "raw": raw_paths}) + "\n")


def raw_data(root: Path) -> dict[str, Path]:
    """Raw data of each source; of most, the run leaves some episodes for later."""
    for name in ("lerobot", "oxe", "agibot_world", "egodex"):
        (root / name).mkdir(parents=True)
    return {
        TOY: write_toy(root / "toy", TOY_EPISODES),
        "lerobot": lerobot.write(root / "lerobot", width=64, height=48, gop=30).root,
        "oxe": oxe.write(root / "oxe").root,
        "agibot_world": agibot_world.write(root / "agibot_world").root,
        "egodex": egodex.write(root / "egodex").root,
    }


def uid_of_one(corpus: Path, source: str) -> str:
    rows = snapshot.load(corpus).read(corpus, "episodes", ["uid", "source"]).to_pylist()
    return next(str(row["uid"]) for row in rows if row["source"] == source)


def stage_one_more(corpus: Path, raw: Path) -> None:
    """What a run leaves that is stopped after the worker and before the commit; the raw episode is broken afterwards.

    So a later run can commit it only from staging.
    """
    request = Request(source=TOY, root=raw, options={}, recipe=Recipe())
    plan = make_plan(request, Corpus(corpus), snapshot.load(corpus))
    ref = next(ref for ref in plan.todo if ref.episode_id == "e")
    staging = str(Corpus(corpus).staged(ref.uid, plan.digest))
    process(Work(ref=ref, adapter=TOY, recipe=Recipe(), staging=staging), InlineExecutor().disk)
    write_toy(raw, {**TOY_EPISODES, "e": "quarantine"})


def eicorpus(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    if done.exit_code:
        raise SystemExit(f"{words}: {done.output}\n{done.exception!r}")
    return done.stdout


if __name__ == "__main__":
    main()
