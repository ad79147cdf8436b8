"""The pipeline as a user would run it: `eicorpus` commands, their output kept in a log for each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.routing.settings import Arm, Places, Settings
from schemas.errors import ConfigError

POLICIES = Path(__file__).parent / "policies"
VAL_SHARE = 0.1


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


def latents(places: Places, settings: Settings) -> dict[str, Any]:
    weights = () if settings.weights is None else ("--weights", settings.weights)
    return eicorpus(
        places,
        "latents",
        *("latents", "images", str(places.corpus)),
        *("--encoder", settings.encoder, *weights),
    )


def manifest(
    places: Places,
    name: str,
    *,
    where: str,
    policy: str | None,
    workers: int,
    val_share: float = VAL_SHARE,
) -> dict[str, Any]:
    """The split is by episode and the same for every arm: a hash of the episode's own name."""
    chosen = () if policy is None else ("--policy", str(POLICIES / f"{policy}.yaml"))
    shares = ("--split-by", "episode", "--val", str(val_share), "--test", "0")
    return eicorpus(
        places,
        f"manifest-{name}",
        *("manifest", "build", str(places.corpus), name, "--where", where),
        *(*chosen, *shares, "--workers", str(workers)),
    )


def trained_tasks(names: Sequence[str]) -> str:
    """WHERE: episodes of these tasks."""
    return f"split_part(episode_id, '/', 1) IN ({', '.join(repr(name) for name in names)})"


def policy_share(run: Path) -> float:
    """Of the samples of a training, how many were trained on policy: as its log counts them."""
    lines = (run / "log.jsonl").read_text().splitlines()
    counts = [json.loads(line)["num_by_task"] for line in lines]
    return float(sum(c["policy"] for c in counts) / sum(sum(c.values()) for c in counts))


def num_steps_of(places: Places, settings: Settings, arm: Arm, seed: int) -> int:
    """All arms alike; one that is as brief as another gets that one's policy samples, which is then trained already."""
    if arm.as_brief_as is None:
        return settings.num_steps
    share = policy_share(places.run(arm.as_brief_as, seed))
    return max(1, round(settings.num_steps * share))


def recipe_text(settings: Settings, arm: Arm, seed: int, num_steps: int) -> str:
    """What an arm changes in the recipe that all extend: what is trained on, how long, and the seed."""
    return yaml.safe_dump(
        {
            "extends": settings.recipe,
            "name": f"routing-{arm.name.replace('_', '-')}-{seed}",
            "seed": seed,
            "data": {"encoder": settings.encoder},
            "routing": {"draw": "segment", "weights": arm.weights},
            "text": {"kind": "words"},
            "run": {"num_steps": num_steps},
        },
        sort_keys=False,
    )


def train(places: Places, settings: Settings, arm: Arm, seed: int) -> dict[str, Any]:
    recipe = places.recipe(arm.name, seed)
    recipe.parent.mkdir(parents=True, exist_ok=True)
    num_steps = num_steps_of(places, settings, arm, seed)
    recipe.write_text(recipe_text(settings, arm, seed, num_steps))
    manifest_folder = places.corpus / "manifests" / arm.manifest
    inputs = (str(manifest_folder), "--recipe", str(recipe))
    out = ("--out", str(places.run(arm.name, seed)))
    return eicorpus(places, f"train-{arm.name}-{seed}", "train", *inputs, *out, has_one_thread=True)


def evaluate(places: Places, arm: Arm, seed: int) -> dict[str, Any]:
    """Open loop, on the val episodes of experts: the same for every arm."""
    run = str(places.run(arm.name, seed))
    held_out = ("--manifest", str(places.corpus / "manifests" / "held_out"))
    options = (
        *held_out,
        "--allow-other-manifest",
        "--split",
        "val",
        "--ema",
    )  # as it is rolled out
    return eicorpus(places, f"eval-{arm.name}-{seed}", "eval", run, *options)
