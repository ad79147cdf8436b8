"""Aria: tables of the perception services, exported pictures, and (with the extra) recordings themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from adapters.aria import vrs
from adapters.aria.adapter import Aria
from adapters.aria.mps import fits, is_gen1, online_calibration, read_hands, read_trajectory
from adapters.aria.vrs import exported_video
from adapters.containers.poses import T_TURNED_CAM, fisheye_camera, turned_clockwise
from jobs.demo.raw.hand_scene import HandScene
from schemas.camera_model import project
from schemas.episode import EncodedImages, Episode
from schemas.errors import Code, SourceError
from schemas.geometry import geodesic_rad, inverse
from schemas.hand import fit_palm, keypoints21
from tests.adapters.hand_truth import assert_hands_are_true
from tests.adapters.video_clips import problems, refs_of
from tests.generators import aria as generator
from tests.generators.hot3d import T_DEVICE_CAM

ADAPTER = Aria()
SCENE = HandScene(seed=7, duration_s=0.5)
needs_extra = pytest.mark.skipif(
    not vrs.is_readable(), reason="NOT RUN: projectaria-tools is not installed (extra aria)"
)


def write(root: Path, *, pictures: bool = True) -> Path:
    generator.write_recording(root / "mps", SCENE)
    if pictures:
        generator.write_video(root / "recording.mp4", SCENE)
    return root / "mps"


def load(root: Path) -> Episode:
    (ref,) = refs_of(ADAPTER, root)
    return ADAPTER.load(ref)


def code_of(root: Path) -> Code:
    with pytest.raises(SourceError) as caught:
        load(root)
    return caught.value.code


@pytest.mark.parametrize("pictures", [True, False])
def test_hands_and_camera_are_where_the_scene_had_them(tmp_path: Path, pictures: bool) -> None:
    write(tmp_path, pictures=pictures)
    episode = load(tmp_path)
    start_s = 0.0 if pictures else 0.005  # the trajectory's row before the first hand
    assert_hands_are_true(episode, SCENE, start_s=start_s)
    assert bool(episode.cameras) is pictures
    assert {(h.frame, h.view) for h in episode.hands} == {("rgb", "rgb" if pictures else None)}
    assert episode.world_up == "+z"
    assert min(int(s.t_ns[0]) for s in episode.streams) == 0
    left = episode.hands[0]
    assert left.confidence is not None
    assert set(left.confidence.ravel()) == {0.97}


def test_the_first_version_and_missing_hands(tmp_path: Path) -> None:
    generator.write_recording(tmp_path, SCENE, has_wrist=False, absent=(3, 6))
    episode = load(tmp_path)
    assert_hands_are_true(episode, SCENE, start_s=0.005)
    left, right = episode.hands
    assert (left.T_frame_wrist, right.T_frame_wrist) == (None, None)
    assert left.present.all()
    assert np.flatnonzero(~right.present).tolist() == [3, 4, 5]


def test_gen1_pictures_are_upright_and_the_camera_with_them(tmp_path: Path) -> None:
    """The sensor lies on its side: its calibration is of the unturned picture, and the exporter turns the picture."""
    sensor = HandScene(seed=7, duration_s=0.5, width=SCENE.height, height=SCENE.width)
    folder = tmp_path / "mps"
    generator.write_recording(folder, SCENE, T_device_cam=T_DEVICE_CAM)
    lines = [
        generator.calibration_line(t_us, sensor, T_DEVICE_CAM @ T_TURNED_CAM)
        for t_us in (generator.START_US, generator.START_US + 10**5)
    ]
    text = "\n".join(lines).replace("slam-front-left", "camera-slam-left")
    (folder / "slam" / "online_calibration.jsonl").write_text(text)
    generator.write_video(tmp_path / "recording.mp4", SCENE)
    assert_hands_are_true(load(tmp_path), SCENE)


def test_a_turned_camera_gives_the_turned_picture() -> None:
    """Whatever the lens: pixel (u, v) of the sensor comes to (height - 1 - v, u)."""
    rng = np.random.default_rng(3)
    params = [240.0, 322.5, 236.1, *rng.normal(0, 0.05, 6), *rng.normal(0, 0.01, 6)]
    camera = fisheye_camera("x", params, T_DEVICE_CAM, (640, 480))
    turned = turned_clockwise(camera)
    assert turned.size == (480, 640)
    points = np.concatenate([rng.uniform(-0.5, 0.5, (50, 2)), np.ones((50, 1))], axis=1)
    in_turned = inverse(turned.T_device_cam) @ camera.T_device_cam
    seen, _ = project(points, camera.K_cam, camera.lens)
    again, _ = project(points @ in_turned[:3, :3].T, turned.K_cam, turned.lens)
    np.testing.assert_allclose(again, np.stack([479 - seen[:, 1], seen[:, 0]], axis=1), atol=1e-9)


def test_pictures_that_come_twice(tmp_path: Path) -> None:
    """1 ns after themselves; a time that goes back is refused, and so is one too few."""
    times = [10**12 + k * 33_333_333 for k in range(15)]
    cases: dict[str, tuple[list[int], Code | None]] = {
        "twice": ([*times[:5], times[4], times[4], *times[7:]], None),
        "back": ([*times[:5], times[3], *times[6:]], Code.CLOCK_NOT_INCREASING),
        "few": (times[:-1], Code.FRAME_COUNT),
    }
    for name, (stamps, code) in cases.items():
        path = tmp_path / f"{name}.mp4"
        generator.write_video(path, SCENE, stamps)
        if code is None:
            video = exported_video(path)
            assert video.num_repeated == 2
            assert video.t_ns is not None
            assert (video.t_ns[4:8] - times[4]).tolist() == [0, 1, 2, times[7] - times[4]]
            continue
        with pytest.raises(SourceError) as caught:
            exported_video(path)
        assert caught.value.code is code


def rewrite(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


def test_the_trajectory_of_another_time_or_world(tmp_path: Path) -> None:
    folder = write(tmp_path)
    path = folder / "slam" / "closed_loop_trajectory.csv"
    header, *rows = path.read_text().splitlines()
    other = [row.replace(generator.GRAPH, "other") for row in rows[-20:]]
    path.write_text("\n".join([header, *rows[:-20], *other]))
    (stream,) = load(tmp_path).streams
    lost = np.flatnonzero(
        ~stream.valid
    )  # the last rows come after the last picture and are not needed
    assert lost.tolist() == list(range(lost[0], len(stream.t_ns)))
    assert 0 < len(lost) < 20
    path.write_text("\n".join([header, rows[0], rows[1]]))  # ends before the first picture
    episode = load(tmp_path)
    assert episode.streams == ()
    assert episode.world_up is None
    (tmp_path / "recording.mp4").unlink()
    assert code_of(tmp_path) is Code.MISSING_CHANNEL


@pytest.mark.parametrize(("gravity", "up"), [("0,-9.81,0", "+y"), ("6,6,-5", None)])
def test_gravity_says_what_is_up(tmp_path: Path, gravity: str, up: str | None) -> None:
    folder = write(tmp_path, pictures=False)
    rewrite(
        folder / "slam" / "closed_loop_trajectory.csv",
        lambda text: text.replace("0.000000000,0.000000000,-9.810000000", gravity),
    )
    assert load(tmp_path).world_up == up


HANDS = "hand_tracking/hand_tracking_results.csv"
CALIBRATION = "slam/online_calibration.jsonl"
BROKEN: dict[str, tuple[str, Callable[[str], str], Code]] = {
    "confidence": (HANDS, lambda t: t.replace(",0.97,", ",97,"), Code.BAD_ANNOTATION),
    "cut off": (HANDS, lambda t: t[: -len(t) // 3], Code.TRUNCATED),
    "no number": (HANDS, lambda t: t.replace(",0.97,", ",high,"), Code.CORRUPT_RECORD),
    "no landmarks": (HANDS, lambda t: t.replace("landmark_20", "x"), Code.MISSING_CHANNEL),
    "no rows": (HANDS, lambda t: t.splitlines()[0] + "\n", Code.EMPTY_EPISODE),
    "no JSON": (CALIBRATION, lambda _: "{", Code.BAD_ANNOTATION),
    "another lens": (CALIBRATION, lambda t: t.replace("RadTan", "Rad"), Code.UNKNOWN_LAYOUT),
    "no RGB": (CALIBRATION, lambda t: t.replace("camera-rgb", "camera-et"), Code.MISSING_META),
}


@pytest.mark.parametrize("name", BROKEN)
def test_tables_that_do_not_hold(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path)
    path, change, code = BROKEN[name]
    rewrite(folder / path, change)
    assert code_of(tmp_path) is code


def test_what_belongs_together(tmp_path: Path) -> None:
    written = generator.write(tmp_path)
    (tmp_path / "alone.vrs").write_bytes(b"no VRS")
    refs = refs_of(ADAPTER, written.root)
    assert problems(refs) == {}
    found = {r.episode_id: (r.at("hands"), r.at("vrs"), r.at("video")) for r in refs}
    table = "hand_tracking/hand_tracking_results.csv"
    assert found == {
        "alone": ("", "alone.vrs", ""),
        "kitchen": (f"kitchen/mps/{table}", "", "kitchen/recording.mp4"),
        "walk": (f"mps_walk_vrs/{table}", "", "walk.mp4"),
    }
    with pytest.raises(SourceError) as caught:
        ADAPTER.load(refs[0])
    assert caught.value.code is Code.UNREADABLE  # no extra, or no VRS file


# --- real files ---------------------------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_real_gen1_hands(samples: Path, version: str) -> None:
    """Wrist at landmark 5, its normal -y, the palm's by the documented product; the palm fit finds the native axes."""
    name = f"hand_tracking_results_{version}.csv"
    path = samples / "aria" / "gen1_mps_sample" / "hand_tracking" / name
    hands, _ = read_hands(path, name)
    assert [int((h.confidence >= 0).sum()) for h in hands] == [3, 3]
    for hand in hands:
        there = hand.confidence >= 0
        points = hand.landmarks_m[there]
        assert hand.T_device_wrist is not None
        T = hand.T_device_wrist[there]
        np.testing.assert_allclose(points[:, 5], T[:, :3, 3], atol=1e-6)
        palm = np.cross(points[:, 17] - points[:, 5], points[:, 8] - points[:, 5])
        palm *= 1 if hand.side == "left" else -1
        cosine = np.einsum("na,na->n", palm, -T[:, :3, 1]) / np.linalg.norm(palm, axis=1)
        assert (cosine > 0.9).all(), "the palm looks along -y of the wrist"
        k21, has = keypoints21(points, "aria_mps21")
        fit = fit_palm(k21, has, hand.side)
        assert np.rad2deg(geodesic_rad(fit.T_ref_wrist[:, :3, :3], T[:, :3, :3]).max()) < 12


