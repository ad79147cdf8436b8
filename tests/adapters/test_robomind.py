"""RoboMIND: every body, values by hand, what nobody states, and each known defect."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import h5py
import numpy as np
import pytest

from adapters.robomind import bodies
from adapters.robomind.adapter import RoboMind
from adapters.robomind.bodies import BODIES
from ingest.recipe import VideoSettings
from ingest.video.camera_video import frame_clock, write_video
from jobs.demo.raw.scene import Scene
from schemas.embodiment import embodiments
from schemas.episode import ArrayFrames, EncodedImages, Episode
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Certainty
from tests.adapters.episode_parts import only_episode, refs_of, stream_of
from tests.generators import robomind as generator

ADAPTER = RoboMind()
SCENE = Scene(seed=1, duration_s=0.3, sides=("left", "right"), width=64, height=48, focal_px=60.0)
PLACE = "some_task/success_episodes/train/one"
ROWS = np.arange(9)[:, None]


def certainty(episode: Episode, name: str) -> Certainty:
    return next(f.certainty for f in episode.facts if f.name == name)


def file_of(root: Path, place: str) -> Path:
    return root / place / "data" / "trajectory.hdf5"


def put(root: Path, body: str, tables: dict[str, np.ndarray], cameras: tuple[str, ...]) -> None:
    pictures = [SCENE.picture(k / 30) for k in range(9)]
    generator.write_file(root, f"h5_{body}/{PLACE}", tables, dict.fromkeys(cameras, pictures))


def test_bodies_are_registered_with_their_sides() -> None:
    for name, body in BODIES.items():
        assert {arm.side for arm in body.arms} <= set(embodiments()[body.embodiment].arms), name


def test_agilex_by_hand(tmp_path: Path) -> None:
    place = generator.write_agilex(tmp_path, PLACE, SCENE)
    half = np.sqrt(0.5)
    with h5py.File(file_of(tmp_path, place), "r+") as file:
        file["puppet/end_effector_right"][1] = [0.1, 0.2, 0.3, 0, 0, half, half]
        file["master/end_effector_left"][1] = [0.4, 0.5, 0.6, 0, 0, 0, 1]
        file["puppet/joint_position_left"][1] = np.arange(7) / 10
        file["master/joint_position_right"][1] = np.arange(7) / 20
    episode = only_episode(ADAPTER, tmp_path, gripper="0.1..1.1")
    T = [[0, -1, 0, 0.1], [1, 0, 0, 0.2], [0, 0, 1, 0.3], [0, 0, 0, 1]]
    np.testing.assert_allclose(stream_of(episode, "right.T_base_eef").values[1], T, atol=1e-12)
    told = stream_of(episode, "command.left.T_base_eef")
    assert told.values[1, :3, 3].tolist() == [0.4, 0.5, 0.6]
    assert told.t_ns[:2].tolist() == [33_333_333, 66_666_667]  # due one row later
    measured = stream_of(episode, "joint_position_rad")
    np.testing.assert_allclose(measured.values[1, :6], np.arange(6) / 10)
    assert measured.spec.names[5:7] == ("left_joint6", "right_joint1")
    asked = stream_of(episode, "command.joint_position_rad")
    np.testing.assert_allclose(asked.values[1, 6:], np.arange(6) / 20)
    assert stream_of(episode, "left.gripper_opening").values[1, 0] == pytest.approx(0.5)
    assert stream_of(episode, "command.right.gripper_opening").values[1, 0] == pytest.approx(0.2)
    raw = stream_of(episode, "raw_command")
    assert raw.t_ns[1] == 33_333_333  # as issued
    assert raw.spec.names[-2:] == ("left_gripper", "right_gripper")
    assert raw.values[1, -1] == pytest.approx(0.3)
    assert episode.stream("source_state") is None
    assert episode.success is True


def test_a_franka_turn_by_hand(tmp_path: Path) -> None:
    """Roll first, about fixed axes: x to z by roll = yaw = 90 degrees."""
    place = generator.write_franka(tmp_path, PLACE, SCENE)
    with h5py.File(file_of(tmp_path, place), "r+") as file:
        file["puppet/end_effector"][1] = [0.1, 0.2, 0.3, np.pi / 2, 0, np.pi / 2]
    R = stream_of(only_episode(ADAPTER, tmp_path), "left.T_base_eef").values[1, :3, :3]
    np.testing.assert_allclose(R, [[0, 0, 1], [1, 0, 0], [0, 1, 0]], atol=1e-12)


def test_what_nobody_states(tmp_path: Path) -> None:
    generator.write_franka(tmp_path, PLACE, SCENE)
    episode = only_episode(ADAPTER, tmp_path)
    known = {f.name: f.certainty for f in episode.facts if f.is_for_actions}
    assert known["rate"] is Certainty.INFERRED
    assert known["eef_rotation_form"] is Certainty.INFERRED
    assert known["eef_frame"] is Certainty.UNVERIFIED
    assert known["gripper_scale"] is Certainty.UNKNOWN
    assert not [s.name for s in episode.streams if "gripper" in s.name]
    held = stream_of(episode, "source_state")
    assert held.spec.names == ("left_gripper",)
    assert held.values[0, 0] == generator.MAX_JAW
    told = only_episode(ADAPTER, tmp_path, rate_hz="ur_1rgb:5,franka_1rgb:15,10", gripper="0.07..0")
    assert told.rate_hz == 15
    assert certainty(told, "rate") is certainty(told, "gripper_scale") is Certainty.DOCUMENTED
    assert stream_of(told, "left.gripper_opening").values[0, 0] == 0.0  # the caller said so


def test_two_frankas_share_their_columns(tmp_path: Path) -> None:
    eef = np.hstack([np.full((9, 6), 0.1), np.full((9, 6), 0.2)]) + 0.01 * ROWS
    joints = np.tile(np.arange(16) / 10, (9, 1)) + 0.01 * ROWS
    tables = {"puppet/end_effector": eef, "puppet/joint_position": joints}
    put(tmp_path, "franka_fr3_dual", tables, ("camera_front", "camera_left"))
    episode = only_episode(ADAPTER, tmp_path)
    assert stream_of(episode, "right.T_base_eef").values[0, :3, 3].tolist() == [0.2, 0.2, 0.2]
    assert stream_of(episode, "source_state").values[0].tolist() == [0.7, 1.5]
    joint = stream_of(episode, "joint_position_rad")
    assert joint.values[0, 7] == 0.8
    assert episode.embodiment == "panda_hand_dual"
    assert not any(s.name.startswith("command.") for s in episode.streams)  # no leader in the file


def test_the_end_effector_of_xsens_is_a_hand(tmp_path: Path) -> None:
    tables = {
        f"{group}/{name}": np.tile(np.arange(width), (9, 1)).astype(float)
        for group in ("puppet", "master")
        for name, width in (("end_effector", 12), ("joint_position", 14))
    }
    put(tmp_path, "tienkung_xsens_1rgb", tables, ("camera_top",))
    episode = only_episode(ADAPTER, tmp_path)
    names = {s.name for s in episode.streams}
    assert names == {
        "joint_position_rad",
        "command.joint_position_rad",
        "source_state",
        "raw_command",
    }
    state = stream_of(episode, "source_state")
    assert state.spec.names[0] == "left_little"
    assert state.spec.names[11] == "right_thumb_rotation"
    assert stream_of(episode, "raw_command").values.shape == (9, 26)
    assert certainty(episode, "hand_unit") is Certainty.UNKNOWN


def test_simulations(tmp_path: Path) -> None:
    generator.write_simulation(tmp_path, PLACE, SCENE)
    episode = only_episode(ADAPTER, tmp_path)
    pose = stream_of(episode, "left.T_base_eef")
    assert (len(pose.t_ns), pose.t_ns[4]) == (36, 33_333_333)  # four rows a picture
    assert episode.rate_hz == Fraction(30)
    assert episode.cameras[0].t_ns is not None
    assert len(episode.cameras[0].t_ns) == 7
    assert certainty(episode, "row_timing") is Certainty.INFERRED
    root = tmp_path / "tienkung"
    tables = {"tiangong/left_arm_joint_pos_seq": np.zeros((7, 7))}
    put(root, "sim_tienkung_1rgb", tables, ("camera_head",))
    episode = only_episode(ADAPTER, root)
    assert episode.streams == ()
    assert certainty(episode, "state_clock") is Certainty.UNKNOWN


@pytest.mark.parametrize("is_at_rest", [False, True])
def test_a_stuck_pose_is_left_out(tmp_path: Path, is_at_rest: bool) -> None:
    """Of the UR: standing still while joints move is a fault; at rest with its arm it is the truth."""
    place = generator.write_franka(tmp_path, PLACE, SCENE, body="ur_1rgb")
    with h5py.File(file_of(tmp_path, place), "r+") as file:
        file["puppet/end_effector"][...] = 0.3 + 1e-5 * ROWS
        if is_at_rest:
            file["puppet/joint_position"][...] = 0.2
    episode = only_episode(ADAPTER, tmp_path)
    assert (episode.stream("left.T_base_eef") is not None) == is_at_rest
    facts = {f.name for f in episode.facts}
    assert ("recorded_pose" in facts) != is_at_rest
    assert ("eef_frame" in facts) == is_at_rest
    assert episode.stream("joint_position_rad") is not None


@pytest.mark.parametrize("body", ["agilex", "franka", "franka, raw", "agilex, raw", "array"])
def test_red_is_red(tmp_path: Path, body: str) -> None:
    """AgileX JPEG are swapped, Franka JPEG are sound; raw buffers are BGR of a Franka, RGB of AgileX."""
    write = generator.write_agilex if "agilex" in body else generator.write_franka
    scene = Scene(duration_s=0.1, sides=("left", "right"), width=640, height=480)
    place = write(tmp_path, PLACE, scene)
    key = f"observations/rgb_images/camera_{'front' if 'agilex' in body else 'top'}"
    pictures = [scene.picture(k / 30) for k in range(3)]
    with h5py.File(file_of(tmp_path, place), "r+") as file:
        if body == "array":
            del file[key]
            file[key] = np.array(pictures)[..., ::-1]
        if "raw" in body:
            order = slice(None) if "agilex" in body else slice(None, None, -1)
            del file[key]
            generator.put_buffers(file, key, [p[..., order].ravel() for p in pictures])
    (camera,) = only_episode(ADAPTER, tmp_path).cameras
    is_raw = "raw" in body or body == "array"
    assert isinstance(camera.frames, ArrayFrames if is_raw else EncodedImages)
    clock = frame_clock(camera)
    write_video(camera, clock, clock, tmp_path / "o.mp4", VideoSettings(crf=12))
    with av.open(str(tmp_path / "o.mp4")) as video:
        first = next(video.decode(video=0)).to_ndarray(format="rgb24").astype(float)
    ratio = 480 / first.shape[0]
    box = scene.project(np.array([0.5, 0.12, 0.03])) / ratio  # the red one
    red, _, blue = first[int(box[1]), int(box[0])]
    assert red > blue + 60
    assert camera.K_size == (640, 480)


def test_intrinsics_only_for_their_size(tmp_path: Path) -> None:
    generator.write_franka(tmp_path, PLACE, SCENE)
    episode = only_episode(ADAPTER, tmp_path)
    assert episode.cameras[0].K_cam is None
    assert certainty(episode, "intrinsics.camera_top") is Certainty.UNKNOWN


def test_flat_buffers_of_another_size_are_no_pictures(tmp_path: Path) -> None:
    place = generator.write_franka(tmp_path, PLACE, SCENE)
    key = "observations/rgb_images/camera_top"
    with h5py.File(file_of(tmp_path, place), "r+") as file:
        rows = [np.zeros(480 * 640 * 3, np.uint8)] * 8 + [np.zeros(100, np.uint8)]
        del file[key]
        generator.put_buffers(file, key, rows)
    (camera,) = only_episode(ADAPTER, tmp_path).cameras
    clock = frame_clock(camera)
    with pytest.raises(SourceError) as caught:
        write_video(camera, clock, clock, tmp_path / "o.mp4", VideoSettings())
    assert caught.value.code is Code.CORRUPT_IMAGE


def test_texts(tmp_path: Path) -> None:
    written = generator.write(tmp_path)
    by_id = {ref.episode_id: ADAPTER.load(ref) for ref in refs_of(ADAPTER, written.root)}
    assert list(by_id) == list(written.scenes)
    franka = by_id[
        "benchmark1_1_release/h5_franka_1rgb/bread_in_basket/success_episodes/val/1014_144602"
    ]
    found = [(i.kind, i.text, i.start_ns, i.end_ns) for i in franka.instructions]
    assert found == [
        ("task", "Put bread into the basket", 0, None),
        ("summary", "placing bread into a basket", 0, None),
        ("subtask", "move towards the bread", 0, 700_000_000),  # up to row 21, row 20 included
        ("subtask", "grab the bread", 1_000_000_000, None),
    ]
    assert [i.text for i in list(by_id.values())[-1].instructions] == ["Open trash bin"]


def test_texts_that_do_not_hold(tmp_path: Path) -> None:
    """A known wrong instruction; steps beyond the end; a row that does not fit; no list at all."""
    place = "10_packplate/success_episodes/train/e"
    generator.write_agilex(tmp_path, place, SCENE)
    assert only_episode(ADAPTER, tmp_path).instructions == ()
    (tmp_path / "RoboMIND_v1_2_instr.csv").write_text(generator.LIST)
    generator.write_steps(tmp_path, "h5_agilex_3rgb", place)
    path = tmp_path / "language_description_annotation_json" / "h5_agilex_3rgb.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([{"id": 3}, {"id": "a/b", "response": {}}, *rows, "x"]))
    episode = only_episode(ADAPTER, tmp_path)
    assert [i.kind for i in episode.instructions] == ["summary"]
    assert certainty(episode, "instruction") is Certainty.THIRD_PARTY
    assert next(f.value for f in episode.facts if f.name == "steps").startswith("2 of 2")
    path.write_text("{}")
    with pytest.raises(ConfigError, match="expected a list"):
        refs_of(ADAPTER, tmp_path)
    path.unlink()
    (tmp_path / "RoboMIND_v1_2_instr.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="columns"):
        refs_of(ADAPTER, tmp_path)


@pytest.mark.parametrize(
    ("key", "array", "code"),
    [
        ("puppet/joint_position", None, Code.MISSING_CHANNEL),
        ("puppet/joint_position", np.zeros((0, 8)), Code.EMPTY_EPISODE),
        ("puppet/joint_position", np.full((9, 8), np.nan), Code.NOT_FINITE),
        ("puppet/joint_position", np.zeros((9, 7)), Code.SHAPE_MISMATCH),
        ("puppet/end_effector", np.full((9, 6), np.inf), Code.NOT_FINITE),
        ("puppet/end_effector", np.zeros((9, 7)), Code.SHAPE_MISMATCH),
        ("master/joint_position", np.zeros((8, 8)), Code.SHAPE_MISMATCH),
        ("observations/rgb_images/camera_top", np.zeros((8, 4, 4, 3), np.uint8), Code.FRAME_COUNT),
        ("observations/rgb_images/camera_top", np.zeros((9, 5), np.uint8), Code.CORRUPT_IMAGE),
        ("observations/rgb_images", None, Code.MISSING_CHANNEL),
    ],
)
def test_defects(tmp_path: Path, key: str, array: np.ndarray | None, code: Code) -> None:
    place = generator.write_franka(tmp_path, PLACE, SCENE)
    with h5py.File(file_of(tmp_path, place), "r+") as file:
        del file[key]
        if array is not None:
            file[key] = array
    with pytest.raises(SourceError) as caught:
        only_episode(ADAPTER, tmp_path)
    assert caught.value.code is code, str(caught.value)


def test_an_infinite_gripper_is_not_open(tmp_path: Path) -> None:
    place = generator.write_franka(tmp_path, PLACE, SCENE)
    with h5py.File(file_of(tmp_path, place), "r+") as file:
        file["puppet/joint_position"][3, 7] = np.inf
    with pytest.raises(SourceError) as caught:
        only_episode(ADAPTER, tmp_path, gripper="0..0.07")
    assert caught.value.code is Code.NOT_FINITE


def test_a_quaternion_that_is_none(tmp_path: Path) -> None:
    place = generator.write_agilex(tmp_path, PLACE, SCENE)
    with h5py.File(file_of(tmp_path, place), "r+") as file:
        file["puppet/end_effector_left"][3, 3:] = 0
    with pytest.raises(SourceError) as caught:
        only_episode(ADAPTER, tmp_path)
    assert caught.value.code is Code.NOT_A_ROTATION


def test_roots_and_options(tmp_path: Path) -> None:
    place = generator.write_franka(tmp_path, PLACE, SCENE, body="franka_9rgb")
    with pytest.raises(ConfigError, match="body="):
        ADAPTER.survey(tmp_path, {})
    deep = tmp_path / "benchmark1_1_release/h5_franka_9rgb/some_task"
    (ref,) = refs_of(ADAPTER, deep, body="franka_1rgb")
    assert ADAPTER.load(ref).embodiment == "panda_hand"
    assert dict(ref.locator)["task"] == "some_task"
    generator.write_tienkung(tmp_path, PLACE, SCENE)
    broken, fine = refs_of(ADAPTER, tmp_path)
    assert broken.problem is not None
    assert broken.problem[0] == Code.UNKNOWN_LAYOUT
    assert fine.problem is None
    file_of(tmp_path, place).unlink()
    file_of(tmp_path, place).symlink_to(tmp_path.parent / "elsewhere.hdf5")
    for bad in ("fps=3", "rate_hz=0", "rate_hz=franka:3", "gripper=1", "gripper=2..2", "body=x"):
        name, _, value = bad.partition("=")
        with pytest.raises(ConfigError):
            bodies.check({name: value})
