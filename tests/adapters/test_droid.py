"""DROID raw: known values from the scene, each known defect. No real episode was at hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from adapters.droid.adapter import Droid
from jobs.demo.raw import droid as generator
from jobs.demo.raw.scene import Scene
from schemas.embodiment import embodiment_for
from schemas.episode import Episode, EpisodeRef, VideoSpan
from schemas.errors import Code, SourceError
from schemas.supervision import Task, allowed_tasks
from tests.adapters.episode_parts import refs_of, stream_of

ADAPTER = Droid()
NAME = "AUTOLab/success/2023-07-07/Fri_Jul__7_09:42:23_2023"
SMALL = Scene(seed=1, duration_s=0.6, width=64, height=48)  # 9 rows


def one(root: Path, **how: object) -> Path:
    generator.write_episode(root / NAME, SMALL, **how)  # type: ignore[arg-type]
    return root / NAME


def load(root: Path) -> Episode:
    (ref,) = refs_of(ADAPTER, root)
    return loaded(ref)


def loaded(ref: EpisodeRef) -> Episode:
    if ref.problem is not None:
        raise SourceError(Code(ref.problem[0]), ref.problem[1])
    return ADAPTER.load(ref)


def fact_of(episode: Episode, name: str) -> str:
    return next(f.value for f in episode.facts if f.name == name)


def test_everything_is_that_of_the_scene(tmp_path: Path) -> None:
    scenes = generator.write(tmp_path).scenes
    for name, scene in scenes.items():
        shutil.rmtree(tmp_path / name)
        generator.write_episode(tmp_path / name, scene, capture_ms=20)
    refs = refs_of(ADAPTER, tmp_path)
    assert [r.episode_id for r in refs] == sorted(scenes)
    for ref, success in zip(refs, (True, False), strict=True):
        scene, episode = scenes[ref.episode_id], ADAPTER.load(ref)
        assert episode.success is success
        T_src_hand = embodiment_for(episode.embodiment).arms["left"].T_src_hand
        state, told = (
            stream_of(episode, "left.T_base_eef"),
            stream_of(episode, "command.left.T_base_eef"),
        )
        # the first picture was captured 20 ms before the first row
        assert state.t_ns[:3].tolist() == [20_000_000, 87_000_000, 153_000_000]
        assert told.t_ns[0] == 86_666_667  # due one period after its row
        for stream in (state, told):
            truth = [scene.T_base_hand(t / 1e9 - 0.02) for t in stream.t_ns]
            np.testing.assert_allclose(stream.values @ T_src_hand, truth, atol=1e-8)
        grip = stream_of(episode, "command.left.gripper_opening")
        truth = [[scene.gripper_opening(t / 1e9 - 0.02)] for t in grip.t_ns]
        np.testing.assert_allclose(grip.values, truth, atol=1e-6)
        wrist, ext = stream_of(episode, "T_base_cam.wrist"), stream_of(episode, "T_base_cam.ext1")
        np.testing.assert_allclose(ext.values[3], scene.T_base_cam, atol=1e-9)
        np.testing.assert_allclose(
            wrist.values[3], state.values[3] @ generator.T_LINK8_WRISTCAM, atol=1e-9
        )


def test_values_by_hand(tmp_path: Path) -> None:
    """Extrinsic xyz: a quarter turn about x, then one about the fixed z."""
    folder = one(tmp_path)
    with h5py.File(folder / "trajectory.h5", "r+") as file:
        file["observation/robot_state/cartesian_position"][0] = [
            0.4,
            0.1,
            0.3,
            np.pi / 2,
            0,
            np.pi / 2,
        ]
        file["observation/robot_state/gripper_position"][0] = 0.25
        file["observation/controller_info/movement_enabled"][4] = False
    episode = load(tmp_path)
    T = stream_of(episode, "left.T_base_eef").values[0]
    np.testing.assert_allclose(
        T, [[0, 0, 1, 0.4], [1, 0, 0, 0.1], [0, 1, 0, 0.3], [0, 0, 0, 1]], atol=1e-12
    )
    assert stream_of(episode, "left.gripper_opening").values[0, 0] == 0.75
    for name in ("command.left.T_base_eef", "command.left.gripper_opening"):
        assert np.flatnonzero(~stream_of(episode, name).valid).tolist() == [4]  # never sent
    raw = stream_of(episode, "raw_command")
    assert raw.spec.names[1] == "cartesian_velocity.y"
    assert raw.values[0, 1] == pytest.approx(0.1)
    assert [i.text for i in episode.instructions] == ["Put the marker in the mug"]
    assert (episode.subject_id, episode.scene_id) == ("84bd5053", "AUTOLab/Tan Hall/1234")


def test_cameras_by_name_with_their_own_times(tmp_path: Path) -> None:
    one(tmp_path)
    wrist, ext1 = load(tmp_path).cameras
    assert (wrist.name, ext1.name) == ("wrist", "ext1")
    assert ext1.t_ns is not None
    assert ext1.t_ns[:2].tolist() == [0, 67_000_000]
    assert len(ext1.t_ns) == 9  # the picture that ended the episode has no row
    assert isinstance(ext1.frames, VideoSpan)
    assert (ext1.frames.first_frame, ext1.frames.num_frames) == (0, 9)
    assert wrist.K_cam is None
    np.testing.assert_allclose(ext1.K_cam, SMALL.K_cam)  # type: ignore[arg-type]
    assert ext1.K_size == (64, 48)


def test_without_metadata_the_file_itself_has_to_do(tmp_path: Path) -> None:
    folder = one(tmp_path, with_metadata=False)
    with h5py.File(folder / "trajectory.h5", "r+") as file:
        del file["observation/timestamp"]
        del file["observation/camera_extrinsics"]
    episode = load(tmp_path)
    files = {c.name: Path(c.frames.path).stem for c in episode.cameras}  # type: ignore[union-attr]
    assert files == {k: generator.SERIALS[k] for k in ("wrist", "ext1")}  # type 0 is the wrist
    assert episode.instructions[0].text == "Move object into or out of container"
    assert stream_of(episode, "left.T_base_eef").t_ns[3] == 200_000_000
    assert fact_of(episode, "clock").startswith("nominal 15 Hz")
    assert fact_of(episode, "camera.ext2").startswith("left out: no 29431508.mp4")


def test_the_folder_decides_on_success_and_axes_bar_the_policy(tmp_path: Path) -> None:
    folder = one(tmp_path)
    with h5py.File(folder / "trajectory.h5", "r+") as file:
        file.attrs["success"] = False
    episode = load(tmp_path)
    assert episode.success is True
    assert "the attribute False" in fact_of(episode, "success_conflict")
    axes = embodiment_for(episode.embodiment).arms["left"].facts("left")
    tasks, why = allowed_tasks(facts=(*episode.facts, *axes), has_camera=True, action_coverage=1.0)
    assert Task.INVERSE_DYNAMICS in tasks
    assert Task.POLICY not in tasks
    assert why == ("eef_axes.left is inferred",)  # nothing else stands in the way


def _h5(key: str, value: np.ndarray) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with h5py.File(folder / "trajectory.h5", "r+") as file:
            del file[key]
            file[key] = value

    return change


def _metadata(**fields: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (path,) = folder.glob("metadata_*.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return change


def _only_svo(folder: Path) -> None:
    for path in list(folder.rglob("*.mp4")):
        path.unlink()
    (folder / "recordings/SVO").mkdir()
    (folder / "recordings/SVO/1.svo").touch()


def _cut(folder: Path) -> None:
    path = folder / "recordings/MP4" / "23007103.mp4"
    path.write_bytes(path.read_bytes()[:300])


STATE = "observation/robot_state"


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        (_only_svo, Code.MISSING_VIDEO, "SVO recordings, which need the ZED SDK"),
        (_cut, Code.CORRUPT_VIDEO, ""),
        (lambda folder: (folder / "trajectory.h5").unlink(), Code.MISSING_FILE, "download it"),
        (_metadata(trajectory_length=10), Code.FRAME_COUNT, "trajectory_length states 10"),
        (_metadata(ext1_cam_serial="../../x"), Code.BAD_ANNOTATION, "camera serial"),
        (
            lambda f: (f / "metadata_2.json").write_text("{}"),
            Code.BAD_ANNOTATION,
            "2 metadata files",
        ),
        (_h5(f"{STATE}/cartesian_position", np.zeros((9, 7))), Code.SHAPE_MISMATCH, ""),
        (_h5(f"{STATE}/joint_positions", np.zeros((8, 7))), Code.SHAPE_MISMATCH, ""),
        (_h5("action/cartesian_position", np.full((9, 6), np.nan)), Code.NOT_FINITE, ""),
        (
            _h5("observation/timestamp/robot_state/read_start", np.full(9, 5)),
            Code.CLOCK_NOT_INCREASING,
            "",
        ),
    ],
)
def test_defects(tmp_path: Path, change: Callable[[Path], object], code: Code, text: str) -> None:
    one(tmp_path / "other")  # so that there is something to survey in any case
    (tmp_path / "other").rename(tmp_path / "z")
    change(one(tmp_path))
    (ref, sound) = refs_of(ADAPTER, tmp_path)
    assert sound.problem is None
    with pytest.raises(SourceError) as caught:
        loaded(ref)
    assert caught.value.code is code, str(caught.value)
    assert text in str(caught.value)


@pytest.mark.parametrize(("extra", "is_sound"), [(0, True), (2, True), (3, False), (-1, False)])
def test_pictures_and_rows(tmp_path: Path, extra: int, is_sound: bool) -> None:
    one(tmp_path, extra_pictures=extra, cameras=("ext1",))
    if is_sound:
        assert load(tmp_path).cameras[0].frames.num_frames == 9  # type: ignore[union-attr]
        return
    with pytest.raises(SourceError) as caught:
        load(tmp_path)
    assert caught.value.code is Code.FRAME_COUNT
