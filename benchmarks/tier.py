"""The tier policy over millions of episodes; part of `python -m benchmarks.catalog`.

The catalog has `--measurements` numbers for every episode, among them all that the built-in policy asks for, three pauses for every tenth
episode, and one valid run each. Then: what `eicorpus tier --dry-run` does (read, make wide, cut, decide, count), and the commit of the
decisions. Files are in the page cache.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.own_process import in_own_process, peak_rss_mib
from benchmarks.synthetic import declared, episodes, publish, seconds
from ingest.catalog.catalog import Catalog
from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Part
from ingest.curation.tiers.count import judged_counts, stored_counts
from ingest.curation.tiers.policy import load_policy
from ingest.curation.tiers.policy_sql import used
from ingest.curation.tiers.tier import Judged, commit, judge
from ingest.storage.local import LocalStorage
from schemas.catalog import TABLES

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "tier_what_if_s": "Everything that `eicorpus tier --dry-run` does, best of 3 runs. Budget: below 10.",
    "tier_what_if_first_s": "The first run.",
    "tier_what_if_cpu_s": "CPU seconds of all cores.",
    "tier_gather_s": "Of it: reading and cutting.",
    "tier_policy_sql_s": "Of it: the policy in SQL, and counting.",
    "tier_stored_counts_s": "Of it: counting what the catalog holds.",
    "tier_commit_s": "Writing the decisions.",
    "tier_peak_rss_mib": "Peak memory with that.",
}

SEED = 30_000
PART_EPISODES = 25_000  # a part of a million measurements, as after compaction
TASKS = ("policy", "forward_dynamics", "inverse_dynamics", "visual_forecasting")


def names_of(count: int) -> list[str]:
    """`count` names: all that the policy asks for but the pauses, and as many more as it takes."""
    _, whole, _ = used(load_policy("ei30k")[0])
    asked = [*sorted(whole), *sorted(stretches())]
    return [*asked, *(f"other_{k:02d}" for k in range(count))][:count]


def stretches() -> set[str]:
    """Names of stretches, of which an episode has one row without a value: looked for, none there."""
    _, whole, spans = used(load_policy("ei30k")[0])
    return {name for name in spans if name not in whole} - {pause_name()}


def _repeated(values: pa.Array, times: int) -> pa.Array:
    """Each of the values `times` times, in order."""
    return values.take(pa.array(np.repeat(np.arange(len(values)), times)))


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
        "value": pa.array(
            rng.random(count) ** 3, mask=np.tile(np.isin(names, list(stretches())), len(uids))
        ),
        "unit": pa.repeat("share", count),
        "denominator": pa.array(np.full(count, 100)),
    }
    return declared("measurements", columns, count)


def pause_name() -> str:
    """What the policy cuts pauses out by: a benchmark that reads no pauses would be too fast."""
    edges = load_policy("ei30k")[0].segments.edges
    return next(e.measurement for e in edges if e.measurement and e.measurement.startswith("pause"))


def pauses(rng: np.random.Generator, uids: pa.Array, length: np.ndarray) -> pa.Table:
    """Three pauses of 2 s in every tenth episode, one row without a value in the others."""
    has = np.flatnonzero(np.arange(len(uids)) % 10 == 0)
    row = np.concatenate([np.repeat(has, 3), np.setdiff1d(np.arange(len(uids)), has)])
    is_span = np.arange(len(row)) < 3 * len(has)
    start = (length[row] * rng.uniform(0.1, 0.8, len(row))).astype(np.int64)
    columns = {
        "uid": uids.take(pa.array(row)),
        "name": pa.repeat(pause_name(), len(row)),
        "version": pa.array(np.ones(len(row), np.int32)),
        "value": pa.array(np.full(len(row), 2.0), mask=~is_span),
        "unit": pa.repeat("s", len(row)),
        "start": pa.array(start, mask=~is_span),
        "end": pa.array(start + 20, mask=~is_span),
        "denominator": pa.array(np.full(len(row), 20)),
    }
    return declared("measurements", columns, len(row)).sort_by([("uid", "ascending")])


def valid_runs(uids: pa.Array, length: np.ndarray) -> pa.Table:
    columns = {
        "uid": uids,
        "segment_index": pa.array(np.zeros(len(uids), np.int32)),
        "kind": pa.repeat("valid_run", len(uids)),
        "start": pa.array(np.zeros(len(uids), np.int64)),
        "end": pa.array(length),
        "text": pa.repeat("", len(uids)),
    }
    return declared("segments", columns, len(uids))


def generate(root: Path, num_episodes: int, names: list[str]) -> None:
    """The corpus: parts of `PART_EPISODES` episodes, and one snapshot that names them."""
    disk = LocalStorage()
    parts: dict[str, list[Part]] = {name: [] for name in TABLES}
    for first in range(0, num_episodes, PART_EPISODES):
        rng = np.random.default_rng([SEED, first])
        count = min(PART_EPISODES, num_episodes - first)
        rows = episodes(rng, count, first)
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
    publish(disk, root, parts)


def what_if(root: Path, threads: int, times: dict[str, list[float]]) -> Judged:
    """What `eicorpus tier --dry-run` does; its seconds are added to `times`. `_cpu_s` is of all cores together."""
    policy, _ = load_policy("ei30k")
    current = snapshot.load(root)
    cpu, started = time.process_time(), time.perf_counter()
    judged = judge(root, current, policy, threads=threads)
    gathered = time.perf_counter()
    judged_counts(judged)
    counted = time.perf_counter()
    with Catalog.open(root) as catalog:
        stored_counts(catalog)
    ended = time.perf_counter()
    figures = {
        "tier_what_if_s": ended - started,
        "tier_what_if_cpu_s": time.process_time() - cpu,
        "tier_gather_s": gathered - started,
        "tier_policy_sql_s": counted - gathered,
        "tier_stored_counts_s": ended - counted,
    }
    for name, value in figures.items():
        times.setdefault(name, []).append(value)
    return judged


def measure(root: Path, threads: int, repeats: int) -> dict[str, float]:
    """The best of `repeats` runs, since others' work on a shared machine only ever adds; `first` is what someone waits who asks once."""
    times: dict[str, list[float]] = {}
    for _ in range(repeats - 1):
        what_if(root, threads, times)
    judged = what_if(root, threads, times)
    figures: dict[str, float] = {
        "tier_segments": len(judged.segments),
        "tier_what_if_first_s": times["tier_what_if_s"][0],
        **{name: min(all_seconds) for name, all_seconds in times.items()},
        "tier_what_if_peak_rss_mib": peak_rss_mib(),
    }
    current, text = snapshot.load(root), load_policy("ei30k")[1]
    corpus = CorpusLayout(root)
    figures["tier_commit_s"] = seconds(
        lambda: commit(corpus, current, judged, text, run_id="benchmark", disk=LocalStorage())
    )
    return figures | {"tier_peak_rss_mib": peak_rss_mib()}


def figures(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    root, names = folder / "tier", names_of(args.measurements)
    in_own_process(generate, root, args.episodes, names)
    return {
        "tier_measurements": args.episodes * args.measurements,
        "tier_num_bytes": sum(path.stat().st_size for path in root.rglob("*.parquet")),
        **measure(root, args.threads, min(args.repeats, 3)),
    }
