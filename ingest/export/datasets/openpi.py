"""openpi (pi0, pi0.5): LeRobot v2.1 files with `state`, `actions` and up to three views, its norm_stats.json, and a config for each dataset.

Facts: Physical-Intelligence/openpi `src/openpi/{training/config,training/data_loader,shared/normalize,transforms}.py` at 15a9616; what of it
was run is in docs/how-to/export.md. It has no mask: where an action is not valid the hand stays and the gripper holds its target, counted on the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.export.datasets.camera_roles import scene_camera, wrist_cameras
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
from schemas.geometry import rotmat_from_rot6d_cols, rotvec_from_rotmat
from schemas.lerobot import vector_feature
from schemas.supervision import Task
from schemas.trained_action import AS_STORED, Named, trained_action, trained_names

STATE, ACTIONS = "state", "actions"
VIEWS = ("image", "wrist_image", "right_wrist_image")  # as in its LIBERO config
SLOTS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")  # of the model
MOST_NUMBERS = 32  # action_dim of its models
HORIZON = 16  # actions of a chunk: 1.6 s; the statistics hold for it
NO_TURN = np.array([1.0, 0, 0, 0, 1, 0])


@dataclass(frozen=True, slots=True)
class OpenPi(LeRobotV21):
    """The format `openpi`."""

    name: ClassVar[str] = "openpi"

    def settings(self) -> Mapping[str, Any]:
        return {"action_horizon": HORIZON}

    def left_out(self, rows: pa.Table) -> Iterable[UnfitRows]:
        """openpi trains a policy on every timestep."""
        tasks = rows["tasks"].to_pylist()
        unfit = np.array([Task.POLICY not in each for each in tasks], dtype=bool)
        yield UnfitRows(code="no_policy", text="may not supervise a policy", rows=unfit)

    def check(self, plan: ExportPlan) -> None:
        """
        Raises:
            ConfigError: a dataset has no state, no action or no camera, or more numbers than the models take.
        """
        for dataset in plan.datasets:
            problem = _problem(dataset)
            if problem:
                raise ConfigError(
                    f"openpi {problem} ({dataset.dataset_path})",
                    remedy="leave the dataset out of the manifest with --where",
                    where=f"manifest {plan.manifest.facts.name}",
                )

    def cameras(self, dataset: DatasetPlan) -> Mapping[str, str]:
        return _views(dataset)

    def numeric_features(self, dataset: DatasetPlan) -> Features:
        return {
            STATE: vector_feature("float32", _state_names(dataset)),
            ACTIONS: vector_feature("float32", trained_names(dataset.names("action"))),
        }

    def columns(self, dataset: DatasetPlan, segment: ExportedSegment, stored: Columns) -> Columns:
        action = trained_action(
            action=_named(dataset, stored, "action"),
            action_valid=_named(dataset, stored, "action.valid"),
            state=_named(dataset, stored, "observation.state"),
            state_valid=_named(dataset, stored, "observation.valid"),
        )
        values = _held(action.values, action.valid, action.names)
        return {STATE: _state(dataset, stored), ACTIONS: values.astype(np.float32)}

    def trained_as(self, dataset: DatasetPlan, columns: Columns) -> Columns:
        """Whole chunks, as its own compute_norm_stats.py sees them: the last row is repeated past the end."""
        actions = columns[ACTIONS]
        first = np.arange(len(actions))[:, None]
        return {ACTIONS: actions[np.minimum(first + np.arange(HORIZON), len(actions) - 1).ravel()]}

    def facts_of(
        self, dataset: DatasetPlan, segment: ExportedSegment, stored: Columns, columns: Columns
    ) -> Mapping[str, Any]:
        valid = _named(dataset, stored, "action.valid")
        return {"invalid": int((~valid.is_set(*valid.names)).sum())}

    def meta_files(self, written: WrittenDataset) -> Mapping[str, bytes]:
        return {}

    def top_files(self, finishing: Finishing, written: list[WrittenDataset]) -> Mapping[str, bytes]:
        files = {}
        for each in written:
            name = each.dataset.name
            stats = {key: _four(each.stats_of(key)) for key in (STATE, ACTIONS)}
            files[f"assets/{name}/norm_stats.json"] = as_json({"norm_stats": stats})
            module = "".join(c if c.isalnum() else "_" for c in name)  # to be imported
            files[f"openpi_{module}.py"] = _config(each.dataset).encode()
        return files

    def page(self, written: list[WrittenDataset]) -> Mapping[str, Any]:
        return {
            "views": {each.dataset.name: _views(each.dataset) for each in written},
            "cameras_left_out": {
                each.dataset.name: sorted(set(each.dataset.video_keys) - set(_views(each.dataset)))
                for each in written
            },
            "timesteps_without_a_valid_action": {
                each.dataset.name: sum(episode["invalid"] for episode in each.episodes)
                for each in written
            },
        }


def _problem(dataset: DatasetPlan) -> str:
    """What openpi cannot hold of a dataset; empty when nothing."""
    absent = [n for n in ("observation.state", "action") if n not in dataset.features]
    absent += [] if dataset.video_keys else ["a camera"]
    if absent:
        return f"needs {' and '.join(absent)}"
    actions = trained_names(dataset.names("action"))
    if not any(".delta_position_m." in name for name in actions):
        return "needs the pose of a hand"
    width = max(len(actions), len(_state_names(dataset)))
    if width > MOST_NUMBERS:
        return f"holds {MOST_NUMBERS} numbers of a state or an action, not {width}"
    return ""


def _views(dataset: DatasetPlan) -> dict[str, str]:
    """Key of a camera in the corpus -> one of VIEWS: the scene, then at most two wrists."""
    scene = scene_camera(dataset.video_keys)
    wrists = [key for key in wrist_cameras(dataset.video_keys) if key != scene]
    return dict(zip((scene, *wrists), VIEWS, strict=False))


def _named(dataset: DatasetPlan, stored: Columns, feature: str) -> Named:
    return Named(values=stored[feature], names=dataset.names(feature))


def _state_names(dataset: DatasetPlan) -> tuple[str, ...]:
    """Of each side: position, rotation vector, and what is stored as it is."""
    names, out = dataset.names("observation.state"), []
    for side in SIDES:
        if f"{side}.position_m.x" in names and f"{side}.rot6d_cols.xx" in names:
            out += [f"{side}.position_m.{axis}" for axis in "xyz"]
            out += [f"{side}.rotvec_rad.{axis}" for axis in "xyz"]
        for part in AS_STORED:
            name = f"{side}.{part}"
            out += [n for n in names if n == name or n.startswith(f"{name}.")]
    return tuple(out)


def _state(dataset: DatasetPlan, stored: Columns) -> npt.NDArray[np.float32]:
    """[K, n] in the order of `_state_names`; 0 where it is not valid."""
    state = _named(dataset, stored, "observation.state")
    valid = _named(dataset, stored, "observation.valid")
    parts = []
    for side in SIDES:
        position_m, rotation = state.part(f"{side}.position_m"), state.part(f"{side}.rot6d_cols")
        if position_m is not None and rotation is not None:
            known = valid.is_set(f"{side}.position_m", f"{side}.rot6d_cols")[:, None]
            rotmat = rotmat_from_rot6d_cols(np.where(known, rotation, NO_TURN))
            parts += [np.where(known, position_m, 0.0), rotvec_from_rotmat(rotmat)]
        for part in AS_STORED:
            values = state.part(f"{side}.{part}")
            if values is not None:
                parts.append(np.where(valid.is_set(f"{side}.{part}")[:, None], values, 0.0))
    return np.concatenate(parts, axis=1).astype(np.float32)


def _held(
    values: npt.NDArray[np.float64], valid: npt.NDArray[np.bool_], names: tuple[str, ...]
) -> npt.NDArray[np.float64]:
    """[K, E] with no motion, and each target as it last was, where an element is not valid."""
    is_target = np.array([".delta_" not in name for name in names])
    rows = np.arange(len(values))[:, None]
    last = np.maximum.accumulate(np.where(valid, rows, -1), axis=0)
    first = valid.argmax(axis=0)  # before the first valid one, that one
    place = np.where(last < 0, first, last)
    held = np.take_along_axis(values, place, axis=0)
    return np.where(valid, values, np.where(is_target, held, 0.0))


def _four(stats: Mapping[str, Any]) -> dict[str, Any]:
    return {name: stats[name] for name in ("mean", "std", "q01", "q99")}


def _config(dataset: DatasetPlan) -> str:
    views = tuple(_views(dataset).values())
    repack = ", ".join(f'"{name}": "{name}"' for name in (*views, STATE, ACTIONS, "prompt"))
    slots = dict(zip(VIEWS, SLOTS, strict=True))
    named = {slots[view]: view for view in views}
    width = len(trained_names(dataset.names("action")))
    return f'''"""{dataset.name} for openpi. Set HF_LEROBOT_HOME to the folder of this file, add CONFIG to _CONFIGS of openpi/training/config.py."""

import dataclasses
import pathlib

import numpy as np

from openpi import transforms
from openpi.models import model, pi0_config
from openpi.training import config, weight_loaders

HERE = pathlib.Path(__file__).parent
VIEWS = {named!r}
NAMES = {list(trained_names(dataset.names("action")))!r}


def picture(value):
    value = np.asarray(value)
    if np.issubdtype(value.dtype, np.floating):
        value = (255 * value).astype(np.uint8)
    return np.moveaxis(value, 0, -1) if value.shape[0] == 3 else value


@dataclasses.dataclass(frozen=True)
class Inputs(transforms.DataTransformFn):
    model_type: model.ModelType

    def __call__(self, data):
        seen = {{slot: picture(data[view]) for slot, view in VIEWS.items()}}
        blank = np.zeros_like(next(iter(seen.values())))
        slots = {list(SLOTS)!r}
        is_fast = self.model_type == model.ModelType.PI0_FAST
        out = {{
            "state": data["state"],
            "image": {{slot: seen.get(slot, blank) for slot in slots}},
            "image_mask": {{slot: np.bool_(slot in seen or is_fast) for slot in slots}},
        }}
        return out | {{key: data[key] for key in ("actions", "prompt") if key in data}}


@dataclasses.dataclass(frozen=True)
class Outputs(transforms.DataTransformFn):
    def __call__(self, data):
        return {{"actions": np.asarray(data["actions"][..., :{width}])}}


@dataclasses.dataclass(frozen=True)
class Data(config.DataConfigFactory):
    def create(self, assets_dirs, model_config):
        return dataclasses.replace(
            self.create_base_config(assets_dirs, model_config),
            repack_transforms=transforms.Group(inputs=[transforms.RepackTransform({{{repack}}})]),
            data_transforms=transforms.Group(inputs=[Inputs(model_config.model_type)], outputs=[Outputs()]),
            model_transforms=config.ModelTransformFactory()(model_config),
        )


CONFIG = config.TrainConfig(
    name="{dataset.name}",
    model=pi0_config.Pi0Config(pi05=True, action_horizon={HORIZON}),
    data=Data(
        repo_id="{dataset.name}",
        assets=config.AssetsConfig(assets_dir=str(HERE / "assets"), asset_id="{dataset.name}"),
        base_config=config.DataConfig(prompt_from_task=True),
    ),
    weight_loader=weight_loaders.CheckpointWeightLoader("gs://openpi-assets/checkpoints/pi05_base/params"),
)
'''
