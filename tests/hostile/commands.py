"""Every command that opens a corpus, in this process. A new command must be listed, here or among those that open none."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import typer.main
from typer.testing import CliRunner

from jobs.cli import app
from schemas.errors import PipelineError
from tests.hostile.corpora import TRAINED_AS, World

PATIENCE_S = 120  # a command that waits for a pipe waits for ever
# {corpus} {spec} {reviews} {raw} {run} {out} {uid} are filled in.
WORDS = {
    "ingest": "tests.faults.toy:Toy {raw} --out {corpus} --workers 0 --max-quarantined 1",
    "plan": "{spec}",
    "build": "{spec} tiers --workers 0",
    "query": "{corpus} SELECT * FROM episodes --json",
    "measure": "{corpus} --workers 0",
    "caption": "{corpus}",
    "tier": "{corpus}",
    "explain": "{corpus} {uid}",
    "view": "{corpus} {uid} --save {out}.rrd",
    "dedup": "{corpus}",
    "report": "{corpus} --html {out}.html",
    "stale": "{corpus}",
    "compact": "{corpus}",
    "gc": "{corpus} --keep 1 --older-than 0",
    "forget": "{corpus} {uid}",
    "verify": "{corpus}",
    "digest": "{corpus}",
    "manifest build": "{corpus} new --workers 0",
    "manifest show": "{corpus} m",
    "manifest diff": "{corpus} m m",
    "manifest verify": "{corpus} built",
    "list manifests": "{corpus}",
    "snapshot list": "{corpus}",
    "snapshot diff": "{corpus} 1 2",
    "review import": "{corpus} {reviews}",
    "review export": "{corpus} --out {out}.csv --overwrite",
    "review sample": "{corpus} --measurement idle_share --policy ei30k",
    "review agreement": "{corpus}",
    "export": "{corpus} --to iceberg --warehouse {out}",
    "push": "{corpus} file://{out} --allow-licence unknown",
    "latents images": "{corpus} --encoder patch_dct --workers 0 --device cpu",
    "train": f"{{corpus}}/manifests/built --out {{out}} {TRAINED_AS}",
    "eval": "{run} --manifest {corpus}/manifests/built --split train --max-samples 1 --device cpu",
}
# Why each of them is not run here.
OPEN_NONE = {
    "doctor": "raw data",
    "pull": "a place elsewhere: tests/jobs/test_push_pull.py",
    "init": "raw data",
    "serve": "a server: tests/service/test_hostile_catalog.py",
    "peer": "an environment",
    "demo": "a corpus of its own, by the commands above",
    **dict.fromkeys(
        [
            f"list {what}"
            for what in ("sources", "measures", "encoders", "models", "recipes", "policies")
        ],
        "nothing",
    ),
    "models get": "a download",
    "serve-policy": "a run",
    "train-value": "writes into a run, and reads a corpus through the doors of train: tests/training/test_value_run.py",
    "rollout": "a run, and a simulator: tests/training/test_rollout.py",
    "latents text": "a vision-language model",
    "latents actions": "a run with a latent action model",
}


def commands() -> Iterator[str]:
    """Every command of `eicorpus`, by its words."""

    def below(command: Any, words: tuple[str, ...]) -> Iterator[str]:
        if not hasattr(command, "commands"):
            yield " ".join(words)
            return
        for name, inner in command.commands.items():
            yield from below(inner, (*words, name))

    yield from below(typer.main.get_command(app), ())


class StillRunningError(BaseException):
    """No handler of the pipeline catches it."""


@dataclass(frozen=True)
class Ended:
    exit_code: int
    output: str
    error: BaseException | None


def run(name: str, world: World, uid: str) -> Ended:
    """As `eicorpus NAME ...` ends, with the exit code that `jobs.cli.main` gives."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise StillRunningError(name)

    filled = {"corpus": world.corpus, "raw": world.raw, "out": world.out, "run": world.run}
    filled |= {"uid": uid, "spec": world.spec, "reviews": world.reviews}
    words = [word.format(**filled) for word in _split(WORDS[name])]
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE_S)
    try:
        result = CliRunner().invoke(app, [*name.split(), *words])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    error = None if isinstance(result.exception, SystemExit) else result.exception
    code = getattr(error, "exit_code", 3) if isinstance(error, PipelineError) else 3
    return Ended(code if error is not None else result.exit_code, result.output, error)


def _split(words: str) -> list[str]:
    """By spaces; a query is one word."""
    corpus, select, rest = words.partition(" SELECT")
    if not select:
        return words.split()
    query, _, options = rest.partition(" --")
    return [corpus, f"SELECT{query}", *f"--{options}".split()]
