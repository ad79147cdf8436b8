"""RH20T: known values from the scene and by hand, each known defect. No real scene was at hand."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.containers.restricted_pickle import load_npy_object
from adapters.rh20t.adapter import Rh20t
from adapters.rh20t.calibration import Calibration
from adapters.rh20t.configurations import CONFIGURATIONS
from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene
from schemas.embodiment import embodiment_for
from schemas.episode import Episode
from schemas.errors import Code, ConfigError, SourceError
from schemas.supervision import Task, allowed_tasks
from tests.adapters.episode_parts import refs_of, stream_of
from tests.generators import rh20t as generator
from tests.generators.rh20t import CALIB_MS, FIXED, START_MS, save

ADAPTER = Rh20t()
SMALL = Scene(seed=1, duration_s=0.5, width=64, height=36)  # 6 pictures
NAME = "task_0001_user_0002_scene_0003_cfg_0003"
FOLDER = f"RH20T_cfg3/{NAME}"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rh20t")
    generator.write_scene(root / FOLDER, SMALL, 3)
    return root


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    shutil.copytree(pristine, tmp_path, dirs_exist_ok=True)
    return tmp_path / FOLDER


def loaded(folder: Path) -> Episode:
    (ref,) = refs_of(ADAPTER, folder.parents[1])
    if ref.problem is not None:
        raise SourceError(Code(ref.problem[0]), ref.problem[1])
    return ADAPTER.load(ref)


def facts_of(episode: Episode) -> dict[str, tuple[str, str]]:
    return {f.name: (f.value, f.certainty.value) for f in episode.facts}


def change(path: Path, edit: Callable[[Any], Any]) -> None:
    value = load_npy_object(path)
    save(path, edit(value) or value)


def metadata(folder: Path, **fields: Any) -> None:
    path = folder / "metadata.json"
    record = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({k: v for k, v in record.items() if v is not None}))


def tcp_row(folder: Path, serial: str, stamp: int, row: dict[str, Any]) -> None:
    def edit(by_serial: Any) -> None:
        next(r for r in by_serial[serial] if r["timestamp"] == stamp).update(row)

    change(folder / "transformed/tcp_base.npy", edit)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return generator.write(tmp_path_factory.mktemp("rh20t_whole"))


def test_everything_is_that_of_the_scene(written: Written) -> None:
    """Three robots with three frames of their own end in one; the rows of both cameras make one stream."""
    refs = refs_of(ADAPTER, written.root)
    assert [r.episode_id for r in refs] == sorted(written.scenes)
    for ref, number in zip(refs, (1, 5, 3), strict=True):
        scene, episode = written.scenes[ref.episode_id], ADAPTER.load(ref)
        pose = stream_of(episode, "left.T_base_eef")
        assert pose.t_ns[:4].tolist() == [0, 3_000_000, 100_000_000, 103_000_000]
        assert pose.t_ns[-1] == 2_003_000_000  # and nothing after the finish
        T_src_hand = embodiment_for(episode.embodiment).arms["left"].T_src_hand
        truth = [scene.T_base_hand(t / 1e9) for t in pose.t_ns]
        np.testing.assert_allclose(pose.values @ T_src_hand, truth, atol=1e-9)
        for name in ("left.gripper_opening", "command.left.gripper_opening"):
            grip = stream_of(episode, name)
            opening = [[scene.gripper_opening(t / 1e9)] for t in grip.t_ns]
            np.testing.assert_allclose(grip.values, opening, atol=1e-9)
        hand, tc_mat, align_tcp, *_ = generator.SETUPS[number]
        for camera in episode.cameras:
            assert camera.t_ns is not None
            assert len(camera.t_ns) == 21
            still = stream_of(episode, f"T_base_cam.{camera.name}").values
            assert camera.K_size == (1280, 720)
            np.testing.assert_allclose(camera.K_cam, generator.K_1280(scene))  # type: ignore[arg-type]
            if camera.name == f"cam_{hand}":
                carried = pose.values @ np.linalg.inv(align_tcp) @ np.linalg.inv(tc_mat)
                np.testing.assert_allclose(still, carried, atol=1e-9)
            else:
                np.testing.assert_allclose(still, [scene.T_base_cam] * 21, atol=1e-9)
        assert (episode.success, episode.subject_id) == (True, "user_0010")
        text = {1: "Press the button from top to bottom", 3: "Wipe the table with a cloth"}
        assert episode.instructions[0].text == text[3 if number == 3 else 1]


def test_only_what_is_inferred_bars_the_policy(folder: Path) -> None:
    episode = loaded(folder)
    axes = embodiment_for(episode.embodiment).arms["left"].facts("left")
    tasks, why = allowed_tasks(facts=(*episode.facts, *axes), has_camera=True, action_coverage=1.0)
    assert Task.INVERSE_DYNAMICS in tasks
    assert Task.POLICY not in tasks
    assert why == ("eef_axes.left is inferred",)


def test_values_by_hand(folder: Path) -> None:
    """UR5: a quarter turn about x, base turned by 180 and tool by 90 degrees about z; 55 of 110 mm."""
    root_half = np.sqrt(0.5)
    tcp_row(folder, FIXED, START_MS, {"tcp": [0.4, 0.1, 0.3, root_half, root_half, 0, 0]})

    def half(by_serial: Any) -> None:
        by_serial[FIXED][START_MS]["gripper_info"] = [55, 0, 0]

    change(folder / "transformed/gripper.npy", half)
    episode = loaded(folder)
    wanted = [[0, 1, 0, -0.4], [0, 0, 1, -0.1], [1, 0, 0, 0.3], [0, 0, 0, 1]]
    np.testing.assert_allclose(stream_of(episode, "left.T_base_eef").values[0], wanted, atol=1e-12)
    assert stream_of(episode, "left.gripper_opening").values[0, 0] == pytest.approx(0.5)
    assert stream_of(episode, "joint_position_rad").spec.shape == (6,)


@pytest.mark.parametrize("number", CONFIGURATIONS)
def test_the_in_hand_camera_sees_every_aligned_tool_alike(number: int) -> None:
    setup = CONFIGURATIONS[number]
    R = (setup.T_cam_tcp @ setup.T_tcp_aligned)[:3, :3]
    right, down, forward = R  # of the camera, in tool axes
    np.testing.assert_allclose(
        [right, down, forward], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12
    )


@pytest.mark.parametrize(
    ("robot", "raw"),
    [
        ("Flexiv Rizon", [0.4, 0.1, 0.3, 0.5, 0.5, 0.5, 0.5]),
        ("UR5", [0.4, 0.1, 0.3, 0.5, 0.5, 0.5, 0.5]),
        # half a turn about (0, 1, 1), to which the reader adds half a turn about x
        ("Franka", [0.4, 0.1, 0.3, 0, np.pi / np.sqrt(2), np.pi / np.sqrt(2)]),
        ("KUKA iiwa", [400, 100, 300, np.pi / 2, 0, np.pi / 2]),
    ],
)
def test_each_robot_states_the_tool_in_its_own_form(
    robot: str, raw: list[float], tmp_path: Path
) -> None:
    np.save(tmp_path / "tcp.npy", np.array(raw))
    calibration = Calibration(folder=tmp_path, where="calib/1", is_named=True, intrinsics={})
    R = [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    if robot == "Franka":
        R = [[-1, 0, 0], [0, 0, 1], [0, 1, 0]] @ np.diag([1, -1, -1])
    T = calibration.T_base_tcp(robot)
    np.testing.assert_allclose(T[:3, :3], R, atol=1e-12)
    np.testing.assert_allclose(T[:3, 3], [0.4, 0.1, 0.3])


def test_metadata_that_says_less(folder: Path) -> None:
    metadata(folder, finish_time=None, rating=None, calib=-1)
    episode = loaded(folder)
    assert episode.success is None
    assert facts_of(episode)["finish_time"][0] == "not cut"
    assert len(episode.cameras[0].t_ns) == 6 + generator.EXTRA  # type: ignore[arg-type]
    assert all(camera.K_cam is None for camera in episode.cameras)
    assert not [s.name for s in episode.streams if s.name.startswith("T_base_cam")]
    metadata(folder, rating=1)
    assert loaded(folder).success is False


def test_a_calibration_that_was_never_released(folder: Path) -> None:
    """The nearest EARLIER one stands in for it, and says so; a later one never does."""
    metadata(folder, calib=CALIB_MS + 7)
    calib = folder.parent / "calib"
    for other in (CALIB_MS - 50, CALIB_MS + 8):
        shutil.copytree(calib / str(CALIB_MS), calib / str(other))
    episode = loaded(folder)
    value, certainty = facts_of(episode)["calibration"]
    assert value == f"{CALIB_MS}, the nearest earlier one: {CALIB_MS + 7} is not there"
    assert certainty == facts_of(episode)["extrinsics"][1] == "inferred"
    assert episode.cameras[0].K_cam is not None
    metadata(folder, calib=CALIB_MS - 51)
    assert facts_of(loaded(folder))["calibration"][0].startswith("none")


def test_poses_that_the_robot_did_not_state_are_not_valid(folder: Path) -> None:
    tcp_row(folder, FIXED, START_MS + 100, {"tcp": np.zeros(7)})
    tcp_row(folder, FIXED, START_MS + 200, {"tcp": np.full(7, np.nan)})
    pose = stream_of(loaded(folder), "left.T_base_eef")
    assert (pose.t_ns[~pose.valid] / 1e6).tolist() == [100, 200]


@pytest.mark.parametrize("how", ["missing", "degrees"])
def test_joints_that_are_left_out(folder: Path, how: str) -> None:
    path = folder / "transformed/joint.npy"
    if how == "missing":
        path.unlink()
    else:
        change(path, lambda d: {s: {t: 60 * q for t, q in r.items()} for s, r in d.items()})
    episode = loaded(folder)
    assert episode.stream("joint_position_rad") is None
    assert facts_of(episode)["joint_position"][0].startswith("left out")


def test_cameras_without_pictures_are_left_out(folder: Path) -> None:
    (folder / f"cam_{FIXED}/color.mp4").unlink()
    late = folder / "cam_f999"
    shutil.copytree(folder / "cam_045322071843", late)
    save(late / "timestamps.npy", {"color": [], "depth": []})
    episode = loaded(folder)
    assert [camera.name for camera in episode.cameras] == ["cam_045322071843"]
    assert facts_of(episode)[f"camera.cam_{FIXED}"][0] == "left out: no color.mp4"
    assert facts_of(episode)["camera.cam_f999"][0] == "left out: no picture has a stamp"


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def _npy(name: str, edit: Callable[[Any], Any]) -> Callable[[Path], None]:
    return lambda folder: change(folder / name, edit)


def _rows(name: str, row: dict[str, Any]) -> Callable[[Path], None]:
    return _npy(f"transformed/{name}.npy", lambda d: {s: _with(r, row) for s, r in d.items()})


def _with(rows: Any, row: dict[str, Any]) -> Any:
    if isinstance(rows, dict):
        return {stamp: {**old, **row} for stamp, old in rows.items()}
    return [{**old, **row} for old in rows]


def _stamps(edit: Callable[[list[int]], list[Any]]) -> Callable[[Path], None]:
    return _npy(f"cam_{FIXED}/timestamps.npy", lambda d: {**d, "color": edit(d["color"])})


def _cut_video(folder: Path) -> None:
    path = folder / f"cam_{FIXED}/color.mp4"
    path.write_bytes(path.read_bytes()[:200])


def _link_out(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        outside = folder.parents[2] / f"outside_{folder.parents[1].name}"
        shutil.move(folder / name, outside)
        (folder / name).symlink_to(outside)

    return change


def _thousandfold(tcp: Any) -> Any:
    return {s: [{**r, "tcp": np.asarray(r["tcp"]) * 1000} for r in rows] for s, rows in tcp.items()}


DEFECTS: list[tuple[Callable[[Path], object], Code, str]] = [
    (lambda f: (f / "metadata.json").unlink(), Code.MISSING_FILE, "download it"),
    (lambda f: (f / "transformed/tcp_base.npy").unlink(), Code.MISSING_FILE, "tcp_base.npy"),
    (lambda f: (f / f"cam_{FIXED}/timestamps.npy").unlink(), Code.MISSING_FILE, "timestamps.npy"),
    (lambda f: [p.unlink() for p in f.rglob("color.mp4")], Code.MISSING_VIDEO, "color.mp4"),
    (lambda f: (f / "metadata.json").write_text("[]"), Code.BAD_ANNOTATION, "object"),
    (lambda f: metadata(f, finish_time="soon"), Code.BAD_ANNOTATION, "finish_time"),
    (lambda f: metadata(f, finish_time=5), Code.EMPTY_EPISODE, "after the finish"),
    (_cut_video, Code.CORRUPT_VIDEO, ""),
    (_link_out(f"cam_{FIXED}"), Code.UNSAFE_PATH, "outside"),
    (_link_out("transformed/tcp_base.npy"), Code.UNSAFE_PATH, "outside"),
    (_link_out(f"../calib/{CALIB_MS}/tcp.npy"), Code.UNSAFE_PATH, "outside"),
    (_stamps(lambda ms: ms[:-1]), Code.FRAME_COUNT, "9 images for 8 timestamps"),
    (_stamps(lambda ms: [ms[1], *ms[1:]]), Code.CLOCK_NOT_INCREASING, "repeat or decrease"),
    (_stamps(lambda ms: [t / 1000 for t in ms]), Code.CORRUPT_RECORD, "integer milliseconds"),
    (_stamps(lambda ms: [t // 1000 for t in ms]), Code.UNKNOWN_LAYOUT, "milliseconds since 1970"),
    (_stamps(lambda ms: ["now"] * len(ms)), Code.CORRUPT_RECORD, "stamps"),
    (_npy("transformed/tcp_base.npy", _thousandfold), Code.NOT_A_ROTATION, "quaternion norms"),
    (_npy("transformed/tcp_base.npy", lambda d: {"a": 3}), Code.UNKNOWN_LAYOUT, "expected a list"),
    (_rows("tcp_base", {"tcp": np.zeros(7)}), Code.EMPTY_EPISODE, "every pose"),
    (_rows("tcp_base", {"tcp": np.ones(6)}), Code.SHAPE_MISMATCH, "at least 7"),
    (_rows("tcp_base", {"tcp": "x"}), Code.CORRUPT_RECORD, "rows"),
    (_npy("transformed/tcp_base.npy", lambda d: {s: [{"time": 1}] for s in d}), Code.MISSING_CHANNEL, "['time']"),
    (_rows("gripper", {"gripper_info": [700, 1, 1]}), Code.UNKNOWN_LAYOUT, "expected millimetres"),
    (_npy("transformed/gripper.npy", lambda d: {s: {} for s in d}), Code.EMPTY_EPISODE, "no rows"),
    (lambda f: save(f / "transformed/gripper.npy", {"a": _Evil()}), Code.UNSAFE_CONTENT, ""),
    (lambda f: (f / "transformed/gripper.npy").write_bytes(b"no npy"), Code.CORRUPT_RECORD, ""),
    (lambda f: np.save(f.parent / f"calib/{CALIB_MS}/tcp.npy", np.ones(6)), Code.CORRUPT_RECORD, "expected 7"),
    (lambda f: save(f.parent / f"calib/{CALIB_MS}/tcp.npy", {"a": 1}), Code.CORRUPT_RECORD, "not a .npy file of numbers"),
    (lambda f: save(f.parent / f"calib/{CALIB_MS}/extrinsics.npy", {FIXED: [np.ones((4, 4))]}), Code.CORRUPT_RECORD, "not a rotation"),
    (lambda f: save(f.parent / f"calib/{CALIB_MS}/intrinsics.npy", {FIXED: np.ones((3, 4))}), Code.CORRUPT_RECORD, "not a camera matrix"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "code", "text"), DEFECTS)
def test_defects(folder: Path, spoil: Callable[[Path], object], code: Code, text: str) -> None:
    spoil(folder)
    with pytest.raises(SourceError) as caught:
        loaded(folder)
    assert caught.value.code is code, str(caught.value)
    assert text in str(caught.value)


def test_roots_names_and_options(folder: Path) -> None:
    root = folder.parents[1]
    shutil.copytree(folder, root / "RH20T" / FOLDER)
    whole = refs_of(ADAPTER, root)
    assert [(r.episode_id, r.problem and r.problem[0]) for r in whole] == [
        (NAME, None),
        (FOLDER, "unknown_layout"),
    ]
    for other in (root / "RH20T", root / "RH20T/RH20T_cfg3"):
        assert [r.episode_id for r in refs_of(ADAPTER, other)] == [NAME]
    texts = root / "sentences.json"
    texts.write_text(json.dumps(generator.TEXTS))
    assert refs_of(ADAPTER, root / "RH20T_cfg3", task_description=str(texts))[0].at("text")
    assert "no sentence for 1 tasks" in ADAPTER.survey(root, {}).notes[0]
    texts.write_text('{"task_0001": "press"}')
    for where, options in ((root, {"task_description": str(texts)}),):
        with pytest.raises(ConfigError):
            ADAPTER.survey(where, options)
