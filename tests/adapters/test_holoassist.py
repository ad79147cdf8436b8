"""HoloAssist: the scene comes back, wrong conventions would show, each known defect, and the real labels and camera poses."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.holoassist.adapter import HoloAssist
from adapters.holoassist.labels import HoloAssistLabels, count, labels_in, labels_of, segments_of
from adapters.holoassist.recording import POSE_COLUMNS, T_PSI_CV, intrinsics_of, recording_of
from adapters.holoassist.sync import rows_between
from jobs.demo.raw import Written
from jobs.demo.raw.hand_scene import HandScene
from schemas.camera_model import project
from schemas.episode import Episode, EpisodeRef, VideoWindow
from schemas.errors import Code, SourceError
from schemas.hand import keypoints21, wrist_axes
from schemas.hand_track import WORLD
from tests.adapters.episode_parts import hand
from tests.adapters.video_clips import by_id, problems, refs_of
from tests.generators import holoassist as generator
from tests.generators.holoassist import FIRST_TICK, SESSION, SPACED

ADAPTER = HoloAssist()
LABELS = "data-annotation-trainval-v1_1.json"
COARSE = f"{SESSION}/coarse/2"
SMALL = HandScene(seed=3, duration_s=0.8, width=64, height=48, focal_px=56.0)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """One unlabelled session of 24 rows."""
    generator.write_session(tmp_path / "raw" / "s", SMALL)
    return tmp_path / "raw"


def load(root: Path, name: str, **options: str) -> Episode:
    return ADAPTER.load(by_id(refs_of(ADAPTER, root, **options))[name])


def relabelled(root: Path, tmp_path: Path, change: Callable[[list[dict[str, Any]]], None]) -> Path:
    """Another file of labels for the same download."""
    sessions = json.loads((root / LABELS).read_text())
    change(sessions)
    path = tmp_path / "other.json"
    path.write_text(json.dumps(sessions))
    return path


# --- geometry and clocks ------------------------------------------------------------------------------------------------


def test_hands_come_back_in_the_world(pristine: Written) -> None:
    """Both layouts of the hand files, both sides, at the ticks of the rows."""
    for name, scene in pristine.scenes.items():
        episode = load(pristine.root, name)
        assert (episode.embodiment, episode.world_up) == ("human_hands", "+z")
        assert [h.side for h in episode.hands] == ["left", "right"]
        for track in episode.hands:
            assert (track.frame, track.layout, track.view) == (WORLD, "openxr26", "ego")
            assert track.present.all()
            points, has = keypoints21(track.joints_m, track.layout)
            assert has.all()
            T_src_wrist = wrist_axes(track.wrist_axes).T_src_wrist(track.side)
            for k in range(0, len(track.t_ns), 7):
                t_s = pristine.t0_s[name] + track.t_ns[k] / 1e9
                np.testing.assert_allclose(
                    points[k], scene.joints_world(t_s, track.side), atol=1e-9
                )
                T = track.T_frame_wrist[k] @ T_src_wrist
                np.testing.assert_allclose(T, scene.T_world_wrist(t_s, track.side), atol=1e-9)


def test_the_skeleton_falls_on_the_hands_in_the_picture(pristine: Written) -> None:
    episode, scene = load(pristine.root, COARSE), pristine.scenes[COARSE]
    camera, poses = episode.cameras[0], episode.stream("T_world_cam.ego")
    assert poses is not None
    assert camera.K_size == (scene.width, scene.height)
    points, _ = keypoints21(hand(episode, "right").joints_m, "openxr26")
    for k in (0, 10, 30):
        t_s = pristine.t0_s[COARSE] + poses.t_ns[k] / 1e9
        np.testing.assert_allclose(poses.values[k], scene.T_world_cam(t_s), atol=1e-9)
        in_cam = (points[k] - poses.values[k][:3, 3]) @ poses.values[k][:3, :3]
        uv, in_front = project(in_cam, camera.K_cam, camera.lens)
        assert in_front.all()
        expected = scene.project(scene.joints_world(t_s, "right"), t_s)
        np.testing.assert_allclose(uv, expected, atol=1e-6)


def test_psi_axes_by_hand() -> None:
    """psi: x forward, y left, z up. OpenCV's right is its -y, down its -z, forward its x."""
    assert T_PSI_CV[:3, 0].tolist() == [0, -1, 0]
    assert T_PSI_CV[:3, 1].tolist() == [0, 0, -1]
    assert T_PSI_CV[:3, 2].tolist() == [1, 0, 0]


