"""What the tests of copies share: paths and looks made of a seed, corpora of them, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from ingest.curation.duplicates import distances
from ingest.curation.duplicates.signatures import KINDS, Signatures
from ingest.curation.measurements.each.image_signature import WIDTH
from ingest.curation.measurements.each.trajectory import POINTS
from jobs.cli import app
from tests.generators.corpus import commit, rows_of, uid_of


def arm(seed: int, noise: float = 0.0) -> np.ndarray:
    rate, phase = np.random.default_rng(seed).uniform(2, 8, (2, 3))
    t = np.linspace(0, 1, POINTS)[:, None]
    jitter = noise * np.random.default_rng(seed + 1000).normal(0, 0.14, (POINTS, 3))
    return np.concatenate([0.2 * np.sin(rate * t + phase) + jitter, t < 0.5], axis=1)


def look(seed: int, noise: float = 0.0) -> np.ndarray:
    made = np.random.default_rng(seed).normal(0, 5, WIDTH)
    made += noise * np.random.default_rng(seed + 1000).normal(0, 5, WIDTH)
    made[0] = 100.0  # luma of change: lively
    return made


def signatures(
    paths: Sequence[Sequence[np.ndarray]],
    cameras: Sequence[Sequence[np.ndarray]],
    duration_s: Sequence[float] | None = None,
) -> Signatures:
    """One episode each: its arms [32, 4] and its cameras [456]."""
    num_paths, num_looks = (np.array([len(p) for p in given]) for given in (paths, cameras))
    flat = [look for some in cameras for look in some]
    arms = [arm for some in paths for arm in some]
    return Signatures(
        uids=np.array([f"{k:04d}" for k in range(len(paths))], dtype=object),
        duration_s=np.array(duration_s or [10.0] * len(paths)),
        is_measured=np.ones(len(paths), dtype=bool),
        looks=distances.looks_from(*distances.packed(np.array(flat).reshape(-1, WIDTH))),
        first_look=np.cumsum(num_looks) - num_looks,
        num_looks=num_looks,
        paths=np.array(arms).reshape(-1, POINTS, 4).astype(np.float16),
        first_path=np.cumsum(num_paths) - num_paths,
        num_paths=num_paths,
        digest=np.full(len(paths), b"", dtype="S32"),
        is_unusable=np.zeros(len(paths), dtype=bool),
    )


Edit = Callable[[dict[str, Any]], None]


def corpus(root: Path, seeds: Sequence[int | None], **edits: Edit) -> Path:
    """Synthetic episodes; those of one seed are copies, None was never measured. `edits` change rows of a table."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "corpus.json").write_text('{"format_version": 1, "uid": "synthetic"}')
    rows = rows_of(len(seeds), 0)
    rows["signatures"], rows["measurements"] = [], []
    for index, seed in enumerate(seeds):
        alike = {"duration_s": 10.0, "length": 100, "licence_class": "permissive", "facts": []}
        rows["episodes"][index] |= alike
        # who may teach nothing is in no manifest
        rows["tiers"][index] |= {"tier": "low", "tasks": ["visual_forecasting"]}
        if seed is not None:
            rows["signatures"] += signed(index, {"trajectory": arm(seed), "pictures": look(seed)})
            rows["measurements"] += numbered(index)
    for table, edit in edits.items():
        for row in rows[table]:
            edit(row)
    commit(root, rows)
    return root


def signed(index: int, vectors: dict[str, np.ndarray], version: int = 1) -> list[dict[str, Any]]:
    return [
        {"uid": uid_of(index), "kind": k, "version": version, "vector": v.ravel().tolist()}
        for k, v in vectors.items()
    ]


def numbered(index: int) -> list[dict[str, Any]]:
    none = {"value": None, "unit": "", "start": None, "end": None, "denominator": 0}
    return [
        {"uid": uid_of(index), "name": m.outputs[0].name, "version": m.version, **none}
        for m in KINDS.values()
    ]


def told(*words: str, code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["dedup", *words, "--json"])
    assert result.exit_code == code, result.output
    answer: dict[str, Any] = json.loads(result.stdout)["result"]
    return answer


def splits(row: dict[str, Any]) -> None:
    row["split"] = {uid_of(2): "val", uid_of(3): "test"}.get(row["uid"], "train")
