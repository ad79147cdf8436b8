"""One recorded episode of Meta-World's Sawyer as canonical streams: motion and commands of the hand.

    @rate_hz                        attribute, 10: rows a second
    time_s [N]                      seconds from the episode's start; row k was seen before command k was given
    hand/position_m [N, 3], hand/quat_wxyz [N, 4]         body `hand` in the world
    hand/gap_m [N]                  between the bodies `rightclaw` and `leftclaw`, 0.10 open
    command/position_m [N, 3], command/quat_wxyz [N, 4]   the mocap body, at which the hand is held, after command k
    command/action [N, 4]           as given to the simulator: dx, dy, dz in -1 .. 1 (0.01 m of each control step), effort of the jaws
World: x right, y forward, z up, as the arm's base sees it, metres. `set_xyz_action` moves the mocap body by action times 0.01 m, inside a box, and sets
its quaternion to (1, 0, 1, 0), always: the hand points down and never turns. The jaws are position actuators whose target is the
effort itself, in metres (kp 400), far beyond their 0.04 m: effort above 0 closes, 0 and below opens, and how far says how hard.
Joint ranges 0.04 and 0.03 m leave 0.03 of the 0.10 m between the claws. Source: `Farama-Foundation/Metaworld:metaworld/sawyer_xyz_env.py,
metaworld/assets/objects/assets/xyz_base.xml, metaworld/assets/sawyer_xyz/*.xml` (3.1.1), and what its simulator did here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from adapters.containers.hdf5 import Hdf5File
from schemas.episode import Stream, Unit, gripper_channel, pose_channel, vector_channel
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import Array, rotmat_from_quat_wxyz, transform
from schemas.metaworld import opening_of
from schemas.rate import instants_ns, ns_from_seconds, rate_from

ACTION = ("dx", "dy", "dz", "effort")
ENV = "Farama-Foundation/Metaworld:metaworld/sawyer_xyz_env.py"
MODEL = "Farama-Foundation/Metaworld:metaworld/assets/objects/assets/xyz_base.xml"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaworldClock:
    """When rows were seen, and when the command of each is due: one period later."""

    rate_hz: Fraction
    t_ns: npt.NDArray[np.int64]
    due_ns: npt.NDArray[np.int64]


def clock_of(file: Hdf5File) -> MetaworldClock:
    """Raises SourceError: MISSING_CHANNEL, EMPTY_EPISODE, SHAPE_MISMATCH, NOT_FINITE, BAD_ANNOTATION (no rate)."""
    time_s = file.rows("time_s")
    _check_finite(time_s, f"{file.where}:time_s")
    try:
        rate_hz = rate_from(float(file.attribute("", "rate_hz")))
    except (TypeError, ValueError) as error:
        raise SourceError(Code.BAD_ANNOTATION, f"rate_hz: {error}", where=file.where) from error
    t_ns = ns_from_seconds(time_s - time_s[0])
    period_ns = int(instants_ns(2, rate_hz)[1])
    return MetaworldClock(rate_hz=rate_hz, t_ns=t_ns, due_ns=t_ns + period_ns)


def has_motion(file: Hdf5File) -> bool:
    """False for an action-free video, which has neither of the two groups."""
    return bool(file.children("hand") or file.children("command"))


def motion_streams(file: Hdf5File, clock: MetaworldClock) -> Iterator[Stream]:
    """Raises SourceError: MISSING_CHANNEL, SHAPE_MISMATCH, NOT_FINITE, NOT_A_ROTATION, CLOCK_NOT_INCREASING."""
    num_rows = len(clock.t_ns)
    T = _poses(file, "hand", num_rows)
    yield Stream(spec=pose_channel("left.T_base_eef"), t_ns=clock.t_ns, values=T)
    gap_m = file.rows("hand/gap_m", num_rows=num_rows)[:, None]
    spec = gripper_channel("left.gripper_opening", binary=False)
    yield Stream(spec=spec, t_ns=clock.t_ns, values=opening_of(gap_m))
    T = _poses(file, "command", num_rows)
    yield Stream(spec=pose_channel("command.left.T_base_eef"), t_ns=clock.due_ns, values=T)
    action = file.rows("command/action", len(ACTION), num_rows=num_rows)
    _check_finite(action, f"{file.where}:command/action")
    spec = gripper_channel("command.left.gripper_opening", binary=True)
    is_open = (action[:, 3:] <= 0).astype(np.float64)
    yield Stream(spec=spec, t_ns=clock.due_ns, values=is_open)
    spec = vector_channel("raw_command", len(ACTION), Unit.SOURCE, names=ACTION, hold=True)
    yield Stream(spec=spec, t_ns=clock.t_ns, values=action)


def motion_facts(clock: MetaworldClock, *, has_actions: bool) -> Iterator[Fact]:
    """What is known of the conventions; the embodiment's own facts (axes, grasp centre) are added later."""
    held = f"{clock.rate_hz} Hz: each action held for 8 control steps of 12.5 ms"
    yield fact("rate", held, Certainty.VERIFIED, "counted by the recorder", for_actions=True)
    if not has_actions:
        return
    frame = (
        "body hand in the world: x right, y forward, z up of the arm's base, which is its origin"
    )
    kind = "the mocap body's pose that the hand is pulled to; the action moves it by 0.01 m a step"
    jaws = "gap between claws, 0.03 m shut, 0.10 m open; effort above 0 closes"
    yield fact("eef_rotation_form", "quat_wxyz", Certainty.CODE, MODEL, for_actions=True)
    yield fact("eef_frame", frame, Certainty.VERIFIED, MODEL, for_actions=True)
    yield fact("action_kind", kind, Certainty.CODE, ENV, for_actions=True)
    yield fact("gripper_polarity", jaws, Certainty.VERIFIED, "tried in 3.1.1", for_actions=True)
    yield fact(
        "hand_orientation", "fixed: the mocap quaternion is (1, 0, 1, 0)", Certainty.CODE, ENV
    )


def _poses(file: Hdf5File, group: str, num_rows: int) -> Array:
    """[N, 4, 4] from position and quaternion."""
    xyz_m = file.rows(f"{group}/position_m", 3, num_rows=num_rows)
    key = f"{group}/quat_wxyz"
    quat = file.rows(key, 4, num_rows=num_rows)
    _check_finite(quat, f"{file.where}:{key}")
    if np.abs(np.linalg.norm(quat, axis=1) - 1).max() > 1e-2:
        problem = "a quaternion does not have norm 1"
        raise SourceError(Code.NOT_A_ROTATION, problem, where=f"{file.where}:{key}")
    return transform(rotmat_from_quat_wxyz(quat), xyz_m)


def _check_finite(values: Array, where: str) -> None:
    if not np.isfinite(values).all():
        raise SourceError(Code.NOT_FINITE, "NaN or infinity", where=where)
