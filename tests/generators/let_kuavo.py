"""LET in its true layout: ROS 1 bags with their message definitions inside, written by `rosbags`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag1 import Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene

START_NS = 1_753_147_114_000_000_000  # 2025-07-22 9:18:34 at UTC+8
START = "2025-07-22 9:18:3{:.3f}"  # seconds are 4 + t
HEAD_HZ, JOINT_HZ, COMMAND_HZ = 30, 100, 50
# As kuavo_msgs has them, comments and constants included (fields: LejuRobotics/kuavo-ros-opensource).
DEFINITIONS = {
    "kuavo_msgs/msg/jointData": "float64[] joint_q\nfloat64[] joint_v\nfloat64[] joint_vd\nfloat64[] joint_torque\n",
    "kuavo_msgs/msg/imuData": "geometry_msgs/Vector3 gyro  # 陀螺仪\ngeometry_msgs/Vector3 acc\n"
    "geometry_msgs/Vector3 free_acc\ngeometry_msgs/Quaternion quat\n",
    "kuavo_msgs/msg/endEffectorData": "string[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort\n",
    "kuavo_msgs/msg/sensorsData": "std_msgs/Header header\ntime sensor_time\nkuavo_msgs/jointData joint_data\n"
    "kuavo_msgs/imuData imu_data\nkuavo_msgs/endEffectorData end_effector_data\n",
    "kuavo_msgs/msg/jointCmd": "Header header\nfloat64[] joint_q\nfloat64[] joint_v\nfloat64[] tau\n",
    "kuavo_msgs/msg/lejuClawState": "std_msgs/Header header\n\nint8 kError = -1    # failed\nint8 kGrabbed = 3\n"
    "int8[] state # 0: left; 1: right\nkuavo_msgs/endEffectorData data\n",
    "kuavo_msgs/msg/lejuClawCommand": "# position : 0 ~ 100\nstd_msgs/Header header\nkuavo_msgs/endEffectorData data\n",
    "kuavo_msgs/msg/robotHandPosition": "Header header\nuint8[] left_hand_position\nuint8[] right_hand_position\n",
}


@cache
def store() -> Typestore:
    types = get_typestore(Stores.ROS1_NOETIC)
    for name, text in DEFINITIONS.items():
        lines = [
            line for line in text.split("\n") if "=" not in line
        ]  # the library trips over constants
        types.register(get_types_from_msg("\n".join(lines), name))
    return types


def definition(msgtype: str) -> tuple[str, str]:
    """The text that a recorder puts into the bag, comments and constants kept, and its MD5."""
    text, md5 = store().generate_msgdef(msgtype)
    head, rule, rest = text.partition("=" * 80)
    return DEFINITIONS.get(msgtype, head) + rule + rest, md5


def message(kind: str, /, **fields: Any) -> Any:
    """A message of type `pkg/msg/kind`, with a header where the type has one."""
    types = store().types
    if "header" in (name for name, _ in store().fielddefs[kind][1]):
        stamp = types["builtin_interfaces/msg/Time"](0, 0)  # of another age: not to be used
        fields["header"] = types["std_msgs/msg/Header"](0, stamp, "")
    return types[kind](**fields)


def floats(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def joint_state(position: Any) -> Any:
    none = floats([])
    fields = {"name": [], "position": floats(position), "velocity": none, "effort": none}
    return message("sensor_msgs/msg/JointState", **fields)


def claw(kind: str, position: Any, **more: Any) -> Any:
    fields = {"name": ["left_claw", "right_claw"], "position": floats(position)}
    data = message(
        "kuavo_msgs/msg/endEffectorData", velocity=floats([]), effort=floats([]), **fields
    )
    return message(f"kuavo_msgs/msg/lejuClaw{kind}", data=data, **more)


def sensors(joint_q: Any) -> Any:
    types, none = store().types, floats([])
    v = types["geometry_msgs/msg/Vector3"](0.0, 0.0, 9.8)
    quat = types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
    return message(
        "kuavo_msgs/msg/sensorsData",
        sensor_time=types["builtin_interfaces/msg/Time"](0, 0),
        joint_data=types["kuavo_msgs/msg/jointData"](floats(joint_q), none, none, none),
        imu_data=types["kuavo_msgs/msg/imuData"](v, v, v, quat),
        end_effector_data=types["kuavo_msgs/msg/endEffectorData"]([], none, none, none),
    )


def jpeg(picture: np.ndarray) -> Any:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].ravel()
    form = "bgr8; jpeg compressed bgr8"
    return message("sensor_msgs/msg/CompressedImage", format=form, data=data)


def joints(t_s: float) -> np.ndarray:
    """[28] rad: legs stand, the head is still, arm joint k moves as 0.5 sin(t + k)."""
    q = np.zeros(28)
    q[:12] = 0.01 * np.arange(12)
    q[12:26] = 0.5 * np.sin(t_s + np.arange(14))
    return q


@dataclass(frozen=True)
class Topic:
    name: str
    rate_hz: int
    at: Callable[[float], Any]  # seconds -> message


def topics(scene: Scene, tool: str) -> Iterator[Topic]:
    """Everything a recorder of that tool writes; commands tell at t what the joints do at t + 1/30 s."""
    told = 1 / HEAD_HZ
    yield Topic("/cam_h/color/image_raw/compressed", HEAD_HZ, lambda t: jpeg(scene.picture(t)))
    yield Topic("/cam_l/color/image_raw/compressed", HEAD_HZ, lambda t: jpeg(scene.picture(t)))
    yield Topic("/sensors_data_raw", JOINT_HZ, lambda t: sensors(joints(t)))

    def closed(t: float) -> np.ndarray:
        return 1 - np.array([scene.gripper_opening(t)] * 2)

    if tool != "joint_cmd":
        yield Topic(
            "/kuavo_arm_traj",
            COMMAND_HZ,
            lambda t: joint_state(np.rad2deg(joints(t + told)[12:26])),
        )
    if tool == "leju_claw":
        state = np.array([2, 3], np.int8)
        yield Topic(
            "/leju_claw_state", COMMAND_HZ, lambda t: claw("State", 100 * closed(t), state=state)
        )
        yield Topic(
            "/leju_claw_command", COMMAND_HZ, lambda t: claw("Command", 100 * closed(t + told))
        )
    elif tool == "dex_hand":
        yield Topic(
            "/dexhand/state", COMMAND_HZ, lambda t: joint_state(np.repeat(100 * closed(t), 6))
        )

        def hands(t: float) -> Any:
            six = np.full(6, 100 * closed(t + told)[0]).astype(np.uint8)
            name = "kuavo_msgs/msg/robotHandPosition"
            return message(name, left_hand_position=six, right_hand_position=six)

        yield Topic("/control_robot_hand_position", 25, hands)
    else:
        yield Topic("/gripper/state", COMMAND_HZ, lambda t: joint_state(0.8 * closed(t)))
        yield Topic("/gripper/command", COMMAND_HZ, lambda t: joint_state(255 * closed(t + told)))

        def commanded(t: float) -> Any:
            none = floats([])
            q = joints(t + told)
            return message("kuavo_msgs/msg/jointCmd", joint_q=q, joint_v=none, tau=none)

        yield Topic("/joint_cmd", COMMAND_HZ, commanded)


def write_bag(
    path: Path,
    scene: Scene,
    *,
    tool: str = "leju_claw",
    start_ns: int = START_NS,
    compression: str = "",
    change: Callable[[Topic], Topic | None] = lambda topic: topic,
) -> None:
    """One bag; `change` replaces or drops topics."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[int, str, Any]] = []
    for topic in filter(None, map(change, topics(scene, tool))):
        for k in range(round(scene.duration_s * topic.rate_hz)):
            t_s = k / topic.rate_hz
            rows.append((start_ns + round(t_s * 1e9), topic.name, topic.at(t_s)))
    writer = Writer(path)
    if compression:
        writer.set_compression(Writer.CompressionFormat[compression.upper()])
    with writer:
        connections: dict[str, Any] = {}
        for t_ns, name, said in sorted(rows, key=lambda row: row[0]):
            if name not in connections:
                text, md5 = definition(said.__msgtype__)
                connections[name] = writer.add_connection(
                    name, said.__msgtype__, msgdef=text, md5sum=md5
                )
            data = store().serialize_ros1(said, said.__msgtype__)
            writer.write(connections[name], t_ns, data)


