"""TACO: the scene comes back through the parameters, wrong conventions would show, and each known defect."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.containers.restricted_pickle import numbers
from adapters.taco.adapter import Taco
from benchmarks.raw import mano_model
from benchmarks.raw.mano_model import finger_rotvec
from benchmarks.raw.taco_sequence import frame
from benchmarks.raw.torch_pickle import Tensor, dumps
from jobs.demo.raw import Written
from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.video_files import write_scene
from schemas.camera_model import project
from schemas.episode import Episode
from schemas.errors import Code, SourceError
from schemas.hand_track import WORLD
from tests.adapters.episode_parts import refs_by_id
from tests.generators import taco as generator
from tests.pickling import read_by_its_own_library

ADAPTER = Taco()
FIRST, SECOND = generator.SEQUENCES
TIPS = [4, 8, 12, 16, 20]
JOINTS = [k for k in range(21) if k not in TIPS]
Rows = dict[str, dict[str, Any]]


def load(root: Path, name: str = FIRST) -> Episode:
    return ADAPTER.load(refs_by_id(ADAPTER, root)[name])


def test_parameters_come_back(pristine: Written) -> None:
    """The wrist itself, not smplx's translation; each hand its own; the flat hand is zero."""
    for name, scene in pristine.scenes.items():
        episode = load(pristine.root, name)
        assert (episode.embodiment, episode.world_up) == ("human_hands", "+z")
        assert [hand.side for hand in episode.hands] == ["left", "right"]
        for hand in episode.hands:
            pose = hand.mano
            assert pose is not None
            assert pose.hand_axis_angle_rad is not None
            assert (hand.frame, hand.view, pose.trans_is, pose.model) == (
                WORLD,
                "ego",
                "wrist",
                "own",
            )
            assert (pose.is_flat_hand_mean, pose.has_shapedirs_fix) == (True, False)
            for k in np.flatnonzero(hand.present)[::11]:
                t_s = hand.t_ns[k] / 1e9
                T = scene.T_world_wrist(t_s, hand.side)
                np.testing.assert_allclose(pose.global_orient[k], T[:3, :3], atol=1e-6)
                np.testing.assert_allclose(pose.trans_m[k], T[:3, 3], atol=1e-6)
                fingers = finger_rotvec(scene, t_s, hand.side).reshape(45)
                np.testing.assert_allclose(pose.hand_axis_angle_rad[k], fingers, atol=1e-6)


def test_the_hand_falls_on_the_hand_in_the_picture(pristine: Written, tmp_path: Path) -> None:
    """Through the model, into the camera, onto pixels: a pose that is not inverted or is transposed lands elsewhere."""
    pytest.importorskip("smplx")
    from ingest.models.mano import ManoHands

    model = ManoHands.open(mano_model.write(tmp_path / "mano"), fingertips="smplx")
    episode, scene = load(pristine.root), pristine.scenes[FIRST]
    camera, poses = episode.cameras[0], episode.stream("T_world_cam.ego")
    assert poses is not None
    assert camera.K_size == (scene.width, scene.height)
    for hand in episode.hands:
        assert hand.mano is not None
        points, _ = model.joints21_and_wrist(hand.side, hand.mano)
        wrong, _ = model.joints21_and_wrist(hand.side, replace(hand.mano, trans_is="smplx_transl"))
        apart_m = np.linalg.norm(points - wrong, axis=2)
        assert 0.08 < apart_m.min() < apart_m.max() < 0.11
        for k in (0, 20, 44):
            t_s, T = hand.t_ns[k] / 1e9, poses.values[k]
            truth = scene.joints_world(t_s, hand.side)
            np.testing.assert_allclose(points[k, JOINTS], truth[JOINTS], atol=1e-6)
            np.testing.assert_allclose(points[k, TIPS], truth[TIPS], atol=5e-3)  # skin is soft
            in_cam = (points[k, JOINTS] - T[:3, 3]) @ T[:3, :3]
            uv, in_front = project(in_cam, camera.K_cam, camera.lens)
            assert in_front.all()
            np.testing.assert_allclose(uv, scene.project(truth[JOINTS], t_s), atol=0.01)


def test_clock_texts_terms_and_lost_frames(pristine: Written) -> None:
    first, second = (load(pristine.root, name) for name in (FIRST, SECOND))
    assert list(refs_by_id(ADAPTER, pristine.root)) == [FIRST, SECOND]
    assert [i.text for i in first.instructions] == ["pour in some, bowl, plate"]
    assert first.licence.licence_class == "permissive"
    left, right = second.hands
    assert left.t_ns[3] == 100_000_000
    assert left.present.all()
    assert np.flatnonzero(~right.present).tolist() == [20, 21, 22, 23, 24]
    assert second.cameras[0].t_ns is not None
    np.testing.assert_array_equal(second.cameras[0].t_ns, right.t_ns)
    assert len(first.raw_files) == 7
    assert not [f for f in first.facts if f.is_for_actions and not f.certainty.is_settled]


