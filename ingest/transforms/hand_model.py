"""What the hands stage asks of MANO, without knowing torch: parameters to points, and points to parameters."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ingest.transforms.resample import Mask
from schemas.episode import ChannelSpec, Interpolation, Stream, Unit
from schemas.errors import Code, SourceError
from schemas.geometry import Array
from schemas.hand_track import HandTrack, ManoPose

MANO_ANGLES = 45


class HandFit(Protocol):
    """What a fit found: parameters and, for each sample, whether it is the hand that was seen, and how far off."""

    @property
    def mano(self) -> ManoPose: ...
    @property
    def mean_m(self) -> Array: ...
    @property
    def accepted(self) -> Mask: ...


class HandModel(Protocol):
    """MANO, as `ingest/models/mano.py` offers it."""

    def joints21_and_wrist(self, side: str, mano: ManoPose) -> tuple[Array, Array]:
        """[N, 21, 3] metres in canonical order and [N, 4, 4] the wrist, MANO axes, in the frame of the parameters."""
        ...

    def fit(self, side: str, points: Array, has: Mask) -> HandFit:
        """The parameters that reproduce [N, 21, 3] points; `has` [21]."""
        ...


def mano_angles(
    track: HandTrack, points: Array, has: Mask, usable: Mask, model: HandModel | None
) -> tuple[Stream, dict[str, float]]:
    """The 45 finger angles of a fitted MANO (axis-angles, flat hand mean, MANO's order), and how good the fit is.

    Args:
        points: [N, 21, 3] in the track's frame, `has` [21] which of them there are, `usable` [N] which samples to fit.

    Raises:
        SourceError: no model to fit.
    """
    if model is None:
        raise SourceError(Code.MISSING_CHANNEL, "fitting needs the MANO model", where=track.side)
    side, N = track.side, len(track.t_ns)
    angles, accepted = np.zeros((N, MANO_ANGLES)), np.zeros(N, dtype=bool)
    measured = {}
    if usable.any():
        fit = model.fit(side, points[usable], has)
        assert fit.mano.hand_axis_angle_rad is not None  # what a fit gives
        angles[usable], accepted[usable] = fit.mano.hand_axis_angle_rad, fit.accepted
        measured = {
            f"mano_fit_mean_mm.{side}": float(fit.mean_m.mean() * 1000),
            f"mano_fit_accepted_share.{side}": float(fit.accepted.mean()),
        }
    spec = ChannelSpec(
        name=f"{side}.hand_joints_rad",
        shape=(MANO_ANGLES,),
        unit=Unit.RADIAN,
        interpolation=Interpolation.NEAREST,  # axis-angles are not to be blended
    )
    return Stream(spec=spec, t_ns=track.t_ns, values=angles, valid=accepted), measured
