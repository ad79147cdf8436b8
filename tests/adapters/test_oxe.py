"""Open X-Embodiment: Bridge from its true bytes against the scene, other sets by hand, and every known defect by its code."""

from __future__ import annotations

import json
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from adapters.oxe.registry import oxe_set
from jobs.demo.raw import Written, oxe
from jobs.demo.raw.oxe import (
    BRIDGE,
    bridge_episode,
    episode_bytes,
    jpeg,
    shard_name,
    write_records,
    write_set,
)
from schemas.embodiment import embodiments
from schemas.episode import EncodedImages
from schemas.errors import Code
from schemas.fact import Certainty
from schemas.geometry import rotmat_from_euler, transform
from schemas.supervision import Task, allowed_tasks
from tests.adapters.oxe_cases import OXE, TINY, fact, load_all, refs_of, stream, tiny
from tests.pickling import travelled

# --- Bridge against the scene -------------------------------------------------------------------------------------------


def test_poses_and_grippers_are_those_of_the_scene(bridge: Written) -> None:
    assert len(refs_of(bridge.root)) == 3
    for episode in load_all(bridge.root):
        scene = bridge.scenes[episode.ref.episode_id]
        eef, opening = stream(episode, "left.T_base_eef"), stream(episode, "left.gripper_opening")
        assert eef.t_ns.tolist() == [k * 200_000_000 for k in range(21)]
        T_base_hand = eef.values @ transform(oxe.R_SRC_HAND, np.zeros(3))
        wanted = [scene.T_base_hand(t / 1e9) for t in eef.t_ns]
        assert T_base_hand == pytest.approx(np.stack(wanted), abs=2e-6)
        wanted = [scene.gripper_opening(t / 1e9) for t in eef.t_ns]
        assert opening.values[:, 0] == pytest.approx(wanted, abs=1e-6)


def test_the_constant_of_the_generator_is_the_registrys() -> None:
    convention = embodiments()["widowx_250"].arms["left"]
    assert np.array(convention.R_src_to_can).tolist() == oxe.R_SRC_HAND.tolist()


def test_commands_are_due_one_period_later_and_the_empty_ones_are_invalid(bridge: Written) -> None:
    for episode in load_all(bridge.root):
        scene = bridge.scenes[episode.ref.episode_id]
        target = stream(episode, "command.left.T_base_eef")
        assert target.t_ns.tolist() == [(k + 1) * 200_000_000 for k in range(21)]
        assert np.flatnonzero(~target.valid).tolist() == [0, 20]  # all zero; is_last
        hand = target.values @ transform(oxe.R_SRC_HAND, np.zeros(3))
        wanted = np.stack([scene.T_base_hand(t / 1e9) for t in target.t_ns])
        assert hand[target.valid] == pytest.approx(wanted[target.valid], abs=3e-6)
        gripper = stream(episode, "command.left.gripper_opening")
        assert set(gripper.values.ravel()) <= {0.0, 1.0}
        raw = stream(episode, "raw_command")
        assert raw.t_ns[0] == 0
        assert raw.spec.names[0] == "left.position.x"
        assert raw.spec.names[6] == "left.gripper"


def test_cameras_rate_text_and_identity(bridge: Written) -> None:
    ref, *_ = refs_of(bridge.root)
    episode = OXE.load(ref)
    assert [c.name for c in episode.cameras] == ["image_0", "image_1"]
    dummy = fact(episode, "camera_left_out.image_2")
    assert "one colour in every step (RGB (0, 0, 0), 1 distinct" in dummy.value
    assert not dummy.is_for_actions
    frames = episode.cameras[0].frames
    assert isinstance(frames, EncodedImages)
    assert not frames.is_bgr
    assert frames.images[3] == jpeg(bridge.scenes[ref.episode_id].picture(0.6))
    assert (episode.rate_hz, episode.embodiment) == (Fraction(5), "widowx_250")
    assert [i.text for i in episode.instructions] == [oxe.INSTRUCTION]
    assert episode.raw_files[0].path == "bridge_dataset-train.tfrecord-00000-of-00002@0"
    assert episode.raw_files[0].num_bytes == ref.bytes_hint
    assert travelled(ref) == ref


