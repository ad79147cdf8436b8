"""GR00T N1.5 to N1.7: LeRobot v2.1 files with `meta/modality.json`, statistics, and what to give each generation's trainer.

Facts: NVIDIA/Isaac-GR00T `getting_started/data_preparation.md` and `data_config.md`, and its loaders at 4af2b62 (N1.5), 7786639 (N1.6) and
23ace64 (N1.7), which read an export (docs/how-to/export.md); no training was run. Rotations are the first two rows of the matrix there; ours are the first two columns. Its loaders know no mask, so timesteps whose pose
is not valid train as they are stored; the page counts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.export.datasets.camera_roles import camera_name
from ingest.export.datasets.format import Finishing
from ingest.export.datasets.lerobot_episode_files import (
    Features,
    LeRobotV21,
    WrittenDataset,
    as_json,
)
from ingest.export.datasets.plan import DatasetPlan, ExportedSegment, ExportPlan, UnfitRows
from ingest.export.datasets.rows import Columns
from schemas.episode import SIDES
from schemas.errors import ConfigError
from schemas.geometry import rotmat_from_rot6d_cols
from schemas.lerobot import vector_feature
from schemas.supervision import Task

STATE, ACTION = "observation.state", "action"
ROTATION_COLS, ROTATION_ROWS = "rot6d_cols", "rot6d_rows"
TEXT_KEY = "annotation.human.task_description"
HORIZON = (
    16  # timesteps of actions that the snippets predict: 1.6 s; N1.6 cannot read a shorter episode
)
EEF = "eef"
# Slices of a side -> key in modality.json. Position and rotation are one key of nine numbers, as N1.6's EEF type wants them.
KEYS = {
    "position_m": EEF,
    ROTATION_ROWS: EEF,
    "gripper_opening": "gripper",
    "hand_joints_rad": "hand_joints",
    "hand_keypoints_m": "hand_points",
}


@dataclass(frozen=True, slots=True)
class Groot(LeRobotV21):
    """The format `groot`."""

    name: ClassVar[str] = "groot"

    def left_out(self, rows: pa.Table) -> Iterable[UnfitRows]:
        """GR00T trains a policy on every timestep."""
        tasks = rows["tasks"].to_pylist()
        unfit = np.array([Task.POLICY not in each for each in tasks], dtype=bool)
        yield UnfitRows(code="no_policy", text="may not supervise a policy", rows=unfit)
        short = pc.less(pc.subtract(rows["end"], rows["start"]), HORIZON).to_numpy() & ~unfit
        text = f"have fewer than {HORIZON} timesteps, which N1.6 and N1.7 cannot read"
        yield UnfitRows(code="too_short", text=text, rows=short)

    def check(self, plan: ExportPlan) -> None:
        """
        Raises:
            ConfigError: a dataset has no state, no action or no camera, which GR00T needs.
        """
        for dataset in plan.datasets:
            missing = [name for name in (STATE, ACTION) if name not in dataset.features]
            missing += [] if dataset.video_keys else ["a camera"]
            if missing:
                raise ConfigError(
                    f"groot needs {' and '.join(missing)}, which {dataset.dataset_path} lacks",
                    remedy="leave the dataset out of the manifest with --where",
                    where=f"manifest {plan.manifest.facts.name}",
                )

    def numeric_features(self, dataset: DatasetPlan) -> Features:
        return {
            name: vector_feature("float32", tuple(_exported_names(dataset, name)))
            for name in (STATE, ACTION)
        }

    def columns(self, dataset: DatasetPlan, segment: ExportedSegment, stored: Columns) -> Columns:
        return {name: _by_rows(stored[name], dataset.names(name)) for name in (STATE, ACTION)}

    def facts_of(
        self, dataset: DatasetPlan, segment: ExportedSegment, stored: Columns, columns: Columns
    ) -> Mapping[str, Any]:
        is_valid = np.ones(segment.num_frames, dtype=bool)
        for feature, mask in ((STATE, "observation.valid"), (ACTION, "action.valid")):
            slices = {slice_of(name) for name in dataset.names(feature)}
            for place, name in enumerate(dataset.names(mask)):
                if name in slices:
                    is_valid &= stored[mask][:, place].astype(bool)
        return {"invalid": int((~is_valid).sum())}

    def meta_files(self, written: WrittenDataset) -> Mapping[str, bytes]:
        stats = {}
        for name in (STATE, ACTION, "timestamp"):
            stats[name] = written.stats_of(name)
            del stats[name]["count"]  # N1.5 cuts every statistic as it cuts the vector
        return {"modality.json": as_json(_modality(written.dataset)), "stats.json": as_json(stats)}

    def top_files(self, finishing: Finishing, written: list[WrittenDataset]) -> Mapping[str, bytes]:
        files = {}
        for each in written:
            name = "".join(c if c.isalnum() else "_" for c in each.dataset.name)  # to be imported
            files[f"n15_{name}.py"] = _config_of_n15(each.dataset).encode()
            files[f"n16_{name}.py"] = _config_of_n16(each.dataset).encode()
        return files

    def page(self, written: list[WrittenDataset]) -> Mapping[str, Any]:
        invalid = {
            each.dataset.name: sum(episode["invalid"] for episode in each.episodes)
            for each in written
        }
        return {"timesteps_without_a_valid_pose": invalid}


def slice_of(element: str) -> str:
    """`left.position_m` of `left.position_m.x`."""
    return ".".join(element.split(".")[:2])


def _exported_names(dataset: DatasetPlan, feature: str) -> Iterator[str]:
    """Elements as they are exported: the six of a rotation by rows."""
    rows = {side: iter(("r0x", "r0y", "r0z", "r1x", "r1y", "r1z")) for side in SIDES}
    for name in dataset.names(feature):
        side, _, rest = name.partition(".")
        is_rotation = side in rows and rest.partition(".")[0] == ROTATION_COLS
        yield f"{side}.{ROTATION_ROWS}.{next(rows[side])}" if is_rotation else name


def _by_rows(values: npt.NDArray[Any], names: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """[K, n] with the first two rows of each rotation in place of its first two columns."""
    out = values.astype(np.float32)
    for side in SIDES:
        at = [i for i, name in enumerate(names) if name.startswith(f"{side}.{ROTATION_COLS}.")]
        if at:
            rotmat = rotmat_from_rot6d_cols(values[:, at].astype(np.float64))
            out[:, at] = rotmat[:, :2, :].reshape(len(values), 6)
    return out


def _spans(dataset: DatasetPlan, feature: str) -> dict[str, tuple[int, int]]:
    """Key -> [start, end) of the vector, in its order; they tile it."""
    spans: dict[str, tuple[int, int]] = {}
    for place, name in enumerate(_exported_names(dataset, feature)):
        side, part, *_ = name.split(".")
        key = f"{side}_{KEYS[part]}"
        start, _ = spans.get(key, (place, place))
        spans[key] = (start, place + 1)
    return spans


def _modality(dataset: DatasetPlan) -> dict[str, Any]:
    def of(feature: str) -> dict[str, Any]:
        common = {"original_key": feature, "absolute": True, "dtype": "float32"}
        return {
            key: {"start": start, "end": end, **common}
            for key, (start, end) in _spans(dataset, feature).items()
        }

    return {
        "state": of(STATE),
        "action": of(ACTION),
        "video": {camera_name(key): {"original_key": key} for key in dataset.video_keys},
        "annotation": {TEXT_KEY.removeprefix("annotation."): {"original_key": "task_index"}},
    }


def _config_of_n15(dataset: DatasetPlan) -> str:
    return f'''"""Keys of {dataset.name} for GR00T N1.5. Give the class a transform() of yours."""

from gr00t.experiment.data_config import BaseDataConfig

# Its usual backend torchvision_av returns other frames than those asked for (Isaac-GR00T issue 172).
DATASET = {{"embodiment_tag": "new_embodiment", "video_backend": "decord"}}


class Keys(BaseDataConfig):
    video_keys = {[f"video.{camera_name(key)}" for key in dataset.video_keys]!r}
    state_keys = {[f"state.{key}" for key in _spans(dataset, STATE)]!r}
    action_keys = {[f"action.{key}" for key in _spans(dataset, ACTION)]!r}
    language_keys = ["{TEXT_KEY}"]
    observation_indices = [0]
    action_indices = list(range({HORIZON}))
'''


def _config_of_n16(dataset: DatasetPlan) -> str:
    keys = list(_spans(dataset, ACTION))
    actions = "\n".join(f"            {_action_of_n16(key)}," for key in keys)
    return f'''"""Modality config of {dataset.name} for GR00T N1.6 and N1.7: --modality-config-path. Rotations are rows of the matrix.

