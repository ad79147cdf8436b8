"""How fast a manifest is exported as LeRobot v3, beside LeRobot's own converter from v2.1, whole processes in turn.

    python -m benchmarks.export --converter PYTHON [--json] [--quick]

PYTHON is the interpreter of an environment with lerobot 0.4.4. The corpus is one RLDS set (two cameras of 256 pixels, ingested here), so both read the
same files: ours through the catalog and a manifest of whole episodes, theirs a copy of its LeRobot v2.1 folder, which it converts in place.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from benchmarks import result
from benchmarks.ingest import ROOT, ingest_by_command
from jobs.demo.raw.oxe import BRIDGE, NAME, VERSION, bridge_episode, write_set
from jobs.demo.raw.scene import Scene

KEYS = {
    "hours": "Hours of the corpus, at 10 Hz.",
    "ours_s": "Seconds of `eicorpus export --to lerobot-v3`, start included, median of the rounds.",
    "converter_s": "Seconds of LeRobot 0.4.4's converter on the same episodes, start included.",
    "converter_over_ours_ratio": "Their ratio in each round, median. Budget: at least 5.",
    "ours_cpu_s": "CPU seconds of ours, all its processes, median: what other work on the machine changes least.",
    "converter_cpu_s": "The same of the converter.",
    "converter_over_ours_cpu_ratio": "Their ratio in each round, median.",
    "ours_s_per_hour": "Seconds for each hour of corpus.",
    "bytes_per_hour": "Bytes that are written for each hour of corpus.",
    "rounds": "Rounds, of which medians are reported.",
}
CONVERTER = "lerobot.datasets.v30.convert_dataset_v21_to_v30"
REPO = "local/set"
SCENES = 8  # distinct episodes; the others repeat them


def main(
    converter: Annotated[
        Path | None, typer.Option(help="Interpreter of an environment with lerobot 0.4.4.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
    quick: Annotated[bool, typer.Option(help="A small corpus, once: that it runs.")] = False,
    episodes: Annotated[int, typer.Option(min=2)] = 400,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Print the figures."""
    measured_on = result.machine()
    if quick:
        episodes, rounds = 4, 1
    with tempfile.TemporaryDirectory() as scratch:
        figures = measured(Path(scratch), converter, episodes, rounds)
    if as_json:
        typer.echo(result.as_json("export", measured_on, figures))
        return
    for key, value in figures.items():
        typer.echo(f"{key}: {value}")


def measured(scratch: Path, converter: Path | None, episodes: int, rounds: int) -> dict[str, float]:
    """The figures of KEYS; without a converter ours alone."""
    corpus, hours = corpus_of(scratch, episodes)
    (dataset,) = (corpus / "datasets").glob("*/*")
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    for number in range(rounds):
        out = scratch / f"ours{number}"
        words = ["export", str(corpus), "--manifest", "all", "--to", "lerobot-v3"]
        licence = ["--allow-licence", "unknown"]
        ours.append(seconds_of([*eicorpus(), *words, "--out", str(out), *licence]))
        num_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        shutil.rmtree(out)
        if converter is not None:
            root = scratch / f"theirs{number}"
            shutil.copytree(dataset, root / REPO)
            named = ["--repo-id", REPO, "--root", str(root), "--push-to-hub", "false"]
            theirs.append(seconds_of([str(converter), "-m", CONVERTER, *named]))
            shutil.rmtree(root)
    ours_s = median(wall_s for wall_s, _ in ours)
    figures = {
        "hours": round(hours, 3),
        "ours_s": round(ours_s, 2),
        "ours_cpu_s": round(median(cpu_s for _, cpu_s in ours), 2),
        "ours_s_per_hour": round(ours_s / hours, 1),
        "bytes_per_hour": round(num_bytes / hours),
        "rounds": rounds,
    }
    for place, name in enumerate(("", "_cpu") if theirs else ()):
        ratios = [their[place] / our[place] for their, our in zip(theirs, ours, strict=True)]
        figures[f"converter{name}_s"] = round(median(each[place] for each in theirs), 2)
        figures[f"converter_over_ours{name}_ratio"] = round(median(ratios), 2)
    return figures


def eicorpus() -> list[str]:
    return [sys.executable, "-m", "jobs"]


def corpus_of(scratch: Path, episodes: int) -> tuple[Path, float]:
    """A corpus with a manifest `all` of whole episodes, and its hours."""
    steps = 60  # at 5 Hz: 12 s
    scenes = [Scene(seed=seed, duration_s=14.0, width=256, height=256) for seed in range(SCENES)]
    recorded = [bridge_episode(scene, steps) for scene in scenes]
    raw = write_set(
        scratch / "raw" / NAME / VERSION, BRIDGE, [recorded[k % SCENES] for k in range(episodes)]
    )
    corpus = scratch / "corpus"
    ingest_by_command("oxe", raw, corpus)
    for words in (["measure"], ["tier"], ["manifest", "build"]):
        name = ["all", "--text", "source"] if words[0] == "manifest" else []
        subprocess.run(
            [*eicorpus(), *words, str(corpus), *name],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    return corpus, episodes * (2 * steps - 1) / 10 / 3600


def seconds_of(command: list[str]) -> tuple[float, float]:
    """(wall time, CPU time with its children) of a whole process, on files that are on the disk.

    Raises:
        SystemExit: it failed.
    """
    os.sync()
    started_s, cpu_before_s = time.monotonic(), children_cpu_s()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr[-2000:]}")
    return time.monotonic() - started_s, children_cpu_s() - cpu_before_s


def children_cpu_s() -> float:
    """Of all processes that ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    typer.run(main)
