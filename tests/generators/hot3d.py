"""HOT3D, full sequences: one Aria, one Quest 3, with pictures exported to <stream>.mp4 (format page hands.md §2a)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.raw.mano_model import MIRROR, WRIST_AT_REST
from jobs.demo.raw import Written
from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.scene import rigid_transform, rot_x, rot_y, rot_z
from jobs.demo.raw.video_files import write_scene
from tests.generators.headset_hand import (
    fisheye_params,
    hand_model,
    inverse,
    joint_angles,
    quat_wxyz,
)

SCENES = {"P0003_c701bd11": HandScene(seed=31), "P0014_8254f925": HandScene(seed=32)}
HEADSETS = {"P0003_c701bd11": "Aria", "P0014_8254f925": "Quest3"}
START_NS, PERIOD_NS, PAIR_NS = 56_752_108_188_860, 33_333_333, 90_813
# The camera on the headset, and UmeTrack's wrist against MANO's: both constant, neither the identity.
T_DEVICE_CAM = rigid_transform(rot_z(1.2) @ rot_x(0.4), [0.01, -0.05, 0.02])
R_WRIST_MANO = rot_y(np.deg2rad(6.0))
T_ZUP_YUP = rigid_transform(
    np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]), [0, 0, 0]
)  # Quest 3's world is y up
BETAS = [0.1 * k for k in range(10)]
THETAS = [0.05 * k - 0.3 for k in range(15)]
STREAM = {"Aria": "214-1", "Quest3": "1201-1"}
MASKS = (
    "good_exposure",
    "hand_pose_available",
    "hand_visible",
    "headset_pose_available",
    "qa_pass",
)


def write(root: Path) -> Written:
    """Two sequences of 2 s at 30 Hz."""
    for name, scene in SCENES.items():
        write_sequence(root / name, scene, HEADSETS[name])
    return Written(root=root, scenes=dict(SCENES))


def frames(scene: HandScene, headset: str) -> list[tuple[int, float]]:
    """(TIME_CODE ns, scene time) of every row of poses: Aria's come in pairs, the second at the mono exposure."""
    base = [(START_NS + k * PERIOD_NS, k / 30) for k in range(round(scene.duration_s * 30))]
    if headset != "Aria":
        return base
    return [(t + d, s + d / 1e9) for t, s in base for d in (0, PAIR_NS)]


def to_source_world(T: np.ndarray, headset: str) -> np.ndarray:
    return T if headset == "Aria" else inverse(T_ZUP_YUP) @ T


def write_sequence(folder: Path, scene: HandScene, headset: str, *, pictures: bool = True) -> None:
    (folder / "masks").mkdir(parents=True)
    stream, rows = STREAM[headset], frames(scene, headset)
    about = {"headset": headset, "participant_id": folder.name[:5], "recording_name": folder.name}
    (folder / "metadata.json").write_text(json.dumps(about))
    profile = {"hand_model": hand_model()}
    (folder / "umetrack_hand_user_profile.json").write_text(json.dumps(profile))
    lines = [hand_lines(t_ns, t_s, scene, headset) for t_ns, t_s in rows]
    for name, texts in zip(("umetrack", "mano"), zip(*lines, strict=True), strict=True):
        (folder / f"{name}_hand_pose_trajectory.jsonl").write_text("\n".join(texts) + "\n")
    (folder / "headset_trajectory.csv").write_text(headset_csv(rows, scene, headset))
    own = [t for t, _ in rows][:: 2 if headset == "Aria" else 1]
    mask = "".join(f"{t},{stream},True\n" for t in own)
    for name in MASKS:
        (folder / "masks" / f"mask_{name}.csv").write_text("timestamp[ns],stream_id,mask\n" + mask)
    write_cameras(folder, scene, headset)
    if pictures:
        write_scene(folder / f"{stream}.mp4", scene)


