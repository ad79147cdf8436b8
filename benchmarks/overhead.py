"""What an episode costs beyond its own work: plan, ledger and commit of N tiny staged episodes.

The executor hands back outcomes that are already staged, so that the driver is all that is measured. Two sizes in one run
tell whether the cost is linear.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import typer

from adapters.base import SourceInfo
from benchmarks import result
from benchmarks.context import run_context
from ingest.corpus import snapshot
from ingest.corpus.layout import open_or_create
from ingest.corpus.staging import STAGED
from ingest.pipeline.plan import Request, make_plan
from ingest.pipeline.process import Work, process
from ingest.pipeline.run import ingest
from ingest.recipe import Limits, Recipe
from ingest.storage.local import LocalStorage
from schemas.episode import Episode, EpisodeRef, Licence, Stream, gripper_channel
from schemas.outcome import Outcome
from schemas.rate import instants_ns

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "episodes": "Episodes of 10 timesteps.",
    "plan_ms_per_episode": "Discovery and planning.",
    "ledger_and_commit_ms_per_episode": "Attempts, numbering, data file, catalog rows, `meta/`, snapshots, cleaning up.",
    "overhead_ms_per_episode": "Both. Budget: below 2.",
    "overhead_cpu_ms_per_episode": "CPU time of both.",
    "resume_plan_ms_per_episode": "Planning again when everything is committed.",
    "linear_ratio": "Overhead of an episode over that at a tenth of the episodes; 1 is linear.",
}

TIMESTEPS = 10


class Tiny:
    """N episodes of one gripper each."""

    name: ClassVar[str] = "tiny"
    version: ClassVar[int] = 1
    container: ClassVar[str] = "none"
    about: ClassVar[str] = "for this benchmark"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        return SourceInfo(source="tiny", dataset="tiny", licence=Licence(name="CC0"))

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        for index in range(int((root / "count").read_text())):
            yield EpisodeRef(
                source="tiny", dataset="tiny", episode_id=f"{index:07d}", root=str(root)
            )

    def load(self, ref: EpisodeRef) -> Episode:
        return Episode(
            ref=ref,
            embodiment="umi",
            rate_hz=Fraction(10),
            streams=(
                Stream(
                    spec=gripper_channel("left.gripper_opening", binary=False),
                    t_ns=instants_ns(TIMESTEPS, Fraction(10)),
                    values=np.linspace(0, 1, TIMESTEPS)[:, None],
                ),
            ),
        )


class Instant:
    """An executor whose workers have always just finished: each staged folder holds what a worker leaves."""

    name = "instant"

    def __init__(self, scratch: Path) -> None:
        disk = LocalStorage()
        ref = EpisodeRef(source="tiny", dataset="tiny", episode_id="0000000", root=str(scratch))
        work = Work(
            ref=ref,
            adapter="benchmarks.overhead:Tiny",
            recipe=Recipe(),
            staging=str(scratch / "template"),
        )
        self.outcome = process(work, disk)
        self.rows = (scratch / "template" / STAGED).read_bytes()
        self.staging_s = self.staging_cpu_s = 0.0

    def run(
        self, next_work: Callable[[], Work | None], body: Any
    ) -> Iterator[tuple[Work, Outcome]]:
        while (work := next_work()) is not None:
            started, cpu_started = time.perf_counter(), time.process_time()
            outcome = self._staged(work)
            self.staging_s += time.perf_counter() - started
            self.staging_cpu_s += time.process_time() - cpu_started
            yield work, outcome

    def _staged(self, work: Work) -> Outcome:
        folder = Path(work.staging)
        folder.mkdir(parents=True)
        (folder / STAGED).write_bytes(self.rows)
        staged = self.outcome.staged
        assert staged is not None
        uid = work.ref.uid
        return replace(
            self.outcome,
            uid=work.ref.uid,
            staged=replace(
                staged,
                episode=replace(staged.episode, uid=uid, episode_id=work.ref.episode_id),
                segments=[replace(row, uid=uid) for row in staged.segments],
                measurements=[replace(row, uid=uid) for row in staged.measurements],
            ),
        )


def measure(count: int) -> dict[str, float]:
    """Seconds of driver time for each of `count` episodes, by phase."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "count").write_text(str(count))
        request = Request(source="benchmarks.overhead:Tiny", root=root, options={}, recipe=Recipe())
        executor = Instant(root)
        disk = LocalStorage()
        corpus = open_or_create(root / "corpus", uid="c", recipe_digest="", disk=disk)
        current = snapshot.load(corpus.root)
        started, cpu_started = time.perf_counter(), time.process_time()
        plan = make_plan(request, corpus, current)
        planned = time.perf_counter()
        tally = ingest(
            request,
            plan,
            corpus=corpus,
            current=current,
            executor=executor,
            limits=Limits(),
            context=run_context(),
            disk=disk,
        )
        ended, cpu_ended = time.perf_counter(), time.process_time()
        assert tally.committed == count
        committed = snapshot.load(corpus.root)
        resumed_from = time.perf_counter()
        again = make_plan(request, corpus, committed)
        resumed = time.perf_counter()
        assert again.done == count
    return {
        "plan_ms": (planned - started) / count * 1e3,
        "ledger_and_commit_ms": (ended - planned - executor.staging_s) / count * 1e3,
        "overhead_ms": (ended - started - executor.staging_s) / count * 1e3,
        "overhead_cpu_ms": (cpu_ended - cpu_started - executor.staging_cpu_s) / count * 1e3,
        "resume_plan_ms": (resumed - resumed_from) / count * 1e3,
    }


def main(episodes: int = 100_000, *, as_json: bool = typer.Option(False, "--json")) -> None:
    """Overhead per episode at `episodes` and at a tenth of it."""
    measured_on = result.machine()
    small, large = measure(episodes // 10), measure(episodes)
    figures = {
        "episodes": episodes,
        **{f"{name}_per_episode": value for name, value in large.items()},
        "linear_ratio": large["overhead_ms"] / small["overhead_ms"],
    }
    if as_json:
        sys.stdout.write(result.as_json("overhead", measured_on, figures) + "\n")
    else:
        for name, value in figures.items():
            print(f"{name:40} {value:.4f}")


if __name__ == "__main__":
    typer.run(main)
