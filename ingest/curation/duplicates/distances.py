"""Distances between two episodes: of their images for a pair of cameras, and of their motion in any frame. Vectors for the search of candidate pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.curation.measurements.each.image_signature import COEFFICIENTS, PARTS
from ingest.curation.measurements.each.trajectory import POINTS
from schemas.geometry import Array

MIN_CHANGE_LUMA = 0.5  # of a still picture's codec noise: no motion to recognise
COARSE_WIDTH, COARSE_IMAGE_RADIUS = 64, 0.75
SCENE_WEIGHT = 0.5  # to find by; many cameras look at one scene
SEED = 4242  # of the projection; fixed, so that the same corpus gives the same pairs
CHUNK = 20_000
Floats = npt.NDArray[np.floating[Any]]  # stored as float16, computed in float64
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


def coarse_image_vectors(looks: Looks) -> npt.NDArray[np.float32]:
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


MIN_EXTENT_M = 0.05  # an arm that stays within this has no shape to recognise
SHIFT_STEP = 0.015
MOST_STEPS = 4  # of the path's time, at either end: where releases cut the idle ends
STEPS = (4, 2, 1)  # the best shift is looked for around the best so far, ever closer
LEAST_SHARED = 0.9  # of the points
COARSE_AT = np.arange(1, POINTS, 3)  # points whose distances make the vector
COARSE_MOTION_RADIUS = 0.12
Indices = npt.NDArray[np.intp]
NEWTON_STEPS = 20
WELL = 0.01  # no shift is needed


def coarse_motion_vectors(points: Floats) -> npt.NDArray[np.float32]:
    """[A, 56] float32: mutual distances of eleven points over the path's size, and the logarithm of that size.

    Turning, moving and mirroring change nothing (`path_distances` distinguishes mirrored paths). Two vectors are about as
    far apart as the paths are, as a share of their size.
    """
    at = points[:, COARSE_AT, :3].astype(np.float32)
    size = np.sqrt(_centred(at).var(axis=1).sum(axis=1))
    one, other = np.triu_indices(len(COARSE_AT), k=1)
    apart = np.linalg.norm(at[:, one] - at[:, other], axis=2)
    scaled = apart / size[:, None] / np.sqrt(len(one))
    return np.concatenate([scaled, np.log(size)[:, None]], axis=1, dtype=np.float32)


def path_distances(
    one: Floats, other: Floats, most_shift: Array, enough: float
) -> tuple[Array, Array]:
    """[n] RMS distance over the paths' size, and [n] RMS difference of the opening, of n pairs of paths.

    The other path is turned (never mirrored), moved, and shifted in time at either end, as fits best. The opening is 0 where one
    of the two does not have a gripper that moves.

    Args:
        most_shift: [n] how much of its time either end may be shifted by, at most.
        enough: a distance that no shift could bring below this is given as it is without one.
    """
    shifts = _shifts()
    one, other = one.astype(np.float32), other.astype(np.float32)  # once, not for every shift
    best = _turned_distance(one[..., :3], other[..., :3], shifts[0])
    by = np.zeros(len(one), dtype=np.intp)
    speed = np.maximum(_speed(one), _speed(other))
    for step in STEPS:
        # What this step and the smaller ones after it can still bring.
        left = np.minimum(most_shift, min(2 * step - 1, MOST_STEPS) * SHIFT_STEP) * speed
        todo = np.flatnonzero((best > WELL) & (best - left < enough))
        for number, at in _around(by[todo], step):
            some = todo[at]
            some = some[most_shift[some] > shifts[number].largest - SHIFT_STEP / 2]
            distance = _turned_distance(one[some, :, :3], other[some, :, :3], shifts[number])
            is_better = distance < best[some]
            best[some[is_better]] = distance[is_better]
            by[some[is_better]] = number
    opening = np.zeros(len(one))
    for number in np.unique(by):
        at = np.flatnonzero(by == number)
        opening[at] = _opening_difference(one[at, :, 3], other[at, :, 3], shifts[number])
    return best, opening


def _around(by: Indices, step: int) -> Iterator[tuple[int, Indices]]:
    """(shift, places in `by`) of each shift that is `step` steps away, at one end or both, from the one in `by`."""
    ends = np.array([shift.steps for shift in _shifts()])
    for number, here in enumerate(ends):
        near = np.abs(ends - here).max(axis=1) == step
        at = np.flatnonzero(near[by])
        if len(at) and not (here % step).any():
            yield number, at


def _speed(points: Floats) -> Array:
    """[n] RMS speed, in the path's sizes per its duration: how far a shift in time moves it."""
    step = np.diff(points[..., :3].astype(np.float64), axis=1)
    size2 = _centred(points[..., :3].astype(np.float64)).var(axis=1).sum(axis=1)
    return np.asarray((POINTS - 1) * np.sqrt((step**2).sum(axis=2).mean(axis=1) / size2))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Shift:
    """`to_other` [s, 32] takes the other path at the instants of the points `shared` [s] of the first."""

    shared: npt.NDArray[np.intp]
    to_other: Array
    largest: float  # at either end
    steps: tuple[int, int]  # at the start and the end


