"""Answers are kept by content: nobody is asked twice, and what an endpoint gave before it died is not lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ingest.corpus.layout import CorpusLayout, open_corpus
from ingest.curation.captions.cache import Cache
from ingest.storage.local import LocalStorage
from schemas.errors import ConfigError
from tests.curation.caption.cases import NUM, SEEN, caption, rows_of, settings
from tests.curation.caption.fake_endpoint import endpoint


def test_more_room_asks_again_for_what_was_cut_off_and_for_nothing_else(
    corpus: CorpusLayout,
) -> None:
    with endpoint(script=["good", "good"], then="length", **SEEN) as fake:
        caption(corpus, settings(fake))
        fake.then = "good"
        tally = caption(corpus, settings(fake, ask={"max_tokens": 1024}))
    assert (tally.captioned, tally.outcomes) == (NUM - 1, {"ok": NUM - 1})
    rows = rows_of(corpus)
    assert len(rows) == len({row["caption_id"] for row in rows}) == 2 * NUM - 1


def test_answers_are_kept_by_content_and_make_a_replay(
    corpus: CorpusLayout, tmp_path: Path
) -> None:
    fresh = tmp_path / "fresh"
    shutil.copytree(corpus.root, fresh)
    with endpoint(**SEEN) as fake:
        caption(corpus, settings(fake))
        assert len(fake.requests) == 2 * NUM
        shutil.copytree(corpus.root / "cache", fresh / "cache")
        tally = caption(open_corpus(fresh), settings(fake))
        assert len(fake.requests) == 2 * NUM  # nobody was asked
        assert tally.cached == NUM
        caption(open_corpus(fresh), settings(fake, model="other"))
        assert len(fake.requests) == 4 * NUM  # but another model is
    lines = [path.read_text() for path in sorted((corpus.root / "cache").rglob("*.json"))]
    replay = tmp_path / "replay.jsonl"
    replay.write_text("".join(lines))
    tally = caption(corpus, settings(backend="replay", replay_file=str(replay)))
    assert tally.captioned == NUM
    rows = rows_of(corpus)
    assert len({row["text"] for row in rows}) == 1
    assert {row["backend"] for row in rows} == {"openai", "replay"}
    replay.write_text(lines[0])
    tally = caption(corpus, settings(backend="replay", replay_file=str(replay)))
    assert (tally.captioned, tally.skipped) == (0, NUM)  # another file captions anew


def test_a_damaged_cache_file_is_asked_for_again(corpus: CorpusLayout) -> None:
    cache = Cache(corpus.root / "cache", LocalStorage())
    cache.put("a" * 64, "text", {})
    assert cache.get("a" * 64) == "text"
    for damage in ("", "{", "[]", '{"key": "other", "text": "x"}', '{"text": 1}'):
        (corpus.root / "cache" / "aa" / f"{'a' * 64}.json").write_text(damage)
        assert cache.get("a" * 64) is None


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_dead_endpoint_keeps_what_there_is_and_the_next_run_does_the_rest(
    corpus: CorpusLayout, concurrency: int
) -> None:
    change = {"endpoint": {"failures_to_stop": 1, "concurrency": concurrency}}
    with endpoint(script=["good", "good"], then="500", **SEEN) as fake:
        tally = caption(corpus, settings(fake, **change))
        kept = len(rows_of(corpus))
        assert kept == tally.captioned <= 1
        assert tally.failed >= 1
        assert "requests in a row failed" in tally.stopped or tally.reached == NUM
        fake.then = "good"
        assert caption(corpus, settings(fake, **change)).captioned == NUM - kept
    rows = rows_of(corpus)
    assert len(rows) == NUM == len({row["caption_id"] for row in rows})


def test_a_refusal_for_good_keeps_what_there_is(corpus: CorpusLayout) -> None:
    refuses = pytest.raises(ConfigError, match="HTTP 401")
    with endpoint(script=["good", "good"], then="401", **SEEN) as fake, refuses:
        caption(corpus, settings(fake))
    assert len(rows_of(corpus)) == 1
