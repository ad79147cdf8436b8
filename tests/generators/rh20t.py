"""RH20T scenes in their true layout: npy files of pickled dicts by camera serial, one MP4 a camera, calibrations beside them.

The constants of the robots are written out here (`rh20t/rh20t_api:configs/configs.json`). After `finish_time` every file goes
on with nonsense, as real recordings go on with the arm driving home.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
from scipy.spatial.transform import Rotation

from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene, rigid_transform, rot_x, rot_y, rot_z

START_MS = 1_630_825_420_947
CALIB_MS = 1_630_800_000_000
STEP_MS = 100
LATE_MS = {"fixed": 0, "hand": 3}  # the in-hand camera's clock is 3 ms late
EXTRA = 3  # rows after the finish
FIXED, L515 = "038522063145", "f0461559"
# z of the aligned tool along the fingers, y across the jaws, -x up; the canonical axes as columns.
R_SRC_HAND = np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]], dtype=float)
QUARTER = np.pi / 2
# cfg: first in-hand serial, tc_mat, align_mat_tcp, align_mat_base, stroke in mm, joints in a row of joint.npy
SETUPS = {
    1: ("043322070878", rigid_transform(rot_z(QUARTER), [0, 0.077, 0.2665]), np.eye(4), np.eye(4), 95, 14),
    3: ("045322071843", rigid_transform(np.eye(3), [0.027, 0.0775, 0.240]), rigid_transform(rot_z(QUARTER), [0, 0, 0]), rigid_transform(rot_z(np.pi), [0, 0, 0]), 110, 6),
    5: ("104422070042", rigid_transform(rot_z(-QUARTER), [0.033, -0.05, 0.09]), rigid_transform(rot_z(np.pi), [0, 0, 0]), np.eye(4), 80, 14),
    6: ("135122075425", rigid_transform(rot_z(QUARTER), [0.035, 0.055, 0.20]), np.eye(4), np.eye(4), 85, 7),
}  # fmt: skip
T_BASE_MARKER = rigid_transform(rot_z(0.7) @ rot_x(0.1), [0.5, 0.1, 0.02])
T_BASE_TCP_CALIB = rigid_transform(
    rot_z(0.3) @ rot_y(2.6) @ rot_x(0.2), [0.42, -0.05, 0.35]
)  # aligned
TEXTS = {
    "task_0001": {"task_description_english": "Press the button from top to bottom", "task_description_chinese": "按"},
    "task_0092": {"task_description_english": "Wipe the table with a cloth ", "task_description_chinese": "擦"},
}  # fmt: skip


def write(root: Path) -> Written:
    """Three robots, one scene each, and a human scene that belongs to `rh20t_human`."""
    scenes = {}
    for number, task in ((1, 1), (3, 92), (5, 1)):
        name = f"task_{task:04d}_user_0010_scene_0004_cfg_{number:04d}"
        scenes[name] = Scene(seed=number, width=160, height=90, focal_px=130.0)
        write_scene(root / f"RH20T_cfg{number}" / name, scenes[name], number)
    first = root / "RH20T_cfg1/task_0001_user_0010_scene_0004_cfg_0001_human"
    write_cameras(first, Scene(width=32, height=18), {FIXED: 0})
    (first / "metadata.json").write_text("{}")
    (root / "task_description.json").write_text(json.dumps(TEXTS, ensure_ascii=False))
    return Written(root=root, scenes=scenes, t0_s=dict.fromkeys(scenes, LATE_MS["hand"] / 1000))


def write_scene(folder: Path, scene: Scene, number: int, **metadata: Any) -> None:
    """One robot scene, its calibration and every file that the adapter reads."""
    hand = SETUPS[number][0]
    stamps = write_cameras(folder, scene, {FIXED: LATE_MS["fixed"], hand: LATE_MS["hand"]})
    finish = START_MS + round(scene.duration_s * 1000) + LATE_MS["hand"]
    record = {
        "calib": CALIB_MS,
        "calib_quality": 3,
        "start_time": START_MS,
        "finish_time": finish,
        "rating": 7,
    }
    (folder / "metadata.json").write_text(json.dumps({**record, **metadata}))
    write_transformed(folder / "transformed", scene, number, stamps, finish)
    write_calibration(folder.parent / "calib" / str(CALIB_MS), scene, number)


def write_cameras(folder: Path, scene: Scene, late_ms: dict[str, int]) -> dict[str, list[int]]:
    """color.mp4 and timestamps.npy of each serial; serial -> its stamps."""
    count = round(scene.duration_s * 1000) // STEP_MS + 1
    stamps = {}
    for serial, late in late_ms.items():
        ms = [START_MS + STEP_MS * k + late for k in range(count + EXTRA)]
        pictures = [scene.picture((t - START_MS) / 1000) for t in ms[:count]]
        pictures += [np.zeros_like(pictures[0])] * EXTRA
        camera = folder / f"cam_{serial}"
        camera.mkdir(parents=True)
        write_video(camera / "color.mp4", pictures)
        save(camera / "timestamps.npy", {"color": ms, "depth": ms})
        stamps[serial] = ms
    return stamps


def write_transformed(
    folder: Path, scene: Scene, number: int, stamps: dict[str, list[int]], finish: int
) -> None:
    _, _, align_tcp, align_base, stroke, width = SETUPS[number]
    tcp: dict[str, list[dict[str, Any]]] = {}
    gripper: dict[str, dict[int, Any]] = {}
    joint: dict[str, dict[int, Any]] = {}
    for serial, ms in stamps.items():
        tcp[serial], gripper[serial], joint[serial] = [], {}, {}
        for stamp in ms:
            t = (stamp - START_MS) / 1000
            T = align_base @ aligned(scene, t) @ np.linalg.inv(align_tcp)
            mm = stroke * scene.gripper_opening(t)
            if stamp > finish:
                T, mm = rigid_transform(rot_x(3.0), [3, 3, 3]), 7.0
            tcp[serial].append({"timestamp": stamp, "tcp": wxyz(T), "robot_ft": np.ones(6)})
            # the other two numbers differ from gripper to gripper; the last one is when it was last told
            told = [mm, 30, stamp - 40]
            gripper[serial][stamp] = {"gripper_command": told, "gripper_info": [mm, 65535, 1]}
            joint[serial][stamp] = 0.5 * np.sin(t + np.arange(width))
        tcp[serial].reverse()  # the API sorts
    save(folder / "tcp_base.npy", tcp)
    save(folder / "gripper.npy", gripper)
    save(folder / "joint.npy", joint)


def aligned(scene: Scene, t: float) -> np.ndarray:
    return scene.T_base_hand(t) @ np.linalg.inv(rigid_transform(R_SRC_HAND, [0, 0, 0]))


def wxyz(T: np.ndarray) -> np.ndarray:
    x, y, z, w = Rotation.from_matrix(T[:3, :3]).as_quat()
    return np.array([*T[:3, 3], w, x, y, z])


def write_calibration(folder: Path, scene: Scene, number: int) -> None:
    """Marker to camera of every camera at one moment, and where the tool was, in the robot's own form."""
    hand, tc_mat, align_tcp, align_base, _, _ = SETUPS[number]
    T_raw = align_base @ T_BASE_TCP_CALIB @ np.linalg.inv(align_tcp)
    T_base_cam = {
        FIXED: scene.T_base_cam,
        L515: scene.T_base_cam @ rigid_transform(rot_y(0.1), [0.1, 0, 0]),
    }
    T_base_cam[hand] = np.linalg.inv(align_base) @ T_raw @ np.linalg.inv(tc_mat)
    extrinsics = {
        serial: (np.linalg.inv(T) @ T_BASE_MARKER)[None] for serial, T in T_base_cam.items()
    }
    intrinsics = dict.fromkeys(T_base_cam, np.hstack([K_1280(scene), np.zeros((3, 1))]))
    save(folder / "extrinsics.npy", extrinsics)
    save(folder / "intrinsics.npy", intrinsics)
    np.save(folder / "tcp.npy", raw_tcp(T_raw, number))


def raw_tcp(T: np.ndarray, number: int) -> np.ndarray:
    """Flexiv and UR5: xyz and wxyz. Franka: rotation vector before half a turn about x. KUKA: mm and static xyz angles."""
    if number == 5:
        return np.array(
            [*T[:3, 3], *Rotation.from_matrix(T[:3, :3] @ np.diag([1, -1, -1])).as_rotvec()]
        )
    if number in (6, 7):
        return np.array([*1000 * T[:3, 3], *Rotation.from_matrix(T[:3, :3]).as_euler("xyz")])
    return wxyz(T)


def K_1280(scene: Scene) -> np.ndarray:
    """The scene's K for pictures of 1280x720; pixel centres lie at whole numbers."""
    scale = 1280 / scene.width
    K = scene.K_cam.copy()
    K[:2, :2] *= scale
    K[:2, 2] = (K[:2, 2] + 0.5) * scale - 0.5
    return K


def save(path: Path, value: Any) -> None:
    """As the set's authors did: numpy pickles whatever is no array."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, value, allow_pickle=True)


def write_video(path: Path, pictures: list[np.ndarray]) -> None:
    height, width, _ = pictures[0].shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
