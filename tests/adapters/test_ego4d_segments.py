"""Annotation rows to seconds: values worked out by hand, the real faults, the real files."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from adapters.containers.json_rows import Broken, parse
from adapters.ego4d.annotations import (
    AnnotatedInterval,
    Ego4dClip,
    Ego4dVideo,
    FhoVideo,
    GoalStepVideo,
    Narration,
    narration_entries,
    narration_passes,
    video_entries,
)
from adapters.ego4d.segments import (
    Ego4dSegment,
    cut_long,
    egovlp_interval,
    fho_segments,
    goalstep_faults,
    goalstep_segments,
    mark_redacted,
    mean_gap_s,
    narration_interval,
    narration_segments,
    why_no_instruction,
    window_segments,
)
from jobs.demo.raw import ego4d as generator

ANYWHERE = (0.0, math.inf)
# Half of EgoClip's published row is 0.3768075 s, so its beta is 0.3768075 * 2 * 4.9 = 3.6927135 s ("3.69").
EGOCLIP_BETA_S = 3.6927135


def passes(*rows: tuple[float, str]) -> Any:
    narrations = [generator.narration(time, text) for time, text in rows]
    return narration_passes({"narration_pass_1": {"narrations": narrations}})


def spans(segments: tuple[Ego4dSegment, ...]) -> list[tuple[str, float, float]]:
    return [(s.key, round(s.start_s, 6), round(s.end_s, 6)) for s in segments]


def test_published_egoclip_row() -> None:
    """The row prints t with four decimals: its ends are right to 5e-5 s, its length to the last digit."""
    assert egovlp_interval(3.3445, EGOCLIP_BETA_S) == pytest.approx((2.967651, 3.721266), abs=5e-5)
    start, end = egovlp_interval(3.3445, EGOCLIP_BETA_S)
    assert end - start == pytest.approx(3.721266 - 2.967651, abs=1e-6)


def test_mean_gap() -> None:
    assert mean_gap_s([8.0, 0.0, 2.0]) == 4.0  # gaps 2 and 6, whatever the order in the file
    assert mean_gap_s([7.0]) == 4.9
    assert mean_gap_s([]) == 4.9


@pytest.mark.parametrize(
    ("time_s", "beta_s", "next_s", "expected"),
    [
        (10.0, 3.69, None, (9.5, 10.5)),  # 0.753 s is below 1 s
        (10.0, 9.8, None, (9.0, 11.0)),  # 9.8 / 4.9 = 2 s, as the formula has it
        (10.0, 98.0, None, (6.0, 14.0)),  # 20 s is above 8 s
        (10.0, 98.0, 12.5, (6.0, 12.5)),  # the next narration ends it
        (10.0, 3.69, 10.2, (9.5, 10.2)),  # even below 1 s
        (10.0, 9.8, 40.0, (9.0, 11.0)),  # a far one does not stretch it
    ],
)
def test_narration_interval(
    time_s: float, beta_s: float, next_s: float | None, expected: tuple[float, float]
) -> None:
    assert narration_interval(time_s, beta_s, next_s) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("#C C picks a box", None),
        ("#c c picks", None),
        ("#cC c picks", None),
        ("#CC picks", None),
        ("#c- c picks", None),
        ("# C picks", None),
        ("#C", None),
        ("#O man X waves", "other_person"),
        ("#o waves", "other_person"),
        ("#C C touches #unsure", "unsure"),
        ("#Unsure", "unsure"),
        ("#summary C cooks", "summary"),
        ("C picks a box", "untagged"),
        ("#Cat sits", "untagged"),
        ("", "untagged"),
    ],
)
def test_who_a_narration_is_about(text: str, why: str | None) -> None:
    assert why_no_instruction(Narration(timestamp_sec=1.0, narration_text=text)) == why


def test_all_narrations_of_a_pass_set_beta_and_the_next_one() -> None:
    """Times 0, 10, 10.6, 29.4: beta = 29.4 / 3 = 9.8 s, so segments last 2 s; #O at 10.6 ends the second."""
    rows = ((0.0, "#C a"), (10.0, "#C b"), (10.6, "#O c"), (29.4, "#C d"))
    found = narration_segments(passes(*rows), (0.0, 30.0))
    assert spans(found.segments) == [
        ("narration/pass_1/00000", 0.0, 1.0),
        ("narration/pass_1/00001", 9.0, 10.6),
        ("narration/pass_1/00003", 28.4, 30.0),
    ]
    assert [s.text for s in found.segments] == ["#C a", "#C b", "#C d"]  # raw
    assert found.left_out == {"narrations_other_person": 1}


