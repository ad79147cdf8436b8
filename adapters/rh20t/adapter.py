"""RH20T: contact-rich manipulation by four arms in seven set-ups, eight to ten cameras, about 10 Hz; one folder per scene.

    RH20T_cfg{1..7}/task_XXXX_user_XXXX_scene_XXXX_cfg_XXXX/      names, metadata, sentences      scenes.py
        cam_{serial}/{color.mp4, timestamps.npy}                                                  cameras.py
        transformed/{tcp_base, gripper, joint}.npy                                                motion.py
    RH20T_cfgN/calib/{epoch ms}/{intrinsics, extrinsics, tcp}.npy                                 calibration.py
The constants of the set-ups are in configurations.py. Source: `rh20t/rh20t_api` (code). Folders that end in _human are the source
`rh20t_human`. Not read: depth, forces, audio, tactile, high_freq_data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from adapters.base import SourceInfo
from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import inside
from adapters.rh20t.calibration import NS_PER_MS, camera_frames, find_calibration
from adapters.rh20t.cameras import Recordings, camera_of, read_cameras
from adapters.rh20t.configurations import CONFIGURATIONS, Configuration
from adapters.rh20t.motion import (
    FILES,
    Rh20tMotion,
    camera_poses_fact,
    motion_facts,
    motion_streams,
    read_motion,
)
from adapters.rh20t.scenes import (
    LICENCE,
    RATE_HZ,
    instructions_of,
    metadata_facts,
    read_metadata,
    scene_at,
    scene_refs,
    survey_scenes,
)
from schemas.episode import Episode, EpisodeRef, Stream, pose_channel
from schemas.geometry import Array
from schemas.regular_file import path_exists

FAILED_AT_MOST = 1  # rating: 0 emergency stop, 1 failed, 2 to 9 the user's grade


class Rh20t:
    """Adapter for `rh20t`."""

    name: ClassVar[str] = "rh20t"
    path_options: ClassVar[tuple[str, ...]] = ("task_description",)
    version: ClassVar[int] = 1
    container: ClassVar[str] = "npy of pickled dicts + mp4 + json"
    about: ClassVar[str] = "RH20T: four arms in seven set-ups, contact-rich skills, many cameras"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Option: `task_description` (the web site's JSON file of sentences, else looked for at the root)."""
        return survey_scenes(self.name, root, "robot", options)

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """By name; scenes that lack what every robot scene has are broken."""
        return scene_refs(root, "robot", info)

    def load(self, ref: EpisodeRef) -> Episode:
        """One scene up to its finish_time. Raises SourceError as the readers of its parts."""
        root, scene = Path(ref.root), scene_at(ref)
        setup = CONFIGURATIONS[scene.number]
        metadata, metadata_raw = read_metadata(root, scene)
        recordings = read_cameras(root, scene, metadata.finish_time)
        where = f"{scene.folder}/transformed"
        folder = inside(root, where)
        motion = read_motion(folder, where, setup, metadata.finish_time)
        calibration, calibration_fact = find_calibration(root, scene.folder, metadata.calib)
        frames = camera_frames(calibration, setup) if calibration else {}
        zero_ms = min(recordings.first_ms, motion.first_ms)
        poses = list(_camera_streams(recordings, motion, setup, frames, zero_ms))
        motion_files = (path for name in FILES if path_exists(path := inside(folder, name)))
        calibration_files = calibration.files if calibration else ()
        paths = (*recordings.paths, *motion_files, *calibration_files)
        rating = metadata.rating
        return Episode(
            ref=ref,
            embodiment="rh20t_any",
            rate_hz=RATE_HZ,
            streams=(*motion_streams(motion, setup, zero_ms), *poses),
            cameras=tuple(camera_of(c, calibration, zero_ms) for c in recordings.cameras),
            instructions=instructions_of(ref),
            facts=(
                *ref.facts,
                *motion_facts(scene.number, setup, motion.joints),
                *metadata_facts(metadata),
                *recordings.facts,
                calibration_fact,
                camera_poses_fact(calibration, len(poses)),
            ),
            licence=LICENCE,
            raw_files=(metadata_raw, *(raw_file_of(path, root) for path in paths)),
            success=None if rating is None else rating > FAILED_AT_MOST,
            subject_id=scene.user,
            scene_id=scene.place,
        )


def _camera_streams(
    recordings: Recordings,
    motion: Rh20tMotion,
    setup: Configuration,
    frames: Mapping[str, Array],
    zero_ms: int,
) -> Iterator[Stream]:
    """T_base_cam: still at every picture, or, on the arm, carried along by the tool."""
    for camera in recordings.cameras:
        T = frames.get(camera.serial)
        if T is None:
            continue
        is_in_hand = camera.serial in setup.in_hand
        ms = motion.tcp.ms if is_in_hand else camera.ms
        yield Stream(
            spec=pose_channel(f"T_base_cam.{camera.name}"),
            t_ns=(ms - zero_ms) * NS_PER_MS,
            values=motion.T_base_eef @ T if is_in_hand else np.tile(T, (len(ms), 1, 1)),
            valid=motion.pose_valid if is_in_hand else np.ones(len(ms), dtype=bool),
        )
