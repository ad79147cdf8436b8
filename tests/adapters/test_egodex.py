"""EgoDex: the scene comes back, wrong conventions would show, and each known defect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from adapters.egodex.adapter import EgoDex
from jobs.demo.raw import Written
from jobs.demo.raw import egodex as generator
from jobs.demo.raw.hand_scene import HandScene
from schemas.camera_model import project
from schemas.episode import Episode, VideoSpan
from schemas.errors import Code, SourceError
from schemas.fact import Certainty
from schemas.hand import keypoints21, wrist_axes
from schemas.hand_track import WORLD
from tests.adapters.episode_parts import hand, refs_by_id

ADAPTER = EgoDex()
FIRST, LOST, BARE = "part1/assemble_tower/2", "part1/assemble_tower/10", "test/fold_towel/0"
# The scene's world is z-up, the file's y-up.
Z_FROM_Y = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])


def load(root: Path, name: str = FIRST) -> Episode:
    return ADAPTER.load(refs_by_id(ADAPTER, root)[name])


def edit(root: Path, change: Callable[[h5py.File], None], name: str = FIRST) -> None:
    with h5py.File(root / f"{name}.hdf5", "r+") as file:
        change(file)


def test_hands_come_back_in_the_world(pristine: Written) -> None:
    for name, scene in pristine.scenes.items():
        episode = load(pristine.root, name)
        assert (episode.embodiment, episode.world_up, len(episode.hands)) == (
            "human_hands",
            "+y",
            2,
        )
        for track in episode.hands:
            assert (track.frame, track.layout, track.view) == (WORLD, "arkit25", "ego")
            points, has = keypoints21(track.joints_m, track.layout)
            assert has.all()
            T_src_wrist = wrist_axes(track.wrist_axes).T_src_wrist(track.side)
            for k in np.flatnonzero(track.present)[::7]:
                t_s = track.t_ns[k] / 1e9
                expected = scene.joints_world(t_s, track.side)
                np.testing.assert_allclose(points[k] @ Z_FROM_Y.T, expected, atol=1e-6)
                T = track.T_frame_wrist[k] @ T_src_wrist
                true = scene.T_world_wrist(t_s, track.side)
                np.testing.assert_allclose(Z_FROM_Y @ T[:3, :3], true[:3, :3], atol=1e-6)
                np.testing.assert_allclose(Z_FROM_Y @ T[:3, 3], true[:3, 3], atol=1e-6)


def test_the_skeleton_falls_on_the_hands_in_the_picture(pristine: Written) -> None:
    """World -> camera -> pixels: an inverted or transposed camera pose, or the wrong K, lands elsewhere."""
    episode, scene = load(pristine.root), pristine.scenes[FIRST]
    camera, poses = episode.cameras[0], episode.stream("T_world_cam.ego")
    assert poses is not None
    assert camera.K_size == (scene.width, scene.height)
    track = hand(episode, "left")
    points, _ = keypoints21(track.joints_m, track.layout)
    for k in (0, 20, 44):
        T = poses.values[k]
        in_cam = (points[k] - T[:3, 3]) @ T[:3, :3]
        uv, in_front = project(in_cam, camera.K_cam, camera.lens)
        assert in_front.all()
        t_s = poses.t_ns[k] / 1e9
        expected = scene.project(scene.joints_world(t_s, "left"), t_s)
        np.testing.assert_allclose(uv, expected, atol=0.01)


def test_clock_texts_and_terms(pristine: Written) -> None:
    first, second, bare = (load(pristine.root, name) for name in (FIRST, LOST, BARE))
    assert list(refs_by_id(ADAPTER, pristine.root)) == [FIRST, LOST, BARE]  # 2 before 10
    assert hand(first, "left").t_ns[3] == 100_000_000
    assert first.cameras[0].t_ns is not None
    np.testing.assert_array_equal(first.cameras[0].t_ns, hand(first, "right").t_ns)
    assert first.instructions[0].text == "Assemble the tower of cups."
    assert second.instructions[0].text == "Take the tower of cups apart."  # which_llm_description 2
    assert bare.licence.licence_class == "no_redistribution"
    assert first.scene_id == "session_2"
    assert {r.path for r in first.raw_files} == {f"{FIRST}.hdf5", f"{FIRST}.mp4"}


def test_presence_is_the_wrists_confidence_and_silence_is_unknown(pristine: Written) -> None:
    lost, bare = load(pristine.root, LOST), load(pristine.root, BARE)
    right = hand(lost, "right")
    assert np.flatnonzero(~right.present).tolist() == [20, 21, 22, 23, 24]
    assert hand(lost, "left").present.all()
    assert right.confidence is not None
    assert right.confidence[0] == pytest.approx(0.8)
    assert hand(bare, "right").confidence is None
    assert hand(bare, "right").present.all()
    names = {f.name for f in bare.facts}
    assert {"hand_confidence.left", "hand_confidence.right"} <= names
    assert not any(f.name.startswith("hand_confidence") for f in lost.facts)


def test_what_is_not_settled_says_so(pristine: Written) -> None:
    facts = {f.name: f for f in load(pristine.root).facts}
    assert facts["wrist_axes"].certainty is Certainty.INFERRED
    assert facts["camera_pose"].value == "camera to world, OpenCV axes"
    assert not [f for f in facts.values() if f.is_for_actions and not f.certainty.is_settled]


def test_a_few_of_the_confidences_are_none(root: Path) -> None:
    edit(root, lambda file: file.__delitem__("confidences/rightThumbTip"))
    episode = load(root)
    assert hand(episode, "right").confidence is None
    assert hand(episode, "left").confidence is not None
    assert [f.name for f in episode.facts if f.name.startswith("hand_conf")] == [
        "hand_confidence.right"
    ]


@pytest.mark.parametrize("extra", [2, -3])
def test_the_shorter_of_video_and_rows_counts(tmp_path: Path, extra: int) -> None:
    scene = HandScene(duration_s=0.5, width=64, height=48, focal_px=56.0)
    (tmp_path / "part1/x").mkdir(parents=True)
    generator.write_episode(tmp_path / "part1/x/0", scene, extra_frames=extra)
    episode = load(tmp_path, "part1/x/0")
    frames = episode.cameras[0].frames
    assert isinstance(frames, VideoSpan)
    assert frames.num_frames == len(episode.hands[0].t_ns) == 15 + min(extra, 0)
    (fact,) = (f for f in episode.facts if f.name == "length_clamped")
    assert fact.value.startswith(f"15 rows, {15 + extra} frames")


def test_the_known_intrinsics_are_for_the_full_picture(root: Path) -> None:
    """A smaller copy of the videos keeps its matrix: fx 736.6339 at 1920 x 1080."""
    K = np.float32([[736.6339, 0, 960], [0, 736.6339, 540], [0, 0, 1]])
    edit(root, lambda file: file["camera/intrinsic"].write_direct(K))
    assert load(root).cameras[0].K_size == (1920, 1080)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"which_llm_description": 2}, "Take the tower of cups apart."),  # a number, not a text
        ({"llm_description": ""}, "assemble tower"),
        ({"llm_description": " ", "task": "stack cups"}, "stack cups"),
    ],
)
def test_texts(root: Path, changes: dict[str, object], text: str) -> None:
    edit(root, lambda file: file.attrs.update(changes))
    assert load(root).instructions[0].text == text


def _transposed(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file[f"transforms/{name}"].write_direct(
        np.ascontiguousarray(np.swapaxes(file[f"transforms/{name}"][:], 1, 2))
    )


def _set(name: str, row: int, value: float) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[f"transforms/{name}"][row, :3] = value

    return change


def _linked(file: h5py.File) -> None:
    del file["transforms/leftHand"]
    file["transforms/leftHand"] = h5py.ExternalLink("/etc/passwd", "x")


def _cut(file: h5py.File) -> None:
    short = file["transforms/leftThumbTip"][:-1]
    del file["transforms/leftThumbTip"]
    file["transforms/leftThumbTip"] = short


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda file: file.__delitem__("transforms/leftThumbTip"), Code.MISSING_CHANNEL),
        (lambda file: file.__delitem__("transforms/camera"), Code.MISSING_CHANNEL),
        (lambda file: file.__delitem__("camera/intrinsic"), Code.MISSING_CHANNEL),
        (_cut, Code.SHAPE_MISMATCH),
        (_transposed("camera"), Code.NOT_A_ROTATION),
        (_transposed("leftHand"), Code.NOT_A_ROTATION),
        (_set("rightHand", 4, 2.0), Code.NOT_A_ROTATION),
        (_set("rightThumbTip", 4, np.nan), Code.NOT_FINITE),
        (_set("camera", 4, np.nan), Code.NOT_FINITE),
        (_linked, Code.UNSAFE_CONTENT),
    ],
)
def test_defects(root: Path, change: Callable[[h5py.File], None], code: Code) -> None:
    edit(root, change)
    with pytest.raises(SourceError) as caught:
        load(root)
    assert caught.value.code is code, str(caught.value)


def test_garbage_where_the_hand_is_not_tracked_costs_nothing(root: Path) -> None:
    """The floor says that the numbers mean nothing; NaN or a transposed matrix there is no defect."""
    edit(root, _set("rightHand", 22, np.nan), LOST)
    track = hand(load(root, LOST), "right")
    assert not track.present[22]
    np.testing.assert_array_equal(track.T_frame_wrist[22], np.eye(4))


def test_half_pairs_and_hostile_links(root: Path) -> None:
    (root / f"{FIRST}.mp4").unlink()
    (root / f"{LOST}.hdf5").unlink()
    (root / f"{BARE}.mp4").unlink()
    (root / f"{BARE}.mp4").symlink_to("/etc/hostname")
    found = {
        name: ref.problem and ref.problem[0] for name, ref in refs_by_id(ADAPTER, root).items()
    }
    assert found == {FIRST: "missing_video", LOST: "missing_file", BARE: None}
    with pytest.raises(SourceError) as caught:
        load(root, BARE)
    assert caught.value.code is Code.UNSAFE_PATH
