"""One hand: 21 points in the OpenPose/MANO order, and a wrist frame with MANO's axes. Pure NumPy, batched.

The wrist frame at zero pose: right fingers -x, left fingers +x; both palm -y, thumb side +z. Tables are data
(`hands.yaml`), each with its certainty and source. A left hand is the right one mirrored in x: M = diag(-1, 1, 1),
keypoints p' = M p, rotations R' = M R M, axis-angles (x, -y, -z); nothing else about it is mirrored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, model_validator

from schemas.errors import ConfigError
from schemas.fact import Certainty
from schemas.geometry import Array, rotation_error, transform
from schemas.yaml_text import parse_yaml

Mask = npt.NDArray[np.bool_]

NUM_JOINTS = 21
WRIST, THUMB_CMC, MIDDLE_MCP = 0, 1, 9
PALM = (0, 1, 5, 9, 13, 17)  # rigid in the wrist frame: wrist, thumb CMC, the four MCPs
MCPS = (5, 9, 13, 17)
MIN_PALM_POINTS = 4
MIN_PALM_SPREAD_M2 = 1e-5  # second singular value: below it the points lie on a line


class Layout(BaseModel):
    """An order of joints that a source uses. `to21[i]` is the source's index of canonical joint i, None if absent."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    count: int
    to21: tuple[int | None, ...]
    certainty: Certainty
    source: str
    names: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Layout:
        indices = [i for i in self.to21 if i is not None]
        if len(self.to21) != NUM_JOINTS or len(set(indices)) != len(indices):
            raise ValueError("to21 must have 21 entries, and no source joint may appear twice")
        if not all(0 <= i < self.count for i in indices) or (
            self.names and len(self.names) != self.count
        ):
            raise ValueError(f"indices and names must match {self.count} joints")
        return self


class WristAxes(BaseModel):
    """Axes of a source's own wrist frame: `left`/`right` [3, 3] hold the canonical axes as columns in source axes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    left: tuple[tuple[float, float, float], ...]
    right: tuple[tuple[float, float, float], ...]
    certainty: Certainty
    source: str
    note: str = ""

    @model_validator(mode="after")
    def _rotations(self) -> WristAxes:
        if max(rotation_error(self.left), rotation_error(self.right)) > 1e-9:
            raise ValueError("wrist axes must be rotation matrices (determinant +1)")
        return self

    def T_src_wrist(self, side: str) -> Array:
        """[4, 4] canonical wrist frame in the source's wrist frame."""
        return transform(self.left if side == "left" else self.right, np.zeros(3))


@cache
def _tables() -> dict[str, Any]:
    raw: dict[str, Any] = parse_yaml(files("schemas").joinpath("hands.yaml").read_text())
    return raw


def joint_names() -> tuple[str, ...]:
    """The 21 canonical names, wrist to pinky_tip."""
    return tuple(_tables()["canonical"]["names"])


def joint_parents() -> tuple[int, ...]:
    """Index of each joint's parent; -1 for the wrist."""
    return tuple(_tables()["canonical"]["parents"])


@cache
def layout(name: str) -> Layout:
    """The joint order registered as `name`; ConfigError naming what there is."""
    return Layout.model_validate(_entry("layouts", name))


@cache
def wrist_axes(name: str) -> WristAxes:
    """The wrist axes registered as `name`; ConfigError naming what there is."""
    return WristAxes.model_validate(_entry("wrist_axes", name))


def fingertip_vertices(variant: str, side: str) -> tuple[int, ...]:
    """MANO vertex of each fingertip, thumb to pinky, of `smplx` or `manopth`."""
    table = _tables()["mano"]["tip_vertices"]
    if variant not in table:
        raise ConfigError(f"unknown fingertips {variant!r}; expected one of {sorted(table)}")
    return tuple(table[variant][side])


def _entry(table: str, name: str) -> Any:
    entries = _tables()[table]
    if name not in entries:
        raise ConfigError(f"hands.yaml has no {table} {name!r}; expected one of {sorted(entries)}")
    return entries[name]


def mirrored_points(points: npt.ArrayLike) -> Array:
    """[..., 3] points of one hand in its wrist frame -> those of the mirrored hand in its own wrist frame."""
    return np.asarray(np.asarray(points) * np.array([-1.0, 1.0, 1.0]))


def keypoints21(joints: npt.ArrayLike, name: str) -> tuple[Array, Mask]:
    """[N, J, 3] joints in the order of layout `name` -> [N, 21, 3] and which of the 21 the source has [21].

    What it does not have is zero; `filled_thumb_cmc` makes one of them.
    """
    order = layout(name)
    joints = np.asarray(joints, dtype=np.float64)
    has = np.array([i is not None for i in order.to21])
    points = joints[:, [i or 0 for i in order.to21]]
    points[:, ~has] = 0.0
    return points, has


@cache
def palm_template(side: str, name: str = "mano") -> Array:
    """[6, 3] wrist, thumb CMC, index to pinky MCP in the canonical wrist frame, metres; NaN where not measured."""
    rows = _entry_of_palm(name)
    template = np.array([[np.nan] * 3 if r is None else r for r in rows], dtype=np.float64)
    template = mirrored_points(template) if side == "left" else template
    template.flags.writeable = False
    return template


