"""AgiBot World: known values from the scene, every known defect with its code, real arrays and real defect lists."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jobs.demo.raw import agibot_world as generator
from jobs.demo.raw.scene import Scene
from schemas.embodiment import embodiment_for
from schemas.episode import Episode
from schemas.errors import Code, ConfigError
from schemas.fact import Certainty
from schemas.supervision import Task, allowed_tasks
from tests.adapters.agibot_cases import ADAPTER, SIDES, fact_of, fails, load, one, refs_of
from tests.adapters.episode_parts import values
from tests.pickling import travelled


def test_discovery_is_in_numeric_order_and_picklable(tmp_path: Path) -> None:
    written = generator.write(tmp_path)
    for episode in (9, 10):
        generator.list_episode(tmp_path, 1001, episode)
    refs = refs_of(tmp_path)
    ids = ["327/648642", "327/648649", "352/9544", "1001/9", "1001/10"]
    assert [r.episode_id for r in refs] == ids
    assert [r.problem and r.problem[0] for r in refs] == [None] * 3 + ["missing_file"] * 2
    assert set(written.scenes) == {r.episode_id for r in refs if r.problem is None}
    assert travelled(refs) == refs == refs_of(tmp_path)


@pytest.mark.parametrize(("effector", "tcp_m"), [("beta", 0.23), ("omnipicker", 0.15)])
def test_poses_and_grippers_are_those_of_the_scene(
    tmp_path: Path, effector: str, tcp_m: float
) -> None:
    scene = Scene(seed=1, sides=SIDES, width=160, height=120)
    generator.write_episode(tmp_path, 327, 7, scene=scene, effector=effector)
    episode = load(tmp_path)
    assert episode.embodiment == {"beta": "agibot_g1_gripper"}.get(effector, "agibot_g1_omnipicker")
    left = episode.stream("left.T_base_eef")
    assert left is not None
    np.testing.assert_array_equal(left.t_ns[[0, 1, 3]], [0, 33_333_333, 100_000_000])
    arms = embodiment_for(episode.embodiment).arms
    assert arms["left"].tcp_xyz_src_m == (0, 0, tcp_m)
    for side in SIDES:
        T_hand = values(episode, f"{side}.T_base_eef") @ arms[side].T_src_hand
        truth = np.array([scene.T_base_hand(t / 1e9, side) for t in left.t_ns])
        np.testing.assert_allclose(T_hand, truth, atol=1e-9)
        opening = [[scene.gripper_opening(t / 1e9)] for t in left.t_ns]
        np.testing.assert_allclose(values(episode, f"{side}.gripper_opening"), opening, atol=1e-9)
    joints = episode.stream("joint_position_rad")
    assert joints is not None
    np.testing.assert_allclose(joints.values[3], 0.5 * np.sin(0.1 + np.arange(14)))
    assert joints.spec.names[0] == "left_arm_joint1"
    assert joints.spec.names[7] == "right_arm_joint1"


def test_quaternion_order_and_side_by_hand(tmp_path: Path) -> None:
    """A quarter turn about z is (0, 0, sin 45°, cos 45°) in xyzw: x of link7 then points along y of the base."""
    h5, _ = one(tmp_path)
    xyz, quat = np.zeros((15, 2, 3)), np.tile([0.0, 0, 0, 1], (15, 2, 1))
    xyz[:, 1] = [0.1, 0.2, 0.3]
    quat[:, 1] = [0, 0, np.sqrt(0.5), np.sqrt(0.5)]
    grip = np.tile([35.0, 77.5], (15, 1))  # left open, right half way of 35 .. 120
    generator.replace(
        h5, state__end__position=xyz, state__end__orientation=quat, state__effector__position=grip
    )
    episode = load(tmp_path)
    np.testing.assert_array_equal(values(episode, "left.T_base_eef")[0], np.eye(4))
    expected = [[0, -1, 0, 0.1], [1, 0, 0, 0.2], [0, 0, 1, 0.3], [0, 0, 0, 1]]
    np.testing.assert_allclose(values(episode, "right.T_base_eef")[0], expected, atol=1e-12)
    assert values(episode, "left.gripper_opening")[0] == 1.0
    assert values(episode, "right.gripper_opening")[0] == pytest.approx(0.5)


def test_beta_has_no_command_but_keeps_the_raw_one(tmp_path: Path) -> None:
    one(tmp_path)
    episode = load(tmp_path)
    assert not [s.name for s in episode.streams if s.name.startswith("command.")]
    assert fact_of(episode, "action_source.end").startswith("achieved: action rows equal")
    raw = episode.stream("raw_command")
    assert raw is not None
    assert raw.spec.shape == (30,)
    assert raw.spec.names[14:17] == ("left_effector1", "right_effector1", "left_link7_x")
    xyz = values(episode, "right.T_base_eef")[:, :3, 3]
    np.testing.assert_array_equal(raw.values[:, 23:26], xyz)
    np.testing.assert_array_equal(raw.values[:, :14], values(episode, "joint_position_rad"))
    assert raw.values[0, 14:16].tolist() == [35.0, 35.0]
    settled = [*episode.facts, *(f for a in ("left", "right") for f in _arm_facts(episode, a))]
    tasks, why = allowed_tasks(facts=settled, has_camera=True, action_coverage=1.0)
    assert Task.POLICY in tasks, why


def _arm_facts(episode: Episode, side: str) -> tuple[object, ...]:
    return embodiment_for(episode.embodiment).arms[side].facts(side)


def test_commands_are_due_one_period_later(tmp_path: Path) -> None:
    _, scene = one(tmp_path, commands=True)
    episode = load(tmp_path)
    command = episode.stream("command.right.T_base_eef")
    grip = episode.stream("command.left.gripper_opening")
    raw = episode.stream("raw_command")
    assert command is not None
    assert grip is not None
    assert raw is not None
    assert command.t_ns[0] == 33_333_333
    assert raw.t_ns[0] == 0
    T_src_hand = embodiment_for(episode.embodiment).arms["right"].T_src_hand
    for t_ns, T in zip(command.t_ns, command.values @ T_src_hand, strict=True):
        # The generator commands the scene one period ahead, so at the due time it is the truth.
        np.testing.assert_allclose(T, scene.T_base_hand(t_ns / 1e9, "right"), atol=1e-7)
    opening = [[scene.gripper_opening(t / 1e9)] for t in grip.t_ns]
    np.testing.assert_allclose(grip.values, opening, atol=1e-7)
    assert fact_of(episode, "action_source.end") == "commanded"


def test_one_group_may_be_commanded_alone(tmp_path: Path) -> None:
    h5, _ = one(tmp_path)
    generator.replace(h5, action__effector__position=np.tile([0.25, 1.0113], (15, 1)))
    episode = load(tmp_path)
    assert values(episode, "command.left.gripper_opening")[0] == 0.75
    assert values(episode, "command.right.gripper_opening")[0] == 0.0  # real commands overshoot 1
    assert episode.stream("command.left.T_base_eef") is None


def test_short_action_is_completed_from_the_next_state(tmp_path: Path) -> None:
    h5, _ = one(tmp_path)
    with h5py.File(h5) as file:
        xyz, quat = file["state/end/position"][()], file["state/end/orientation"][()]
    at = np.array([2, 5, 11])
    empty = np.zeros(0, np.int64)
    generator.replace(
        h5,
        action__end__position=xyz[at] + 1.0,
        action__end__orientation=quat[at],
        action__end__index=empty,  # AgiBot lost it: the joint index stands in
        action__joint__index=at,
        action__effector__position=np.ones((3, 2)),
        action__effector__index=at,
    )
    episode = load(tmp_path)
    following = np.concatenate([xyz[1:, 0], xyz[-1:, 0]])
    following[at] = xyz[at, 0]
    moved = values(episode, "command.left.T_base_eef")[:, :3, 3] - following
    expected = np.isin(np.arange(15), at).astype(float)[:, None] * np.ones(3)
    np.testing.assert_allclose(moved, expected, atol=1e-12)
    grip = values(episode, "command.left.gripper_opening")[:, 0]
    state = values(episode, "left.gripper_opening")[:, 0]
    coming = np.concatenate([state[1:], state[-1:]])
    np.testing.assert_array_equal(grip, np.where(np.isin(np.arange(15), at), 0.0, coming))
    commanded = episode.stream("command.left.T_base_eef")
    assert commanded is not None
    assert commanded.valid.tolist() == [True] * 14 + [False]  # nothing comes after the last row
    assert fact_of(episode, "action_source.end") == "commanded in 3 of 15 rows, else the next state"


def test_dexterous_hand(tmp_path: Path) -> None:
    one(tmp_path, effector="hand")
    episode = load(tmp_path)
    assert episode.embodiment == "agibot_g1_dexhand"
    t_s = 3 / 30
    np.testing.assert_allclose(
        values(episode, "left.hand_joints_rad")[3], np.sin(t_s + 0.1 * np.arange(6))
    )
    np.testing.assert_allclose(
        values(episode, "right.hand_joints_rad")[3], np.sin(t_s + 0.1 * np.arange(6, 12))
    )
    assert episode.stream("left.gripper_opening") is None
    assert episode.stream("command.left.hand_joints_rad") is None  # the action repeats the state
    tasks, _ = allowed_tasks(facts=episode.facts, has_camera=True, action_coverage=1.0)
    assert Task.POLICY not in tasks
    assert Task.FORWARD_DYNAMICS in tasks


def test_gripper_of_no_known_scale_is_left_out(tmp_path: Path) -> None:
    h5, _ = one(tmp_path)
    generator.replace(h5, state__effector__position=np.full((15, 2), 900.0))
    episode = load(tmp_path)
    assert episode.stream("left.gripper_opening") is None
    scale = next(f for f in episode.facts if f.name == "gripper_scale")
    assert scale.certainty is Certainty.UNKNOWN
    assert scale.is_for_actions


@pytest.mark.parametrize("nested", [False, True])
def test_cameras(tmp_path: Path, nested: bool) -> None:
    _, scene = one(tmp_path, nested_parameters=nested)
    episode = load(tmp_path)
    assert [c.name for c in episode.cameras] == ["hand_left", "head"]
    head = episode.cameras[1]
    assert head.K_cam is not None
    np.testing.assert_allclose(head.K_cam, scene.K_cam)
    assert head.K_size == (160, 120)
    assert head.t_ns is not None
    assert head.t_ns[-1] == 466_666_667
    np.testing.assert_allclose(values(episode, "T_base_cam.head")[14], scene.T_base_cam)
    ride = np.linalg.inv(values(episode, "left.T_base_eef")) @ values(
        episode, "T_base_cam.hand_left"
    )
    np.testing.assert_allclose(ride, np.tile(generator.T_LINK7_HANDCAM, (15, 1, 1)), atol=1e-9)
    assert "hand_right" in fact_of(episode, "cameras")
    names = [f.path for f in episode.raw_files]
    assert names[:2] == ["proprio_stats/327/7/proprio_stats.h5", "task_info/task_327.json"]
    assert len(names) == 2 + 2 * 3


def test_calibration_that_is_wrong_is_left_out_with_a_fact(tmp_path: Path) -> None:
    one(tmp_path, num_extra_T_base_cam=1)
    folder = tmp_path / "parameters/327/7/camera"
    (folder / "head_intrinsic_params.json").write_text('{"intrinsic": {"fx": 300}}')
    (folder / "hand_left_intrinsic_params.json").write_text(
        '{"intrinsic": {"fx": 300, "fy": 301, "cx": 80, "cy": 60}}'
    )
    (folder / "hand_left_extrinsic_params_aligned.json").unlink()
    episode = load(tmp_path)
    hand, head = episode.cameras
    assert head.K_cam is None
    assert hand.K_cam is not None
    assert hand.K_cam.tolist() == [[300, 0, 80], [0, 301, 60], [0, 0, 1]]
    assert "16 extrinsics for 15 rows" in fact_of(episode, "T_base_cam.head")
    assert "missing_meta" in fact_of(episode, "T_base_cam.hand_left")
    assert not [s for s in episode.streams if s.name.startswith("T_base_cam")]


def test_fisheyes_have_no_pinhole(tmp_path: Path) -> None:
    one(tmp_path, cameras=("head", "head_left_fisheye"))
    episode = load(tmp_path)
    assert [c.K_cam is None for c in episode.cameras] == [False, True]
    assert episode.stream("T_base_cam.head_left_fisheye") is not None


@pytest.mark.parametrize(
    ("steps", "spans"),
    [
        (((0, 5, "A"), (5, 15, "B")), [("A", 0, 166_666_667), ("B", 166_666_667, None)]),
        (((3, 99, "A"),), [("A", 100_000_000, None)]),  # cut
        (((-2, 3, "A"), (15, 20, "B"), (4, 4, "C"), (5, 6, " ")), [("A", 0, 100_000_000)]),
        (((0, 6, "A"), (3, 15, "B")), [("A", 0, 200_000_000), ("B", 100_000_000, None)]),
    ],
)
def test_steps(
    tmp_path: Path,
    steps: tuple[tuple[int, int, str], ...],
    spans: list[tuple[str, int, int | None]],
) -> None:
    one(tmp_path, steps=steps)
    episode = load(tmp_path)
    task, *subtasks = episode.instructions
    assert (task.text, task.kind, task.start_ns, task.end_ns) == (
        "Pick up the box",
        "task",
        0,
        None,
    )
    assert [(s.text, s.start_ns, s.end_ns) for s in subtasks] == spans
    assert {s.kind for s in subtasks} == {"subtask"}
    has_faults = any(f.name == "subtask_faults" for f in episode.facts)
    assert has_faults == (steps[0] != (0, 5, "A"))


def test_reversed_step_english_text_and_key_frame(tmp_path: Path) -> None:
    one(tmp_path)
    path = tmp_path / "task_info/task_327.json"
    entries = json.loads(path.read_text())
    labels = entries[0]["label_info"]
    labels["key_frame"] = [{"start": 3, "end": 9, "comment": "Failure recovery"}]
    labels["action_config"][0]["english_action_text"] = "Reach in English."
    path.write_text(json.dumps(entries))
    episode = load(tmp_path)
    assert episode.instructions[1].text == "Reach in English."
    assert "Failure recovery" in fact_of(episode, "key_frame")
    labels["action_config"][0]["start_frame"] = 6
    path.write_text(json.dumps(entries))
    assert fails(tmp_path).code is Code.BAD_ANNOTATION


def test_survey_and_options(tmp_path: Path) -> None:
    generator.write(tmp_path / "set")
    info = ADAPTER.survey(tmp_path / "set", {})
    assert info.licence.licence_class == "non_commercial"
    assert info.notes[0] == "2 tasks"
    with pytest.raises(ConfigError, match="no defect list"):
        ADAPTER.survey(tmp_path / "set", {"defects": str(tmp_path)})
    (tmp_path / "a.jsonl").write_text('{"task": 3}\n')
    with pytest.raises(ConfigError, match=r"a\.jsonl:1"):
        ADAPTER.survey(tmp_path / "set", {"defects": str(tmp_path)})


@pytest.mark.real
def test_real_arrays_in_the_true_layout(samples: Path, tmp_path: Path) -> None:
    """Real joints, link7 poses, gripper readings and commands of a G1, put into the beta layout."""
    folder, num_rows = samples / "agibot_gesim_v2/demo_000", 456
    joints, act = np.load(folder / "state_joints_0.npy"), np.load(folder / "actions_0.npy")
    eef = np.load(folder / "state_eef_poses_0.npy").astype(float).reshape(num_rows, 2, 7)
    told = np.load(folder / "eef_poses_0.npy").astype(float).reshape(num_rows, 2, 7)
    K, T_cam = np.load(folder / "intrinsic.npy"), np.load(folder / "extrinsic_alignstate_0.npy")
    scene = Scene(duration_s=num_rows / 30, width=64, height=48)
    h5 = generator.write_episode(tmp_path, 1, 2, scene=scene, cameras=("head",), steps=())
    generator.replace(
        h5,
        state__joint__position=joints[:, :14].astype(float),
        state__end__position=eef[:, :, :3],
        state__end__orientation=_quat(eef),
        state__effector__position=joints[:, 14:16].astype(float),
        action__joint__position=np.delete(act, [7, 15], axis=1).astype(float),
        action__end__position=told[:, :, :3],
        action__end__orientation=_quat(told),
        action__effector__position=act[:, [7, 15]].astype(float),
    )
    params = tmp_path / "parameters/1/2/camera"
    aligned = [
        {
            "extrinsic": {
                "rotation_matrix": T[:3, :3].tolist(),
                "translation_vector": T[:3, 3].tolist(),
            }
        }
        for T in T_cam[0].astype(float)
    ]
    (params / "head_extrinsic_params_aligned.json").write_text(json.dumps(aligned))
    lens = {"fx": K[0, 0, 0], "fy": K[0, 1, 1], "ppx": K[0, 0, 2], "ppy": K[0, 1, 2]}
    text = json.dumps({"intrinsic": {k: float(v) for k, v in lens.items()}})
    (params / "head_intrinsic_params.json").write_text(text)

    episode = load(tmp_path)
    assert episode.embodiment == "agibot_g1_omnipicker"
    assert len(episode.streams[0].t_ns) == num_rows
    np.testing.assert_array_equal(values(episode, "joint_position_rad"), joints[:, :14])
    for k, side in enumerate(SIDES):
        T = values(episode, f"{side}.T_base_eef")
        rpy = Rotation.from_matrix(T[:, :3, :3]).as_euler("xyz")
        turn = np.abs(np.exp(1j * rpy) - np.exp(1j * eef[:, k, 3:6])).max()
        assert turn < 1e-6
        np.testing.assert_allclose(T[:, :3, 3], eef[:, k, :3], atol=1e-12)
        opening = 1 - np.clip(joints[:, 14 + k].astype(float) / 118, 0, 1)
        np.testing.assert_allclose(values(episode, f"{side}.gripper_opening")[:, 0], opening)
        command = values(episode, f"command.{side}.gripper_opening")[:, 0]
        np.testing.assert_allclose(command, 1 - np.clip(act[:, 7 + 8 * k], 0, 1), atol=1e-7)
        # The measured gripper follows the command: same sign, small lag.
        assert np.abs(command - opening).mean() < 0.1
        # z of the canonical hand (thumb side) points up on average, as on every real arm looked at.
        arm = embodiment_for(episode.embodiment).arms[side]
        assert arm.T_src_hand is not None
        assert (T @ arm.T_src_hand)[:, 2, 2].mean() > 0.2
    T_cam_link7 = np.linalg.inv(values(episode, "T_base_cam.head")) @ values(
        episode, "right.T_base_eef"
    )
    assert (T_cam_link7[:, 2, 3] > 0).all()  # the arm is in front of the head camera


def _quat(rows: np.ndarray) -> np.ndarray:
    rpy = rows[:, :, 3:6].reshape(-1, 3)
    return Rotation.from_euler("xyz", rpy).as_quat().reshape(len(rows), 2, 4)
