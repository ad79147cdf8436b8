"""RH20T's human scenes: cameras and metadata only (INFERRED), two set-ups, and a robot scene that is none of theirs.

The first names a calibration that was never released, as many do (`rh20t/rh20t_api` issue 10).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene
from tests.generators.rh20t import CALIB_MS, FIXED, L515, START_MS, TEXTS, write_calibration
from tests.generators.rh20t import write_cameras as write_robot_cameras


def write(root: Path) -> Written:
    scenes = {}
    for number, calib, late in ((3, CALIB_MS + 5, 0), (4, CALIB_MS, 7)):
        name = f"task_0092_user_0010_scene_0004_cfg_{number:04d}_human"
        scenes[name] = Scene(seed=90 + number, width=160, height=90, focal_px=130.0)
        folder = root / f"RH20T_cfg{number}" / name
        write_human(folder, scenes[name], {FIXED: 0, L515: late}, calib=calib)
        write_calibration(folder.parent / "calib" / str(CALIB_MS), scenes[name], 3)
    sibling = root / "RH20T_cfg3/task_0092_user_0010_scene_0004_cfg_0003"
    sibling.mkdir()
    (sibling / "metadata.json").write_text("{}")
    (root / "task_description.json").write_text(json.dumps(TEXTS))
    first, second = scenes
    return Written(root=root, scenes=scenes, t0_s={first: 0.0, second: 0.007})


def write_human(folder: Path, scene: Scene, late_ms: dict[str, int], **metadata: Any) -> None:
    write_robot_cameras(folder, scene, late_ms)
    finish = START_MS + round(scene.duration_s * 1000) + max(late_ms.values())
    record = {"calib_quality": 2, "finish_time": finish, "rating": 9}
    (folder / "metadata.json").write_text(json.dumps({**record, **metadata}))
