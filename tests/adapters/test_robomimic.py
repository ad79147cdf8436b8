"""robomimic and LIBERO: known values from the scene, each known defect, real replayed demonstrations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from adapters.robomimic.adapter import Robomimic
from ingest.video.images import array_images
from jobs.demo.raw.scene import Scene
from schemas.embodiment import embodiment_for
from schemas.episode import ArrayFrames, Episode
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact
from schemas.supervision import Task, allowed_tasks
from tests.adapters.episode_parts import refs_of, values
from tests.generators import robomimic as generator

ADAPTER = Robomimic()
SMALL = Scene(seed=1, duration_s=0.5, width=32, height=24)  # 10 rows


def one(root: Path, scene: Scene = SMALL, **env: Any) -> Path:
    path = root / "a.hdf5"
    world = {**generator.ENV, "env_kwargs": {**generator.ENV["env_kwargs"], **env}}  # type: ignore[dict-item]
    with generator.robomimic_file(path, world) as file:
        generator.add_demo(file, "demo_0", scene)
    return path


def load(root: Path, **options: str) -> Episode:
    (ref,) = refs_of(ADAPTER, root, **options)
    assert ref.problem is None, ref.problem
    return ADAPTER.load(ref)


def fact_of(episode: Episode, name: str) -> Fact:
    return next(f for f in episode.facts if f.name == name)


def test_discovery_is_in_numeric_order_and_counts_broken_files(tmp_path: Path) -> None:
    written = generator.write(tmp_path)
    (tmp_path / "z.hdf5").write_bytes(b"no hdf5")
    refs = refs_of(ADAPTER, tmp_path)
    libero = "libero_goal/KITCHEN_SCENE2_open_the_drawer_demo/demo_0"
    assert [r.episode_id for r in refs] == [libero, "lift/image/demo_2", "lift/image/demo_10", "z"]
    assert set(written.scenes) == {r.episode_id for r in refs[:-1]}
    assert refs[-1].problem is not None
    assert refs[-1].problem[0] == "unreadable"
    facts = {f.name: f.value for f in ADAPTER.load(refs[1]).facts}
    assert facts["filter_keys"] == "better,train"


@pytest.mark.parametrize("index", [0, 1])
def test_poses_and_grippers_are_those_of_the_scene(tmp_path: Path, index: int) -> None:
    written = generator.write(tmp_path)
    ref = refs_of(ADAPTER, tmp_path)[index]
    scene, episode = written.scenes[ref.episode_id], ADAPTER.load(ref)
    pose = episode.stream("left.T_base_eef")
    assert pose is not None
    # LIBERO's rows are seen after their action, so its first one is at 50 ms
    assert pose.t_ns[0] == (50_000_000 if index == 0 else 0)
    T_src_hand = embodiment_for(episode.embodiment).arms["left"].T_src_hand
    truth = [scene.T_base_hand(t / 1e9) for t in pose.t_ns]
    np.testing.assert_allclose(pose.values @ T_src_hand, truth, atol=1e-9)
    opening = [[scene.gripper_opening(t / 1e9)] for t in pose.t_ns]
    np.testing.assert_allclose(values(episode, "left.gripper_opening"), opening, atol=1e-9)
    raw, told = episode.stream("raw_command"), episode.stream("command.left.gripper_opening")
    assert raw is not None
    assert told is not None
    assert (raw.t_ns[0], told.t_ns[0]) == (0, 50_000_000)
    assert raw.spec.names[0] == "robot0_dx"
    np.testing.assert_array_equal(told.values[:, 0], raw.values[:, 6] < 0)
    assert episode.success is True
    assert episode.instructions[0].text == ("open the drawer" if index == 0 else "Lift")
    assert episode.licence.name == ("CC BY 4.0" if index == 0 else "unknown")
    tasks, why = allowed_tasks(facts=episode.facts, has_camera=True, action_coverage=1.0)
    assert Task.POLICY in tasks, why
    (camera,) = episode.cameras
    assert camera.name == "agentview"
    assert isinstance(camera.frames, ArrayFrames)
    (frame,) = array_images(camera.frames, [2])
    np.testing.assert_array_equal(
        frame.to_ndarray(format="rgb24"), scene.picture(pose.t_ns[2] / 1e9)
    )


def test_quaternion_order_and_gripper_by_hand(tmp_path: Path) -> None:
    path = one(tmp_path)
    with h5py.File(path, "r+") as file:
        demo = file["data/demo_0"]
        demo["obs/robot0_eef_quat"][0] = [
            0,
            0,
            np.sqrt(0.5),
            np.sqrt(0.5),
        ]  # 90 degrees about z, w last
        demo["obs/robot0_eef_pos"][0] = [0.1, 0.2, 0.3]
        demo["obs/robot0_gripper_qpos"][:2] = [[0.01, -0.03], [0.05, -0.05]]
        demo["actions"][:4, 6] = [0, 1, 0, -1]
    episode = load(tmp_path)
    expected = [[0, -1, 0, 0.1], [1, 0, 0, 0.2], [0, 0, 1, 0.3], [0, 0, 0, 1]]
    np.testing.assert_allclose(values(episode, "left.T_base_eef")[0], expected, atol=1e-12)
    np.testing.assert_allclose(values(episode, "left.gripper_opening")[:2, 0], [0.5, 1.0])
    told = episode.stream("command.left.gripper_opening")
    assert told is not None
    assert told.valid[:4].tolist() == [False, True, True, True]  # nothing was told before row 1
    assert told.values[1:4, 0].tolist() == [0, 0, 1]  # a zero leaves the target where it was


def test_two_robots_are_two_sides(tmp_path: Path) -> None:
    scene = Scene(seed=2, duration_s=0.5, sides=("left", "right"), width=32, height=24)
    one(tmp_path, scene, robots=["Panda", "Panda"])
    episode = load(tmp_path)
    assert episode.embodiment == "robosuite_two_panda_body"
    arms = embodiment_for(episode.embodiment).arms
    for side in scene.sides:
        T = values(episode, f"{side}.T_base_eef")[4] @ arms[side].T_src_hand
        np.testing.assert_allclose(T, scene.T_base_hand(0.2, side), atol=1e-9)
    assert values(episode, "raw_command").shape == (10, 14)
    assert values(episode, "joint_position_rad").shape == (10, 14)


def test_a_robot_we_do_not_know_keeps_its_frames_unknown(tmp_path: Path) -> None:
    one(tmp_path, robots="UR5e", reward_shaping=True)
    episode = load(tmp_path, instruction="Lift the cube.")
    assert episode.embodiment == "robosuite_ur5e"
    assert embodiment_for(episode.embodiment).arms["left"].T_src_hand is None
    assert episode.stream("left.gripper_opening") is None
    assert episode.success is None  # a shaped reward is no verdict
    assert episode.instructions[0].text == "Lift the cube."


def test_joint_6_is_taken_over_the_turn(tmp_path: Path) -> None:
    """A Panda's joint 6 goes to 3.75 rad; sine and cosine alone would give -2.53."""
    path = one(tmp_path)
    with h5py.File(path, "r+") as file:
        obs = file["data/demo_0/obs"]
        del obs["robot0_joint_pos"]
        angles = np.tile([0.1, -0.2, 0.3, -2.9, 0.5, 3.75, -2.8], (10, 1))
        obs["robot0_joint_pos_sin"], obs["robot0_joint_pos_cos"] = np.sin(angles), np.cos(angles)
    np.testing.assert_allclose(values(load(tmp_path), "joint_position_rad"), angles)


