"""A model that is unsure is asked again, and one that does not look is found out."""

from __future__ import annotations

import json

from ingest.corpus.layout import CorpusLayout
from tests.curation.caption.cases import NUM, SEEN, caption, rows_of, settings
from tests.curation.caption.fake_endpoint import endpoint


def test_answers_that_change_with_the_sample_are_unclear(corpus: CorpusLayout) -> None:
    def other(verb: str) -> str:
        return json.dumps({**SEEN["instruction"], "verb": verb, "object": verb})

    script = ["good", "good", other("pour"), other("cut")]
    with endpoint(script=script, **SEEN) as fake:
        tally = caption(corpus, settings(fake, consistency_share=1.0), limit=1)
    assert tally.outcomes == {"unclear": 1}
    assert tally.checks_failed == {"self_consistency": 1}
    assert [r["seed"] for r in fake.requests] == [0, 0, 1, 2]
    assert [r["temperature"] for r in fake.requests] == [0.3, 0.0, 0.7, 0.7]


def test_only_the_unsure_and_a_share_are_sampled(corpus: CorpusLayout) -> None:
    unsure = {**SEEN["instruction"], "confidence": 0.2}
    with endpoint(description=SEEN["description"], instruction=unsure) as fake:
        tally = caption(corpus, settings(fake), limit=1)
    assert (tally.outcomes, len(fake.requests)) == ({"ok": 1}, 4)


def test_a_model_that_does_not_look_is_found_out(corpus: CorpusLayout) -> None:
    """It says the same whatever it is shown, black pictures too."""
    with endpoint(**SEEN) as fake:
        tally = caption(corpus, settings(fake, controls=2))
        assert len(fake.requests) > 2 * NUM
    assert tally.false_captions["black"] == (2, 2)
    deaf = {**SEEN["instruction"], "object": "moon"}  # fails its checks, and is still made up
    with endpoint(description=SEEN["description"], instruction=deaf) as fake:
        tally = caption(corpus, settings(fake, controls=2, model="other"))
    assert tally.false_captions == {"black": (2, 2), "shuffled": (2, 0), "stranger": (2, 0)}
    (found, *_) = tally.run_checks()
    assert found.name == "negative_controls"
    assert found.has_failed
    assert len(rows_of(corpus)) == 2 * NUM  # controls leave no rows


def test_a_model_that_sees_nothing_on_black_passes_its_control(corpus: CorpusLayout) -> None:
    nothing = {**SEEN["instruction"], "status": "no_action", "instruction": ""}
    script = ["good", json.dumps(SEEN["instruction"])]
    with endpoint(script=script, description=SEEN["description"], instruction=nothing) as fake:
        tally = caption(corpus, settings(fake, controls=1), limit=1)
    assert tally.false_captions == {"black": (1, 0), "shuffled": (1, 0), "stranger": (0, 0)}
    assert not tally.run_checks()[0].has_failed  # "stranger": there is no other segment
