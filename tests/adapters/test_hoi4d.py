"""HOI4D: the scene comes back through camera and parameters, wrong conventions would show, and each known defect."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.hoi4d.adapter import Hoi4D
from jobs.demo.raw import Written
from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.video_files import write_scene
from schemas.episode import Episode
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Certainty
from tests.adapters.episode_parts import hand, refs_by_id
from tests.adapters.mano_truth import assert_hands_are_true, assert_pixels_are_true
from tests.generators import hoi4d as generator

ADAPTER = Hoi4D()
ONE, TWO = generator.ONE, generator.TWO


def load(root: Path, name: str = ONE) -> Episode:
    return ADAPTER.load(refs_by_id(ADAPTER, root)[name])


def facts_of(episode: Episode) -> dict[str, str]:
    return {f.name: f.value for f in episode.facts}


def test_hands_come_back_through_camera_and_model(pristine: Written) -> None:
    for name, scene in pristine.scenes.items():
        assert isinstance(scene, HandScene)
        episode = load(pristine.root, name)
        assert {(h.frame, h.view) for h in episode.hands} == {("ego", "ego")}
        assert_hands_are_true(episode, scene)
        assert_pixels_are_true(episode, scene, scale=1920 / scene.width)
        assert episode.cameras[0].K_size == (1920, 1080)
        assert (episode.world_up, episode.embodiment) == (None, "human_hands")


def test_what_is_not_settled_says_so(pristine: Written) -> None:
    """The left hand's model is inferred: it bars the policy, and only where there is a left hand."""
    one, two = (load(pristine.root, name) for name in (ONE, TWO))
    unsettled = [[f.name for f in e.facts if f.is_for_actions and not f.certainty.is_settled] for e in (one, two)]  # fmt: skip
    assert unsettled == [[], ["mano_left"]]
    assert one.licence.licence_class == "non_commercial"
    left = hand(two, "left").mano
    assert left is not None
    assert not left.has_shapedirs_fix


def test_clock_ids_and_frames_without_a_hand(pristine: Written) -> None:
    two = load(pristine.root, TWO)
    assert list(refs_by_id(ADAPTER, pristine.root)) == [ONE, TWO]
    assert np.flatnonzero(~hand(two, "right").present).tolist() == list(generator.LOST)
    assert hand(two, "left").present.all()
    assert hand(two, "left").t_ns[3] == 200_000_000
    assert two.cameras[0].t_ns is not None
    np.testing.assert_array_equal(two.cameras[0].t_ns, hand(two, "left").t_ns)
    assert (two.subject_id, two.scene_id) == ("H4", "S71/s03")
    assert facts_of(load(pristine.root))["object"] == "toy car"
    info = ADAPTER.survey(pristine.root, {})
    assert info.notes == ("2 of 3 released sequences are here",)


def test_texts_of_both_layouts_on_the_clock_of_the_video(pristine: Written) -> None:
    """The first file's clock runs half as fast as the video, the second's as fast."""
    one, two = (load(pristine.root, name) for name in (ONE, TWO))
    for episode, task in ((one, "Toy Car: Hide it in a box"), (two, "Kettle: Tip it over a cup")):
        said = [(i.kind, i.text, i.start_ns / 1e9, (i.end_ns or 0) / 1e9) for i in episode.instructions]  # fmt: skip
        assert said == [
            ("task", task, 0, 0),
            *[("subtask", "rest", 0, 0.5), ("subtask", "Reachout", 0.5, 1)],
            ("subtask", "Pickup", 1, 2),
        ]
    clock = next(f for f in one.facts if f.name == "event_clock")
    assert clock.value == "1 s of labels over 2.000 s of video"
    assert clock.certainty is Certainty.THIRD_PARTY


def rest(start: float, end: float, **more: Any) -> dict[str, Any]:
    return {"event": "rest", "startTime": start, "endTime": end, **more}


@pytest.mark.parametrize(
    ("content", "ends_s", "fact"),
    [
        ({"events": [rest(0, 1.9)]}, [1.9], ("event_clock", "no duration; seconds")),
        ({"events": [rest(0, 0.9)]}, [], ("event_clock", "no duration, and events end at 0.9 s")),
        ({"info": {"duration": 2.0}, "events": [rest(1, 1), rest(1, 2)]}, [2], ("events_left_out", "1 of 2")),
        ({"info": {"duration": 2.0}, "events": [7, rest(0, 1)]}, [1], ("events_left_out", "1 of 2")),
        ({"info": {"duration": 2.0}}, [], ("event_clock", "2 s of labels")),
        (None, [], ("events", "none: the file is empty")),
    ],
)  # fmt: skip
def test_events(root: Path, content: Any, ends_s: list[float], fact: tuple[str, str]) -> None:
    path = root / "HOI4D_annotations" / ONE / "action/color.json"
    path.write_text("" if content is None else json.dumps(content))
    episode = load(root)
    ends = [(i.end_ns or 0) / 1e9 for i in episode.instructions if i.kind == "subtask"]
    assert ends == pytest.approx(ends_s)
    assert facts_of(episode)[fact[0]].startswith(fact[1])


def test_without_its_log_a_hand_stays_in_the_camera(root: Path) -> None:
    (root / "HOI4D_annotations" / ONE / "3Dseg/output.log").unlink()
    episode = load(root)
    assert episode.streams == ()
    assert hand(episode, "right").frame == "ego"
    assert "camera_pose_file" in facts_of(episode)


