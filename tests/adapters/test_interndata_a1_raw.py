"""InternData-A1 raw: known values from the scene and by hand, each known defect. No real episode was at hand."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.containers.lmdb_store import check_lmdb, open_lmdb
from adapters.interndata_a1_raw.adapter import InternDataA1Raw
from adapters.interndata_a1_raw.motion import ROBOTS, T_robot_arm_of, robot_in
from ingest.recipe import VideoSettings
from ingest.video.camera_video import frame_clock, write_video
from jobs.demo.raw.scene import Scene, rigid_transform, rot_y
from schemas.embodiment import embodiment_for
from schemas.episode import EncodedImages, Episode
from schemas.errors import Code, ConfigError, SourceError
from schemas.supervision import Task, allowed_tasks
from tests.adapters.episode_parts import refs_of, stream_of
from tests.generators import interndata_a1_raw as generator
from tests.ingest.video_files import read_back

ADAPTER = InternDataA1Raw()
ONE = Scene(duration_s=0.2, width=64, height=48)
TWO = Scene(duration_s=0.2, width=64, height=48, sides=("left", "right"))
EPISODE = "franka/task/set/2025-07-15_10_00_00_000001"
Columns = dict[str, Any]


def loaded(
    root: Path, columns: Columns, *, name: str = EPISODE, scene: Scene = ONE, **given: Any
) -> Episode:
    pictures = given.pop("pictures", generator.pictures_of(scene, columns))
    generator.write_episode(root / name, columns, pictures, **given)
    return ADAPTER.load(next(ref for ref in refs_of(ADAPTER, root) if ref.episode_id == name))


def test_everything_is_that_of_the_scene(tmp_path: Path) -> None:
    written = generator.write(tmp_path)
    for ref in refs_of(ADAPTER, tmp_path):
        scene, episode = written.scenes[ref.episode_id], ADAPTER.load(ref)
        for side in scene.sides:
            T = stream_of(episode, f"{side}.T_base_eef")
            T_src_hand = embodiment_for(episode.embodiment).arms[side].T_src_hand
            truth = [scene.T_base_hand(t / 1e9, side) for t in T.t_ns]
            np.testing.assert_allclose(T.values @ T_src_hand, truth, atol=1e-7)
            found = stream_of(episode, f"{side}.gripper_opening")
            opening = [[scene.gripper_opening(t / 1e9)] for t in found.t_ns]
            np.testing.assert_allclose(found.values, opening, atol=1e-9)
        T_base_cam = stream_of(episode, "T_base_cam.head").values
        np.testing.assert_allclose(T_base_cam[7], scene.T_base_cam, atol=1e-9)
        (camera,) = episode.cameras
        np.testing.assert_array_equal(camera.K_cam, scene.K_cam)


def test_a_franka_is_told_poses_that_are_due_a_period_later(tmp_path: Path) -> None:
    episode = loaded(tmp_path, generator.columns_of(ONE))
    told = stream_of(episode, "command.left.T_base_eef")
    assert told.t_ns[:2].tolist() == [33_333_333, 66_666_666]
    T_src_hand = embodiment_for("panda_link8").arms["left"].T_src_hand
    truth = [ONE.T_base_hand(t / 1e9) for t in told.t_ns]
    np.testing.assert_allclose(told.values @ T_src_hand, truth, atol=1e-7)
    assert stream_of(episode, "command.joint_position_rad").spec.names[0] == "panda_joint1"
    tasks, why = allowed_tasks(facts=episode.facts, has_camera=True, action_coverage=1.0)
    assert Task.POLICY in tasks, why


def test_a_pose_by_hand(tmp_path: Path) -> None:
    """Roll 90 deg, then yaw 90 deg about the fixed axes: x to y, y to z, z to x."""
    columns = generator.columns_of(ONE)
    columns["states.gripper.pose"][0] = np.array([0.1, 0.2, 0.3, np.pi / 2, 0, np.pi / 2])
    columns["states.gripper.position"][0] = np.array([0.02])
    columns["master_actions.gripper.openness"][:2] = [0.0, 1.0]
    episode = loaded(tmp_path, columns)
    T = stream_of(episode, "left.T_base_eef").values[0]
    np.testing.assert_allclose(T[:3, :3], [[0, 0, 1], [1, 0, 0], [0, 1, 0]], atol=1e-12)
    assert T[:3, 3].tolist() == [0.1, 0.2, 0.3]
    assert stream_of(episode, "left.gripper_opening").values[0, 0] == pytest.approx(0.25)
    told = stream_of(episode, "command.left.gripper_opening")
    assert told.values[:2, 0].tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("name", "robot"),
    [("lift2", "lift2"), ("split_aloha_7", "split_aloha"), ("genie1", "genie1")],
)
def test_two_arms_without_poses_are_left_to_kinematics(
    tmp_path: Path, name: str, robot: str
) -> None:
    """The published converter expects no stored pose, and robot2env_pose for the robot in the scene."""
    columns = generator.columns_of(TWO, "lift2")
    for key in ("T_base_ee_fl", "T_base_ee_fr"):
        del columns[key]
    columns["robot2env_pose"] = columns.pop("T_world_base")
    if robot == "genie1":
        for key in [k for k in columns if k.endswith("joint.position")]:
            columns[key] = [np.r_[row, 0.25] for row in columns[key]]
    episode = loaded(tmp_path, columns, name=f"{name}/t/s/e", scene=TWO)
    assert not [s.name for s in episode.streams if "T_base_eef" in s.name]
    names = stream_of(episode, "joint_position_rad").spec.names
    assert names == tuple(n for part in ROBOTS[robot].joints.values() for n in part)
    T_base_cam = stream_of(episode, "T_base_cam.head").values[0]
    np.testing.assert_allclose(T_base_cam, TWO.T_base_cam, atol=1e-9)


def test_genies_body_is_known_by_the_episodes_name() -> None:
    robot = ROBOTS["genie1"]
    T = T_robot_arm_of(robot, "left_", "2025-07-15_x")
    np.testing.assert_allclose(
        T, rigid_transform(rot_y(0.63), [0.310688674, 0, 1.21495271]), atol=5e-6
    )
    T = T_robot_arm_of(robot, "right_", "0012")
    np.testing.assert_allclose(
        T, rigid_transform(rot_y(0.5), [0.277224123, 0, 1.29616246]), atol=5e-6
    )
    assert T_robot_arm_of(robot, "left_", "2026-01-01") is None
    assert robot.joints["right_"][6] == "idx67_arm_r_joint7"


def test_a_robot_is_named_by_its_folder_or_by_the_caller(tmp_path: Path) -> None:
    assert [robot_in([w]) for w in ("FrankaRobotiq85", "fr3", "G1")] == [
        "frankarobotiq",
        "franka",
        "",
    ]
    columns = generator.columns_of(ONE)
    generator.write_episode(tmp_path / "any/0001", columns, generator.pictures_of(ONE, columns))
    with pytest.raises(SourceError, match="--option robot=") as caught:
        ADAPTER.load(refs_of(ADAPTER, tmp_path)[0])
    assert caught.value.code is Code.UNKNOWN_LAYOUT
    columns["states.gripper.position"] = [
        1.0,
        1.0,
        0.0,
        0.0,
        1.0,
        1.0,
    ]  # Robotiq: one number a step
    generator.write_episode(tmp_path / "any/0002", columns, generator.pictures_of(ONE, columns))
    episode = ADAPTER.load(refs_of(ADAPTER, tmp_path, robot="frankarobotiq")[1])
    assert episode.embodiment == "interndata_franka_robotiq"
    opening = stream_of(episode, "left.gripper_opening").values[:, 0]
    assert opening.tolist() == [1, 1, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("width", "cx", "size"),
    [
        (1280, 640.0, (1280, 720)),
        (640, 640.0, (1280, 720)),
        (640, 320.0, (640, 360)),
        (64, 90.0, None),
    ],
)
def test_intrinsics_belong_to_1280_pixels_where_their_centre_says_so(
    tmp_path: Path, width: int, cx: float, size: tuple[int, int] | None
) -> None:
    columns = generator.columns_of(ONE)
    K = [[700.0, 0, cx], [0, 700.0, cx / 2], [0, 0, 1]]
    columns["json_data"] = {"head_camera_params": K}
    image = np.zeros((width * 9 // 16, width, 3), np.uint8)
    (camera,) = loaded(tmp_path, columns, pictures={"head": [image] * 6}).cameras
    assert camera.K_size == size
    assert size is None or np.array_equal(camera.K_cam, K)


def test_pictures_are_read_one_by_one_in_their_true_colours(tmp_path: Path) -> None:
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 250
    columns = generator.columns_of(ONE)
    columns["camera2env_pose.head"] = columns["camera2env_pose.head"][:3]  # one a picture
    episode = loaded(tmp_path, columns, pictures={"head": [red] * 3}, steps=(0, 2, 4))
    (camera,) = episode.cameras
    assert isinstance(camera.frames, EncodedImages)
    assert camera.t_ns is not None
    assert camera.t_ns.tolist() == [0, 66_666_667, 133_333_333]  # the steps that have a picture
    clock = frame_clock(camera)
    write_video(camera, clock, clock[:1], tmp_path / "out.mp4", VideoSettings())
    np.testing.assert_allclose(read_back(tmp_path / "out.mp4")[0][0][20, 20], [250, 0, 0], atol=8)


def _drop(key: str) -> Callable[[Columns], None]:
    return lambda columns: columns.pop(key)


def _set(key: str, value: Any) -> Callable[[Columns], None]:
    return lambda columns: columns.update({key: value})


class Evil:
    def __reduce__(self) -> Any:
        return sys.exit, (3,)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_drop("states.joint.position"), Code.MISSING_CHANNEL),
        (_drop("master_actions.gripper.openness"), Code.MISSING_CHANNEL),
        (_set("states.gripper.position", [np.zeros(1)] * 5), Code.SHAPE_MISMATCH),
        (_set("states.joint.position", [np.zeros(6)] * 6), Code.SHAPE_MISMATCH),
        (_set("states.joint.position", [np.full(7, 90.0)] * 6), Code.UNKNOWN_LAYOUT),  # degrees
        (_set("states.gripper.pose", [np.full(6, np.nan)] * 6), Code.NOT_FINITE),
        (_set("camera2env_pose.head", [np.diag([2.0, 2, 2, 1])] * 6), Code.NOT_A_ROTATION),
        (_set("states.joint.position", "seven"), Code.SHAPE_MISMATCH),
        (_set("master_actions.joint.position", Evil()), Code.UNSAFE_CONTENT),
    ],
)
def test_defects(tmp_path: Path, change: Callable[[Columns], None], code: Code) -> None:
    columns = generator.columns_of(ONE)
    pictures = generator.pictures_of(ONE, columns)
    change(columns)
    with pytest.raises(SourceError) as caught:
        loaded(tmp_path, columns, pictures=pictures, num_steps=6)
    assert caught.value.code is code, str(caught.value)


@pytest.mark.parametrize(
    ("meta", "code"),
    [
        (Evil(), Code.UNSAFE_CONTENT),
        ([1, 2], Code.BAD_ANNOTATION),
        ({"keys": {}, "num_steps": 0}, Code.EMPTY_EPISODE),
        ({"keys": {}, "num_steps": 10**9}, Code.BAD_ANNOTATION),
        ({"keys": {"images.rgb.head": [b"../0000"]}, "num_steps": 6}, Code.BAD_ANNOTATION),
        (
            {"keys": {"images.rgb.head": [b"images.rgb.head/0009"]}, "num_steps": 6},
            Code.FRAME_COUNT,
        ),
        (
            {"keys": {"images.rgb.hand": [b"images.rgb.hand/0000"]}, "num_steps": 6},
            Code.MISSING_CHANNEL,
        ),
    ],
)
def test_broken_meta(tmp_path: Path, meta: Any, code: Code) -> None:
    loaded(tmp_path, generator.columns_of(ONE))
    (tmp_path / EPISODE / "meta_info.pkl").write_bytes(pickle.dumps(meta))
    with pytest.raises(SourceError) as caught:
        ADAPTER.load(refs_of(ADAPTER, tmp_path)[0])
    assert caught.value.code is code, str(caught.value)


def test_a_damaged_store_never_reaches_the_engine(tmp_path: Path) -> None:
    """A cut file would be a SIGBUS: the offline verifier refuses it first."""
    loaded(tmp_path, generator.columns_of(ONE))
    (ref,) = refs_of(ADAPTER, tmp_path)
    path = tmp_path / EPISODE / "lmdb/data.mdb"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[2 * 4096 + 10 :: 4096] = b"\xff" * len(flipped[2 * 4096 + 10 :: 4096])  # page flags
    for data, code in (
        (whole[: len(whole) // 2], Code.TRUNCATED),
        (b"no such thing" * 1000, Code.CORRUPT_RECORD),
        (b"", Code.CORRUPT_RECORD),
        (bytes(flipped), Code.CORRUPT_RECORD),
    ):
        path.write_bytes(data)
        with pytest.raises(SourceError) as caught:
            ADAPTER.load(ref)
        assert caught.value.code is code, str(caught.value)


def test_reading_writes_nothing_and_bounds_values(tmp_path: Path) -> None:
    loaded(tmp_path, generator.columns_of(ONE))
    lock = tmp_path / EPISODE / "lmdb/lock.mdb"
    lock.unlink()
    folder = check_lmdb(tmp_path, f"{EPISODE}/lmdb")
    with open_lmdb(folder, "x") as reader, pytest.raises(SourceError) as caught:
        reader.get("json_data", limit=3)
    assert caught.value.code is Code.TOO_LARGE
    assert not lock.exists()


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded(tmp_path, generator.columns_of(ONE))
    monkeypatch.setitem(sys.modules, "lmdb.verify", None)
    with pytest.raises(ConfigError, match=r"eicorpus\[lmdb\]"):
        ADAPTER.load(refs_of(ADAPTER, tmp_path)[0])


def test_discovery(tmp_path: Path) -> None:
    for name in ("franka/t/s/b", "franka/t/s/a"):
        loaded(tmp_path, generator.columns_of(ONE), name=name)
    (tmp_path / "franka/t/s/b/meta_info.pkl").unlink()
    found = [(ref.episode_id, ref.problem and ref.problem[0]) for ref in refs_of(ADAPTER, tmp_path)]
    assert found == [("franka/t/s/a", None), ("franka/t/s/b", "missing_file")]
    assert [r.episode_id for r in refs_of(ADAPTER, tmp_path / "franka/t/s/a")] == ["a"]
