"""AgiBot World in its true layout: task_info JSON, proprio_stats.h5, mp4 per camera, camera JSON.

The hand of the scene is turned into link7 by the registry's constant, written out here: T_src = T_hand @ inv([[R, t], [0, 1]]).
"""

from __future__ import annotations

import json
from pathlib import Path

import av
import h5py
import numpy as np
from scipy.spatial.transform import Rotation

from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene, rigid_transform

RATE_HZ = 30
# z of link7 points along the fingers; the grasp centre lies 0.23 m out (OmniPicker: 0.15 m).
R_SRC_HAND = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], dtype=float)
TCP_M = {"beta": 0.23, "omnipicker": 0.15, "hand": 0.0}
T_LINK7_HANDCAM = rigid_transform(np.eye(3), [0.0, -0.06, 0.05])
START_NS = 1_700_000_000_123_456_789
UNUSED = [
    "action/effector/force",
    "action/joint/effort",
    "action/joint/velocity",
    "action/robot/angular",
    "action/robot/orientation",
    "action/robot/position",
    "state/effector/force",
    "state/end/angular",
    "state/end/velocity",
    "state/end/wrench",
    "state/head/effort",
    "state/head/velocity",
    "state/joint/effort",
    "state/joint/velocity",
    "state/robot/orientation",
    "state/robot/orientation_drift",
    "state/robot/position",
    "state/robot/position_drift",
    "state/waist/effort",
    "state/waist/velocity",
]
STEPS = ((0, 20, "Reach for the box."), (20, 40, "Grasp the box."), (40, 60, "Lift the box."))


def write(root: Path, *, commands: bool = False) -> Written:
    """Two tasks with two and one episodes of 2 s. Beta style: the action repeats the state, unless `commands`."""
    scenes: dict[str, Scene] = {}
    for seed, (task, episode) in enumerate(((327, 648642), (327, 648649), (352, 9544))):
        scene = Scene(seed=seed, sides=("left", "right"))
        write_episode(root, task, episode, scene=scene, commands=commands)
        scenes[f"{task}/{episode}"] = scene
    return Written(root=root, scenes=scenes)


def write_episode(
    root: Path,
    task: int,
    episode: int,
    *,
    scene: Scene,
    effector: str = "beta",  # beta | omnipicker | hand
    commands: bool = False,
    cameras: tuple[str, ...] = ("head", "hand_left"),
    extra_pictures: int = 0,
    num_extra_T_base_cam: int = 0,
    nested_parameters: bool = False,
    is_listed: bool = True,
    steps: tuple[tuple[int, int, str], ...] = STEPS,
) -> Path:
    """One whole episode, appended to its task_info file; returns the path of its h5."""
    t_s = np.arange(round(scene.duration_s * RATE_HZ)) / RATE_HZ
    h5_path = root / "proprio_stats" / str(task) / str(episode) / "proprio_stats.h5"
    h5_path.parent.mkdir(parents=True)
    now = rows(scene, t_s, effector)
    commanded = rows(scene, t_s + 1 / RATE_HZ, effector, is_action=True) if commands else now
    with h5py.File(h5_path, "w") as file:
        fill(file, now, commanded, START_NS + np.round(t_s * 1e9).astype(np.int64))
    videos = root / "observations" / str(task) / str(episode) / "videos"
    videos.mkdir(parents=True)
    params = root / "parameters" / str(task) / str(episode)
    params = params / "parameters/camera" if nested_parameters else params / "camera"
    params.mkdir(parents=True)
    for camera in cameras:
        write_video(videos / f"{camera}_color.mp4", scene, len(t_s) + extra_pictures)
        write_calibration(params, camera, scene, now, len(t_s) + num_extra_T_base_cam)
    if is_listed:
        list_episode(root, task, episode, steps)
    return h5_path


