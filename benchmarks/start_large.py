"""What `eicorpus ingest` costs before and after its work, on a corpus that has many committed episodes.

The corpus is written directly: catalog, `meta/`, ledger and empty data files as long runs leave them. Then a fresh process runs an ingest
that has nothing to do, and another one that has one new episode.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer

from benchmarks import result
from benchmarks.overhead import TIMESTEPS, Tiny
from benchmarks.own_process import in_own_process, peak_rss_mib
from benchmarks.synthetic import declared
from ingest.corpus import lerobot_meta, publishing, snapshot
from ingest.corpus.layout import data_file
from ingest.corpus.lerobot_meta import Dataset, LineFile
from ingest.corpus.snapshot import Part
from ingest.executors.inline import InlineExecutor
from ingest.pipeline.plan import Request
from ingest.recipe import Limits, Recipe
from ingest.storage.local import LocalStorage
from jobs.stages.ingest import run_ingest
from schemas.catalog import TABLES
from schemas.episode import EpisodeRef

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "episodes": "Committed episodes, each with a data file and two lines of the ledger.",
    "nothing_cpu_s": "CPU seconds of an ingest that has nothing to do, discovery included. Budget: below 30 for a million.",
    "nothing_s": "Its seconds.",
    "nothing_peak_rss_mib": "Its peak memory. Budget: below 1024 for a million.",
    "one_cpu_s": "CPU seconds of an ingest that has one new episode.",
    "one_s": "Its seconds.",
    "one_peak_rss_mib": "Its peak memory.",
    "discovery_cpu_s": "Of each: the adapter's list of episodes, without a corpus.",
}
PART_EPISODES = 50_000
TASKS = tuple(f"put object {k} away" for k in range(100))


def request_of(root: Path) -> Request:
    return Request(source="benchmarks.overhead:Tiny", root=root, options={}, recipe=Recipe())


def generate(root: Path, count: int) -> None:
    """The raw data's `count` file, a corpus of one committed episode by an ingest, and then the others beside it."""
    (root / "count").write_text("1")
    run_ingest(request_of(root), root / "corpus", InlineExecutor(), Limits())
    corpus, disk = root / "corpus", LocalStorage(root / "corpus")
    current = snapshot.load(corpus)
    parts: dict[str, list[Part]] = {name: list(current.parts(name)) for name in TABLES}
    (row,) = current.read(corpus, "episodes").to_pylist()
    (artifact,) = (r for r in current.read(corpus, "artifacts").to_pylist() if r["kind"] == "data")
    (verdict,) = current.read(corpus, "verdicts").to_pylist()
    for first in range(1, count, PART_EPISODES):
        numbers = range(first, min(first + PART_EPISODES, count))
        for table, rows in _tables(row, artifact, verdict, numbers).items():
            parts[table].append(snapshot.write_tables(disk, corpus, table, [rows]))
    disk.sync()
    publishing.publish_tables(disk, corpus, current, parts, "benchmark")
    _write_meta(disk, corpus, row["dataset_path"], count)
    _write_files(corpus / row["dataset_path"], count)
    _write_ledger(corpus / "ledger/benchmark.jsonl", count)


def _uid(number: int) -> str:
    return EpisodeRef(source="tiny", dataset="tiny", episode_id=f"{number:07d}", root="").uid


def _tables(
    row: dict[str, Any], artifact: dict[str, Any], verdict: dict[str, Any], numbers: range
) -> dict[str, pa.Table]:
    """Rows of these episodes: those of the first one with other numbers, ids and tasks."""
    count = len(numbers)
    uids = pa.array([_uid(number) for number in numbers])
    ids = pa.array([f"{number:07d}" for number in numbers])
    index = pa.array(np.array(numbers))
    tasks = pa.array([[TASKS[number % len(TASKS)]] for number in numbers])
    paths = pa.array([f"{row['dataset_path']}/{data_file(number)}" for number in numbers])
    own = {
        "episodes": {
            "uid": uids,
            "episode_id": ids,
            "episode_index": index,
            "index_from": pa.array(np.array(numbers) * TIMESTEPS),
            "tasks": tasks,
        },
        "artifacts": {"uid": uids, "path": paths},
        "verdicts": {"uid": uids, "episode_id": ids},
    }
    same = {"episodes": row, "artifacts": artifact, "verdicts": verdict}
    return {
        table: declared(
            table,
            {n: pa.array([v] * count, TABLES[table].field(n).type) for n, v in same[table].items()}
            | own[table],
            count,
        )
        for table in own
    }


