"""Aria recordings with their machine perception outputs in both trees, pictures as vrs_to_mp4 exports them (§2c)."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from jobs.demo.raw import Written
from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.video_files import write_scene
from tests.generators.headset_hand import inverse, landmarks_wrist, quat_wxyz
from tests.generators.hot3d import T_DEVICE_CAM, calibration_line

SCENES = {"kitchen": HandScene(seed=51), "walk": HandScene(seed=52)}
START_US, LATE_US = 7_385_797_614, 6_000  # pictures; the hands are tracked between them
TRAJECTORY_HZ = 200
ABSENT = (20, 25)  # samples of the right hand of `walk` that are not there
GRAPH = "ea7288b8-b6a0-012d-8156-257aba6bd796"
SIDES = ("left", "right")


def write(root: Path) -> Written:
    """`kitchen`, with tables of the newest kind, and `walk`, whose hands have no wrist pose and miss some samples."""
    write_recording(root / "kitchen" / "mps", SCENES["kitchen"])
    write_video(root / "kitchen" / "recording.mp4", SCENES["kitchen"])
    write_recording(root / "mps_walk_vrs", SCENES["walk"], has_wrist=False, absent=ABSENT)
    write_video(root / "walk.mp4", SCENES["walk"])
    first_s = dict.fromkeys(SCENES, LATE_US / 1e6)  # the first instant with pictures AND hands
    return Written(root=root, scenes=dict(SCENES), t0_s=first_s)


def write_recording(
    folder: Path,
    scene: HandScene,
    *,
    has_wrist: bool = True,
    absent: tuple[int, int] = (0, 0),
    T_device_cam: np.ndarray = T_DEVICE_CAM,
) -> None:
    (folder / "hand_tracking").mkdir(parents=True)
    (folder / "slam").mkdir()
    table = hands_csv(scene, has_wrist=has_wrist, absent=absent, T_device_cam=T_device_cam)
    (folder / "hand_tracking" / "hand_tracking_results.csv").write_text(table)
    poses = trajectory_csv(scene, T_device_cam)
    (folder / "slam" / "closed_loop_trajectory.csv").write_text(poses)
    lines = [calibration_line(START_US + 10**5 * k, scene, T_device_cam) for k in range(3)]
    (folder / "slam" / "online_calibration.jsonl").write_text("\n".join(lines) + "\n")


def write_video(path: Path, scene: HandScene, times_ns: list[int] | None = None) -> None:
    """The scene at 30 Hz with the device time of each picture in the tag `description`."""
    plain = write_scene(path.with_name(f"plain_{path.name}"), scene)
    count = round(scene.duration_s * 30)
    times_ns = times_ns or [START_US * 1000 + k * 10**9 // 30 for k in range(count)]
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        target.metadata["description"] = ",".join(map(str, times_ns))
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    plain.unlink()


def hand_times_us(scene: HandScene) -> list[int]:
    count = round(scene.duration_s * 30) - 1
    return [START_US + LATE_US + k * 10**6 // 30 for k in range(count)]


def hands_csv(
    scene: HandScene,
    *,
    has_wrist: bool = True,
    absent: tuple[int, int] = (0, 0),
    T_device_cam: np.ndarray = T_DEVICE_CAM,
) -> str:
    header = ["tracking_timestamp_us"]
    for side in SIDES:
        header.append(f"{side}_tracking_confidence")
        header += [f"t{a}_{side}_landmark_{k}_device" for k in range(21) for a in "xyz"]
    if has_wrist:
        names = ("tx", "ty", "tz", "qx", "qy", "qz", "qw")
        header += [f"{n}_{side}_device_wrist" for side in SIDES for n in names]
    rows = [",".join(header)]
    for k, t_us in enumerate(hand_times_us(scene)):
        t_s = (t_us - START_US) / 1e6
        T_device_world = T_device_cam @ inverse(scene.T_world_cam(t_s))
        row, wrists = [str(t_us)], []
        for side in SIDES:
            T = T_device_world @ scene.T_world_wrist(t_s, side)
            points = landmarks_wrist(t_s, scene, side) @ T[:3, :3].T + T[:3, 3]
            w, *xyz = quat_wxyz(T[:3, :3])
            numbers, wrist, confidence = points.ravel(), [*T[:3, 3], *xyz, w], 0.97
            if side == "right" and absent[0] <= k < absent[1]:
                numbers, wrist, confidence = np.zeros(63), [0.0] * 6 + [1.0], -1
            row += [str(confidence), *(f"{v:.9f}" for v in numbers)]
            wrists += [f"{v:.9f}" for v in wrist]
        rows.append(",".join(row + (wrists if has_wrist else [])))
    return "\n".join(rows) + "\n"


def trajectory_csv(scene: HandScene, T_device_cam: np.ndarray = T_DEVICE_CAM) -> str:
    """From 50 ms before the first picture on."""
    names = ("tx", "ty", "tz", "qx", "qy", "qz", "qw")
    header = ["graph_uid", "tracking_timestamp_us", "utc_timestamp_ns"]
    header += [f"{n}_world_device" for n in names]
    header += [f"gravity_{a}_world" for a in "xyz"] + ["quality_score"]
    rows = [",".join(header)]
    for k in range(-10, round(scene.duration_s * TRAJECTORY_HZ) + 1):
        T = scene.T_world_cam(k / TRAJECTORY_HZ) @ inverse(T_device_cam)
        w, *xyz = quat_wxyz(T[:3, :3])
        numbers = [f"{v:.9f}" for v in (*T[:3, 3], *xyz, w, 0.0, 0.0, -9.81)]
        t_us = START_US + k * 10**6 // TRAJECTORY_HZ
        rows.append(",".join([GRAPH, str(t_us), "-1", *numbers, "0.5"]))
    return "\n".join(rows) + "\n"