def test_the_episode_begins_with_a_pose_and_the_video_there(pristine: Written) -> None:
    """Row 9 is at 0.3 s; row 10 is measured 30 us off its nominal time, and its ticks say so."""
    episode = load(pristine.root, COARSE)
    window = episode.cameras[0].frames
    assert isinstance(window, VideoWindow)
    assert (window.start_s, window.end_s) == (0.3, 1.5)
    track = hand(episode, "left")
    ticks = generator.row_ticks(96)
    assert track.t_ns[0] == episode.streams[0].t_ns[0] == 0
    assert track.t_ns[1] == int(ticks[10] - ticks[9]) * 100
    assert len(track.t_ns) == 36
    assert "padding.ego" not in {f.name for f in episode.facts}


def test_the_video_is_cut_where_the_first_pose_is(pristine: Written, tmp_path: Path) -> None:
    """An action from 0.31 s begins with row 10, measured at 0.333363 s: poses, hands and pictures share that zero."""

    def change(sessions: list[dict[str, Any]]) -> None:
        sessions[0]["events"][1]["start"] = 0.31

    path = relabelled(pristine.root, tmp_path, change)
    episode = load(pristine.root, COARSE, annotations=str(path))
    window = episode.cameras[0].frames
    assert isinstance(window, VideoWindow)
    ticks = generator.row_ticks(96)
    assert window.start_s == pytest.approx(float(ticks[10] - FIRST_TICK) / 1e7, abs=1e-9)
    assert window.start_s > 0.33335
    scene, track = pristine.scenes[COARSE], hand(episode, "left")
    points, _ = keypoints21(track.joints_m, track.layout)
    t_s = window.start_s + track.t_ns[20] / 1e9
    np.testing.assert_allclose(points[20], scene.joints_world(t_s, "left"), atol=1e-9)


