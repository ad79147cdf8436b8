"""HoloAssist in its true layout: one session folder of text files and an MP4, and one list of labels.

Poses are written in psi's axes (x forward, y left, z up); the scene's world is z-up as HoloLens'. Conventions are written out here.
The rows' ticks are those of the real session's first frame and spacing; the last three rows repeat, as in the real file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from jobs.demo.raw import Written
from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.video_files import write_scene

RATE_HZ = 30
SESSION = "R007-7July-DSLR"
SPACED = "R101- 2Aug-SmallPrinter"  # a real name
FIRST_TICK = 637928148099658161
# Rows are measured at the pictures' own instants, which wander by microseconds about k / 30 s.
WANDER_TICKS = 300
# psi axes of a camera: columns forward, left, up, in OpenCV axes.
CV_PSI = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=float)
# psi axes of a wrist in the canonical ones: fingers +x, back of the hand +z, and y = z cross x. Columns.
WRIST_AXES = {
    "right": np.array([[-1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=float),
    "left": np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=float),
}
FINGERS = ((5, "Index"), (9, "Middle"), (13, "Ring"), (17, "Pinky"))
MIDDLE = 9
COARSE = (
    (0.3, 1.5, "The student detaches the lens."),
    (1.7, 2.9, "The student attaches the lens."),
)
FINE = (
    (0.4, 0.8, "grab", "none", "lens", "right hand", "Correct Action", "none"),
    (0.9, 1.4, "unscrew", "first", "hex_socket_head", "none", "Wrong Action, corrected by student", "The wrong screw."),
    (1.8, 2.8, "insert", "none", "lens", "none", "otherwise", "none"),
)  # fmt: skip


def write(root: Path) -> Written:
    """Two labelled sessions of 3.2 s, the second in the version 2 of the hand files; one coarse action each is an episode."""
    scenes: dict[str, HandScene] = {}
    t0_s: dict[str, float] = {}
    sessions = []
    for seed, (name, num_leading) in enumerate(((SESSION, 3), (SPACED, 5))):
        whole = HandScene(seed=seed, duration_s=3.2)
        write_session(root / name, whole, num_leading=num_leading)
        sessions.append(labels(name, whole.duration_s))
        for number, (start, end, _) in enumerate(COARSE):
            key = f"{name}/coarse/{10 * number + 2}"
            scenes[key] = HandScene(seed=seed, duration_s=end - start)
            ticks = row_ticks(round(whole.duration_s * RATE_HZ)) - FIRST_TICK
            t0_s[key] = float(ticks[ticks >= start * 1e7][0]) / 1e7
    (root / "data-annotation-trainval-v1_1.json").write_text(json.dumps(sessions, indent=1))
    return Written(root=root, scenes=scenes, t0_s=t0_s)


def row_ticks(num: int, num_repeated: int = 3) -> np.ndarray:
    """[num] ticks of the rows, the last ones repeated."""
    k = np.arange(num)
    ticks = (
        FIRST_TICK + np.round(k * 1e7 / RATE_HZ).astype(np.int64) + (k * 7919 % 3) * WANDER_TICKS
    )
    ticks[num - num_repeated :] = ticks[num - num_repeated - 1]
    return ticks


def write_session(
    folder: Path,
    scene: HandScene,
    *,
    num_leading: int = 3,
    lost: range | tuple[int, ...] = (),
    untracked: tuple[int, ...] = (),
) -> None:
    """In rows `lost` the right hand is not active and 26 times NaN; in `untracked` its index finger is only inferred."""
    export = folder / "Export_py"
    for name in ("Video", "Hands"):
        (export / name).mkdir(parents=True)
    write_scene(export / "Video_pitchshift.mp4", scene)
    ticks = row_ticks(round(scene.duration_s * RATE_HZ))
    t_s = (ticks - FIRST_TICK) / 1e7
    poses = np.array([scene.T_world_cam(t) @ CV_PSI for t in t_s])
    write_rows(export / "Video/Pose_sync.txt", ticks, poses.reshape(len(ticks), -1))
    end = FIRST_TICK + round(scene.duration_s * 1e7)
    (export / "Video/VideoMp4Timing.txt").write_text(f"{FIRST_TICK}\n{end}\n")
    (export / "Video/Intrinsics.txt").write_text(intrinsics(scene))
    for side in ("left", "right"):
        values = np.array([hand_row(scene, t, side, num_leading) for t in t_s])
        if side == "right":
            values[list(lost), num_leading - 3] = 0
            values[list(lost), num_leading - 2 : -52] = np.nan
            values[list(lost), -52:] = 0
            values[list(untracked), -26 + 6 : -26 + 11] = 0
        write_rows(export / f"Hands/{side.capitalize()}_sync.txt", ticks, values)


def write_rows(path: Path, ticks: np.ndarray, values: np.ndarray) -> None:
    """Seconds k / 30 as the exporter writes them, ticks, values with 17 digits; NaN as .NET writes it."""
    with path.open("w", encoding="ascii") as file:
        for k, (tick, row) in enumerate(zip(ticks, values, strict=True)):
            words = ["NaN" if np.isnan(v) else repr(float(v)) for v in row]
            file.write("\t".join([repr(k / RATE_HZ), str(int(tick)), *words]) + "\n")


def hand_row(scene: HandScene, t_s: float, side: str, num_leading: int) -> np.ndarray:
    """Flags, 26 matrices, 26 valid, 26 tracked. Version 2 has two more flags first; the active one stands by the joints."""
    T_wrist = scene.T_world_wrist(t_s, side) @ WRIST_AXES[side]
    matrices = np.tile(T_wrist, (26, 1, 1))
    matrices[:, :3, 3] = points26(scene.joints_world(t_s, side))
    flags = np.array([0.0] * (num_leading - 3) + [1.0])
    return np.concatenate([flags, matrices.reshape(-1), np.ones(52)])


def points26(points: np.ndarray) -> np.ndarray:
    """Palm, wrist, thumb 4, then metacarpal and four more for each finger, of the 21."""
    wrist = points[0]
    out = [(wrist + points[MIDDLE]) / 2, wrist, *points[1:5]]
    for first, _ in FINGERS:
        out += [wrist + 0.3 * (points[first] - wrist), *points[first : first + 4]]
    return np.array(out)


def intrinsics(scene: HandScene) -> str:
    """25 numbers: K, six radial and two tangential terms, focal lengths, principal point, a flag, the size."""
    K, f = scene.K_cam, scene.focal_px
    values = [*K.reshape(-1), *[0.0] * 8, f, f, f, K[0, 2], K[1, 2], 0, scene.width, scene.height]
    return "\t".join(f"{v:g}" for v in values)


def labels(session: str, duration_s: float) -> dict[str, Any]:
    """One session as the real file has it: ids do not follow time, "none" means nothing."""
    events = [
        event(
            1,
            "Narration",
            0.03,
            duration_s,
            {"Long form description": "The student handles a lens."},
        )
    ]
    for number, (start, end, text) in enumerate(COARSE):
        said = {"Action sentence": text, "Verb": "disassemble", "Adjective": "none", "Noun": "lens"}
        events.append(event(10 * number + 2, "Coarse grained action", start, end, said))
    for number, (start, end, *words) in enumerate(FINE):
        keys = (
            "Verb",
            "Adjective",
            "Noun",
            "adverbial",
            "Action Correctness",
            "Incorrect Action Explanation",
        )
        said = dict(zip(keys, words, strict=True))
        events.append(event(30 + number, "Fine grained action", start, end, said))
    talk = {"Conversation Purpose": "instructor-start-conversation_other", "Transcription": "Okay."}
    events.append(event(50, "Conversation", 1.0, 1.2, talk))
    video = {"resolution": {"w": 896, "h": 504}, "fps": 30}
    return {
        "batch": "202301_2221_10fps",
        "videoMetadata": {
            "video": video,
            "duration": {"raw": "00:00:03.20", "seconds": duration_s},
        },
        "taskId": "63dadefb13b97c97d4bd7f96",
        "taskType": "setup camera",
        "video_name": session,
        "events": events,
    }


def event(
    number: int, label: str, start: float, end: float, said: dict[str, Any]
) -> dict[str, Any]:
    return {
        "id": number,
        "label": label,
        "type": "range",
        "start": start,
        "end": end,
        "attributes": said,
    }
