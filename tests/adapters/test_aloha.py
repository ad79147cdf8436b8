"""ALOHA: known values from the scene, each known defect, a real simulated episode."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from adapters.aloha.adapter import Aloha
from ingest.recipe import VideoSettings
from ingest.video.camera_video import frame_clock, write_video
from jobs.demo.raw.scene import Scene
from schemas.episode import ArrayFrames, EncodedImages, Episode
from schemas.errors import Code, SourceError
from schemas.fact import Certainty
from tests.adapters.episode_parts import only_episode, refs_of, values
from tests.generators import aloha as generator

ADAPTER = Aloha()


def one(root: Path, **how: bool) -> tuple[Path, Scene]:
    scene = Scene(seed=1, duration_s=0.4, sides=("left", "right"), width=64, height=48)
    path = root / "lift_box" / "episode_3.hdf5"
    generator.write_episode(path, scene, **how)
    return path, scene


def certainty(episode: Episode, name: str) -> Certainty:
    return next(f.certainty for f in episode.facts if f.name == name)


def test_discovery_is_in_numeric_order(tmp_path: Path) -> None:
    for name in ("b/episode_10", "b/episode_9", "a/episode_0"):
        generator.write_episode(
            tmp_path / f"{name}.hdf5", Scene(duration_s=0.1, width=32, height=32)
        )
    (tmp_path / "a" / "episode_x.hdf5").touch()
    assert [r.episode_id for r in refs_of(ADAPTER, tmp_path)] == [
        "a/episode_0",
        "b/episode_9",
        "b/episode_10",
    ]


def test_values_by_hand(tmp_path: Path) -> None:
    path, _ = one(tmp_path)
    with h5py.File(path, "r+") as file:
        file["observations/qpos"][1] = np.arange(14) / 10
        file["action"][1] = np.arange(14) / 20
    episode = only_episode(ADAPTER, tmp_path)
    joints = episode.stream("joint_position_rad")
    assert joints is not None
    np.testing.assert_allclose(
        joints.values[1], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2], atol=1e-6
    )
    assert (joints.spec.names[5], joints.spec.names[6]) == ("left_wrist_rotate", "right_waist")
    assert joints.t_ns[:2].tolist() == [0, 20_000_000]
    assert values(episode, "left.gripper_opening")[1, 0] == pytest.approx(0.6)
    assert values(episode, "right.gripper_opening")[1, 0] == 1.0  # 1.3 is clipped
    command = episode.stream("command.right.gripper_opening")
    assert command is not None
    assert command.values[1, 0] == pytest.approx(0.65)
    assert command.t_ns[1] == 40_000_000  # due one period after its row
    raw = episode.stream("raw_command")
    assert raw is not None
    assert raw.t_ns[1] == 20_000_000
    np.testing.assert_allclose(raw.values[1], np.arange(14) / 20, atol=1e-6)
    assert episode.embodiment == "aloha_vx300s"
    assert [i.text for i in episode.instructions] == ["lift box"]
    assert all(f.certainty.is_settled for f in episode.facts)


def test_grippers_are_those_of_the_scene(tmp_path: Path) -> None:
    _, scene = one(tmp_path)
    episode = only_episode(ADAPTER, tmp_path)
    for side in ("left", "right"):
        truth = [[scene.gripper_opening(k / 50)] for k in range(20)]
        np.testing.assert_allclose(values(episode, f"{side}.gripper_opening"), truth, atol=1e-6)


@pytest.mark.parametrize("compress", [False, True])
def test_pictures_keep_their_colours(tmp_path: Path, compress: bool) -> None:
    """Red and blue boxes of the scene stay red and blue, raw and as an OpenCV JPEG of an RGB array."""
    _, scene = one(tmp_path, compress=compress)
    (camera,) = only_episode(ADAPTER, tmp_path).cameras
    assert isinstance(camera.frames, EncodedImages if compress else ArrayFrames)
    clock = frame_clock(camera)
    facts = write_video(camera, clock, clock[::5], tmp_path / "o.mp4", VideoSettings())
    if isinstance(camera.frames, EncodedImages):
        assert camera.frames.images[0][-2:] == b"\xff\xd9"  # the padding is gone
    assert facts.source_codec == ("mjpeg" if compress else "rawvideo")
    means = facts.image_stats["mean"].ravel()
    truth = np.mean([scene.picture(k / 50) for k in (0, 5, 10, 15)], axis=(0, 1, 2)) / 255
    np.testing.assert_allclose(means, truth, atol=0.02)
    assert abs(truth[0] - truth[2]) > 0.03  # so that a swap would be seen


def test_mobile_and_compressed_files_settle_less(tmp_path: Path) -> None:
    one(tmp_path, mobile=True)
    episode = only_episode(ADAPTER, tmp_path)
    raw = episode.stream("raw_command")
    assert raw is not None
    assert raw.spec.names[14:] == ("base_linear", "base_angular")
    assert raw.values[0, 14:].tolist() == [0.5, -0.25]
    assert certainty(episode, "gripper_scale") is Certainty.INFERRED
    sure = only_episode(
        ADAPTER, tmp_path, embodiment="aloha_vx300s", rate_hz="30", instruction="Lift it."
    )
    assert certainty(sure, "gripper_scale") is Certainty.CODE
    assert sure.stream("raw_command").t_ns[1] == 33_333_333  # type: ignore[union-attr]
    assert sure.instructions[0].text == "Lift it."


@pytest.mark.parametrize("options", [{}, {"embodiment": "agilex_piper"}])
def test_a_gripper_of_unknown_scale_is_not_named(tmp_path: Path, options: dict[str, str]) -> None:
    path, _ = one(tmp_path)
    if not options:
        with h5py.File(path, "r+") as file:
            file["observations/qpos"][:, 6] = 80.0
    episode = only_episode(ADAPTER, tmp_path, **options)
    assert certainty(episode, "gripper_scale") is Certainty.UNKNOWN
    assert not [s.name for s in episode.streams if "gripper" in s.name]
    assert values(episode, "source_state").shape == (20, 2)


@pytest.mark.parametrize(
    ("key", "array", "code"),
    [
        ("action", np.zeros((19, 14)), Code.SHAPE_MISMATCH),
        ("observations/qpos", np.zeros((20, 7)), Code.SHAPE_MISMATCH),
        ("observations/qpos", np.zeros((0, 14)), Code.EMPTY_EPISODE),
        ("observations/qpos", np.full((20, 14), np.nan), Code.NOT_FINITE),
        ("observations/qpos", None, Code.MISSING_CHANNEL),
        ("observations/images/cam_high", np.zeros((19, 48, 64, 3), np.uint8), Code.FRAME_COUNT),
        ("observations/images/cam_high", np.zeros((20, 9), np.uint8), Code.CORRUPT_IMAGE),
        ("observations/images/cam_high", np.zeros((20, 4, 4)), Code.UNKNOWN_LAYOUT),
    ],
)
def test_defects(tmp_path: Path, key: str, array: np.ndarray | None, code: Code) -> None:
    path, _ = one(tmp_path)
    with h5py.File(path, "r+") as file:
        del file[key]
        if array is not None:
            file[key] = array
    with pytest.raises(SourceError) as caught:
        only_episode(ADAPTER, tmp_path)
    assert caught.value.code is code, str(caught.value)


def test_a_picture_array_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    path, _ = one(tmp_path)
    with h5py.File(path, "r+") as file:
        del file["observations/images/cam_high"]
        file["observations/images/cam_high"] = np.zeros((20, 4, 4, 1), np.uint8)
    (camera,) = only_episode(ADAPTER, tmp_path).cameras
    with pytest.raises(SourceError) as caught:
        frame_clock(camera)
    assert caught.value.code is Code.UNKNOWN_LAYOUT


def test_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    one(tmp_path / "elsewhere")
    root = tmp_path / "root"
    root.mkdir()
    (root / "episode_0.hdf5").symlink_to(tmp_path / "elsewhere/lift_box/episode_3.hdf5")
    with pytest.raises(SourceError) as caught:
        only_episode(ADAPTER, root)
    assert caught.value.code is Code.UNSAFE_PATH


@pytest.mark.real
def test_a_real_simulated_episode(samples: Path) -> None:
    (ref,) = refs_of(ADAPTER, samples / "aloha_sim_hdf5")
    episode = ADAPTER.load(ref)
    joints = episode.stream("joint_position_rad")
    assert joints is not None
    assert joints.t_ns[-1] == 399 * 20_000_000
    np.testing.assert_allclose(joints.values[0, :6], [0, -0.96, 1.16, 0, -0.3, 0], atol=0.02)
    opening, told = (
        values(episode, "right.gripper_opening"),
        values(episode, "command.right.gripper_opening"),
    )
    assert opening[0] > 0.8 or opening[0] < 0.2
    assert np.corrcoef(opening[1:, 0], told[:-1, 0])[0, 1] > 0.75
    (camera,) = episode.cameras
    assert (camera.name, camera.frames.num_frames) == ("top", 400)  # type: ignore[union-attr]
    assert "is_simulation" in {f.name for f in episode.facts}
