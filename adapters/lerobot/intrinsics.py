"""Intrinsics that a mapping declares for a camera: stated once for the set, or in a column of the rows.

A camera whose numbers change or cannot belong to its picture gets none: InternData-A1's converter halves the pictures of
1280 pixels and, for the hand cameras, not their intrinsics (`policy/lmdb2lerobotv21`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from adapters.containers.lerobot_meta import SetInfo
from adapters.containers.lerobot_table import TableRows
from adapters.lerobot.mapping import Intrinsics, Mapping
from schemas.episode import Camera
from schemas.fact import Certainty, Fact, fact


def with_intrinsics(
    camera: Camera, key: str, rows: TableRows, info: SetInfo, mapping: Mapping | None
) -> tuple[Camera, tuple[Fact, ...]]:
    """`camera` with what the mapping declares for its feature `key`, or as it is with the reason why not."""
    declared = [i for i in (mapping.intrinsics if mapping else ()) if i.camera == key]
    feature = info.features[key]
    if not declared or len(feature.shape) != 3 or feature.shape[2] != 3:
        return camera, ()
    height, width = feature.shape[:2]
    px, problem = _numbers(declared[0], rows)
    if problem is None and not (px[:2] > 0).all():
        problem = f"focal lengths {px[:2].tolist()} px"
    if problem is None and not (0 < px[2] < width and 0 < px[3] < height):
        problem = f"centre {px[2:].tolist()} px lies outside {width} x {height}"
    if problem is not None:
        left_out = fact(f"intrinsics.{camera.name}", "left out", Certainty.VERIFIED, problem)
        return camera, (left_out,)
    fx, fy, cx, cy = px.tolist()
    K_cam = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    return replace(camera, K_cam=K_cam, K_size=(width, height)), ()


def _numbers(declared: Intrinsics, rows: TableRows) -> tuple[np.ndarray, str | None]:
    if declared.px is not None:
        return np.array(declared.px), None
    column = declared.column or ""
    if not rows.has(column):
        return np.zeros(4), f"no column {column}"
    values = rows.matrix(column)
    if values.shape[1] != 4 or not np.isfinite(values).all():
        return np.zeros(4), f"{column} is not four numbers a row"
    if not (values == values[0]).all():
        return np.zeros(4), f"{column} changes within the episode"
    return values[0], None
