"""OakInk2 in its true layout: a pickle of tensors by frame id, folders of pictures by camera serial, texts by pairs of intervals.

Frame ids count 120 Hz from somewhere; pictures are at every fourth. The scene's
world is z-up, the source's y-up. Hands are MANO parameters of `mano_model`. Conventions are written out here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.raw.mano_model import finger_rotvec
from benchmarks.raw.torch_pickle import Tensor, dumps
from jobs.demo.raw import Written
from jobs.demo.raw.hand_scene import HandScene

MOCAP_HZ, STEP = 120, 4
FIRST_ID = {0: 480, 1: 0}  # of each sequence
SEQUENCES = (
    "scene_01__A003++seq__49a8305e104d29e3816a__2023-04-15-09-41-56",
    "scene_04__A008++seq__ff070467cd91f735acab__2023-04-23-11-28-29",
)
CAMERAS = {
    "104422070044": "allocentric_top",
    "104122061018": "allocentric_left",
    "104422070042": "allocentric_right",
    "104422070969": "egocentric",
}
AROUND = 160, 120  # size of the pictures of the three cameras around
Y_UP = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=float)
PREFIX = {"left": "lh", "right": "rh"}


def write(root: Path) -> Written:
    """Two sequences of 1.5 s. The first has all four cameras; the second the head's alone, and no right hand for a while."""
    scenes = {name: HandScene(seed=seed, duration_s=1.5) for seed, name in enumerate(SEQUENCES)}
    targets = {}
    for seed, (name, scene) in enumerate(scenes.items()):
        selection = list(CAMERAS.values()) if seed == 0 else ["egocentric"]
        lost = range(60, 90) if seed else ()
        write_sequence(root, name, scene, selection, first_id=FIRST_ID[seed], lost=lost)
        targets[name.replace("++", "/")] = "Make a cup of tea." if seed == 0 else "Wash the cup."
    (root / "program" / "task_target.json").write_text(json.dumps(targets))
    return Written(root=root, scenes=scenes, needs_mano=True)


def write_sequence(
    root: Path,
    name: str,
    scene: HandScene,
    selection: list[str],
    *,
    first_id: int,
    lost: range | tuple[int, ...] = (),
) -> None:
    """The right hand has no parameters in the motion capture frames `lost`."""
    (root / "anno_preview").mkdir(parents=True, exist_ok=True)
    content = annotation(scene, selection, first_id, lost)
    (root / "anno_preview" / f"{name}.pkl").write_bytes(dumps(content))
    for serial, camera in CAMERAS.items():
        if camera in selection:
            write_pictures(
                root / "data" / name / serial, scene, camera, content["frame_id_list"], first_id
            )
    folder = root / "program" / "desc_info"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(descriptions(first_id)))


def annotation(
    scene: HandScene, selection: list[str], first_id: int, lost: range | tuple[int, ...]
) -> dict[str, Any]:
    count = round(scene.duration_s * MOCAP_HZ)
    mocap_ids = [first_id + k for k in range(count)]
    frame_ids = mocap_ids[::STEP]
    t_s = {fid: (fid - first_id) / MOCAP_HZ for fid in mocap_ids}
    return {
        "cam_def": CAMERAS,
        "cam_selection": selection,
        "frame_id_list": frame_ids,
        "cam_intr": {c: dict.fromkeys(frame_ids, intrinsics(scene, c)) for c in selection},
        "cam_extr": {
            c: {fid: np.linalg.inv(Y_UP @ scene.T_world_cam(t_s[fid])) for fid in frame_ids}
            for c in selection
        },
        "mocap_frame_id_list": mocap_ids,
        "obj_list": ["O02@0206@00001"],
        "obj_transf": {"O02@0206@00001": {fid: np.eye(4) for fid in frame_ids}},
        "raw_smplx": {fid: {"world_tsl": Tensor(np.zeros((1, 3)))} for fid in frame_ids},
        "raw_mano": {
            fid: hands(scene, t, sides=("left",) if k in lost else ("left", "right"))
            for k, (fid, t) in enumerate(t_s.items())
        },
    }


def hands(scene: HandScene, t_s: float, sides: tuple[str, ...]) -> dict[str, Tensor]:
    """MANO of one frame: w first, the wrist, no shape."""
    out = {}
    for side in sides:
        T = Y_UP @ scene.T_world_wrist(t_s, side)
        fingers = Rotation.from_rotvec(finger_rotvec(scene, t_s, side)).as_matrix()
        quat_xyzw = Rotation.from_matrix(np.concatenate([T[None, :3, :3], fingers])).as_quat()
        out[f"{PREFIX[side]}__pose_coeffs"] = Tensor(np.roll(quat_xyzw, 1, axis=1)[None])
        out[f"{PREFIX[side]}__tsl"] = Tensor(T[None, :3, 3])
        out[f"{PREFIX[side]}__betas"] = Tensor(np.zeros((1, 10)))
    return out


def intrinsics(scene: HandScene, camera: str) -> np.ndarray:
    """Of the head camera, or of a picture of it made smaller: pixel centres are at whole numbers."""
    if camera == "egocentric":
        return scene.K_cam
    x, y = AROUND[0] / scene.width, AROUND[1] / scene.height
    smaller = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
    return smaller @ scene.K_cam


def write_pictures(
    folder: Path, scene: HandScene, camera: str, frame_ids: list[int], first_id: int
) -> None:
    """JPEG for the head, as in the release; PNG for the others, as the authors' first reader has it, and smaller.

    All four see the same, as if they were on the head.
    """
    folder.mkdir(parents=True)
    for fid in frame_ids:
        picture = scene.picture((fid - first_id) / MOCAP_HZ)[..., ::-1]
        if camera == "egocentric":
            cv2.imwrite(str(folder / f"{fid:06d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
        else:
            small = cv2.resize(picture, AROUND, interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(folder / f"{fid:06d}.png"), small)


def descriptions(first_id: int) -> dict[str, dict[str, str]]:
    """Left alone, then both hands (which begin and end apart), then the right alone."""
    a, b, c, d = (first_id + k for k in (0, 48, 60, 120))
    return {
        str(((a, b), None)): {"seg_desc": "Hold the cup.", "seg_desc_zh": "拿"},
        str(((c, d), (b, d - 6))): {"seg_desc": "Pour water into the cup. "},
        str((None, [d, d + 60])): {"seg_desc": "Put the kettle down."},
    }
