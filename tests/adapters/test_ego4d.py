"""The Ego4D adapter on a tiny download in the true layout, one test per way a download is known to be broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from adapters.ego4d.adapter import Ego4D
from adapters.registry import adapter_for
from jobs.demo.raw import Written
from jobs.demo.raw import ego4d as generator
from jobs.demo.raw.ego4d import GROUPED, LATE, SILENT
from schemas.episode import EpisodeRef, VideoWindow
from schemas.errors import Code, ConfigError, SourceError
from schemas.supervision import Task, allowed_tasks
from tests.pickling import travelled


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return generator.write(tmp_path_factory.mktemp("ego4d") / "raw")


def refs_of(root: Path, **options: str) -> list[EpisodeRef]:
    adapter = Ego4D()
    return list(adapter.discover(root, adapter.survey(root, options)))


def by_id(refs: list[EpisodeRef]) -> dict[str, EpisodeRef]:
    assert len({ref.episode_id for ref in refs}) == len(refs)
    return {ref.episode_id: ref for ref in refs}


def edit(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text("utf-8"))
    change(value)
    generator.dump(path, value)


def edit_video(root: Path, uid: str, **changes: Any) -> None:
    def change(value: Any) -> None:
        next(v for v in value["videos"] if v["video_uid"] == uid).update(changes)

    edit(root / "ego4d.json", change)


def window_of(ref: EpisodeRef) -> VideoWindow:
    frames = Ego4D().load(ref).cameras[0].frames
    assert isinstance(frames, VideoWindow)
    return frames


def test_every_annotated_segment_is_an_episode(pristine: Written) -> None:
    refs = refs_of(pristine.root)
    assert [ref.episode_id for ref in refs] == list(pristine.scenes)
    assert all(ref.problem is None and ref.source == ref.dataset == "ego4d" for ref in refs)
    assert travelled(refs) == refs
    assert refs_of(pristine.root) == refs
    assert isinstance(adapter_for("ego4d"), Ego4D)


def test_an_episode_says_what_it_is(pristine: Written) -> None:
    ref = by_id(refs_of(pristine.root))[f"{LATE}/fho/0.0"]
    episode = Ego4D().load(ref)
    assert episode.embodiment == "human_video"
    assert episode.rate_hz == Fraction(30)
    assert [c.name for c in episode.cameras] == ["ego"]
    (task,) = episode.instructions
    assert (task.text, task.kind) == ("#C C lifts the red box", "task")
    assert (task.start_ns, task.end_ns) == (0, None)
    assert (episode.subject_id, episode.scene_id) == ("517", "unict_scene_1")
    assert episode.licence.licence_class == "no_redistribution"
    assert episode.licence.allows_commercial is None
    assert [f.path for f in episode.raw_files] == [f"v2/full_scale/{LATE}.mp4"]
    assert not any(fact.is_for_actions for fact in episode.facts)
    assert {f.name: f.value for f in episode.facts}["camera_motion_removed"] == "false"
    assert episode.streams == ()
    tasks, _ = allowed_tasks(facts=episode.facts, has_camera=True, action_coverage=0.0)
    assert tasks == (Task.VISUAL_FORECASTING,)


def test_the_pictures_in_a_window_are_those_of_its_seconds(pristine: Written) -> None:
    """PTS is the clock: of the video that starts at 0.021029 s, [0.5, 1.5) s holds the frames 15 to 44."""
    ref = by_id(refs_of(pristine.root))[f"{LATE}/narration/pass_1/00001"]
    window = window_of(ref)
    assert (window.start_s, window.end_s) == (0.5, 1.5)
    with av.open(window.path) as container:
        shown = {float(f.pts * f.time_base): f for f in container.decode(video=0)}
        inside = [t for t in shown if window.start_s <= t < window.end_s]
        assert len(inside) == 30
        assert inside[0] == pytest.approx(pristine.t0_s[ref.episode_id])
        first = shown[inside[0]].to_ndarray(format="rgb24").astype(float)
    scene = pristine.scenes[ref.episode_id]
    right = np.abs(first - scene.picture(inside[0])).mean()
    wrong = np.abs(first - scene.picture(inside[0] + 0.5)).mean()
    assert right < 0.8 * wrong


def test_the_first_narration_is_clamped_to_the_first_picture(pristine: Written) -> None:
    window = window_of(by_id(refs_of(pristine.root))[f"{LATE}/narration/pass_1/00000"])
    assert window.start_s == pytest.approx(323 / 15360)
    assert window.end_s == pytest.approx(0.7)


def test_survey_counts_everything_that_is_no_episode(pristine: Written) -> None:
    info = Ego4D().survey(pristine.root, {})
    expected = {
        "annotations": "fho,goalstep,narrations,windows",
        "videos": "full_scale",
        "videos_listed": "3",
        "narrations_segments": "3",
        "narrations_other_person": "1",
        "narrations_unsure": "1",
        "fho_segments": "1",
        "fho_rejected": "1",
        "fho_redacted": "1",
        "goalstep_segments": "4",
        "goalstep_overlapping_steps": "2",
    }
    assert {key: info.details[key] for key in expected} == expected
    assert "1 rows are no episode: narrations_other_person" in info.notes


@pytest.mark.parametrize(
    ("chosen", "kinds"),
    [
        ("fho", {"fho"}),
        ("goalstep, narrations", {"goalstep", "narration"}),
        ("windows", {"window"}),
    ],
)
def test_option_annotations(pristine: Written, chosen: str, kinds: set[str]) -> None:
    refs = refs_of(pristine.root, annotations=chosen)
    assert {ref.episode_id.split("/")[1] for ref in refs} == kinds


def test_asking_for_annotations_that_are_not_there(root: Path) -> None:
    (root / "v2/annotations/fho_main.json").unlink()
    assert len(refs_of(root)) == 8
    with pytest.raises(ConfigError, match="no file for"):
        Ego4D().survey(root, {"annotations": "fho"})


def test_an_annotation_file_that_is_cut_off_stops_the_run(root: Path) -> None:
    path = root / "v2/annotations/narration.json"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ConfigError, match=r"narration\.json"):
        Ego4D().survey(root, {})


def test_all_places_of_ego4d_json_and_of_the_root(root: Path) -> None:
    expected = [ref.episode_id for ref in refs_of(root)]
    (root / "ego4d.json").rename(root / "v2" / "ego4d.json")
    assert [ref.episode_id for ref in refs_of(root)] == expected
    assert [ref.episode_id for ref in refs_of(root / "v2")] == expected
    (root / "v2").rename(root / "v1")
    assert [ref.episode_id for ref in refs_of(root)] == expected


def test_without_ego4d_json_the_rest_still_works(root: Path) -> None:
    expected = set(by_id(refs_of(root)))
    (root / "ego4d.json").unlink()
    refs = by_id(refs_of(root))
    assert set(refs) == expected
    assert any("no ego4d.json" in note for note in Ego4D().survey(root, {}).notes)
    # The ends now come from the files: 3.2 s is clamped to the 3.0 s that the video has.
    assert window_of(refs[f"{GROUPED}/goalstep/2"]).end_s == 3.0
    assert window_of(refs[f"{LATE}/narration/pass_1/00000"]).start_s == 323 / 15360
    episode = Ego4D().load(refs[f"{SILENT}/window/0000"])
    assert (episode.rate_hz, episode.subject_id) == (Fraction(30), None)


def test_a_missing_video_is_one_ref_that_counts_its_segments(root: Path) -> None:
    (root / f"v2/full_scale/{LATE}.mp4").unlink()
    refs = by_id(refs_of(root))
    assert [i for i in refs if i.startswith(LATE)] == [f"{LATE}/video"]
    code, message = refs[f"{LATE}/video"].problem or ("", "")
    assert code == Code.MISSING_VIDEO
    assert "; 4 segments" in message


def test_no_video_folder_at_all(root: Path) -> None:
    shutil.rmtree(root / "v2" / "full_scale")
    problems = [ref.problem[0] if ref.problem else None for ref in refs_of(root)]
    assert problems == ["missing_video"] * 3


def test_a_stereo_video_is_a_known_defect(root: Path) -> None:
    edit_video(root, GROUPED, is_stereo=True)
    refs = [ref for ref in refs_of(root) if ref.episode_id.startswith(GROUPED)]
    assert [ref.problem[0] for ref in refs if ref.problem] == ["known_defect"]
    assert "4 segments" in str(refs[0].problem)


def test_segments_that_meet_a_redacted_interval(root: Path) -> None:
    spans = [{"start_sec": 1.2, "end_sec": 1.4, "start_frame": 36, "end_frame": 42}]
    edit_video(root, LATE, redacted_intervals=spans)
    edit_video(root, SILENT, redacted_intervals=spans)
    refs = by_id(refs_of(root))
    redacted = {name for name, ref in refs.items() if ref.problem and ref.problem[0] == "redacted"}
    assert redacted == {
        f"{LATE}/narration/pass_1/00001",
        f"{LATE}/fho/0.0",
        f"{SILENT}/window/0001",  # cut out of its neighbours
    }
    assert window_of(refs[f"{SILENT}/window/0000"]).end_s == 1.2
    assert window_of(refs[f"{SILENT}/window/0002"]).start_s == 1.4


def test_a_step_outside_the_video_is_a_bad_annotation(root: Path) -> None:
    def change(value: Any) -> None:
        value["videos"][0]["segments"].append(generator.step(8.0, 9.0, "too late"))

    edit(root / "v2/annotations/goalstep_train.json", change)
    ref = by_id(refs_of(root))[f"{GROUPED}/goalstep/3"]
    assert (ref.problem or ("",))[0] == Code.BAD_ANNOTATION
    (root / "ego4d.json").unlink()  # now only the file knows where it ends
    ref = by_id(refs_of(root))[f"{GROUPED}/goalstep/3"]
    assert ref.problem is None
    with pytest.raises(SourceError, match="is outside the file") as caught:
        Ego4D().load(ref)
    assert caught.value.code is Code.BAD_ANNOTATION


def test_entries_too_broken_to_name_a_video_are_counted(root: Path) -> None:
    edit(root / "ego4d.json", lambda value: value["videos"].append({"video_uid": None}))
    edit(root / "v2/annotations/fho_main.json", lambda value: value["videos"].append(7))
    edit(root / "v2/annotations/narration.json", lambda value: value.update(strange=[1]))
    refs = by_id(refs_of(root))
    broken = [name for name, ref in refs.items() if ref.problem]
    assert broken == [
        "ego4d.json/videos/3",
        "narrations/narration.json/strange",
        "fho/fho_main.json/videos/1",
    ]
    assert len(refs) == 9 + 3


def test_a_video_in_two_splits_is_read_once(root: Path) -> None:
    folder = root / "v2" / "annotations"
    shutil.copy(folder / "goalstep_train.json", folder / "goalstep_val.json")
    assert len(by_id(refs_of(root))) == 9
    assert Ego4D().survey(root, {}).details["goalstep_repeated_videos"] == "1"


def test_upper_case_extension_and_lesser_videos(root: Path) -> None:
    (root / f"v2/full_scale/{LATE}.mp4").rename(root / f"v2/full_scale/{LATE}.MP4")
    assert window_of(by_id(refs_of(root))[f"{LATE}/fho/0.0"]).path.endswith(".MP4")
    (root / "v2/full_scale").rename(root / "v2/video_540ss")
    ref = by_id(refs_of(root))[f"{LATE}/fho/0.0"]
    assert Ego4D().load(ref).raw_files[0].path == f"v2/video_540ss/{LATE}.MP4"


def test_clips_shift_the_clock(root: Path) -> None:
    """A clip that shows [0.4, 3.6) s of the video: 0.5 s of the video is 0.1 s of the clip."""
    (root / "v2/clips").mkdir()
    source, clip = root / f"v2/full_scale/{SILENT}.mp4", root / "v2/clips/clip-1.mp4"
    shutil.copy(source, clip)

    def change(value: Any) -> None:
        spans = {"video_uid": LATE, "video_start_sec": 0.4, "video_end_sec": 3.6}
        value["clips"] = [{"clip_uid": "gone", **spans}, {"clip_uid": "clip-1", **spans}]

    edit(root / "ego4d.json", change)
    refs = by_id(refs_of(root, videos="clips"))
    window = window_of(refs[f"{LATE}/fho/0.0"])
    assert (window.start_s, window.end_s) == (pytest.approx(0.1), 2.0)  # the clip file ends there
    code, message = refs[f"{LATE}/video"].problem or ("", "")
    assert code == Code.MISSING_VIDEO  # the narration at 0.2 s begins before the clip
    assert "no local clip" in message
    assert "1 segments" in message
    assert {name for name, ref in refs.items() if ref.problem} == {
        f"{uid}/video" for uid in (LATE, GROUPED, SILENT)
    }


def test_videos_that_are_no_videos(root: Path) -> None:
    path = root / f"v2/full_scale/{SILENT}.mp4"
    ref = by_id(refs_of(root))[f"{SILENT}/window/0000"]
    path.write_bytes(b"#EXTM3U\nfile:///etc/hostname\n")
    with pytest.raises(SourceError) as caught:
        Ego4D().load(ref)
    assert caught.value.code is Code.CORRUPT_VIDEO
    edit(root / "ego4d.json", lambda value: value["videos"].pop())  # its length is in the file only
    problem = by_id(refs_of(root))[f"{SILENT}/window/0000"].problem
    assert problem is not None
    assert problem[0] == Code.CORRUPT_VIDEO


def test_a_link_out_of_the_root_and_hostile_ids(root: Path, tmp_path: Path) -> None:
    path = root / f"v2/full_scale/{SILENT}.mp4"
    outside = tmp_path / "outside.mp4"
    path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(SourceError) as caught:
        Ego4D().load(by_id(refs_of(root))[f"{SILENT}/window/0000"])
    assert caught.value.code is Code.UNSAFE_PATH
    edit_video(root, SILENT, video_uid="../../../outside")
    ref = by_id(refs_of(root))["../../../outside/video"]
    assert (ref.problem or ("",))[0] == Code.MISSING_VIDEO  # an id is looked up, never joined


@pytest.mark.parametrize("fps", [None, 0.0, 1e-9, 1e9])
def test_the_rate_comes_from_the_container_where_metadata_has_none(
    root: Path, fps: float | None
) -> None:
    edit_video(root, SILENT, video_metadata={"fps": fps, "video_duration_sec": 2.0})
    ref = by_id(refs_of(root))[f"{SILENT}/window/0000"]
    assert Ego4D().load(ref).rate_hz == Fraction(30)


def test_ntsc_rates_are_exact(root: Path) -> None:
    edit_video(root, SILENT, video_metadata={"fps": 29.97002997, "video_duration_sec": 2.0})
    ref = by_id(refs_of(root))[f"{SILENT}/window/0000"]
    assert Ego4D().load(ref).rate_hz == Fraction(30000, 1001)


def test_unannotated_video_is_cut_into_windows_of_at_most_a_minute(root: Path) -> None:
    edit_video(root, SILENT, video_metadata={"fps": 30, "video_duration_sec": 150.0})
    refs = [ref for ref in refs_of(root) if ref.episode_id.startswith(SILENT)]
    assert [ref.episode_id.split("/")[-1] for ref in refs] == ["0000", "0001", "0002"]
    assert [ref.duration_hint_s for ref in refs] == [50.0, 50.0, 50.0]
    assert Ego4D().load(refs[0]).instructions == ()


@pytest.mark.real
def test_real_clip_loads_as_a_window(samples: Path, tmp_path: Path) -> None:
    uid = "3c0dffd0-e38e-4643-bc48-d513943dc20b_012_014"
    folder = tmp_path / "v2" / "video_540ss"
    folder.mkdir(parents=True)
    shutil.copy(samples / "ego4d_lavila" / f"{uid}.mp4", folder)
    (ref,) = refs_of(tmp_path)
    assert ref.episode_id == f"{uid}/window/0000"
    window = window_of(ref)
    assert (window.start_s, window.end_s) == (0.0, 2.0)
    assert Ego4D().load(ref).rate_hz == 30
    with av.open(window.path) as container:
        assert sum(1 for _ in container.decode(video=0)) == 60


@pytest.mark.real
def test_real_goalstep_through_the_adapter(samples: Path, tmp_path: Path) -> None:
    """Without videos: one missing_video per video, whose counts add up to every (cut) step and substep."""
    folder = tmp_path / "v2" / "annotations"
    folder.mkdir(parents=True)
    for name in ("goalstep_valid.json", "goalstep_test.json"):
        shutil.copy(samples / "ego4d_annotations" / "goalstep" / name, folder)
    info = Ego4D().survey(tmp_path, {})
    refs = list(Ego4D().discover(tmp_path, info))
    assert {(ref.problem or ("",))[0] for ref in refs} == {"missing_video"}
    counts = [int(str(ref.problem).split("; ")[-1].split(" ")[0]) for ref in refs]
    assert sum(counts) == int(info.details["goalstep_segments"]) > 3349 + 4347
    assert len(refs) == 134 + 134
