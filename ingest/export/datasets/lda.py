"""LDA-1B: LeRobot v2.1 files with the keys of its stock configs, Euler angles, masks of both wrists, and statistics of differences.

Facts: jiangranlv/LDA-1B `lda/dataloader/gr00t_lerobot/{data_config,datasets,schema,embodiment_tags}.py` at 2d72cf8 and 68753d1, whose dataset
classes read an export (docs/how-to/export.md); no training was run. Its loader makes the motion from row i to row i + 1 itself, so row k has the target for timestep k: `action[k - 1]` where that is valid,
else the measured pose, with the mask unset. It reads no latents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.export.datasets.camera_roles import scene_camera
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
from schemas.geometry import (
    inverse,
    position_of,
    roll_pitch_yaw_from_rotmat,
    rotmat_from_euler,
    rotmat_from_rot6d_cols,
    rotmat_of,
    transform,
)
from schemas.lerobot import vector_feature
from schemas.supervision import Task
from schemas.trained_action import Named

CAMERA = "observation.images.top_head"
RPY = "xyz"  # about fixed axes: R = Rz(yaw) Ry(pitch) Rx(roll), as LDA's rotation_convert.py
NO_TURN = np.array([1.0, 0, 0, 0, 1, 0])
WRIST = ("x", "y", "z", "roll", "pitch", "yaw")  # metres and radians
VIDEO_ONLY = "__video"  # end of the name of a folder without actions
# Their configs, by what a body has: both arms, the left arm alone, hands without MANO, no action. Their robot type `agibot_gripper` inverts the gripper on
# one branch and not on the other; none of these does.
BOTH_ARMS, LEFT_ARM, HANDS, NO_ACTION = "agilex", "intern_franka", "egodex", "taste_rob"
NO_STATISTICS = {
    "mean": 0.0,
    "std": 0.0,
    "min": 0.0,
    "max": 0.0,
    "q01": 0.0,
    "q99": 0.0,
}  # q01 = q99: passed on as it is


@dataclass(frozen=True, slots=True)
class Lda(LeRobotV21):
    """The format `lda`. `low_as_video`: actions that may not supervise a policy are left out, and their pictures train forecasting."""

    name: ClassVar[str] = "lda"
    low_as_video: bool = False

    def settings(self) -> Mapping[str, Any]:
        return {"low_as_video": self.low_as_video}

    def left_out(self, rows: pa.Table) -> Iterable[UnfitRows]:
        """Every robot type of LDA with actions trains the policy on all of them."""
        tasks = rows["tasks"].to_pylist()
        has_action = np.array(
            [Task.FORWARD_DYNAMICS in each or Task.POLICY in each for each in tasks]
        )
        may_act = np.array([Task.POLICY in each for each in tasks], dtype=bool)
        no_text = np.array([not text.strip() for text in rows["text"].to_pylist()], dtype=bool)
        low = has_action.astype(bool) & ~may_act & (not self.low_as_video)
        yield UnfitRows(
            code="no_policy", text="have actions that may not supervise a policy", rows=low
        )
        yield UnfitRows(code="no_text", text="have no text", rows=no_text & ~low)

    def divide(self, dataset: DatasetPlan) -> Iterable[DatasetPlan]:
        """Segments without actions for a policy into a folder of their own, which trains forecasting alone."""
        may_act = pa.array([Task.POLICY in each for each in dataset.rows["tasks"].to_pylist()])
        # A folder with "test" in its name is skipped by the loader.
        name = dataset.name.replace("test", "tst")
        for rows, end in (
            (dataset.rows.filter(may_act), ""),
            (dataset.rows.filter(pc.invert(may_act)), VIDEO_ONLY),
        ):
            if rows.num_rows:
                yield replace(dataset, name=f"{name}{end}", rows=rows)

    def check(self, plan: ExportPlan) -> None:
        """
        Raises:
            ConfigError: a dataset has no camera, or actions without poses.
        """
        for dataset in plan.datasets:
            has_poses = bool(_sides(dataset)) or is_video_only(dataset)
            absent = (
                "a camera" if not dataset.video_keys else "" if has_poses else "the pose of a hand"
            )
            if absent:
                raise ConfigError(
                    f"lda needs {absent}, which {dataset.dataset_path} lacks",
                    remedy="leave the dataset out of the manifest with --where",
                    where=f"manifest {plan.manifest.facts.name}",
                )

    def cameras(self, dataset: DatasetPlan) -> Mapping[str, str]:
        return {scene_camera(dataset.video_keys): CAMERA}

    def numeric_features(self, dataset: DatasetPlan) -> Features:
        features: dict[str, Mapping[str, Any]] = {}
        for side in _written_sides(dataset):
            features[f"eef.{side}.wrist"] = vector_feature("float32", WRIST)
            state: tuple[str, ...] = WRIST
            if _has_gripper(dataset):
                features[f"eef.{side}.hand"] = vector_feature("float32", ("gripper_opening",))
                state = (*WRIST, "gripper_opening")
            features[f"state.{side}.wrist"] = vector_feature("float32", state)
            features[f"{side}_wrist_mask"] = vector_feature("bool", ("is_valid",))
        return features

    def columns(self, dataset: DatasetPlan, segment: ExportedSegment, stored: Columns) -> Columns:
        out: dict[str, npt.NDArray[Any]] = {}
        for side in _written_sides(dataset):
            out |= _side_columns(dataset, stored, side, segment.num_frames)
        return out

    def trained_as(self, dataset: DatasetPlan, columns: Columns) -> Columns:
        """Differences that are scored: those into a row whose mask is set."""
        return {
            f"eef.{side}.wrist": motions(columns[f"eef.{side}.wrist"])[
                columns[f"{side}_wrist_mask"][1:, 0]
            ]
            for side in SIDES
            if f"eef.{side}.wrist" in columns
        }

    def facts_of(
        self, dataset: DatasetPlan, segment: ExportedSegment, stored: Columns, columns: Columns
    ) -> Mapping[str, Any]:
        masks = [
            columns[f"{side}_wrist_mask"]
            for side in _sides(dataset)
            if f"{side}_wrist_mask" in columns
        ]
        return {"masked": int(sum((~mask).sum() for mask in masks))}

    def meta_files(self, written: WrittenDataset) -> Mapping[str, bytes]:
        modality, stats = as_json(_modality(written.dataset)), as_json(_statistics(written))
        # Names of its main branch, of its newest branch, and of its first version.
        names = {
            "modality": ("modality.json", "modality_eef.json"),
            "stats": ("stats.json", "stats_eef.json", "stats_gr00t.json"),
        }
        return {
            **dict.fromkeys(names["modality"], modality),
            **dict.fromkeys(names["stats"], stats),
        }

    def top_files(self, finishing: Finishing, written: list[WrittenDataset]) -> Mapping[str, bytes]:
        lines = "\n".join(
            f'    ("{each.dataset.name}", 1.0, "{robot_type(each.dataset)}"),' for each in written
        )
        text = f'''"""What LDA's data config needs for this export: each folder with its weight and robot type, as in its mixtures."""

