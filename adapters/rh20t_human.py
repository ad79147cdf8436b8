"""RH20T's human part: people who do by hand what a robot did, seen by the robot's standing cameras. No actions.

    RH20T_cfg{1..7}/task_XXXX_user_XXXX_scene_XXXX_cfg_XXXX_human/{metadata.json, cam_{serial}/{color.mp4, timestamps.npy}}

The views are third person, not egocentric. The tree, metadata, sentences, stamps and intrinsics are those of the robot part
(adapters/rh20t/). INFERRED, for every public loader passes over these folders: that they hold cameras and metadata only, that
finish_time cuts here too. UNVERIFIED, for no real file was at hand: that a camera of the robot's hand stands still, which is why
no camera pose is given; that a folder may end in _human_2 (third party). Anything else fails: see docs/reference/sources/rh20t_human.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import exists_inside
from adapters.containers.video_clip import EMBODIMENT, no_camera_pose
from adapters.rh20t.calibration import find_calibration
from adapters.rh20t.cameras import camera_of, read_cameras
from adapters.rh20t.scenes import (
    LICENCE,
    RATE_HZ,
    Rh20tScene,
    instructions_of,
    metadata_facts,
    read_metadata,
    scene_at,
    scene_refs,
    survey_scenes,
)
from schemas.episode import Episode, EpisodeRef
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, fact

LOADERS = "Galaxies99/rh20t_dataset_builder:rh20t/rh20t_dataset_builder.py passes over _human"


class Rh20tHuman:
    """Adapter for `rh20t_human`."""

    name: ClassVar[str] = "rh20t_human"
    version: ClassVar[int] = 1
    container: ClassVar[str] = "mp4 + npy + json"
    about: ClassVar[str] = "RH20T's human part: third-person video of people; no actions"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Option: `task_description`, as for `rh20t`."""
        return survey_scenes(self.name, root, "human", options)

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        return scene_refs(root, "human", info)

    def load(self, ref: EpisodeRef) -> Episode:
        """One scene. Raises SourceError as the readers of its parts, or UNKNOWN_LAYOUT."""
        root, scene = Path(ref.root), scene_at(ref)
        _refuse_robot_data(root, scene)
        metadata, metadata_raw = read_metadata(root, scene)
        recordings = read_cameras(root, scene, metadata.finish_time)
        calibration, calibration_fact = find_calibration(root, scene.folder, metadata.calib)
        intrinsics = (calibration.folder / "intrinsics.npy",) if calibration else ()
        paths = (*recordings.paths, *intrinsics)
        facts = (
            no_camera_pose(f"{LOADERS}; whether all cameras stand still", Certainty.UNVERIFIED),
            fact("view", "third person", Certainty.INFERRED, "the cameras are the robot part's"),
            fact("robot_scene", scene.name.partition("_human")[0], Certainty.INFERRED, LOADERS),
        )
        return Episode(
            ref=ref,
            embodiment=EMBODIMENT,
            rate_hz=RATE_HZ,
            cameras=tuple(
                camera_of(camera, calibration, recordings.first_ms) for camera in recordings.cameras
            ),
            instructions=instructions_of(ref),
            facts=(
                *ref.facts,
                *facts,
                *metadata_facts(metadata),
                *recordings.facts,
                calibration_fact,
            ),
            licence=LICENCE,
            raw_files=(metadata_raw, *(raw_file_of(path, root) for path in paths)),
            subject_id=scene.user,
            scene_id=scene.place,
        )


def _refuse_robot_data(root: Path, scene: Rh20tScene) -> None:
    """That there is none is inferred: a folder which has it is not what this page describes."""
    if exists_inside(root, scene.folder, "transformed"):
        problem = "a human scene with transformed/; expected cameras and metadata only; please report this"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=scene.folder)
