"""MANO parameters that reproduce 21 keypoints: for sources that give points only, when a corpus wants a hand model.

Recipe (source: `hands.md` §9.2, INFERRED: our own, after EgoVLA's; tried there with the free Anny hand): wrist by palm fit, fingers
straight, one shape for the clip; Adam on  sum of squared distances (cm^2) + 1e-3 |theta|^2 + 1e-2 |beta|^2
+ 0.5 relu(|theta_j| - 1.9)^2 + 1e-2 |theta_t+1 - theta_t|^2,  theta 45 axis-angles without mean pose. The learning rate falls to
zero along half a cosine, so that the last steps settle. The residual shows whether a fit is good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ingest.models.hand_kinematics import TO_CANONICAL
from ingest.models.mano import ManoHand, one_thread, posed_points
from schemas.errors import Code, SourceError
from schemas.geometry import Array, rotmat_from_rotvec
from schemas.hand import Mask, fit_palm
from schemas.hand_track import ManoPose

STEPS = 400
LEARNING_RATE = {"fingers_rad": 0.05, "turn_rad": 0.01, "shift_cm": 0.05, "betas": 0.02}
WEIGHT_FINGERS, WEIGHT_BETAS, WEIGHT_LIMIT, WEIGHT_STEP = 1e-3, 1e-2, 0.5, 1e-2
LIMIT_RAD = 1.9
MAX_MEAN_M, MAX_POINT_M = (
    0.005,
    0.020,
)  # our choice: a fit beyond them is not the hand that was seen
CM = 100.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ManoFit:
    """Parameters (wrist as `trans`, flat hand mean), and how far the points are from what was given."""

    mano: ManoPose
    mean_m: Array  # [N] over the given joints
    largest_m: Array  # [N]

    @property
    def accepted(self) -> Mask:
        """[N] mean below 5 mm and no joint beyond 20 mm."""
        return np.asarray((self.mean_m < MAX_MEAN_M) & (self.largest_m < MAX_POINT_M))


def fit_mano(hand: ManoHand, points: Array, has: Mask, *, steps: int = STEPS) -> ManoFit:
    """Fit one hand of a clip.

    Args:
        hand: the model of the side whose points these are.
        points: [N, 21, 3] metres, canonical order, any fixed frame.
        has: [21] or [N, 21], which of them are given. A point that is not has no say.
        steps: of the optimiser.

    Raises:
        SourceError: BAD_ANNOTATION when a frame has too few palm points to start from.
    """
    usable = np.broadcast_to(has, points.shape[:2]) & np.isfinite(points).all(axis=2)
    palm = fit_palm(points, usable, hand.model.side)
    if not palm.ok.all():
        at = int(np.flatnonzero(~palm.ok)[0])
        problem = f"frame {at} has too few palm points to fit a hand"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=f"{hand.model.side} hand")
    seen = np.where(usable[..., None], points, 0.0)
    with one_thread():
        mano = _optimised(hand, seen, usable, palm.T_ref_wrist, steps)
    found_points, _ = hand.joints21_and_wrist(mano)
    distance = np.where(usable, np.linalg.norm(found_points - points, axis=2), 0.0)
    mean_m = distance.sum(axis=1) / usable.sum(axis=1)
    return ManoFit(mano=mano, mean_m=mean_m, largest_m=distance.max(axis=1))


def _optimised(
    hand: ManoHand, points: Array, usable: Mask, T_ref_wrist: Array, steps: int
) -> ManoPose:
    import torch

    # Into the wrist frame of the palm fit: there float32 is enough, and what is left to find is small.
    R, p = T_ref_wrist[:, :3, :3], T_ref_wrist[:, :3, 3]
    local_cm = CM * np.einsum("nba,njb->nja", R, points - p[:, None])
    target, valid = (
        torch.as_tensor(a, dtype=torch.float32, device=hand.device)
        for a in (local_cm, usable.astype(float))
    )
    N, B = len(points), hand.rig.shapedirs.shape[-1]
    sizes = {"fingers_rad": (N, 45), "turn_rad": (N, 3), "shift_cm": (N, 3), "betas": (B,)}
    free = {
        name: torch.full(size, 1e-4, device=hand.device, requires_grad=True)
        for name, size in sizes.items()
    }
    optimiser = torch.optim.Adam(
        [{"params": [free[name]], "lr": rate} for name, rate in LEARNING_RATE.items()]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        _loss(hand.layer, free, target, valid).backward()
        optimiser.step()
        schedule.step()
    fitted = {name: value.detach().cpu().double().numpy() for name, value in free.items()}
    return ManoPose(
        global_orient=R @ rotmat_from_rotvec(fitted["turn_rad"]),
        trans_m=p + np.einsum("nab,nb->na", R, fitted["shift_cm"] / CM),
        trans_is="wrist",
        betas=fitted["betas"],
        hand_axis_angle_rad=fitted["fingers_rad"],
        is_flat_hand_mean=True,
        has_shapedirs_fix=True,
    )


def _loss(layer: Any, free: dict[str, Any], target: Any, valid: Any) -> Any:
    from smplx.lbs import batch_rodrigues

    fingers = free["fingers_rad"].view(-1, 15, 3)
    N = len(fingers)
    rotmats = batch_rodrigues(fingers.reshape(-1, 3)).view(N, 15, 3, 3)
    points = posed_points(layer, rotmats, free["betas"].expand(N, -1))[:, TO_CANONICAL]
    turned = points @ batch_rodrigues(free["turn_rad"]).transpose(1, 2)
    distance = CM * turned + free["shift_cm"][:, None] - target
    beyond = (fingers.norm(dim=2) - LIMIT_RAD).relu()
    return (
        (valid[..., None] * distance**2).sum()
        + WEIGHT_FINGERS * (fingers**2).sum()
        + WEIGHT_BETAS * (free["betas"] ** 2).sum()
        + WEIGHT_LIMIT * (beyond**2).sum()
        + WEIGHT_STEP * ((fingers[1:] - fingers[:-1]) ** 2).sum()
    )
