"""VITRA's two hands: 21 joints, a wrist pose and MANO parameters, all in the world of the episode.

Both wrist orientations are in the canonical axes: the left one turns the x-mirrored right model, V = R M (V_R - J0) + T, and its
finger rotations are the right hand's (`microsoft/VITRA:data/data.md`; joints rebuilt from the rotations of the example, whose
right hand alone is there). Rotations are absolute: no mean pose is added. `transl_worldspace` is joint 0, not smplx's transl.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from adapters.vitra.annotation import HandRecord, VitraAnnotation
from adapters.vitra.pictures import CAMERA
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import transform
from schemas.hand_track import HandTrack, ManoPose


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