def test_ticks_are_exact_beyond_2_to_the_53(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    ticks = [FIRST_TICK, FIRST_TICK + 1, FIRST_TICK + 3, FIRST_TICK + 3]
    generator.write_rows(path, np.array(ticks), np.arange(64.0).reshape(4, 16))
    rows = rows_between(path, FIRST_TICK + 1, FIRST_TICK + 4, POSE_COLUMNS)
    assert rows.ticks.tolist() == ticks[1:3]
    assert rows.num_repeated == 1
    assert rows.values[1].tolist() == list(range(32, 48))  # the first of the repeats
    assert len({float(t) for t in ticks}) == 1  # what a float makes of them


@pytest.mark.parametrize(
    ("start", "end"), [(0, 10**19 - 1), (5, 6), (0, 3), (17, 40), (23, 24), (9, 9)]
)
def test_bisection_finds_what_a_scan_finds(tmp_path: Path, start: int, end: int) -> None:
    """Lines of very different lengths, so that byte positions say little about row numbers."""
    ticks = np.sort(np.random.default_rng(0).integers(0, 24, 20))
    lines = [f"0\t{t}\t" + "\t".join(["1"] * 15 + ["1" * (1 + 37 * (t % 3))]) for t in ticks]
    path = tmp_path / "a.txt"
    path.write_text("\n".join(lines) + "\n")
    found = rows_between(path, start, end, POSE_COLUMNS)
    assert found.ticks.tolist() == sorted({int(t) for t in ticks if start <= t < end})


def test_padding_at_the_end_is_left_out_and_said(small: Path) -> None:
    episode = load(small, "s/window/0000")
    assert len(episode.streams[0].t_ns) == 24 - 3
    facts = {f.name: f.value for f in episode.facts}
    for name in ("ego", "left", "right"):
        assert facts[f"padding.{name}"].startswith("3 rows repeat")
    assert facts["hand_latency"] == "about 50 ms behind the pictures; not shifted"
    assert episode.instructions == ()


# --- flags --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_leading", [3, 5])
def test_flags_become_presence_and_confidence(tmp_path: Path, num_leading: int) -> None:
    generator.write_session(
        tmp_path / "s", SMALL, num_leading=num_leading, lost=range(4, 7), untracked=(10,)
    )
    episode = load(tmp_path, "s/window/0000")
    right, left = hand(episode, "right"), hand(episode, "left")
    assert np.flatnonzero(~right.present).tolist() == [4, 5, 6]
    assert right.confidence is not None
    assert np.flatnonzero(right.confidence[10] == 0).tolist() == [
        6,
        7,
        8,
        9,
        10,
    ]  # the index finger
    assert right.confidence[9].all()
    assert left.present.all()
    assert ("hand_layout.left" in {f.name for f in episode.facts}) == (num_leading == 5)


def rewrite(path: Path, row: int, column: int, word: str) -> None:
    lines = path.read_text().splitlines()
    fields = lines[row].split("\t")
    fields[column] = word
    lines[row] = "\t".join(fields)
    path.write_text("\n".join(lines) + "\n")


def test_an_active_hand_without_numbers_or_numbers_without_an_active_hand_are_not_present(
    small: Path,
) -> None:
    path = small / "s/Export_py/Hands/Left_sync.txt"
    rewrite(path, 2, 3 + 16 * 5, "NaN")  # one number of the thumb's tip
    lines = path.read_text().splitlines()
    fields = lines[3].split("\t")
    lines[3] = "\t".join([*fields[:3], *["0"] * (16 * 26), *fields[-52:]])
    path.write_text("\n".join(lines) + "\n")
    rewrite(path, 7, 2, "0")  # numbers, but the flag says no
    track = hand(load(small, "s/window/0000"), "left")
    assert np.flatnonzero(~track.present).tolist() == [2, 3, 7]


# --- labels -------------------------------------------------------------------------------------------------------------


def test_coarse_actions_with_their_fine_ones(pristine: Written) -> None:
    refs = refs_of(ADAPTER, pristine.root)
    assert [r.episode_id for r in refs] == list(pristine.scenes)
    episode = ADAPTER.load(refs[0])
    assert [(i.kind, i.text, i.start_ns, i.end_ns) for i in episode.instructions] == [
        ("task", "The student detaches the lens.", 0, None),
        ("subtask", "grab lens right hand", 100_000_000, 500_000_000),
        ("subtask", "unscrew first hex socket head", 600_000_000, 1_100_000_000),
        ("summary", "The student handles a lens.", 0, None),
    ]
    facts = {f.name: f.value for f in episode.facts}
    assert facts["action_correctness"] == "1 Correct Action; 1 Wrong Action, corrected by student"
    assert facts["mistake.0"] == (
        "0.900 to 1.400 s, unscrew first hex socket head: Wrong Action, corrected by student: The wrong screw."
    )
    assert facts["session_task"] == "setup camera"
    assert episode.success is None
    assert episode.licence.licence_class == "permissive"


def test_fine_actions_as_episodes(pristine: Written) -> None:
    refs = by_id(refs_of(ADAPTER, pristine.root, segments="fine"))
    right, wrong, other = (ADAPTER.load(refs[f"{SPACED}/fine/{k}"]) for k in (30, 31, 32))
    assert [e.success for e in (right, wrong, other)] == [True, False, None]
    assert [(i.kind, i.text) for i in wrong.instructions] == [
        ("task", "unscrew first hex socket head"),
        ("summary", "The student detaches the lens."),
        ("summary", "The student handles a lens."),
    ]
    assert len(wrong.hands[0].t_ns) == 15


def test_what_annotators_got_wrong(pristine: Written, tmp_path: Path) -> None:
    def change(sessions: list[dict[str, Any]]) -> None:
        events = sessions[0]["events"]
        fine = [e for e in events if e["label"].startswith("Fine")]
        fine[0]["end"] = fine[0]["start"] - 0.05  # as five real ones
        fine[1]["id"] = fine[0]["id"]  # as one real one
        fine[1]["attributes"]["Adjective"] = []  # as ten real ones
        fine[1]["attributes"]["Noun"] = "nonee"
        events[1]["end"] = 0.95  # a coarse action that ends amid a fine one
        events.append({"id": 99, "label": "Fine grained action", "start": "soon", "end": 2})
        sessions[1] = sessions[0] | {"video_name": SESSION}
        sessions.append({"events": []})

    path = str(relabelled(pristine.root, tmp_path, change))
    info = ADAPTER.survey(pristine.root, {"annotations": path})
    assert info.details["fine_that_do_not_hold"] == "2"  # of both copies
    assert info.details["rows_that_do_not_hold"] == "2"
    assert info.details["sessions_that_do_not_hold"] == "1"
    fine = refs_of(ADAPTER, pristine.root, annotations=path, segments="fine")
    assert problems(fine) == {
        f"{SESSION}/fine/30": "bad_annotation",
        f"{SESSION}/fine/row 7": "bad_annotation",
        "other.json/1": "bad_annotation",  # labelled twice
        "other.json/2": "bad_annotation",
    }
    assert ADAPTER.load(by_id(fine)[f"{SESSION}/fine/30.2"]).instructions[0].text == "unscrew"
    coarse = load(pristine.root, COARSE, annotations=path)
    (subtask,) = (i for i in coarse.instructions if i.kind == "subtask")
    assert (subtask.start_ns, subtask.end_ns) == (
        600_000_000,
        650_000_000,
    )  # cut at the episode's end
    (left_out,) = (f for f in coarse.facts if f.name == "subtasks_left_out")
    assert "0.400 to 0.350 s" in left_out.value


def test_labels_one_file_a_session(pristine: Written, tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    folder.mkdir()
    for number, session in enumerate(json.loads((pristine.root / LABELS).read_text())):
        (folder / f"{number}.json").write_text(json.dumps(session))
    refs = refs_of(ADAPTER, pristine.root, annotations=str(folder))
    assert [r.episode_id for r in refs] == list(pristine.scenes)


def test_a_long_action_becomes_windows(pristine: Written) -> None:
    raw = json.loads((pristine.root / LABELS).read_text())[0]
    raw["events"][1].update(start=10.0, end=400.0)
    labels = labels_of(raw)
    assert isinstance(labels, HoloAssistLabels)
    clips = [s.clip for s in segments_of(labels, "coarse", "v.mp4")]
    assert [c.episode_id for c in clips[:2]] == [
        f"{SESSION}/coarse/2/0000",
        f"{SESSION}/coarse/2/0001",
    ]
    assert max(c.end_s - c.start_s for c in clips if c.end_s) <= 60


# --- files --------------------------------------------------------------------------------------------------------------


def test_a_session_that_is_not_whole_is_one_ref_that_says_how_much_it_costs(
    pristine: Written, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(pristine.root, tmp_path / "raw"))
    shutil.rmtree(root / SESSION)
    (root / SPACED / "Export_py/Hands/Left_sync.txt").unlink()
    refs = refs_of(ADAPTER, root)
    assert problems(refs) == {
        f"{SESSION}/session": "missing_video",
        f"{SPACED}/session": "missing_file",
    }
    assert [r.stands_for for r in refs] == [2, 2]
    assert "Left_sync.txt" in (refs[1].problem or ("", ""))[1]


def _words(name: str, row: int, column: int, word: str) -> Callable[[Path], None]:
    return lambda export: rewrite(export / name, row, column, word)


def _text(name: str, text: str) -> Callable[[Path], None]:
    return lambda export: (export / name).write_text(text) and None


def _transposed(export: Path) -> None:
    path = export / "Video/Pose_sync.txt"
    table = [line.split("\t") for line in path.read_text().splitlines()]
    order = [0, 1, *(2 + 4 * c + r for r in range(4) for c in range(4))]
    path.write_text("\n".join("\t".join(row[k] for k in order) for row in table) + "\n")


def _cut(export: Path) -> None:
    path = export / "Hands/Left_sync.txt"
    path.write_bytes(path.read_bytes()[:-3000])


HANDS, POSES = "Hands/Right_sync.txt", "Video/Pose_sync.txt"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_transposed, Code.NOT_A_ROTATION),
        (_words(POSES, 5, 2, "7.5"), Code.NOT_A_ROTATION),
        (_words(POSES, 5, 2, "NaN"), Code.NOT_FINITE),
        (_words(POSES, 5, 2, "left"), Code.CORRUPT_RECORD),
        (_words(POSES, 5, 1, ""), Code.CORRUPT_RECORD),
        (_words(POSES, 5, 1, "1"), Code.CLOCK_NOT_INCREASING),
        (_words(HANDS, 5, 3 + 16, "7.5"), Code.NOT_A_ROTATION),
        (_cut, Code.TRUNCATED),
        (_text(HANDS, "0.0\t637928148099658161\t1\n"), Code.UNKNOWN_LAYOUT),
        (_text(POSES, "x" * 70_000), Code.UNKNOWN_LAYOUT),
        (_text(POSES, "0\t5\t" + "\t".join("1" * 16) + "\n"), Code.NO_COMMON_TIME),
        (_text("Video/VideoMp4Timing.txt", "soon\nlater"), Code.UNKNOWN_LAYOUT),
        (_text("Video/Intrinsics.txt", "1 2 3"), Code.UNKNOWN_LAYOUT),
        (_text("Video/Intrinsics.txt", "0\t" * 24 + "0"), Code.UNKNOWN_LAYOUT),
    ],
)
def test_defects(small: Path, change: Callable[[Path], None], code: Code) -> None:
    (ref,) = refs_of(ADAPTER, small)
    change(small / "s" / "Export_py")
    with pytest.raises(SourceError) as caught:
        ADAPTER.load(ref)
    assert caught.value.code is code, str(caught.value)


