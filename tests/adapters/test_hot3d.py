"""HOT3D's full sequences: UmeTrack's hands, two headsets, masks, and the pictures that may lie beside them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from adapters.aria import vrs
from adapters.hot3d.adapter import Hot3D
from adapters.hot3d.hands import hand_profile, landmarks_m
from adapters.hot3d.pictures import Views, aria_models
from adapters.hot3d.sequence import CAMERA_OF, camera_models
from benchmarks.raw.mano_model import MIRROR, WRIST_AT_REST
from jobs.demo.raw.hand_scene import HandScene
from schemas.camera_model import project
from schemas.episode import EncodedImages, Episode
from schemas.errors import Code, ConfigError, SourceError
from schemas.geometry import geodesic_rad, inverse, transform
from tests.adapters.hand_truth import assert_hands_are_true
from tests.adapters.video_clips import problems, refs_of
from tests.generators import hot3d as generator
from tests.generators.headset_hand import hand_model

ADAPTER = Hot3D()
SCENE = HandScene(seed=9, duration_s=0.5)
NAME = "P0001_00000000"
T_UP = {"Aria": None, "Quest3": generator.T_ZUP_YUP}


def write(root: Path, headset: str = "Aria", *, pictures: bool = False) -> Path:
    generator.write_sequence(root / NAME, SCENE, headset, pictures=pictures)
    return root / NAME


def load(root: Path, **options: str) -> Episode:
    (ref,) = refs_of(ADAPTER, root, **options)
    return ADAPTER.load(ref)


def fact(episode: Episode, name: str) -> str:
    return next(f.value for f in episode.facts if f.name == name)


def edit_lines(path: Path, change: Callable[[int, dict[str, Any]], None]) -> None:
    """Change every frame of a pose table in place."""
    frames = [json.loads(line) for line in path.read_text().splitlines()]
    for number, frame in enumerate(frames):
        change(number, frame)
    path.write_text("\n".join(json.dumps(frame) for frame in frames) + "\n")


@pytest.mark.parametrize("headset", ["Aria", "Quest3"])
def test_hands_and_cameras_are_where_the_scene_had_them(tmp_path: Path, headset: str) -> None:
    write(tmp_path, headset, pictures=True)
    episode = load(tmp_path)
    assert_hands_are_true(episode, SCENE, T_zup_world=T_UP[headset])
    assert episode.world_up == {"Aria": "+z", "Quest3": "+y"}[headset]
    (camera,) = episode.cameras
    assert camera.name == {"Aria": "rgb", "Quest3": "slam_left"}[headset]
    assert {hand.view for hand in episode.hands} == {camera.name}
    assert camera.t_ns is not None
    np.testing.assert_allclose(np.diff(camera.t_ns), 1e9 / 30, atol=1e3)
    assert episode.subject_id == "P0001"
    assert episode.licence.licence_class == "non_commercial"


def test_of_two_exposures_of_a_frame_the_first_counts(tmp_path: Path) -> None:
    write(tmp_path)
    episode = load(tmp_path)
    assert len(episode.hands[0].t_ns) == 15
    for clock in (episode.hands[0].t_ns, episode.streams[0].t_ns):
        assert set(np.diff(clock).tolist()) == {generator.PERIOD_NS}
    assert fact(episode, "second_exposures").startswith("15 of 30 rows")


def test_mano_goes_along_and_is_not_the_wrist(tmp_path: Path) -> None:
    write(tmp_path)
    for hand in load(tmp_path).hands:
        assert hand.mano is not None
        assert hand.T_frame_wrist is not None
        J0 = WRIST_AT_REST * (MIRROR if hand.side == "left" else 1.0)
        np.testing.assert_allclose(hand.mano.trans_m + J0, hand.T_frame_wrist[:, :3, 3], atol=1e-9)
        angle = geodesic_rad(hand.mano.global_orient, hand.T_frame_wrist[:, :3, :3])
        np.testing.assert_allclose(np.rad2deg(angle), 6.0, atol=1e-6)
        assert (hand.mano.trans_is, hand.mano.is_flat_hand_mean) == ("smplx_transl", False)
        np.testing.assert_array_equal(hand.mano.hand_pca[3], generator.THETAS)
        np.testing.assert_allclose(hand.mano.betas, generator.BETAS)


def test_one_hinge_by_hand() -> None:
    """The left index is bent by 90 degrees at its second joint: what points along +x then points along -y (the palm)."""
    profile = hand_profile(hand_model(), "profile")
    angles = np.zeros((1, 22))
    angles[0, 4 + 2] = np.pi / 2
    T = transform(np.eye(3), [0.5, 0.0, 0.0])[None]
    flat = landmarks_m(profile, np.zeros((1, 22)), T, "left")[0]
    bent = landmarks_m(profile, angles, T, "left")[0]
    length = np.linalg.norm(flat[1] - flat[9])  # index tip, index intermediate
    np.testing.assert_allclose(bent[1], flat[9] - [0, length, 0], atol=1e-12)
    np.testing.assert_array_equal(bent[[0, 2, 5, 8, 9]], flat[[0, 2, 5, 8, 9]])
    right = landmarks_m(profile, angles, T, "right")[0]
    np.testing.assert_allclose(right, [1.0, 0, 0] + bent * [-1, 1, 1], atol=1e-12)


def test_a_missing_key_is_a_hand_that_is_not_there(tmp_path: Path) -> None:
    folder = write(tmp_path)
    edit_lines(
        folder / "umetrack_hand_pose_trajectory.jsonl",
        lambda k, frame: frame["hand_poses"].pop("1") if k < 20 else None,
    )
    left, right = load(tmp_path).hands
    assert left.present.all()
    assert right.side == "right"
    assert right.present.tolist() == [False] * 10 + [True] * (len(right.t_ns) - 10)
    assert right.mano is not None


def test_mano_with_gaps_is_left_out(tmp_path: Path) -> None:
    folder = write(tmp_path)
    edit_lines(
        folder / "mano_hand_pose_trajectory.jsonl",
        lambda k, frame: frame["hand_poses"].pop("0") if k in (4, 5) else None,
    )
    episode = load(tmp_path)
    assert [hand.mano is None for hand in episode.hands] == [True, False]
    assert fact(episode, "mano.left") == "left out: 1 of 15 frames have none"


def test_mano_alone_is_a_hand_too(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "umetrack_hand_pose_trajectory.jsonl").unlink()
    for hand in load(tmp_path).hands:
        assert hand.T_frame_wrist is None
        assert hand.joints_m is None
        assert hand.mano is not None
        assert hand.present.all()


def test_masks_take_hands_and_camera_poses_out(tmp_path: Path) -> None:
    folder = write(tmp_path)
    for name, rows in (("hand_visible", (3, 4)), ("headset_pose_available", (8,))):
        path = folder / "masks" / f"mask_{name}.csv"
        header, *lines = path.read_text().splitlines()
        lines = [s.replace("True", "False") if k in rows else s for k, s in enumerate(lines)]
        path.write_text("\n".join([header, *lines]))
    episode = load(tmp_path)
    expected = np.ones(15, dtype=bool)
    expected[[3, 4, 8]] = False
    for hand in episode.hands:
        np.testing.assert_array_equal(hand.present, expected)
    assert np.flatnonzero(~episode.streams[0].valid).tolist() == [8]
    assert fact(episode, "masked_out").startswith("3 of 15 hand samples")


def test_a_line_that_comes_twice(tmp_path: Path) -> None:
    """Word for word: once is enough. The same instant with another pose: which one?"""
    folder = write(tmp_path)
    path = folder / "umetrack_hand_pose_trajectory.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], lines[2], *lines[3:]]))
    assert len(load(tmp_path).hands[0].t_ns) == len(lines) // 2
    path.write_text("\n".join([*lines[:3], lines[2].replace("1.0}", "0.5}"), *lines[3:]]))
    with pytest.raises(SourceError) as caught:
        load(tmp_path)
    assert caught.value.code is Code.CLOCK_NOT_INCREASING


def test_no_pictures_is_said(tmp_path: Path) -> None:
    folder = write(tmp_path)
    episode = load(tmp_path)
    assert episode.cameras == ()
    assert {hand.view for hand in episode.hands} == {None}
    assert {s.name for s in episode.streams} == {"T_world_cam.rgb"}
    assert "recording.vrs is not there" in fact(episode, "pictures")
    (folder / "recording.vrs").write_bytes(b"no VRS")
    if not vrs.is_readable():
        assert "projectaria-tools" in fact(load(tmp_path), "pictures")


def test_pictures_elsewhere_and_as_files(tmp_path: Path) -> None:
    write(tmp_path / "raw")
    pictures = tmp_path / "video" / NAME / "214-1"
    pictures.mkdir(parents=True)
    for k in range(15):
        picture = cv2.cvtColor(SCENE.picture(k / 30), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(pictures / f"214-1-{k}.jpg"), picture)
    episode = load(tmp_path / "raw", video=str(tmp_path / "video"))
    (camera,) = episode.cameras
    assert isinstance(camera.frames, EncodedImages)
    found = cv2.imdecode(np.frombuffer(camera.frames.images[10], np.uint8), cv2.IMREAD_COLOR)
    truth = cv2.imread(str(pictures / "214-1-10.jpg"))
    np.testing.assert_array_equal(found, truth)  # 10 comes after 9, not after 1
    (pictures / "214-1-3.jpg").unlink()
    with pytest.raises(SourceError) as caught:
        load(tmp_path / "raw", video=str(tmp_path / "video"))
    assert caught.value.code is Code.FRAME_COUNT


def in_metres(model: dict[str, Any]) -> None:
    model["landmark_rest_positions"] = (np.array(model["landmark_rest_positions"]) / 1e3).tolist()


BROKEN_PROFILES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "metres": in_metres,
    "scaled": lambda m: m.update(hand_scale=1.2),
    "an 18th bone": lambda m: m["landmark_rest_bone_indices"][3].__setitem__(0, 17),
    "too few": lambda m: m.update(joint_rotation_axes=m["joint_rotation_axes"][:19]),
    "weights": lambda m: m["landmark_rest_bone_weights"][3].__setitem__(0, 0.5),
    "no key": lambda m: m.pop("joint_rest_positions"),
    "no number": lambda m: m.update(joint_rest_positions="x"),
}


@pytest.mark.parametrize("name", BROKEN_PROFILES)
def test_a_profile_that_is_no_hand(name: str) -> None:
    model = json.loads(json.dumps(hand_model()))
    BROKEN_PROFILES[name](model)
    with pytest.raises(SourceError) as caught:
        hand_profile(model, "profile")
    assert caught.value.code is Code.BAD_ANNOTATION


BROKEN_FILES = {
    ("umetrack_hand_pose_trajectory.jsonl", "{"): Code.BAD_ANNOTATION,
    ("umetrack_hand_pose_trajectory.jsonl", '{"timestamp_ns": 1}'): Code.BAD_ANNOTATION,
    ("metadata.json", "[]"): Code.BAD_ANNOTATION,
    ("headset_trajectory.csv", "timestamp[ns]\n1\n"): Code.MISSING_CHANNEL,
    ("masks/mask_qa_pass.csv", "timestamp[ns],stream_id,mask\n1,214-1,yes"): Code.BAD_ANNOTATION,
    (
        "masks/mask_qa_pass.csv",
        f"timestamp[ns],stream_id,mask\n{1 << 63},214-1,True",
    ): Code.BAD_ANNOTATION,
    ("umetrack_hand_user_profile.json", "{}"): Code.BAD_ANNOTATION,
    ("camera_models.json", "{}"): Code.BAD_ANNOTATION,
}


@pytest.mark.parametrize(("name", "text"), BROKEN_FILES)
def test_tables_that_do_not_hold(tmp_path: Path, name: str, text: str) -> None:
    folder = write(tmp_path, "Quest3")
    (folder / name).write_text(text)
    with pytest.raises(SourceError) as caught:
        load(tmp_path)
    assert caught.value.code is BROKEN_FILES[name, text]


def test_what_discovery_and_survey_refuse(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "metadata.json").unlink()
    assert problems(refs_of(ADAPTER, tmp_path)) == {NAME: "missing_meta"}
    shutil.rmtree(folder)
    with pytest.raises(ConfigError):
        ADAPTER.survey(tmp_path, {})


# --- the real sequences -------------------------------------------------------------------------------------------------

EXPECTED_DEG = {  # MANO's wrist against UmeTrack's, a constant of each hand
    ("Aria", "left"): 7.15,
    ("Aria", "right"): 5.76,
    ("Quest3", "left"): 5.23,
    ("Quest3", "right"): 1.63,
}


def real(samples: Path) -> dict[str, tuple[Path, Episode]]:
    root = samples / "hot3d" / "data_sample"
    refs = refs_of(ADAPTER, root)
    return {r.episode_id.split("/")[0]: (root / r.episode_id, ADAPTER.load(r)) for r in refs}


@pytest.mark.real
def test_real_wrists_of_two_models_differ_by_a_constant(samples: Path) -> None:
    for headset, (_, episode) in real(samples).items():
        for hand in episode.hands:
            assert hand.present.all()
            assert hand.mano is not None
            assert hand.T_frame_wrist is not None
            turn = geodesic_rad(hand.mano.global_orient, hand.T_frame_wrist[:, :3, :3])
            assert np.rad2deg(turn.mean()) == pytest.approx(
                EXPECTED_DEG[headset, hand.side], abs=0.05
            )
            assert np.rad2deg(turn.std()) < 0.3
            away = np.linalg.norm(hand.mano.trans_m - hand.T_frame_wrist[:, :3, 3], axis=1)
            assert ((away > 0.06) & (away < 0.12)).all(), "smplx transl is not the wrist"


@pytest.mark.real
def test_real_landmarks_fall_into_the_published_boxes(samples: Path) -> None:
    """Whole chain: kinematics, mirror rule, headset pose, calibration, lens. Boxes are of the whole hand, skin and all."""
    checked = 0
    for folder, episode in real(samples).values():
        views = Views()
        aria_models(folder, folder, views)
        text = folder / "camera_models.json"
        if text.is_file():
            found = camera_models(text.read_text(), text.name)
            views.models = {CAMERA_OF[s]: m for s, m in found.items() if s in CAMERA_OF}
        first = (folder / "umetrack_hand_pose_trajectory.jsonl").read_text().splitlines()[0]
        zero_ns = json.loads(first)["timestamp_ns"]
        with (folder / "box2d_hands.csv").open() as file:
            for row in csv.DictReader(file):
                if float(row["visibility_ratio[%]"]) > 0.9:  # 0 to 1 despite the name
                    checked += 1
                    _assert_in_box(row, episode, views, int(row["timestamp[ns]"]) - zero_ns)
    assert checked > 100


def _assert_in_box(row: dict[str, str], episode: Episode, views: Views, t_ns: int) -> None:
    name = CAMERA_OF[row["stream_id"]]
    hand = episode.hands[int(row["hand_index"])]
    path = episode.stream(f"T_world_cam.{name}")
    assert path is not None
    T = inverse(path.values[np.abs(path.t_ns - t_ns).argmin()])
    assert hand.joints_m is not None
    points = hand.joints_m[np.abs(hand.t_ns - t_ns).argmin()]
    model = views.models[name]
    uv, in_front = project(points @ T[:3, :3].T + T[:3, 3], model.K_cam, model.lens)
    low = np.array([float(row["x_min[pixel]"]), float(row["y_min[pixel]"])])
    high = np.array([float(row["x_max[pixel]"]), float(row["y_max[pixel]"])])
    assert in_front.all()
    assert (uv > low - 4).all()
    assert (uv < high + 4).all()
    assert (np.ptp(uv, axis=0) > 0.5 * (high - low)).all(), "a hand fills its box"
