"""Open X-Embodiment: commanded motion, gripper operations and the registry of sets, by known values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from adapters.oxe.gripper import GRIPPER_OPS, opening_from_command
from adapters.oxe.motion import ArmArrays, DeltaCommand, delta_targets, eef_poses, poses
from adapters.oxe.registry import oxe_set, oxe_sets, sets_from
from schemas.errors import Code, ConfigError, SourceError
from schemas.geometry import inverse, rotmat_from_euler, transform

# --- motion, known values -----------------------------------------------------------------------------------------------


def arrays(**given: Any) -> ArmArrays:
    names = ("position", "rotation", "rotation_copy", "T_state_base", "gripper")
    names += ("command_position", "command_rotation", "command_gripper")
    return ArmArrays(**{name: given.get(name) for name in names})


TURNED = transform([[[0, -1, 0], [1, 0, 0], [0, 0, 1]]], [[0.4, 0.0, 0.2]])  # +90 degrees about z


def how(frame: str, form: str | None = "euler_xyz_extrinsic", **scale: float) -> DeltaCommand:
    return DeltaCommand(**{"scale_m": 1.0, "scale_rad": 1.0, **scale}, form=form, frame=frame)


def test_delta_in_the_axes_of_the_state_and_of_the_eef() -> None:
    given = arrays(
        command_position=np.array([[0.1, 0.0, 0.0]]), command_rotation=np.array([[np.pi / 2, 0, 0]])
    )
    state, _ = delta_targets(TURNED, given, how("state"), where="test")
    assert state[0, :3, 3] == pytest.approx([0.5, 0.0, 0.2])
    Rx90 = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    assert state[0, :3, :3] == pytest.approx(Rx90 @ TURNED[0, :3, :3])
    eef, _ = delta_targets(TURNED, given, how("eef"), where="test")
    assert eef[0, :3, 3] == pytest.approx([0.4, 0.1, 0.2])  # the eef's x is the base's y
    assert eef[0, :3, :3] == pytest.approx(TURNED[0, :3, :3] @ Rx90)


def test_delta_scales_and_a_delta_without_rotation() -> None:
    given = arrays(
        command_position=np.array([[1.0, 0, 0]]), command_rotation=np.array([[0, 0, 1.0]])
    )
    scaled, _ = delta_targets(
        TURNED, given, how("state", scale_m=0.05, scale_rad=0.5), where="test"
    )
    assert scaled[0, 0, 3] == pytest.approx(0.45)
    angle = Rotation.from_matrix(scaled[0, :3, :3]).as_euler("xyz")[2]
    assert angle == pytest.approx(np.pi / 2 + 0.5)
    held, _ = delta_targets(TURNED, given, how("state", form=None), where="test")
    assert held[0, :3, :3] == pytest.approx(TURNED[0, :3, :3])


@pytest.mark.parametrize("form", ["quat_xyzw", "quat_wxyz"])
def test_a_quaternion_delta_of_zero_norm_is_no_command(form: str) -> None:
    given = arrays(command_position=np.zeros((1, 3)), command_rotation=np.zeros((1, 4)))
    T, valid = delta_targets(TURNED, given, how("state", form=form), where="test")
    assert not valid[0]
    assert pytest.approx(TURNED) == T


def test_the_base_is_divided_out() -> None:
    T_world_base = transform(rotmat_from_euler([[0, 0, np.pi / 2]], "xyz"), [[1.0, 0, 0]])
    wanted = inverse(T_world_base) @ TURNED
    given = arrays(
        position=TURNED[:, :3, 3],
        rotation=Rotation.from_matrix(TURNED[:, :3, :3]).as_quat(),
        T_state_base=T_world_base,
    )
    assert eef_poses(given, "quat_xyzw", where="test") == pytest.approx(wanted)
    assert wanted[0, :3, 3] == pytest.approx(
        [0.0, 0.6, 0.2]
    )  # 0.6 m to the left of a base that looks along y


@pytest.mark.parametrize("bad", [[0, 0, 0, 0], [0, 0, 0, 2.0], [np.nan, 0, 0, 1]])
def test_values_that_are_no_rotation(bad: list[float]) -> None:
    with pytest.raises(SourceError) as caught:
        poses(np.zeros((1, 3)), np.array([bad]), "quat_xyzw", where="test")
    assert caught.value.code in (Code.NOT_A_ROTATION, Code.NOT_FINITE)


# --- gripper operations, known values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "given", "wanted"),
    [
        ("identity", [0, 0.3, 1.2], [0, 0.3, 1]),
        ("invert", [0, 0.3, 1], [1, 0.7, 0]),
        ("clip01", [-1, 0.5, 1], [0, 0.5, 1]),
        ("clip01_invert", [-1, 0.5, 1], [1, 0.5, 0]),
        ("rel2abs", [0, 0, 1, 0, 0.05, -1, 0, -1, 1], [1, 1, 0, 0, 0, 1, 1, 1, 0]),
        ("rel2abs", [0, -1, 0], [0, 1, 1]),  # opens first: so it was closed
        ("rel2abs", [0, 0.1, -0.1], [1, 1, 1]),  # a tenth is no pulse; none at all means open
        ("binarize", [0.5, 1, 0.7, 0.3, 0, 0.4], [1, 1, 0, 0, 0, 0.4]),
        ("binarize", [0.2, 0.6], [0.6, 0.6]),  # never decided: the raw last value
        (
            "binarize",
            [0.95, 0.96, 0.05, 0.04],
            [1, 1, 0, 0],
        ),  # the limits themselves decide nothing
        ("from_state_invert", [0.2], [0.8]),
        ("div255_invert", [0, 255, 51], [1, 0, 0.8]),
        ("pm1_to_01", [-1, 0, 1], [0, 0.5, 1]),
        ("pm1_to_01_invert", [-1, 0, 1], [1, 0.5, 0]),
    ],
)
def test_gripper_operations(op: str, given: list[float], wanted: list[float]) -> None:
    assert opening_from_command(np.array(given), op).tolist() == pytest.approx(wanted)


def test_every_operation_has_a_known_value() -> None:
    marks = test_gripper_operations.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for mark in marks for case in mark.args[1]} == set(GRIPPER_OPS)


# --- registry -----------------------------------------------------------------------------------------------------------


def test_all_sets_are_in_the_registry() -> None:
    sets = oxe_sets()
    assert len(sets) == 87
    assert sum(e.rate.hz is None for e in sets.values()) == 6
    fractions = {e.rate.hz for e in sets.values() if e.rate.hz and "." in e.rate.hz}
    assert fractions == {"12.5", "3.75", "66.6"}
    assert oxe_set("fmb").name == "fmb_dataset"  # by its TFDS name
    for entry in sets.values():
        assert entry.embodiment.replace("_", "").isalnum()


def test_no_set_is_named_in_code() -> None:
    names = set(oxe_sets()) | {entry.tfds_name for entry in oxe_sets().values()}
    for path in Path(__file__).parents[2].glob("adapters/oxe*.py"):
        text = path.read_text()
        assert [n for n in names if f'"{n}"' in text or f"'{n}'" in text] == []


@pytest.mark.parametrize(
    "broken",
    [
        "kind: eef_dleta",
        "gripper_op: magic",
        "form: euler_of_some_kind",
        "frame: world",
        "surprise: 1",
    ],
)
def test_a_registry_that_breaks_a_rule_is_refused(broken: str) -> None:
    text = """datasets: {x: {tfds_name: x, robot: r, embodiment: r, rate: {hz: '1', certainty: code, source: s},
      arms: {left: {command: {kind: eef_delta, kind_certainty: code, kind_source: s, gripper_op: none,
      gripper_certainty: code, gripper_source: s, form: rotvec, frame: state}}}}}"""
    assert sets_from(text)["x"].arms["left"].command is not None
    key = broken.split(":")[0]
    old = {"kind": "kind: eef_delta", "gripper_op": "gripper_op: none", "form": "form: rotvec"}
    old |= {"frame": "frame: state", "surprise": "form: rotvec"}
    with pytest.raises(ConfigError, match=r"registry\.yaml"):
        sets_from(text.replace(old[key], broken))