def test_a_smaller_copy_of_the_videos_keeps_its_matrix(root: Path) -> None:
    path = root / "Egocentric_Camera_Parameters" / FIRST / "egocentric_intrinsic.txt"
    path.write_text("1400 0 950\n0 1400 535\n0 0 1\n")
    assert load(root).cameras[0].K_size == (1920, 1080)
    path.write_text("1400 0 2500\n0 1400 535\n0 0 1\n")
    with pytest.raises(SourceError) as caught:
        load(root)
    assert caught.value.code is Code.BAD_ANNOTATION


def hand_file(root: Path, name: str = "right_hand.pkl") -> Path:
    return root / "Hand_Poses" / FIRST / name


def edited(change: Callable[[Rows], None]) -> Callable[[Path], None]:
    """The right hand's rows, changed."""

    def apply(root: Path) -> None:
        scene = HandScene(seed=0, duration_s=1.5)
        rows: Rows = {f"{k + 1:05d}": dict(frame(scene, k / 30, "right")) for k in range(45)}
        change(rows)
        hand_file(root).write_bytes(dumps(rows))

    return apply


def poses(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        path = root / "Egocentric_Camera_Parameters" / FIRST / "egocentric_frame_extrinsic.npy"
        values = change(np.load(path))
        # numpy pickles an array of objects: that such a file is refused is one of the defects below
        np.save(path, values, allow_pickle=values.dtype == object)

    return apply


def lost_frames(root: Path) -> None:
    path = root / "Egocentric_RGB_Videos" / FIRST / "color.mp4"
    write_scene(path, HandScene(duration_s=1.4, width=64, height=48))


def linked(root: Path) -> None:
    hand_file(root).unlink()
    hand_file(root).symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lost_frames, Code.FRAME_COUNT),
        (edited(lambda rows: rows.update({"00046": rows["00001"]})), Code.FRAME_COUNT),
        (edited(lambda rows: rows.update({"1": rows["00001"]})), Code.UNKNOWN_LAYOUT),
        (edited(lambda rows: rows.update({"00000": rows["00001"]})), Code.UNKNOWN_LAYOUT),
        (edited(lambda rows: rows["00007"].pop("hand_trans")), Code.CORRUPT_RECORD),
        (edited(lambda rows: rows["00007"].update(hand_pose=Tensor(np.zeros(51)))), Code.SHAPE_MISMATCH),
        (edited(lambda rows: rows["00007"].update(hand_trans=Tensor([0, np.nan, 0]))), Code.NOT_FINITE),
        (lambda root: hand_file(root).write_bytes(pickle.dumps([1, 2])), Code.UNKNOWN_LAYOUT),
        (lambda root: hand_file(root).write_bytes(pickle.dumps(print)), Code.UNSAFE_CONTENT),
        (lambda root: hand_file(root).write_bytes(hand_file(root).read_bytes()[:-99]), Code.TRUNCATED),
        (lambda root: hand_file(root, "left_hand_shape.pkl").unlink(), Code.MISSING_FILE),
        (linked, Code.UNSAFE_PATH),
        (poses(lambda T: np.swapaxes(T, 1, 2).copy()), Code.NOT_A_ROTATION),
        (poses(lambda T: T * [[2.0], [1], [1], [1]]), Code.NOT_A_ROTATION),
        (poses(lambda T: T[:, :3]), Code.SHAPE_MISMATCH),
        (poses(lambda T: T.astype(object)), Code.CORRUPT_RECORD),
        (poses(lambda T: T[:0]), Code.EMPTY_EPISODE),
    ],
)  # fmt: skip
def test_defects(root: Path, change: Callable[[Path], object], code: Code) -> None:
    change(root)
    with pytest.raises(SourceError) as caught:
        load(root)
    assert caught.value.code is code, str(caught.value)


def test_a_sequence_without_video(root: Path) -> None:
    (root / "Egocentric_RGB_Videos" / SECOND / "color.mp4").unlink()
    found = {
        name: ref.problem and ref.problem[0] for name, ref in refs_by_id(ADAPTER, root).items()
    }
    assert found == {FIRST: None, SECOND: "missing_video"}


def test_torch_reads_what_the_generator_writes() -> None:
    """The generator's pickles are torch's own: torch reads them back, and pickles the same structure."""
    torch = pytest.importorskip("torch")
    values = {"a": np.arange(6.0).reshape(2, 3), "b": np.arange(3)}
    given = {"a": Tensor(values["a"], "f8"), "b": Tensor(values["b"], "i8")}
    for protocol in (2, 4):
        found = read_by_its_own_library(dumps(given, protocol))
        for name, value in values.items():
            assert isinstance(found[name], torch.Tensor)
            np.testing.assert_array_equal(found[name].numpy(), value)


def test_numbers_let_only_axes_of_one_differ() -> None:
    assert numbers(np.zeros((1, 16, 4)), (16, 4), "x").shape == (16, 4)
    for bad in (
        np.zeros((4, 16)),
        np.zeros(64),
        np.zeros((16, 4), dtype=bool),
        None,
        [[0.0] * 4] * 16,
    ):
        with pytest.raises(SourceError):
            numbers(bad, (16, 4), "x")
