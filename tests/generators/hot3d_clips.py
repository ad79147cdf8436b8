"""HOT3D-Clips: an Aria clip, a Quest 3 clip with the README's spelling of the wrist, and a test clip without hands (§2b)."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from benchmarks.raw.mano_model import MIRROR, WRIST_AT_REST
from jobs.demo.raw import Written
from jobs.demo.raw.hand_scene import HandScene
from tests.generators.headset_hand import (
    fisheye_params,
    hand_model,
    joint_angles,
    quat_wxyz,
)
from tests.generators.hot3d import (
    BETAS,
    HEADSETS,
    PERIOD_NS,
    R_WRIST_MANO,
    START_NS,
    STREAM,
    T_DEVICE_CAM,
    THETAS,
    to_source_world,
)
from tests.generators.tar_shards import write_tar

CLIPS = {
    "test_aria/clip-003000": ("Aria", HandScene(seed=43, duration_s=1.0)),
    "train_aria/clip-001849": ("Aria", HandScene(seed=41, duration_s=1.0)),
    "train_quest3/clip-000010": ("Quest3", HandScene(seed=42, duration_s=1.0)),
}


def write(root: Path) -> Written:
    """Three clips of 1 s at 30 Hz."""
    for name, (headset, scene) in CLIPS.items():
        write_tar(root / f"{name}.tar", members(scene, headset, has_hands="train" in name))
    assert set(HEADSETS.values()) == {h for h, _ in CLIPS.values()}
    return Written(root=root, scenes={name: scene for name, (_, scene) in CLIPS.items()})


def members(scene: HandScene, headset: str, *, has_hands: bool = True) -> dict[str, bytes]:
    out: dict[str, bytes] = {}
    stream = STREAM[headset]
    for k in range(round(scene.duration_s * 30)):
        t_s, t_ns = k / 30, START_NS + k * PERIOD_NS
        picture = cv2.cvtColor(scene.picture(t_s), cv2.COLOR_RGB2BGR)
        _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
        info = {
            "device": headset,
            "participant_id": "P0001",
            "sequence_id": "P0001_23fa0ee8",
            "ref_timestamp_ns": t_ns,
            "image_timestamps_ns": {stream: t_ns},
        }
        out[f"{k:06d}.image_{stream}.jpg"] = jpeg.tobytes()
        out[f"{k:06d}.cameras.json"] = text(cameras(t_s, scene, headset))
        if has_hands:
            out[f"{k:06d}.hands.json"] = text(hands(t_s, scene, headset))
        out[f"{k:06d}.objects.json"] = text({})
        out[f"{k:06d}.info.json"] = text(info)
    shapes = {"mano": BETAS, "umetrack": hand_model()}
    return out | {"__hand_shapes.json__": text(shapes)} if has_hands else out


def text(value: object) -> bytes:
    return json.dumps(value).encode()


def cameras(t_s: float, scene: HandScene, headset: str) -> dict[str, object]:
    T = to_source_world(scene.T_world_cam(t_s), headset)
    calibration = {
        "label": "camera-rgb" if headset == "Aria" else "camera-slam-left",
        "stream_id": STREAM[headset],
        "serial_number": "1",
        "image_width": scene.width,
        "image_height": scene.height,
        "projection_model_type": "CameraModelType.FISHEYE624",
        "projection_params": fisheye_params(scene, num=15 if headset == "Aria" else 16),
        "T_device_from_camera": as_dict(T_DEVICE_CAM),
        "max_solid_angle": 1.0,
    }
    return {STREAM[headset]: {"calibration": calibration, "T_world_from_camera": as_dict(T)}}


def as_dict(T: np.ndarray) -> dict[str, list[float]]:
    return {"translation_xyz": T[:3, 3].tolist(), "quaternion_wxyz": quat_wxyz(T[:3, :3])}


def hands(t_s: float, scene: HandScene, headset: str) -> dict[str, object]:
    """The Quest's clip spells the wrist as the README does."""
    out: dict[str, object] = {}
    for side in ("left", "right"):
        T = to_source_world(scene.T_world_wrist(t_s, side), headset)
        wrist = (
            {"T_world_from_wrist": as_dict(T)} if headset == "Aria" else {"wrist_xform": T.tolist()}
        )
        J0 = WRIST_AT_REST if side == "right" else WRIST_AT_REST * MIRROR
        rotvec = cv2.Rodrigues(T[:3, :3] @ R_WRIST_MANO)[0][:, 0]
        mano = {"thetas": THETAS, "wrist_xform": [*rotvec.tolist(), *(T[:3, 3] - J0).tolist()]}
        angles = joint_angles(t_s, scene, side)
        out[side] = {"umetrack_pose": {"joint_angles": angles, **wrist}, "mano_pose": mano}
    return out
