"""Ego-Exo4D's hands: joints and camera come back in each segment, sparse labels are not joined, broken files cost no neighbour."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.ego_exo4d.adapter import EgoExo4D
from jobs.demo.raw import Written
from schemas.episode import Episode
from schemas.errors import Code, SourceError
from schemas.hand_track import WORLD, HandTrack
from tests.adapters.episode_parts import hand
from tests.adapters.video_clips import by_id, refs_of
from tests.generators import ego_exo4d as generator
from tests.generators.ego_exo4d import BIKE, COOK, HANDS, SILENT, dump

ADAPTER = EgoExo4D()
WHOLE, LATER, SAID = f"{COOK}/keystep/0", f"{COOK}/keystep/1", f"{COOK}/atomic/0.0"


def load(root: Path, name: str = WHOLE, **options: str) -> Episode:
    return ADAPTER.load(by_id(refs_of(ADAPTER, root, **options))[name])


def labels(root: Path, kind: str = "automatic", split: str = "train", uid: str = COOK) -> Path:
    return root / "annotations" / "ego_pose" / split / "hand" / kind / f"{uid}.json"


def frames_of(track: HandTrack, start_s: float = 0.0) -> list[int]:
    return np.round((track.t_ns[track.present] / 1e9 + start_s) * 30).astype(int).tolist()


def test_joints_come_back_at_their_second_of_the_take(pristine: Written) -> None:
    for name in (WHOLE, LATER, SAID):
        episode, t0_s = load(pristine.root, name), pristine.t0_s[name]
        assert (episode.embodiment, episode.world_up) == ("human_hands", "+z")
        for track in episode.hands:
            told = (track.frame, track.layout, track.view, track.confidence)
            assert told == (WORLD, "canonical21", "ego", None)
            for k in np.flatnonzero(track.present)[::8]:
                true = HANDS.joints_world(t0_s + track.t_ns[k] / 1e9, track.side)
                np.testing.assert_allclose(track.joints_m[k], true, atol=1e-6)


def test_only_complete_hands_are_present(pristine: Written) -> None:
    episode = load(pristine.root)
    assert frames_of(hand(episode, "left")) == list(range(45))
    assert frames_of(hand(episode, "right")) == [*range(20), *range(23, 45)]
    later = hand(load(pristine.root, LATER), "right")
    assert frames_of(later, 1.5) == list(range(45, 98))  # [1.5, 3.25) s
    assert later.t_ns[[0, 1]].tolist() == [0, 33_333_333]


def test_the_camera_is_the_upright_one(pristine: Written) -> None:
    """An extrinsic not inverted, or the landscape camera's axes, point elsewhere."""
    episode = load(pristine.root, SAID)
    poses = episode.stream("T_world_cam.ego")
    assert poses is not None
    assert poses.valid.all()
    for k in (0, 14, 29):
        true = HANDS.T_world_cam(0.5 + poses.t_ns[k] / 1e9)
        np.testing.assert_allclose(poses.values[k], true, atol=1e-6)
    assert episode.cameras[0].K_cam is None


def test_facts_and_files(pristine: Written) -> None:
    with_hands, without = load(pristine.root), load(pristine.root, f"{SILENT}/0000")
    facts = {f.name: f for f in with_hands.facts}
    assert facts["hand_labels"].value == "automatic"
    assert not [f for f in facts.values() if f.is_for_actions and not f.certainty.is_settled]
    assert "camera_motion_removed" not in facts  # the stage says it: hands are in the world
    assert "camera_motion_removed" in {f.name for f in without.facts}
    assert (without.embodiment, without.hands, without.streams) == ("human_video", (), ())
    assert len(with_hands.raw_files) == 3
    details = ADAPTER.survey(pristine.root, {}).details
    assert (details["takes_with_hands"], details["hands"]) == ("1", "automatic,annotation")


def test_which_labels_are_read(root: Path) -> None:
    dump(labels(root, "annotation", "val"), generator.hands([3, 30]))
    dump(labels(root, "annotation", "val", BIKE), generator.hands([40]))
    assert frames_of(hand(load(root), "left")) == list(range(45))
    assert load(root, hands="none").hands == ()
    episode = load(root, hands="annotation,automatic")
    assert frames_of(hand(episode, "left")) == [3, 30]
    bike = load(root, f"{BIKE}/atomic/0.1")  # [1, 2) s, at 448 px
    assert frames_of(hand(bike, "right"), 1.0) == [40]
    assert bike.stream("T_world_cam.ego") is None


@pytest.mark.parametrize(
    ("annotated", "clock"),
    [
        (range(0, 45, 3), [*range(0, 45, 3), 43, 44]),  # 10 Hz: one run to the last
        ([5, 8, 12, 40], [0, 5, 8, 9, 12, 13, 40, 41, 44]),
        ([44], [0, 44]),
        ([0], [0, 1, 44]),
    ],
)
def test_what_lies_far_apart_is_not_joined(
    root: Path, annotated: range | list[int], clock: list[int]
) -> None:
    dump(labels(root), generator.hands(annotated))
    track = hand(load(root), "left")
    assert np.round(track.t_ns * 30 / 1e9).astype(int).tolist() == clock
    assert frames_of(track) == list(annotated)


def test_a_segment_without_labels_stays_a_video(root: Path) -> None:
    dump(labels(root), generator.hands(range(100, 110)))
    assert load(root).embodiment == "human_video"
    assert load(root).streams == ()


def test_frames_that_do_not_hold_are_counted(root: Path) -> None:
    value: dict[str, Any] = generator.hands(range(8))
    value["1"][0]["annotation3D"]["left_wrist"]["x"] = "left of the cup"
    value["2"][0]["annotation3D"]["left_wrist"]["x"] = None  # no joint: no hand
    value["3"] = []
    value["x"] = value["4"]
    value["5"][0]["annotation3D"]["left_wrist"]["y"] = float("inf")
    dump(labels(root), value)
    episode = load(root)
    assert frames_of(hand(episode, "left")) == [0, 4, 6, 7]
    assert frames_of(hand(episode, "right")) == [0, 2, 4, 6, 7]
    facts = {f.name: f.value for f in episode.facts}
    assert facts["hand_frames_broken"].startswith("3 frames of the take")


def test_camera_poses_that_do_not_hold(root: Path) -> None:
    path = root / f"annotations/ego_pose/train/camera_pose/{COOK}.json"
    value = generator.camera_poses(range(6))
    value["1"]["aria02"] = value["1"]["aria01"]
    value["2"]["aria01"]["camera_extrinsics"][0][0] += 0.5
    value["3"]["aria01"]["camera_extrinsics"].pop()
    dump(path, value)
    poses = load(root).stream("T_world_cam.ego")
    assert poses is not None
    assert np.round(poses.t_ns[poses.valid] * 30 / 1e9).astype(int).tolist() == [0, 4, 5]


@pytest.mark.parametrize(
    ("text", "code"),
    [('{"1": [', Code.CORRUPT_RECORD), ("{}", Code.EMPTY_EPISODE), ("7", Code.CORRUPT_RECORD)],
)
def test_a_file_that_cannot_be_read(root: Path, text: str, code: Code) -> None:
    labels(root).write_text(text)
    with pytest.raises(SourceError) as caught:
        load(root)
    assert caught.value.code is code


def test_a_link_out_of_the_root(root: Path, tmp_path: Path) -> None:
    shutil.move(labels(root), tmp_path / "outside.json")
    labels(root).symlink_to(tmp_path / "outside.json")
    with pytest.raises(SourceError) as caught:
        load(root)
    assert caught.value.code is Code.UNSAFE_PATH
