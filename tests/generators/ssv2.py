"""A corner of Something-Something V2: VP9 webm of odd width at 12 fps, and the JSON files of `labels.zip`.

Layout: open-mmlab/mmaction2:tools/data/sthv2/README.md; the first row is a real one (format page video.md §4).
"""

from __future__ import annotations

import json
from pathlib import Path

from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene
from jobs.demo.raw.video_files import write_scene

SCENES = {
    name: Scene(seed=k, duration_s=2.0, width=427, height=240)
    for k, name in enumerate(("78687", "42326", "9", "100904"), start=60)
}
TRAIN = [
    {
        "id": "78687",
        "label": "holding potato next to vicks vaporub bottle",
        "template": "Holding [something] next to [something]",
        "placeholders": ["potato", "vicks vaporub bottle"],
    },
    {
        "id": "42326",
        "label": "pretending to open box",
        "template": "Pretending to open [something] without actually opening it",
        "placeholders": ["box"],
    },
]
LABELS = {"Holding something next to something": "28"}


def write(root: Path) -> Written:
    """Two labelled clips, one of the test split, one that no file names."""
    for name, scene in SCENES.items():
        write_scene(
            root / "20bn-something-something-v2" / f"{name}.webm", scene, rate_hz=12, codec="vp9"
        )
    for name, value in (("labels", LABELS), ("train", TRAIN), ("test", [{"id": "9"}])):
        path = root / "labels" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")
    return Written(root=root, scenes=SCENES, t0_s=dict.fromkeys(SCENES, 0.0))
