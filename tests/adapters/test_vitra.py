"""VITRA: hands, camera and texts come back, frames of the right file, one test for each known defect."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.containers.restricted_pickle import load_npy_object
from adapters.vitra.adapter import Vitra
from benchmarks.raw import mano_model
from jobs.demo.raw import Written
from schemas.camera_model import project
from schemas.episode import Episode, VideoSpan
from schemas.errors import Code, SourceError
from schemas.geometry import inverse
from schemas.hand_track import WORLD
from tests.adapters.episode_parts import hand, refs_by_id
from tests.generators import vitra as generator
from tests.generators.vitra import CUT, EPIC, FIRST, LONG, SECOND, STRETCHED, WHOLE

ADAPTER = Vitra()
BONES = [i for i in range(1, 21) if i % 4]  # MANO's tips are skin, which bulges
Change = Callable[[dict[str, Any]], Any]


def load(root: Path, name: str = FIRST) -> Episode:
    return ADAPTER.load(refs_by_id(ADAPTER, root)[name])


def edit(root: Path, change: Change, name: str = FIRST) -> None:
    value = deepcopy(load_npy_object(root / f"{name}.npy"))  # what it gives is read-only
    change(value)
    generator.save(root, name, value)


def test_hands_come_back_in_the_world(pristine: Written) -> None:
    for name, scene in pristine.scenes.items():
        episode, t0_s = load(pristine.root, name), pristine.t0_s.get(name, 0.0)
        assert (episode.embodiment, episode.world_up, episode.rate_hz) == ("human_hands", None, 30)
        assert [h.side for h in episode.hands] == (
            ["right"] if name == WHOLE else ["left", "right"]
        )
        for track in episode.hands:
            told = (track.frame, track.layout, track.wrist_axes, track.view)
            assert told == (WORLD, "canonical21", "vitra", "ego")
            for k in np.flatnonzero(track.present)[::9]:
                t_s = t0_s + track.t_ns[k] / 1e9
                true = scene.T_world_wrist(t_s, track.side)
                np.testing.assert_allclose(track.T_frame_wrist[k], true, atol=1e-7)
                joints = scene.joints_world(t_s, track.side)
                np.testing.assert_allclose(track.joints_m[k], joints, atol=1e-7)


def test_the_skeleton_falls_on_the_hands_in_the_picture(pristine: Written) -> None:
    """World -> camera -> pixels of the stored picture, whose sides shrank each on its own; an extrinsic not inverted lands elsewhere."""
    for name, scene in pristine.scenes.items():
        episode, poses = (
            load(pristine.root, name),
            load(pristine.root, name).stream("T_world_cam.ego"),
        )
        camera, track = episode.cameras[0], hand(episode, "right")
        assert poses is not None
        assert camera.K_size == (960, 720)
        for k in (0, 12, 44):
            p_cam = np.c_[track.joints_m[k], np.ones(21)] @ inverse(poses.values[k]).T
            uv, in_front = project(p_cam[:, :3], camera.K_cam, camera.lens)
            uv = uv * [scene.width / camera.K_size[0], scene.height / camera.K_size[1]]
            t_s = pristine.t0_s.get(name, 0.0) + k / 30
            expected = scene.project(scene.joints_world(t_s, "right"), t_s)
            assert in_front.all()
            np.testing.assert_allclose(uv, expected, atol=1e-4)


def test_which_frames_of_which_file(pristine: Written) -> None:
    spans = {}
    for name, ref in refs_by_id(ADAPTER, pristine.root).items():
        frames = ADAPTER.load(ref).cameras[0].frames
        assert isinstance(frames, VideoSpan)
        spans[name] = (Path(frames.path).name, frames.first_frame, frames.num_frames)
    assert spans == {
        FIRST: (f"{LONG}.mp4", 0, 45),
        SECOND: (f"{LONG}.mp4", 48, 45),
        STRETCHED: (f"{CUT}.mp4", 0, 48),
        WHOLE: (f"{EPIC}.MP4", 0, 48),
    }
    assert list(spans) == [FIRST, SECOND, STRETCHED, WHOLE]
    facts = {f.name: f.value for f in load(pristine.root, STRETCHED).facts}
    assert facts["video_frames"] == "the file is cut to frames 300 to 347"


@pytest.mark.parametrize(
    ("frames", "first", "t_ms"),  # of a file of 48 frames
    [
        (range(3, 48), 3, [0, 33, 67]),  # the last frame of the original
        (range(0, 90, 2), 0, None),
        (range(1, 96, 2), 0, [0, 33, 67]),  # 48 annotated frames of a cut file: one each
        ([500, 502, 547], 0, [0, 67, 1567]),  # cut to 500..547, of which three are annotated
        (range(4, 49), 0, None),  # one frame short of the original
        (range(300, 347), 0, None),  # neither: 47 frames
    ],
)
def test_frames_are_mapped_by_counts(
    root: Path, frames: range | list[int], first: int, t_ms: list[int] | None
) -> None:
    T, scene = len(frames), generator.SCENES[WHOLE]
    made = generator.episode(scene, EPIC, range(T), sides=("right",))
    generator.save(root, WHOLE, made | {"video_decode_frame": np.array(frames)})
    if t_ms is None:
        with pytest.raises(SourceError, match="48 frames; the episode is frames") as caught:
            load(root, WHOLE)
        assert caught.value.code is Code.FRAME_COUNT
        return
    episode = load(root, WHOLE)
    assert episode.cameras[0].frames.first_frame == first
    np.testing.assert_array_equal(np.round(hand(episode, "right").t_ns[:3] / 1e6), t_ms)
    assert len(hand(episode, "right").t_ns) == T


def test_presence_is_kept_frames_and_an_absent_hand_is_said(pristine: Written) -> None:
    right = hand(load(pristine.root, SECOND), "right")
    assert np.flatnonzero(~right.present).tolist() == [20, 21, 22]
    assert hand(load(pristine.root, SECOND), "left").present.all()
    facts = {f.name: f.value for f in load(pristine.root, WHOLE).facts}
    assert facts["hand_absent.left"] == "kept in no frame: not handed over"


def test_without_any_hand_it_is_a_video(root: Path) -> None:
    edit(root, lambda d: d["right"].update(kept_frames=np.zeros(48)), WHOLE)
    episode = load(root, WHOLE)
    assert (episode.embodiment, episode.hands) == ("human_video", ())


def test_terms_facts_and_names(pristine: Written) -> None:
    first, epic = load(pristine.root), load(pristine.root, WHOLE)
    assert first.licence.licence_class == "no_redistribution"
    assert epic.licence.licence_class == "non_commercial"
    assert (epic.subject_id, first.subject_id, first.scene_id) == ("P01", None, LONG)
    assert [r.path for r in epic.raw_files] == [f"{WHOLE}.npy", f"videos/P01/videos/{EPIC}.MP4"]
    lens = [next(f for f in e.facts if f.name == "picture_lens") for e in (first, epic)]
    assert [f.certainty.value for f in lens] == ["unverified", "documented"]
    assert not [f for f in first.facts if f.is_for_actions and not f.certainty.is_settled]


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        ([], [("Stir.", (0, 45))], [("task", "Stir.", 0, None)]),
        ([("Hold", (0, 45))], [("Stir.", (0, 99))], [("task", "Left hand: Hold. Right hand: Stir.", 0, None)]),
        (
            [("Hold.", (15, 30))],
            [("Stir.", (0, 45))],
            [
                ("subtask", "Stir.", 0, 500),
                ("subtask", "Left hand: Hold. Right hand: Stir.", 500, 1000),
                ("subtask", "Stir.", 1000, None),
            ],
        ),
        ([("Nothing.", (0, 0)), (" ", (3, 9))], [], []),
    ],
)  # fmt: skip
def test_texts(root: Path, left: Any, right: Any, said: list[Any]) -> None:
    edit(root, lambda d: d.update(text={"left": left, "right": right}, text_rephrase=None))
    found = sorted(load(root).instructions, key=lambda i: i.start_ns)
    ends = [None if i.end_ns is None else i.end_ns // 10**6 for i in found]
    assert [(i.kind, i.text, i.start_ns // 10**6) for i in found] == [s[:3] for s in said]
    assert ends == [s[3] for s in said]


def test_the_text_itself_comes_after_its_rewordings(pristine: Written) -> None:
    texts = [i.text for i in load(pristine.root, WHOLE).instructions]
    assert texts == ["Now wave", "Wave", "Wave."]


def _set(*keys: str, value: Any) -> Change:
    def change(d: dict[str, Any]) -> None:
        for key in keys[:-1]:
            d = d[key]
        d[keys[-1]] = value

    return change


def _drop(*keys: str) -> Change:
    return lambda d: (d[keys[0]] if len(keys) > 1 else d).pop(keys[-1])


def _transposed(d: dict[str, Any]) -> None:
    d["extrinsics"] = np.swapaxes(d["extrinsics"], 1, 2)


def _nan_where_kept(d: dict[str, Any]) -> None:
    d["left"]["joints_worldspace"][7] = np.nan


def _sheared(d: dict[str, Any]) -> None:
    d["right"]["global_orient_worldspace"][:, 0] *= 1.1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_drop("extrinsics"), Code.MISSING_CHANNEL),
        (_drop("right", "joints_worldspace"), Code.MISSING_CHANNEL),
        (_set("left", value=3), Code.UNKNOWN_LAYOUT),
        (_set("left", "hand_pose", value=np.zeros((45, 45))), Code.SHAPE_MISMATCH),
        (_set("left", "kept_frames", value=[1] * 44), Code.SHAPE_MISMATCH),
        (_set("left", "beta", value=[[1], [2, 3]]), Code.SHAPE_MISMATCH),
        (_set("left", "beta", value=["x"] * 10), Code.CORRUPT_RECORD),
        (_set("video_decode_frame", value=np.arange(45)[::-1]), Code.CLOCK_NOT_INCREASING),
        (_set("video_decode_frame", value=[]), Code.EMPTY_EPISODE),
        (_set("intrinsics", value=np.zeros((3, 3))), Code.CORRUPT_RECORD),
        (_set("video_name", value=7), Code.CORRUPT_RECORD),
        (_set("video_name", value=CUT), Code.BAD_ANNOTATION),
        (_set("text", value=["x"]), Code.BAD_ANNOTATION),
        (_set("text", "left", value=[("x", (5, 2))]), Code.BAD_ANNOTATION),
        (_set("text", "left", value=[(7, (0, 2))]), Code.BAD_ANNOTATION),
        (_transposed, Code.NOT_A_ROTATION),
        (_sheared, Code.NOT_A_ROTATION),
        (_nan_where_kept, Code.NOT_FINITE),
    ],
)
def test_defects(root: Path, change: Change, code: Code) -> None:
    edit(root, change)
    with pytest.raises(SourceError) as caught:
        load(root)
    assert caught.value.code is code, str(caught.value)


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_that_would_run_something(root: Path, tmp_path: Path) -> None:
    path = root / f"{FIRST}.npy"
    head = path.read_bytes()[:128]
    path.write_bytes(head + pickle.dumps(_Evil(tmp_path / "was_here")))
    with pytest.raises(SourceError) as caught:
        load(root)
    assert caught.value.code is Code.UNSAFE_CONTENT
    assert not (tmp_path / "was_here").exists()


def test_videos_by_name(root: Path, tmp_path: Path) -> None:
    (root / f"videos/{LONG}.mp4").unlink()
    shutil.copy(root / f"videos/{CUT}.mp4", root / f"{CUT}.mp4")
    (root / "Metadata/_ep_1.npy").touch()
    found = {
        name: ref.problem and ref.problem[0] for name, ref in refs_by_id(ADAPTER, root).items()
    }
    assert found == {
        "Metadata/_ep_1": "unknown_layout",
        FIRST: "missing_video",
        SECOND: "missing_video",
        STRETCHED: "unknown_layout",
        WHOLE: None,
    }
    shutil.move(root / "videos", tmp_path / "elsewhere")
    refs = refs_by_id(ADAPTER, root, videos=str(tmp_path / "elsewhere"))
    assert refs[STRETCHED].problem is None
    assert ADAPTER.load(refs[WHOLE]).raw_files[1].path == f"P01/videos/{EPIC}.MP4"
    (tmp_path / f"elsewhere/P01/videos/{EPIC}.MP4").unlink()
    (tmp_path / f"elsewhere/P01/videos/{EPIC}.MP4").symlink_to("/etc/hostname")
    with pytest.raises(SourceError) as caught:
        ADAPTER.load(refs[WHOLE])
    assert caught.value.code is Code.UNSAFE_PATH


@pytest.mark.slow  # torch
@pytest.mark.parametrize("side", ["left", "right"])
def test_mano_gives_the_same_joints(pristine: Written, tmp_path: Path, side: str) -> None:
    """Absolute rotations, translation at the wrist, the left hand through the mirrored right model."""
    from ingest.models.mano import ManoHands

    track = hand(load(pristine.root), side)
    assert track.mano is not None
    hands = ManoHands.open(mano_model.write(tmp_path / "mano"), fingertips="smplx")
    points, wrist = hands.joints21_and_wrist(side, track.mano)
    np.testing.assert_allclose(points[:, BONES], track.joints_m[:, BONES], atol=1e-5)
    np.testing.assert_allclose(points, track.joints_m, atol=2e-3)
    np.testing.assert_allclose(wrist, track.T_frame_wrist, atol=1e-6)
