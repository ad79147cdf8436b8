"""One sequence of TACO in its true layout: a video, camera poses the other way round, and pickles of torch tensors.

Hands are MANO parameters of `mano_model`: a flat mean, the wrist as translation. Conventions are written out here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.raw.mano_model import finger_rotvec
from benchmarks.raw.torch_pickle import Tensor, dumps
from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.video_files import write_scene

RATE_HZ = 30


def write_sequence(
    root: Path, name: str, scene: HandScene, *, lost: range | tuple[int, ...] = ()
) -> None:
    """In frames `lost` the right hand is not there."""
    t_s = np.arange(round(scene.duration_s * RATE_HZ)) / RATE_HZ
    write_scene(root / "Egocentric_RGB_Videos" / name / "color.mp4", scene, rate_hz=RATE_HZ)
    parameters = root / "Egocentric_Camera_Parameters" / name
    parameters.mkdir(parents=True)
    np.savetxt(parameters / "egocentric_intrinsic.txt", scene.K_cam)
    T_cam_world = np.array([np.linalg.inv(scene.T_world_cam(t)) for t in t_s])
    np.save(parameters / "egocentric_frame_extrinsic.npy", T_cam_world)
    folder = root / "Hand_Poses" / name
    folder.mkdir(parents=True)
    for side in ("left", "right"):
        rows = {
            f"{k + 1:05d}": frame(scene, t, side)
            for k, t in enumerate(t_s)
            if side == "left" or k not in lost
        }
        (folder / f"{side}_hand.pkl").write_bytes(dumps(rows))
        shape = {"hand_shape": Tensor(np.zeros(10), device="cuda:0")}
        (folder / f"{side}_hand_shape.pkl").write_bytes(dumps(shape))


def frame(scene: HandScene, t_s: float, side: str) -> dict[str, Tensor]:
    """As in the release, tensors that were on a GPU."""
    T = scene.T_world_wrist(t_s, side)
    wrist = Rotation.from_matrix(T[:3, :3]).as_rotvec()
    pose = np.concatenate([wrist, finger_rotvec(scene, t_s, side).reshape(45)])
    return {
        "hand_pose": Tensor(pose, "f4", "cuda:0"),
        "hand_trans": Tensor(T[:3, 3], "f4", "cuda:0"),
    }
