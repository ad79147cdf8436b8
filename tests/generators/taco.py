"""TACO in its true layout: folders of triplets, a video, camera poses the other way round, and pickles of torch tensors.

Hands are MANO parameters of `mano_model`: a flat mean, the wrist as translation. Conventions are written out here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from jobs.demo.raw import Written
from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.video_files import write_scene
from tests.generators.mano_model import finger_rotvec
from tests.generators.torch_pickle import Tensor, dumps

RATE_HZ = 30
SEQUENCES = ("(pour in some, bowl, plate)/20231024_246", "(stir, spoon, bowl)/20231105_019")


def write(root: Path) -> Written:
    """Two sequences of 1.5 s; the right hand of the second has no parameters in five frames."""
    scenes = {name: HandScene(seed=seed, duration_s=1.5) for seed, name in enumerate(SEQUENCES)}
    for seed, (name, scene) in enumerate(scenes.items()):
        write_sequence(root, name, scene, lost=range(20, 25) if seed else ())
    first, second = (name.rpartition("/")[2] for name in SEQUENCES)
    path = root / "data_lists/v1_overall_data_train_test_split.txt"
    path.parent.mkdir()
    path.write_text(f"{first},train\n{second},test_3\n")
    return Written(root=root, scenes=scenes, needs_mano=True)


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
