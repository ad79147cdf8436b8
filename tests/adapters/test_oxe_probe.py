"""The numeric probe on synthetic sets whose truth is known: right claims settle, wrong ones are contradicted, never flipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from adapters.containers.rlds import Leaf
from adapters.containers.rlds_steps import Steps, steps_of
from adapters.containers.tf_example import parse_example
from adapters.oxe.facts import CONTRADICTED, UNSTATED, claims
from adapters.oxe.motion import read_arm
from adapters.oxe.probe import measure_motion, probe
from adapters.oxe.registry import OxeSet
from jobs.demo.raw.oxe import episode_bytes, jpeg
from schemas.fact import Certainty, Fact

RATE = Fraction(10)
EPISODES, T = 4, 40
Form = Callable[[Rotation], np.ndarray]
FORMS: dict[str, Form] = {
    "euler_xyz_extrinsic": lambda R: R.as_euler("xyz"),
    "euler_xyz_intrinsic": lambda R: R.as_euler("XYZ"),
    "quat_xyzw": lambda R: R.as_quat(),
    "quat_wxyz": lambda R: np.roll(R.as_quat(), 1, axis=1),
    "rotvec": lambda R: R.as_rotvec(),
    "matrix4x4_row_major": lambda R: R.as_matrix().reshape(-1, 9),
}
WIDTHS = {"quat_xyzw": 4, "quat_wxyz": 4}


def motion(seed: int, *, turn: float = 1.0) -> tuple[np.ndarray, Rotation, np.ndarray]:
    """Positions [T, 3] metres, rotations, opening [T] of a hand that sways and turns by up to about a radian."""
    t = np.arange(T)[:, None] / 10 + 3.1 * seed
    p = [0.4, 0.1, 0.3] + 0.12 * np.sin(t * [1.0, 1.3, 0.7] + [0.0, 1.0, 2.0])
    R = Rotation.from_euler(
        "xyz", turn * (0.9 * np.sin(t * [1.1, 0.9, 1.4] + [0, 2, 4]) + [0.4, 0.5, 0.2])
    )
    return p, R, (np.sin(0.8 * t[:, 0]) > 0).astype(float)


def entry(**changes: Any) -> OxeSet:
    """A set that claims everything; `eef`, `gripper` and `command` are updated by what a test gives (None removes)."""
    arm: dict[str, dict[str, Any]] = {
        "eef": {
            "position": {"key": "state", "stop": 3},
            "rotation": {"key": "state", "start": 3},
            "form": "euler_xyz_extrinsic",
            "certainty": "documented",
            "source": "test",
            "frame": "robot_base",
        },
        "gripper": {
            "slot": {"key": "grip"},
            "open_value": 1.0,
            "closed_value": 0.0,
            "certainty": "code",
            "source": "test",
        },
        "command": {
            "kind": "eef_delta",
            "kind_certainty": "code",
            "kind_source": "test",
            "position": {"key": "action", "stop": 3},
            "rotation": {"key": "action", "start": 3, "stop": -1},
            "form": "euler_xyz_extrinsic",
            "form_certainty": "code",
            "frame": "state",
            "gripper": {"key": "action", "start": -1},
            "gripper_op": "identity",
            "gripper_certainty": "code",
            "gripper_source": "test",
        },
    }
    for part, values in changes.items():
        arm[part].update(values)
        arm[part] = {k: v for k, v in arm[part].items() if v is not None}
    rate = {"hz": "10", "certainty": "third_party", "source": "test"}
    text = {"name": "x", "tfds_name": "x", "robot": "x", "embodiment": "x", "rate": rate}
    cameras = [{"key": "left_cam"}, {"key": "right_cam"}]
    return OxeSet.model_validate({**text, "cameras": cameras, "arms": {"left": arm}})


def episodes(
    *,
    state: str = "euler_xyz_extrinsic",
    action: str = "euler_xyz_extrinsic",
    kind: str = "delta",
    frame: str = "state",
    unit: float = 1.0,
    action_unit: float = 1.0,
    turn_unit: float = 1.0,
    turn: float = 1.0,
    grip_sign: int = 1,
    more: Callable[[int, np.ndarray, Rotation], dict[str, np.ndarray]] | None = None,
) -> Iterator[Steps]:
    """Steps whose truth is as named; `unit` is written per metre."""
    for seed in range(EPISODES):
        p, R, opening = motion(seed, turn=turn)
        dp, dR = np.diff(p, axis=0), R[1:] * R[:-1].inv()
        if frame == "eef":
            dp, dR = R[:-1].inv().apply(dp), R[:-1].inv() * R[1:]
        if kind == "absolute":
            dp, dR = p[1:], R[1:]
        if kind == "nothing":
            rng = np.random.default_rng(seed)
            dp, dR = rng.normal(size=dp.shape), Rotation.random(len(dp), random_state=seed)
        moves = np.concatenate([dp * action_unit, FORMS[action](dR) * turn_unit], axis=1)
        command = np.append(opening[1:], opening[-1])
        data = {
            "state": np.concatenate([p * unit, FORMS[state](R)], axis=1),
            "grip": opening if grip_sign > 0 else 1 - opening,
            "action": np.column_stack([np.vstack([moves, moves[-1:]]), command]),
        }
        if more is not None:
            data.update(more(seed, p, R))
        yield from_arrays(data)


def from_arrays(data: dict[str, Any]) -> Steps:
    leaves = {"steps/is_first": Leaf(key="steps/is_first", kind="tensor", dtype="bool", rank=1)}
    spec: dict[tuple[str, ...], tuple[Any, ...]] = {}
    for key, values in data.items():
        kind = "image" if isinstance(values, list) else "tensor"
        shape = () if isinstance(values, list) else values.shape[1:]
        dtype = "uint8" if kind == "image" else "float32"
        spec[(key,)] = (kind, shape, dtype)
        full = f"steps/{key}"
        leaves[full] = Leaf(key=full, kind=kind, shape=shape, dtype=dtype, rank=1)
    return steps_of(parse_example(episode_bytes(spec, {(k,): v for k, v in data.items()})), leaves)


KEYS = ("state", "grip", "action", "copy", "left_cam", "right_cam")


def probed(claim: OxeSet, found: Iterator[Steps], rate: Fraction = RATE) -> dict[str, Fact]:
    facts = probe(claim, claims(claim, KEYS), found, rate)
    return {fact.name.removesuffix(".left"): fact for fact in facts}


def test_true_claims_are_verified() -> None:
    facts = probed(entry(), episodes())
    for name in ("eef_rotation_form", "action_rotation_form", "action_kind", "action_frame"):
        assert facts[name].certainty is Certainty.VERIFIED, facts[name]
    assert facts["action_scale"].value == "1 m"
    assert facts["gripper_command"].certainty is Certainty.VERIFIED
    assert facts["gripper_state_range"].certainty is Certainty.VERIFIED
    assert facts["eef_position_unit"].certainty is Certainty.VERIFIED
    assert "cosine 1.00 in state axes" in facts["action_kind"].source


def test_probe_is_deterministic_and_keeps_order() -> None:
    claim = entry()
    before = claims(claim, KEYS)
    one, two = (probe(claim, before, episodes(), RATE) for _ in range(2))
    assert one == two
    assert [f.name for f in one] == [f.name for f in before]


def is_contradicted(fact: Fact) -> bool:
    return fact.certainty is Certainty.UNKNOWN and fact.value.startswith(CONTRADICTED)


@pytest.mark.parametrize("claimed", ["eef_delta", "eef_absolute"])
def test_a_wrong_kind_is_contradicted_not_flipped(claimed: str) -> None:
    truth = "absolute" if claimed == "eef_delta" else "delta"
    facts = probed(entry(command={"kind": claimed}), episodes(kind=truth))
    assert is_contradicted(facts["action_kind"])
    assert facts["action_kind"].value == f"{CONTRADICTED}{claimed}"
    assert f"measured eef_{truth}" in facts["action_kind"].source


@pytest.mark.parametrize("truth", ["delta", "absolute"])
def test_a_kind_nobody_states_is_settled(truth: str) -> None:
    claim = entry(command={"kind": "unverified", "kind_certainty": "unverified"})
    fact = probed(claim, episodes(kind=truth))["action_kind"]
    assert (fact.value, fact.certainty) == (f"eef_{truth}", Certainty.VERIFIED)


def test_an_absolute_action_is_compared_with_the_next_position() -> None:
    arm = entry().arms["left"]
    found = [read_arm(steps, arm) for steps in episodes(kind="absolute")]
    positions = [a.position for a in found if a.position is not None]
    motion = measure_motion(found, positions, "euler_xyz_extrinsic", arm)
    assert motion is not None
    assert motion.off_next_m < 1e-6
    assert motion.correlation_next > 1 - 1e-6


def test_noise_decides_nothing() -> None:
    unstated = entry(command={"kind": "unverified", "kind_certainty": "unverified"})
    fact = probed(unstated, episodes(kind="nothing"))["action_kind"]
    assert (fact.value, fact.certainty) == (UNSTATED, Certainty.UNVERIFIED)
    fact = probed(entry(), episodes(kind="nothing"))["action_kind"]
    assert (fact.value, fact.certainty) == ("eef_delta", Certainty.CODE)
    assert "undecided" in fact.source


def test_a_velocity_is_told_from_a_delta() -> None:
    facts = probed(entry(), episodes(action_unit=10.0))  # metres a second at 10 Hz
    assert is_contradicted(facts["action_kind"])
    assert "measured eef_velocity" in facts["action_kind"].source


def test_a_wrong_scale_is_contradicted() -> None:
    facts = probed(entry(), episodes(action_unit=1000.0))  # millimetres
    assert facts["action_kind"].value == "eef_delta"
    assert is_contradicted(facts["action_scale"])
    assert "achieved/commanded 0.001" in facts["action_scale"].source


def test_a_stated_scale_is_applied_before_comparing() -> None:
    claim = entry(command={"position_scale_m": 0.05, "scale_certainty": "documented"})
    facts = probed(claim, episodes(action_unit=20.0))
    assert (facts["action_scale"].value, facts["action_scale"].certainty) == (
        "0.05 m",
        Certainty.VERIFIED,
    )


def test_an_unknown_scale_stays_unknown() -> None:
    claim = entry()
    arm = claim.arms["left"]
    assert arm.command is not None
    command = arm.command.model_copy(update={"position_scale_m": None})
    claim = claim.model_copy(update={"arms": {"left": arm.model_copy(update={"command": command})}})
    fact = probed(claim, episodes(action_unit=20.0))["action_scale"]
    assert (fact.value, fact.certainty) == (UNSTATED, Certainty.UNVERIFIED)


@pytest.mark.parametrize(("claimed", "truth"), [("state", "eef"), ("eef", "state")])
def test_a_wrong_action_frame_is_contradicted(claimed: str, truth: str) -> None:
    facts = probed(entry(command={"frame": claimed}), episodes(frame=truth))
    assert is_contradicted(facts["action_frame"])


@pytest.mark.parametrize("truth", ["state", "eef"])
def test_an_action_frame_nobody_states_is_settled(truth: str) -> None:
    fact = probed(entry(command={"frame": None}), episodes(frame=truth))["action_frame"]
    assert (fact.value, fact.certainty) == (truth, Certainty.VERIFIED)


@pytest.mark.parametrize("truth", ["quat_xyzw", "quat_wxyz"])
def test_quaternion_order_follows_from_commanded_turns(truth: str) -> None:
    claim = entry(eef={"form": None, "candidates": ("quat_xyzw", "quat_wxyz")})
    fact = probed(claim, episodes(state=truth))["eef_rotation_form"]
    assert (fact.value, fact.certainty) == (truth, Certainty.VERIFIED)


def test_quaternion_order_without_turning_commands_is_undecided() -> None:
    claim = entry(eef={"form": None, "candidates": ("quat_xyzw", "quat_wxyz")})
    fact = probed(claim, episodes(state="quat_xyzw", kind="nothing"))["eef_rotation_form"]
    assert (fact.value, fact.certainty) == (UNSTATED, Certainty.UNKNOWN)
    assert "undecided" in fact.source


def test_swapped_quaternion_order_is_contradicted() -> None:
    facts = probed(entry(eef={"form": "quat_xyzw"}), episodes(state="quat_wxyz"))
    assert is_contradicted(facts["eef_rotation_form"])


def test_four_values_that_are_no_quaternion_are_contradicted() -> None:
    def stretched(_: int, p: np.ndarray, R: Rotation) -> dict[str, np.ndarray]:
        return {"state": np.concatenate([p, 1.5 * R.as_quat()], axis=1)}

    facts = probed(entry(eef={"form": "quat_xyzw"}), episodes(more=stretched))
    assert is_contradicted(facts["eef_rotation_form"])
    assert "norm error 0.5" in facts["eef_rotation_form"].source


@pytest.mark.parametrize("truth", ["euler_xyz_extrinsic", "euler_xyz_intrinsic", "rotvec"])
def test_three_rotation_numbers_are_told_apart(truth: str) -> None:
    candidates = ("euler_xyz_extrinsic", "euler_xyz_intrinsic", "rotvec")
    claim = entry(eef={"form": None, "candidates": candidates})
    fact = probed(claim, episodes(state=truth))["eef_rotation_form"]
    assert (fact.value, fact.certainty) == (truth, Certainty.VERIFIED)


def test_rotation_forms_of_a_hand_that_hardly_turns_are_undecided() -> None:
    claim = entry(eef={"form": None, "candidates": ("euler_xyz_extrinsic", "euler_xyz_intrinsic")})
    fact = probed(claim, episodes(turn=0.02))["eef_rotation_form"]
    assert fact.certainty is Certainty.UNKNOWN


@pytest.mark.parametrize("truth", ["quat_xyzw", "quat_wxyz"])
def test_a_copy_of_the_rotation_settles_the_order(truth: str) -> None:
    def copy(_: int, p: np.ndarray, R: Rotation) -> dict[str, np.ndarray]:
        T4 = np.tile(np.eye(4), (T, 1, 1))
        T4[:, :3, :3], T4[:, :3, 3] = R.as_matrix(), p
        return {"copy": np.swapaxes(T4, 1, 2).reshape(T, 16)}

    matrices = {
        "slot": {"key": "copy"},
        "candidates": ("matrix4x4_row_major", "matrix4x4_col_major"),
    }
    claim = entry(
        eef={"form": None, "candidates": ("quat_xyzw", "quat_wxyz"), "copy_of_rotation": matrices}
    )
    fact = probed(claim, episodes(state=truth, kind="nothing", more=copy))["eef_rotation_form"]
    assert (fact.value, fact.certainty) == (truth, Certainty.VERIFIED)
    assert "copy of the rotation" in fact.source


@pytest.mark.parametrize("truth", ["matrix4x4_row_major", "matrix4x4_col_major"])
@pytest.mark.parametrize("claimed", [None, "matrix4x4_col_major"])
def test_matrix_order_by_its_last_row(truth: str, claimed: str | None) -> None:
    def matrices(_: int, p: np.ndarray, R: Rotation) -> dict[str, np.ndarray]:
        T4 = np.tile(np.eye(4), (T, 1, 1))
        T4[:, :3, :3], T4[:, :3, 3] = R.as_matrix(), p
        T4 = T4 if truth == "matrix4x4_row_major" else np.swapaxes(T4, 1, 2)
        return {"state": T4.reshape(T, 16)}

    orders = ("matrix4x4_row_major", "matrix4x4_col_major")
    claim = entry(
        eef={"position": None, "rotation": {"key": "state"}, "form": claimed, "candidates": orders}
    )
    facts = probed(claim, episodes(more=matrices))
    if claimed in (None, truth):
        assert facts["eef_rotation_form"].value == truth
        assert (
            facts["action_kind"].certainty is Certainty.VERIFIED
        )  # positions came out of the matrix
    else:
        assert is_contradicted(facts["eef_rotation_form"])


def test_degrees_and_turning_the_other_way_are_contradicted() -> None:
    facts = probed(entry(), episodes(turn_unit=180 / np.pi))
    assert is_contradicted(facts["action_rotation_form"])
    facts = probed(entry(), episodes(turn_unit=-1.0))
    assert is_contradicted(facts["action_rotation_form"])


def test_delta_forms_that_hardly_differ_count_as_one() -> None:
    orders = ("euler_xyz_extrinsic", "euler_xyz_intrinsic")
    unstated = {"form": None, "candidates": orders, "form_certainty": "unverified"}
    fact = probed(entry(command=unstated), episodes())["action_rotation_form"]
    assert fact.value == "euler_xyz_extrinsic"
    assert fact.certainty is Certainty.VERIFIED


def test_absolute_rotation_form_by_the_next_state() -> None:
    claim = entry(
        eef={"form": "rotvec"},
        command={
            "kind": "eef_absolute",
            "form": None,
            "candidates": ("quat_xyzw", "quat_wxyz"),
            "form_certainty": "unverified",
        },
    )
    found = episodes(state="rotvec", action="quat_wxyz", kind="absolute")
    fact = probed(claim, found)["action_rotation_form"]
    assert (fact.value, fact.certainty) == ("quat_wxyz", Certainty.VERIFIED)


def test_gripper_claims_that_oppose_each_other_are_both_unknown() -> None:
    facts = probed(entry(), episodes(grip_sign=-1))
    assert is_contradicted(facts["gripper_command"])
    assert is_contradicted(facts["gripper_state_range"])
    assert "-1.00" in facts["gripper_command"].source


@pytest.mark.parametrize(("sign", "op"), [(1, "identity"), (-1, "invert")])
def test_a_known_state_settles_the_command(sign: int, op: str) -> None:
    claim = entry(command={"gripper_op": "unverified", "gripper_certainty": "unverified"})
    fact = probed(claim, episodes(grip_sign=sign))["gripper_command"]
    assert (fact.value, fact.certainty) == (op, Certainty.VERIFIED)


@pytest.mark.parametrize(("sign", "limits"), [(1, "open 1 closed 0"), (-1, "open 0 closed 1")])
def test_a_known_command_settles_the_state(sign: int, limits: str) -> None:
    claim = entry(gripper={"open_value": None, "closed_value": None, "certainty": "unknown"})
    fact = probed(claim, episodes(grip_sign=sign))["gripper_state_range"]
    assert (fact.value, fact.certainty) == (limits, Certainty.VERIFIED)


def test_two_unknown_polarities_stay_unknown() -> None:
    claim = entry(
        gripper={"open_value": None, "closed_value": None, "certainty": "unknown"},
        command={"gripper_op": "unverified", "gripper_certainty": "unverified"},
    )
    facts = probed(claim, episodes())
    assert facts["gripper_command"].value == facts["gripper_state_range"].value == UNSTATED
    assert facts["gripper_state_range"].certainty is Certainty.UNKNOWN


def test_a_gripper_width_outside_its_claimed_range_is_contradicted() -> None:
    claim = entry(gripper={"open_value": 0.08, "closed_value": 0.0})
    assert is_contradicted(probed(claim, episodes())["gripper_state_range"])


def test_millimetres_are_not_metres() -> None:
    fact = probed(entry(), episodes(unit=1000.0, action_unit=1000.0))["eef_position_unit"]
    assert is_contradicted(fact)


def test_an_impossible_speed_contradicts_the_rate() -> None:
    facts = probed(entry(), episodes(), rate=Fraction(500))
    assert is_contradicted(facts["rate_hz"])
    assert facts["eef_position_unit"].certainty is Certainty.INFERRED


def pictures(*, flip_right: bool) -> Iterator[Steps]:
    """Two cameras that see much the same coloured things; the right one may have red and blue exchanged."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        scene = np.full((32, 32, 3), (200, 120, 60), np.uint8)
        scene[4:12, rng.integers(20) :][:, :8] = (220, 40, 30)
        right = np.roll(scene, 5, axis=1)
        frames = [jpeg(scene)] * 3, [jpeg(right[..., ::-1] if flip_right else right)] * 3
        yield from_arrays({"left_cam": frames[0], "right_cam": frames[1]})