GR00T from d0e48c2 (February 2026) on: its code before cannot compute relative poses of a hand; with that, say ABSOLUTE for the EEF keys.
"""

from gr00t.configs.data.embodiment_configs import register_modality_config
from gr00t.data.embodiment_tags import EmbodimentTag
from gr00t.data.types import ActionConfig, ActionFormat, ActionRepresentation, ActionType, ModalityConfig

config = {{
    "video": ModalityConfig(delta_indices=[0], modality_keys={[camera_name(key) for key in dataset.video_keys]!r}),
    "state": ModalityConfig(delta_indices=[0], modality_keys={list(_spans(dataset, STATE))!r}),
    "action": ModalityConfig(
        delta_indices=list(range({HORIZON})),
        modality_keys={keys!r},
        action_configs=[
{actions}
        ],
    ),
    "language": ModalityConfig(delta_indices=[0], modality_keys=["{TEXT_KEY}"]),
}}
register_modality_config(config, embodiment_tag=EmbodimentTag.NEW_EMBODIMENT)
'''


def _action_of_n16(key: str) -> str:
    is_eef = key.endswith(f"_{EEF}")
    rep, kind, form = (
        ("RELATIVE", "EEF", "XYZ_ROT6D") if is_eef else ("ABSOLUTE", "NON_EEF", "DEFAULT")
    )
    names = f"rep=ActionRepresentation.{rep}, type=ActionType.{kind}, format=ActionFormat.{form}"
    return f'ActionConfig({names}, state_key="{key}")'