def test_two_narrations_at_one_instant_do_not_end_each_other() -> None:
    found = narration_segments(passes((5.0, "#C a"), (5.0, "#C b")), ANYWHERE)
    assert [s[1:] for s in spans(found.segments)] == [(4.5, 5.5), (4.5, 5.5)]


def test_narrations_past_the_end_and_without_a_time_are_bad_annotations() -> None:
    broken = {"narrations": [generator.narration(99.0, "#C a"), {"narration_text": "#C b"}, 3]}
    found = narration_segments(narration_passes({"narration_pass_2": broken}), (0.021, 10.0))
    assert [s.problem[0] for s in found.segments if s.problem] == ["bad_annotation"] * 3
    assert [s.key for s in found.segments] == [f"narration/pass_2/{k:05d}" for k in range(3)]


def test_missing_and_null_passes() -> None:
    for entry in ({"status": "redacted"}, {"narration_pass_1": None}, {"narrations": None}):
        found = narration_segments(narration_passes(entry), ANYWHERE)
        assert (found.segments, dict(found.left_out)) == ((), {})


def test_the_other_form_of_narrations_is_grouped_by_annotator(tmp_path: Path) -> None:
    """Two annotators: gaps of 9.8 and 29.4 s, so 2 s and 6 s; mixed together they would be 0.75 s and clamped."""
    rows = [
        {"time": time, "text": text, "is_summary": False, "_annotation_uid": who}
        for time, text, who in (
            (20.0, "#C a", "p"),
            (20.5, "#C b", "q"),
            (29.8, "#C c", "p"),
            (49.9, "#C d", "q"),
        )
    ]
    summary = {"time": 0.0, "text": "#summary", "is_summary": True, "_annotation_uid": "p"}
    path = tmp_path / "all_narrations_redacted.json"
    generator.dump(path, {"videos": {"u": {"narrations": [*rows, summary], "summaries": []}}})
    ((uid, found_passes),) = narration_entries(path)
    assert uid == "u"
    assert not isinstance(found_passes, Broken)
    found = narration_segments(found_passes, ANYWHERE)
    assert spans(found.segments) == [
        ("narration/all/00000", 19.0, 21.0),
        ("narration/all/00002", 28.8, 30.8),
        ("narration/all/00001", 17.5, 23.5),
        ("narration/all/00003", 46.9, 52.9),
    ]
    assert found.left_out == {"narrations_summary": 1}


def test_fho_keeps_valid_actions_of_open_intervals() -> None:
    video = parse(FhoVideo, generator.fho()["videos"][0])
    assert isinstance(video, FhoVideo)
    found = fho_segments(video, (0.0, 4.0))
    assert spans(found.segments) == [("fho/0.0", 0.5, 3.5)]
    assert found.left_out == {
        "fho_not_valid": 1,
        "fho_rejected": 1,
        "fho_invalid_annotation": 1,
        "fho_redacted": 1,
    }


def test_fho_reads_seconds_and_never_frames() -> None:
    raw = generator.action(10.0, 18.0, start_frame=7, end_frame=9, narration_text=None)
    video = FhoVideo(video_uid="u", annotated_intervals=[generator.interval(0.0, 99.0, [raw])])
    (segment,) = fho_segments(video, ANYWHERE).segments
    assert (segment.start_s, segment.end_s, segment.text) == (10.0, 18.0, "")


def test_fho_flags_written_as_text_and_broken_rows() -> None:
    bad = generator.action(1.0, 2.0)
    del bad["is_valid_action"]  # no flag: whether to keep it is not guessed
    rows = [generator.action(1.0, 2.0, is_valid_action="False"), bad]
    video = FhoVideo(video_uid="u", annotated_intervals=[generator.interval(0.0, 9.0, rows), "x"])
    found = fho_segments(video, ANYWHERE)
    assert found.left_out == {"fho_not_valid": 1}
    assert [(s.key, s.problem is not None) for s in found.segments] == [
        ("fho/0.1", True),
        ("fho/1", True),
    ]


