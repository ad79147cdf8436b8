"""Copies among many episodes: `python -m benchmarks.dedup [--episodes N] [--json]`.

Writes a catalog with synthetic signatures (seeded) to a temporary folder, in a process of its own so that its memory is not ours,
with copies planted in it; then does what `eicorpus dedup --dry-run` does. The episodes are as alike as demonstrations of few tasks
in few laboratories are, so that there are many near pairs that are no copies. The keys are explained in docs/results/benchmarks.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.spatial.transform import Rotation

from benchmarks import result
from benchmarks.own_process import peak_rss_mib
from benchmarks.synthetic import declared, episodes, publish
from ingest.catalog.catalog import Catalog
from ingest.catalog.query_process import QueryLimits
from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Part, write_tables
from ingest.curation.duplicates.cluster import decide
from ingest.curation.duplicates.compare import Thresholds
from ingest.curation.duplicates.find import find_copies
from ingest.curation.duplicates.signatures import KINDS, read_signatures
from ingest.curation.measurements.each.image_signature import COEFFICIENTS, PARTS, WIDTH
from ingest.curation.measurements.each.trajectory import POINTS
from ingest.storage.local import LocalStorage
from jobs.stages.dedup import parts_of
from jobs.stages.resources import Resources
from schemas.catalog import TABLES

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "episodes": "Episodes; one in twenty is a copy with another frame, noise and camera order.",
    "total_s": "Everything that `eicorpus dedup --dry-run` does. Budget on 2 cores: below 60 for 100,000, below 600 for a million.",
    "workers": "Processes that search and compare; 0 is this process.",
    "cpu_s": "CPU time of all threads and processes.",
    "read_s": "Of it: reading the signatures.",
    "find_s": "Of it: candidates and comparison.",
    "decide_s": "Of it: the rule.",
    "recall": "Share of the planted copies that are in one cluster with their original.",
    "precision": "Planted pairs over episodes left out. The rest are demonstrations of one task within the thresholds.",
    "candidates": "Pairs that were compared.",
    "crowded": "Vectors with more neighbours than are kept.",
    "peak_rss_mib": "Peak memory.",
}

SEED = 31
COPIED = 0.05  # of the episodes of a part are copies of others of it
CAMERAS = 2
LABS, TASKS_PER_LAB = 200, 40
# What a copy suffers; measured on re-encoded, cropped and resampled ones (docs/how-to/duplicates.md).
LOOK_NOISE, PATH_NOISE, OTHER_DEMO = 0.15, 0.01, 0.25


def signatures(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """`pictures` [count, cameras x 456] and `path` [count, 32, 4]: demonstrations of tasks in laboratories; the last ones are copies."""
    lab = rng.integers(0, LABS, count)
    task = lab * TASKS_PER_LAB + rng.integers(0, TASKS_PER_LAB, count)
    look = np.concatenate([_look(rng, lab, task, camera) for camera in range(CAMERAS)], axis=1)
    path = _path(rng, task)
    copies = int(COPIED * count)
    of = rng.choice(count - copies, copies, replace=False)
    return {"pictures": _copied_look(rng, look, of), "path": _copied_path(rng, path, of), "of": of}


def _look(rng: np.random.Generator, lab: np.ndarray, task: np.ndarray, camera: int) -> np.ndarray:
    """The scene of the laboratory's camera; the motion of the task, and a quarter of it this demonstration's own."""
    fixed = np.random.default_rng([SEED, camera])
    scenes = fixed.normal(0, 8, (LABS, COEFFICIENTS))
    motions = _smooth(fixed, LABS * TASKS_PER_LAB)
    own = _smooth(rng, len(task))
    motion = motions[task] + 2 * OTHER_DEMO * own
    motion -= motion.mean(axis=1, keepdims=True)
    scene = scenes[lab] + rng.normal(0, 0.4, (len(lab), COEFFICIENTS))
    change = np.sqrt((motion**2).sum(axis=2).mean(axis=1))
    flat = motion.reshape(len(task), -1)
    return np.concatenate([change[:, None], scene, flat], axis=1).astype(np.float32)


def _smooth(rng: np.random.Generator, count: int) -> np.ndarray:
    """[count, 12, 35] slow changes, of the low spatial frequencies above all."""
    steps = rng.normal(0, 1, (count, PARTS, COEFFICIENTS)).astype(np.float32)
    u, v = np.divmod(np.arange(1, COEFFICIENTS + 1), 6)
    return np.asarray(np.cumsum(steps, axis=1) / (1 + u + v))


def _path(rng: np.random.Generator, task: np.ndarray) -> np.ndarray:
    """[n, 32, 4] three waves per axis: the task's, and a quarter of this demonstration's own."""
    fixed = np.random.default_rng([SEED, 99])
    tasks = _waves(fixed, LABS * TASKS_PER_LAB)
    path = tasks[task]
    path[..., :3] += OTHER_DEMO * _waves(rng, len(task))[..., :3]
    path[..., :3] -= path[:, :1, :3]
    return np.asarray(path)


def _waves(rng: np.random.Generator, count: int) -> np.ndarray:
    t = np.linspace(0, 1, POINTS)
    rate = rng.uniform(2, 8, (count, 1, 3, 3))
    phase = rng.uniform(0, 2 * np.pi, (count, 1, 3, 3))
    position = 0.08 * np.sin(rate * t[:, None, None] + phase).sum(axis=3)
    closes = rng.uniform(0.2, 0.5, (count, 1))
    opening = ((t < closes) | (t > closes + 0.4)).astype(float)
    return np.concatenate([position, opening[..., None]], axis=2)


def _copied_look(rng: np.random.Generator, look: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Noise of a codec and a crop on scene and motion, the cameras in another order."""
    copy = look[of].reshape(len(of), CAMERAS, WIDTH)[:, ::-1].copy()
    body = copy[..., 1:]
    for part in (slice(0, COEFFICIENTS), slice(COEFFICIENTS, None)):
        size = np.sqrt((body[..., part] ** 2).mean(axis=2, keepdims=True))
        body[..., part] += LOOK_NOISE * size * rng.normal(0, 1, body[..., part].shape)
    return np.concatenate([look[: len(look) - len(of)], copy.reshape(len(of), -1)])