@pytest.mark.real
def test_the_real_gen1_trajectory_and_calibration(samples: Path) -> None:
    folder = samples / "aria" / "gen1_mps_sample" / "trajectory"
    path, _ = read_trajectory(folder / "closed_loop_trajectory.csv", "trajectory")
    assert path.world_up == "+z"
    assert path.valid.all()
    assert 900 < 1e9 / np.median(np.diff(path.t_ns)) < 1100
    old, _ = online_calibration(folder / "online_calibration.jsonl", folder)
    new, _ = online_calibration(folder / "online_calibration_v1_1_0.jsonl", folder)
    assert is_gen1(old)
    assert is_gen1(new)
    assert (old["camera-rgb"].size, new["camera-rgb"].size) == (None, (1408, 1408))
    assert fits(old["camera-rgb"], (2880, 2880))
    assert not fits(old["camera-rgb"], (1408, 1408))
    # The device is the left mono camera of this generation, up to what the estimate moved it.
    np.testing.assert_allclose(old["camera-slam-left"].T_device_cam, np.eye(4), atol=0.01)


@pytest.mark.real
def test_the_real_gen1_sample_is_of_two_times(samples: Path) -> None:
    root = samples / "aria" / "gen1_mps_sample"
    refs = refs_of(ADAPTER, root)
    assert len(refs) == 2
    for ref in refs:
        with pytest.raises(SourceError, match="neither a trajectory of that time nor images"):
            ADAPTER.load(ref)


