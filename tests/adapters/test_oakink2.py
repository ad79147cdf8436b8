"""OakInk2: the scene comes back through the parameters, wrong conventions would show, and each known defect."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from adapters.oakink2.adapter import OakInk2
from adapters.oakink2.annotation import frames_of
from benchmarks.raw import mano_model
from benchmarks.raw.mano_model import finger_rotvec
from benchmarks.raw.torch_pickle import Tensor, dumps
from jobs.demo.raw import Written
from jobs.demo.raw.hand_scene import HandScene
from schemas.camera_model import project
from schemas.episode import EncodedImages, Episode
from schemas.errors import Code, SourceError
from schemas.fact import Certainty
from schemas.hand_track import WORLD
from tests.adapters.episode_parts import refs_by_id
from tests.generators import oakink2 as generator

ADAPTER = OakInk2()
FIRST, SECOND = generator.SEQUENCES
Z_FROM_Y = np.linalg.inv(generator.Y_UP)  # the scene's world is z-up, the file's y-up
TIPS = [4, 8, 12, 16, 20]
JOINTS = [k for k in range(21) if k not in TIPS]
SHORT = HandScene(seed=1, duration_s=0.25, width=64, height=48, focal_px=56.0)
Content = dict[str, Any]


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same two, a quarter of a second long, with the head camera alone."""
    root = tmp_path_factory.mktemp("short")
    for name in generator.SEQUENCES:
        generator.write_sequence(root, name, SHORT, ["egocentric"], first_id=0)
    return root


@pytest.fixture
def root(short: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(short, tmp_path / "raw"))


def load(root: Path, name: str = SECOND) -> Episode:
    return ADAPTER.load(refs_by_id(ADAPTER, root)[name])


def test_parameters_come_back_at_120_hz(pristine: Written) -> None:
    """w first, absolute rotations, the wrist itself, each hand its own."""
    for name, scene in pristine.scenes.items():
        episode = load(pristine.root, name)
        assert (episode.embodiment, episode.world_up, episode.rate_hz) == ("human_hands", "+y", 30)
        assert [hand.side for hand in episode.hands] == ["left", "right"]
        for hand in episode.hands:
            pose = hand.mano
            assert pose is not None
            assert pose.hand_rotmat is not None
            assert (hand.frame, hand.view, pose.trans_is) == (WORLD, "egocentric", "wrist")
            assert not pose.has_shapedirs_fix
            assert hand.t_ns[1] == 8_333_333
            assert hand.t_ns[12] == 100_000_000
            for k in np.flatnonzero(hand.present)[::43]:
                t_s = k / generator.MOCAP_HZ
                T = scene.T_world_wrist(t_s, hand.side)
                np.testing.assert_allclose(
                    Z_FROM_Y[:3, :3] @ pose.global_orient[k], T[:3, :3], atol=1e-6
                )
                np.testing.assert_allclose(Z_FROM_Y[:3, :3] @ pose.trans_m[k], T[:3, 3], atol=1e-6)
                fingers = Rotation.from_rotvec(finger_rotvec(scene, t_s, hand.side)).as_matrix()
                np.testing.assert_allclose(pose.hand_rotmat[k], fingers, atol=1e-6)


def test_the_hand_falls_on_the_hand_in_the_picture(pristine: Written, tmp_path: Path) -> None:
    """Through the model, into the camera, onto pixels: a pose that is not inverted or is transposed lands elsewhere."""
    pytest.importorskip("smplx")
    from ingest.models.mano import ManoHands

    model = ManoHands.open(mano_model.write(tmp_path / "mano"), fingertips="smplx")
    episode, scene = load(pristine.root), pristine.scenes[SECOND]
    (camera,), poses = episode.cameras, episode.stream("T_world_cam.egocentric")
    assert poses is not None
    assert camera.K_size == (scene.width, scene.height)
    for hand in episode.hands:
        assert hand.mano is not None
        points, _ = model.joints21_and_wrist(hand.side, hand.mano)
        wrong, _ = model.joints21_and_wrist(hand.side, replace(hand.mano, trans_is="smplx_transl"))
        apart_m = np.linalg.norm(points - wrong, axis=2)[hand.present]
        assert 0.08 < apart_m.min() < apart_m.max() < 0.11
        for frame in (0, 12, 44):
            t_s, T, k = frame / 30, poses.values[frame], 4 * frame
            assert poses.t_ns[frame] == hand.t_ns[k]  # one clock, a picture at every fourth
            truth = scene.joints_world(t_s, hand.side)
            np.testing.assert_allclose(
                points[k, JOINTS] @ Z_FROM_Y[:3, :3].T, truth[JOINTS], atol=1e-6
            )
            in_cam = (points[k, JOINTS] - T[:3, 3]) @ T[:3, :3]
            uv, in_front = project(in_cam, camera.K_cam, camera.lens)
            assert in_front.all()
            np.testing.assert_allclose(uv, scene.project(truth[JOINTS], t_s), atol=0.01)


