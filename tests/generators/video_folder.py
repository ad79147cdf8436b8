"""A folder of videos as people have them: subfolders, several containers, captions beside some, one WebDataset shard."""

from __future__ import annotations

import json
from pathlib import Path

from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene
from jobs.demo.raw.video_files import write_scene
from tests.generators.tar_shards import scene_bytes, write_tar

SCENES = {name: Scene(seed=k, duration_s=2.0) for k, name in enumerate("abcd", start=30)}


def write(root: Path) -> Written:
    """Four videos of 2 s, each one window."""
    folder = root / "kitchen"
    write_scene(folder / "a.mp4", SCENES["a"])
    (folder / "a.txt").write_text("pick up the red box\n", encoding="utf-8")
    write_scene(folder / "day 2" / "b.MKV", SCENES["b"], rate_hz=25)
    shard = {
        "x/00000.mp4": scene_bytes(SCENES["c"]),
        "x/00000.json": json.dumps({"caption": "push the blue box", "fps": 30}).encode(),
        "x/00001.mp4": scene_bytes(SCENES["d"], codec="hevc"),
        "x/00001.txt": b"wait",
    }
    write_tar(folder / "shards" / "000000.tar", shard)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "a.mp4").write_bytes(b"junk")
    (folder / "._a.mp4").write_bytes(b"junk that macOS leaves behind")
    ids = {
        "kitchen/a.mp4/0000": "a",
        "kitchen/day 2/b.MKV/0000": "b",
        "kitchen/shards/000000.tar/x/00000.mp4/0000": "c",
        "kitchen/shards/000000.tar/x/00001.mp4/0000": "d",
    }
    return Written(
        root=folder,
        scenes={episode: SCENES[name] for episode, name in ids.items()},
        t0_s=dict.fromkeys(ids, 0.0),
    )
