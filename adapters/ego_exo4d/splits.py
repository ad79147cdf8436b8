"""Which split Ego-Exo4D publishes a take in.

    annotations/splits.json                                  take_uid_to_split {take uid: train | val | test}
    annotations/{keystep,atomic_descriptions}_{train,val}.json     by the file that annotates the take
Source: EGO4D/ego-exo4d-egopose:handpose/data_preparation (code). A take takes the strictest of all that list it.
"""

from __future__ import annotations

from pathlib import Path

from adapters.containers.json_stream import members
from adapters.ego_exo4d.pose_files import FOLDER, SPLITS
from schemas.regular_file import is_there
from schemas.source_split import source_split_of, strictest

SPLITS_FILE = "annotations/splits.json"
BY_TAKE = "take_uid_to_split"
ANNOTATED = ("keystep", "atomic_descriptions")


def source_splits(root: Path) -> dict[str, str]:
    """Split by take uid, from every file of the download that names one."""
    splits: dict[str, str] = {}

    def note(uid: str, split: str) -> None:
        splits[uid] = strictest((splits.get(uid, ""), split))

    path = root / SPLITS_FILE
    for where, raw in members(path, inside=(BY_TAKE,)) if is_there(path) else ():
        if where[0] == BY_TAKE and len(where) == 2 and isinstance(raw, str):
            note(where[1], source_split_of(raw))
    for split in SPLITS:
        for kind in ANNOTATED:
            path = root / "annotations" / f"{kind}_{split}.json"
            for where, _ in members(path, inside=("annotations",)) if is_there(path) else ():
                if where[0] == "annotations" and len(where) == 2:
                    note(where[1], split)
        for pose in (root / FOLDER / split).glob("*/**/*.json"):
            note(pose.stem, split)
    return splits
