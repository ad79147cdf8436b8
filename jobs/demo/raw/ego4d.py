"""A tiny Ego4D v2 download: VP9 in MP4, ego4d.json, narration.json, fho_main.json, goalstep_train.json.

Layout and spellings: EGO4D/docs:docs/CLI.md, docs/data/annotations-schemas.md and real rows. The picture at PTS p is
`scene.picture(p)`: the container is the clock of the scene too. Everything in here is healthy: rows that FHO itself
rejects are there to be left out, and the faults of Goal-Step are those that an adapter must live with.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene

LATE = (
    "02a3d6b1-9a71-4a5c-8f5c-6d2f5b0c7e11"  # its first frame is at 0.021029 s, as in many real ones
)
GROUPED = "grp-4b7c1f3a-5d50-4a0e-9f44-1f0b7f0f2a22"
SILENT = "c5e1a7d2-0b4f-4f6e-8d3c-7a9b6e5d4c33"  # nobody annotated it
PASS_UID = "920182f7-5385-488b-99f9-caf8f0d9fe6b"  # one for all rows of a pass, as in the real file
TIME_BASE = Fraction(1, 15360)
START_PTS = {LATE: 323, GROUPED: 0, SILENT: 0}
NUM_FRAMES = {LATE: 120, GROUPED: 90, SILENT: 60}
RATE_HZ = 30
SEEDS = {LATE: 1, GROUPED: 2, SILENT: 3}


def write(root: Path) -> Written:
    """Write the download under `root`; nine episodes of three videos."""
    annotations = root / "v2" / "annotations"
    annotations.mkdir(parents=True)
    for uid in START_PTS:
        write_video(root / "v2" / "full_scale" / f"{uid}.mp4", uid)
    dump(root / "ego4d.json", metadata())
    dump(annotations / "narration.json", narrations())
    dump(annotations / "fho_main.json", fho())
    dump(annotations / "goalstep_train.json", goalstep())
    starts = {
        f"{LATE}/narration/pass_1/00000": 0.021029,
        f"{LATE}/narration/pass_1/00001": 0.5,
        f"{LATE}/narration/pass_2/00000": 1.5,
        f"{LATE}/fho/0.0": 0.5,
        f"{GROUPED}/goalstep/0": 0.0,
        f"{GROUPED}/goalstep/0.0": 0.0,
        f"{GROUPED}/goalstep/1": 2.0,
        f"{GROUPED}/goalstep/2": 1.5,
        f"{SILENT}/window/0000": 0.0,
    }
    return Written(
        root=root,
        scenes={name: scene_of(name.split("/")[0]) for name in starts},
        t0_s={name: first_frame_s(name.split("/")[0], start) for name, start in starts.items()},
    )


def scene_of(uid: str) -> Scene:
    return Scene(seed=SEEDS[uid], duration_s=4.0)


def first_frame_s(uid: str, start_s: float) -> float:
    """PTS of the first frame at or after an instant."""
    times = [float(pts * TIME_BASE) for pts in frame_pts(uid)]
    return next(t for t in times if t >= start_s - 1e-6)


def frame_pts(uid: str) -> list[int]:
    return [START_PTS[uid] + k * int(1 / TIME_BASE) // RATE_HZ for k in range(NUM_FRAMES[uid])]


def write_video(path: Path, uid: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scene = scene_of(uid)
    # The MP4 writer keeps a late first PTS (as an edit list), which is how the canonical videos have it.
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libvpx-vp9", rate=RATE_HZ)
        stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = TIME_BASE
        stream.options = {"crf": "30", "b": "0", "deadline": "realtime", "cpu-used": "8", "g": "30"}
        for pts in frame_pts(uid):
            frame = av.VideoFrame.from_ndarray(scene.picture(float(pts * TIME_BASE)), "rgb24")
            frame.pts, frame.time_base = pts, TIME_BASE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def dump(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def metadata() -> dict[str, Any]:
    return {
        "date": "230209",
        "version": "2.0",
        "description": "Ego4D metadata",
        "videos": [video_entry(uid) for uid in START_PTS],
        "clips": [],
        "concurrent_video_sets": [],
        "physical_settings": [],
    }


def video_entry(uid: str) -> dict[str, Any]:
    start, length = float(START_PTS[uid] * TIME_BASE), NUM_FRAMES[uid] / RATE_HZ
    return {
        "video_uid": uid,
        "duration_sec": length,
        "scenarios": ["Cooking"],
        "video_metadata": {
            "fps": 30.0,
            "num_frames": NUM_FRAMES[uid],
            "video_codec": "vp9",
            "display_resolution_width": 320,
            "display_resolution_height": 240,
            "mp4_duration_sec": start + length,
            "video_start_sec": start,
            "video_duration_sec": length,
            "audio_start_sec": None,
            "audio_duration_sec": None,
            "video_start_pts": START_PTS[uid],
            "video_base_numerator": 1,
            "video_base_denominator": 15360,
        },
        "split_em": "train",
        "split_av": None,
        "split_fho": "train",
        "s3_path": f"s3://ego4d-consortium-sharing/public/v2/full_scale/{uid}.mp4",
        "video_source": "unict",
        "device": "GoPro",
        "physical_setting_name": "unict_scene_1" if uid == LATE else None,
        "fb_participant_id": 517 if uid == LATE else None,
        "is_stereo": False,
        "has_imu": False,
        "has_gaze": False,
        "video_components": [],
        "has_redacted_regions": False,
        "redacted_intervals": [],
        "gaps": None,
    }


def narration(time_s: float, text: str, uid: str = PASS_UID) -> dict[str, Any]:
    return {
        "timestamp_sec": time_s,
        "timestamp_frame": round(time_s * RATE_HZ),
        "_unmapped_timestamp_sec": time_s,
        "narration_text": text,
        "annotation_uid": uid,
    }


def narrations() -> dict[str, Any]:
    """Keyed by uid without a wrapper; the second video has no pass at all."""
    return {
        LATE: {
            "narration_pass_1": {
                "narrations": [
                    narration(0.2, "#C C picks a box"),
                    narration(1.0, "#C C moves the box"),
                    narration(2.0, "#O man X waves"),
                    narration(3.0, "#C C #unsure touches a thing"),
                ],
                "summaries": [
                    {
                        "start_sec": 0.0,
                        "end_sec": 4.0,
                        "summary_text": "#summary C tidies",
                        "annotation_uid": PASS_UID,
                    }
                ],
            },
            "narration_pass_2": {
                "narrations": [narration(2.0, "#c c closes the hand", "385dff3f")],
                "summaries": [],
            },
            "status": "complete",
        },
        GROUPED: {"status": "redacted"},
    }


def action(start_s: float, end_s: float, **changes: Any) -> dict[str, Any]:
    return {
        "uid": None,
        "start_sec": start_s,
        "end_sec": end_s,
        "start_frame": round(start_s * RATE_HZ),
        "end_frame": round(end_s * RATE_HZ),
        "narration_text": "#C C lifts the red box",
        "structured_verb": "take_(pick,_grab,_get)",
        "freeform_verb": None,
        "state_transition": None,
        "critical_frames": None,
        "frames": None,
        "is_valid_action": True,
        "is_partial": False,
        "is_rejected": False,
        "is_invalid_annotation": False,
        "reject_reason": None,
        "stage": None,
    } | changes


def interval(
    start_s: float, end_s: float, actions: list[dict[str, Any]], *, redacted: bool = False
) -> dict[str, Any]:
    return {
        "clip_id": "451",
        "clip_uid": None,
        "start_sec": start_s,
        "end_sec": end_s,
        "clip_parent_start_sec": start_s,
        "clip_parent_end_sec": end_s,
        "narrated_actions": actions,
        "redacted": redacted,
    }


def fho() -> dict[str, Any]:
    """One action to keep; one each invalid, rejected, wrongly annotated; a redacted interval."""
    actions = [
        action(0.5, 3.5),
        action(1.0, 3.0, is_valid_action=False),
        action(1.0, 3.0, is_rejected=True, reject_reason="not visible"),
        action(1.0, 3.0, is_invalid_annotation=True),
    ]
    late = [interval(0.0, 4.0, actions), interval(0.0, 4.0, [action(2.0, 3.0)], redacted=True)]
    videos = [{"annotated_intervals": late, "video_metadata": {"fps": 30.0}, "video_uid": LATE}]
    return {"version": "2.0", "date": "230208", "description": "FHO", "videos": videos}


def step(start: float, end: float, text: str, **changes: Any) -> dict[str, Any]:
    return {
        "start_time": start,
        "end_time": end,
        "step_category": "General cooking activity",
        "step_description": text,
        "is_continued": False,
        "is_procedural": True,
        "is_relevant": "essential",
        "summary": [],
        "segments": [],
    } | changes


def goalstep() -> dict[str, Any]:
    """Int times, a start before the video, overlapping and out-of-order neighbours, an end beyond, no flags."""
    beyond = step(1.5, 3.2, "close the hand")
    for flag in ("is_continued", "is_procedural", "is_relevant"):
        del beyond[flag]
    steps = [
        step(0, 2.5, "move the box", segments=[step(0, 1, "reach")]),
        step(2, 2.9, "lift the box"),
        beyond,
    ]
    video = {
        "video_uid": GROUPED,
        "start_time": 0.0,
        "end_time": 3.0,
        "goal_category": "COOKING:MAKE_OMELET",
        "goal_description": "Tidy the table",
        "goal_wikihow_url": "",
        "summary": [],
        "is_procedural": True,
        "segments": steps,
    }
    return {
        "version": "1.0",
        "date": "231129",
        "description": "",
        "split": "train",
        "videos": [video],
    }
