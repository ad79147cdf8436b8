"""Pose files of other programs: each layout, on the video's own frames, and hostile ones refused."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ingest.transforms.camera_poses import poses_of, with_camera_poses
from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.video_files import write_scene
from schemas.episode import Camera, Episode, EpisodeRef, VideoSpan, VideoWindow
from schemas.errors import Code, SourceError
from schemas.rate import instants_ns

SCENE = HandScene(duration_s=1.0)
COUNT = 30
CAM = np.stack([SCENE.T_world_cam(k / 30) for k in range(COUNT)])


def vipe(folder: Path) -> None:
    (folder / "pose").mkdir(parents=True)
    np.savez(folder / "pose" / "v.npz", data=CAM.astype(np.float32), inds=np.arange(COUNT))


def megasam(folder: Path) -> None:
    folder.mkdir(parents=True)
    np.savez(folder / "v_droid.npz", cam_c2w=CAM, images=np.zeros((2, 4, 4, 3), np.uint8))


def hawor(folder: Path) -> None:
    (folder / "v" / "SLAM").mkdir(parents=True)
    traj = np.concatenate(
        [CAM[:, :3, 3] / 2.5, Rotation.from_matrix(CAM[:, :3, :3]).as_quat()], axis=1
    )
    name = "hawor_slam_w_scale_0_30.npz"
    np.savez(folder / "v" / "SLAM" / name, traj=traj, scale=2.5, tstamp=np.arange(0, 30, 7))


def episode(camera: Camera) -> Episode:
    return Episode(
        ref=EpisodeRef(source="toy", dataset="toy", episode_id="e", root="/videos"),
        embodiment="human_video",
        rate_hz=Fraction(30),
        cameras=(camera,),
    )


@pytest.fixture(autouse=True)
def thirty_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """The spans here have no file: the video is said to have as many frames as the scene."""
    monkeypatch.setattr("ingest.transforms.camera_poses.count_frames", lambda path: COUNT)


def span(first: int = 0, count: int = COUNT) -> Camera:
    t_ns = instants_ns(count, Fraction(30))
    return Camera(
        name="ego",
        frames=VideoSpan(path="/videos/v.mp4", first_frame=first, num_frames=count),
        t_ns=t_ns,
    )


@pytest.mark.parametrize("write", [vipe, megasam, hawor])
def test_each_layout(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / "poses")
    found = with_camera_poses(episode(span()), tmp_path / "poses")
    stream = found.stream("T_world_cam.ego")
    assert stream is not None
    np.testing.assert_allclose(stream.values, CAM, atol=1e-6)
    np.testing.assert_array_equal(stream.t_ns, instants_ns(COUNT, Fraction(30)))
    assert {f.name: f.value for f in found.facts}[
        "camera_pose_source.ego"
    ].lower() == write.__name__


def test_a_part_of_a_video_takes_its_own_frames(tmp_path: Path) -> None:
    megasam(tmp_path / "poses")
    found = with_camera_poses(episode(span(first=12, count=9)), tmp_path / "poses")
    stream = found.stream("T_world_cam.ego")
    assert stream is not None
    np.testing.assert_allclose(stream.values, CAM[12:21])
    assert stream.t_ns[0] == 0


def test_a_window_is_found_by_the_containers_clock(tmp_path: Path) -> None:
    megasam(tmp_path / "poses")
    path = tmp_path / "v.mp4"
    write_scene(path, SCENE)
    window = Camera(name="ego", frames=VideoWindow(path=str(path), start_s=0.39, end_s=0.71))
    stream = with_camera_poses(episode(window), tmp_path / "poses").stream("T_world_cam.ego")
    assert stream is not None
    np.testing.assert_allclose(stream.values, CAM[12:22])  # 0.4 s is the first frame after 0.39 s
    assert stream.t_ns[0] == pytest.approx(10_000_000, abs=40_000)


def test_what_the_source_knows_is_not_replaced(tmp_path: Path) -> None:
    megasam(tmp_path / "poses")
    own = with_camera_poses(episode(span()), tmp_path / "poses")
    vipe(tmp_path / "others")
    assert with_camera_poses(own, tmp_path / "others") is own
    alone = episode(span())
    assert with_camera_poses(alone, tmp_path / "nothing") is alone


def test_the_folder_mirrors_the_raw_root(tmp_path: Path) -> None:
    """HOI4D calls every video image.mp4: one file must not serve them all."""
    megasam(tmp_path / "poses" / "a")
    for where, has_pose in (("/raw/a/v.mp4", True), ("/raw/b/v.mp4", False)):
        camera = replace(span(), frames=VideoSpan(path=where, first_frame=0, num_frames=COUNT))
        ref = EpisodeRef(source="toy", dataset="toy", episode_id="e", root="/raw")
        found = with_camera_poses(replace(episode(camera), ref=ref), tmp_path / "poses")
        assert (found.stream("T_world_cam.ego") is not None) == has_pose


def test_a_scale_that_nobody_measured_bars_the_policy(tmp_path: Path) -> None:
    vipe(tmp_path / "poses")
    found = with_camera_poses(episode(span()), tmp_path / "poses")
    scale = next(f for f in found.facts if f.name == "camera_pose_scale.ego")
    assert scale.is_for_actions
    assert not scale.certainty.is_settled


def spoil(folder: Path, **change: object) -> None:
    folder.mkdir(parents=True)
    np.savez(folder / "v_droid.npz", **{"cam_c2w": CAM} | change)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"cam_c2w": CAM[:, :3]}, Code.SHAPE_MISMATCH),
        ({"cam_c2w": CAM * np.nan}, Code.NOT_FINITE),
        ({"cam_c2w": CAM @ np.diag([1.0, -1, 1, 1])}, Code.NOT_A_ROTATION),
        ({"cam_c2w": np.array([{"a": 1}], dtype=object)}, Code.CORRUPT_RECORD),
        ({"cam_c2w": np.array(["pose"])}, Code.CORRUPT_RECORD),
        ({"cam_c2w": np.float64(1)}, Code.SHAPE_MISMATCH),
        ({"cam_c2w": np.swapaxes(CAM, 1, 2)}, Code.NOT_A_ROTATION),
        ({"cam_c2w": CAM[:20]}, Code.FRAME_COUNT),
    ],
)
def test_bad_poses_are_this_episodes_trouble(
    change: dict[str, object], code: Code, tmp_path: Path
) -> None:
    spoil(tmp_path / "poses", **change)
    with pytest.raises(SourceError) as caught:
        with_camera_poses(episode(span()), tmp_path / "poses")
    assert caught.value.code is code
    assert "v_droid.npz" in str(caught.value)


def test_a_file_that_is_no_archive_or_lacks_its_array(tmp_path: Path) -> None:
    (tmp_path / "v_droid.npz").write_bytes(b"not a zip")
    with pytest.raises(SourceError, match="not a camera pose file"):
        poses_of("v", tmp_path)
    np.savez(tmp_path / "v_droid.npz", depths=CAM)
    with pytest.raises(SourceError, match="cam_c2w"):
        poses_of("v", tmp_path)


def claims_more(folder: Path) -> None:
    """A header of a terabyte in front of nothing."""
    folder.mkdir(parents=True)
    header = io.BytesIO()
    fields = {"shape": (10**10, 4, 4), "fortran_order": False, "descr": "<f8"}
    np.lib.format.write_array_header_1_0(header, fields)
    with zipfile.ZipFile(folder / "v_droid.npz", "w") as archive:
        archive.writestr("cam_c2w.npy", header.getvalue())


def broken_header(folder: Path) -> None:
    folder.mkdir(parents=True)
    text = b"{'descr': '<f8', 'shape': (3, \n"
    with zipfile.ZipFile(folder / "v_droid.npz", "w") as archive:
        archive.writestr(
            "cam_c2w.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
        )


def damaged(folder: Path) -> None:
    folder.mkdir(parents=True)
    np.savez_compressed(
        folder / "v_droid.npz", cam_c2w=np.random.default_rng(0).normal(size=(30, 4, 4))
    )
    data = bytearray((folder / "v_droid.npz").read_bytes())
    data[200:260] = bytes(60)
    (folder / "v_droid.npz").write_bytes(bytes(data))


@pytest.mark.parametrize("write", [claims_more, broken_header, damaged])
def test_hostile_archives_are_this_episodes_trouble(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    write(tmp_path / "poses")
    with pytest.raises(SourceError) as caught:
        with_camera_poses(episode(span()), tmp_path / "poses")
    assert caught.value.code in (Code.CORRUPT_RECORD, Code.TRUNCATED)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.ones(3)])
def test_a_scale_that_cannot_be(scale: object, tmp_path: Path) -> None:
    hawor(tmp_path / "poses")
    path = tmp_path / "poses/v/SLAM/hawor_slam_w_scale_0_30.npz"
    np.savez(path, **dict(np.load(path)) | {"scale": scale})
    with pytest.raises(SourceError, match="scale"):
        poses_of("v", tmp_path / "poses")


def test_poses_of_other_frames_are_not_stretched(tmp_path: Path) -> None:
    (tmp_path / "poses" / "pose").mkdir(parents=True)
    np.savez(tmp_path / "poses" / "pose" / "v.npz", data=CAM[:5], inds=np.arange(5))
    late = episode(replace(span(first=10, count=4)))
    with pytest.raises(SourceError) as caught:
        with_camera_poses(late, tmp_path / "poses")
    assert caught.value.code is Code.NO_COMMON_TIME