def test_bridge_may_teach_a_policy_only_because_the_probe_settled_it(bridge: Written) -> None:
    episode = OXE.load(refs_of(bridge.root)[0])
    tasks, reasons = allowed_tasks(facts=episode.facts, has_camera=True, action_coverage=1.0)
    assert Task.POLICY in tasks, reasons
    for name in ("action_kind.left", "action_rotation_form.left", "gripper_command.left"):
        assert fact(episode, name).certainty is Certainty.VERIFIED


def test_the_same_ref_gives_the_same_values(bridge: Written) -> None:
    ref = refs_of(bridge.root)[2]
    one, two = OXE.load(ref), OXE.load(ref)
    for a, b in zip(one.streams, two.streams, strict=True):
        assert a.values.tobytes() == b.values.tobytes()
    assert one.facts == two.facts
    assert one.raw_files == two.raw_files


def test_old_style_metadata_reads_the_same(tmp_path: Path, bridge: Written) -> None:
    scene = next(iter(bridge.scenes.values()))
    for old_style in (False, True):
        directory = tmp_path / str(old_style) / "bridge_dataset" / "1.0.0"
        write_set(directory, BRIDGE, [bridge_episode(scene)], old_style=old_style)
    new, old = (load_all(tmp_path / name)[0] for name in ("False", "True"))
    assert [s.name for s in old.streams] == [s.name for s in new.streams]
    assert old.raw_files[0].digest == new.raw_files[0].digest


# --- other sets, by hand ------------------------------------------------------------------------------------------------


def test_zlib_proprio_relative_gripper_and_success(tmp_path: Path) -> None:
    pose = ("observation", "clip_function_input/base_pose_tool_reached")
    spec = {
        pose: ("tensor", (7,), "float32", "zlib"),
        ("observation", "gripper_closed"): ("tensor", (1,), "float32", "zlib"),
        ("action", "world_vector"): ("tensor", (3,), "float32"),
        ("action", "rotation_delta"): ("tensor", (3,), "float32"),
        ("action", "gripper_closedness_action"): ("tensor", (1,), "float32"),
    }
    quat_z90 = [0, 0, np.sqrt(0.5), np.sqrt(0.5)]  # x y z w
    rows = [np.array([0.1, 0.2, 0.3 + 0.01 * k, *quat_z90], "<f4") for k in range(4)]
    episode = {
        pose: [zlib.compress(row.tobytes()) for row in rows],
        ("observation", "gripper_closed"): [
            zlib.compress(np.array([c], "<f4").tobytes()) for c in (0, 1, 1, 0)
        ],
        ("action", "world_vector"): np.tile([0, 0, 0.01], (4, 1)),
        ("action", "rotation_delta"): np.zeros((4, 3)),
        ("action", "gripper_closedness_action"): np.array([[1.0], [0], [-1], [0]]),
    }
    directory = write_set(tmp_path / "kuka" / "0.1.0", spec, [episode])
    features = json.loads((directory / "features.json").read_text())
    flag = {"tensor": {"shape": {}, "dtype": "bool"}}
    features["featuresDict"]["features"]["success"] = flag  # beside steps, for the whole episode
    (directory / "features.json").write_text(json.dumps(features))
    payload = episode_bytes(spec, episode, success=np.array([1]))
    write_records(directory / shard_name("kuka", "train", 0, 1), [payload])
    (loaded,) = load_all(tmp_path)
    assert loaded.success is True
    T = stream(loaded, "left.T_base_eef").values
    assert T[1] == pytest.approx(
        np.array([[0, -1, 0, 0.1], [1, 0, 0, 0.2], [0, 0, 1, 0.31], [0, 0, 0, 1.0]]), abs=1e-6
    )
    assert stream(loaded, "left.gripper_opening").values.ravel().tolist() == [1, 0, 0, 1]
    assert stream(loaded, "command.left.gripper_opening").values.ravel().tolist() == [0, 0, 1, 1]
    # nobody states the order of the Euler delta and four steps settle nothing: no commanded pose
    assert loaded.stream("command.left.T_base_eef") is None
    assert loaded.embodiment == "kuka_iiwa"


