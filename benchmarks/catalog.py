"""A catalog of millions of episodes: SQL, tier policy, manifest: `python -m benchmarks.catalog [--episodes N] [--json]`.

Writes synthetic catalogs (seeded) to a temporary folder, then asks them; writing and each of the three (`--only sql tier manifest`) run in
processes of their own, so that the memory of one is not another's. SQL: the median of `--repeats` runs, the view and the bare scan of the
same files in turns, so that both see the same machine. The keys are explained in docs/results/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks import manifest, result, tier
from benchmarks.own_process import in_own_process, peak_rss_mib
from benchmarks.synthetic import declared, episodes, publish, seconds
from ingest.catalog.catalog import Catalog
from ingest.catalog.query_process import QueryLimits
from ingest.corpus.snapshot import Part, write_tables
from ingest.storage.local import LocalStorage
from schemas.catalog import TABLES

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "episodes": "Rows of `episodes` and of `verdicts`.",
    "parts": "Parquet parts of both tables.",
    "num_bytes": "Their bytes.",
    "generate_s": "Writing the catalog (no budget).",
    "open_s": "`Catalog.open`: check every part, create the views, lock down.",
    "filter_group_by_s": "Three filters and a group-by with count, sum and mean over all episodes. Budget: below 1 for 5 million on 2 cores.",
    "bare_scan_s": "The same query in a plain DuckDB over the same files.",
    "view_over_bare_scan_ratio": "Their ratio: the cost of the catalog's views and guard.",
    "count_s": "`SELECT count(*) FROM episodes`.",
    "point_lookup_s": "All columns of one episode by uid; every part is searched.",
    "quarantine_by_code_s": "`quarantine` by code: the latest of 5 million verdicts first.",
    "peak_rss_mib": "Peak memory of the querying process.",
}

PARTS = ("sql", "tier", "manifest")
SEED = 20_000
GROUP_BY = """SELECT source, embodiment, count(*) AS n, sum(hours) AS h, avg(action_coverage) AS coverage
    FROM {episodes} WHERE licence_class = 'permissive' AND length > 100 AND frames_verified GROUP BY ALL ORDER BY ALL"""


def verdicts(committed: pa.Table, number: int) -> pa.Table:
    """One verdict for every episode; every fiftieth says quarantined."""
    count = committed.num_rows
    is_bad = np.arange(count) % 50 == 7
    columns = {
        **{name: committed[name] for name in ("uid", "source", "dataset", "episode_id", "run_id")},
        "state": pa.array(np.where(is_bad, "quarantined", "committed")),
        "code": pa.array(np.where(is_bad, "truncated", "")),
        "message": pa.array(np.where(is_bad, "episode.h5: ends in the middle of a chunk", "")),
        "attempts": pa.array(np.ones(count, np.int32)),
        "snapshot": pa.array(np.full(count, number)),
    }
    return declared("verdicts", columns, count)


def generate(root: Path, num_episodes: int, part_rows: int) -> None:
    """The corpus: parts like `ingest.corpus.snapshot.write_part` makes them, and one snapshot that names them."""
    disk = LocalStorage()
    parts: dict[str, list[Part]] = {name: [] for name in TABLES}
    for first in range(0, num_episodes, part_rows):
        rng = np.random.default_rng([SEED, first])
        table = episodes(rng, min(part_rows, num_episodes - first), first)
        number = first // part_rows + 1
        for name, rows in (("episodes", table), ("verdicts", verdicts(table, number))):
            parts[name].append(write_tables(disk, root, name, [rows]))
    publish(disk, root, parts)


def _agree(one: pa.Table, other: pa.Table) -> bool:
    """Same groups and counts; sums of floats depend on the order of threads."""
    exact = ["source", "embodiment", "n"]
    return bool(
        one.select(exact).equals(other.select(exact).cast(one.select(exact).schema))
        and all(np.allclose(one[name], other[name]) for name in ("h", "coverage"))
    )


def measure(root: Path, repeats: int, threads: int) -> dict[str, float]:
    """All figures over the corpus at `root`; the first run of everything is a warm-up."""
    limits = QueryLimits(threads=threads)
    open_s = [seconds(lambda: Catalog.open(root, limits=limits).close()) for _ in range(repeats)]
    times: dict[str, list[float]] = {}
    with Catalog.open(root, limits=limits) as catalog, duckdb.connect() as bare:
        bare.execute(f"SET threads = {threads}")
        uid = catalog.sql("SELECT uid FROM episodes WHERE episode_id = 'task/episode_4321'").item()
        scan = f"read_parquet('{root}/catalog/episodes/*.parquet')"
        ask: dict[str, Callable[[], Any]] = {
            "filter_group_by_s": lambda: catalog.arrow(GROUP_BY.format(episodes="episodes")),
            "bare_scan_s": lambda: bare.sql(GROUP_BY.format(episodes=scan)).to_arrow_table(),
            "count_s": lambda: catalog.arrow("SELECT count(*) FROM episodes"),
            "point_lookup_s": lambda: catalog.arrow("SELECT * FROM episodes WHERE uid = ?", [uid]),
            "quarantine_by_code_s": lambda: catalog.arrow(
                "SELECT code, count(*) FROM quarantine GROUP BY ALL"
            ),
        }
        view, plain = (ask[name]() for name in ("filter_group_by_s", "bare_scan_s"))
        if not _agree(view, plain):
            raise SystemExit("the view and the bare scan disagree")
        for _ in range(repeats + 1):
            for name, work in ask.items():
                times.setdefault(name, []).append(seconds(work))
    figures = {name: statistics.median(all_seconds[1:]) for name, all_seconds in times.items()}
    figures["view_over_bare_scan_ratio"] = figures["filter_group_by_s"] / figures["bare_scan_s"]
    return {"open_s": statistics.median(open_s), **figures, "peak_rss_mib": peak_rss_mib()}


def figures(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """SQL over the catalog."""
    root = folder / "sql"
    generate_s = seconds(lambda: in_own_process(generate, root, args.episodes, args.part_rows))
    return {
        "parts": 2 * -(-args.episodes // args.part_rows),
        "num_bytes": sum(path.stat().st_size for path in root.rglob("*.parquet")),
        "generate_s": generate_s,
        **measure(root, args.repeats, args.threads),
    }


def alone(part: str) -> dict[str, Any]:
    """The figures of one part, from a program of its own: this one with the same options."""
    words = [sys.executable, "-m", "benchmarks.catalog", *sys.argv[1:], "--only", part, "--json"]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE)
    return dict(json.loads(done.stdout)["figures"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=5_000_000)
    parser.add_argument("--measurements", type=int, default=40, help="Of each episode.")
    parser.add_argument("--segments", type=int, default=1_000_000, help="Of the manifest.")
    parser.add_argument("--stats-episodes", type=int, default=1000)
    parser.add_argument("--part-rows", type=int, default=250_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--folder", type=Path, help="Where the temporary folder is made.")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    answer: dict[str, Any] = {"episodes": args.episodes, "threads": args.threads}
    answer["load_before"] = os.getloadavg()[0]
    measured_on = result.machine()
    if len(args.only) == 1:
        part = {"sql": figures, "tier": tier.figures, "manifest": manifest.figures}[args.only[0]]
        with tempfile.TemporaryDirectory(prefix="eicorpus-benchmark-", dir=args.folder) as folder:
            answer |= part(Path(folder).resolve(), args)
    else:
        for name in args.only:
            measuredalone = alone(name)
            loads = {
                f"{name}_{when}": measuredalone.pop(when) for when in ("load_before", "load_after")
            }
            answer |= measuredalone | loads
    answer["load_after"] = os.getloadavg()[0]
    if args.json:
        print(result.as_json("catalog", measured_on, answer))
    else:
        print("\n".join(f"{name:32} {value:,.4g}" for name, value in answer.items()))


if __name__ == "__main__":
    main()
