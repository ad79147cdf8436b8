"""Captions of a corpus: what gets a row and what is in it, whatever the model or the pictures do."""

from __future__ import annotations

import json
import threading
from fractions import Fraction

import numpy as np
import pytest

from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.curation.captions.describe_then_summarize import CaptionWork, Seen, caption_of
from ingest.curation.captions.offline_backends import RulesBackend
from ingest.curation.captions.protocol import Segment
from ingest.curation.captions.run import _results
from ingest.curation.captions.settings import CaptionSettings
from ingest.curation.captions.work import is_told
from tests.curation.caption.cases import NUM, SEEN, caption, rows_of, settings
from tests.curation.caption.fake_endpoint import endpoint
from tests.ingest.video_files import write_source


def test_rules_caption_once_and_leave_the_source_alone(corpus: CorpusLayout) -> None:
    before = snapshot.load(corpus.root)
    assert caption(corpus, settings()).captioned == NUM
    rows = rows_of(corpus)
    pairs = {(row["source_text"], row["text"]) for row in rows}
    assert pairs == {
        ("Assemble the tower of cups.", "assemble tower of cups"),
        ("Take the tower of cups apart.", "take tower of cups apart"),
    }
    assert {row["backend"] for row in rows} == {"rules"}
    assert all(row["checks_failed"] == [] and row["latency_s"] is None for row in rows)
    again = caption(corpus, settings())
    assert (again.reached, again.captioned) == (0, 0)
    after = snapshot.load(corpus.root)
    assert after.number == before.number + 1
    for table in ("segments", "episodes"):
        assert after.parts(table) == before.parts(table)


def test_the_source_text_of_a_row_is_the_one_that_a_timestep_has() -> None:
    segment = Segment(uid="u", start=0, end=9, duration_s=0.9, texts=("grab cup", "Take a cup."))
    work = CaptionWork(corpus="", row={}, features={}, rate_hz=10.0, segment=segment)
    row = caption_of(work, Seen(), RulesBackend(), CaptionSettings(), "r").row
    assert row is not None
    assert (row.source_text, row.text) == ("Take a cup.", "take cup")
    assert row.rephrasings == ["grab cup"]


def test_a_model_captions_with_all_its_provenance(corpus: CorpusLayout) -> None:
    with endpoint(**SEEN) as fake:
        tally = caption(corpus, settings(fake, endpoint={"concurrency": 3}))
    assert (tally.captioned, tally.outcomes) == (NUM, {"ok": NUM})
    assert tally.checks_failed == {}
    row = rows_of(corpus)[0]
    assert row["text"] == "assemble and take the tower of cups"
    assert row["rephrasings"] == ["build a tower of cups"]
    assert (row["backend"], row["model"], row["prompt_version"]) == ("openai", "tiny", "1")
    assert (row["camera"], row["frames_s"][0], row["language"]) == ("ego", 0.0, "en")
    assert (row["start"], row["end"], row["frames_s"][-1]) == (0, 15, 1.4)
    assert json.loads(row["description_json"])["objects"] == ["tower of cups"]
    assert row["latency_s"] >= 0
    assert {len(row[name]) for name in ("prompt_sha256", "sheet_sha256", "cache_key")} == {64}
    assert "hand_agreement" not in row["checks_silent"]  # the tracked hands were compared


def test_hands_that_were_not_tracked_are_told(corpus: CorpusLayout) -> None:
    silent = {**SEEN["description"], "visible_hands": "none"}
    with endpoint(description=silent, instruction=SEEN["instruction"]) as fake:
        tally = caption(corpus, settings(fake))
    assert tally.checks_failed == {"hand_agreement": NUM}


def test_what_fails_a_check_is_kept_and_named(corpus: CorpusLayout) -> None:
    wrong = {
        **SEEN["instruction"],
        "instruction": "pour the milk",
        "verb": "pour",
        "object": "milk",
    }
    with endpoint(description=SEEN["description"], instruction=wrong) as fake:
        caption(corpus, settings(fake))
    row = rows_of(corpus)[0]
    assert row["outcome"] == "ok"
    assert row["checks_failed"] == ["cross_pass", "source_agreement"]
    assert "unsupported_object: 'milk'" in row["detail"]


@pytest.mark.parametrize("status", ["no_action", "unclear"])
def test_a_backend_may_see_nothing(corpus: CorpusLayout, status: str) -> None:
    empty = {**SEEN["instruction"], "status": status, "instruction": "", "verb": "", "object": ""}
    with endpoint(description=SEEN["description"], instruction=empty) as fake:
        assert caption(corpus, settings(fake)).outcomes == {status: NUM}
    row = rows_of(corpus)[0]
    assert (row["text"], row["checks_failed"]) == ("", [])