def rows(
    scene: Scene, t_s: np.ndarray, effector: str, *, is_action: bool = False
) -> dict[str, np.ndarray]:
    """joint, xyz, quat, effector arrays at the given scene times, in the source's own units."""
    T_hand_src = np.linalg.inv(rigid_transform(R_SRC_HAND, [0, 0, TCP_M[effector]]))
    T = np.array([[scene.T_base_hand(t, s) @ T_hand_src for s in ("left", "right")] for t in t_s])
    opening = np.array([[scene.gripper_opening(t)] * 2 for t in t_s])
    if effector == "hand":
        tool = np.sin(t_s[:, None] + 0.1 * np.arange(12))
    elif is_action:
        tool = 1 - opening
    else:
        tool = 35 + 85 * (1 - opening) if effector == "beta" else 118 * (1 - opening)
    return {
        "joint": 0.5 * np.sin(t_s[:, None] + np.arange(14)),
        "xyz": T[:, :, :3, 3],
        "quat": Rotation.from_matrix(T[:, :, :3, :3].reshape(-1, 3, 3)).as_quat().reshape(-1, 2, 4),
        "effector": tool,
    }


def fill(
    file: h5py.File, state: dict[str, np.ndarray], action: dict[str, np.ndarray], t_ns: np.ndarray
) -> None:
    """Every data set of a beta file, used or not."""
    num_rows = len(t_ns)
    file["timestamp"] = t_ns.astype(np.int64)
    for top, values in (("state", state), ("action", action)):
        file[f"{top}/joint/position"] = values["joint"]
        file[f"{top}/end/position"] = values["xyz"]
        file[f"{top}/end/orientation"] = values["quat"]
        file[f"{top}/effector/position"] = values["effector"]
        file[f"{top}/head/position"] = np.zeros((num_rows, 2))
        file[f"{top}/waist/position"] = np.tile([0.5, 0.27], (num_rows, 1))
    file["state/joint/current_value"] = np.zeros((num_rows, 14))
    file["action/robot/velocity"] = np.zeros((num_rows, 2))
    for group in ("effector", "end", "head", "joint", "robot", "waist"):
        file[f"action/{group}/index"] = np.arange(num_rows, dtype=np.int64)
    for key in UNUSED:
        file[key] = np.zeros((0,), np.float32)


def replace(h5_path: Path, **datasets: np.ndarray) -> None:
    """Overwrite data sets of a written file; `__` in a keyword stands for a slash."""
    with h5py.File(h5_path, "r+") as file:
        for name, values in datasets.items():
            key = name.replace("__", "/")
            del file[key]
            file[key] = values


def write_video(path: Path, scene: Scene, num_pictures: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE_HZ, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, "yuv420p"
        for k in range(num_pictures):
            picture = av.VideoFrame.from_ndarray(scene.picture(k / RATE_HZ), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def write_calibration(
    folder: Path, camera: str, scene: Scene, state: dict[str, np.ndarray], num_rows: int
) -> None:
    """The head sees the scene; a hand camera rides on the left link7."""
    K = scene.K_cam
    lens = {"fx": K[0, 0], "fy": K[1, 1], "ppx": K[0, 2], "ppy": K[1, 2]}
    lens |= dict.fromkeys(("k1", "k2", "k3", "p1", "p2"), 0.0)
    poses = []
    for k in range(num_rows):
        at = min(k, len(state["xyz"]) - 1)
        R = Rotation.from_quat(state["quat"][at, 0]).as_matrix()
        link7 = rigid_transform(R, state["xyz"][at, 0])
        T = scene.T_base_cam if camera.startswith("head") else link7 @ T_LINK7_HANDCAM
        one = {"rotation_matrix": T[:3, :3].tolist(), "translation_vector": T[:3, 3].tolist()}
        poses.append({"extrinsic": one})
    (folder / f"{camera}_intrinsic_params.json").write_text(json.dumps({"intrinsic": lens}))
    (folder / f"{camera}_extrinsic_params.json").write_text(json.dumps(poses[0]))
    (folder / f"{camera}_extrinsic_params_aligned.json").write_text(json.dumps(poses))


def list_episode(
    root: Path, task: int, episode: int, steps: tuple[tuple[int, int, str], ...] = STEPS
) -> None:
    """Append an episode to task_info/task_<task>.json."""
    path = root / "task_info" / f"task_{task}.json"
    path.parent.mkdir(exist_ok=True)
    entries = json.loads(path.read_text()) if path.exists() else []
    config = [
        {"start_frame": a, "end_frame": b, "action_text": text, "skill": "Pick"}
        for a, b, text in steps
    ]
    entries.append(
        {
            "episode_id": episode,
            "label_info": {"action_config": config},
            "task_name": "Pick up the box",
            "init_scene_text": "The robot stands at a table with two boxes.",
        }
    )
    path.write_text(json.dumps(entries))
