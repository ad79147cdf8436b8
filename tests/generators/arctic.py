"""ARCTIC in its true layout: pickled dicts in .npy files, pictures whose numbers start at the subject's `ioi_offset`.

Hands are MANO of `mano_model` in the world: smplx's translation, and a pose to which the model adds its mean. Camera poses are
world to camera. Conventions are written out here, not taken from the package.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.raw.mano_model import finger_rotvec, made_model
from jobs.demo.raw import Written
from jobs.demo.raw.hand_scene import HandScene

RATE_HZ = 30
SMALL = 0.3  # cropped_images of view 0 are not cropped but made smaller
OFFSETS = {"s01": 3, "s05": 1}
SEQUENCES = ("s01/box_use_01", "s01/espressomachine_grab_01_retake", "s05/ketchup_use_02")
# A lens whose effect at the border of a small picture is below a pixel: the scene's pictures have none.
DIST8 = np.array([-0.004, 0.003, 0.0002, -0.0001, 0.001, 0.002, -0.001, 0.0005])
MODELS = {side: made_model(side) for side in ("left", "right")}


def write(root: Path) -> Written:
    """Three sequences of 1.5 s; subject s01 has small pictures, s05 full ones."""
    scenes = {name: HandScene(seed=seed, duration_s=1.5) for seed, name in enumerate(SEQUENCES)}
    for name, scene in scenes.items():
        write_sequence(root, name, scene)
        write_pictures(root, name, scene, is_small=name.startswith("s01"))
    write_misc(root, HandScene())
    write_splits(root)
    return Written(root=root, scenes=scenes, needs_mano=True)


def times(scene: HandScene) -> np.ndarray:
    return np.arange(round(scene.duration_s * RATE_HZ)) / RATE_HZ


def write_sequence(root: Path, name: str, scene: HandScene) -> None:
    t_s = times(scene)
    path = root / "raw_seqs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, "mano", {side: hand(scene, t_s, side) for side in ("right", "left")})
    T_cam_world = np.array([np.linalg.inv(scene.T_world_cam(t)) for t in t_s])
    egocam = {
        "R_k_cam_np": T_cam_world[:, :3, :3],
        "T_k_cam_np": T_cam_world[:, :3, 3:],
        "intrinsics": scene.K_cam,
        "ego_markers.ref": np.zeros((9, 3)),
        "ego_markers.label": [f"m{k}" for k in range(9)],
        "R0": np.eye(3),
        "T0": np.zeros((3, 1)),
        "dist8": DIST8,
    }
    put(path, "egocam.dist", egocam)
    np.save(f"{path}.object.npy", np.zeros((len(t_s), 7), np.float32))


def put(path: Path, kind: str, content: dict[str, object]) -> None:
    """As the set's authors did: one pickled dict. It is only ever read by our own restricted reader."""
    np.save(f"{path}.{kind}.npy", np.array(content, dtype=object), allow_pickle=True)


def hand(scene: HandScene, t_s: np.ndarray, side: str) -> dict[str, np.ndarray]:
    """One side of a .mano.npy, shape zero."""
    T = np.array([scene.T_world_wrist(t, side) for t in t_s])
    fingers = np.array([finger_rotvec(scene, t, side).reshape(45) for t in t_s])
    return {
        "rot": Rotation.from_matrix(T[:, :3, :3]).as_rotvec().astype(np.float32),
        "pose": (fingers - MODELS[side].hands_mean).astype(np.float32),
        "trans": (T[:, :3, 3] - J0(side)).astype(np.float32),
        "shape": np.zeros(10, np.float32),
        "fitting_err": np.full(len(t_s), 0.002, np.float32),
    }


def J0(side: str, betas: np.ndarray | None = None) -> np.ndarray:
    """[3] the wrist of the model at rest, the left one's shape directions as the official file has them."""
    model = MODELS[side]
    shape = np.zeros((778, 3)) if betas is None else model.shapedirs @ betas
    shape = shape * ([-1.0, 1.0, 1.0] if side == "left" else 1.0)
    return np.asarray((model.J_regressor @ (model.v_template + shape))[0])


def write_pictures(root: Path, name: str, scene: HandScene, *, is_small: bool) -> None:
    """Full ones begin before row 0 and go on after the last; small ones were made of the rows only."""
    offset, num_rows = OFFSETS[name[:3]], len(times(scene))
    folder = root / ("cropped_images" if is_small else "images") / name / "0"
    folder.mkdir(parents=True)
    size = (int(scene.width * SMALL), int(scene.height * SMALL))
    for number in range(num_rows + offset + 2):
        row = number - offset
        if is_small and not 0 <= row < num_rows:
            continue
        picture = cv2.cvtColor(scene.picture(row / RATE_HZ), cv2.COLOR_RGB2BGR)
        if is_small:
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / f"{number:05d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])


def write_misc(root: Path, scene: HandScene) -> None:
    """Nine views a subject, of which 0 is the head's."""
    fixed = {"world2cam": [np.eye(4).tolist()] * 8, "intris_mat": [np.eye(3).tolist()] * 8}
    sizes = [[scene.width, scene.height], *([[1000, 750]] * 8)]
    misc = {
        subject: {"ioi_offset": offset, "image_size": sizes, "gender": "female", **fixed}
        for subject, offset in OFFSETS.items()
    }
    path = root / "meta/misc.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(misc))


def write_splits(root: Path) -> None:
    """Two protocols; each trains on a sequence that the other holds out."""
    one, retake, other = SEQUENCES
    folder = root / "splits_json"
    folder.mkdir()
    protocols = {
        "p1": {"train": [one, other], "val": [retake], "test": []},
        "p2": {"train": [one, retake], "val": [], "test": [other]},
    }
    for name, lists in protocols.items():
        (folder / f"protocol_{name}.json").write_text(json.dumps(lists))
