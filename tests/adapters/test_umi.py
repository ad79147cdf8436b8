"""UMI: known values from the scene, each known defect. No real UMI store was at hand, only one of its container."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adapters.umi.adapter import Umi
from ingest.recipe import VideoSettings
from ingest.video.camera_video import frame_clock, write_video
from ingest.video.images import array_images
from jobs.demo.raw.scene import Scene
from schemas.embodiment import embodiment_for
from schemas.episode import ArrayFrames, Episode, EpisodeRef
from schemas.errors import Code, ConfigError, SourceError
from schemas.supervision import Task, allowed_tasks
from tests.adapters.episode_parts import refs_of, stream_of
from tests.generators import umi as generator

ADAPTER = Umi()
SMALL = [Scene(seed=k, duration_s=0.2, width=32, height=24) for k in (0, 1)]  # 12 rows each


def test_everything_is_that_of_the_scene(tmp_path: Path) -> None:
    written = generator.write(tmp_path)
    refs = refs_of(ADAPTER, tmp_path)
    assert [r.episode_id for r in refs] == ["cup/dataset/0", "cup/dataset/1", "dish/0"]
    for ref in refs:
        scene, episode = written.scenes[ref.episode_id], ADAPTER.load(ref)
        assert episode.embodiment == ("umi" if len(scene.sides) == 1 else "umi_bimanual")
        for side in scene.sides:
            pose = stream_of(episode, f"{side}.T_base_eef")
            assert pose.t_ns[:3].tolist() == [0, 16_683_333, 33_366_667]
            T_src_hand = embodiment_for(episode.embodiment).arms[side].T_src_hand
            truth = [scene.T_base_hand(t / 1e9, side) for t in pose.t_ns]
            np.testing.assert_allclose(pose.values @ T_src_hand, truth, atol=2e-6)  # float32
            opening = [[scene.gripper_opening(t / 1e9)] for t in pose.t_ns]
            found = stream_of(episode, f"{side}.gripper_opening").values
            np.testing.assert_allclose(found, opening, atol=2e-6)
        (camera,) = episode.cameras
        assert isinstance(camera.frames, ArrayFrames)
        (frame,) = array_images(camera.frames, [7])
        truth_7 = scene.picture(7 * 1001 / 60000)
        np.testing.assert_array_equal(frame.to_ndarray(format="rgb24"), truth_7)
        assert not [s.name for s in episode.streams if s.name.startswith(("command.", "raw_"))]
        tasks, why = allowed_tasks(facts=episode.facts, has_camera=True, action_coverage=1.0)
        assert Task.POLICY in tasks, why


def test_values_by_hand(tmp_path: Path) -> None:
    members = generator.buffer_of(SMALL)
    rotvec = np.zeros((24, 3), np.float32)
    rotvec[12] = [0, 0, np.pi / 2]
    width = np.full((24, 1), 0.02, np.float32)
    width[5] = 0.05  # the widest is in the OTHER episode
    generator.add(members, "data/robot0_eef_rot_axis_angle", rotvec, (50, 3))
    generator.add(members, "data/robot0_gripper_width", width, (50, 1))
    generator.write_zip(tmp_path / "a.zarr.zip", members)
    episode = ADAPTER.load(refs_of(ADAPTER, tmp_path, rate_hz="30", instruction="Wash it.")[1])
    T = stream_of(episode, "left.T_base_eef")
    np.testing.assert_allclose(T.values[0, :3, :3], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-6)
    assert T.t_ns[3] == 100_000_000
    np.testing.assert_allclose(stream_of(episode, "left.gripper_opening").values, 0.4, atol=1e-6)
    assert episode.instructions[0].text == "Wash it."


def test_a_store_can_be_named_directly_and_keeps_its_ids(tmp_path: Path) -> None:
    generator.write_folder(tmp_path / "sub/a.zarr", generator.buffer_of(SMALL))
    generator.write_zip(tmp_path / "sub/b.zarr.zip", generator.buffer_of(SMALL))
    for name, stem in (("a.zarr", "a"), ("b.zarr.zip", "b")):
        refs = refs_of(ADAPTER, tmp_path / "sub" / name)
        assert [r.episode_id for r in refs] == [f"{stem}/0", f"{stem}/1"]
        (camera,) = ADAPTER.load(refs[1]).cameras
        clock = frame_clock(camera)
        facts = write_video(camera, clock, clock[::6], tmp_path / f"{name}.mp4", VideoSettings())
        assert facts.source_codec == "rawvideo"
    assert [r.episode_id for r in refs_of(ADAPTER, tmp_path / "sub")] == [
        "a/0",
        "a/1",
        "b/0",
        "b/1",
    ]


def _array(key: str, values: np.ndarray) -> Callable[[generator.Members], None]:
    return lambda members: generator.add(members, key, values, values.shape)


def _drop(prefix: str) -> Callable[[generator.Members], None]:
    def change(members: generator.Members) -> None:
        for name in [n for n in members if n.startswith(prefix)]:
            del members[name]

    return change


def _three_grippers(members: generator.Members) -> None:
    for robot in (1, 2):
        _array(f"data/robot{robot}_eef_pos", np.zeros((24, 3)))(members)


NAN = np.full((24, 3), np.nan, np.float32)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_array("meta/episode_ends", np.array([12, 25])), Code.CORRUPT_RECORD),  # beyond the rows
        (_array("meta/episode_ends", np.array([12, 12])), Code.CORRUPT_RECORD),  # an empty episode
        (_drop("meta/episode_ends/.zarray"), Code.MISSING_CHANNEL),
        (_drop("data/robot0_gripper_width/.zarray"), Code.MISSING_CHANNEL),
        (_drop("data/robot0_eef_pos/0.0"), Code.MISSING_FILE),
        (_array("data/robot0_eef_pos", NAN), Code.NOT_FINITE),
        (_array("data/robot0_eef_rot_axis_angle", NAN), Code.NOT_FINITE),
        (_array("data/robot0_eef_rot_axis_angle", NAN[:, :2]), Code.SHAPE_MISMATCH),
        (_array("data/robot0_gripper_width", np.full((24, 1), 80.0)), Code.UNKNOWN_LAYOUT),  # mm
        (_array("data/camera0_rgb", np.zeros((5, 4, 4, 3), np.uint8)), Code.FRAME_COUNT),
        (_three_grippers, Code.UNKNOWN_LAYOUT),
    ],
)
def test_defects(tmp_path: Path, change: Callable[[generator.Members], None], code: Code) -> None:
    members = generator.buffer_of(SMALL)
    change(members)
    generator.write_folder(tmp_path / "a.zarr", members)
    ref = refs_of(ADAPTER, tmp_path)[0]
    with pytest.raises(SourceError) as caught:
        _loaded(ref)
    assert caught.value.code is code, str(caught.value)


def _loaded(ref: EpisodeRef) -> Episode:
    if ref.problem is not None:
        raise SourceError(Code(ref.problem[0]), ref.problem[1])
    return ADAPTER.load(ref)


def test_a_missing_picture_is_found_when_it_is_read(tmp_path: Path) -> None:
    generator.write_folder(tmp_path / "a.zarr", generator.buffer_of(SMALL))
    (tmp_path / "a.zarr/data/camera0_rgb/3.0.0.0").unlink()
    (camera,) = ADAPTER.load(refs_of(ADAPTER, tmp_path)[0]).cameras
    assert isinstance(camera.frames, ArrayFrames)
    with pytest.raises(SourceError) as caught:
        list(array_images(camera.frames, range(12)))
    assert caught.value.code is Code.MISSING_FILE


def test_a_broken_store_is_one_broken_episode(tmp_path: Path) -> None:
    generator.write_folder(tmp_path / "a.zarr", generator.buffer_of(SMALL))
    (tmp_path / "b.zarr.zip").write_bytes(b"PK\x03\x04 cut")
    refs = refs_of(ADAPTER, tmp_path)
    assert [(r.episode_id, r.problem and r.problem[0]) for r in refs] == [
        ("a/0", None),
        ("a/1", None),
        ("b", "unreadable"),
    ]


@pytest.mark.real
def test_a_replay_buffer_of_another_robot_is_refused(samples: Path) -> None:
    with pytest.raises(ConfigError, match="no data/robot0_eef_pos"):
        ADAPTER.survey(samples / "zarr_pusht", {})
