"""Where the parts of a HOI4D sequence lie: released as four archives, which people unpack beside or into each other.

    <sequence> = ZY*/H*/C*/N*/S*/s*/T*      camera, person, object class, object, room, layout, task
    [HOI4D_release/]<sequence>/align_rgb/image.mp4
    [HOI4D_annotations/]<sequence>/{3Dseg/output.log,action/color.json}
    [handpose/]refinehandpose_{right,left}/<sequence>/<frame>.pickle
    camera_params/ZY*/intrin.npy
    definitions/task/task_definitions.csv, release.txt, testset.txt      of the repository HOI4D-Instructions
Sources: `leolyliu/HOI4D-Instructions:README.md` (the tree, object classes; doc), `RchalYang/EgoVLA_Release:human_plan/
dataset_preprocessing/hoi4d/utils.py` (the archives beside each other; code).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from schemas.episode import SIDES, RawFile
from schemas.fact import Fact
from schemas.regular_file import is_there

Said = tuple[list[RawFile], list[Fact]]  # what a part was read from, and what is to be known of it

RELEASES = ("HOI4D_release", "")
ANNOTATIONS = ("HOI4D_annotations", "HOI4D_release", "")
HANDS = ("handpose/", "")
PATTERN = "ZY*/H*/C*/N*/S*/s*/T*"
SEQUENCE = re.compile("ZY#/H#/C#/N#/S#/s#/T#".replace("#", "[0-9]{1,16}"))
VIDEO, POSES, ACTIONS = "align_rgb/image.mp4", "3Dseg/output.log", "action/color.json"
TASKS = "definitions/task/task_definitions.csv"
# By class number, C1 to C20; the gaps are the authors'.
OBJECTS = (
    *("", "ToyCar", "Mug", "Laptop", "StorageFurniture", "Bottle", "Safe", "Bowl", "Bucket"),
    *("Scissors", "", "Pliers", "Kettle", "Knife", "TrashCan", "", "", "Lamp", "Stapler", ""),
    "Chair",
)


def sequences(root: Path) -> Iterator[str]:
    """Every sequence folder of the videos, relative to them, in no order."""
    base = next((root / b for b in RELEASES if next((root / b).glob(PATTERN), None)), root)
    for folder in base.glob(PATTERN):
        name = folder.relative_to(base).as_posix()
        if SEQUENCE.fullmatch(name):
            yield name


def part(root: Path, name: str, file: str) -> str:
    """`file` (VIDEO, POSES, ACTIONS) of a sequence relative to `root`, where it is or should be."""
    bases = RELEASES if file == VIDEO else ANNOTATIONS
    candidates = (f"{base}/{name}/{file}".lstrip("/") for base in bases)
    return next((p for p in candidates if is_there(root / p)), f"{name}/{file}")


def hand_folder(root: Path, name: str, side: str) -> str | None:
    """The folder of one hand's pickles relative to `root`; None when there is none."""
    candidates = (f"{base}refinehandpose_{side}/{name}" for base in HANDS)
    return next((p for p in candidates if (root / p).is_dir()), None)


def has_hands(root: Path) -> bool:
    """Whether the archive of hand poses is here at all."""
    return any((root / f"{base}refinehandpose_{side}").is_dir() for base in HANDS for side in SIDES)


def object_of(name: str) -> str:
    """The object class of a sequence in words: "toy car"; "" for a number without a name."""
    number = int(name.split("/")[2][1:])
    words = OBJECTS[number] if number < len(OBJECTS) else ""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in words).strip()