def write_labels(path: Path, *marks: dict[str, Any], **more: Any) -> None:
    """The label file that belongs to the bag at `path`."""
    labels = {
        "primaryScene": "默认一级场景",
        "tertiarySceneCode": "Coil sorting",
        "taskGroupCode": "single_coil_sorting",
        "taskPrompt": "",
        "deviceSn": "P4-209",
        "marks": list(marks),
        **more,
    }
    path.with_suffix(".json").write_text(json.dumps(labels, ensure_ascii=False))


def mark(start_s: float, duration_s: float, text: str, **more: Any) -> dict[str, Any]:
    """One mark, `start_s` from the bag's start; its markEnd is off, as in the README's example."""
    return {
        "markStart": START.format(4 + start_s),
        "markEnd": START.format(4 + start_s + 0.1),
        "duration": duration_s,
        "startPosition": start_s / 2,
        "skillAtomic": "pick",
        "skillDetail": "从桌子上拿起线圈",
        "enSkillDetail": text,
        "markType": "step",
        **more,
    }


def write(root: Path) -> Written:
    """A labelled bag with claws, an unlabelled one with hands, one of the simulator; 2 s each."""
    scenes: dict[str, Scene] = {}
    for seed, (name, tool, compression) in enumerate(
        (
            ("real/Labelled/coil_sorting-P4-leju_claw/take_1", "leju_claw", "lz4"),
            ("real/Unlabelled/wipe_table-P4-dex_hand/take_2", "dex_hand", ""),
            ("sim/task1/take_10", "joint_cmd", "bz2"),
        )
    ):
        scene = Scene(seed=seed, sides=("left", "right"), width=160, height=120, focal_px=150.0)
        path = root / f"{name}.bag"
        write_bag(path, scene, tool=tool, compression=compression)
        scenes[name] = scene
        if "Labelled/coil" in name:
            marks = (mark(0.2, 0.8, "pick coil from table"), mark(1.0, 0.9, "place coil in box"))
            write_labels(path, *marks)
    return Written(root=root, scenes=scenes)
