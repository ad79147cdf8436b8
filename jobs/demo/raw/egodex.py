"""EgoDex in its true layout: one HDF5 of named 4 x 4 transforms and one MP4 for each recording.

The scene's world is z-up; ARKit's is y-up. A left wrist is the canonical one turned 180 degrees about x (Vision Pro axes).
Names and conventions are written out here, not taken from the package.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from jobs.demo.raw import Written
from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.video_files import write_scene

RATE_HZ = 30
UNTRACKED = 0.0032246
Y_UP = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=float)
WRIST_AXES = {"right": np.eye(4), "left": np.diag([1.0, -1.0, -1.0, 1.0])}
# Suffix after the side -> the scene's joint, or (joint, share of the way to it) for bones that the 21 points do not have.
JOINTS: dict[str, tuple[int, float]] = {"Hand": (0, 1.0)}
for _first, _finger in zip((5, 9, 13, 17), ("Index", "Middle", "Ring", "Little"), strict=True):
    JOINTS[f"{_finger}FingerMetacarpal"] = (_first, 0.3)
    for _k, _part in enumerate(("Knuckle", "IntermediateBase", "IntermediateTip", "Tip")):
        JOINTS[f"{_finger}Finger{_part}"] = (_first + _k, 1.0)
for _k, _part in enumerate(("Knuckle", "IntermediateBase", "IntermediateTip", "Tip")):
    JOINTS[f"Thumb{_part}"] = (1 + _k, 1.0)
BODY = ("hip", "spine7", "neck4", "leftForearm", "rightForearm")


def write(root: Path) -> Written:
    """Two recordings of one task (the second has lost a wrist for five frames), one of another without confidences."""
    names = ("part1/assemble_tower/2", "part1/assemble_tower/10", "test/fold_towel/0")
    scenes = {name: HandScene(seed=seed, duration_s=1.5) for seed, name in enumerate(names)}
    for seed, (name, scene) in enumerate(scenes.items()):
        write_episode(
            root / name, scene, lost=range(20, 25) if seed == 1 else (), has_confidence=seed < 2
        )
    return Written(root=root, scenes=scenes)


def write_episode(
    path: Path,
    scene: HandScene,
    *,
    lost: range | tuple[int, ...] = (),
    has_confidence: bool = True,
    extra_frames: int = 0,
) -> None:
    """`path` without suffix. In rows `lost` the right hand is not tracked: floor confidence, a frozen pose."""
    num = round(scene.duration_s * RATE_HZ)
    write_scene(path.with_suffix(".mp4"), scene, duration_s=(num + extra_frames) / RATE_HZ)
    t_s = np.arange(num) / RATE_HZ
    with h5py.File(path.with_suffix(".hdf5"), "w") as file:
        file["camera/intrinsic"] = scene.K_cam.astype(np.float32)
        put(file, "camera", np.array([Y_UP @ scene.T_world_cam(t) for t in t_s]))
        for name in BODY:
            put(file, name, np.tile(np.eye(4), (num, 1, 1)))
        for side in ("left", "right"):
            for name, T in joints(scene, t_s, side).items():
                confidence = np.full(num, 0.8)
                if side == "right":
                    T[list(lost)] = T[0]
                    confidence[list(lost)] = UNTRACKED
                put(file, f"{side}{name}", T)
                if has_confidence:
                    file[f"confidences/{side}{name}"] = confidence.astype(np.float32)
        attributes(file, path)


def put(file: h5py.File, name: str, T: np.ndarray) -> None:
    file[f"transforms/{name}"] = T.astype(np.float32)


def joints(scene: HandScene, t_s: np.ndarray, side: str) -> dict[str, np.ndarray]:
    """[T, 4, 4] of each joint in the y-up world; all of a hand share the rotation of its wrist."""
    wrist = np.array([Y_UP @ scene.T_world_wrist(t, side) @ WRIST_AXES[side] for t in t_s])
    points = np.array([scene.joints_world(t, side) @ Y_UP[:3, :3].T for t in t_s])
    out = {}
    for name, (joint, share) in JOINTS.items():
        T = wrist.copy()
        T[:, :3, 3] = points[:, 0] + share * (points[:, joint] - points[:, 0])
        out[name] = T
    return out


def attributes(file: h5py.File, path: Path) -> None:
    """As in real files: a reversible task has two texts, and a word that says which holds."""
    file.attrs["task"] = path.parent.name
    file.attrs["llm_type"] = "reversible"
    file.attrs["llm_description"] = "Assemble the tower of cups."
    file.attrs["llm_description2"] = "Take the tower of cups apart."
    file.attrs["which_llm_description"] = "1" if path.stem != "10" else "2"
    file.attrs["llm_verbs"] = np.array(["assemble", "take apart"], dtype=h5py.string_dtype())
    file.attrs["environment"] = "table:oak, position:sitting, hand:both"
    file.attrs["session_name"] = f"session_{path.stem}"
