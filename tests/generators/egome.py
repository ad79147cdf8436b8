"""A corner of EgoMe: pairs of videos and two annotation files. Keys as SAVAX reads them; the tree is UNVERIFIED."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene
from jobs.demo.raw.video_files import write_scene

# name -> (split, sentence, [(start_s, end_s, description)])
EGO: dict[str, tuple[str, str, list[tuple[float, float, str]]]] = {
    "JS3-R3-20240827_FALSE_240827161617_ego": ("train", "Pour water into the cup", [(0.0, 0.8, "T: pick up the bottle"), (0.8, 1.9, "F: pour on the table")]),
    "JS3-R3-20240828_240828101010_ego": ("train", "Fold the towel ", [(0.5, 2.0, "fold the towel")]),
    "KT1-R1-20240901_240901111111_ego": ("val", "Open the drawer", [(0.1, 1.0, "pull the handle"), (1.0, 1.0, "wait"), (1.2, 1.9, " ")]),
}  # fmt: skip
SCENES = {name: Scene(seed=k, duration_s=2.0) for k, name in enumerate(EGO, start=40)}


def write(root: Path) -> Written:
    """Three ego videos of 2 s; their exo halves are annotated, and one of them is there."""
    files: dict[str, dict[str, Any]] = {"train": {}, "val": {}}
    for name, (split, text, steps) in EGO.items():
        write_scene(root / "Ego" / f"{name}.mp4", SCENES[name])
        exo = name.replace("_ego", "_exo")
        files[split][f"{exo}.mp4"] = entry("Exo", text, steps)
        files[split][f"{name}.mp4"] = entry("Ego", text, steps)
    write_scene(root / "Exo" / f"{exo}.mp4", Scene(seed=1, duration_s=0.5))
    for split, entries in files.items():
        path = root / "EgoMe_Annotation" / f"{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"version": "1", "annotations": entries}))
    return Written(root=root, scenes=SCENES, t0_s=dict.fromkeys(SCENES, 0.0))


def entry(view: str, text: str, steps: list[tuple[float, float, str]]) -> dict[str, Any]:
    """The steps are listed last first: `Step order` says how they go."""
    fine = [
        {"Step order": k, "Step timestamp": [start, end], "Step discription": words}
        for k, (start, end, words) in enumerate(steps, start=1)
    ]
    return {
        "View": view,
        "Match video": "the other one",
        "Duration": 2.0,
        "Coarse-level": text,
        "Fine-level": fine[::-1],
        "Scene": "kitchen",
    }
