"""The stage that gives an episode of joints its end-effector poses: forward kinematics of a named URDF."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ingest.transforms.forward_kinematics import Robot
from schemas.episode import Episode, Stream, pose_channel
from schemas.fact import Fact


def with_forward_kinematics(episode: Episode, robot: Robot) -> Episode:
    """Add `<side>.T_base_eef` where the episode has `joint_position_rad` and no pose of that side.

    From `command.joint_position_rad` comes `command.<side>.T_base_eef` in the same way, but only for a side whose measured
    pose was computed too: the two must be of one frame. Poses are valid where the joints are. An episode of another body,
    or without joints, comes back as it is.

    Raises:
        SourceError: MISSING_CHANNEL, a joint that moves an end-effector is not recorded.
    """
    arms = robot.kinematics.arms
    if episode.embodiment != robot.embodiment or all(
        episode.stream(f"{side}.T_base_eef") is not None for side in arms
    ):  # where every pose is stored, joints may be without what they would need (a waist)
        return episode
    measured = _poses(episode, robot, "")
    added = {name: stream for name, stream in measured if episode.stream(name) is None}
    if not added:
        return episode
    for name, stream in _poses(episode, robot, "command."):
        if name.removeprefix("command.") in added and episode.stream(name) is None:
            added[name] = stream
    return replace(
        episode,
        streams=(*episode.streams, *added.values()),
        facts=(*episode.facts, _fact(robot)),
    )


def _poses(episode: Episode, robot: Robot, prefix: str) -> Iterator[tuple[str, Stream]]:
    """(channel, stream) of every side, from `<prefix>joint_position_rad`."""
    joints = episode.stream(f"{prefix}joint_position_rad")
    if joints is None:
        return
    for side, T_base_eef in robot.T_base_tip(joints.values, joints.spec.names).items():
        name = f"{prefix}{side}.T_base_eef"
        spec = pose_channel(name)
        yield name, Stream(spec=spec, t_ns=joints.t_ns, values=T_base_eef, valid=joints.valid)


def _fact(robot: Robot) -> Fact:
    known = robot.kinematics
    tips = ", ".join(arm.tip for arm in known.arms.values())
    how = f"schemas/kinematics.yaml: {tips} in {known.base}; {'; '.join(known.sources[:2])}"
    return Fact(
        name="eef_pose_source",
        value=f"forward kinematics of {robot.urdf_name} {robot.urdf_digest}",
        certainty=known.certainty,
        source=f"{how}. {known.note}" if known.note else how,
    )