@needs_extra
@pytest.mark.real
def test_real_gen2_landmarks_lie_on_the_hands(samples: Path) -> None:
    """Skin is redder than the office: the joints' pixels are, those across the picture are not."""
    root = samples / "aria" / "gen2"
    episode = load(root)
    (camera,) = episode.cameras
    assert isinstance(camera.frames, EncodedImages)
    assert camera.t_ns is not None
    assert camera.K_cam is not None
    assert episode.world_up == "+z"
    assert [int(h.present.sum()) for h in episode.hands] == [9, 9]
    seen = []
    for k, t_ns in enumerate(camera.t_ns):
        data = np.frombuffer(camera.frames.images[k], np.uint8)
        picture = cv2.GaussianBlur(cv2.imdecode(data, cv2.IMREAD_COLOR), (0, 0), 5).astype(float)
        redness = picture[..., 2] - picture[..., 0]
        for hand in episode.hands:
            assert hand.joints_m is not None
            flat = hand.joints_m.reshape(len(hand.t_ns), -1)
            if not hand.t_ns[0] <= t_ns <= hand.t_ns[-1]:
                continue
            points = np.array([np.interp(t_ns, hand.t_ns, column) for column in flat.T])
            uv, _ = project(points.reshape(-1, 3), camera.K_cam, camera.lens)
            height, width = redness.shape
            inside = ((uv > 0) & (uv < [width - 1, height - 1])).all(axis=1)
            on, off = (
                np.median(redness[tuple(np.round(at[inside][:, ::-1]).astype(int).T)])
                for at in (uv, uv * [-1, 1] + [width - 1, 0])
            )
            if inside.sum() > 15:
                seen.append((on, off))
    assert len(seen) >= 3
    assert all(on > off + 10 for on, off in seen), seen