def _copied_path(rng: np.random.Generator, path: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Noise of resampling, and another base frame."""
    copy = path[of].copy()
    turn = Rotation.random(len(of), rng).as_matrix()
    size = np.sqrt(copy[..., :3].var(axis=1).sum(axis=1))[:, None, None]
    noise = np.repeat(rng.normal(0, 1, (len(of), POINTS // 4, 3)), 4, axis=1)  # as of kinks
    copy[..., :3] = (copy[..., :3] + PATH_NOISE * size * noise) @ turn
    copy[..., :3] -= copy[:, :1, :3]
    return np.concatenate([path[: len(path) - len(of)], copy])


def generate(root: Path, num_episodes: int, part_rows: int) -> None:
    """The corpus, and `planted.npz`: uids of every copy and of what it is a copy of."""
    disk = LocalStorage()
    parts: dict[str, list[Part]] = {name: [] for name in TABLES}
    planted = []
    for first in range(0, num_episodes, part_rows):
        rng = np.random.default_rng([SEED, first])
        count = min(part_rows, num_episodes - first)
        table = episodes(rng, count, first)
        licence = pa.array(["permissive"] * count)
        table = table.set_column(
            table.column_names.index("licence_class"), "licence_class", licence
        )
        drawn = signatures(rng, count)
        seconds = table["duration_s"].to_numpy().copy()
        copies = len(drawn["of"])
        seconds[count - copies :] = seconds[drawn["of"]] * rng.uniform(0.97, 1.03, copies)
        at = table.column_names.index("duration_s")
        table = table.set_column(at, "duration_s", pa.array(seconds))
        uids = table["uid"].to_numpy()
        planted += [*zip(uids[count - copies :], uids[drawn["of"]], strict=True)]
        parts["episodes"].append(write_tables(disk, root, "episodes", [table]))
        parts["signatures"].append(write_tables(disk, root, "signatures", [_vectors(table, drawn)]))
        parts["measurements"].append(write_tables(disk, root, "measurements", [_numbers(table)]))
    np.savez(root / "planted.npz", pairs=np.array(planted).astype("U36"))
    (root / "corpus.json").write_text('{"format_version": 1}')
    publish(disk, root, parts)


def _vectors(table: pa.Table, drawn: dict[str, np.ndarray]) -> pa.Table:
    both = []
    for kind, values in (("pictures", drawn["pictures"]), ("trajectory", drawn["path"])):
        flat = np.round(values.reshape(len(values), -1) * 1024).astype(np.float32) / 1024
        offsets = np.arange(len(flat) + 1, dtype=np.int32) * flat.shape[1]
        columns = {
            "uid": table["uid"],
            "kind": pa.array([kind] * len(flat)),
            "version": pa.array(np.full(len(flat), KINDS[kind].version, np.int32)),
            "vector": pa.ListArray.from_arrays(offsets, pa.array(flat.ravel())),
        }
        both.append(declared("signatures", columns, len(flat)))
    return pa.concat_tables(both)


def _numbers(table: pa.Table) -> pa.Table:
    """One number of each measure, by which an episode counts as measured."""
    count = len(table)
    each = [
        declared(
            "measurements",
            {
                "uid": table["uid"],
                "name": pa.array([measure.outputs[0].name] * count),
                "version": pa.array(np.full(count, measure.version, np.int32)),
            },
            count,
        )
        for measure in KINDS.values()
    ]
    return pa.concat_tables(each)


def measure(root: Path, threads: int, workers: int) -> dict[str, float]:
    """Read, search and decide once."""
    started, started_cpu = time.perf_counter(), _cpu_s()
    current = snapshot.load(root)
    stored = read_signatures(root, current)
    read_s = time.perf_counter() - started
    with parts_of(CorpusLayout(root), Resources(workers=workers)) as parts:
        copies = find_copies(root, current, stored, Thresholds(), parts)
    find_s = time.perf_counter() - started - read_s
    with Catalog.open(root, limits=QueryLimits(threads=threads)) as catalog:
        decided = decide(catalog, stored, copies, Thresholds())
    total_s = time.perf_counter() - started
    cpu_s = _cpu_s() - started_cpu
    number = {uid: place for place, uid in enumerate(stored.uids)}
    planted = np.load(root / "planted.npz")["pairs"]
    one, other = (np.array([number[u] for u in planted[:, k]]) for k in range(2))
    joined = copies.cluster[one] == copies.cluster[other]
    num_copies = sum(row.kind != "kept" for row in decided.rows)
    return {
        "measured": int(stored.is_measured.sum()),
        "planted": len(planted),
        "recall": float(joined.mean()),
        "said": num_copies,
        "precision": float(joined.sum() / max(num_copies, 1)),
        "candidates": copies.candidates,
        "crowded": copies.crowded,
        "read_s": read_s,
        "find_s": find_s,
        "decide_s": total_s - read_s - find_s,
        "total_s": total_s,
        "cpu_s": cpu_s,
    }


def _cpu_s() -> float:
    """Of this process and of those that it started and that have ended."""
    own, others = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=100_000)
    parser.add_argument("--part-rows", type=int, default=50_000)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    measured_on = result.machine()
    with tempfile.TemporaryDirectory(prefix="eicorpus-benchmark-") as folder:
        root = Path(folder).resolve()
        spawn = multiprocessing.get_context("spawn")
        writer = spawn.Process(target=generate, args=(root, args.episodes, args.part_rows))
        writer.start()
        writer.join()
        if writer.exitcode != 0:
            raise SystemExit("the catalog could not be written")
        num_bytes = sum(p.stat().st_size for p in (root / "catalog/signatures").glob("*.parquet"))
        figures = measure(root, args.threads, args.workers)
    answer: dict[str, Any] = {
        "episodes": args.episodes,
        "cameras": CAMERAS,
        "num_bytes": num_bytes,
        "threads": args.threads,
        "workers": args.workers,
        **figures,
        "peak_rss_mib": peak_rss_mib(),
    }
    if args.json:
        print(result.as_json("dedup", measured_on, answer))
    else:
        print("\n".join(f"{name:16} {value:,.4g}" for name, value in answer.items()))


if __name__ == "__main__":
    main()
