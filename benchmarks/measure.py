"""`eicorpus measure` on one core: how many times faster than the recording itself, with video and without.

Demonstrations of a generated LeRobot set, ingested once, then every measure of the worker body (`measure_episode`) that needs no
video, and all of them. Budgets (issue 4): at least 20 times real time without, 5 times with.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from benchmarks import result
from benchmarks.ingest import ingest_by_command
from benchmarks.own_process import peak_rss_mib
from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.curation.measurements.registry import measures
from ingest.curation.measurements.runner import MeasureWork, measure_episode, missing, work_of
from ingest.storage.local import LocalStorage
from jobs.demo.raw import lerobot
from jobs.demo.raw.scene import Scene

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "times_real_time_without_video": "Speed against the recording, CPU time of one process. Budget: at least 20.",
    "times_real_time_with_video": "The same with one camera. Budget: at least 5.",
    "cameras": "Cameras of an episode.",
    "measures": "Measures without a model.",
    "peak_rss_mib": "Peak memory.",
}

SIZE_PX = (342, 256)


def works(root: Path, num_episodes: int, seconds: float) -> list[MeasureWork]:
    """The episodes of a fresh corpus with everything that a worker needs."""
    scenes = [
        Scene(seed=seed, duration_s=seconds, width=SIZE_PX[0], height=SIZE_PX[1])
        for seed in range(num_episodes)
    ]
    written = lerobot.write(root / "raw", scenes=scenes)
    ingest_by_command("lerobot", written.root, root / "corpus")
    corpus = open_corpus(root / "corpus")
    current = snapshot.load(corpus.root)
    todo = missing(corpus, current, list(measures().values()))
    return list(work_of(corpus, current, todo))


def times_real_time(work: Sequence[MeasureWork], names: tuple[str, ...]) -> float:
    """Seconds of recording a second of CPU, one process."""
    started = time.process_time()
    for each in work:
        result = measure_episode(replace(each, names=names), LocalStorage())
        if result.error:
            raise SystemExit(result.error)
    return sum(each.row["duration_s"] for each in work) / (time.process_time() - started)


def main(
    episodes: Annotated[int, typer.Option(min=1)] = 4,
    seconds: Annotated[float, typer.Option(help="Of each demonstration.")] = 30.0,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure how fast measuring is."""
    measured_on = result.machine()
    with tempfile.TemporaryDirectory() as folder:
        work = works(Path(folder), episodes, seconds)
        runnable = [m for m in measures().values() if m.needs_model is None]
        without = tuple(m.name for m in runnable if not m.needs_video)
        every = tuple(m.name for m in runnable)
        times_real_time(work[:1], every)  # imports, first allocations
        figures = {
            "cameras": len(work[0].row["cameras"]),
            "times_real_time_without_video": round(
                median(times_real_time(work, without) for _ in range(rounds)), 1
            ),
            "times_real_time_with_video": round(
                median(times_real_time(work, every) for _ in range(rounds)), 1
            ),
            "measures": len(every),
            "peak_rss_mib": peak_rss_mib(),
        }
    if as_json:
        sys.stdout.write(result.as_json("measure", measured_on, figures) + "\n")
    else:
        sys.stdout.write("".join(f"{key}: {value}\n" for key, value in figures.items()))


if __name__ == "__main__":
    typer.run(main)
