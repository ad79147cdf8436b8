"""The pipeline as a user would run it: `eicorpus` commands, their output kept in a log for each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.routing.settings import Places, Settings
from schemas.errors import ConfigError

POLICIES = Path(__file__).parent / "policies"


def eicorpus(
    places: Places, step: str, *arguments: str, has_one_thread: bool = False
) -> dict[str, Any]:
    """Run a command with `--json` and give its answer. `has_one_thread`: torch takes one core, because others work beside it.

    Raises:
        ConfigError: it did not end well; the message has its own and names the log.
    """
    log = places.out / "logs" / f"{step}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "jobs", *arguments, "--json"]
    with log.open("ab") as errors:
        errors.write(f"$ eicorpus {' '.join(arguments)}\n".encode())
        errors.flush()
        # Small networks gain little from a second thread, and two trainings that share their cores lose much.
        env = os.environ | ({"OMP_NUM_THREADS": "1"} if has_one_thread else {})
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, check=False, env=env)
        errors.write(done.stdout)
    text = done.stdout.decode(errors="replace").strip()
    if done.returncode != 0:
        problem = f"`eicorpus {' '.join(arguments)}` ended with {done.returncode}: {text[-500:]}"
        raise ConfigError(f"{problem}; see {log}", where=step)
    answer = json.loads(text.splitlines()[-1])["result"] if text else {}
    return answer if isinstance(answer, dict) else {"answer": answer}


def ingest(places: Places, workers: int) -> dict[str, Any]:
    where = (str(places.raw), "--out", str(places.corpus))
    return eicorpus(places, "ingest", "ingest", "metaworld_hdf5", *where, "--workers", str(workers))


def measure(places: Places, workers: int) -> dict[str, Any]:
    return eicorpus(places, "measure", "measure", str(places.corpus), "--workers", str(workers))


def tier(places: Places) -> dict[str, Any]:
    """By the built-in policy, as it is."""
    return eicorpus(places, "tier", "tier", str(places.corpus))


def review(places: Places, tier_of: Mapping[str, str]) -> dict[str, Any]:
    """Tell tiers by label, as a person's reviews, and have them hold. `tier_of`: by uid.

    Reviews are published by the command that tiers next; a manifest of an earlier snapshot knows nothing of them.
    """
    file = places.out / "labels.jsonl"
    rows = ({"uid": uid, "kind": "tier_override", "value": tier} for uid, tier in tier_of.items())
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    stored = ("review", "import", str(places.corpus), str(file), "--author", "labels")
    eicorpus(places, "review", *stored)
    everything = ("--policy", str(POLICIES / "everything.yaml"))
    return eicorpus(places, "tier-labels", "tier", str(places.corpus), *everything)


def latents(places: Places, settings: Settings) -> dict[str, Any]:
    images = ("latents", "images", str(places.corpus), "--encoder", settings.encoder)
    return eicorpus(places, "latents", *images)


def manifest(
    places: Places,
    name: str,
    *,
    episodes: Sequence[str],
    workers: int,
    val_share: float = 0.0,
    snapshot: int | None = None,
) -> dict[str, Any]:
    """Of these episodes, by their ids; the split is by episode. All that has actions is high, but for what a review says; or tiers are those of `snapshot`."""
    where = f"episode_id IN ({', '.join(map(repr, episodes))})"
    chosen = ("--policy", str(POLICIES / "everything.yaml"))
    if snapshot is not None:
        chosen = ("--snapshot", str(snapshot))
    shares = ("--split-by", "episode", "--val", str(val_share), "--test", "0")
    return eicorpus(
        places,
        f"manifest-{name}",
        *("manifest", "build", str(places.corpus), name, "--where", where),
        *(*chosen, *shares, "--workers", str(workers)),
    )


def train(places: Places, name: str, manifest: Path, recipe: Path, *options: str) -> dict[str, Any]:
    """One training, on a core of its own: `--out` is `places.run(name)`."""
    inputs = ("train", str(manifest), "--recipe", str(recipe), "--out", str(places.run(name)))
    return eicorpus(places, f"train-{name}", *inputs, *options, has_one_thread=True)


def train_value(places: Places, name: str, seed: int) -> dict[str, Any]:
    """The value head of a training, on its averaged weights. An episode that is low by its label counts as failed: videos say nothing of their outcome."""
    weights = ("--ema", "--low-fails", "--seed", str(seed))
    return eicorpus(
        places,
        f"value-{name}",
        *("train-value", str(places.run(name)), *weights),
        has_one_thread=True,
    )
