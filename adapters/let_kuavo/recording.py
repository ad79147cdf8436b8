"""What is read of one LET bag: numbers and compressed pictures by topic, on the clock of the recorder.

Message fields: the bag's own definitions, named here as `LejuRobotics/kuavo_data_challenge:kuavo_data/common/kuavo_dataset.py`
reads them (code). That reader too takes the record time of each message, not its header stamp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.containers.images import image_header
from adapters.containers.rosbag1 import open_bag
from schemas.errors import Code, SourceError
from schemas.geometry import Array

MAX_PICTURE_BYTES = 1 << 30  # all cameras of one episode; about two minutes of three cameras
JOINTS, JOINT_CMD = "/sensors_data_raw", "/joint_cmd"
ARM_SYNCED, ARM = "/kuavo_arm_traj_synced", "/kuavo_arm_traj"
CLAW_STATE, CLAW_COMMAND = "/leju_claw_state", "/leju_claw_command"
HAND_STATE, HAND_COMMAND = "/dexhand/state", "/control_robot_hand_position"
SIM_STATE, SIM_COMMAND = "/gripper/state", "/gripper/command"
# topic -> numbers in a message, and how to get at them
NUMBERS: Mapping[str, tuple[int, Callable[[Any], Any]]] = {
    JOINTS: (28, lambda m: m.joint_data.joint_q),
    JOINT_CMD: (28, lambda m: m.joint_q),
    ARM_SYNCED: (14, lambda m: m.position),
    ARM: (14, lambda m: m.position),
    CLAW_STATE: (2, lambda m: m.data.position),
    CLAW_COMMAND: (2, lambda m: m.data.position),
    HAND_STATE: (12, lambda m: m.position),
    HAND_COMMAND: (12, lambda m: [*m.left_hand_position, *m.right_hand_position]),
    SIM_STATE: (2, lambda m: m.position),
    SIM_COMMAND: (2, lambda m: m.position),
}
CAMERAS = {  # topic -> name; by topic, because in some bags cam_r is the left one
    "/cam_h/color/image_raw/compressed": "cam_h",
    "/cam_l/color/image_raw/compressed": "cam_l",
    "/cam_r/color/image_raw/compressed": "cam_r",
    "/zedm/zed_node/left/image_rect_color/compressed": "zed_left",
    "/zedm/zed_node/right/image_rect_color/compressed": "zed_right",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """Numbers of one topic: `values` [N, W] at record times `t_ns` [N]."""

    t_ns: npt.NDArray[np.int64]
    values: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KuavoRecording:
    """One bag. Times are ns since 1970."""

    start_ns: int
    end_ns: int
    numbers: Mapping[str, Series]
    pictures: Mapping[str, tuple[npt.NDArray[np.int64], tuple[bytes, ...]]]  # by camera name

    def first_of(self, *topics: str) -> tuple[str, Series] | None:
        """The first of those topics that has messages."""
        return next(((t, self.numbers[t]) for t in topics if t in self.numbers), None)


def read_recording(path: Path, where: str) -> KuavoRecording:
    """Read what is used of a bag, in one pass.

    Raises:
        SourceError: as `open_bag` and `Bag.messages`, and UNKNOWN_LAYOUT (a message without the field), SHAPE_MISMATCH,
            NOT_FINITE, CORRUPT_IMAGE (neither JPEG nor PNG), TOO_LARGE (over 1 GiB of pictures), EMPTY_EPISODE (none of the topics).
    """
    times: dict[str, list[int]] = {}
    values: dict[str, list[Any]] = {}
    num_bytes = 0
    with open_bag(path, where) as bag:
        topics = {t for t in (*NUMBERS, *CAMERAS) if t in bag.topics}
        if topics & {ARM, ARM_SYNCED}:
            topics -= {JOINT_CMD}  # 500 Hz of what the arm trajectory says better
        if not topics:
            listed = ", ".join(sorted(bag.topics)[:20]) or "none"
            raise SourceError(
                Code.EMPTY_EPISODE, f"no topic of LET; the bag has {listed}", where=where
            )
        for topic, t_ns, message in bag.messages(topics):
            value = _picture if topic in CAMERAS else _numbers
            at = f"{where}:{topic}#{len(values.get(topic, ()))}"
            values.setdefault(topic, []).append(value(topic, message, at))
            times.setdefault(topic, []).append(t_ns)
            num_bytes += len(values[topic][-1]) if topic in CAMERAS else 0
            if num_bytes > MAX_PICTURE_BYTES:
                problem = (
                    f"more than {MAX_PICTURE_BYTES} bytes of images; cut the bag into episodes"
                )
                raise SourceError(Code.TOO_LARGE, problem, where=where)
        start_ns, end_ns = bag.start_ns, bag.end_ns
    clocks = {topic: np.array(t, dtype=np.int64) for topic, t in times.items()}
    return KuavoRecording(
        start_ns=start_ns,
        end_ns=end_ns,
        numbers={
            topic: Series(t_ns=clocks[topic], values=np.array(values[topic]))
            for topic in NUMBERS
            if topic in values
        },
        pictures={
            name: (clocks[topic], tuple(values[topic]))
            for topic, name in CAMERAS.items()
            if topic in values
        },
    )


def _numbers(topic: str, message: Any, where: str) -> Array:
    width, read = NUMBERS[topic]
    try:
        values = np.asarray(read(message), dtype=np.float64)
    except (AttributeError, TypeError, ValueError) as error:
        raise SourceError(
            Code.UNKNOWN_LAYOUT, f"unexpected content: {error}", where=where
        ) from error
    if values.shape != (width,):
        problem = f"{values.shape} numbers; expected ({width},)"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=where)
    if not np.isfinite(values).all():
        raise SourceError(Code.NOT_FINITE, "NaN or infinity", where=where)
    return values


def _picture(_: str, message: Any, where: str) -> bytes:
    try:
        data = bytes(message.data)
    except (AttributeError, TypeError, ValueError) as error:
        raise SourceError(
            Code.UNKNOWN_LAYOUT, f"unexpected content: {error}", where=where
        ) from error
    image_header(data, where)
    return data
