"""What is known of HoloAssist's conventions, and how well."""

from __future__ import annotations

from collections.abc import Iterator

from adapters.holoassist.recording import AXES
from schemas.episode import Licence
from schemas.fact import Certainty, Fact, fact

LICENCE = Licence(name="CDLA-Permissive-2.0", allows_commercial=True, allows_redistribution=True)
PY = "taeinkwon/PyHoloAssist:hand_eye_project.py"
EGOVLA = "RchalYang/EgoVLA_Release:human_plan/dataset_preprocessing/holoassist/utils.py"
FACTS = (
    fact(
        "rate",
        "30 Hz nominal; each row by its ticks",
        Certainty.VERIFIED,
        "a real Pose_sync.txt",
        for_actions=True,
    ),
    fact("hand_frame", "joints to the world, metres", Certainty.CODE, PY, for_actions=True),
    fact("wrist_axes", f"{AXES}: fingers +x, back of the hand +z", Certainty.CODE, EGOVLA),
    fact("camera_pose", "camera to world, x forward, y left, z up", Certainty.CODE, PY),
    fact("video_clock", "PTS 0 is the first tick of VideoMp4Timing.txt", Certainty.CODE, PY),
    fact("segment_clock", "seconds of the video's PTS", Certainty.CODE, EGOVLA),
    # Processing time of the tracker. It is not subtracted: nobody says how it varies.
    fact(
        "hand_latency",
        "about 50 ms behind the pictures; not shifted",
        Certainty.CODE,
        f"{PY}: --offset",
    ),
    fact("world_up", "+z", Certainty.VERIFIED, "a real Pose_sync.txt"),
)


def lens_fact(*, has_distortion: bool) -> Iterator[Fact]:
    """Said where Intrinsics.txt states distortion: psi's direction and order of it are not settled, so it is not applied."""
    if has_distortion:
        value = "distortion is stated and not applied, as in public readers"
        yield fact("lens", value, Certainty.UNVERIFIED, f"Intrinsics.txt; {PY}")
