"""LET (Leju Kuavo 4 Pro): a humanoid teleoperated, one ROS 1 bag per episode, with labels beside it.

    real/{Labelled,Unlabelled}/<task>-P4-{dex_hand|leju_claw}/<name>.bag, [<name>.json]      sim/.../<name>.bag
        /sensors_data_raw                    28 joints, rad
        /kuavo_arm_traj[_synced], /joint_cmd 14 arm targets in degrees, or 28 joint targets in rad
        /leju_claw_state, _command           two claws, 0 open .. 100 closed;  sim: /gripper/state 0.8, /gripper/command 255
        /dexhand/state, /control_robot_hand_position   6 + 6 fingers, 0 open .. 100 fist
        /cam_{h,l,r}/color/image_raw/compressed, /zedm/zed_node/{left,right}/image_rect_color/compressed   JPEG
Sources: README and converter, see streams.py and labels.py. No pose is stored: it takes forward kinematics of a URDF. Not
read: depth, IMU, /cmd_pose_world_synced, joint velocities. The converter drops ten frames at both ends; we do not.
A whole episode's JPEG bytes are in memory at once, at most 1 GiB.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.listing import natural_key
from adapters.containers.raw_file import raw_file_of
from adapters.containers.rosbag1 import rosbags
from adapters.containers.safe_path import exists_inside, inside
from adapters.let_kuavo.labels import LetKuavoLabels, read_labels
from adapters.let_kuavo.recording import read_recording
from adapters.let_kuavo.streams import RATE_HZ, facts_of, raw_streams
from schemas.episode import Camera, EncodedImages, Episode, EpisodeRef, Instruction, Licence, Stream
from schemas.errors import ConfigError
from schemas.regular_file import bytes_hint

LICENCE = Licence(name="CC-BY-NC-SA-4.0", allows_commercial=False, allows_redistribution=True)
TASK = re.compile(r"(?P<task>.+)-P4-(dex_hand|leju_claw)")


class LetKuavo:
    """Adapter for `let_kuavo`."""

    name: ClassVar[str] = "let_kuavo"
    version: ClassVar[int] = 2
    container: ClassVar[str] = "rosbag 1"
    about: ClassVar[str] = "LET: Leju Kuavo 4 Pro humanoid, joints, claws or hands, cameras, labels"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Options: `instruction`, the task's text where neither label file nor folder says it."""
        if unknown := sorted(set(options) - {"instruction"}):
            raise ConfigError(f"unknown options {unknown}; expected instruction=TEXT")
        rosbags()
        if next(root.rglob("*.bag"), None) is None:
            raise ConfigError(f"{root}: not LET: expected .bag files below it")
        notes = (
            "joints only: a pose takes forward kinematics of a URDF",
            "depth, IMU and base commands are not read",
        )
        return SourceInfo(
            source=self.name,
            dataset=self.name,
            licence=LICENCE,
            notes=notes,
            details=dict(options),
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """By folder, then number; the folder is part of the id."""
        names = (path.relative_to(root).as_posix() for path in root.rglob("*.bag"))
        for name in sorted(names, key=natural_key):
            yield EpisodeRef(
                source=self.name,
                dataset=self.name,
                episode_id=name.removesuffix(".bag"),
                root=str(root),
                locator=(("file", name), *sorted(info.details.items())),
                bytes_hint=bytes_hint(root / name),
            )

    def load(self, ref: EpisodeRef) -> Episode:
        locator, root = dict(ref.locator), Path(ref.root)
        path = inside(root, locator["file"])
        bag = read_recording(path, locator["file"])
        raw = list(raw_streams(bag))
        clocks = [t_ns for _, t_ns, _ in raw] + [t_ns for t_ns, _ in bag.pictures.values()]
        zero_ns = min((int(t_ns[0]) for t_ns in clocks), default=bag.start_ns)
        beside = locator["file"].removesuffix(".bag") + ".json"
        labels, files = LetKuavoLabels(), [raw_file_of(path, root)]
        if exists_inside(root, beside):
            labels, label_file = read_labels(root, beside)
            files.append(label_file)
        return Episode(
            ref=ref,
            embodiment="kuavo4pro",
            rate_hz=RATE_HZ,
            streams=tuple(Stream(spec=s, t_ns=t - zero_ns, values=v) for s, t, v in raw),
            cameras=tuple(
                Camera(name=name, frames=EncodedImages(images=images), t_ns=t_ns - zero_ns)
                for name, (t_ns, images) in bag.pictures.items()
            ),
            instructions=(
                *_task(labels, locator),
                *labels.parts(zero_ns, bag.end_ns, beside),
            ),
            facts=(*ref.facts, *facts_of(bag, is_labelled=len(files) > 1)),
            licence=LICENCE,
            raw_files=tuple(files),
            scene_id=labels.tertiarySceneCode or None,
        )


def _task(labels: LetKuavoLabels, locator: Mapping[str, str]) -> tuple[Instruction, ...]:
    """What the labels say, else the caller, else the folder `<task>-P4-<tool>`; nothing otherwise."""
    folder = TASK.fullmatch(locator["file"].rpartition("/")[0].rpartition("/")[2])
    named = folder["task"].replace("_", " ") if folder else ""
    text = labels.task or locator.get("instruction", named).strip()
    return (Instruction(text=text),) if text else ()