def test_column_major_matrix_width_gripper_and_joints(tmp_path: Path) -> None:
    T4 = transform(rotmat_from_euler([0, 0, np.pi / 2], "xyz"), [0.4, 0.1, 0.2])
    spec = {
        ("observation", "ee_states"): ("tensor", (16,), "float32"),
        ("observation", "joint_states"): ("tensor", (7,), "float32"),
        ("observation", "gripper_states"): ("tensor", (1,), "float32"),
    }
    episode = {
        ("observation", "ee_states"): np.tile(T4.T.ravel(), (3, 1)),
        ("observation", "joint_states"): np.tile(np.arange(7), (3, 1)),
        ("observation", "gripper_states"): np.array([[0.08], [0.02], [0.0]]),
    }
    write_set(tmp_path / "viola" / "0.1.0", spec, [episode])
    (loaded,) = load_all(tmp_path)
    assert stream(loaded, "left.T_base_eef").values[0] == pytest.approx(T4, abs=1e-6)
    opening = stream(loaded, "left.gripper_opening").values.ravel()
    assert opening == pytest.approx([1, 0.25, 0], abs=1e-6)
    assert stream(loaded, "joint_position_rad").values[0].tolist() == list(range(7))
    assert fact(loaded, "gripper_state_range.left").certainty is Certainty.INFERRED
    assert (
        fact(loaded, "action_kind.left").certainty is Certainty.UNKNOWN
    )  # no action leaf in this version


def test_absolute_cartesian_target_of_a_set_whose_action_is_a_velocity(tmp_path: Path) -> None:
    pose = np.array([0.5, 0, 0.3, 0, 0, np.pi / 2])
    spec = {
        ("observation", "cartesian_position"): ("tensor", (6,), "float64"),
        ("observation", "gripper_position"): ("tensor", (1,), "float64"),
        ("action_dict", "cartesian_position"): ("tensor", (6,), "float64"),
        ("action_dict", "gripper_position"): ("tensor", (1,), "float64"),
        ("action",): ("tensor", (7,), "float64"),
        ("language_instruction",): ("text",),
        ("language_instruction_2",): ("text",),
        ("language_instruction_3",): ("text",),
    }
    episode = {
        ("observation", "cartesian_position"): np.tile(pose, (3, 1)),
        ("observation", "gripper_position"): np.array([[0.0], [0.5], [1.0]]),
        ("action_dict", "cartesian_position"): np.tile(pose + np.eye(6)[0] / 100, (3, 1)),
        ("action_dict", "gripper_position"): np.array([[1.0], [1.0], [0.0]]),
        ("action",): np.zeros((3, 7)),
        ("language_instruction",): [b"lift it"] * 3,
        ("language_instruction_2",): [b"pick it up"] * 3,
        ("language_instruction_3",): [b""] * 3,
    }
    write_set(tmp_path / "droid" / "1.0.1", spec, [episode])
    (loaded,) = load_all(tmp_path)
    target = stream(loaded, "command.left.T_base_eef")
    wanted = transform([[0, -1, 0], [1, 0, 0], [0, 0, 1]], [0.51, 0, 0.3])
    assert target.values[0] == pytest.approx(wanted, abs=1e-6)
    assert stream(loaded, "left.gripper_opening").values.ravel().tolist() == [1, 0.5, 0]
    assert stream(loaded, "command.left.gripper_opening").values.ravel().tolist() == [0, 0, 1]
    assert [i.text for i in loaded.instructions] == ["lift it", "pick it up"]
    assert (loaded.embodiment, loaded.rate_hz) == ("droid_panda_robotiq", 15)


def test_code_points_and_a_two_dimensional_arm(tmp_path: Path) -> None:
    points = np.zeros((2, 512), int)
    points[:, :5] = [ord(c) for c in "schön"]
    spec = {
        ("observation", "effector_translation"): ("tensor", (2,), "float32"),
        ("observation", "instruction"): ("tensor", (512,), "int32"),
        ("action",): ("tensor", (2,), "float32"),
    }
    episode = {
        ("observation", "effector_translation"): np.ones((2, 2)),
        ("observation", "instruction"): points,
        ("action",): np.zeros((2, 2)),
    }
    write_set(tmp_path / "language_table" / "0.1.0", spec, [episode])
    (loaded,) = load_all(tmp_path)
    assert [i.text for i in loaded.instructions] == ["schön"]
    assert loaded.stream("left.T_base_eef") is None
    assert fact(loaded, "eef_rotation_form.left").certainty is Certainty.UNKNOWN
    assert stream(loaded, "source_state").values.shape == (2, 2)


