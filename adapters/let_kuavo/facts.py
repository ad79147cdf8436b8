"""What the streams of a LET bag rest on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from adapters.let_kuavo.labels import ZONE
from adapters.let_kuavo.recording import (
    ARM,
    ARM_SYNCED,
    CLAW_COMMAND,
    CLAW_STATE,
    HAND_COMMAND,
    HAND_STATE,
    JOINT_CMD,
    KuavoRecording,
    Series,
)
from adapters.let_kuavo.streams import GRIPPERS, is_on_scale
from schemas.fact import Certainty, Fact, fact
from schemas.rate import NS_PER_S

README = "the set's README, as in huangrc1110/huggingface_readme:README_EN.md"
CODE = "LejuRobotics/kuavo_data_challenge:kuavo_data/common/kuavo_dataset.py"
SWAPPED_DAY = (
    "2025-07-08"  # a comment in the converter: in those bags cam_r is the left wrist camera
)


def facts_of(bag: KuavoRecording, *, is_labelled: bool) -> Iterator[Fact]:
    """All facts of one bag."""
    yield fact("embodiment", "Kuavo 4 Pro, or its wheel edition", Certainty.DOCUMENTED, README)
    yield _camera_fact(bag.start_ns)
    marks = "local time taken as UTC+8" if is_labelled else "no file beside the bag"
    yield fact("labels", marks, Certainty.UNVERIFIED, "labels.py: one public converter")
    yield fact("rate", "30 Hz, the head camera's", Certainty.CODE, CODE, for_actions=True)
    yield fact("clock", "record time of the bag, as the converter takes it", Certainty.CODE, CODE)
    order = "legs 6 + 6, arms 7 + 7, head 2, left first; rad"
    yield fact("joint_order", order, Certainty.DOCUMENTED, README, for_actions=True)
    commanded = bag.first_of(ARM_SYNCED, ARM, JOINT_CMD)
    if commanded is not None:
        kind = "absolute joint targets, " + ("rad" if commanded[0] == JOINT_CMD else "degrees")
        yield fact(
            "action_kind", f"{kind} ({commanded[0]})", Certainty.CODE, CODE, for_actions=True
        )
    for state, command in GRIPPERS:
        for topic, closed in (state, command):
            if topic in bag.numbers:
                yield _gripper_fact(topic, bag.numbers[topic], closed)
    if HAND_STATE in bag.numbers or HAND_COMMAND in bag.numbers:
        scale = "0 open .. 100 fist, no radians: kept as source_state and raw_command"
        yield fact("hand_unit", scale, Certainty.DOCUMENTED, README)


def _gripper_fact(topic: str, series: Series, closed: float) -> Fact:
    name = f"gripper_polarity.{topic.strip('/')}"
    if not is_on_scale(series, closed):
        low, high = series.values.min(), series.values.max()
        off_scale = f"{low:g} .. {high:g}, expected 0 open .. {closed:g} closed: left out"
        return fact(name, off_scale, Certainty.UNKNOWN, README, for_actions=True)
    against = (
        "; the comment in kuavo_msgs/lejuClawCommand says the opposite, the SDK's close() sends 100"
    )
    source = README + (against if topic in (CLAW_STATE, CLAW_COMMAND) else "")
    value = f"0 open .. {closed:g} closed"
    return fact(name, value, Certainty.DOCUMENTED, source, for_actions=True)


def _camera_fact(start_ns: int) -> Fact:
    day = datetime.fromtimestamp(start_ns // NS_PER_S, tz=UTC).astimezone(ZONE).date().isoformat()
    if day == SWAPPED_DAY:
        value = f"recorded on {day}: cam_r is said to be the LEFT wrist's; look at a picture"
        return fact("camera_sides", value, Certainty.UNVERIFIED, CODE)
    sides = "cam_l is the left wrist's, cam_r the right one's"
    return fact("camera_sides", sides, Certainty.DOCUMENTED, README)
