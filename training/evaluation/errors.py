"""Errors of predictions: of future latents against a copy of the present, and of action chunks in metres and radians after integration to poses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as fn

from schemas.episode import SIDES
from schemas.errors import InvariantError
from training.batch import Batch
from training.data.action_layout import part_slots
from training.evaluation.accumulate import Array, Error
from training.policy.embodiments import integrated, position_error_m, rotation_error_rad, unbroken

COSINE, L2 = (
    "latent_cosine_distance",
    "latent_l2",
)  # of a token: 1 - similarity, and length of the difference


def scored_views(batch: Batch) -> Tensor:
    """[B, V] views whose future is there and whose picture of now is: without that there is nothing to compare with."""
    return batch.has_future & batch.known.has_past[:, -1]


def last_image(batch: Batch) -> Tensor:
    """[B, V * N, D] the latents of now: the baseline that says nothing will change."""
    return batch.known.past[:, -1]


def image_errors(predicted: Tensor, batch: Batch) -> dict[str, Error]:
    """By metric, [B, 1]: over the tokens of the views that are scored."""
    predicted, true = predicted.float(), batch.future.float()
    views = scored_views(batch)
    known = views.repeat_interleave(true.shape[1] // views.shape[1], dim=1)
    errors = {
        COSINE: 1 - fn.cosine_similarity(predicted, true, dim=-1),
        L2: torch.linalg.vector_norm(predicted - true, dim=-1),
    }
    count = known.sum(dim=1, keepdim=True).double().cpu().numpy()
    return {
        name: Error(
            total=torch.where(known, value, 0.0).double().sum(dim=1, keepdim=True).cpu().numpy(),
            count=count,
        )
        for name, value in errors.items()
    }


Mask = npt.NDArray[np.bool_]
POSITION, ROTATION = "position_l1_m", "rotation_rad"
GRIPPER, KEYPOINTS, JOINTS = "gripper_l1", "keypoint_m", "hand_joint_l1_rad"


@dataclass(frozen=True, slots=True, kw_only=True)
class SidePlaces:
    """Where the elements of one side lie in the layout."""

    motion: slice  # 6: position in metres, rotation vector in radians
    gripper: slice  # 1
    keypoints: slice  # 63: 21 points
    joints: slice


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chunks:
    """[B, K, E] chunks and what of them counts."""

    values: Array
    valid: Mask


def action_errors(
    predicted: Array,
    true: Chunks,
    sides: Sequence[SidePlaces],
    *,
    is_parallel: Mask,
    in_reach: Mask | None = None,
) -> dict[str, Error]:
    """By metric, over both sides.

    position_l1_m: mean of the three axes; rotation_rad: the angle, of a parallel gripper up to half a turn about its approach;
    gripper_l1: of the opening in [0, 1]; keypoint_m: distance of a point of the hand; hand_joint_l1_rad: of a joint.

    Args:
        predicted: [B, K, E]. is_parallel: [B, S] of `parallel_grippers`. in_reach: [K] steps that are scored; None is all.
    """
    steps = np.ones(predicted.shape[1], dtype=bool) if in_reach is None else in_reach
    out: dict[str, Error] = {}
    for number, side in enumerate(sides):
        for name, error in _side_errors(predicted, true, side, is_parallel[:, number]).items():
            scored = Error(total=error.total * steps, count=error.count * steps)
            out[name] = out[name].plus(scored) if name in out else scored
    return {name: error for name, error in out.items() if error.count.any()}


def _side_errors(
    predicted: Array, true: Chunks, side: SidePlaces, is_symmetric: Mask
) -> Mapping[str, Error]:
    known = unbroken(np.asarray(true.valid[..., side.motion].all(axis=-1)))
    still = np.where(known[..., None], true.values[..., side.motion], 0.0)
    T_true = integrated(still)
    T_said = integrated(np.where(known[..., None], predicted[..., side.motion], 0.0))
    return {
        POSITION: _error(position_error_m(T_said, T_true), known),
        ROTATION: _error(
            rotation_error_rad(T_said, T_true, is_symmetric=is_symmetric[:, None]), known
        ),
        GRIPPER: _spread(predicted, true, side.gripper),
        KEYPOINTS: _points(predicted, true, side.keypoints),
        JOINTS: _spread(predicted, true, side.joints),
    }


def parallel_grippers(has: Mask, sides: Sequence[SidePlaces]) -> Mask:
    """[N, E] elements that N bodies have to [N, S] sides with an opening and no hand: half a turn about the approach changes nothing."""

    def any_of(places: slice) -> Mask:
        return np.asarray(has[:, places].any(axis=1))

    flags = [any_of(s.gripper) & ~any_of(s.keypoints) & ~any_of(s.joints) for s in sides]
    return np.stack(flags, axis=1)


def _error(error: Array, known: Mask) -> Error:
    return Error(total=np.where(known, error, 0.0), count=known.astype(np.float64))


def _spread(predicted: Array, true: Chunks, places: slice) -> Error:
    """Every element for itself."""
    known = true.valid[..., places]
    error = np.abs(predicted[..., places] - true.values[..., places])
    return Error(
        total=np.where(known, error, 0.0).sum(axis=-1), count=known.sum(axis=-1).astype(np.float64)
    )


def _points(predicted: Array, true: Chunks, places: slice) -> Error:
    """Every point of three elements for itself."""
    shape = (*predicted.shape[:2], -1, 3)
    known = true.valid[..., places].reshape(shape).all(axis=-1)
    apart = (predicted[..., places] - true.values[..., places]).reshape(shape)
    error = np.linalg.norm(apart, axis=-1)
    return Error(
        total=np.where(known, error, 0.0).sum(axis=-1), count=known.sum(axis=-1).astype(np.float64)
    )


def baselines(
    history: Chunks, mean: Array, sides: Sequence[SidePlaces], num_steps: int
) -> dict[str, Array]:
    """What needs no network, each [B, K, E].

    stay: no motion, gripper and hand as they are; repeat: the last motion again and again, gripper and hand as they are; mean: the
    manifest's mean of every element. What the history does not know is the mean, of motions zero.

    Args:
        history: [B, H, E], the last row leads to now. mean: [B, E].
    """
    is_motion = np.zeros(mean.shape[-1], dtype=bool)
    for side in sides:
        is_motion[side.motion] = True
    held = np.where(is_motion, 0.0, mean)
    if history.values.shape[1]:
        held = np.where(history.valid[:, -1], history.values[:, -1], held)
    by_name = {"stay": np.where(is_motion, 0.0, held), "repeat": held, "mean": mean}
    return {name: np.repeat(values[:, None], num_steps, axis=1) for name, values in by_name.items()}


def side_places() -> tuple[SidePlaces, ...]:
    """Left and right, as `training/data/action_layout.py` has them."""
    out = []
    for side in SIDES:
        parts = ("delta_position_m", "gripper_opening", "hand_keypoints_m", "hand_joints_rad")
        motion, gripper, keypoints, joints = (_run(part_slots(f"{side}.{p}")) for p in parts)
        turn = _run(part_slots(f"{side}.delta_rotvec_rad"))
        if turn.start != motion.stop:
            raise InvariantError("the six elements of a motion must be adjacent in the layout")
        motion = slice(motion.start, turn.stop)
        places = SidePlaces(motion=motion, gripper=gripper, keypoints=keypoints, joints=joints)
        out.append(places)
    return tuple(out)


def _run(slots: npt.NDArray[np.int64]) -> slice:
    return slice(int(slots[0]), int(slots[-1]) + 1)
