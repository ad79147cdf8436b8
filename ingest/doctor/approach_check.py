"""Does the hand approach what it grasps along +x_can? Measured on the staged columns of one episode, or of several together.

What counts is the last stretch before the jaws begin to close: the way between two objects says nothing of the axes. On a real
Galaxea episode its three grasps come along +x by 1.0 there, and along y or z over the whole way from open to closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ingest.check import Check, judged, unmeasured
from ingest.doctor.staged_columns import STATE, Columns
from ingest.transforms.resample import Mask
from schemas.geometry import Array

CLOSED_BELOW, OPEN_ABOVE = 1 / 3, 2 / 3  # of the opening's own range
MIN_OPENING_RANGE = 0.2
APPROACH_M = 0.05
MIN_ALONG, OTHER_WAY = 0.5, 0.7  # ours: median cosines
MIN_GRASPS = 3  # ours: fewer cannot tell a wrong axis from a grasp from the side
_AXES = ("+x", "-x", "+y", "-y", "+z", "-z")


def grasps(opening: Array, valid: Mask) -> list[tuple[int, int]]:
    """(timestep at which the jaws are open, timestep at which they begin to close) of every grasp in [K] openings."""
    low, high = opening[valid].min(initial=1.0), opening[valid].max(initial=0.0)
    if high - low < MIN_OPENING_RANGE:
        return []
    share = (opening - low) / (high - low)
    spans: list[tuple[int, int]] = []
    opened: int | None = None
    for k in np.flatnonzero(valid).tolist():
        if share[k] > OPEN_ABOVE and opened is None:
            opened = k
        elif share[k] < CLOSED_BELOW and opened is not None:
            start = k
            while start > opened and share[start - 1] > share[start]:
                start -= 1
            spans.append((opened, start))
            opened = None
    return spans


def approach_directions(columns: Columns, side: str) -> Array:
    """[G, 3] the way of the hand over its last 5 cm before each grasp, in its own axes when the jaws begin to close."""
    hand, opening = columns.hand(side) or columns.source_pose(side), columns.opening(side)
    if hand is None or opening is None:
        return np.zeros((0, 3))
    valid = hand.valid & columns.valid(STATE, f"{side}.gripper_opening")
    R, p = hand.T[:, :3, :3], hand.T[:, :3, 3]
    directions = []
    for opened, start in grasps(opening, valid):
        before = np.flatnonzero(
            np.linalg.norm(p[opened : start + 1] - p[start], axis=1) >= APPROACH_M
        )
        if len(before) and valid[opened + before[-1] : start + 1].all():
            way = R[start].T @ (p[start] - p[opened + before[-1]])
            directions.append(way / np.linalg.norm(way))
    return np.array(directions).reshape(-1, 3)


def approach_check(directions: Array, side: str, *, has_axes: bool) -> Check:
    """(3) Toward a grasp the hand moves along +x_can more than along y and z: median over the grasps [G, 3]."""
    expected = f"above {MIN_ALONG:g} and above the share along y and z"
    if not len(directions):
        why = f"no grasp with {APPROACH_M * 100:.0f} cm of way before it"
        return unmeasured("approach", side, unit="", expected=expected, explanation=why)
    median = np.median(directions, axis=0)
    shares = np.stack([median, -median], axis=1).reshape(-1)
    best = int(np.argmax(shares))
    count = f"{len(directions)} grasps come" if len(directions) > 1 else "1 grasp comes"
    along = f"{count} along {_AXES[best]} by {shares[best]:.2f}"
    if not has_axes:
        why = f"{along} of the source's own axes, whose place in the hand nobody knows"
        return unmeasured("approach", side, unit="", expected=expected, explanation=why)
    is_well: bool | None = best == 0 and shares[0] > MIN_ALONG
    if not is_well and (best == 0 or len(directions) < MIN_GRASPS or shares[best] < OTHER_WAY):
        is_well = None
    explanations = {
        True: "as fingers do",
        False: "another axis is the approach, or the gripper's ends are swapped",
        None: "too few, or in no clear direction",
    }[is_well]
    return judged(
        "approach",
        side,
        float(median[0]),
        unit="cosine",
        expected=expected,
        is_well=is_well,
        explanation=f"{along}: {explanations}",
    )


def pooled_approach(directions: Iterable[tuple[str, Array, bool]]) -> Iterator[Check]:
    """(3) over several episodes: (side, [G, 3], whether the axes are known) of each."""
    by_side: dict[tuple[str, bool], list[Array]] = {}
    for side, ways, has_axes in directions:
        by_side.setdefault((side, has_axes), []).append(ways)
    for (side, has_axes), several in sorted(by_side.items()):
        if sum(len(ways) > 0 for ways in several) > 1:
            yield approach_check(np.concatenate(several), side, has_axes=has_axes)