@pytest.mark.parametrize(
    ("act", "outcome"),
    [("wrong_schema", "parse_error"), ("length", "truncated"), ("sorry", "blocked")],
)
def test_an_ending_without_an_answer_is_an_answer_too(
    corpus: CorpusLayout, act: str, outcome: str
) -> None:
    with endpoint(then=act) as fake:
        assert caption(corpus, settings(fake)).outcomes == {outcome: NUM}
        before = len(fake.requests)
        assert caption(corpus, settings(fake)).reached == 0  # not asked again
        assert len(fake.requests) == before
    assert rows_of(corpus)[0]["description_json"] is None


def test_a_long_segment_is_described_sheet_by_sheet(corpus: CorpusLayout) -> None:
    sheets = {"max_frames": 4, "max_sheets": 2, "rate_hz": 10}
    with endpoint(**SEEN) as fake:
        caption(corpus, settings(fake, sheet=sheets), limit=1)
    texts = [r["messages"][1]["content"] for r in fake.requests]
    assert [isinstance(text, list) for text in texts] == [True, True, False]
    assert "printed in its corner: 0.0, 0.2, 0.4, 0.6." in texts[0][1]["text"]
    assert "printed in its corner: 0.8, 1.0, 1.2, 1.4." in texts[1][1]["text"]
    assert texts[2].count('"end_s":1.0') == 2  # what both sheets showed
    row = rows_of(corpus)[0]
    assert row["frames_s"] == pytest.approx([0.2 * k for k in range(8)])
    lines = [p.read_text() for p in sorted((corpus.root / "cache").rglob("*.json"))]
    assert sorted((one["pass"], one["part"]) for one in map(json.loads, lines)) == [
        *(("describe", 0), ("describe", 1), ("instruct", 0))
    ]
    again = corpus.root.parent / "replay.jsonl"
    again.write_text("".join(lines))
    asked = settings(backend="replay", replay_file=str(again), sheet=sheets)
    assert caption(corpus, asked).captioned == 1


def test_of_pictures_of_one_colour_nobody_is_asked(corpus: CorpusLayout) -> None:
    video = next(corpus.root.rglob("*.mp4"))
    black = [np.zeros((48, 64, 3), np.uint8)] * 15
    write_source(video, black, codec="libx264", rate=Fraction(10))
    with endpoint(**SEEN) as fake:
        tally = caption(corpus, settings(fake))
    assert tally.outcomes == {"ok": NUM - 1, "unclear": 1}
    assert len(fake.requests) == 2 * (NUM - 1)
    (row,) = (row for row in rows_of(corpus) if row["outcome"] == "unclear")
    assert row["detail"] == "the pictures are of one colour"


def test_only_what_lacks_a_sound_text_may_be_asked_for(corpus: CorpusLayout) -> None:
    with endpoint(**SEEN) as fake:
        assert caption(corpus, settings(fake, only_missing=True)).reached == 0
    found = [
        is_told(Segment(uid="u", start=0, end=9, duration_s=0.9, texts=texts))
        for texts in ((), ("take the cup",), ("倒水",), ("take the cup", "倒水"), ("reach",))
    ]
    assert found == [False, True, False, True, False]


def test_hostile_words_of_a_server_do_not_cost_the_batch(corpus: CorpusLayout) -> None:
    with endpoint(script=["half_character"], **SEEN) as fake:
        tally = caption(corpus, settings(fake))
    assert tally.outcomes == {"transport_error": 1, "ok": NUM - 1}  # half a character is no JSON
    assert all(row["detail"].isprintable() for row in rows_of(corpus))


def test_a_video_that_is_gone_skips_its_segment_only(corpus: CorpusLayout) -> None:
    next(corpus.root.rglob("*.mp4")).unlink()
    with endpoint(**SEEN) as fake:
        tally = caption(corpus, settings(fake))
    assert (tally.captioned, tally.skipped) == (NUM - 1, 1)
    assert tally.reasons == {"video": 1}  # and not its place


def test_a_camera_that_is_not_there_captions_nothing(corpus: CorpusLayout) -> None:
    with endpoint(**SEEN) as fake:
        tally = caption(corpus, settings(fake, sheet={"camera": "head"}))
    assert (tally.skipped, tally.reasons, fake.requests) == (NUM, {"no camera": NUM}, [])


def test_who_leaves_early_stops_those_who_wait() -> None:
    free = threading.Event()

    def body(work: int) -> int:
        if work:
            assert free.wait(10)
        return work

    found = _results(iter(range(9)), body, 3, free.set)
    assert next(found) == (0, 0)
    found.close()
    assert free.is_set()
    free.clear()
    ended = _results(iter([0]), body, 3, free.set)
    assert list(ended) == [(0, 0)]
    assert not free.is_set()