def _write_meta(disk: LocalStorage, corpus: Path, path: str, count: int) -> None:
    """Lines as long as real ones, and the rest of `meta/` as the committer writes it for them."""
    artifacts = snapshot.load(corpus).read(corpus, "artifacts").to_pylist()
    detail = next(json.loads(r["detail_json"]) for r in artifacts[:2] if r["kind"] == "features")
    dataset = Dataset(path=path, **detail)
    stats = (corpus / path / "meta" / lerobot_meta.STATS).read_text().splitlines()[0]
    first_task = (corpus / path / "meta" / lerobot_meta.TASKS).read_text()
    known = [json.loads(line)["task"] for line in first_task.splitlines()]
    dataset.task_indices([*known, *(TASKS[n % len(TASKS)] for n in range(1, min(count, 101)))])
    dataset.episodes, dataset.frames = count, count * TIMESTEPS

    def lines(name: str) -> Iterator[str]:
        for number in range(count):
            text = json.dumps({"episode_index": number, "tasks": [TASKS[0]], "length": TIMESTEPS})
            yield stats if name == lerobot_meta.STATS else text

    (corpus / path / "meta" / lerobot_meta.TASKS).write_text(
        "".join(f"{line}\n" for line in lerobot_meta.task_lines(dataset))
    )
    for name in (lerobot_meta.EPISODES, lerobot_meta.STATS):
        with (corpus / path / "meta" / name).open("w") as file:
            file.writelines(f"{line}\n" for line in lines(name))
    for name in lerobot_meta.LINE_FILES:
        with (corpus / path / "meta" / name).open("rb") as opened:
            dataset.files[name] = LineFile(opened)
    for name, data in lerobot_meta.whole_files(dataset).items():
        (corpus / path / "meta" / name).write_bytes(data)


def _write_files(dataset: Path, count: int) -> None:
    for number in range(1, count):
        path = dataset / data_file(number)
        if not number % 1000:
            path.parent.mkdir(parents=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))


def _write_ledger(path: Path, count: int) -> None:
    with path.open("w") as file:
        for number in range(count):
            uid = _uid(number)
            file.write(json.dumps({"event": "attempt", "uid": uid, "number": 1}) + "\n")
        for number in range(count):
            end = {"event": "end", "uid": _uid(number), "state": "committed"}
            file.write(json.dumps(end | {"code": "", "message": ""}) + "\n")


def measure(root: Path, count: int) -> dict[str, float]:
    """An ingest of `count` episodes. Run it in its own process, for its memory."""
    (root / "count").write_text(str(count))
    started, cpu_started = time.perf_counter(), time.process_time()
    done = run_ingest(request_of(root), root / "corpus", InlineExecutor(), Limits())
    assert done.tally.committed == count
    assert not done.failure
    return {
        "s": time.perf_counter() - started,
        "cpu_s": time.process_time() - cpu_started,
        "peak_rss_mib": peak_rss_mib(),
    }


def discovery(root: Path) -> float:
    """CPU seconds of listing all episodes."""
    started = time.process_time()
    tiny = Tiny()
    assert sum(1 for _ in tiny.discover(root, tiny.survey(root, {})))
    return time.process_time() - started


def main(
    episodes: int = 1_000_000,
    *,
    folder: Annotated[Path | None, typer.Option(help="Where the temporary folder is made.")] = None,
    as_json: bool = typer.Option(False, "--json"),
) -> None:
    """Start of an ingest on a corpus of `episodes`."""
    measured_on = result.machine()
    with tempfile.TemporaryDirectory(dir=folder, prefix="eicorpus-benchmark-") as scratch:
        root = Path(scratch).resolve()
        in_own_process(generate, root, episodes)
        nothing = in_own_process(measure, root, episodes)
        one = in_own_process(measure, root, episodes + 1)
        figures = {
            "episodes": episodes,
            **{f"nothing_{name}": value for name, value in nothing.items()},
            **{f"one_{name}": value for name, value in one.items()},
            "discovery_cpu_s": in_own_process(discovery, root),
        }
    if as_json:
        sys.stdout.write(result.as_json("start_large", measured_on, figures) + "\n")
    else:
        for name, value in figures.items():
            print(f"{name:24} {value:,.2f}")


if __name__ == "__main__":
    typer.run(main)
