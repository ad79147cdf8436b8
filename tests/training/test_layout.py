"""Where elements lie, and which number a body has."""

from __future__ import annotations

import pytest

from schemas.action import action_spec
from schemas.errors import ConfigError
from schemas.trained_action import trained_names
from training.data.action_layout import (
    ACTION_WIDTH,
    check_known,
    grown,
    part_slots,
    slot_names,
    slots_of,
)


def names_of(*parts: tuple[str, int]) -> tuple[str, ...]:
    spec = action_spec(parts)
    assert spec is not None
    return trained_names(spec.names)


def test_172_slots_left_before_right() -> None:
    names = slot_names()
    assert len(names) == len(set(names)) == ACTION_WIDTH == 172
    assert names[0] == "left.delta_position_m.x"
    assert names[3:7] == (
        "left.delta_rotvec_rad.x",
        "left.delta_rotvec_rad.y",
        "left.delta_rotvec_rad.z",
        "left.gripper_opening",
    )
    assert names[86:] == tuple(n.replace("left.", "right.") for n in names[:86])


def test_every_part_of_a_body_lands_on_its_name() -> None:
    names = names_of(
        ("left.position_m", 3),
        ("left.rot6d_cols", 6),
        ("left.hand_keypoints_m", 63),
        ("right.position_m", 3),
        ("right.rot6d_cols", 6),
        ("right.gripper_opening", 1),
        ("right.hand_joints_rad", 12),
    )
    slots = slots_of(names, where="x")
    assert len(set(slots.tolist())) == len(names) == 6 + 63 + 6 + 1 + 12
    assert [slot_names()[s] for s in slots] == list(names)
    assert slots[-1] == 86 + 7 + 63 + 11


def test_a_hand_of_one_joint_has_no_number() -> None:
    (slot,) = slots_of(["right.hand_joints_rad"], where="x")
    assert slot_names()[slot] == "right.hand_joints_rad.0"


def test_parts_are_their_own_slots() -> None:
    assert part_slots("right.delta_rotvec_rad").tolist() == [89, 90, 91]
    assert part_slots("left.gripper_opening").tolist() == [6]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([f"left.hand_joints_rad.{i}" for i in range(17)], "17 joints of the left hand"),
        (
            ["left.delta_position_m.x", "left.tail"],
            "1 action elements have no slot in the action vector, 'left.tail'",
        ),
        (["head.delta_position_m.x"], "have no slot"),
    ],
)
def test_what_has_no_place_is_refused(names: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        slots_of(names, where="embodiment monkey")


def test_a_list_of_bodies_only_grows() -> None:
    saved = ("umi", "aloha")
    assert grown(saved, ["zebra", "umi", "bee"]) == ("umi", "aloha", "bee", "zebra")
    assert grown((), ["b", "a"]) == ("a", "b")


def test_an_unknown_body_is_refused_with_the_command() -> None:
    check_known(("a", "b"), ["b"], where="m")
    with pytest.raises(ConfigError, match=r"unknown embodiment c.*--init-from"):
        check_known(("a", "b"), ["b", "c"], where="m")