# The stock backend torchvision_av returns other frames than those asked for (Isaac-GR00T issue 172). A backend in the YAML is ignored:
# for _, _, robot_type in MIXTURE:
#     ROBOT_TYPE_CONFIG_MAP[robot_type].video_backend = VIDEO_BACKEND
VIDEO_BACKEND = "decord"
MIXTURE = [
{lines}
]
'''
        return {"lda_mixture.py": text.encode()}

    def page(self, written: list[WrittenDataset]) -> Mapping[str, Any]:
        return {
            "robot_types": {each.dataset.name: robot_type(each.dataset) for each in written},
            "cameras": {
                each.dataset.name: scene_camera(each.dataset.video_keys) for each in written
            },
            "masked_rows": {
                each.dataset.name: sum(e["masked"] for e in each.episodes) for each in written
            },
        }


def is_video_only(dataset: DatasetPlan) -> bool:
    return dataset.name.endswith(VIDEO_ONLY)


def robot_type(dataset: DatasetPlan) -> str:
    """Which of LDA's stock configs reads a dataset."""
    if is_video_only(dataset):
        return NO_ACTION
    if not _has_gripper(dataset):
        return HANDS
    return LEFT_ARM if _sides(dataset) == ("left",) else BOTH_ARMS


def _sides(dataset: DatasetPlan) -> tuple[str, ...]:
    """Sides whose pose the action has."""
    names = dataset.names("action")
    return tuple(side for side in SIDES if f"{side}.position_m.x" in names)


def _written_sides(dataset: DatasetPlan) -> tuple[str, ...]:
    """Sides that the config of the robot type asks for; one that the body lacks is masked everywhere."""
    if is_video_only(dataset):
        return ()
    return ("left",) if robot_type(dataset) == LEFT_ARM else tuple(SIDES)


def _has_gripper(dataset: DatasetPlan) -> bool:
    return any(name.endswith(".gripper_opening") for name in dataset.names("action"))


def _side_columns(
    dataset: DatasetPlan, stored: Columns, side: str, count: int
) -> dict[str, npt.NDArray[Any]]:
    """The columns of one side; zeros where the body has none."""
    has_gripper = _has_gripper(dataset)
    state, action = (
        _poses(dataset, stored, feature, side) for feature in ("observation.state", "action")
    )
    if action is None:
        empty = {
            f"eef.{side}.wrist": np.zeros((count, 6), np.float32),
            f"state.{side}.wrist": np.zeros((count, 7 if has_gripper else 6), np.float32),
            f"{side}_wrist_mask": np.zeros((count, 1), dtype=bool),
        }
        return empty | (
            {f"eef.{side}.hand": np.zeros((count, 1), np.float32)} if has_gripper else {}
        )
    measured = action if state is None else state
    is_target = np.concatenate([[False], action.valid[:-1]])
    has_pose = is_target | measured.valid
    wrist = np.where(is_target[:, None], np.roll(action.wrist, 1, axis=0), measured.wrist)
    mask = is_target & np.concatenate([[False], has_pose[:-1]])  # a motion needs both of its ends
    mask[0] = has_pose[0]
    out: dict[str, npt.NDArray[Any]] = {
        f"eef.{side}.wrist": wrist.astype(np.float32),
        f"{side}_wrist_mask": mask[:, None],
    }
    state_row = measured.wrist
    if has_gripper:
        hand = np.where(is_target[:, None], np.roll(action.gripper, 1, axis=0), measured.gripper)
        out[f"eef.{side}.hand"] = hand.astype(np.float32)
        state_row = np.concatenate([measured.wrist, measured.gripper], axis=1)
    out[f"state.{side}.wrist"] = state_row.astype(np.float32)
    return out


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _SidePoses:
    """Of one side at K timesteps: wrist [K, 6], gripper [K, 1] (0 where there is none), valid [K]."""

    wrist: npt.NDArray[np.float64]
    gripper: npt.NDArray[np.float64]
    valid: npt.NDArray[np.bool_]


def _poses(dataset: DatasetPlan, stored: Columns, feature: str, side: str) -> _SidePoses | None:
    if feature not in stored:
        return None
    values = Named(values=stored[feature], names=dataset.names(feature))
    mask_name = {"action": "action.valid"}.get(feature, "observation.valid")
    masks = Named(values=stored[mask_name], names=dataset.names(mask_name))
    position_m, rotation = values.part(f"{side}.position_m"), values.part(f"{side}.rot6d_cols")
    if position_m is None or rotation is None:
        return None
    gripper = values.part(f"{side}.gripper_opening")
    valid = masks.is_set(f"{side}.position_m", f"{side}.rot6d_cols")
    if gripper is None:
        gripper = np.zeros((len(position_m), 1))
    else:
        valid = valid & masks.is_set(f"{side}.gripper_opening")
    rotation = np.where(valid[:, None], rotation, NO_TURN)  # what is not valid may be no rotation
    rpy_rad = roll_pitch_yaw_from_rotmat(rotmat_from_rot6d_cols(rotation))
    wrist = np.where(valid[:, None], np.concatenate([position_m, rpy_rad], axis=1), 0.0)
    return _SidePoses(wrist=wrist, gripper=gripper, valid=valid)


def motions(wrist: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """[K - 1, 6] the motion T_i^-1 T_(i+1) from row to row of [K, 6], in the form of the rows."""
    T = transform(rotmat_from_euler(wrist[:, 3:], RPY), wrist[:, :3].astype(np.float64))
    step = inverse(T[:-1]) @ T[1:]
    rpy_rad = roll_pitch_yaw_from_rotmat(rotmat_of(step))
    return np.concatenate([position_of(step), rpy_rad], axis=1).astype(np.float32)


def _modality(dataset: DatasetPlan) -> dict[str, Any]:
    state: dict[str, Any] = {}
    action: dict[str, Any] = {}
    for side in _written_sides(dataset):
        for group, column in ((state, f"state.{side}.wrist"), (action, f"eef.{side}.wrist")):
            group[f"{side}_eef_position"] = {
                "original_key": column,
                "start": 0,
                "end": 3,
                "absolute": True,
            }
            rotation = {"original_key": column, "start": 3, "end": 6, "absolute": True}
            group[f"{side}_eef_rotation"] = {**rotation, "rotation_type": "euler_angles_rpy"}
        if _has_gripper(dataset):
            own = {"original_key": f"state.{side}.wrist", "start": 6, "end": 7, "absolute": True}
            state[f"{side}_gripper"] = own
            action[f"{side}_gripper"] = {
                **own,
                "original_key": f"eef.{side}.hand",
                "start": 0,
                "end": 1,
            }
    return {
        "state": state,
        "action": action,
        "video": {"top_head": {"original_key": CAMERA}},
        "annotation": {"language.action_text": {"original_key": "task_index"}},
    }


def _statistics(written: WrittenDataset) -> dict[str, Any]:
    """Of wrists the differences that are scored, of all else the values; without `count`, which the loader would cut like a vector."""
    stats = {}
    for name, feature in written.features.items():
        if feature["dtype"] != "float32":
            continue
        is_scored = (
            not name.endswith(".wrist")
            or name.startswith("state.")
            or any(name in episode["trained"] for episode in written.episodes)
        )
        width = feature["shape"][0]
        if is_scored:
            stats[name] = written.stats_of(name)
            del stats[name]["count"]
        else:
            stats[name] = {key: [value] * width for key, value in NO_STATISTICS.items()}
    return stats