@needs_extra
@pytest.mark.real
def test_real_calibrations_project_as_the_authors_do(samples: Path) -> None:
    from projectaria_tools.core import calibration, data_provider

    files = ("aria/gen2/aria_gen2_unit_test_sequence_with_bluetooth.vrs",)
    files += ("hot3d/aria_sample_recording/sequence.vrs",)
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-0.6, 0.6, (200, 2)), np.ones((200, 1))], axis=1)
    for name in files:
        path = str(samples / name)
        theirs = data_provider.create_vrs_data_provider(path).get_device_calibration()
        for label, camera in vrs.VrsFile(path).cameras().items():
            their = theirs.get_camera_calib(label)
            pairs = [(camera, their)]
            pairs.append((turned_clockwise(camera), calibration.rotate_camera_calib_cw90deg(their)))
            for mine, his in pairs:
                uv, _ = project(points, mine.K_cam, mine.lens)
                truth = [his.project(p) for p in points]
                seen = [k for k, p in enumerate(truth) if p is not None]
                assert len(seen) > 50
                np.testing.assert_allclose(uv[seen], np.array([truth[k] for k in seen]), atol=1e-6)
                T = his.get_transform_device_camera().to_matrix()
                np.testing.assert_allclose(mine.T_device_cam, T, atol=1e-6)


@needs_extra
@pytest.mark.real
def test_a_real_gen1_recording_is_shown_upright(samples: Path) -> None:
    """HOT3D's: one picture a stream, TIME_CODE known, the RGB picture turned against the sensor."""
    recording = vrs.open_vrs(samples / "hot3d" / "aria_sample_recording" / "sequence.vrs")
    cameras = recording.cameras()
    shown, is_turned = vrs.shown_camera(cameras, vrs.RGB)
    assert is_turned
    assert recording.picture_times_ns(vrs.RGB, timecode=True).tolist() == [56_368_174_925_008]
    upright, sideways = (
        cv2.imdecode(
            np.frombuffer(recording.pictures(vrs.RGB, is_turned=turn)[0], np.uint8), 0
        ).astype(float)
        for turn in (True, False)
    )
    assert np.abs(np.rot90(sideways, -1) - upright).mean() < 2
    assert shown.size == upright.shape[::-1]