def test_a_libero_file_that_was_rendered_again(tmp_path: Path) -> None:
    path = tmp_path / "KITCHEN_SCENE2_open_the_drawer_demo.hdf5"
    with generator.libero_file(path, is_original=False) as file:
        generator.add_libero_demo(file, "demo_0", SMALL)
    episode = load(tmp_path)
    assert episode.instructions[0].text == "open the drawer"
    assert fact_of(episode, "row_timing").certainty is Certainty.UNVERIFIED
    assert episode.stream("left.T_base_eef").t_ns[0] == 0  # type: ignore[union-attr]
    assert episode.embodiment == "robosuite_panda_body"


def _replace(key: str, value: Any) -> Callable[[h5py.Group], None]:
    def change(demo: h5py.Group) -> None:
        del demo[key]
        demo[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_replace("obs", np.zeros(3)), Code.UNKNOWN_LAYOUT),  # a raw robosuite file: states only
        (_replace("actions", np.zeros((9, 7))), Code.SHAPE_MISMATCH),
        (_replace("actions", np.zeros((0, 7))), Code.EMPTY_EPISODE),
        (_replace("obs/robot0_eef_quat", np.zeros((10, 4))), Code.NOT_A_ROTATION),
        (_replace("obs/robot0_eef_pos", np.full((10, 3), np.inf)), Code.NOT_FINITE),
        (_replace("obs/agentview_image", np.zeros((9, 4, 4, 3), np.uint8)), Code.FRAME_COUNT),
        (lambda demo: demo.attrs.__setitem__("num_samples", 11), Code.FRAME_COUNT),
        (lambda demo: demo.parent.attrs.__setitem__("env_args", "{"), Code.BAD_ANNOTATION),
    ],
)
def test_defects(tmp_path: Path, change: Callable[[h5py.Group], None], code: Code) -> None:
    with h5py.File(one(tmp_path), "r+") as file:
        change(file["data/demo_0"])
    with pytest.raises(SourceError) as caught:
        load(tmp_path)
    assert caught.value.code is code, str(caught.value)


@pytest.mark.real
def test_real_demonstrations(samples: Path) -> None:
    refs = {r.episode_id: r for r in refs_of(ADAPTER, samples / "robomimic_playback")}
    assert len(refs) == 10
    failed = ADAPTER.load(refs["handover_two_panda_low_dim/demo_6"])
    assert failed.success is False  # it ended without the hammer being handed over
    assert ADAPTER.load(refs["handover_two_panda_low_dim/demo_0"]).success is True
    lift = ADAPTER.load(refs["lift_panda_low_dim/demo_0"])
    T_hand = (
        values(lift, "left.T_base_eef") @ embodiment_for(lift.embodiment).arms["left"].T_src_hand
    )
    # The gripper hangs down: fingers (x) point to the floor, y stays level, z points away from the robot.
    assert T_hand[0, 2, 0] < -0.95
    assert abs(T_hand[0, 2, 1]) < 0.1
    assert T_hand[0, 0, 2] > 0.95
    joint6 = values(failed, "joint_position_rad")[:, 5]
    assert np.abs(np.diff(joint6)).max() < 0.5