def hand_lines(t_ns: int, t_s: float, scene: HandScene, headset: str) -> tuple[str, str]:
    """One line of UmeTrack and one of MANO."""
    umetrack, mano = {}, {}
    for key, side in (("0", "left"), ("1", "right")):
        T = to_source_world(scene.T_world_wrist(t_s, side), headset)
        wrist = {"t_xyz": T[:3, 3].tolist(), "q_wxyz": quat_wxyz(T[:3, :3])}
        angles = joint_angles(t_s, scene, side)
        umetrack[key] = {"wrist_xform": wrist, "joint_angles": angles, "hand_confidence": 1.0}
        J0 = WRIST_AT_REST if side == "right" else WRIST_AT_REST * MIRROR
        R = T[:3, :3] @ R_WRIST_MANO
        wrist = {"t_xyz": (T[:3, 3] - J0).tolist(), "q_wxyz": quat_wxyz(R)}
        mano[key] = {"pose": THETAS, "wrist_xform": wrist, "betas": BETAS}
    both = ({"timestamp_ns": t_ns, "hand_poses": poses} for poses in (umetrack, mano))
    one, two = (json.dumps(line) for line in both)
    return one, two


def headset_csv(rows: list[tuple[int, float]], scene: HandScene, headset: str) -> str:
    header = "object_uid,timestamp[ns],t_wo_x[m],t_wo_y[m],t_wo_z[m],q_wo_w,q_wo_x,q_wo_y,q_wo_z\n"
    out = [header]
    for t_ns, t_s in rows:
        T = to_source_world(scene.T_world_cam(t_s), headset) @ inverse(T_DEVICE_CAM)
        numbers = ",".join(f"{v:.16f}" for v in [*T[:3, 3], *quat_wxyz(T[:3, :3])])
        out.append(f"5411364721403,{t_ns},{numbers}\n")
    return "".join(out)


def write_cameras(folder: Path, scene: HandScene, headset: str) -> None:
    """As each headset has them: the Quest's 16 parameters, Aria's online calibration with 15."""
    q, t = quat_wxyz(T_DEVICE_CAM[:3, :3]), T_DEVICE_CAM[:3, 3].tolist()
    if headset != "Aria":
        model = {
            "T_Device_Camera": {"quaternion_wxyz": q, "translation_xyz": t},
            "imageHeight": scene.height,
            "imageWidth": scene.width,
            "label": "camera-slam-left",
            "maxSolidAngle": 1.4847613418777272,
            "projectionModelType": "CameraModelType.FISHEYE624",
            "projectionParams": fisheye_params(scene, num=16),
            "serialNumber": "21367848_11:mono10bit",
            "stream_id": "1201-1",
        }
        (folder / "camera_models.json").write_text(json.dumps([model]))
        return
    (folder / "mps" / "slam").mkdir(parents=True)
    lines = "\n".join(calibration_line(113_585_202_412 + 33_331 * k, scene) for k in range(3))
    (folder / "mps" / "slam" / "online_calibration.jsonl").write_text(lines + "\n")


def calibration_line(t_us: int, scene: HandScene, T_device_cam: np.ndarray = T_DEVICE_CAM) -> str:
    """One line of `online_calibration.jsonl` with the RGB camera and one that nobody looks through."""
    q, t = quat_wxyz(T_device_cam[:3, :3]), T_device_cam[:3, 3].tolist()
    lens = {"Name": "FisheyeRadTanThinPrism", "Params": fisheye_params(scene)}
    pose_of = {"Translation": t, "UnitQuaternion": [q[0], q[1:]]}
    still = {"Translation": [0.0, 0.0, 0.0], "UnitQuaternion": [1.0, [0.0, 0.0, 0.0]]}
    cameras = [
        {"Label": label, "Calibrated": True, "Projection": lens, "T_Device_Camera": T}
        for label, T in (("slam-front-left", still), ("camera-rgb", pose_of))
    ]
    line = {"utc_timestamp_ns": -1, "tracking_timestamp_us": t_us, "ImuCalibrations": []}
    sizes = [[scene.width, scene.height]] * 2
    return json.dumps(line | {"CameraCalibrations": cameras, "ImageSizes": sizes})