@cache
def _shifts() -> tuple[_Shift, ...]:
    """No shift first, then the others."""
    ends = range(-MOST_STEPS, MOST_STEPS + 1)
    pairs = sorted(product(ends, ends), key=lambda s: (abs(s[0]) + abs(s[1]), s))
    return tuple(_shift_pairs(pairs))


def _shift_pairs(pairs: list[tuple[int, int]]) -> Iterator[_Shift]:
    at = np.linspace(0.0, 1.0, POINTS)
    for pair in pairs:
        first, last = SHIFT_STEP * pair[0], SHIFT_STEP * pair[1]
        shifted = first + at * (1 + last - first)
        shared = np.flatnonzero((shifted >= -1e-9) & (shifted <= 1 + 1e-9))
        if len(shared) >= LEAST_SHARED * POINTS:
            yield _Shift(
                shared=shared,
                largest=max(abs(first), abs(last)),
                steps=pair,
                to_other=np.stack(
                    [np.interp(shifted[shared], at, unit) for unit in np.eye(POINTS)]
                ).T,
            )


def _turned_distance(one: Floats, other: Floats, shift: _Shift) -> Array:
    """[n] least RMS distance under rotation and translation, over the root mean square of both sizes."""
    a, b = one.astype(np.float32, copy=False), other.astype(np.float32, copy=False)
    if shift.largest > 0:
        a, b = a[:, shift.shared], shift.to_other.astype(np.float32) @ b
    a, b = _centred(a), _centred(b)
    size2 = np.einsum("nsd,nsd->n", a, a).astype(np.float64) + np.einsum("nsd,nsd->n", b, b)
    spread = (np.swapaxes(a, 1, 2) @ b).astype(np.float64)
    error2 = np.maximum(size2 - 2 * _best_overlap(spread, size2 / 2), 0.0)
    return np.asarray(np.sqrt(error2 / (size2 / 2)))


def _best_overlap(spread: Array, at_most: Array) -> Array:
    """[n] largest trace(R @ spread) over rotations R, no mirrors: the largest root of Horn's quartic.

    By Newton's method from above (Theobald 2005, "Rapid calculation of RMSDs using a quaternion-based characteristic polynomial"):
    ten times as fast as decomposing each matrix.
    """
    square = np.swapaxes(spread, 1, 2) @ spread
    trace = np.trace(square, axis1=1, axis2=2)
    c1 = -8 * _det(spread)
    c0 = 2 * np.einsum("nij,nji->n", square, square) - trace**2
    root = at_most.copy()
    for _ in range(NEWTON_STEPS):
        value = ((root**2 - 2 * trace) * root + c1) * root + c0
        slope = (4 * root**2 - 4 * trace) * root + c1
        root -= np.where(slope > 0, value / np.where(slope > 0, slope, 1.0), 0.0)
    return np.asarray(root)


def _det(m: Array) -> Array:
    return np.asarray(np.einsum("ni,ni->n", m[:, 0], np.cross(m[:, 1], m[:, 2])))


def _opening_difference(one: Floats, other: Floats, shift: _Shift) -> Array:
    a, b = one[:, shift.shared].astype(np.float64), other.astype(np.float64) @ shift.to_other.T
    both_move = (np.ptp(a, axis=1) > 0.3) & (np.ptp(b, axis=1) > 0.3)
    return np.where(both_move, np.sqrt(((a - b) ** 2).mean(axis=1)), 0.0)


def _centred(points: Floats) -> Floats:
    return np.asarray(points - np.einsum("nsd->nd", points)[:, None] / points.shape[1])