def _entry_of_palm(name: str) -> Any:
    templates = _tables()["palm"]["templates"]
    if name not in templates:
        raise ConfigError(
            f"hands.yaml has no palm template {name!r}; expected one of {sorted(templates)}"
        )
    return templates[name]["points_m"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PalmFit:
    """The wrist frame by the palm. `ok` [N]: enough points, not on a line; elsewhere the pose is the identity."""

    T_ref_wrist: Array  # [N, 4, 4], MANO axes, origin at the wrist point
    rms_m: Array  # [N] residual without scaling
    scaled_rms_m: Array  # [N] residual of the palm at its own size
    scale: Array  # [N] least-squares size of the palm against the template
    ok: Mask


def fit_palm(points: npt.ArrayLike, has: npt.ArrayLike, side: str, name: str = "mano") -> PalmFit:
    """Kabsch fit of the palm template to [N, 21, 3] points, metres, any frame; `has` [21] or [N, 21] bool.

    R = V diag(1, 1, det(V U^T)) U^T with U S V^T the SVD of the cross-covariance (Kabsch 1976, Umeyama 1991). At least
    four of the six palm points are needed. A palm is nearly flat and does not show which hand it is: a wrong `side`
    fits only a little worse, so the side comes from the source.
    """
    template = palm_template(side, name)
    Y = np.asarray(points, dtype=np.float64)[:, PALM]
    w = np.broadcast_to(np.asarray(has, dtype=bool), (len(Y), NUM_JOINTS))[:, PALM].astype(float)
    w = w * np.isfinite(template).all(axis=1) * np.isfinite(Y).all(axis=2)
    T, Y = np.nan_to_num(template), np.nan_to_num(Y)
    total = np.maximum(w.sum(axis=1), 1.0)[:, None]
    T_mean, Y_mean = (w @ T) / total, np.einsum("nj,njk->nk", w, Y) / total
    dT, dY = T[None] - T_mean[:, None], Y - Y_mean[:, None]
    H = np.einsum("nj,nja,njb->nab", w, dT, dY)
    U, S, Vt = np.linalg.svd(H)
    V, Ut = np.swapaxes(Vt, 1, 2), np.swapaxes(U, 1, 2)
    flip = np.ones((len(Y), 3))
    flip[:, 2] = np.sign(np.linalg.det(V @ Ut))
    R = (V * flip[:, None, :]) @ Ut
    ok = (w.sum(axis=1) >= MIN_PALM_POINTS) & (S[:, 1] > MIN_PALM_SPREAD_M2) & (w[:, 0] > 0)
    R[~ok] = np.eye(3)
    rotated = np.einsum("nab,njb->nja", R, dT)
    residual = np.einsum("nj,nja->n", w, (rotated - dY) ** 2)
    size = np.einsum("nj,nja->n", w, rotated**2)
    overlap = np.einsum("nj,nja->n", w, rotated * dY)
    scale = overlap / np.where(size > 0, size, 1.0)
    scaled = np.maximum(np.einsum("nj,nja->n", w, dY**2) - scale * overlap, 0.0)
    origin = np.where(ok[:, None], Y[:, 0], 0.0)
    return PalmFit(
        T_ref_wrist=transform(R, origin),
        rms_m=np.sqrt(residual / total[:, 0]),
        scaled_rms_m=np.sqrt(scaled / total[:, 0]),
        scale=scale,
        ok=ok,
    )


def filled_thumb_cmc(points: npt.ArrayLike, T_ref_wrist: npt.ArrayLike, side: str) -> Array:
    """[N, 21, 3] points with a thumb CMC synthesised from the wrist frame and the length wrist -> middle MCP.

    Inferred from one MANO subject (hands.yaml): for sources that do not track that joint.
    """
    ratio = np.array(_tables()["thumb_cmc_fill"]["ratio"], dtype=np.float64)
    ratio = mirrored_points(ratio) if side == "left" else ratio
    out = np.array(points, dtype=np.float64)
    T = np.asarray(T_ref_wrist, dtype=np.float64)
    length = np.linalg.norm(out[:, MIDDLE_MCP] - out[:, WRIST], axis=1, keepdims=True)
    out[:, THUMB_CMC] = out[:, WRIST] + length * (T[:, :3, :3] @ ratio)
    return out


def in_wrist_frame(points: npt.ArrayLike, T_ref_wrist: npt.ArrayLike) -> Array:
    """[N, 21, 3] points in a frame -> the same in the wrist frame: R^T (p - origin)."""
    T = np.asarray(T_ref_wrist, dtype=np.float64)
    delta = np.asarray(points, dtype=np.float64) - T[:, None, :3, 3]
    return np.asarray(np.einsum("nba,njb->nja", T[:, :3, :3], delta))


def from_wrist_frame(points_wrist: npt.ArrayLike, T_ref_wrist: npt.ArrayLike) -> Array:
    """The inverse of `in_wrist_frame`."""
    T = np.asarray(T_ref_wrist, dtype=np.float64)
    turned = np.einsum("nab,njb->nja", T[:, :3, :3], np.asarray(points_wrist, dtype=np.float64))
    return np.asarray(turned + T[:, None, :3, 3])
