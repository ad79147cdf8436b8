"""RoboMIND files in their true layout: one HDF5 per episode, a variable-length buffer per picture, annotations beside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import h5py
import numpy as np
from scipy.spatial.transform import Rotation

from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene

RATE_HZ = 30
SIDES = ("left", "right")
MAX_JAW = 0.07  # what the generated grippers store when open; no source says what real ones do
# Columns: the canonical axes in the axes of the recorded frame; then the grasp centre there.
LINK6 = (np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=float), [0, 0, 0.135])
PANDA = (np.array([[0, 0, 1], [0, -1, 0], [1, 0, 0]], dtype=float), [0, 0, 0.1034])
EE_LINK = (np.eye(3), [0.15, 0, 0])
LIST = """,task,instruction
0,10_packplate,"pick up the plate 1 on the right,put plate 1 in the plate rack"
1,20_takecorn_2,"take the corn out from the steamer,put the corn on the plate,close the lid"
2,bread_in_basket,Put bread into the basket
3,open_trash_bin,Open trash bin\x20
"""


def write(root: Path) -> Written:
    """AgileX twice, a Franka with steps, and a Tien Kung, which stores no pose; 2 s each."""
    two = [Scene(seed=k, sides=SIDES, width=96, height=72, focal_px=90.0) for k in (0, 1)]
    one = Scene(seed=2, width=96, height=72, focal_px=90.0)
    still = Scene(seed=3, sides=SIDES, width=96, height=72, focal_px=90.0)
    scenes = {
        write_agilex(root, "20_takecorn_2/success_episodes/train/e9", two[0]): two[0],
        write_agilex(root, "20_takecorn_2/success_episodes/train/e10", two[1]): two[1],
        write_franka(root, "bread_in_basket/success_episodes/val/1014_144602", one): one,
        write_tienkung(root, "open_trash_bin/success_episodes/train/1211_111152", still): still,
    }
    (root / "RoboMIND_v1_2_instr.csv").write_text(LIST)
    write_steps(root, "h5_franka_1rgb", "bread_in_basket/success_episodes/val/1014_144602")
    return Written(root=root, scenes=scenes, options={"gripper": f"0..{MAX_JAW}"})


def times_s(scene: Scene, rate_hz: float = RATE_HZ) -> np.ndarray:
    return np.arange(round(scene.duration_s * rate_hz)) / rate_hz


def poses(
    scene: Scene, t_s: np.ndarray, side: str, frame: tuple[np.ndarray, list[float]]
) -> np.ndarray:
    """[T, 4, 4] of the recorded frame: T_base_hand @ inv([R | t])."""
    T_src_hand = np.eye(4)
    T_src_hand[:3, :3], T_src_hand[:3, 3] = frame
    T_hand_src = np.linalg.inv(T_src_hand)
    return np.array([scene.T_base_hand(t, side) @ T_hand_src for t in t_s])


def xyz_quat(T: np.ndarray) -> np.ndarray:
    return np.hstack([T[:, :3, 3], Rotation.from_matrix(T[:, :3, :3]).as_quat()])


def xyz_rpy(T: np.ndarray) -> np.ndarray:
    return np.hstack([T[:, :3, 3], Rotation.from_matrix(T[:, :3, :3]).as_euler("xyz")])


def joints(scene: Scene, t_s: np.ndarray, count: int) -> np.ndarray:
    """[T, count + 1]: sines, then the gripper as stored."""
    jaw = MAX_JAW * np.array([[scene.gripper_opening(t)] for t in t_s])
    return np.hstack([0.5 * np.sin(t_s[:, None] + np.arange(count)), jaw])


def write_agilex(root: Path, place: str, scene: Scene) -> str:
    """Both groups have poses; the leader is one row ahead. Its JPEG have red and blue swapped."""
    t_s = times_s(scene)
    tables = {}
    for group, ahead_s in (("puppet", 0.0), ("master", 1 / RATE_HZ)):
        for side in SIDES:
            T = poses(scene, t_s + ahead_s, side, LINK6)
            tables[f"{group}/end_effector_{side}"] = xyz_quat(T)
            tables[f"{group}/joint_position_{side}"] = joints(scene, t_s + ahead_s, 6)
            tables[f"{group}/joint_velocity_{side}"] = np.zeros((len(t_s), 7))
    pictures = [scene.picture(t)[..., ::-1] for t in t_s]
    return write_file(root, f"h5_agilex_3rgb/{place}", tables, {"camera_front": pictures})


def write_franka(root: Path, place: str, scene: Scene, *, body: str = "franka_1rgb") -> str:
    t_s = times_s(scene)
    frame, count = (EE_LINK, 6) if body == "ur_1rgb" else (PANDA, 7)
    tables = {
        "puppet/end_effector": xyz_rpy(poses(scene, t_s, "left", frame)),
        "puppet/joint_position": joints(scene, t_s, count),
        "master/joint_position": joints(scene, t_s + 1 / RATE_HZ, count),
    }
    pictures = [scene.picture(t) for t in t_s]
    return write_file(root, f"h5_{body}/{place}", tables, {"camera_top": pictures})


def write_tienkung(root: Path, place: str, scene: Scene) -> str:
    t_s = times_s(scene)
    tables = {
        f"{group}/joint_position": np.hstack([joints(scene, t_s + ahead_s, 7)] * 2)
        for group, ahead_s in (("puppet", 0.0), ("master", 1 / RATE_HZ))
    }
    pictures = [scene.picture(t)[..., ::-1] for t in t_s]
    return write_file(root, f"h5_tienkung_gello_1rgb/{place}", tables, {"camera_top": pictures})


def write_simulation(root: Path, place: str, scene: Scene, *, body: str = "simulation") -> str:
    """The state four times as often as the pictures, of which the last are missing, as in real files."""
    t_s, seen_s = times_s(scene, 4 * RATE_HZ), times_s(scene)[:-2]
    tables = {
        "franka/end_effector": xyz_quat(poses(scene, t_s, "left", PANDA)),
        "franka/joint_position": joints(scene, t_s, 7),
        "sim_time_seq": np.arange(len(t_s) - 5) / (4 * RATE_HZ),
    }
    pictures = {"camera_handeye": [scene.picture(t) for t in seen_s]}
    return write_file(root, f"h5_{body}/{place}", tables, pictures)


def write_file(
    root: Path,
    place: str,
    tables: Mapping[str, np.ndarray],
    cameras: Mapping[str, list[np.ndarray]],
) -> str:
    """One trajectory; pictures are RGB and become sound JPEG. Returns the folder that names the episode."""
    path = root / "benchmark1_1_release" / place / "data" / "trajectory.hdf5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["sim"], file.attrs["compress"] = False, True
        for name, values in tables.items():
            file[name] = values
        file.create_group("observations/depth_images")
        for name, pictures in cameras.items():
            put_buffers(file, f"observations/rgb_images/{name}", [jpeg(p) for p in pictures])
    return path.parents[1].relative_to(root).as_posix()


def jpeg(rgb: np.ndarray) -> np.ndarray:
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].ravel()


def put_buffers(file: h5py.File, key: str, buffers: list[np.ndarray]) -> None:
    rows = file.create_dataset(key, (len(buffers),), h5py.vlen_dtype(np.uint8))
    for k, buffer in enumerate(buffers):
        rows[k] = buffer


def write_steps(root: Path, body: str, place: str) -> None:
    """Two steps, of rows 0 to 20 and 30 to 59."""
    steps = [("move towards the bread", 0, 20), ("grab the bread ", 30, 59)]
    response = {
        "task_summary": "placing bread into a basket",
        "steps": [
            {
                "step_description": text,
                "start_frame": f"camera_top_{first:04d}.jpg",
                "end_frame": f"camera_top_{last:04d}.jpg",
            }
            for text, first, last in steps
        ],
    }
    path = root / "language_description_annotation_json" / f"{body}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{"id": f"{body}/{place}/data", "response": response}], indent=4))