def test_a_hand_file_that_ends_early_costs_that_hand_only(small: Path) -> None:
    path = small / "s/Export_py" / HANDS
    path.write_text(path.read_text().replace("\t63792814", "\t53792814"))
    episode = load(small, "s/window/0000")
    assert [h.side for h in episode.hands] == ["left"]
    assert "hand_missing.right" in {f.name for f in episode.facts}


def test_distortion_is_said_and_not_applied(small: Path) -> None:
    text = (small / "s/Export_py/Video/Intrinsics.txt").read_text().split("\t")
    assert not intrinsics_of("\t".join(text)).has_distortion
    text[9] = "-0.28"
    (small / "s/Export_py/Video/Intrinsics.txt").write_text("\t".join(text))
    episode = load(small, "s/window/0000")
    assert episode.cameras[0].lens.model == "pinhole"
    assert "lens" in {f.name for f in episode.facts}


def test_a_link_out_of_the_root(small: Path) -> None:
    (ref,) = refs_of(ADAPTER, small)
    path = small / "s/Export_py" / HANDS
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(SourceError) as caught:
        ADAPTER.load(ref)
    assert caught.value.code is Code.UNSAFE_PATH


# --- real data ----------------------------------------------------------------------------------------------------------


@pytest.mark.real
def test_the_real_camera_poses(samples: Path) -> None:
    """3,339 rows, the last 3 padding; rotations to 2e-5; the wearer looks down at the table and is upright."""
    root, folder = samples / "holoassist", "session_R007-7July-DSLR"
    path = root / folder / "Export_py/Video/Pose_sync.txt"
    rows = rows_between(path, 0, 2**62, POSE_COLUMNS)
    assert (len(rows.ticks), rows.num_repeated) == (3336, 3)
    told = [line.split() for line in path.read_text().splitlines()]
    assert rows.ticks.tolist() == [int(words[1]) for words in told[:3336]]
    np.testing.assert_array_equal(rows.values[1000], [float(w) for w in told[1000][2:]])
    part = rows_between(path, int(rows.ticks[66]), int(rows.ticks[333]), POSE_COLUMNS)
    np.testing.assert_array_equal(part.ticks, rows.ticks[66:333])
    T = rows.values.reshape(-1, 4, 4) @ T_PSI_CV
    assert np.linalg.det(T[:, :3, :3]) == pytest.approx(1.0, abs=1e-4)
    assert (T[:, 2, 2] < 0).mean() > 0.95  # forward goes down in a z-up world
    assert (T[:, 2, 1] < 0).all()  # the picture's down is down
    with pytest.raises(SourceError) as caught:  # the sample holds no hands and no intrinsics
        recording_of(root, folder, 2.2, 11.1)
    assert caught.value.code is Code.MISSING_FILE