def test_a_text_that_changes_on_the_way_is_a_subtask_each(tmp_path: Path) -> None:
    episode = tiny(5)
    episode[("language_instruction",)] = [b"reach", b"reach", b"", b"lift", b"lift"]
    write_set(tmp_path / "bridge_dataset" / "1.0.0", TINY, [episode])
    (loaded,) = load_all(tmp_path)
    found = [(i.text, i.start_ns, i.end_ns, i.kind) for i in loaded.instructions]
    assert found == [("reach", 0, 400_000_000, "subtask"), ("lift", 600_000_000, None, "subtask")]


def test_two_arms_and_blue_first_pictures(tmp_path: Path) -> None:
    spec = {
        ("observation", "pose_l"): ("tensor", (6,), "float32"),
        ("observation", "pose_r"): ("tensor", (6,), "float32"),
        ("action",): ("tensor", (14,), "float32"),
    }
    episode = {key: np.ones((3, leaf[1][0])) for key, leaf in spec.items()}
    write_set(
        tmp_path / "utokyo_xarm_bimanual_converted_externally_to_rlds" / "0.1.0", spec, [episode]
    )
    (loaded,) = load_all(tmp_path)
    assert stream(loaded, "raw_command").spec.names[7] == "right.position.x"
    assert [s.name for s in loaded.streams] == ["source_state", "raw_command"]
    assert stream(loaded, "source_state").values.shape == (3, 12)
    hydra = oxe_set("stanford_hydra_dataset_converted_externally_to_rlds")
    assert [c.is_bgr for c in hydra.cameras] == [True, True]
    flags = {c.name: c.is_bgr for c in oxe_set("berkeley_autolab_ur5").cameras}
    assert flags == {"hand_image": True, "image": False}


# --- real data ----------------------------------------------------------------------------------------------------------


@pytest.mark.real
def test_real_bridge_episodes(samples: Path) -> None:
    root = samples / "oxe_bridge_rlds"
    refs = refs_of(root)
    assert len(refs) == 26
    lost = refs.pop()
    assert lost.problem is not None
    assert lost.problem[0] == Code.MISSING_SHARD.value  # the val shard is not in the sample
    left_out = []
    for ref in refs:
        episode = OXE.load(ref)
        assert {len(s.t_ns) for s in episode.streams} == {10}
        assert all(np.isfinite(s.values).all() for s in episode.streams)
        assert not stream(episode, "command.left.T_base_eef").valid[0]
        left_out.append([f.name for f in episode.facts if f.name.startswith("camera_left_out")])
        assert 0 < len(episode.cameras) < 4
    assert all(left_out)
    assert fact(refs[0], "action_kind.left").value == "eef_delta"


@pytest.mark.real
def test_probe_of_real_bridge(samples: Path) -> None:
    facts = {f.name: f for f in OXE.survey(samples / "oxe_bridge_rlds", {}).facts}
    settled = {name: f.value for name, f in facts.items() if f.certainty is Certainty.VERIFIED}
    assert settled == {
        "eef_position_unit.left": "m",
        "gripper_state_range.left": "open 1 closed 0",
        "action_kind.left": "eef_delta",
        "action_rotation_form.left": "euler_xyz_extrinsic",
        "action_scale.left": "1 m",
        "gripper_command.left": "binarize",
    }
    assert "cosine 0.87 in state axes" in facts["action_kind.left"].source
    assert (
        "correlation of commanded opening and next state +0.84"
        in facts["gripper_command.left"].source
    )
    # 25 episodes of 10 steps are too few to tell the Euler orders, or base from eef axes, apart
    assert facts["eef_rotation_form.left"].certainty is Certainty.THIRD_PARTY
    assert facts["action_frame.left"].certainty is Certainty.CODE
