"""What a command and a worker cost before they do anything: imported modules and CPU seconds.

Every case runs in a fresh process of this interpreter and says at its end which modules it has imported and how much CPU time it used.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "help_modules": "Modules that `eicorpus --help` imports.",
    "help_cpu_s": "CPU seconds of `eicorpus --help`. Budget: 0.4.",
    "query_modules": "Modules of one `eicorpus query` over a small corpus.",
    "query_cpu_s": "Its CPU seconds.",
    "worker_video_folder_modules": "Modules of a worker process with the adapter `video_folder`.",
    "worker_video_folder_cpu_s": "Its CPU seconds. Budget: 1.",
    "worker_oxe_modules": "Modules of a worker process with the adapter `oxe`.",
    "worker_oxe_cpu_s": "Its CPU seconds. Budget: 1.",
    "three_clips_s": "`eicorpus ingest` of three clips of 5 s (640 × 480), start to end. Budget: 5.",
    "three_clips_cpu_s": "Its CPU seconds.",
}

NOTHING = ""
COMMAND = "import sys; from jobs.cli import main; sys.argv = ['eicorpus', *sys.argv[1:]]; main()"
# What the installed `eicorpus` script is to a worker that is spawned: a main module that imports the command line.
WORKER = """
import sys
from jobs.cli import main
if __name__ == "__main__":
    from benchmarks.start import print_worker_cost
    print_worker_cost(sys.argv[1])
"""
REPORTED = """
import atexit, json, resource, sys
def report():
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open({path!r}, "w") as file:
        json.dump({{"modules": sorted(sys.modules), "cpu_s": used.ru_utime + used.ru_stime}}, file)
atexit.register(report)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of a process, at its end."""

    modules: frozenset[str]
    cpu_s: float
    exit_code: int = 0
    stdout: str = ""

    def packages(self) -> frozenset[str]:
        return frozenset(name.partition(".")[0] for name in self.modules)


def cost_of(program: str, *arguments: str) -> Cost:
    """Of `program`, Python source, with these arguments."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cost.json"
        source = REPORTED.format(path=str(path)) + program
        done = subprocess.run(
            [sys.executable, "-c", source, *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        if not path.is_file():
            raise RuntimeError(f"{arguments}: exit {done.returncode}\n{done.stderr}")
        return _cost(json.loads(path.read_text()), done.returncode, done.stdout)


def cost_of_worker(source: str) -> Cost:
    """Of a worker process of `eicorpus ingest` that has loaded the adapter of `source`."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "eicorpus"
        program.write_text(WORKER)
        done = subprocess.run(
            [sys.executable, str(program), source],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},  # this module
            capture_output=True,
            text=True,
            check=True,
        )
    return _cost(json.loads(done.stdout))


def print_worker_cost(source: str) -> None:
    """Run by `WORKER`, the driver."""
    from ingest.executors.local import LocalExecutor
    from ingest.recipe import Limits

    work = iter([source])
    executor = LocalExecutor(1, Limits())
    ((_, result),) = executor.run(lambda: next(work, None), worker_cost)
    if not isinstance(result, dict):
        raise RuntimeError(f"the worker ended: {result}")
    print(json.dumps(result))


def worker_cost(source: str, disk: object) -> dict[str, Any]:
    """The worker body."""
    from adapters.registry import adapter_for

    adapter_for(source)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"modules": sorted(sys.modules), "cpu_s": used.ru_utime + used.ru_stime}


def _cost(reported: dict[str, Any], exit_code: int = 0, stdout: str = "") -> Cost:
    modules = frozenset(reported["modules"])
    return Cost(modules=modules, cpu_s=reported["cpu_s"], exit_code=exit_code, stdout=stdout)


def clips_s(folder: Path) -> dict[str, float]:
    """Wall and CPU seconds to ingest three clips of 5 s, the whole command."""
    from benchmarks.ingest import write_source

    raw = folder / "clips"
    raw.mkdir()
    for number in range(3):
        write_source(raw / f"clip_{number}.mp4", 640, 480, num_frames=150)
    words = ["ingest", "video_folder", str(raw), "--out", str(folder / "corpus")]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", COMMAND, *words], check=True, capture_output=True)
    wall_s = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"three_clips_s": wall_s, "three_clips_cpu_s": cpu_s}


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Median of so many.")] = 5,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Modules and CPU seconds of `--help`, `query`, a worker of two sources, and three clips from start to end."""
    from benchmarks import result  # here: the workers that are measured import this module

    measured_on = result.machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = clips_s(folder)
        sql = ["query", str(folder / "corpus"), "select count(*) from episodes"]
        cases = {
            "python": lambda: cost_of(NOTHING),
            "help": lambda: cost_of(COMMAND, "--help"),
            "query_help": lambda: cost_of(COMMAND, "query", "--help"),
            "query": lambda: cost_of(COMMAND, *sql),
            "worker_video_folder": lambda: cost_of_worker("video_folder"),
            "worker_oxe": lambda: cost_of_worker("oxe"),
        }
        costs = {case: [run() for _ in range(rounds)] for case, run in cases.items()}
    cpu_s = {case: median(cost.cpu_s for cost in each) for case, each in costs.items()}
    figures: dict[str, float] = {
        **{f"{case}_modules": len(each[0].modules) for case, each in costs.items()},
        **{f"{case}_cpu_s": seconds for case, seconds in cpu_s.items()},
        **{
            f"{case}_over_python_ratio": seconds / cpu_s["python"]
            for case, seconds in cpu_s.items()
            if case != "python"
        },
        **clips,
    }
    if as_json:
        print(result.as_json("start", measured_on, figures))
    else:
        for key, value in figures.items():
            print(f"{key:40} {value:.3f}")


if __name__ == "__main__":
    typer.run(main)
