"""`make demo`: seven raw sources in their true layouts, robots and human hands, become one corpus, that a manifest, and that a policy.

Everything is generated; nothing is downloaded. The commands are the ones a user types.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from tests.generators import Written
from tests.generators.metaworld_hdf5 import write_many

FOLDER = Path("demo")
SOURCES = ("oxe", "lerobot", "droid", "agibot_world", "ego4d", "egodex", "metaworld_hdf5")
QUERY = (
    "select source, embodiment, count(*) as episodes, sum(length) as timesteps, "
    "round(sum(duration_s), 1) as seconds, any_value(eef_frame) as eef_frame, "
    "any_value(action_source) as action_source from episodes group by all order by 1"
)
TIERS = (
    'select source, tier, count(*) as segments, round(sum(duration_s * ("end" - start) / length), 1) as seconds, '
    "string_agg(distinct reasons[1].code, ', ' order by reasons[1].code) as first_reasons "
    "from tiers join episodes using (uid) group by all order by all"
)
NUM_PLAYS = 24  # of the source that there is enough of to learn from
MANIFEST = "first"
NO_COPIES = "uid NOT IN (SELECT uid FROM redundant)"


def sh(*words: str | Path) -> None:
    """Show a command, run it, and stop the demo when it fails."""
    command = [str(word) for word in words]
    sys.stdout.write(f"\n$ {shlex.join(command)}\n")
    sys.stdout.flush()
    executable = Path(sys.executable).with_name(command[0])
    subprocess.run([str(executable), *command[1:]], check=True)


def raw_of(name: str, folder: Path) -> Written:
    """Generated raw data of a source."""
    if name == "metaworld_hdf5":
        return write_many(folder, NUM_PLAYS)
    written: Written = import_module(f"tests.generators.{name}").write(folder)
    return written


def curate(corpus: Path) -> None:
    """What each segment may teach and why, one language, no copies, what a trainer reads, and a page about it."""
    sh("eicorpus", "measure", corpus)
    sh("eicorpus", "tier", corpus)
    sh("eicorpus", "query", TIERS, "--corpus", corpus)
    sh("eicorpus", "caption", corpus, "--backend", "rules")
    sh("eicorpus", "dedup", corpus)
    sh("eicorpus", "latents", corpus, "--encoder", "dinov3_tiny", "--untrained", "0")
    split = ("--split-by", "episode", "--val", "0.2")  # a small corpus: a fifth is held out
    sh("eicorpus", "manifest", "build", MANIFEST, "--corpus", corpus, "--where", NO_COPIES, *split)
    sh("eicorpus", "manifest", "verify", MANIFEST, "--corpus", corpus)
    sh("eicorpus", "report", corpus, "--html", FOLDER / "report.html")


def learn(corpus: Path) -> None:
    """A small network, for a minute, and what it says of episodes that it never saw."""
    run = FOLDER / "run"
    sh("eicorpus", "train", "--manifest", corpus / "manifests" / MANIFEST, "--recipe", "tiny", "--out", run)  # fmt: skip
    beaten = ("--must-beat", "copy_last_frame", "--must-beat", "zero_action")
    sh("eicorpus", "eval", run, "--ema", *beaten, "--html", FOLDER / "eval.html")


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    corpus = FOLDER / "corpus"
    for name in SOURCES:
        raw = FOLDER / "raw" / name
        raw.mkdir(parents=True)
        written = raw_of(name, raw)
        options = [f"--option={key}={value}" for key, value in written.options.items()]
        sh("eicorpus", "ingest", name, written.root, "--out", corpus, *options)
    sh("eicorpus", "query", QUERY, "--corpus", corpus)
    sh("eicorpus", "verify", corpus, "--peer")
    sh("eicorpus", "digest", corpus)
    curate(corpus)
    learn(corpus)


if __name__ == "__main__":
    main()
