"""Outcomes cross processes as JSON and as pickles; the order of keys is part of `meta/` and must survive."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any

import pytest

from schemas.catalog import ADDED_COLUMNS
from schemas.catalog_rows import (
    PLACE,
    EpisodeFacts,
    MeasurementRow,
    SegmentRow,
    columns_of,
)
from schemas.outcome import Outcome, StagedEpisode, State
from tests.pickling import travelled


def staged() -> StagedEpisode:
    ordered: dict[str, Any] = {"z": [1], "a": {"max": [0.1], "min": [1 / 3]}, "m": None, "倒": True}
    given: dict[str, Any] = {f.name: ordered for f in fields(StagedEpisode)}
    given |= {"group": "datasets/toy/umi.0", "robot_type": "umi", "spec": [["left.position_m", 3]]}
    given["videos"] = [ordered, ordered]
    given["episode"] = EpisodeFacts(**dict.fromkeys(columns_of(EpisodeFacts)) | {"uid": "u"})
    segment = SegmentRow(**dict.fromkeys(columns_of(SegmentRow)) | {"uid": "u", "text": "倒"})
    value = MeasurementRow(
        **dict.fromkeys(columns_of(MeasurementRow)) | {"value": 1 / 3, "uid": "u"}
    )
    given |= {"segments": [segment, segment], "measurements": [value]}
    return StagedEpisode(**given)


OUTCOMES = {
    "staged": Outcome(uid="u", state=State.STAGED, num_frames=7, video_s=0.7, staged=staged()),
    "filtered": Outcome(uid="u", state=State.FILTERED, code="too_short", message="1 timestep"),
    "quarantined": Outcome(uid="u", state=State.QUARANTINED, code="truncated", message="a: b"),
    "failed": Outcome(uid="u", state=State.FAILED, code="io_error"),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_json_and_pickle_give_the_same_outcome(name: str) -> None:
    outcome = OUTCOMES[name]
    assert outcome.to_json() == json.dumps(asdict(outcome))
    back = Outcome.from_json(outcome.to_json())
    assert back == outcome
    assert back.state is outcome.state
    assert travelled(outcome) == outcome


def test_what_an_older_version_staged_is_read() -> None:
    """It had NULL for the place, no uid in other rows, and not the columns that came later."""
    raw = json.loads(OUTCOMES["staged"].to_json())
    older = raw["staged"]["episode"] | dict.fromkeys(PLACE)
    raw["staged"]["episode"] = {
        n: v for n, v in older.items() if n not in ADDED_COLUMNS["episodes"]
    }
    for row in (*raw["staged"]["segments"], *raw["staged"]["measurements"]):
        del row["uid"]
    assert Outcome.from_json(json.dumps(raw)) == OUTCOMES["staged"]


def test_json_keeps_the_order_of_keys() -> None:
    back = Outcome.from_json(OUTCOMES["staged"].to_json()).staged
    assert back is not None
    assert list(back.features) == ["z", "a", "m", "倒"]
    assert list(back.features["a"]) == ["max", "min"]
    assert back.features["a"]["min"] == [1 / 3]  # to the last bit


def test_nan_cannot_hide_in_an_outcome() -> None:
    with pytest.raises(ValueError, match="JSON"):
        Outcome(uid="u", state=State.FAILED, code="x", video_s=float("nan")).to_json()


@pytest.mark.parametrize("state", [State.FILTERED, State.QUARANTINED, State.FAILED])
def test_what_is_left_out_has_a_code(state: State) -> None:
    with pytest.raises(ValueError, match="code"):
        Outcome(uid="u", state=state)


@pytest.mark.parametrize("state", set(State) - {State.STAGED})
def test_only_staged_outcomes_carry_an_episode(state: State) -> None:
    with pytest.raises(ValueError, match="staged"):
        Outcome(uid="u", state=state, code="x", staged=staged())


def test_a_staged_outcome_carries_one() -> None:
    with pytest.raises(ValueError, match="staged"):
        Outcome(uid="u", state=State.STAGED)


def test_a_worker_of_another_version_is_noticed() -> None:
    raw = json.loads(OUTCOMES["failed"].to_json()) | {"mood": "good"}
    with pytest.raises(TypeError, match="mood"):
        Outcome.from_json(json.dumps(raw))