def test_everything_in_one_tree_and_little_of_it(root: Path) -> None:
    """Archives unpacked into each other; no intrinsics, no sentences, no left hands."""
    for archive in ("HOI4D_release", "HOI4D_annotations", "handpose"):
        shutil.copytree(root / archive, root, dirs_exist_ok=True)
        shutil.rmtree(root / archive)
    for gone in ("camera_params", "definitions", "refinehandpose_left"):
        shutil.rmtree(root / gone)
    episode = load(root, TWO)
    assert [h.side for h in episode.hands] == ["right"]
    assert episode.cameras[0].K_cam is None
    assert [i.kind for i in episode.instructions] == ["subtask"] * 3
    assert {"intrinsics", "task_text"} <= set(facts_of(episode))
    assert "no task sentences" in ADAPTER.survey(root, {}).notes[0]
    shutil.rmtree(root / "refinehandpose_right" / TWO)
    assert load(root, TWO).embodiment == "human_video"


def test_a_video_at_another_rate_keeps_its_clock(root: Path) -> None:
    """Hands count by the frames that upstream decodes at 15 Hz, whatever the container has."""
    video = root / "HOI4D_release" / ONE / "align_rgb/image.mp4"
    write_scene(video, HandScene(width=64, height=36), rate_hz=30)
    episode = load(root)
    assert episode.cameras[0].t_ns is not None
    assert len(episode.cameras[0].t_ns) == 60
    assert hand(episode, "right").t_ns[-1] == pytest.approx(29 / 15 * 1e9, abs=1)


def log_of(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        path = root / "HOI4D_annotations" / ONE / "3Dseg/output.log"
        path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")

    return apply


def transposed(lines: list[str]) -> list[str]:
    T = np.array([line.split() for k, line in enumerate(lines) if k % 5]).reshape(-1, 4, 4)
    rows = [" ".join(row) for row in np.swapaxes(T, 1, 2).reshape(-1, 4)]
    return [line for k in range(len(T)) for line in (lines[5 * k], *rows[4 * k : 4 * k + 4])]


def test_fewer_poses_than_frames(root: Path) -> None:
    log_of(lambda lines: lines[:-10])(root)
    episode = load(root)
    assert len(episode.streams[0].t_ns) == 28
    assert facts_of(episode)["camera_poses_clamped"].startswith("28 poses, 30 frames")


def pickle_of(frame: int, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        path = root / "handpose/refinehandpose_right" / ONE / f"{frame}.pickle"
        content = dict(generator.frame(HandScene(), 0.0, "right"))
        path.write_bytes(pickle.dumps(change(content) or content, protocol=2))

    return apply


def other_video(root: Path) -> None:
    video = root / "HOI4D_release" / ONE / "align_rgb/image.mp4"
    write_scene(video, HandScene(width=64, height=36), rate_hz=15, duration_s=1.0)


def linked(root: Path) -> None:
    path = root / "handpose/refinehandpose_right" / ONE / "3.pickle"
    path.unlink()
    path.symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (log_of(transposed), Code.NOT_A_ROTATION),
        (log_of(lambda lines: lines[:-1]), Code.TRUNCATED),
        (log_of(lambda lines: [*lines[:1], "1 0 0", *lines[2:]]), Code.CORRUPT_RECORD),
        (log_of(lambda lines: [*lines[:1], "1 0 0 x", *lines[2:]]), Code.CORRUPT_RECORD),
        (pickle_of(3, lambda c: [1]), Code.UNKNOWN_LAYOUT),
        (pickle_of(3, lambda c: {"trans": c["trans"]}), Code.MISSING_CHANNEL),
        (pickle_of(3, lambda c: c.update(poseCoeff=np.zeros(51))), Code.SHAPE_MISMATCH),
        (pickle_of(3, lambda c: c.update(trans=np.full(3, np.nan))), Code.NOT_FINITE),
        (pickle_of(3, lambda c: c.update(trans=print)), Code.UNSAFE_CONTENT),
        (other_video, Code.FRAME_COUNT),
        (linked, Code.UNSAFE_PATH),
        (lambda root: (root / "HOI4D_annotations" / ONE / "action/color.json").write_text("[]"), Code.BAD_ANNOTATION),
        (lambda root: (root / "definitions/task/task_definitions.csv").write_text("a,b\n1,2\n"), Code.BAD_ANNOTATION),
        (lambda root: np.save(root / "camera_params/ZY20210800001/intrin.npy", np.eye(4)), Code.BAD_ANNOTATION),
    ],
)  # fmt: skip
def test_defects(root: Path, change: Callable[[Path], object], code: Code) -> None:
    change(root)
    with pytest.raises(SourceError) as caught:
        load(root)
    assert caught.value.code is code, str(caught.value)


def test_shapes_that_vary_and_frames_past_the_end(root: Path) -> None:
    pickle_of(3, lambda c: c.update(beta=np.full(10, 0.5)))(root)
    pickle_of(30, lambda c: None)(root)
    facts = facts_of(load(root))
    assert facts["hand_shape.right"].startswith("betas vary by 0.5")
    assert facts["length_clamped.right"].startswith("1 frames after the end")


def test_missing_videos_and_hand_poses(root: Path) -> None:
    (root / "HOI4D_release" / TWO / "align_rgb/image.mp4").unlink()
    found = {
        name: ref.problem and ref.problem[0] for name, ref in refs_by_id(ADAPTER, root).items()
    }
    assert found == {ONE: None, TWO: "missing_video"}
    shutil.rmtree(root / "handpose")
    with pytest.raises(ConfigError, match="hand poses"):
        ADAPTER.survey(root, {})
