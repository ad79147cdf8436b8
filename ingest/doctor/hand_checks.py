"""Acceptance tests of a person's hand on the staged columns and measurements of one episode, including its approach along +x_can."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from ingest.check import Check, judged, unmeasured
from ingest.doctor.staged_columns import STATE, Columns
from ingest.recipe import HandSettings
from ingest.transforms.hand_validity import bone_lengths_m
from ingest.transforms.resample import Mask
from schemas.geometry import Array
from schemas.hand import MCPS, joint_names, joint_parents

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
    expected = f"above {MIN_ALONG:g} and larger than along y and z"
    if not len(directions):
        why = f"no grasp is preceded by {APPROACH_M * 100:.0f} cm of motion"
        return unmeasured("approach", side, unit="", expected=expected, explanation=why)
    median = np.median(directions, axis=0)
    shares = np.stack([median, -median], axis=1).reshape(-1)
    best = int(np.argmax(shares))
    count = f"{len(directions)} grasps come" if len(directions) > 1 else "1 grasp comes"
    along = f"{count} along {_AXES[best]} by {shares[best]:.2f}"
    if not has_axes:
        why = f"{along} in the source's axes, whose orientation in the hand is not documented"
        return unmeasured("approach", side, unit="", expected=expected, explanation=why)
    is_well: bool | None = best == 0 and shares[0] > MIN_ALONG
    if not is_well and (best == 0 or len(directions) < MIN_GRASPS or shares[best] < OTHER_WAY):
        is_well = None
    explanations = {
        True: "as expected of fingers",
        False: "a different axis is the approach direction, or the gripper opening is inverted",
        None: "too few grasps, or no clear direction",
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


BENT = 0.9  # ours: a finger is bent when its tip is nearer to its knuckle than this share of its length
MIN_BENT = 10  # ours: fingers of timesteps
MIN_SHARE = 0.5  # ours: of the frames in which the hand is present


def hand_checks(
    columns: Columns, measured: Mapping[str, float], settings: HandSettings
) -> Iterator[Check]:
    """(6) Every test of every hand; `measured` is the episode's measurements by name."""
    for side in columns.sides:
        keypoints = columns.keypoints(side)
        if keypoints is not None:
            points = keypoints[0][keypoints[1]]
            yield curl_check(points, side)
            yield bones_check(points, side, settings)
        yield from palm_checks(measured, side, settings)
        yield from validity_checks(measured, side)


def curl_check(points: Array, side: str) -> Check:
    """The tips of bent fingers are on the palm side of their knuckles: [N, 21, 3] metres, y towards the back."""
    expected = "below 0: on the palm side"
    knuckles = np.array(MCPS)
    lengths = bone_lengths_m(points)[:, (knuckles[:, None] + np.arange(3)).reshape(-1)]
    reach = np.linalg.norm(points[:, knuckles + 3] - points[:, knuckles], axis=2)
    bent = reach < BENT * lengths.reshape(len(points), 4, 3).sum(axis=2)
    if bent.sum() < MIN_BENT:
        why = f"only {int(bent.sum())} frames have bent fingers"
        return unmeasured("curl", side, unit="mm", expected=expected, explanation=why)
    height_mm = float(np.median((points[:, knuckles + 3, 1] - points[:, knuckles, 1])[bent]) * 1000)
    is_well = height_mm < 0
    explanation = (
        "towards the palm"
        if is_well
        else "to the back of the hand: the hand is mirrored, or the wrist axes are wrong"
    )
    return judged(
        "curl",
        side,
        height_mm,
        unit="mm",
        expected=expected,
        is_well=is_well,
        explanation=f"fingers of the {side} hand curl {explanation}",
    )


def bones_check(points: Array, side: str, settings: HandSettings) -> Check:
    """How many of the 20 bones have a median length that no hand has."""
    expected = "0 of 20 bones outside the recipe's limits"
    if not len(points):
        why = "no valid frame for this hand"
        return unmeasured("bones", side, unit="bones", expected=expected, explanation=why)
    median = np.median(bone_lengths_m(points), axis=0)
    is_palm = np.isin(np.arange(1, len(median) + 1), MCPS)
    low = np.where(is_palm, settings.wrist_to_mcp_m[0], settings.bone_m[0])
    high = np.where(is_palm, settings.wrist_to_mcp_m[1], settings.bone_m[1])
    odd = np.flatnonzero((median < low) | (median > high))
    names, parents = joint_names(), joint_parents()
    odd_bones = ", ".join(
        f"{names[parents[i + 1]]}-{names[i + 1]} {median[i] * 1000:.3g} mm" for i in odd[:3]
    )
    hand_mm = float(median[is_palm].mean() * 1000)
    explanation = f"the knuckles are {hand_mm:.0f} mm from the wrist" + (
        f"; {odd_bones}" if odd_bones else ""
    )
    return judged(
        "bones",
        side,
        len(odd),
        unit="bones",
        expected=expected,
        is_well=not len(odd),
        explanation=f"{explanation}{': no hand has these lengths' if len(odd) else ''}",
    )


def palm_checks(
    measured: Mapping[str, float], side: str, settings: HandSettings
) -> Iterator[Check]:
    """The palm against the template, and the source's own wrist against the palm."""
    limit_deg = settings.wrist_disagreement_max_deg
    if (angle := measured.get(f"wrist_disagreement_deg.{side}")) is not None:
        is_well = angle <= limit_deg
        relation = "agrees with" if is_well else "disagrees (wrong axes, or the other hand) with"
        yield judged(
            "palm_against_wrist",
            side,
            angle,
            unit="deg",
            expected=f"at most {limit_deg:g}",
            is_well=is_well,
            explanation=f"the source's wrist frame {relation} the frame of the palm",
        )
    if (scale := measured.get(f"palm_scale.{side}")) is not None:
        low, high = settings.palm_scale
        is_well = low <= scale <= high
        relation = "of human size" if is_well else "not of human size: wrong unit or wrong joints"
        yield judged(
            "palm_scale",
            side,
            scale,
            unit="",
            expected=f"{low:g} to {high:g}",
            is_well=is_well,
            explanation=f"the palm is {relation}",
        )
    if (rms := measured.get(f"palm_fit_rms_mm.{side}")) is not None:
        limit_mm = settings.palm_unscaled_rms_max_m * 1000
        is_well = rms <= limit_mm
        relation = (
            "has the shape of a palm"
            if is_well
            else "does not have the shape of a palm: wrong joints"
        )
        yield judged(
            "palm_fit",
            side,
            rms,
            unit="mm",
            expected=f"at most {limit_mm:g}",
            is_well=is_well,
            explanation=f"the palm {relation}",
        )


def validity_checks(measured: Mapping[str, float], side: str) -> Iterator[Check]:
    """Of the frames in which the hand is present, how many pass each of the other tests; presence itself is not judged."""
    prefix = f"hand_pass_share.{side}."
    shares = {n.removeprefix(prefix): v for n, v in measured.items() if n.startswith(prefix)}
    present = shares.get("present", 1.0)
    for bit, share in shares.items():
        among = share / present if present > 0 else 0.0
        is_well = None if bit == "present" or present == 0 else among >= MIN_SHARE
        explanation = f"{share:.0%} of all frames"
        if is_well is False:
            explanation = f"only {among:.0%} of the frames with a {side} hand pass test {bit!r}"
        yield judged(
            f"frames_{bit}",
            side,
            share,
            unit="share",
            expected="-"
            if bit == "present"
            else f"at least {MIN_SHARE:g} of the frames with the hand",
            is_well=is_well,
            explanation=explanation,
        )
