"""Project Aria (Gen1, Gen2): hands by the machine perception services or on the device, the headset's trajectory, one RGB camera.

    hand_tracking/hand_tracking_results.csv    landmarks and wrists in the device frame          mps.py
    slam/closed_loop_trajectory.csv            the device in the world, about 1 kHz              mps.py
    slam/online_calibration.jsonl              the cameras on the device                         mps.py
    <recording>.vrs                            pictures; Gen2: also hands and odometry           vrs.py (optional extra)
    <recording>.mp4                            what vrs_to_mp4 exported, with device times       vrs.py
recording.py finds what belongs together. Source: facebookresearch/projectaria_tools. Hands are handed over in the RGB camera's optical
frame (a constant away from the device frame), the camera's pose as a stream: no pose is interpolated here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

from adapters.aria.mps import camera_name
from adapters.aria.recording import AriaRecording, read_parts, recordings
from adapters.aria.vrs import RGB
from adapters.base import SourceInfo
from schemas.episode import Episode, EpisodeRef, Licence
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Certainty, fact
from schemas.regular_file import bytes_hint

LICENCE = Licence(name="by the recording: Aria is a device, its owner decides")
TOOLS = "facebookresearch/projectaria_tools"
FACTS = (
    fact(
        "hand_layout",
        "aria_mps21: tips first, wrist at 5",
        Certainty.VERIFIED,
        TOOLS,
        for_actions=True,
    ),
    fact("wrist_axes", "umetrack", Certainty.VERIFIED, "Gen1 and Gen2 samples", for_actions=True),
    fact("trajectory", "T_world_device", Certainty.DOCUMENTED, TOOLS, for_actions=True),
    fact("confidence", "one a hand; -1 is no hand", Certainty.VERIFIED, "Gen1 samples"),
)
RATE_HZ = Fraction(
    30
)  # of Gen2's hands and of RGB; the services' tables have 10 to 30 (documented)
CAMERA = camera_name(RGB)


class Aria:
    """Adapter for `aria`; it has no options."""

    name: ClassVar[str] = "aria"
    version: ClassVar[int] = 1
    container: ClassVar[str] = "csv + jsonl + vrs or mp4"
    about: ClassVar[str] = "Project Aria recordings: tracked hands, headset trajectory, RGB"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Count what there is; nothing is opened."""
        if options:
            raise ConfigError(f"aria has no option {sorted(options)}")
        listed = list(recordings(root))
        kinds = ("hands", "trajectory", "calibration", "vrs", "video")
        details = {k: str(sum(bool(getattr(r, k)) for r in listed)) for k in kinds}
        return SourceInfo(
            source=self.name, dataset=self.name, licence=LICENCE, facts=FACTS, details=details
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """One episode a recording, by name."""
        for recording in recordings(root):
            files = [root / p for p in (recording.vrs, recording.video) if p]
            yield EpisodeRef(
                source=self.name,
                dataset=self.name,
                episode_id=recording.name,
                root=str(root),
                locator=tuple((f.name, getattr(recording, f.name)) for f in fields(recording)),
                facts=FACTS,
                bytes_hint=bytes_hint(*files),
            )

    def load(self, ref: EpisodeRef) -> Episode:
        """Hands in the frame of camera `rgb`, its pose, its pictures where they can be read.

        Raises:
            SourceError: as `read_parts`; EMPTY_EPISODE (neither hands nor pictures), MISSING_CHANNEL (hands without a pose
                of the headset at that time and without pictures: in a moving frame they say nothing).
        """
        parts = read_parts(Path(ref.root), AriaRecording(**dict(ref.locator)))
        clocks = [h.t_ns for h in parts.hands] + (
            [] if parts.times_ns is None else [parts.times_ns]
        )
        if not clocks:
            problem = "neither tracked hands nor readable images"
            raise SourceError(Code.EMPTY_EPISODE, problem, where=ref.episode_id)
        zero_ns, end_ns = min(int(t[0]) for t in clocks), max(int(t[-1]) for t in clocks)
        path = parts.trajectory.within(zero_ns, end_ns) if parts.trajectory else None
        if parts.hands and path is None and parts.frames is None:
            problem = "hands are in the device's frame, and there is neither a trajectory of that time nor images"
            raise SourceError(Code.MISSING_CHANNEL, problem, where=ref.episode_id)
        zero_ns = min(zero_ns, int(path.t_ns[0])) if path else zero_ns
        cameras = parts.cameras(CAMERA, zero_ns)
        return Episode(
            ref=ref,
            embodiment="human_hands" if parts.hands else "human_video",
            rate_hz=RATE_HZ,
            streams=parts.camera_pose(path, CAMERA, zero_ns),
            cameras=cameras,
            hands=parts.tracks(CAMERA, zero_ns, CAMERA if cameras else None),
            world_up=path.world_up if path else None,
            facts=(*ref.facts, *parts.facts),
            licence=LICENCE,
            raw_files=tuple(parts.raw_files),
        )
