"""Meta-World episodes in the layout of benchmarks/routing: HDF5, MP4 and a label beside each.

The scene's hand is turned into the body `hand` of xyz_base.xml (fingers along x, grasp centre 0.045 m out), written out here.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
from scipy.spatial.transform import Rotation

from jobs.demo.raw import Written
from jobs.demo.raw.pick_scene import pick_scene
from jobs.demo.raw.scene import Scene, rigid_transform
from jobs.demo.raw.video_files import write_scene

RATE_HZ = 10
TCP_M = 0.045
LAYOUT = "metaworld_hdf5 1"
FIRST_SEED = 100  # held-out scenes before it were looked at while the demo was being changed


def write(root: Path) -> Written:
    """Two episodes with actions and one action-free video, 2 s each."""
    names = ("reach-v3/000002", "reach-v3/000010", "window-open-v3/000000")
    scenes = {name: Scene(seed=k, width=96, height=72) for k, name in enumerate(names)}
    for k, (name, scene) in enumerate(scenes.items()):
        write_episode(root / name, scene, has_actions=k < 2)
    return Written(root=root, scenes=scenes)


def write_many(root: Path, num: int) -> Written:
    """`num` episodes with actions, about 4 s each, in which the hand picks up a ball: enough to learn it from."""
    seeds = range(FIRST_SEED, FIRST_SEED + num)
    scenes = {f"pick-place-v3/{seed:06d}": pick_scene(seed) for seed in seeds}
    for name, scene in scenes.items():
        (root / name).parent.mkdir(exist_ok=True)
        write_episode(root / name, scene)
    return Written(root=root, scenes=scenes)


def write_episode(
    path: Path, scene: Scene, *, has_actions: bool = True, extra_frames: int = 0
) -> None:
    """`path` without suffix. Row k is seen at k / 10 s; its command is where the hand is at (k + 1) / 10 s."""
    num = round(scene.duration_s * RATE_HZ)
    t_s = np.arange(num) / RATE_HZ
    video = path.with_suffix(".mp4")
    duration_s = float(Fraction(num + extra_frames, RATE_HZ))
    write_scene(video, scene, duration_s=duration_s, rate_hz=RATE_HZ)
    with h5py.File(path.with_suffix(".hdf5"), "w") as file:
        file.attrs["layout"] = LAYOUT
        file.attrs["rate_hz"] = RATE_HZ
        file.attrs["instruction"] = "reach the red ball"
        file["time_s"] = t_s
        if has_actions:
            put_poses(file, "hand", scene, t_s)
            put_poses(file, "command", scene, t_s + 1 / RATE_HZ)
            opening = np.array([scene.gripper_opening(t) for t in t_s])
            file["hand/gap_m"] = 0.03 + 0.07 * opening
            file["command/action"] = actions(scene, t_s)
    label = {"play": "noisy", "is_success": False, "seed": 7}
    path.with_suffix(".label.json").write_text(json.dumps(label))


def put_poses(file: h5py.File, group: str, scene: Scene, t_s: np.ndarray) -> None:
    T = np.array([scene.T_base_hand(t) @ rigid_transform(np.eye(3), [-TCP_M, 0, 0]) for t in t_s])
    file[f"{group}/position_m"] = T[:, :3, 3]
    file[f"{group}/quat_wxyz"] = np.roll(Rotation.from_matrix(T[:, :3, :3]).as_quat(), 1, axis=1)


def actions(scene: Scene, t_s: np.ndarray) -> np.ndarray:
    """Three small deltas and the effort, +1 while the jaws should close."""
    effort = [1.0 if scene.gripper_opening(t + 1 / RATE_HZ) < 0.5 else -1.0 for t in t_s]
    return np.column_stack([0.1 * np.sin(t_s[:, None] + np.arange(3)), effort])
