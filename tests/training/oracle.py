"""A second loader, in plain loops over Parquet and safetensors, that shares no line with ours: what a sample must be."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation

from schemas.manifest import Manifest, ManifestRow
from tests.training.corpus import ENCODER, GRID_STRIDE, NUM_PREFIX

Array = npt.NDArray[np.float64]
HISTORY, CHUNK, PAST, FUTURE = 4, 16, (-3, 0), 6


@cache
def columns(corpus: Path, dataset_path: str, episode_index: int) -> dict[str, dict[str, Array]]:
    """{feature: {element: [K]}}."""
    table = pq.read_table(
        corpus / dataset_path / f"data/chunk-000/episode_{episode_index:06d}.parquet"
    )
    features = json.loads((corpus / dataset_path / "meta/info.json").read_text())["features"]
    out = {}
    for name in ("action", "action.valid", "observation.state", "observation.valid"):
        if name in features:
            rows = np.array([np.atleast_1d(x) for x in table[name].to_pylist()], dtype=float)
            out[name] = dict(zip(features[name]["names"], rows.T, strict=True))
    return out


def pose_at(values: dict[str, Array], side: str, k: int) -> tuple[Array, Rotation]:
    p = np.array([values[f"{side}.position_m.{axis}"][k] for axis in "xyz"])
    x, y = (
        np.array([values[f"{side}.rot6d_cols.{column}{axis}"][k] for axis in "xyz"])
        for column in "xy"
    )
    x = x / np.linalg.norm(x)
    y = y - x * (x @ y)
    y = y / np.linalg.norm(y)
    return p, Rotation.from_matrix(np.stack([x, y, np.cross(x, y)], axis=1))


def is_posed(valid: dict[str, Array], side: str, k: int) -> bool:
    return bool(valid[f"{side}.position_m"][k] and valid[f"{side}.rot6d_cols"][k])


@cache
def actions_of(corpus: Path, row: ManifestRow) -> list[dict[str, float]]:
    """For each row of the segment the valid elements: the body's own motion, and the opening that it leads to."""
    found = columns(corpus, row.dataset_path, row.episode_index)
    out: list[dict[str, float]] = [{} for _ in range(row.end - row.start)]
    if not found:
        return out
    action, valid = found["action"], found["action.valid"]
    state, seen = found["observation.state"], found["observation.valid"]
    for k in range(row.start, row.end):
        mine = out[k - row.start]
        for side in ("left", "right"):
            if f"{side}.position_m.x" in action and is_posed(valid, side, k):
                if k > row.start and is_posed(valid, side, k - 1):
                    before = pose_at(action, side, k - 1)
                elif is_posed(seen, side, k):
                    before = pose_at(state, side, k)
                else:
                    continue
                after = pose_at(action, side, k)
                moved = before[1].inv().apply(after[0] - before[0])
                turned = (before[1].inv() * after[1]).as_rotvec()
                for i, axis in enumerate("xyz"):
                    mine[f"{side}.delta_position_m.{axis}"] = moved[i]
                    mine[f"{side}.delta_rotvec_rad.{axis}"] = turned[i]
            if f"{side}.gripper_opening" in action and valid[f"{side}.gripper_opening"][k]:
                mine[f"{side}.gripper_opening"] = action[f"{side}.gripper_opening"][k]
    return out


def normalised(manifest: Manifest, row: ManifestRow, name: str, value: float) -> float | None:
    """By the quantiles, None where there are none."""
    assert manifest.facts.statistics is not None
    body = manifest.facts.statistics.embodiments.get(row.embodiment)
    if body is None or name not in body.names or not body.count[body.names.index(name)]:
        return None
    i = body.names.index(name)
    low, high = body.q01[i], body.q99[i]
    assert low is not None
    assert high is not None
    return 2 * (value - low) / (high - low) - 1


def sample(
    manifest: Manifest, row: ManifestRow, now: int, cameras: tuple[str, ...]
) -> dict[str, Any]:
    """`action`, `history`: a list of {element: normalised} by row; `pictures`: {(offset, camera): [N, D] or None}."""
    stored = actions_of(manifest.corpus, row)

    def at(k: int) -> dict[str, float]:
        if not row.start <= k < row.end:
            return {}
        known = {n: normalised(manifest, row, n, v) for n, v in stored[k - row.start].items()}
        return {n: v for n, v in known.items() if v is not None}

    pictures: dict[tuple[int, str], Any] = {}
    files = {x.camera: x.path for x in row.latents if x.encoder_id == ENCODER}
    for offset in (*PAST, FUTURE):
        for camera in cameras:
            k = now + offset
            if camera not in files or not row.start <= k < row.end:
                pictures[offset, camera] = None
                continue
            assert k % GRID_STRIDE == 0
            tensor = load_file(manifest.corpus / files[camera])["latents"]
            pictures[offset, camera] = tensor[k // GRID_STRIDE, NUM_PREFIX:].float().numpy()
    return {
        "action": [at(now + j) for j in range(CHUNK)],
        "history": [at(now - HISTORY + j) for j in range(HISTORY)],
        "pictures": pictures,
    }
