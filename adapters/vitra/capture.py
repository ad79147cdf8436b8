"""What one VITRA episode shows: pictures, camera and hands, and the facts about their conventions.

The pictures of one VITRA episode: which frames of which file, on which clock, and the camera that took them.

`video_decode_frame` counts frames of the whole original video. A file with that many frames is the original; one with as many
frames as the episode was cut to it (as the example clip was); of any other file the frames are unknown.
Intrinsics are for the picture at full size, 2 cx by 2 cy, and shrink with each side on its own: `visualization/visualize_core.py`
does so, and the example clip (480 x 368 of 1440 x 1080) is stretched, not padded: over the static background the epipolar error
has its minimum at fy x 0.3405, which is 368 / 1080 and not 480 / 1440.

VITRA's two hands: 21 joints, a wrist pose and MANO parameters, all in the world of the episode.

Both wrist orientations are in the canonical axes: the left one turns the x-mirrored right model, V = R M (V_R - J0) + T, and its
finger rotations are the right hand's (`microsoft/VITRA:data/data.md`; joints rebuilt from the rotations of the example, whose
right hand alone is there). Rotations are absolute: no mean pose is added. `transl_worldspace` is joint 0, not smplx's transl.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adapters.containers.video_probe import frame_times_ns, probe_video, video_header
from adapters.vitra.annotation import HandRecord, VitraAnnotation
from schemas.episode import Camera, Stream, VideoSpan, pose_channel
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import inverse, transform
from schemas.hand_track import HandTrack, ManoPose
from schemas.regular_file import file_stamp

# -- pictures ------------------------------------------------------------------------------------------------------

CAMERA = "ego"
_Times = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pictures:
    """Camera, its pose, the instants `t_ns` [T] of the annotated frames, and what was decided about the file."""

    camera: Camera
    T_world_cam: Stream
    t_ns: _Times
    rate_hz: Fraction
    fact: Fact


def pictures_of(annotation: VitraAnnotation, video: Path) -> Pictures:
    """The annotated frames of `video`.

    Raises:
        SourceError: MISSING_VIDEO, CORRUPT_VIDEO; FRAME_COUNT when the file is neither the original nor cut to the episode.
    """
    shown_ns, width_px, height_px = _probed(video)
    index, how = _frames_in(annotation.frames, len(shown_ns), video.name)
    first, last = int(index[0]), int(index[-1])
    t_ns = shown_ns[index] - shown_ns[first]
    camera = Camera(
        name=CAMERA,
        frames=VideoSpan(path=str(video), first_frame=first, num_frames=last - first + 1),
        t_ns=shown_ns[first : last + 1] - shown_ns[first],
        K_cam=annotation.K_cam,
        K_size=_full_size(annotation, width_px, height_px),
    )
    spec = pose_channel(f"T_world_cam.{CAMERA}")
    return Pictures(
        camera=camera,
        T_world_cam=Stream(spec=spec, t_ns=t_ns, values=inverse(annotation.T_cam_world)),
        t_ns=t_ns,
        rate_hz=video_header(video).rate_hz,
        fact=fact("video_frames", how, Certainty.VERIFIED, "frame counts"),
    )


def _frames_in(frames: _Times, num_frames: int, where: str) -> tuple[_Times, str]:
    """[T] indices into the file of `num_frames` frames, and in words how they were found."""
    first, last = int(frames[0]), int(frames[-1])
    if num_frames > last:
        return frames, f"frames {first} to {last} of the original video"
    if num_frames == last - first + 1:
        return frames - first, f"the file is cut to frames {first} to {last}"
    if num_frames == len(frames):
        return np.arange(num_frames), f"the file is cut to the episode's {num_frames} frames"
    problem = f"the file has {num_frames} frames; the episode is frames {first} to {last} of the original video"
    advice = f"expected more than {last} frames, or exactly {last - first + 1}"
    raise SourceError(Code.FRAME_COUNT, f"{problem}: {advice}", where=where)


def _full_size(annotation: VitraAnnotation, width_px: int, height_px: int) -> tuple[int, int]:
    """The picture that K is for: the file's own where it differs by a pixel at most (a centre at w / 2 or (w - 1) / 2)."""
    full = 2 * annotation.K_cam[:2, 2]
    if np.abs(full - (width_px, height_px)).max() <= 1:
        return width_px, height_px
    return round(full[0]), round(full[1])


