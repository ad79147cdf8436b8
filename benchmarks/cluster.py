"""How busy a cluster is: episodes that sleep, through the real run loop, on a real Ray of several nodes on this machine.

Workers write down when they began, and the ledger how long they worked: the sleep, and what every episode takes beside it. What is measured is the
share of the slots with work while there is work to hand out. Nodes share the cores of this machine, so the start of the worker processes is
reported beside it and is not part of it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from adapters.base import SourceInfo
from benchmarks import result
from benchmarks.context import run_context
from benchmarks.overhead import Tiny
from benchmarks.raylets import ROOT, Raylets
from ingest.corpus import snapshot
from ingest.corpus.layout import open_or_create
from ingest.executors.ray import RayExecutor
from ingest.pipeline.plan import Request, make_plan
from ingest.pipeline.run import ingest
from ingest.recipe import Limits, Recipe
from ingest.storage.local import LocalStorage
from schemas.episode import Episode, EpisodeRef

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "slots": "Episodes at a time, on 8 nodes.",
    "episodes": "Episodes of 0.5 s; 1 in 500 takes 30 s.",
    "busy_ratio": "Share of the slots with an episode in work, from the start of the last worker process until the last episode was handed out. Budget: at least 0.9.",
    "bare_ratio": "The same of bare Ray tasks of 0.5 s on the same cluster, without any code of ours: what this machine allows.",
    "busy_over_bare_ratio": "`busy_ratio` over `bare_ratio`. Budget: at least 0.95.",
    "sleeping_ratio": "Share of them that slept. The rest of their work is the cores of this machine: loading, staging, synchronisation.",
    "whole_run_ratio": "The same from the first episode to the end of the run, which waits for the last long episodes.",
    "workers_start_s": "Until every slot has a worker process, all on the cores of this machine.",
    "driver_cpu_ms_per_episode": "CPU time of the driver: Ray, ledger, commit.",
    "nodes_sleep_s": "Sleep of an episode in the comparison of 1 and 8 nodes, of one slot each.",
    "nodes_1_per_s": "Episodes a second on 1 node.",
    "nodes_8_per_s": "Episodes a second on 8 nodes.",
    "nodes_8_over_1_ratio": "Throughput of 8 nodes over 8 times that of 1. Budget: at least 0.95.",
}

SHORT_S, LONG_S, LONG_ONE_IN = 0.5, 30.0, 500
NODES = 8
BEGAN = "began."  # of the file of a worker process, beside the raw data


class Sleeper(Tiny):
    """Episodes that take the time that the file `sleeps` gives them, a line each, and are tiny."""

    name: ClassVar[str] = "sleeper"

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        for index, line in enumerate((root / "sleeps").read_text().split()):
            yield EpisodeRef(
                source="tiny",
                dataset="tiny",
                episode_id=f"{index:07d}",
                root=str(root),
                locator=(("sleep_s", line),),
            )

    def load(self, ref: EpisodeRef) -> Episode:
        began_s = time.time()
        time.sleep(float(ref.at("sleep_s")))
        with (Path(ref.root) / f"{BEGAN}{os.getpid()}").open("a") as file:
            file.write(f"{ref.uid} {began_s}\n")
        return super().load(ref)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One episode in a worker process."""

    began_s: float
    slept_s: float
    worked_s: float

    def share(self, since_s: float, until_s: float, length_s: float) -> float:
        """Seconds of its first `length_s` that lie between two instants."""
        return max(0.0, min(self.began_s + length_s, until_s) - max(self.began_s, since_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Slept:
    """What the workers of a run did. Times are seconds since the epoch."""

    slots: int
    workers: list[list[Span]]  # of each process
    handed_out_s: float  # when the last episode was
    ended_s: float
    driver_cpu_s: float
    bare: float = 0.0  # share of the slots that worked on bare tasks

    @property
    def began_s(self) -> float:
        return min(spans[0].began_s for spans in self.workers)

    @property
    def all_began_s(self) -> float:
        """When the last worker process was at work."""
        return max(spans[0].began_s for spans in self.workers)

    def busy(self, since_s: float, until_s: float) -> float:
        """Share of the slots that worked."""
        worked = (span.share(since_s, until_s, span.worked_s) for span in self._spans())
        return sum(worked) / (self.slots * (until_s - since_s))

    def sleeping(self, since_s: float, until_s: float) -> float:
        """Share of the slots that slept."""
        asleep = (span.share(since_s, until_s, span.slept_s) for span in self._spans())
        return sum(asleep) / (self.slots * (until_s - since_s))

    def per_s(self) -> float:
        """Episodes a second, from the start of the last worker process until the last was handed out."""
        ends = [span.began_s + span.worked_s for span in self._spans()]
        done = sum(self.all_began_s <= end <= self.handed_out_s for end in ends)
        return done / (self.handed_out_s - self.all_began_s)

    def _spans(self) -> list[Span]:
        return [span for spans in self.workers for span in spans]


class _Watched(RayExecutor):
    """Notes when the last episode was handed out."""

    handed_out_s = 0.0

    def run(self, next_work: Any, body: Any) -> Any:
        def noted() -> Any:
            work = next_work()
            if work is not None:
                self.handed_out_s = time.time()
            return work

        return super().run(noted, body)


def sleeps(count: int) -> list[float]:
    """Of the 32 slots: one in 500 takes 30 s, and not all of them are at the end."""
    return [LONG_S if index % LONG_ONE_IN == 77 else SHORT_S for index in range(count)]


def slept(address: str, env: dict[str, str], seconds: list[float], num_bare: int = 0) -> Slept:
    """Run episodes of `seconds` on a cluster, then so many bare tasks."""
    os.environ.update(env)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        raw, corpus_dir = root / "raw", root / "corpus"
        raw.mkdir()
        (raw / "sleeps").write_text("\n".join(map(str, seconds)))
        request = Request(
            source="benchmarks.cluster:Sleeper", root=raw, options={}, recipe=Recipe()
        )
        disk = LocalStorage()
        corpus = open_or_create(corpus_dir, uid="c", recipe_digest="", disk=disk)
        current = snapshot.load(corpus.root)
        executor = _Watched(Limits(), address=address, workers=None, notify=print)
        executor.connect()
        num_slots = executor.slots()
        cpu_s = time.process_time()
        tally = ingest(
            request,
            make_plan(request, corpus, current),
            corpus=corpus,
            current=current,
            executor=executor,
            limits=Limits(),
            context=run_context(),
            disk=disk,
        )
        if tally.committed != len(seconds):
            raise RuntimeError(f"{tally.committed} of {len(seconds)} committed: {tally.codes}")
        ended_s, cpu_s = time.time(), time.process_time() - cpu_s
        return Slept(
            slots=num_slots,
            workers=_workers(raw, corpus.ledger / "run.jsonl"),
            handed_out_s=executor.handed_out_s,
            ended_s=ended_s,
            driver_cpu_s=cpu_s,
            bare=bare_share(address, num_slots, num_bare) if num_bare else 0.0,
        )


def bare_share(address: str, slots: int, count: int) -> float:
    """Share of the slots that work on `count` tasks that only sleep, from the start of the last process until the last task is handed out."""
    import ray

    ray.init(address=address, log_to_driver=False)

    def nap() -> tuple[int, float, float]:
        began_s = time.time()
        time.sleep(SHORT_S)
        return os.getpid(), began_s, time.time()

    task: Any = ray.remote(max_retries=0, num_cpus=1)(nap)
    naps: list[tuple[int, float, float]] = []
    flying: list[Any] = []
    handed_out_s, left = 0.0, count
    while flying or left:
        while left and len(flying) < 5 * slots:
            flying.append(task.remote())
            handed_out_s, left = time.time(), left - 1
        done, flying = ray.wait(flying)
        naps += ray.get(done)
    ray.shutdown()
    firsts: dict[int, float] = {}
    for pid, began_s, _ in naps:
        firsts[pid] = min(began_s, firsts.get(pid, began_s))
    since_s = max(firsts.values())
    worked_s = sum(max(0.0, min(end, handed_out_s) - max(at, since_s)) for _, at, end in naps)
    return worked_s / (slots * (handed_out_s - since_s))


def _workers(raw: Path, ledger: Path) -> list[list[Span]]:
    """The spans of each worker process, from what it wrote and from the ends in the ledger of the run."""
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    worked_s = {line["uid"]: line["seconds"] for line in lines if line["event"] == "end"}
    refs = Sleeper().discover(raw, Sleeper().survey(raw, {}))
    slept_s = {ref.uid: float(ref.at("sleep_s")) for ref in refs}
    workers = []
    for path in raw.glob(f"{BEGAN}*"):
        began = [line.split() for line in path.read_text().splitlines()]
        workers.append(
            [
                Span(began_s=float(at), slept_s=slept_s[uid], worked_s=worked_s[uid])
                for uid, at in began
            ]
        )
    return workers


def on_nodes(count: int, cpus: int, seconds: list[float], num_bare: int = 0) -> Slept:
    """Run episodes of `seconds` on a cluster of its own: a head without CPUs, and `count` nodes of `cpus`.

    The driver is a process of its own: a process keeps the first token of Ray that it learns.
    """
    with Raylets(ROOT) as cluster:
        cluster.add(*[ROOT] * count, cpus=cpus)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as driver:
            return driver.submit(slept, cluster.address, cluster.env, seconds, num_bare).result()


def slots_figures(slots: int, episodes: int) -> dict[str, float]:
    """One in 500 takes 60 times as long as the others."""
    run = on_nodes(NODES, slots // NODES, sleeps(episodes), num_bare=50 * slots)
    busy = run.busy(run.all_began_s, run.handed_out_s)
    return {
        "slots": run.slots,
        "episodes": episodes,
        "busy_ratio": busy,
        "bare_ratio": run.bare,
        "busy_over_bare_ratio": busy / run.bare,
        "sleeping_ratio": run.sleeping(run.all_began_s, run.handed_out_s),
        "whole_run_ratio": run.busy(run.began_s, run.ended_s),
        "workers_start_s": run.all_began_s - run.began_s,
        "driver_cpu_ms_per_episode": run.driver_cpu_s / episodes * 1e3,
    }


def nodes_figures(sleep_s: float, episodes: int) -> dict[str, float]:
    """The same sleep on 1 and on 8 nodes of one slot."""
    one = on_nodes(1, 1, [sleep_s] * episodes).per_s()
    eight = on_nodes(NODES, 1, [sleep_s] * episodes * NODES).per_s()
    return {
        "nodes_sleep_s": sleep_s,
        "nodes_1_per_s": one,
        "nodes_8_per_s": eight,
        "nodes_8_over_1_ratio": eight / (NODES * one),
    }


def main(
    slots: Annotated[int, typer.Option(min=NODES, help="A multiple of 8.")] = 32,
    episodes: Annotated[int, typer.Option(min=100)] = 4000,
    sleep_s: Annotated[float, typer.Option(help="Of an episode, for 1 and 8 nodes.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Share of the slots that work beside slow episodes, and throughput of 8 nodes over 1."""
    measured_on = result.machine()
    figures: Mapping[str, float] = {
        **slots_figures(slots, episodes),
        **nodes_figures(sleep_s, 40),
    }
    if as_json:
        sys.stdout.write(result.as_json("cluster", measured_on, figures) + "\n")
    else:
        for name, value in figures.items():
            print(f"{name:30} {value:.4f}")


if __name__ == "__main__":
    typer.run(main)
