"""The tier policy over millions of episodes: `python -m benchmarks.tier [--episodes N] [--measurements M] [--json]`.

Writes a synthetic catalog (seeded) to a temporary folder in a process of its own: `--measurements` numbers for every episode, among them
all that the built-in policy asks for, three pauses for every tenth, and one valid run each. Then: the built-in policy as `--what-if`
runs it (read, make wide, cut, decide), split into its parts, and the commit of the decisions. Files are in the page cache. The keys
are explained in docs/curation/tiers.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import catalog as synthetic
from ingest import snapshot
from ingest.corpus import Corpus
from ingest.curation.policy.policy import load_policy
from ingest.curation.policy.sql import used
from ingest.curation.tier.count import judged_counts
from ingest.curation.tier.tier import commit, judge
from ingest.curation.tier.wide import read_wide
from ingest.disk import Disk
from ingest.snapshot import Part, Snapshot
from schemas.catalog import TABLES

SEED = 30_000
PART_EPISODES = 25_000  # a part of a million measurements, as after compaction
TASKS = ("policy", "forward_dynamics", "inverse_dynamics", "visual_forecasting")


def names_of(count: int) -> list[str]:
    """`count` names of one number an episode: all that the policy asks for, and as many more as it takes."""
    _, whole, _ = used(load_policy("ei30k")[0])
    return [*sorted(whole), *(f"other_{k:02d}" for k in range(count))][:count]


def _repeated(values: pa.Array, times: int) -> pa.Array:
    """Each of the values `times` times, in order."""
    return values.take(pa.array(np.repeat(np.arange(len(values)), times)))


def _table(name: str, columns: dict[str, Any], rows: int) -> pa.Table:
    schema = TABLES[name]
    arrays = [columns.get(field.name, pa.nulls(rows, field.type)) for field in schema]
    return pa.Table.from_arrays(
        [a if a.type == f.type else a.cast(f.type) for a, f in zip(arrays, schema, strict=True)],
        schema=schema,
    )


def measurements(rng: np.random.Generator, uids: pa.Array, names: list[str]) -> pa.Table:
    """`names` of every episode in order; values as skewed as real ones, mostly on the sound side of the thresholds."""
    count = len(uids) * len(names)
    code = pa.DictionaryArray.from_arrays(
        pa.array(np.tile(np.arange(len(names), dtype=np.int8), len(uids))), pa.array(names)
    )
    columns = {
        "uid": _repeated(uids, len(names)),
        "name": code.dictionary_decode(),
        "version": pa.array(np.ones(count, np.int32)),
        "value": pa.array(rng.random(count) ** 3),
        "unit": pa.repeat("share", count),
        "denominator": pa.array(np.full(count, 100)),
    }
    return _table("measurements", columns, count)


def pauses(rng: np.random.Generator, uids: pa.Array, length: np.ndarray) -> pa.Table:
    """Three pauses of 2 s in every tenth episode, one row without a value in the others."""
    has = np.flatnonzero(np.arange(len(uids)) % 10 == 0)
    row = np.concatenate([np.repeat(has, 3), np.setdiff1d(np.arange(len(uids)), has)])
    is_span = np.arange(len(row)) < 3 * len(has)
    start = (length[row] * rng.uniform(0.1, 0.8, len(row))).astype(np.int64)
    columns = {
        "uid": uids.take(pa.array(row)),
        "name": pa.repeat("pause_s", len(row)),
        "version": pa.array(np.ones(len(row), np.int32)),
        "value": pa.array(np.full(len(row), 2.0), mask=~is_span),
        "unit": pa.repeat("s", len(row)),
        "start": pa.array(start, mask=~is_span),
        "end": pa.array(start + 20, mask=~is_span),
        "denominator": pa.array(np.full(len(row), 20)),
    }
    return _table("measurements", columns, len(row)).sort_by([("uid", "ascending")])


def valid_runs(uids: pa.Array, length: np.ndarray) -> pa.Table:
    columns = {
        "uid": uids,
        "segment_index": pa.array(np.zeros(len(uids), np.int32)),
        "kind": pa.repeat("valid_run", len(uids)),
        "start": pa.array(np.zeros(len(uids), np.int64)),
        "end": pa.array(length),
        "text": pa.repeat("", len(uids)),
    }
    return _table("segments", columns, len(uids))


def generate(root: Path, num_episodes: int, names: list[str]) -> None:
    """The corpus: parts of `PART_EPISODES` episodes, and one snapshot that names them."""
    disk = Disk()
    parts: dict[str, list[Part]] = {name: [] for name in TABLES}
    for first in range(0, num_episodes, PART_EPISODES):
        rng = np.random.default_rng([SEED, first])
        count = min(PART_EPISODES, num_episodes - first)
        rows = synthetic.episodes(rng, count, first)
        lists = pa.ListArray.from_arrays(
            np.arange(0, 4 * count + 1, 4, dtype=np.int32), pa.array(TASKS * count)
        )
        rows = rows.set_column(rows.column_names.index("supervises"), "supervises", lists)
        by_uid = rows.sort_by([("uid", "ascending")])
        uids, length = by_uid["uid"].combine_chunks(), by_uid["length"].to_numpy()
        written = {
            "episodes": [rows],
            "segments": [valid_runs(rows["uid"].combine_chunks(), rows["length"].to_numpy())],
            "measurements": [measurements(rng, uids, names), pauses(rng, uids, length)],
        }
        for table, pieces in written.items():
            for piece in pieces:
                parts[table].append(snapshot.write_tables(disk, root, table, [piece]))
    raw = {
        "snapshot": 1,
        "parent": 0,
        "format_version": 1,
        "run_id": "benchmark",
        "tables": {
            name: [{slot: getattr(p, slot) for slot in Part.__slots__} for p in given]
            for name, given in parts.items()
        },
    }
    disk.make_dir(root / snapshot.FOLDER)
    disk.publish(root / snapshot.FOLDER / "00000001.json", json.dumps(raw).encode())


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def measure(root: Path, threads: int, repeats: int) -> dict[str, float]:
    """The best of `repeats` runs: others' work on a shared machine only ever adds. `_cpu_s` is of all cores together."""
    policy, text = load_policy("ei30k")
    current: Snapshot = snapshot.load(root)
    _, whole, stretches = used(policy)
    figures: dict[str, float] = {}

    def best(name: str, seconds: float) -> None:
        figures[name] = min(seconds, figures.get(name, seconds))

    for _ in range(repeats):
        uids = current.read(root, "episodes", ["uid"])["uid"].combine_chunks()
        seconds, _ = _timed(
            lambda uids=uids: read_wide(root, current, uids, names=whole, interval_names=stretches)
        )
        best("wide_s", seconds)
        cpu = time.process_time()
        gather_s, judged = _timed(lambda: judge(root, current, policy, threads=threads))
        decide_s, _ = _timed(lambda judged=judged: judged.decided)
        count_s, _ = _timed(lambda judged=judged: judged_counts(judged))
        best("what_if_cpu_s", time.process_time() - cpu)
        best("gather_s", gather_s)
        best("sql_s", decide_s)
        best("count_s", count_s)
        best("what_if_s", gather_s + decide_s + count_s)
    figures["segments"] = len(judged.segments)
    figures["peak_rss_what_if_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures["commit_s"], _ = _timed(
        lambda: commit(Corpus(root), current, judged, text, run_id="benchmark", disk=Disk())
    )
    (root / snapshot.FOLDER / f"{current.number + 1:08d}.json").unlink()  # to be asked again
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=5_000_000)
    parser.add_argument("--measurements", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, help="Where the temporary folder is made.")
    parser.add_argument("--corpus", type=Path, help="Keep the catalog here, or take the one there.")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="eicorpus-benchmark-", dir=args.folder) as folder:
        root = (args.corpus or Path(folder)).resolve()
        generate_s = 0.0
        if not (root / snapshot.FOLDER).exists():
            names = names_of(args.measurements)
            spawn = multiprocessing.get_context("spawn")
            writer = spawn.Process(target=generate, args=(root, args.episodes, names))
            writer.start()
            generate_s, _ = _timed(writer.join)
            if writer.exitcode != 0:
                raise SystemExit("the catalog could not be written")
        num_bytes = sum(path.stat().st_size for path in root.rglob("*.parquet"))
        figures = measure(root, args.threads, args.repeats)
    answer = {
        "episodes": args.episodes,
        "measurements": args.episodes * args.measurements,
        "num_bytes": num_bytes,
        "threads": args.threads,
        "generate_s": generate_s,
        **figures,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if args.json:
        print(json.dumps(answer))
    else:
        print("\n".join(f"{name:24} {value:,.4g}" for name, value in answer.items()))


if __name__ == "__main__":
    main()
