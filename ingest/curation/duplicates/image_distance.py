"""How far apart two looks are: a number for a pair of cameras, and a vector to find pairs by.

A look is what `measure/look.py` makes of one camera: how much changes (luma), the scene [35], what moves before it [420]. Here the
scene and the motion have length one and are kept as int8: a million episodes with two cameras take 0.9 GB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.curation.measurements.each.image_signature import COEFFICIENTS, PARTS
from schemas.geometry import Array

MIN_CHANGE_LUMA = 0.5  # of a still picture's codec noise: no motion to recognise
COARSE_WIDTH, COARSE_RADIUS = 64, 0.75
SCENE_WEIGHT = 0.5  # to find by; many cameras look at one scene
SEED = 4242  # of the projection; fixed, so that the same corpus gives the same pairs
CHUNK = 20_000
Floats = npt.NDArray[np.floating[Any]]
Bytes = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Looks:
    """`scene` [C, 35] and `motion` [C, 420], each row scaled to use all of int8, and [C] the lengths of these rows."""

    scene: Bytes
    motion: Bytes
    scene_length: npt.NDArray[np.float32]
    motion_length: npt.NDArray[np.float32]


def looks_from(scene: Bytes, motion: Bytes) -> Looks:
    """Looks and their lengths."""
    return Looks(
        scene=scene, motion=motion, scene_length=_lengths(scene), motion_length=_lengths(motion)
    )


def packed(raw: Floats) -> tuple[Bytes, Bytes]:
    """Scene and motion of [C, 456] looks as measured."""
    return _packed(raw[:, 1 : 1 + COEFFICIENTS]), _packed(raw[:, 1 + COEFFICIENTS :])


def _packed(values: Floats) -> Bytes:
    largest = np.abs(values).max(axis=1, keepdims=True)
    return np.asarray(np.round(values * (127 / np.maximum(largest, 1e-9))).astype(np.int8))


def _lengths(rows: Bytes) -> npt.NDArray[np.float32]:
    out = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), CHUNK):
        values = rows[start : start + CHUNK].astype(np.float32)
        out[start : start + CHUNK] = np.sqrt(np.einsum("nd,nd->n", values, values))
    return np.maximum(out, 1.0)


def coarse_vectors(looks: Looks) -> npt.NDArray[np.float32]:
    """[C, 64] float32: a fixed projection that keeps distances to about a tenth."""
    width = COEFFICIENTS * (1 + PARTS)
    square = np.random.default_rng(SEED).standard_normal((width, COARSE_WIDTH))
    onto = (np.linalg.qr(square)[0] * np.sqrt(width / COARSE_WIDTH)).astype(np.float32)
    out = np.empty((len(looks.scene), COARSE_WIDTH), dtype=np.float32)
    for start in range(0, len(out), CHUNK):
        some = slice(start, start + CHUNK)
        scene = looks.scene[some] * (SCENE_WEIGHT / looks.scene_length[some])[:, None]
        motion = looks.motion[some] / looks.motion_length[some][:, None]
        out[some] = np.concatenate([scene, motion], axis=1) @ onto
    return out


def look_distances(looks: Looks, one: npt.NDArray[np.intp], other: npt.NDArray[np.intp]) -> Array:
    """[n] of n pairs of cameras: 1 - cosine of the scene or of the motion, whichever differs more. 0 equal, 1 unrelated."""
    out = np.empty(len(one))
    for start in range(0, len(one), CHUNK):
        a, b = one[start : start + CHUNK], other[start : start + CHUNK]
        scene = _dot(looks.scene, a, b) / (looks.scene_length[a] * looks.scene_length[b])
        motion = _dot(looks.motion, a, b) / (looks.motion_length[a] * looks.motion_length[b])
        out[start : start + CHUNK] = 1.0 - np.minimum(scene, motion)
    return out


def _dot(rows: Bytes, one: npt.NDArray[np.intp], other: npt.NDArray[np.intp]) -> Floats:
    a, b = rows[one].astype(np.float32), rows[other].astype(np.float32)
    return np.asarray(np.einsum("nd,nd->n", a, b))
