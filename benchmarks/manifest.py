"""A manifest of a million segments; part of `python -m benchmarks.catalog`.

Writes a synthetic catalog (seeded; two segments an episode, captions for half of the episodes, latents of two cameras, several instructions in
every fifth episode), then builds, publishes, loads and compares manifests of it. Statistics are timed apart, on data files of their own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.own_process import in_own_process, peak_rss_mib
from benchmarks.synthetic import declared, seconds, write_part
from benchmarks.synthetic import episodes as episode_rows
from ingest.catalog.catalog import Catalog
from ingest.catalog.query_process import QueryLimits
from ingest.corpus import publishing, snapshot
from ingest.corpus.lerobot_writer import arrow_column, parquet_bytes
from ingest.corpus.manifest_folders import publish
from ingest.curation.manifests.action_stats import selection, statistics
from ingest.curation.manifests.manifest import ManifestRequest, build
from ingest.curation.manifests.mixture_text import mixture_from
from ingest.curation.manifests.split_by import SplitBy
from ingest.executors.inline import InlineExecutor
from ingest.storage.local import LocalStorage
from schemas.action import action_spec
from schemas.catalog import TABLES
from schemas.geometry import rot6d_cols_from_rotmat, rotmat_from_rotvec
from schemas.lerobot import vector_feature
from schemas.manifest import load
from schemas.split import Shares

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "manifest_build_plain_s": "Every segment, no mixture, digest included. Budget: below 5 for a million on 2 cores.",
    "manifest_build_plain_cpu_s": "The same in CPU time.",
    "manifest_build_mixed_s": "A WHERE that leaves 60 %, a mixture by source and tier.",
    "manifest_build_mixed_cpu_s": "The same in CPU time.",
    "manifest_build_other_split_s": "Shares other than ingestion's: half a million groups are hashed.",
    "manifest_publish_plain_s": "Parquet and page written, synchronised, renamed.",
    "manifest_publish_mixed_s": "The same of the mixture.",
    "manifest_rows_plain": "Rows of the first manifest.",
    "manifest_rows_mixed": "Rows of the second.",
    "manifest_num_bytes": "Bytes of the first.",
    "manifest_peak_rss_mib": "Peak memory up to here, two builds and two publications. Budget: below 2048.",
    "manifest_load_s": "Reading a manifest and checking its digest.",
    "manifest_stats_ms_per_episode": "Partial statistics of an episode, nothing cached.",
    "manifest_stats_times_real_time": "The same against 10 Hz recording.",
    "manifest_stats_again_s": "The same selection again.",
    "manifest_stats_merge_ms_per_episode": "Another selection of the same segments: only merging.",
    "manifest_stats_cache_bytes_per_segment": "Bytes kept on disk.",
}

SEED = 40_000
STATS_LENGTH = 250
MIXTURE = """
by: [source, tier]
temperature: 0.5
max_epochs: 8
rules:
  - {groups: {tier: low}, max_share: 0.1}
  - {groups: {source: droid}, share: 0.3}