@pytest.mark.parametrize("is_bgr", [False, True])
@pytest.mark.parametrize("flip_right", [False, True])
def test_two_cameras_that_disagree_about_red(*, flip_right: bool, is_bgr: bool) -> None:
    claim = entry()
    left, right = claim.cameras
    cameras = (left, right.model_copy(update={"is_bgr": is_bgr}))
    facts = probed(claim.model_copy(update={"cameras": cameras}), pictures(flip_right=flip_right))
    for name in ("channel_order.left_cam", "channel_order.right_cam"):
        assert is_contradicted(facts[name]) == (flip_right != is_bgr)
        assert not facts[name].is_for_actions


@pytest.mark.parametrize("truth", ["state", "eef"])
def test_a_stored_base_is_divided_out_before_comparing(truth: str) -> None:
    """The state is in a world in which the base is turned and away; the action is in the base's (or the eef's) axes."""
    R_base = Rotation.from_euler("xyz", [0.3, -0.2, 1.9])

    def in_world(_: int, p: np.ndarray, R: Rotation) -> dict[str, np.ndarray]:
        origin = np.array([0.5, 0.2, -0.1])
        world = origin + R_base.apply(p)
        base = np.tile(np.concatenate([origin, R_base.as_rotvec()]), (T, 1))
        state = np.concatenate([world, (R_base * R).as_euler("xyz")], axis=1)
        return {"state": state, "copy": base}

    base = {
        "position": {"key": "copy", "stop": 3},
        "rotation": {"key": "copy", "start": 3},
        "form": "rotvec",
    }
    claim = entry(eef={"base": base}, command={"frame": None})
    facts = probed(claim, episodes(frame=truth, more=in_world))
    assert (facts["action_frame"].value, facts["action_frame"].certainty) == (
        truth,
        Certainty.VERIFIED,
    )
    assert facts["action_kind"].certainty is Certainty.VERIFIED
    assert facts["action_rotation_form"].certainty is Certainty.VERIFIED


def test_an_unreadable_episode_is_left_out_of_the_measurement() -> None:
    def torn() -> Iterator[Steps]:
        yield from_arrays({"state": np.ones((T, 2)), "grip": np.ones(T), "action": np.ones((T, 7))})
        yield from episodes()

    assert probed(entry(), torn())["action_kind"].certainty is Certainty.VERIFIED


def test_no_episode_at_all_changes_nothing() -> None:
    claim = entry()
    assert probe(claim, claims(claim, KEYS), [], RATE) == claims(claim, KEYS)
