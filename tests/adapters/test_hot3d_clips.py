"""HOT3D-Clips: tars read in place, two spellings of the wrist, test clips without hands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from adapters.hot3d.clips import Hot3DClips
from benchmarks.raw.mano_model import MIRROR, WRIST_AT_REST
from jobs.demo.raw.hand_scene import HandScene
from schemas.episode import EncodedImages, Episode
from schemas.errors import Code, SourceError
from tests.adapters.hand_truth import assert_hands_are_true
from tests.adapters.video_clips import problems, refs_of
from tests.generators import hot3d_clips as generator
from tests.generators.hot3d import T_ZUP_YUP
from tests.generators.tar_shards import write_tar

ADAPTER = Hot3DClips()
SCENE = HandScene(seed=8, duration_s=0.3)
Members = dict[str, bytes]


def write(root: Path, change: Callable[[Members], Any] = lambda _: None, **how: Any) -> Path:
    members = generator.members(SCENE, how.pop("headset", "Aria"), **how)
    change(members)
    return write_tar(root / "clip-000001.tar", members)


def load(root: Path) -> Episode:
    (ref,) = refs_of(ADAPTER, root)
    return ADAPTER.load(ref)


@pytest.mark.parametrize("headset", ["Aria", "Quest3"])
def test_hands_and_cameras_are_where_the_scene_had_them(tmp_path: Path, headset: str) -> None:
    """Aria: wrist as the code spells it, 15 parameters. Quest 3: as the README spells it, 16 parameters, y up."""
    write(tmp_path, headset=headset)
    episode = load(tmp_path)
    T_up = None if headset == "Aria" else T_ZUP_YUP
    assert_hands_are_true(episode, SCENE, T_zup_world=T_up)
    assert episode.world_up == ("+z" if headset == "Aria" else "+y")
    assert (episode.subject_id, episode.scene_id) == ("P0001", "P0001_23fa0ee8")
    for hand in episode.hands:
        assert hand.mano is not None
        assert hand.T_frame_wrist is not None
        J0 = WRIST_AT_REST * (MIRROR if hand.side == "left" else 1.0)
        np.testing.assert_allclose(hand.mano.trans_m + J0, hand.T_frame_wrist[:, :3, 3], atol=1e-9)


def test_pictures_are_read_where_they_lie(tmp_path: Path) -> None:
    path = write(tmp_path)
    frames = load(tmp_path).cameras[0].frames
    assert isinstance(frames, EncodedImages)
    picture = cv2.imdecode(np.frombuffer(frames.images[7], np.uint8), cv2.IMREAD_COLOR)
    now, late = (SCENE.picture(k / 30)[..., ::-1].astype(float) for k in (7, 2))
    moved = (now != late).any(axis=-1)
    off = [np.abs(picture - p)[moved].mean() for p in (now, late)]
    assert off[0] < 0.5 * off[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


def test_a_test_clip_has_no_hands(tmp_path: Path) -> None:
    write(tmp_path, has_hands=False)
    episode = load(tmp_path)
    assert episode.hands == ()
    assert episode.embodiment == "human_video"
    assert next(f.value for f in episode.facts if f.name == "hands").startswith("none")
    assert {s.name for s in episode.streams} == {"T_world_cam.rgb"}


def edit(name: str, change: Callable[[Any], Any]) -> Callable[[Members], None]:
    """Change one JSON member."""

    def edited(members: Members) -> None:
        value = json.loads(members[name])
        change(value)
        members[name] = json.dumps(value).encode()

    return edited


def test_frames_without_a_hand_or_mano(tmp_path: Path) -> None:
    def change(members: Members) -> None:
        del members["000000.hands.json"]
        edit("000001.hands.json", lambda h: h.pop("left"))(members)
        edit("000002.hands.json", lambda h: h["left"].pop("umetrack_pose"))(members)
        edit("000003.hands.json", lambda h: h["right"].pop("mano_pose"))(members)

    write(tmp_path, change)
    left, right = load(tmp_path).hands
    assert left.present.tolist() == [False] * 3 + [True] * 6
    assert right.present.tolist() == [False] + [True] * 8
    assert left.mano is not None
    assert right.mano is None


def test_without_shapes_there_are_wrists_only(tmp_path: Path) -> None:
    write(tmp_path, lambda members: members.pop("__hand_shapes.json__"))
    for hand in load(tmp_path).hands:
        assert hand.joints_m is None
        assert hand.mano is None
        assert hand.T_frame_wrist is not None


def scaled(hands: dict[str, Any]) -> None:
    hands["left"]["umetrack_pose"]["T_world_from_wrist"]["quaternion_wxyz"] = [2, 0, 0, 0]


CAMERAS, HANDS, INFO = "000004.cameras.json", "000004.hands.json", "000004.info.json"
BROKEN: dict[str, tuple[Callable[[Members], Any], Code]] = {
    "no cameras": (lambda m: m.pop(CAMERAS), Code.FRAME_COUNT),
    "no picture": (lambda m: m.pop("000004.image_214-1.jpg"), Code.FRAME_COUNT),
    "no instant": (edit(INFO, lambda i: i["image_timestamps_ns"].clear()), Code.FRAME_COUNT),
    "an instant twice": (
        edit(INFO, lambda i: i["image_timestamps_ns"].update({"214-1": 56752108188860})),
        Code.CLOCK_NOT_INCREASING,
    ),
    "no stream of ours": (
        edit("000000.info.json", lambda i: i.update(image_timestamps_ns={"1-1": 1})),
        Code.UNKNOWN_LAYOUT,
    ),
    "no JSON": (lambda m: m.update({HANDS: b"{"}), Code.BAD_ANNOTATION),
    "no wrist": (
        edit(HANDS, lambda h: h["left"]["umetrack_pose"].pop("T_world_from_wrist")),
        Code.BAD_ANNOTATION,
    ),
    "no rotation": (edit(HANDS, scaled), Code.NOT_A_ROTATION),
    "few angles": (
        edit(HANDS, lambda h: h["left"]["umetrack_pose"].update(joint_angles=[0.0] * 7)),
        Code.SHAPE_MISMATCH,
    ),
    "another lens": (
        edit(
            "000000.cameras.json",
            lambda c: c["214-1"]["calibration"].update(projection_model_type="LINEAR"),
        ),
        Code.UNKNOWN_LAYOUT,
    ),
    "no frames": (
        lambda m: [m.pop(name) for name in list(m) if name.endswith("info.json")],
        Code.EMPTY_EPISODE,
    ),
    "a name that leads out": (lambda m: m.update({"../x.jpg": b"x"}), Code.UNSAFE_PATH),
}


@pytest.mark.parametrize("name", BROKEN)
def test_clips_that_do_not_hold(tmp_path: Path, name: str) -> None:
    change, code = BROKEN[name]
    write(tmp_path, change)
    with pytest.raises(SourceError) as caught:
        load(tmp_path)
    assert caught.value.code is code


def test_a_clip_cut_short(tmp_path: Path) -> None:
    path = write(tmp_path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(SourceError) as caught:
        load(tmp_path)
    assert caught.value.code is Code.TRUNCATED


def test_refs_by_folder(tmp_path: Path) -> None:
    written = generator.write(tmp_path / "raw")
    refs = refs_of(ADAPTER, written.root)
    assert [ref.episode_id for ref in refs] == list(written.scenes)
    assert problems(refs) == {}
