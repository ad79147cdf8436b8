"""Three takes of Ego-Exo4D: takes.json, frame-aligned videos of one Aria and two GoPros, keysteps and atomic descriptions.

Layout and keys: EGO4D/Ego-Exo4D-docs:docs/data/{metadata,takes,downscaled_takes}.md, docs/annotations/ego_pose.md and the format page
video.md §3. The first take has hands too; its scene is the one of the hands.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jobs.demo.raw import Written
from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.scene import Scene, rigid_transform
from jobs.demo.raw.video_files import write_scene

COOK = "3b1c8e2a-5f54-4a3e-9d0c-0a4d7b1f6c01"
BIKE = "9f2d7c64-11d0-4d5a-8b7e-6c1e5a2b3d02"
SILENT = "c7a5e0b8-77aa-4f4e-a2c3-5d9f8e7c6b03"
NAMES = {COOK: "fair_cooking_05_2", BIKE: "iiith_bike_01_4", SILENT: "cmu_soccer06_1"}
HANDS = HandScene(seed=70, duration_s=4.0, width=192, height=192, focal_px=168.0)
SCENES: dict[str, HandScene | Scene] = {
    uid: Scene(seed=k, duration_s=4.0, width=192, height=192)
    for k, uid in enumerate(NAMES, start=70)
} | {COOK: HANDS}
EGO = {COOK: "aria01", BIKE: "aria02", SILENT: "aria01"}


FINGERS = ("thumb", "index", "middle", "ring", "pinky")
# The camera of the landscape picture in the frame of the upright one: u' = H - 1 - v, v' = u.
T_UPRIGHT_LANDSCAPE = rigid_transform(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), [0, 0, 0])


def write(root: Path, *, has_hands: bool = True) -> Written:
    """Four segments and a window; the second take was fetched at 448 px only; hands of the first are known."""
    for uid, scene in SCENES.items():
        folder = root / "takes" / NAMES[uid] / "frame_aligned_videos"
        folder = folder / "downscaled" / "448" if uid == BIKE else folder
        write_scene(folder / f"{EGO[uid]}_214-1.mp4", scene)
        write_scene(folder / "cam01.mp4", Scene(seed=99, duration_s=4.0, width=160, height=96))
    dump(root / "takes.json", [take(uid) for uid in NAMES])
    dump(root / "annotations" / "keystep_train.json", keysteps())
    dump(root / "annotations" / "atomic_descriptions_train.json", descriptions())
    if has_hands:
        folder = root / "annotations" / "ego_pose" / "train"
        dump(folder / "hand" / "automatic" / f"{COOK}.json", hands(range(120), lost=range(20, 23)))
        dump(folder / "camera_pose" / f"{COOK}.json", camera_poses(range(120)))
    starts = {
        f"{COOK}/keystep/0": 0.0,
        f"{COOK}/keystep/1": 1.5,
        f"{COOK}/atomic/0.0": 0.5,
        f"{BIKE}/atomic/0.1": 1.0,
        f"{SILENT}/0000": 0.0,
    }
    scenes = {name: SCENES[name.split("/")[0]] for name in starts}
    for name, long_s in zip(starts, (1.5, 1.75, 1.0), strict=False):
        scenes[name] = replace(HANDS, duration_s=long_s)  # it is exact at any time
    return Written(root=root, scenes=scenes, t0_s=starts)


def dump(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def take(uid: str, **changes: Any) -> dict[str, Any]:
    ego = EGO[uid]
    files = {
        ego: {
            "rgb": video(ego, "rgb", f"{ego}_214-1.mp4"),
            "slam-left": video(ego, "slam-left", f"{ego}_1201-1.mp4"),
        },
        "cam01": {"0": video("cam01", "0", "cam01.mp4")},
        "cam02": {"0": video("cam02", "0", "cam02.mp4")},
    }
    cameras = [
        {"cam_id": name, "is_ego": name == ego, "device_type": "aria" if name == ego else "gopro"}
        for name in files
    ]
    return {
        "take_uid": uid,
        "take_name": NAMES[uid],
        "root_dir": f"takes/{NAMES[uid]}",
        "capture_uid": "b8c1",
        "parent_task_name": "Cooking",
        "task_name": "Making an omelet",
        "task_start_sec": None,
        "task_end_sec": 4.0,
        "duration_sec": 4.0,
        "is_dropped": False,
        "is_narrated": True,
        "best_exo": "cam01",
        "frame_aligned_videos": files,
        "capture": {"capture_uid": "b8c1", "cameras": cameras},
        "participant_uid": 254,
        "university_name": "fair",
    } | changes


def video(camera: str, stream: str, name: str) -> dict[str, Any]:
    path = f"frame_aligned_videos/{name}"
    return {"cam_id": camera, "stream_id": stream, "clip_uid": None, "relative_path": path}


def keysteps() -> dict[str, Any]:
    segments = [
        {"start_time": 0, "end_time": 1.5, "step_id": 12, "step_name": "Get eggs", "step_description": "get the eggs", "is_essential": True},
        {"start_time": 1.5, "end_time": 3.25, "step_id": 13, "step_name": "Crack eggs", "step_description": "", "is_essential": False},
    ]  # fmt: skip
    return {
        "annotations": {
            COOK: {
                "take_uid": COOK,
                "take_name": NAMES[COOK],
                "scenario": "Cooking",
                "segments": segments,
            }
        },
        "taxonomy": {"Cooking": {}},
        "vocabulary": {},
    }


def description(time_s: float, text: str, **changes: Any) -> dict[str, Any]:
    row = {"text": text, "timestamp": time_s, "subject": "C", "ego_visible": True}
    return row | {"best_exo": {"cam_id": "cam01"}, "unsure": False} | changes


def annotator(*rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "annotation_uid": "u",
        "annotator_id": "a",
        "rejected": False,
        "reject_reason": None,
        "descriptions": list(rows),
    } | changes


def descriptions() -> dict[str, Any]:
    """Booleans as JSON and as "1" and "0", as in the real file; a rejected annotator; rows to be left out."""
    cook = annotator(
        description(1.0, "C picks up the red box with his right hand."),
        description(2.0, "O walks in.", subject="O"),
    )
    bike = annotator(
        description(0.5, "C blinks.", ego_visible="0"),
        description(1.5, "C grips the blue box.", ego_visible="1", unsure="0"),
        description(2.5, "C does something.", unsure="1"),
    )
    rejected = annotator(description(1.0, "nonsense"), rejected="1", reject_reason="audio")
    return {"annotations": {COOK: [cook], BIKE: [bike, rejected]}, "ds": "220101"}


def hands(frames: Iterable[int], lost: Iterable[int] = ()) -> dict[str, Any]:
    """Both hands in the world; in frames `lost` the right one lacks a joint."""
    out = {}
    for frame in frames:
        joints = {
            f"{side}_{name}": {"x": x, "y": y, "z": z, "num_views_for_3d": 3}
            for side in ("right", "left")
            for name, (x, y, z) in zip(
                joint_names(), HANDS.joints_world(frame / 30, side), strict=True
            )
        }
        if frame in lost:
            del joints["right_ring_3"]
        flat = {name: {"x": 1.0, "y": 2.0, "placement": "auto"} for name in joints}
        out[str(frame)] = [
            {"metadata": about(frame), "annotation2D": {"aria": flat}, "annotation3D": joints}
        ]
    return out


def joint_names() -> list[str]:
    return ["wrist", *(f"{finger}_{k}" for finger in FINGERS for k in (1, 2, 3, 4))]


def camera_poses(frames: Iterable[int]) -> dict[str, Any]:
    """World -> camera, of the landscape picture for which K is, and of a standing camera."""
    K = [[150.0, 0, 255.5], [0, 150.0, 255.5], [0, 0, 1]]
    still = {"camera_intrinsics": K, "camera_extrinsics": np.eye(4)[:3].tolist()}
    out = {}
    for frame in frames:
        T = np.linalg.inv(HANDS.T_world_cam(frame / 30) @ T_UPRIGHT_LANDSCAPE)
        ego = {"camera_intrinsics": K, "camera_extrinsics": T[:3].tolist()}
        out[str(frame)] = {"metadata": about(frame), "aria01": ego, "cam01": still}
    return out


def about(frame: int) -> dict[str, Any]:
    return {"take_uid": COOK, "take_name": NAMES[COOK], "frame_number": frame}