def test_goalstep_faults_and_segments() -> None:
    video = parse(GoalStepVideo, generator.goalstep()["videos"][0])
    assert isinstance(video, GoalStepVideo)
    found = goalstep_segments(video, (0.0, 3.0))
    assert spans(found.segments) == [
        ("goalstep/0", 0.0, 2.5),
        ("goalstep/0.0", 0.0, 1.0),
        ("goalstep/1", 2.0, 2.9),
        ("goalstep/2", 1.5, 3.0),  # clamped from 3.2
    ]
    assert found.faults == {
        "goalstep_grouped_videos": 1,
        "goalstep_int_start_times": 3,
        "goalstep_int_end_times": 1,
        "goalstep_overlapping_steps": 2,
        "goalstep_steps_out_of_order": 1,
        "goalstep_steps_outside_goal": 1,
        "goalstep_steps_without_flags": 1,
    }


def test_goalstep_outside_the_video_or_inverted_is_a_bad_annotation() -> None:
    steps = [
        generator.step(0, 5.0, "starts early"),
        generator.step(40.0, 50.0, "wholly outside"),
        generator.step(8.0, 8.0, "empty"),
        generator.step(9.0, 3.0, "inverted"),
        {"start_time": None, "end_time": 3},
    ]
    video = GoalStepVideo(video_uid="u", start_time=0.021, end_time=30.0, segments=steps)
    segments = goalstep_segments(video, (0.021, 30.0)).segments
    assert (segments[0].start_s, segments[0].end_s, segments[0].problem) == (0.021, 5.0, None)
    assert [s.problem[0] for s in segments[1:] if s.problem] == ["bad_annotation"] * 4
    assert "is outside the video" in str(segments[1].problem)
    assert "does not end after" in str(segments[3].problem)


def test_long_steps_are_cut_and_keep_their_text() -> None:
    whole = Ego4dSegment(key="goalstep/3", start_s=10.0, end_s=310.0, text="knead")
    assert cut_long(whole) == (whole,)
    parts = cut_long(Ego4dSegment(key="goalstep/3", start_s=0.0, end_s=330.0, text="knead"))
    assert spans(parts) == [(f"goalstep/3/{k:04d}", 55.0 * k, 55.0 * (k + 1)) for k in range(6)]
    assert {p.text for p in parts} == {"knead"}


@pytest.mark.parametrize(
    ("start_s", "end_s", "is_redacted"),
    [(0.0, 5.0, False), (4.0, 5.5, True), (6.0, 7.0, True), (8.0, 9.0, False), (0.0, 99.0, True)],
)
def test_redaction_is_half_open(start_s: float, end_s: float, *, is_redacted: bool) -> None:
    marked = mark_redacted(Ego4dSegment(key="a", start_s=start_s, end_s=end_s), ((5.0, 8.0),))
    assert (marked.problem is not None) == is_redacted
    assert marked.problem is None or marked.problem[0] == "redacted"


def test_windows_of_a_video() -> None:
    found = window_segments((0.021, 120.021), [30.0])
    assert spans(found)[:2] == [("window/0000", 0.021, 30.0), ("window/0001", 30.0, 75.0105)]
    assert len(found) == 3


def test_bounds_of_a_video() -> None:
    """README of Goal-Step: a video from 0.0210286458 s that ends at 510.1876953 s lasts 510.1666667 s."""
    late = Ego4dVideo(
        video_uid="u",
        video_metadata={
            "video_start_sec": 0.0210286458333333,
            "video_duration_sec": 510.1666666667,
        },
    )
    assert late.bounds_s == pytest.approx((0.0210286458, 510.1876953125), abs=1e-9)
    assert Ego4dVideo(video_uid="u", duration_sec=12).bounds_s == (0.0, 12.0)
    assert Ego4dVideo(video_uid="u").bounds_s == (0.0, math.inf)


