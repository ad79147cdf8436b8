"""The catalog of a small synthetic corpus, written through `ingest.corpus.snapshot`: no pictures, no LeRobot files.

Rows follow from their index alone, so that a test can say in plain Python what SQL must answer.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.synthetic import write_part
from ingest.corpus import publishing, snapshot
from ingest.storage.local import LocalStorage

Rows = dict[str, list[dict[str, Any]]]
SOURCES = ("agibot_world", "egodex", "oxe")
TASKS = ("fold the towel", "pick up the red cup", 'say "hi", then\nstop', "倒水")
CODES = ("truncated", "corrupt_video")


@dataclass(frozen=True)
class WrittenCatalog:
    """Where, and every row by table, in order."""

    root: Path
    rows: Rows


def uid_of(index: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"episode-{index}"))


def episode(index: int) -> dict[str, Any]:
    source = SOURCES[index % 3]
    length = 40 + 7 * index
    is_human = source == "egodex"
    return {
        "uid": uid_of(index),
        "source": source,
        "dataset": f"{source}_set",
        "episode_id": f"task_{index % 4}/episode_{index:04d}",
        "embodiment": "human_video" if is_human else "franka_panda",
        "dataset_path": f"datasets/{source}/main",
        "episode_index": index // 3,
        "index_from": 1000 * index,
        "length": length,
        "duration_s": length / 10,
        "hours": length / 36000,
        "tasks": [TASKS[index % 4]] + (["put it back"] if index % 5 == 0 else []),
        "task_counts": [length - 10, 10] if index % 5 == 0 else [length],
        "cameras": [
            {
                "name": name,
                "width": 256,
                "height": 192,
                "codec": "h264",
                "source_codec": "av1",
                "was_copied": False,
                "K_cam": [200.0, 0.0, 128.0, 0.0, 200.0, 96.0, 0.0, 0.0, 1.0] if k == 0 else None,
                "lens_model": "pinhole" if k == 0 else None,
                "lens_params": [] if k == 0 else None,
            }
            for k, name in enumerate(("head",) if is_human else ("head", "left_wrist"))
        ],
        "eef_frame": "none" if is_human else "hand_xfz",
        "frames_verified": not is_human,
        "camera_motion_removed": not is_human,
        "action_source": "none" if is_human else "commanded",
        "command_only": [],
        "absent_cameras": [],
        "action_coverage": 0.0 if is_human else 1.0 - (index % 4) / 8,
        "supervises": ["visual"] if is_human else ["policy", "visual"],
        "supervision_limits": ["no hand data"] if is_human else [],
        "source_rate_hz": 30000 / 1001 if is_human else 10.0,
        "source_rate": "30000/1001" if is_human else "10",
        "worst_image_skew_ms": float("nan") if index == 4 else 3.5,
        "repeated_frame_share": 0.0,
        "source_repeats": [],
        "num_gaps": index % 2,
        "success": None if is_human else index % 2 == 0,
        "subject_id": f"p{index % 2}" if is_human else None,
        "scene_id": None,
        "split_group": f"{source}/{source}_set/subject:p{index % 2}" if is_human else uid_of(index),
        "split": "val" if index % 7 == 3 else "train",
        "source_split": "",
        "licence": "CC BY-NC-ND 4.0" if is_human else "CC BY 4.0",
        "licence_class": "non_commercial" if is_human else "open",
        "allows_redistribution": not is_human,
        "facts": [
            {"name": "rate", "value": "10", "certainty": "documented", "source": "synthetic"}
        ],
        "raw_files": [
            {"path": f"raw/{index}.h5", "num_bytes": 5_000_000_000, "digest": f"d{index}"}
        ],
        "adapter_version": 1,
        "recipe_digest": "r" * 16,
        "options_digest": "",
        "content_sha256": f"{index:064x}",
        "run_id": "run-1",
    }


def verdict(index: int, state: str, number: int, *, attempts: int = 1) -> dict[str, Any]:
    is_bad = state != "committed"
    return {
        "uid": uid_of(index),
        "source": SOURCES[index % 3],
        "dataset": f"{SOURCES[index % 3]}_set",
        "episode_id": f"task_{index % 4}/episode_{index:04d}",
        "state": state,
        "code": CODES[index % 2] if is_bad else "",
        "message": f"the file of [bold]episode {index} is cut" if is_bad else "",
        "attempts": attempts,
        "run_id": f"run-{number}",
        "snapshot": number,
    }


def _others(index: int, length: int) -> Rows:
    uid = uid_of(index)
    span = {"uid": uid, "start": 0, "end": length}
    times = {"start_s": 0.0, "end_s": length / 10}
    measured = {"version": 1, "unit": "ratio", "denominator": length}
    latent = {
        "uid": uid,
        "camera": "head",
        "encoder_id": "dinov3_vits16",
        "path": f"datasets/s/main/latents/{uid}.st",
        "pack_offset": None,
    }
    return {
        "segments": [{**span, **times, "segment_index": 0, "kind": "valid_run", "text": ""}],
        "measurements": [
            {**span, **measured, "name": name, "value": value}
            for name, value in (("sharpness", (index * 37 % 100) / 100), ("idle_share", 0.1))
        ],
        "signatures": [
            {"uid": uid, "kind": "trajectory", "version": 1, "vector": [0.5, float(index % 4)]}
        ],
        "captions": [
            {
                **span,
                "caption_id": f"c{index}",
                "text": f"A hand moves, take {index}.",
                "language": "en",
                "backend": "synthetic",
                "prompt_version": "1",
                "outcome": "ok",
                "run_id": "run-1",
                "model": "",
                "prompt_sha256": "",
                "params_json": "{}",
                "source_text": TASKS[index % 4],
                "rephrasings": [],
                "checks_failed": [],
                "checks_silent": [],
                "detail": "",
                "confidence": None,
                "description_json": None,
                "camera": None,
                "sheet_sha256": None,
                "frames_s": [],
                "cache_key": "",
                "latency_s": None,
            }
        ],
        "tiers": [
            {
                **span,
                "policy": "synthetic",
                "policy_digest": "p" * 16,
                "segment_index": 0,
                "tier": "high" if index % 2 else "low",
                "tasks": ["policy"] if index % 2 else [],
                "reasons": [{"code": "sound", "text": "sound", "value": 0.1, "threshold": None}],
                "run_id": "run-1",
                "snapshot": 1,
            }
        ],
        "latents": [
            {
                **latent,
                "num_frames": (length + 2) // 3,
                "dtype": "bfloat16",
                "sha256": "a" * 64,
                "video_sha256": "b" * 64,
                "run_id": "run-1",
                "num_bytes": 1000,
            }
        ],
        "artifacts": [
            {
                "uid": uid,
                "kind": "data",
                "camera": "",
                "path": f"datasets/{SOURCES[index % 3]}/main/data/{index}.parquet",
                "num_bytes": 1000 * index,
                "sha256": "c" * 64,
                "num_frames": length,
                "detail_json": "{}",
            }
        ],
    }


def _once(num_episodes: int, num_quarantined: int) -> Rows:
    started = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)
    return {
        "sources": [
            {
                "source": source,
                "dataset": f"{source}_set",
                "root": f"raw/{source}",
                "adapter_version": 1,
                "licence": "CC BY 4.0",
                "licence_class": "open",
                "facts": [],
                "notes": [],
                "run_id": "run-1",
            }
            for source in SOURCES
        ],
        "policies": [
            {
                "policy": "synthetic",
                "version": 1,
                "policy_digest": "p" * 16,
                "text": "policy: synthetic\n",
                "run_id": "run-1",
                "snapshot": 1,
                "reads_sha256": None,
            }
        ],
        "runs": [
            {
                "run_id": "run-1",
                "command": "eicorpus ingest",
                "started_at": started,
                "finished_at": started.replace(hour=13),
                "executor": "local",
                "recipe_digest": "r" * 16,
                "recipe_json": "{}",
                "discovered": num_episodes + num_quarantined,
                "committed": num_episodes,
                "filtered": 0,
                "quarantined": num_quarantined,
                "failed": 0,
                "not_reached": 0,
                "suspect_nodes": [],
            }
        ],
    }


def rows_of(num_episodes: int, num_quarantined: int = 3, *, first: int = 0) -> Rows:
    """Every table of one run: episodes first.., then quarantined ones that have only a verdict."""
    out = _once(num_episodes, num_quarantined)
    out["episodes"] = [episode(first + k) for k in range(num_episodes)]
    for k, row in enumerate(out["episodes"]):
        for table, rows in _others(first + k, row["length"]).items():
            out.setdefault(table, []).extend(rows)
    states = ["committed"] * num_episodes + ["quarantined"] * num_quarantined
    out["verdicts"] = [verdict(first + k, state, 1) for k, state in enumerate(states)]
    return out


def commit(root: Path, rows: Rows, run_id: str = "run-1") -> snapshot.Snapshot:
    """Append rows to the corpus as the next snapshot."""
    disk = LocalStorage()
    parts = {t: write_part(disk, root, t, given) for t, given in rows.items() if given}
    return publishing.publish(disk, root, snapshot.load(root), parts, run_id)


def write_catalog(root: Path, num_episodes: int = 12, num_quarantined: int = 3) -> WrittenCatalog:
    """A corpus folder with one snapshot."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "corpus.json").write_text('{"format_version": 1, "uid": "synthetic"}')
    rows = rows_of(num_episodes, num_quarantined)
    commit(root, rows)
    return WrittenCatalog(root, rows)
