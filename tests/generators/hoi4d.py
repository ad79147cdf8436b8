"""HOI4D in its true layout: a video at 15 Hz, a pickle a frame and hand, a Redwood log, events on two kinds of clock.

The archives lie beside each other, as they are unpacked. Hands are MANO in the camera, uncentred (the wrist is the model's J0
plus `trans`), without a mean pose. Intrinsics are for 1920 x 1080, whatever the size of the pictures. Conventions are written out
here, not taken from the package.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.raw.mano_model import finger_rotvec, made_model
from jobs.demo.raw import Written
from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.video_files import write_scene

RATE_HZ = 15
ONE, TWO = "ZY20210800001/H1/C1/N19/S100/s02/T3", "ZY20210800004/H4/C12/N14/S71/s03/T2"
LOST = range(12, 16)  # frames in which the right hand of the second sequence has no pickle
FULL = 1920
J0 = {
    side: (m.J_regressor @ m.v_template)[0]
    for side in ("left", "right")
    for m in [made_model(side)]
}


def write(root: Path) -> Written:
    """One sequence of a right hand whose labels run on a 10 s clock (halved here), one of both hands in the other layout."""
    one = HandScene(seed=0, width=320, height=180, sides=("right",))
    two = HandScene(seed=1, width=320, height=180)
    half_s = one.duration_s / 2
    write_sequence(root, ONE, one)
    write_actions(
        root,
        ONE,
        {"info": {"duration": half_s}, "events": events(half_s, ("startTime", "endTime"))},
    )
    write_sequence(root, TWO, two, lost=LOST)
    marks = events(two.duration_s, ("hdTimeStart", "hdTimeEnd"))
    write_actions(root, TWO, {"info": {"Duration": two.duration_s}, "markResult": {"marks": marks}})
    write_tasks(root)
    (root / "release.txt").write_bytes(
        f"{TWO}\r\n{ONE}\r\nZY20210800004/H4/C8/N14/S71/s03/T1\r\n".encode()
    )
    (root / "testset.txt").write_bytes(f"ZY20210800004/H4/C8/N03/S71/s01/T2\r\n{TWO}".encode())
    return Written(root=root, scenes={ONE: one, TWO: two}, needs_mano=True)


def write_sequence(
    root: Path, name: str, scene: HandScene, *, lost: range | tuple[int, ...] = ()
) -> None:
    """All but the labels; in frames `lost` the right hand is not annotated."""
    t_s = np.arange(round(scene.duration_s * RATE_HZ)) / RATE_HZ
    write_scene(root / "HOI4D_release" / name / "align_rgb/image.mp4", scene, rate_hz=RATE_HZ)
    write_log(root, name, [scene.T_world_cam(t) for t in t_s])
    params = root / "camera_params" / name.split("/")[0]
    params.mkdir(parents=True, exist_ok=True)
    np.save(params / "intrin.npy", full_size(scene))
    for side in scene.sides:
        folder = root / "handpose" / f"refinehandpose_{side}" / name
        folder.mkdir(parents=True)
        for k, t in enumerate(t_s):
            if side == "left" or k not in lost:
                data = pickle.dumps(frame(scene, t, side), protocol=2)
                (folder / f"{k}.pickle").write_bytes(data)


def full_size(scene: HandScene) -> np.ndarray:
    """K for pictures of 1920 x 1080: pixel centres are at whole numbers."""
    times = FULL / scene.width
    K = scene.K_cam * times
    K[:2, 2] = (scene.K_cam[:2, 2] + 0.5) * times - 0.5
    K[2, 2] = 1.0
    return K


def frame(scene: HandScene, t_s: float, side: str) -> dict[str, np.ndarray]:
    """One pickle."""
    T = np.linalg.inv(scene.T_world_cam(t_s)) @ scene.T_world_wrist(t_s, side)
    wrist = Rotation.from_matrix(T[:3, :3]).as_rotvec()
    return {
        "poseCoeff": np.concatenate([wrist, finger_rotvec(scene, t_s, side).reshape(45)]),
        "beta": np.zeros(10),
        "trans": T[:3, 3] - J0[side],
        "kps2D": scene.project(scene.joints_world(t_s, side), t_s) * (FULL / scene.width),
    }


def write_log(root: Path, name: str, poses: list[np.ndarray]) -> None:
    folder = root / "HOI4D_annotations" / name / "3Dseg"
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for k, T in enumerate(poses):
        lines += [f"{k} {k} {k + 1}", *(" ".join(f"{x:.8f}" for x in row) for row in T)]
    (folder / "output.log").write_text("\n".join(lines) + "\n")


def events(length_s: float, keys: tuple[str, str]) -> list[dict[str, object]]:
    """Three events over two quarters and a half of `length_s`; `keys` name start and end."""
    spans = (("rest", 0.0, 0.25), ("Reachout", 0.25, 0.5), ("Pickup", 0.5, 1.0))
    return [
        {"id": k, "event": event, keys[0]: start * length_s, keys[1]: end * length_s}
        for k, (event, start, end) in enumerate(spans)
    ]


def write_actions(root: Path, name: str, content: dict[str, object]) -> None:
    path = root / "HOI4D_annotations" / name / "action/color.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_tasks(root: Path) -> None:
    path = root / "definitions/task/task_definitions.csv"
    path.parent.mkdir(parents=True)
    rows = (
        "Category ID,Category,T1,T2,T3,T4",
        "C1,Toy Car,Push it,Spin it,Hide it in a box,N/A",
        "C12,Kettle,Lift it,Tip it over a cup,N/A,N/A",
    )
    path.write_bytes("\r\n".join((*rows, "")).encode())
