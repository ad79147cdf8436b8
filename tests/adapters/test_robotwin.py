"""RoboTwin: values by hand in both layouts, colours, axes, and each known defect."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import h5py
import numpy as np
import pytest

from adapters.robotwin.adapter import RoboTwin
from ingest.recipe import VideoSettings
from ingest.video.camera_video import frame_clock, write_video
from jobs.demo.raw.scene import Scene
from schemas.episode import Episode
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Certainty
from tests.adapters.episode_parts import only_episode, refs_of, stream_of
from tests.generators import robotwin as generator

ADAPTER = RoboTwin()
SCENE = Scene(seed=1, duration_s=0.5, sides=("left", "right"), width=64, height=48, focal_px=60.0)
WRITERS: dict[str, Callable[[Path, int, Scene], Path]] = {
    "legacy": generator.write_legacy,
    "current": generator.write_current,
}


def certainty(episode: Episode, name: str) -> Certainty:
    return next(f.certainty for f in episode.facts if f.name == name)


@pytest.fixture(params=WRITERS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return WRITERS[request.param](tmp_path / "task/config", 7, SCENE)


def test_a_quarter_turn_by_hand(tmp_path: Path) -> None:
    """w first: (sqrt 1/2, 0, 0, sqrt 1/2) turns x to y. Read as xyzw it would turn y to -z."""
    path = generator.write_legacy(tmp_path, 0, SCENE)
    half = np.sqrt(0.5)
    with h5py.File(path, "r+") as file:
        file["endpose/left_endpose"][1] = [0.1, 0.2, 0.3, half, 0, 0, half]
        file["endpose/left_gripper"][1] = 0.25
        file["joint_action/right_gripper"][1] = 0.75
    episode = only_episode(ADAPTER, tmp_path)
    T = [[0, -1, 0, 0.1], [1, 0, 0, 0.2], [0, 0, 1, 0.3], [0, 0, 0, 1]]
    pose = stream_of(episode, "left.T_base_eef")
    np.testing.assert_allclose(pose.values[1], T, atol=1e-12)
    assert pose.t_ns[:3].tolist() == [0, 60_000_000, 120_000_000]
    assert stream_of(episode, "left.gripper_opening").values[1, 0] == 0.25
    raw = stream_of(episode, "raw_command")
    assert raw.spec.names[5:8] == ("left_joint6", "left_gripper", "right_joint1")
    assert raw.values[1, 13] == 0.75
    assert episode.rate_hz == Fraction(50, 3)
    assert episode.success is True
    assert {s.name for s in episode.streams if "joint" in s.name} == set()  # they are targets


def test_both_layouts_say_the_same(tmp_path: Path) -> None:
    one, two = (
        only_episode(ADAPTER, write(tmp_path / n, 0, SCENE).parents[1])
        for n, write in WRITERS.items()
    )
    for name in ("left.T_base_eef", "right.T_base_eef", "right.gripper_opening"):
        a, b = stream_of(one, name), stream_of(two, name)
        np.testing.assert_allclose(a.values[:-1], b.values, atol=1e-6)
        assert a.t_ns[:-1].tolist() == b.t_ns.tolist()
    targets = stream_of(one, "raw_command").values[1:]  # one row later
    np.testing.assert_allclose(targets, stream_of(two, "raw_command").values, atol=1e-6)
    assert [i.text for i in one.instructions] == ["Put the red box on the blue one."]
    assert [i.text for i in two.instructions] == ["Turn the bottle upright."]
    assert certainty(one, "extrinsics.head_camera") is Certainty.VERIFIED
    assert certainty(two, "extrinsics.cam_head") is Certainty.CODE


def test_cameras_look_at_the_scene(path: Path, tmp_path: Path) -> None:
    """OpenGL axes are turned: with the file's own ones the hand would be behind the camera."""
    episode = only_episode(ADAPTER, path.parents[1])
    (camera,) = episode.cameras
    np.testing.assert_allclose(camera.K_cam, SCENE.K_cam)
    assert camera.K_size == (64, 48)
    T_base_cam = stream_of(episode, f"T_base_cam.{camera.name}").values
    np.testing.assert_allclose(T_base_cam[-1], SCENE.T_base_cam, atol=1e-9)
    clock = frame_clock(camera)
    write_video(camera, clock, clock[::2], tmp_path / "o.mp4", VideoSettings(crf=10))
    with av.open(str(tmp_path / "o.mp4")) as video:
        first = next(video.decode(video=0)).to_ndarray(format="rgb24").astype(float)
    errors = [
        np.abs(first[..., order] - SCENE.picture(0)).mean() for order in ([0, 1, 2], [2, 1, 0])
    ]
    assert errors[0] < 6 < errors[1]  # red boxes are red


def test_frequency_is_a_number_of_physics_steps(tmp_path: Path) -> None:
    path = generator.write_current(tmp_path, 0, SCENE, steps=10)
    assert only_episode(ADAPTER, tmp_path).rate_hz == 25
    assert certainty(only_episode(ADAPTER, tmp_path), "rate") is Certainty.CODE
    assert certainty(only_episode(ADAPTER, tmp_path, rate_hz="30"), "rate") is Certainty.DOCUMENTED
    with h5py.File(path, "r+") as file:
        del file.attrs["source_format"]
    assert certainty(only_episode(ADAPTER, tmp_path), "rate") is Certainty.INFERRED


def test_wordings(path: Path) -> None:
    texts = {
        split: only_episode(ADAPTER, path.parents[1], split=split).instructions
        for split in ("seen", "unseen")
    }
    assert {t.text for t in texts["unseen"]} <= {"Pile.", "Right the bottle."}
    assert texts["unseen"] != texts["seen"]
    assert (
        only_episode(ADAPTER, path.parents[1], instruction="Do it.").instructions[0].text
        == "Do it."
    )