def _probed(video: Path) -> tuple[_Times, int, int]:
    """Presentation times of all frames, width, height."""
    return _read_packets(video, file_stamp(video, missing=Code.MISSING_VIDEO))


@lru_cache(maxsize=8)  # hundreds of episodes are cut from one video of an hour
def _read_packets(video: Path, _stamp: tuple[int, ...]) -> tuple[_Times, int, int]:
    probe, times_ns = probe_video(video), frame_times_ns(video)
    times_ns.flags.writeable = False
    return times_ns, probe.width_px, probe.height_px


# -- hands ---------------------------------------------------------------------------------------------------------


def hands_of(annotation: VitraAnnotation, t_ns: npt.NDArray[np.int64]) -> tuple[HandTrack, ...]:
    """The hands that are kept in some frame; present where kept.

    Raises:
        SourceError: NOT_FINITE or NOT_A_ROTATION in a kept frame.
    """
    annotated = [(side, hand) for side, hand in annotation.hands.items() if hand.kept.any()]
    return tuple(_track(side, hand, t_ns) for side, hand in annotated)


def absent_hands(annotation: VitraAnnotation) -> Iterator[Fact]:
    """Which hand was never reconstructed."""
    for side, hand in annotation.hands.items():
        if not hand.kept.any():
            value = "kept in no frame: not handed over"
            yield fact(f"hand_absent.{side}", value, Certainty.VERIFIED, "kept_frames")


def _track(side: str, hand: HandRecord, t_ns: npt.NDArray[np.int64]) -> HandTrack:
    return HandTrack(
        side=side,
        t_ns=t_ns,
        present=hand.kept,
        joints_m=hand.joints_m,
        layout="canonical21",
        T_frame_wrist=transform(hand.global_orient, hand.wrist_m),
        wrist_axes="vitra",
        mano=ManoPose(
            global_orient=hand.global_orient,
            trans_m=hand.wrist_m,
            trans_is="wrist",
            betas=hand.betas,
            hand_rotmat=hand.hand_rotmat,
            is_flat_hand_mean=True,
            model="own" if side == "right" else "mirrored_right",
        ),
        view=CAMERA,
    )


# -- facts ---------------------------------------------------------------------------------------------------------

PAGE = "microsoft/VITRA:data/data.md"
EXAMPLE = "measured on the example episode of microsoft/VITRA"
FACTS = (
    fact("hand_frame", "joints_worldspace, metres", Certainty.VERIFIED, EXAMPLE, for_actions=True),
    fact("wrist_axes", "vitra", Certainty.VERIFIED, EXAMPLE, for_actions=True),
    fact("mano_trans", "the wrist, joint 0", Certainty.VERIFIED, EXAMPLE, for_actions=True),
    fact("mano_fingers", "absolute rotations, no mean pose", Certainty.CODE, PAGE),
    fact("left_hand_model", "MANO_RIGHT mirrored in x", Certainty.DOCUMENTED, PAGE),
    fact("camera_pose", "extrinsics are world to camera: inverted", Certainty.VERIFIED, EXAMPLE),
    fact("intrinsics", "for 2 cx by 2 cy, each side scaled", Certainty.VERIFIED, EXAMPLE),
    fact(
        "annotation_origin",
        "fitted to monocular video, scale and all: about 90 % right by the authors' own count",
        Certainty.DOCUMENTED,
        PAGE,
    ),
)
