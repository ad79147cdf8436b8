"""Humanoid Everyday in its raw layout: data.json and single pictures per episode; depth and lidar are named, not written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene

RATE_HZ = 30
START_S = 1_735_689_600.25  # UNIX seconds
DEX3 = 14
Step = dict[str, Any]


def write(root: Path) -> Written:
    """A G1 in JPEG of the real size and an H1 in small PNG; 2 s each."""
    sides = ("left", "right")
    g1 = Scene(seed=0, sides=sides, width=640, height=480, focal_px=600.0)
    h1 = Scene(seed=1, sides=sides, width=160, height=120, focal_px=150.0)
    scenes = {"press_the_stapler_g1/episode_2": g1, "tools/open_a_box/episode_10": h1}
    for (name, scene), is_g1 in zip(scenes.items(), (True, False), strict=True):
        write_episode(root / name, scene, steps_of(scene, is_g1=is_g1))
    return Written(root=root, scenes=scenes)


def steps_of(scene: Scene, *, is_g1: bool = True) -> list[Step]:
    return [
        step_of(scene, k / RATE_HZ, k, is_g1=is_g1)
        for k in range(round(scene.duration_s * RATE_HZ))
    ]


def step_of(scene: Scene, t_s: float, number: int, *, is_g1: bool) -> Step:
    """Arm joint k is 0.5 sin(t + k); its target, `sol_q`, is where it will be one period later."""
    hand, leg = (DEX3, 15) if is_g1 else (12, 13)
    suffix = "jpg" if is_g1 else "png"
    angles = [0.1 * k for k in range(7 if is_g1 else 12)]
    states = {
        "arm_state": (0.5 * np.sin(t_s + np.arange(14))).tolist(),
        "leg_state": [0.01 * k for k in range(leg)],
        "hand_state": (0.5 + 0.3 * np.sin(t_s + np.arange(hand))).tolist(),
        "hand_pressure_state": [{"sensor_id": 0, "sensor_type": "A", "usable_readings": [1.0]}],
        "imu": {
            "quaternion": [1.0, 0.0, 0.0, 0.0],
            "accelerometer": [0.0, 0.0, 9.81],
            "gyroscope": [0.0, 0.0, 0.0],
            "rpy": [0.0, 0.0, 0.0],
        },
        "odometry": {
            "position": [0.1 * t_s, 0.0, 0.8],
            "velocity": [0.1, 0.0, 0.0],
            "rpy": [0.0, 0.0, 0.0],
            "quat": [1.0, 0.0, 0.0, 0.0],
        },
    }
    actions = {
        "sol_q": (0.5 * np.sin(t_s + 1 / RATE_HZ + np.arange(14))).tolist(),
        "tau_ff": [0.0] * 14,
        "left_angles": angles,
        "right_angles": angles,
        "left_pose": scene.T_base_hand(t_s, "left").tolist(),
        "right_pose": scene.T_base_hand(t_s, "right").tolist(),
        "head_rmat": np.eye(3).tolist(),
        "armtime": START_S + t_s,
        "iktime": START_S + t_s,
    }
    robot = {"robot_type": "G1"} if is_g1 else {}
    return {
        "time": START_S + t_s,
        **robot,
        "image": f"color/{number:06d}.{suffix}",
        "depth": f"depth/{number:06d}.lzma",
        "lidar": f"lidar/{START_S + t_s:.5f}.pcd",
        "states": states,
        "actions": actions,
    }


def write_episode(folder: Path, scene: Scene, steps: list[Step]) -> None:
    (folder / "color").mkdir(parents=True, exist_ok=True)
    (folder / "data.json").write_text(json.dumps(steps))
    for step in steps:
        picture = scene.picture(step["time"] - START_S)[..., ::-1]
        assert cv2.imwrite(str(folder / step["image"]), picture)