def test_an_array_of_wordings_of_a_converted_file(tmp_path: Path) -> None:
    path = generator.write_current(tmp_path, 0, SCENE)
    with h5py.File(path, "r+") as file:
        file["vision/cam_head/extrinsic_matrix"] = file["vision/cam_head/extrinsics_matrix"][:]
        del file["instructions"], file["vision/cam_head/extrinsics_matrix"]
        file["instructions"] = np.array(["First.", "Second."], dtype=object)
    episode = only_episode(ADAPTER, tmp_path)
    assert [i.text for i in episode.instructions] == ["First."]
    assert stream_of(episode, "T_base_cam.cam_head").values.shape[1:] == (4, 4)
    with h5py.File(path, "r+") as file:
        file["instruction"] = "Chosen."
    assert [i.text for i in only_episode(ADAPTER, tmp_path).instructions] == ["Chosen."]


def test_camera_poses_that_contradict_each_other_are_left_out(tmp_path: Path) -> None:
    path = generator.write_legacy(tmp_path, 0, SCENE)
    with h5py.File(path, "r+") as file:
        file["observation/head_camera/cam2world_gl"][...] = SCENE.T_base_cam
    episode = only_episode(ADAPTER, tmp_path)
    assert episode.stream("T_base_cam.head_camera") is None
    assert certainty(episode, "extrinsics.head_camera") is Certainty.UNKNOWN
    assert not any(f.is_for_actions for f in episode.facts if f.name.startswith("extrinsics"))
    with h5py.File(path, "r+") as file:
        file["observation/head_camera/cam2world_gl"][...] = 2 * np.eye(4)
        file["observation/head_camera/intrinsic_cv"][0] += 5
    episode = only_episode(ADAPTER, tmp_path)
    assert certainty(episode, "extrinsics.head_camera") is Certainty.UNKNOWN
    assert episode.cameras[0].K_cam is None


def test_without_poses_the_grippers_remain(tmp_path: Path) -> None:
    path = generator.write_legacy(tmp_path, 0, SCENE)
    with h5py.File(path, "r+") as file:
        del file["endpose"]
    episode = only_episode(ADAPTER, tmp_path)
    names = {s.name for s in episode.streams if "cam" not in s.name}
    assert names == {"left.gripper_opening", "right.gripper_opening", "raw_command"}
    assert "eef_frame" not in {f.name for f in episode.facts}


@pytest.mark.parametrize(
    ("key", "array", "code"),
    [
        ("joint_action/left_arm", None, Code.MISSING_CHANNEL),
        ("joint_action/left_arm", np.zeros((0, 6)), Code.EMPTY_EPISODE),
        ("joint_action/right_arm", np.zeros((8, 6)), Code.SHAPE_MISMATCH),
        ("endpose/left_endpose", np.zeros((9, 7)), Code.NOT_A_ROTATION),
        ("endpose/left_endpose", np.full((9, 7), np.nan), Code.NOT_FINITE),
        ("endpose/left_gripper", np.full(9, 35.0), Code.UNKNOWN_LAYOUT),
        ("observation/head_camera/rgb", np.array([b"x"] * 8), Code.FRAME_COUNT),
        ("observation/head_camera/rgb", np.array([b"x"] * 9), Code.CORRUPT_IMAGE),
        ("observation", None, Code.UNKNOWN_LAYOUT),
        ("observation/head_camera", None, Code.MISSING_CHANNEL),
    ],
)
def test_defects(tmp_path: Path, key: str, array: np.ndarray | None, code: Code) -> None:
    path = generator.write_legacy(tmp_path, 0, SCENE)
    (ref,) = refs_of(ADAPTER, tmp_path)
    with h5py.File(path, "r+") as file:
        assert len(file["joint_action/left_arm"]) == 9
        del file[key]
        if array is not None:
            file[key] = array
    with pytest.raises(SourceError) as caught:
        ADAPTER.load(ref)
    assert caught.value.code is code, str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("additional_info/frequency", np.int32(0)),
        ("additional_info/frequency", np.float64(16.7)),
        ("instructions", "[1, 2]"),
        ("instructions", "[" * 10_000),
    ],
)
def test_annotations_that_do_not_hold(tmp_path: Path, key: str, value: object) -> None:
    path = generator.write_current(tmp_path, 0, SCENE)
    with h5py.File(path, "r+") as file:
        del file[key]
        file[key] = value
    with pytest.raises(SourceError) as caught:
        only_episode(ADAPTER, tmp_path)
    assert caught.value.code is Code.BAD_ANNOTATION


def test_broken_files_are_found_and_others_are_not_ours(tmp_path: Path) -> None:
    root = tmp_path / "root"
    path = generator.write_legacy(root / "b", 10, SCENE)
    generator.write_current(root / "b", 2, SCENE)
    path.write_bytes(path.read_bytes()[:2000])
    ids = [ref.episode_id for ref in refs_of(ADAPTER, root)]
    assert ids == ["b/episode10", "b/episode_0000002"]
    (root / "b/data/episode11.hdf5").symlink_to(generator.write_legacy(tmp_path / "c", 0, SCENE))
    codes = []
    for ref in refs_of(ADAPTER, root)[:2]:
        with pytest.raises(SourceError) as caught:
            ADAPTER.load(ref)
        codes.append(caught.value.code)
    assert codes == [Code.TRUNCATED, Code.UNSAFE_PATH]
    other = tmp_path / "other/data/episode_0.hdf5"
    other.parent.mkdir(parents=True)
    with h5py.File(other, "w") as file:
        file["action"] = np.zeros((3, 14))
    with pytest.raises(ConfigError, match="none of 1 HDF5 files fits"):
        ADAPTER.survey(tmp_path / "other", {})
