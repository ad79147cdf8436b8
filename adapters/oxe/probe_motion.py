"""What the position part of an action has to do with the motion that follows it: the numbers behind the probe."""

from __future__ import annotations

import numpy as np

from adapters.oxe.motion import ArmArrays, Array
from adapters.oxe.probe_rotation import state_rotations
from adapters.oxe.registry import ArmEntry
from schemas.action_probe import Motion, compare


def measure_motion(
    episodes: list[ArmArrays], positions: list[Array], form: str | None, arm: ArmEntry
) -> Motion | None:
    """Compare the action's position part with displacement and with the next position; None without one."""
    scale_m = (arm.command.position_scale_m if arm.command else None) or 1.0
    start = int(arm.command is not None and arm.command.is_first_empty)
    asked, moved, moved_eef, reached = [], [], [], []
    for episode, p in zip(episodes, positions, strict=True):
        action = episode.command_position
        if (
            action is None
            or action.shape[1] != 3
            or len(p) < start + 2
            or not np.isfinite(action).all()
        ):
            continue
        steps = np.diff(p, axis=0)
        asked.append(action[start:-1] * scale_m)
        moved.append(steps[start:])
        moved_eef.append(_in_eef(steps, episode, form)[start:])
        reached.append(p[start + 1 :])
    if not asked:
        return None
    return compare(*(np.concatenate(x) for x in (asked, moved, moved_eef, reached)))


def _in_eef(moved: Array, episode: ArmArrays, form: str | None) -> Array:
    """Displacements in the axes of the eef; zeros when its rotation is not known."""
    R = None if form is None else state_rotations(episode, form)
    if R is None:
        return np.zeros_like(moved)
    return np.asarray((np.swapaxes(R[:-1], 1, 2) @ moved[..., None])[..., 0])
