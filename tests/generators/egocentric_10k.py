"""Two workers of Egocentric-10K: WebDataset shards of H.265 mp4 and json, one intrinsics.json each (format page video.md §5)."""

from __future__ import annotations

import json
from pathlib import Path

from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene
from tests.generators.tar_shards import scene_bytes, write_tar

FIRST = "factory001_worker001_00000"
SECOND = "factory001_worker001_00001"
THIRD = "factory001_worker002_00000"
SCENES = {
    name: Scene(seed=k, duration_s=2.0) for k, name in enumerate((FIRST, SECOND, THIRD), start=50)
}
LENS = {
    "model": "fisheye",
    "image_width": 1920,
    "image_height": 1080,
    "fx": 1030.59,
    "fy": 1032.82,
    "cx": 966.69,
    "cy": 539.69,
    "k1": -0.1166,
    "k2": -0.0236,
    "k3": 0.0694,
    "k4": -0.0463,
}


def write(root: Path) -> Written:
    """Three videos of 2 s in two shards, each one window."""
    for worker, names in ((1, (FIRST, SECOND)), (2, (THIRD,))):
        folder = root / "factory_001" / "workers" / f"worker_{worker:03d}"
        files = {}
        for index, name in enumerate(names):
            video = scene_bytes(SCENES[name], codec="hevc")
            files[f"{name}.mp4"] = video
            files[f"{name}.json"] = json.dumps(about(worker, index, len(video))).encode()
        write_tar(folder / f"factory001_worker{worker:03d}_part00.tar", files)
        (folder / "intrinsics.json").write_text(json.dumps(LENS), encoding="utf-8")
    ids = {f"{name}/0000": scene for name, scene in SCENES.items()}
    return Written(root=root, scenes=ids, t0_s=dict.fromkeys(ids, 0.0))


def about(worker: int, index: int, size: int) -> dict[str, object]:
    return {
        "factory_id": "factory_001",
        "worker_id": f"worker_{worker:03d}",
        "video_index": index,
        "duration_sec": 2.0,
        "width": 320,
        "height": 240,
        "fps": 30.0,
        "size_bytes": size,
        "codec": "h265",
    }