"""
WHERE = "frames_verified AND length > 100"
TASKS = ["forward_dynamics", "inverse_dynamics", "policy", "visual_forecasting"]
SIDES = ("left", "right")


def constant(value: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value), count)


def whole_episodes(rng: np.random.Generator, count: int, first: int) -> pa.Table:
    table = episode_rows(rng, count, first)
    split = rng.choice(["train", "val", "test"], count, p=[0.96, 0.02, 0.02])
    group = pc.binary_join_element_wise("oxe/bridge/episode", table["uid"], ":")
    many = rng.random(count) < 0.2
    lengths = np.where(many, 2, 1)
    names = pa.array([f"put object {k} away" for k in range(100)])
    texts = names.take(pa.array(rng.integers(0, 100, lengths.sum())))
    tasks = pa.ListArray.from_arrays(
        np.concatenate([[0], lengths.cumsum()]).astype(np.int32), texts
    )
    columns = {"split": pa.array(split), "split_group": group, "tasks": tasks}
    for name, array in columns.items():
        table = table.set_column(
            table.schema.get_field_index(name), table.schema.field(name), array
        )
    return table


def tiers(table: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Two segments of each episode."""
    count = 2 * len(table)
    row = np.repeat(np.arange(len(table)), 2)
    length = table["length"].to_numpy()[row]
    is_second = np.arange(count) % 2 == 1
    tier = rng.choice(3, count, p=[0.6, 0.3, 0.1])
    sizes = np.array([4, 3, 1])[tier]
    offsets = np.concatenate([[0], sizes.cumsum()]).astype(np.int32)
    at = np.arange(sizes.sum()) - np.repeat(offsets[:-1], sizes)
    tasks = pa.array(TASKS).take(pa.array(at))
    reason = {"code": "sound", "text": "true actions", "value": 0.5, "threshold": 0.25}
    kind = TABLES["tiers"].field("reasons").type
    columns = {
        "uid": table["uid"].combine_chunks().take(pa.array(row)),
        "policy": constant("ei30k", count),
        "policy_digest": constant("0123456789abcdef", count),
        "segment_index": pa.array(is_second.astype(np.int32)),
        "start": pa.array(np.where(is_second, length // 2, 0)),
        "end": pa.array(np.where(is_second, length, length // 2)),
        "tier": pa.array(["high", "low", "actionless"]).take(pa.array(tier)),
        "tasks": pa.ListArray.from_arrays(pa.array(offsets), tasks),
        "reasons": pa.repeat(pa.scalar([reason], kind), count),
        "run_id": constant("run", count),
        "snapshot": pa.array(np.full(count, 1)),
    }
    return declared("tiers", columns, count)


def others(table: pa.Table, first: int) -> dict[str, pa.Table]:
    """Captions of every other episode, latents of two cameras, and where the instructions of an episode hold."""
    uid, length = table["uid"].combine_chunks(), table["length"].combine_chunks()
    half = pa.array(np.arange(0, len(table), 2))
    numbers = pa.array(np.arange(first, first + len(half))).cast(pa.string())
    zero = pa.array(np.zeros(len(half), np.int64))
    captions = {
        "uid": uid.take(half),
        "caption_id": pc.binary_join_element_wise("caption", numbers, "-"),
        "start": zero,
        "end": length.take(half),
        "text": pc.binary_join_element_wise("Pick up object", numbers, " "),
        "backend": constant("openai", len(half)),
        "outcome": constant("ok", len(half)),
        "run_id": constant("run", len(half)),
    }
    both = pa.array(np.repeat(np.arange(len(table)), 2))
    camera = pa.array(["head", "left_wrist"]).take(pa.array(np.arange(len(both)) % 2))
    latents = {
        "uid": uid.take(both),
        "camera": camera,
        "encoder_id": constant("dinov3_vits16", len(both)),
        "path": pc.binary_join_element_wise("datasets/x/latents", uid.take(both), camera, "/"),
        "sha256": constant("a" * 64, len(both)),
        "run_id": constant("run", len(both)),
    }
    return {
        "captions": declared("captions", captions, len(half)),
        "latents": declared("latents", latents, len(both)),
        "segments": task_rows(table),
    }


def task_rows(table: pa.Table) -> pa.Table:
    tasks = table["tasks"].combine_chunks()
    row = pc.list_parent_indices(tasks).to_numpy()
    length = table["length"].to_numpy()[row]
    is_second = np.concatenate([[False], row[1:] == row[:-1]])
    columns = {
        "uid": table["uid"].combine_chunks().take(pa.array(row)),
        "segment_index": pa.array(is_second.astype(np.int32)),
        "kind": constant("task", len(row)),
        "start": pa.array(np.where(is_second, length // 3, 0)),
        "end": pa.array(length),
        "text": tasks.flatten(),
    }
    return declared("segments", columns, len(row))


def generate(root: Path, num_segments: int, part_rows: int) -> None:
    """The corpus, one snapshot for each part of every table."""
    disk = LocalStorage()
    root.mkdir(parents=True, exist_ok=True)
    (root / "corpus.json").write_text('{"format_version": 1, "uid": "benchmark"}')
    current = snapshot.Snapshot()
    for first in range(0, num_segments // 2, part_rows):
        rng = np.random.default_rng([SEED, first])
        table = whole_episodes(rng, min(part_rows, num_segments // 2 - first), first)
        tables = {"episodes": table, "tiers": tiers(table, rng), **others(table, first)}
        parts = {t: snapshot.write_tables(disk, root, t, [rows]) for t, rows in tables.items()}
        if first == 0:
            policy = {"policy": "ei30k", "version": 1, "policy_digest": "0123456789abcdef"}
            row = {**policy, "text": "policy: ei30k", "run_id": "run", "snapshot": 1}
            parts["policies"] = write_part(disk, root, "policies", [row])
        current = publishing.publish(disk, root, current, parts, "run")


# --- statistics ------------------------------------------------------------------------------------------------------------


def names_of() -> dict[str, tuple[str, ...]]:
    parts = [
        (f"{s}.{p}", n)
        for s in SIDES
        for p, n in (("position_m", 3), ("rot6d_cols", 6), ("gripper_opening", 1))
    ]
    spec = action_spec(parts)
    assert spec is not None
    slices = tuple(s.name for s in spec.slices)
    return {
        "action": spec.names,
        "observation.state": spec.names,
        "action.valid": slices,
        "observation.valid": slices,
    }


def moving_rows(rng: np.random.Generator, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """[count, 20] two arms on smooth random ways."""
    sides = []
    for _ in SIDES:
        steps = rng.normal(0, 0.01, (2, count, 3)).cumsum(axis=1)
        turn = rot6d_cols_from_rotmat(rotmat_from_rotvec(steps[1]))
        opening = (np.sin(np.arange(count) / 20) > 0).astype(np.float64)[:, None]
        sides.append(np.concatenate([steps[0], turn, opening], axis=1))
    return np.concatenate(sides, axis=1).astype(np.float32)


def generate_data(root: Path, num_episodes: int, length: int) -> None:
    """A corpus with data files and no pictures: two arms, one segment an episode."""
    disk, names = LocalStorage(), names_of()
    folder = root / "datasets/x/two_arms/data/chunk-000"
    folder.mkdir(parents=True)
    (root / "corpus.json").write_text('{"format_version": 1, "uid": "benchmark"}')
    artifacts = []
    features = {
        name: vector_feature("bool" if name.endswith("valid") else "float32", element_names)
        for name, element_names in names.items()
    }
    detail = {"robot_type": "two_arms", "fps": 10, "features": features, "spec": []}
    nothing = {"camera": "", "num_bytes": 0, "sha256": "", "num_frames": 0}
    path = "datasets/x/two_arms"
    artifacts.append(
        {"uid": "", "kind": "features", "path": path, **nothing, "detail_json": json.dumps(detail)}
    )
    rng = np.random.default_rng(SEED)
    table = episode_rows(rng, num_episodes, 0)
    for index, uid in enumerate(table["uid"].to_pylist()):
        rows = moving_rows(rng, length + 1)
        valid = np.ones((length, len(names["action.valid"])), dtype=bool)
        columns = {"action": rows[1:], "action.valid": valid}
        columns |= {"observation.state": rows[:-1], "observation.valid": valid}
        data = parquet_bytes(pa.table({n: arrow_column(v) for n, v in columns.items()}))
        file = f"{path}/data/chunk-000/episode_{index:06d}.parquet"
        (root / file).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        size = {"num_bytes": len(data), "sha256": digest, "num_frames": length}
        artifacts.append(
            {"uid": uid, "kind": "data", "camera": "", "path": file, **size, "detail_json": "{}"}
        )
    part = write_part(disk, root, "artifacts", artifacts)
    publishing.publish(disk, root, snapshot.Snapshot(), {"artifacts": part}, "run")


def statistics_figures(root: Path, length: int) -> dict[str, float]:
    """Reading every data file once, then the same again from what is kept."""
    current = snapshot.load(root)
    uids = [
        r["uid"]
        for r in current.read(root, "artifacts", ["uid", "kind"]).to_pylist()
        if r["kind"] == "data"
    ]
    count = len(uids)
    rows = pa.table(
        {
            "uid": uids,
            "start": np.zeros(count, np.int64),
            "end": np.full(count, length),
            "embodiment": constant("two_arms", count),
            "dataset_path": constant("datasets/x/two_arms", count),
            "episode_index": np.arange(count),
            "split": constant("train", count),
            "tasks": pa.repeat(pa.scalar(TASKS, pa.list_(pa.string())), count),
        }
    )
    chosen = selection(root, current, rows)
    disk, on = LocalStorage(), InlineExecutor()
    first_s = seconds(lambda: statistics(chosen, on, disk))
    again_s = seconds(lambda: statistics(chosen, on, disk))
    fewer = selection(root, current, rows.slice(1))
    merge_s = seconds(lambda: statistics(fewer, on, disk))
    cache = root / "manifests/_cache"
    kept = sum(p.stat().st_size for p in cache.rglob("*.parquet"))
    return {
        "stats_episodes": count,
        "stats_ms_per_episode": 1000 * first_s / count,
        "stats_times_real_time": count * length / 10 / first_s,
        "stats_again_s": again_s,
        "stats_merge_ms_per_episode": 1000 * merge_s / count,
        "stats_cache_bytes_per_segment": kept / count,
    }


def measure(root: Path, threads: int) -> dict[str, float]:
    limits = QueryLimits(timeout_s=3600, memory_mb=4096, threads=threads)
    request = ManifestRequest(name="plain")
    mixed = replace(request, name="mixed", where=WHERE, mixture=mixture_from(MIXTURE, "mixture"))
    figures: dict[str, float] = {}
    for one in (request, mixed):
        started, cpu_started = time.perf_counter(), time.process_time()
        with Catalog.open(root, limits=limits) as catalog:
            built = build(catalog, one, "benchmark")
        figures[f"build_{one.name}_s"] = time.perf_counter() - started
        figures[f"build_{one.name}_cpu_s"] = time.process_time() - cpu_started
        figures[f"publish_{one.name}_s"] = seconds(
            partial(publish, root, built.facts, built.rows, LocalStorage())
        )
        figures[f"rows_{one.name}"] = built.facts.num_rows
        del built  # or its rows would count in the next one's memory
    figures["peak_rss_mib"] = peak_rss_mib()
    folders = [root / "manifests" / name for name in ("plain", "mixed")]
    figures["load_s"] = seconds(lambda: load(folders[0]))
    figures["num_bytes"] = sum(f.stat().st_size for f in folders[0].iterdir())
    other = replace(request, name="other", split_by=SplitBy.EPISODE, shares=Shares(val=0.1))
    started = time.perf_counter()
    with Catalog.open(root, limits=limits) as catalog:
        build(catalog, other, "benchmark")
    figures["build_other_split_s"] = time.perf_counter() - started
    return figures


def figures(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    catalog, data = folder / "catalog", folder / "data"
    in_own_process(generate, catalog, args.segments, args.part_rows)
    in_own_process(generate_data, data, args.stats_episodes, STATS_LENGTH)
    measured = measure(catalog, args.threads)
    measured |= statistics_figures(data, STATS_LENGTH)
    return {"manifest_segments": args.segments} | {
        f"manifest_{name}": value for name, value in measured.items()
    }
