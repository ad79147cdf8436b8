"""End-effector poses from joint positions by forward kinematics (pinocchio) of a URDF, and the pipeline stage that applies it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.transforms.urdf import NO_LINE, Joint, Urdf, nearest, read_urdf
from schemas.episode import Episode, Stream, pose_channel
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Fact
from schemas.geometry import Array
from schemas.kinematics import Kinematics, kinematics_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Robot:
    """A body with its chains. A plain value: it travels to workers, each of which builds the model once."""

    embodiment: str
    urdf_name: str
    urdf_digest: str  # sha256:<hex>
    kinematics: Kinematics
    chains: Mapping[str, tuple[str, ...]]  # side -> the joints that move its tip in the base
    xml: str  # the chains alone

    @staticmethod
    def open(urdf: Path, embodiment: str) -> Robot:
        """Read a URDF for a body of schemas/kinematics.yaml.

        Raises:
            ConfigError: no kinematics registered, pinocchio not installed, or a URDF that is unreadable, no tree, lacks
                a link or joint, or whose tip is moved by a joint that no element of the stream stands for.
        """
        kinematics = kinematics_of(embodiment)
        _pinocchio()
        tree = read_urdf(urdf)
        base = tree.link(kinematics.base, "the base")
        tips = [tree.link(arm.tip, f"{side} tip") for side, arm in kinematics.arms.items()]
        return Robot(
            embodiment=embodiment,
            urdf_name=tree.name,
            urdf_digest=tree.digest,
            kinematics=kinematics,
            chains={side: _chain(tree, kinematics, side) for side in kinematics.arms},
            xml=tree.cut_to([base, *tips]),
        )

    def T_base_tip(
        self, joint_position_rad: npt.ArrayLike, names: tuple[str, ...] = ()
    ) -> dict[str, Array]:
        """Pose [N, 4, 4] of every side's tip in the base, metres.

        Args:
            joint_position_rad: [N, J] radians (metres for a prismatic joint).
            names: the J element names, or none when the stream names nothing.

        Raises:
            SourceError: MISSING_CHANNEL, a joint that moves a tip is not among the elements.
        """
        values = np.asarray(joint_position_rad, dtype=np.float64)
        out = {}
        for side, arm in self.kinematics.arms.items():
            index = self.kinematics.indices(side, names, values.shape[1])
            if missing := [joint for joint in self.chains[side] if joint not in index]:
                problem = f"no element holds {', '.join(missing)}, which move {arm.tip}"
                elements = ", ".join(names) or f"{values.shape[1]} without names"
                raise SourceError(
                    Code.MISSING_CHANNEL,
                    f"{problem} (elements: {elements}); expected the names of schemas/kinematics.yaml",
                    where="joint_position_rad",
                )
            moved = {joint: values[:, index[joint]] for joint in self.chains[side]}
            out[side] = _forward(self.xml, self.kinematics.base, arm.tip, moved, len(values))
        return out


def _chain(tree: Urdf, kinematics: Kinematics, side: str) -> tuple[str, ...]:
    """The joints that move the tip, each of which some element may hold."""
    arm = kinematics.arms[side]
    path = tree.between(kinematics.base, arm.tip)
    moving = [joint for joint in path if joint.kind != "fixed"]
    names = [joint.name for joint in moving]
    every = {joint.name for joint in tree.above.values()}
    for name in arm.joints:
        if name not in names:
            why = "does not move" if name in every else "is no joint; it should move"
            problem = f"{name!r} {why} {arm.tip!r} in {kinematics.base!r} {nearest(name, names)}"
            raise ConfigError(problem, where=tree.name)
    known = {*arm.joints, *kinematics.body}
    if unheld := [_about(joint) for joint in moving if joint.name not in known]:
        problem = f"{arm.tip!r} is also moved by {', '.join(unheld)}"
        raise ConfigError(f"{problem}, which no element is known to hold", where=tree.name)
    if free := [joint.name for joint in moving if joint.kind in NO_LINE]:
        raise ConfigError(f"{free} have more than one degree of freedom", where=tree.name)
    return tuple(names)


def _about(joint: Joint) -> str:
    return f"{joint.name} ({joint.kind})"


def _pinocchio() -> Any:
    try:
        return import_module("pinocchio")
    except ImportError as error:
        todo = "pip install 'eicorpus[kinematics]'"
        raise ConfigError(f"forward kinematics needs pinocchio ({error})", remedy=todo) from error


@lru_cache(maxsize=8)
def _model(xml: str) -> Any:
    return _pinocchio().buildModelFromXML(xml)


def _forward(xml: str, base: str, tip: str, moved: Mapping[str, Array], count: int) -> Array:
    """[count, 4, 4] pose of link `tip` in link `base`; joints that do not matter stay at zero."""
    pin, model = _pinocchio(), _model(xml)
    q = np.zeros((count, model.nq))
    for joint, values in moved.items():
        q[:, model.joints[model.getJointId(joint)].idx_q] = values
    data = model.createData()
    base_id, tip_id = (model.getFrameId(link, pin.FrameType.BODY) for link in (base, tip))
    out = np.empty((count, 4, 4))
    for k in range(count):
        pin.forwardKinematics(model, data, q[k])
        T_root_base = pin.updateFramePlacement(model, data, base_id)
        T_root_tip = pin.updateFramePlacement(model, data, tip_id)
        out[k] = T_root_base.actInv(T_root_tip).homogeneous
    return out


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
