"""Signs of handling: generated hands that close by a known bend."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.curation.measurements.each import hands
from ingest.curation.measurements.view import EpisodeView
from ingest.transforms.hand_validity import BITS
from jobs.demo.raw.hand_scene import bent_hand
from tests.curation.video_corpus import Builder, spans_of, values_of

K = 40


def aperture(curl_deg: float) -> float:
    points = bent_hand(np.deg2rad(curl_deg))
    gaps = [np.linalg.norm(points[tip] - points[4]) for tip in (8, 12, 16, 20)]
    return float(np.mean(gaps) / np.linalg.norm(points[9] - points[0]))


def handled(
    curl_deg: np.ndarray, *, invalid: tuple[int, ...] = (), size: float = 1.0
) -> EpisodeView:
    """A right hand whose fingers bend so; the left one is tracked in the second half only, without fingers."""
    builder = Builder(K)
    points = np.array([bent_hand(np.deg2rad(c)) for c in curl_deg]) * size
    builder.state["right.hand_keypoints_m"] = points.reshape(K, -1)
    builder.invalid["right.hand_keypoints_m"] = list(invalid)
    bits = np.ones((K, 16))
    bits[list(invalid), 8] = 0.0
    bits[: K // 2, 0] = 0.0
    builder.beside["hand_validity"] = bits
    view = builder.view()
    names = tuple(f"{side}.{bit}" for side in ("left", "right") for bit in BITS)
    object.__setattr__(view, "names", {**view.names, "observation.hand_validity": names})
    return view


def test_a_hand_that_closes_once() -> None:
    """Flat, then bent by 60 degrees within timesteps 10 to 14, and so kept."""
    curl = np.interp(np.arange(K), [10, 14], [0.0, 60.0])
    view = handled(curl)
    found = values_of(hands.compute, view)
    assert found["both_hands_share"] == 0.5
    assert found["hand_present_share"] == 1.0
    assert found["hand_run_max_s"] == 4.0
    assert found["hand_aperture_p10"] == pytest.approx(aperture(60.0))
    assert found["hand_aperture_range"] == pytest.approx(aperture(0.0) - aperture(60.0))
    assert found["hand_closings_per_min"] == pytest.approx(15.0)
    ((start, end),) = spans_of(hands.compute, view, "hand_closing")
    # the first timestep from which enough of the fall lies within half a second, to the lowest
    assert start in range(6, 12)
    assert end == 15
    assert values_of(hands.compute, handled(curl, size=0.7)) == pytest.approx(found)


def test_slow_closing_opening_and_unseen_closing_are_none() -> None:
    slow = np.linspace(0.0, 60.0, K)
    opens = np.interp(np.arange(K), [10, 14], [60.0, 0.0])
    unseen = handled(np.interp(np.arange(K), [10, 14], [0.0, 60.0]), invalid=(11, 12, 13))
    for view in (handled(slow), handled(opens), unseen):
        assert values_of(hands.compute, view)["hand_closings_per_min"] == 0.0
    assert values_of(hands.compute, unseen)["hand_present_share"] == pytest.approx(37 / K)
    assert values_of(hands.compute, unseen)["hand_run_max_s"] == pytest.approx(2.6)


def test_a_robot_has_no_hands() -> None:
    assert list(hands.compute(Builder(5).view())) == []