def test_cameras_pictures_and_lost_frames(pristine: Written) -> None:
    first, second = (load(pristine.root, name) for name in (FIRST, SECOND))
    assert [c.name for c in first.cameras] == list(generator.CAMERAS.values())
    assert [s.name for s in first.streams] == [f"T_world_cam.{c.name}" for c in first.cameras]
    assert first.cameras[0].K_size == generator.AROUND
    left, right = second.hands
    assert left.present.all()
    assert np.flatnonzero(~right.present).tolist() == list(range(60, 90))
    frames, scene = second.cameras[0].frames, pristine.scenes[SECOND]
    assert isinstance(frames, EncodedImages)
    assert len(frames.images) == 45
    picture = cv2.imdecode(np.frombuffer(frames.images[30], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(picture.astype(int) - scene.picture(1.0)).mean() < 4
    assert first.licence.licence_class == "non_commercial"
    assert (first.scene_id, second.scene_id) == ("scene_01", "scene_04")
    assert not [f for f in first.facts if f.is_for_actions and not f.certainty.is_settled]
    assert next(f for f in first.facts if f.name == "world_up").certainty is Certainty.THIRD_PARTY


def test_texts_are_on_the_clock_of_the_episode(pristine: Written) -> None:
    """The first sequence's frame ids begin at 480."""
    told = load(pristine.root, FIRST).instructions
    assert [(i.kind, i.text, i.start_ns, i.end_ns) for i in told] == [
        ("task", "Make a cup of tea.", 0, None),
        ("subtask", "Hold the cup.", 0, 400_000_000),
        ("subtask", "Pour water into the cup.", 400_000_000, 1_000_000_000),
        ("subtask", "Put the kettle down.", 1_000_000_000, 1_500_000_000),
    ]


@pytest.mark.parametrize(
    ("key", "frames"),
    [
        ("((10, 200), None)", (10, 200)),
        ("(None, [0, 5])", (0, 5)),
        ("((10, 200), (5, 190))", (5, 200)),
        ("(None, None)", None),
        ("((10, 10), None)", None),
        ("((10, 20), (30.0, 40))", None),
        ("('[10, 20]', None)", None),
        ("__import__('os').getcwd()", None),
        ("(" * 150, None),
        ("{[]: 1}", None),
        ("(1, 2, 3)", None),
        ("((1, 2), None)" + " " * 200, None),
    ],
)
def test_keys_are_pairs_of_intervals(key: str, frames: tuple[int, int] | None) -> None:
    assert frames_of(key) == frames


def test_labels_that_do_not_hold_cost_only_themselves(root: Path) -> None:
    path = root / f"program/desc_info/{SECOND}.json"
    good = {"((0, 60), None)": {"seg_desc": "Take the cup."}}
    bad = {
        "((9000, 9100), None)": {"seg_desc": "Later."},
        "x": {"seg_desc": "y"},
        "((1, 2), None)": 3,
    }
    path.write_text(json.dumps(good | bad))
    targets = {SECOND.replace("++", "/"): {"task_description": " Wash up. "}}
    (root / "program/task_target.json").write_text(json.dumps(targets))
    episode = load(root)
    assert [i.text for i in episode.instructions] == ["Wash up.", "Take the cup."]
    (broken,) = (f for f in episode.facts if f.name == "labels.broken")
    assert broken.value.startswith("3 left out")
    shutil.rmtree(root / "program")
    episode = load(root)
    assert episode.instructions == ()
    assert {"labels.program", "labels.desc_info"} <= {f.name for f in episode.facts}


def edited(change: Callable[[Content], None]) -> Callable[[Path], None]:
    """The second sequence's annotation, changed."""

    def apply(root: Path) -> None:
        content = generator.annotation(SHORT, ["egocentric"], 0, ())
        change(content)
        annotation_of(root).write_bytes(dumps(content))

    return apply


def annotation_of(root: Path) -> Path:
    return root / "anno_preview" / f"{SECOND}.pkl"


def pictures_of(root: Path) -> Path:
    return root / "data" / SECOND / "104422070969"


def hand(content: Content, key: str, value: Any) -> None:
    content["raw_mano"][7][f"rh__{key}"] = Tensor(value)


def every(content: Content, key: str, change: Callable[[int, np.ndarray], np.ndarray]) -> None:
    table = content[key]["egocentric"]
    content[key]["egocentric"] = {fid: change(fid, value) for fid, value in table.items()}


def no_hands(content: Content) -> None:
    content["raw_mano"] = {}


def linked(root: Path) -> None:
    path = pictures_of(root) / "000008.jpg"
    path.unlink()
    path.symlink_to("/etc/hostname")


QUAT = np.tile([1.0, 0, 0, 0], (1, 16, 1))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (edited(lambda c: c.pop("cam_extr")), Code.MISSING_CHANNEL),
        (edited(lambda c: c["cam_intr"].clear()), Code.MISSING_CHANNEL),
        (edited(lambda c: c["cam_extr"]["egocentric"].clear()), Code.MISSING_CHANNEL),
        (edited(no_hands), Code.MISSING_CHANNEL),
        (edited(lambda c: c.update(raw_mano=[])), Code.UNKNOWN_LAYOUT),
        (edited(lambda c: c.update(cam_selection=["front"])), Code.UNKNOWN_LAYOUT),
        (edited(lambda c: c.update(frame_id_list=[0, 8, 4])), Code.CLOCK_NOT_INCREASING),
        (edited(lambda c: c.update(mocap_frame_id_list=[0, 2**80])), Code.UNKNOWN_LAYOUT),
        (edited(lambda c: c.update(mocap_frame_id_list=["0"])), Code.UNKNOWN_LAYOUT),
        (edited(lambda c: c.update(frame_id_list=[])), Code.EMPTY_EPISODE),
        (edited(lambda c: c["raw_mano"][7].pop("rh__tsl")), Code.CORRUPT_RECORD),
        (edited(lambda c: hand(c, "pose_coeffs", np.zeros((1, 48)))), Code.SHAPE_MISMATCH),
        (edited(lambda c: hand(c, "pose_coeffs", 2 * QUAT)), Code.NOT_A_ROTATION),
        (edited(lambda c: hand(c, "tsl", [[0, np.nan, 0]])), Code.NOT_FINITE),
        (edited(lambda c: every(c, "cam_extr", lambda _, T: T.T.copy())), Code.NOT_A_ROTATION),
        (edited(lambda c: every(c, "cam_intr", lambda fid, K: K + fid)), Code.BAD_ANNOTATION),
        (edited(lambda c: c.update(cam_def={"../../../etc": "egocentric"})), Code.UNSAFE_PATH),
        (lambda root: annotation_of(root).write_bytes(pickle.dumps(print)), Code.UNSAFE_CONTENT),
        (lambda root: (pictures_of(root) / "000008.jpg").unlink(), Code.MISSING_FILE),
        (lambda root: shutil.rmtree(pictures_of(root)), Code.MISSING_FILE),
        (lambda root: (pictures_of(root) / "000000.jpg").write_bytes(b"no"), Code.CORRUPT_IMAGE),
        (linked, Code.UNSAFE_PATH),
        (lambda root: (root / f"program/desc_info/{SECOND}.json").write_text("["), Code.BAD_ANNOTATION),
    ],
)  # fmt: skip
def test_defects(root: Path, change: Callable[[Path], object], code: Code) -> None:
    change(root)
    with pytest.raises(SourceError) as caught:
        load(root)
    assert caught.value.code is code, str(caught.value)


def test_a_camera_pose_that_is_missing_is_not_valid(root: Path) -> None:
    edited(lambda c: c["cam_extr"]["egocentric"].pop(8))(root)
    poses = load(root).stream("T_world_cam.egocentric")
    assert poses is not None
    assert np.flatnonzero(~poses.valid).tolist() == [2]


def test_a_sequence_without_images(root: Path) -> None:
    shutil.rmtree(root / "data" / FIRST)
    found = {
        name: ref.problem and ref.problem[0] for name, ref in refs_by_id(ADAPTER, root).items()
    }
    assert found == {FIRST: "missing_video", SECOND: None}