@pytest.mark.slow
@pytest.mark.real
def test_the_real_labels(samples: Path) -> None:
    """Counts of the page over all 1,758 sessions; five fine actions do not hold; no episode is lost or named twice."""
    totals: Counter[str] = Counter()
    bad: list[str] = []
    ids: Counter[str] = Counter()
    with gzip.open(samples / "holoassist" / "data-annotation-trainval.per_video.jsonl.gz") as file:
        for line in file:
            labels = labels_of(json.loads(line))
            assert isinstance(labels, HoloAssistLabels)
            totals += count(labels)
            for kind in ("coarse", "fine"):
                for segment in segments_of(labels, kind, "v.mp4"):
                    ids[segment.clip.episode_id] += 1
                    bad += [segment.clip.episode_id] if segment.clip.problem else []
                    totals["segments"] += 1
                    assert not any(
                        "none" in t.text.split() for t in segment.texts if t.kind == "subtask"
                    )
    expected = {
        "sessions_labelled": 1_758,
        "coarse": 12_542,
        "fine": 149_253,
        "fine_correct": 141_691,
    }
    expected |= {"fine_wrong": 7_205, "fine_that_do_not_hold": 5, "events": 195_945}
    assert {key: totals[key] for key in expected} == expected
    assert "rows_that_do_not_hold" not in totals
    assert sorted(name.partition("-")[0] for name in bad) == [
        "z023",
        "z023",
        "z032",
        "z032",
        "z034",
    ]
    assert max(ids.values()) == 1


@pytest.mark.real
def test_the_real_label_files_without_videos(samples: Path) -> None:
    """21 sessions are missing, each once, with all their coarse actions accounted for; the 22nd has no video."""
    refs: list[EpisodeRef] = refs_of(ADAPTER, samples / "holoassist")
    assert set(problems(refs).values()) == {"missing_video"}
    assert len(refs) == 22
    folder = samples / "holoassist" / "labels"
    found = [labels for path in sorted(folder.glob("*.json")) for labels in labels_in(path)]
    assert sum(r.stands_for for r in refs[:21]) >= sum(
        len(s.coarse) for s in found if isinstance(s, HoloAssistLabels)
    )
