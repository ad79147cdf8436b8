"""Texts, labels and facts: small cases counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.curation.measurements.each import fact_certainty, label, language
from ingest.curation.measurements.english import is_english, is_placeholder, verb_of, words_of
from schemas.fact import Certainty, Fact, fact
from schemas.supervision import allowed_tasks
from tests.curation.video_corpus import Builder, values_of


@pytest.mark.parametrize(
    ("text", "words", "english"),
    [
        ("#C C picks up the cup", ["c", "c", "picks", "up", "the", "cup"], True),
        ("pick_place-food2", ["pick", "place", "food", "2"], True),
        ("don't drop it", ["don't", "drop", "it"], True),
        ("倒水", ["倒", "水"], False),
        ("nimm den Becher und stelle ihn ab", None, False),
        ("ouvrir la porte", None, False),
        ("coger el vaso", None, False),
        ("открой дверь", ["открой", "дверь"], False),
        ("blue cup", ["blue", "cup"], None),
        ("12", ["12"], None),
    ],
)
def test_words_and_language(text: str, words: list[str] | None, english: bool | None) -> None:
    assert words is None or words_of(text) == words
    assert is_english(text) is english


@pytest.mark.parametrize(
    ("word", "verb"),
    [
        *[("putting", "put"), ("carries", "carry"), ("places", "place"), ("gripped", "grip")],
        *[("closing", "close"), ("washes", "wash"), ("opened", "open"), ("ring", None)],
        *[("glass", None), ("bed", None), ("red", None), ("s", None)],
    ],
)
def test_forms_of_verbs(word: str, verb: str | None) -> None:
    assert verb_of(word) == verb


@pytest.mark.parametrize(
    "text",
    ["", "  ", "None", "n/a", "task 12", "episode_000003", "Perform the task.", "TODO", "..."],
)
def test_placeholders(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize("text", ["open", "test the button", "peel the label", "倒水", "cup"])
def test_no_placeholders(text: str) -> None:
    assert not is_placeholder(text)


def told(
    *tasks: tuple[str, int], segments: tuple[dict[str, Any], ...] = ()
) -> dict[str, float | None]:
    view = Builder(sum(count for _, count in tasks)).view(
        tasks=[text for text, _ in tasks],
        task_counts=[count for _, count in tasks],
        segments=segments,
    )
    return values_of(language.compute, view)


def test_shares_are_of_timesteps() -> None:
    """10 timesteps of five words with two of content (put, cup), 5 without an object, 5 of nothing."""
    found = told(
        ("put it on the cup", 10), ("open it", 5), ("task", 5),
        segments=({"text": "Open it!"}, {"text": "close it"}, {"text": ""}),
    )  # fmt: skip
    assert found == {
        "language_share": pytest.approx(15 / 20),
        "language_texts": 3.0,
        "language_words": pytest.approx((10 * 5 + 5 * 2) / 15),
        "language_content_share": pytest.approx((10 * 2 / 5 + 5 * 1 / 2) / 15),
        "language_verb_share": 1.0,
        "language_object_share": pytest.approx(10 / 15),
        "language_english_share": 1.0,
    }


def test_what_cannot_be_told_is_not_said() -> None:
    assert told(("", 4)) == {"language_share": 0.0, "language_texts": 0.0}
    chinese = told(("倒水", 4))
    assert chinese["language_english_share"] == 0.0
    assert "language_verb_share" not in chinese
    assert "language_english_share" not in told(("blue cup", 4))


# --- labels and facts ------------------------------------------------------------------------------------------------


def row(*stated: Fact, **more: Any) -> dict[str, Any]:
    return {"facts": [f.as_row() for f in stated], **more}


CONFLICT = fact("success_conflict", "folder and attribute", Certainty.VERIFIED, "test")
GUESSED = fact("success_rule", "some reward is positive", Certainty.INFERRED, "test")


@pytest.mark.parametrize(
    ("success", "stated", "expected"),
    [
        (None, (), {"success_conflict": 0}),
        (True, (), {"success": 1, "success_settled": 1, "success_conflict": 0}),
        (False, (GUESSED,), {"success": 0, "success_settled": 0, "success_conflict": 0}),
        (True, (CONFLICT,), {"success": 1, "success_settled": 0, "success_conflict": 1}),
    ],
)
def test_success_is_what_the_source_says(
    success: bool | None, stated: tuple[Fact, ...], expected: dict[str, int]
) -> None:
    assert values_of(label.compute, Builder(5).view(**row(*stated, success=success))) == expected


@pytest.mark.parametrize(("value", "rating"), [("7", 7.0), ("2.5", 2.5), ("good", None)])
def test_a_rating_is_kept_as_it_is(value: str, rating: float | None) -> None:
    stated = row(fact("rating", value, Certainty.CODE, "test"))
    assert values_of(label.compute, Builder(5).view(**stated)).get("rating") == rating


@pytest.mark.parametrize(("comment", "marked"), [("Failure recovery", 1.0), ("grasp", 0.0)])
def test_a_marked_recovery(comment: str, marked: float) -> None:
    text = str([{"start": 3, "end": 9, "comment": comment}])
    stated = row(fact("key_frame", text, Certainty.UNVERIFIED, "test"))
    assert values_of(label.compute, Builder(5).view(**stated))["recovery_marked"] == marked


def test_facts_that_keep_actions_from_the_policy_are_counted() -> None:
    stated = [
        fact("rate", "10", Certainty.DOCUMENTED, "test", for_actions=True),
        fact("action_kind", "?", Certainty.UNKNOWN, "test", for_actions=True),
        fact("gripper_polarity", "1 open", Certainty.INFERRED, "test", for_actions=True),
        fact("lens", "pinhole", Certainty.UNVERIFIED, "test"),
    ]
    _, limits = allowed_tasks(facts=stated, has_camera=False, action_coverage=0.0)
    found = values_of(
        fact_certainty.compute, Builder(5).view(**row(*stated, supervision_limits=list(limits)))
    )
    assert found == {
        "unsettled_action_facts": 2.0,
        "unknown_action_facts": 1.0,
        "settled_fact_share": 0.25,
    }
