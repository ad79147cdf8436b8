"""Where the videos of VITRA come from, by the first word of an episode's name: their terms, and whether they were undistorted.

Source: `microsoft/VITRA:data/data.md` and `vitra/datasets/human_dataset.py` (documented, code). The annotations are under the
licence of the repository, MIT; the pictures under that of their own set.
"""

from __future__ import annotations

from dataclasses import dataclass

from adapters.vitra.facts import PAGE
from schemas.episode import Licence
from schemas.fact import Certainty, Fact, fact

LICENCE = Licence(  # of the whole: the strictest
    name="MIT (annotations), each set's own (pictures)",
    allows_commercial=False,
    allows_redistribution=False,
)
_UNDISTORTED = fact(
    "picture_lens",
    "K and poses are for the undistorted video; whether this file was undistorted cannot be told",
    Certainty.UNVERIFIED,
    f"{PAGE}: undistort it with the authors' script first",
)
_AS_PUBLISHED = fact("picture_lens", "as published, a pinhole", Certainty.DOCUMENTED, PAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOrigin:
    """One set of videos."""

    licence: Licence
    lens: Fact
    names_start_with_subject: bool = False  # P01_101


def _terms(pictures: str, **flags: bool) -> Licence:
    return Licence(name=f"MIT (annotations), {pictures} (pictures)", **flags)


_SSV2 = VideoOrigin(
    licence=_terms("Something-Something V2 licence", allows_redistribution=False),
    lens=_AS_PUBLISHED,
)
ORIGINS = {
    "ego4d": VideoOrigin(
        licence=_terms("Ego4D licence", allows_redistribution=False), lens=_UNDISTORTED
    ),
    "egoexo4d": VideoOrigin(
        licence=_terms("Ego-Exo4D licence", allows_redistribution=False), lens=_UNDISTORTED
    ),
    "epic": VideoOrigin(
        licence=_terms("CC BY-NC 4.0", allows_commercial=False, allows_redistribution=True),
        lens=_AS_PUBLISHED,
        names_start_with_subject=True,
    ),
    "somethingsomethingv2": _SSV2,
    "ssv2": _SSV2,
}
OTHER = VideoOrigin(licence=_terms("unknown"), lens=_UNDISTORTED)


def origin_of(name: str) -> VideoOrigin:
    """By the word before the first underscore of an episode's name, upper or lower case."""
    return ORIGINS.get(name.lower(), OTHER)