def test_hostile_numbers_and_ids_are_broken_rows() -> None:
    for seconds in (float("nan"), float("inf"), 10**400, "soon", -1e9):
        raw = {"clip_uid": "c", "video_uid": "v", "video_start_sec": seconds, "video_end_sec": 2}
        assert isinstance(parse(Ego4dClip, raw), Broken)
    assert isinstance(parse(FhoVideo, {"video_uid": "x" * 201}), Broken)
    assert isinstance(parse(FhoVideo, {"video_uid": None}), Broken)
    nested: dict[str, Any] = {"start_time": 0, "end_time": 1, "segments": [3, None]}
    video = GoalStepVideo(video_uid="u", segments=[nested])
    keys = [(s.key, s.problem is None) for s in goalstep_segments(video, ANYWHERE).segments]
    assert keys == [("goalstep/0", True), ("goalstep/0.0", False), ("goalstep/0.1", False)]


@pytest.mark.real
def test_real_goalstep_files(samples: Path) -> None:
    """The counts of the format page video.md §2; its "47 int times" are the int START times, 99 more are ends."""
    folder = samples / "ego4d_annotations" / "goalstep"
    rows = [row for _, row in video_entries(folder / "goalstep_valid.json", GoalStepVideo)]
    videos = [row for row in rows if isinstance(row, GoalStepVideo)]
    assert len(rows) == len(videos) == 134
    faults: Counter[str] = sum((goalstep_faults(video) for video in videos), Counter())
    assert faults["goalstep_int_start_times"] == 47
    assert faults["goalstep_int_end_times"] == 99
    assert faults["goalstep_overlapping_steps"] == 60
    assert faults["goalstep_steps_out_of_order"] == 2
    assert faults["goalstep_steps_outside_goal"] == 30
    assert faults["goalstep_grouped_videos"] == 33
    assert faults["goalstep_steps_without_flags"] == 1
    segments = [
        segment
        for video in videos
        for segment in goalstep_segments(
            video, (video.start_time or 0.0, video.end_time or 0.0)
        ).segments
    ]
    assert len(segments) == 3349 + 4347
    assert sum(segment.problem is not None for segment in segments) == 0
    assert max(s.end_s - s.start_s for s in segments) == pytest.approx(3076.599, abs=1e-3)
    assert sum(len(cut_long(s)) > 1 for s in segments) == faults["goalstep_steps_over_300_s"] == 96
    assert all(part.end_s - part.start_s <= 300.0 for s in segments for part in cut_long(s))
    test = [row for _, row in video_entries(folder / "goalstep_test.json", GoalStepVideo)]
    untimed = [row for row in test if isinstance(row, GoalStepVideo)]
    assert len(untimed) == 134
    assert all(goalstep_segments(video, ANYWHERE).segments == () for video in untimed)


@pytest.mark.real
def test_real_narrations_and_fho_rows(samples: Path) -> None:
    text = (samples / "ego4d_annotations" / "v2_rows" / "ego4d_v2_rows.json").read_text("utf-8")
    rows = json.loads(text)
    narrations = rows["narration.json::<video_uid>.narration_pass_1"]
    found = narration_segments(narration_passes({"narration_pass_1": narrations}), (0.0, 200.0))
    # beta = 30.54697 / 9 = 3.394108 s, so 0.69 s, clamped to 1 s; no neighbour is nearer than 0.5 s.
    assert len(found.segments) == 10
    assert spans(found.segments)[:2] == [
        ("narration/pass_1/00000", 0.0, 0.5),
        ("narration/pass_1/00001", 4.03806, 5.03806),
    ]
    assert found.segments[3].text == "#C C brings out a basket from the shelf"
    other = narration_passes(
        {"narrations": [rows["all_narrations_redacted.json::entry"] | {"time": 3.0}]}
    )
    assert [s.text for s in narration_segments(other, ANYWHERE).segments] == [
        "#C C holds knitting sticks by hand."
    ]
    video = parse(FhoVideo, rows["fho_main.json::videos[]"])
    assert isinstance(video, FhoVideo)
    interval = parse(AnnotatedInterval, (video.annotated_intervals or [None])[0])
    assert isinstance(interval, AnnotatedInterval)
    assert interval.redacted
    assert fho_segments(video, ANYWHERE).segments == ()
