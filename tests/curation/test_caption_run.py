"""`eicorpus caption` on a corpus: what gets a row, what is kept when things go wrong, what is never asked twice."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from ingest import snapshot
from ingest.corpus import Corpus, open_corpus
from ingest.curation.caption.backends import backend_for
from ingest.curation.caption.cache import Cache
from ingest.curation.caption.protocol import Segment
from ingest.curation.caption.rules_backend import RulesBackend
from ingest.curation.caption.run import CaptionTally, _results, caption_corpus
from ingest.curation.caption.settings import CaptionSettings
from ingest.curation.caption.two_pass import CaptionWork, Seen, caption_of
from ingest.curation.caption.work import is_told, segments_of
from ingest.disk import Disk
from jobs.cli import app
from schemas.errors import ConfigError
from tests.curation.fake_endpoint import Fake, endpoint
from tests.faults.runs import run as ingest
from tests.generators import egodex
from tests.ingest.video_files import write_source

# What the generated hands do by their own labels, and what a model that sees it says: checks 1 to 5 hold.
SEEN: dict[str, Any] = {
    "description": {
        "visible_hands": "both",
        "objects": ["tower of cups"],
        "events": [
            {
                "start_s": 0.0,
                "end_s": 1.0,
                "hand": "both",
                "action": "assemble and take",
                "object": "tower of cups",
            }
        ],
        "contact": "yes",
        "quality": [],
    },
    "instruction": {
        "status": "ok",
        "instruction": "Assemble and take the tower of cups.",
        "left": None,
        "right": None,
        "verb": "assemble",
        "object": "tower of cups",
        "destination": None,
        "agrees_with_source": "yes",
        "evidence_s": [0.5],
        "confidence": 0.9,
        "rephrasings": ["Build a tower of cups."],
    },
}
NUM = 3  # episodes of the generated source, each with one text


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("corpus")
    written = egodex.write(raw)
    ingest(written.root, out, source="egodex", options=dict(written.options))
    return out


@pytest.fixture
def corpus(made: Path, tmp_path: Path) -> Corpus:
    shutil.copytree(made, tmp_path / "corpus")
    return open_corpus(tmp_path / "corpus")


def settings(fake: Fake | None = None, **change: Any) -> CaptionSettings:
    quick = {"timeout_s": 5, "tries": 1, "wait_max_s": 0, "concurrency": 1}
    return CaptionSettings.model_validate(
        {
            "backend": "openai" if fake else "rules",
            "model": "tiny",
            "controls": 0,
            "consistency_share": 0,
            **change,
            "endpoint": {
                **quick,
                **({"url": fake.url} if fake else {}),
                **change.get("endpoint", {}),
            },
        }
    )


def caption(corpus: Corpus, asked: CaptionSettings, **more: Any) -> CaptionTally:
    backend = backend_for(asked, key="", cache=Cache.of(corpus, Disk()))
    current = snapshot.load(corpus.root)
    tally, _ = caption_corpus(corpus, current, backend, asked, run_id="r", disk=Disk(), **more)
    return tally


def rows_of(corpus: Corpus) -> list[dict[str, Any]]:
    rows = snapshot.load(corpus.root).read(corpus.root, "captions").to_pylist()
    return sorted(rows, key=lambda row: (row["uid"], row["start"]))


def test_rules_caption_once_and_leave_the_source_alone(corpus: Corpus) -> None:
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
    assert (row["source_text"], row["text"]) == ("Take a cup.", "take cup")
    assert row["rephrasings"] == ["grab cup"]


def test_a_model_captions_with_all_its_provenance(corpus: Corpus) -> None:
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


def test_hands_that_were_not_tracked_are_told(corpus: Corpus) -> None:
    silent = {**SEEN["description"], "visible_hands": "none"}
    with endpoint(description=silent, instruction=SEEN["instruction"]) as fake:
        tally = caption(corpus, settings(fake))
    assert tally.checks_failed == {"hand_agreement": NUM}


def test_what_fails_a_check_is_kept_and_named(corpus: Corpus) -> None:
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
def test_a_backend_may_see_nothing(corpus: Corpus, status: str) -> None:
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
    corpus: Corpus, act: str, outcome: str
) -> None:
    with endpoint(then=act) as fake:
        assert caption(corpus, settings(fake)).outcomes == {outcome: NUM}
        before = len(fake.requests)
        assert caption(corpus, settings(fake)).reached == 0  # not asked again
        assert len(fake.requests) == before
    assert rows_of(corpus)[0]["description_json"] is None


def test_more_room_asks_again_for_what_was_cut_off_and_for_nothing_else(corpus: Corpus) -> None:
    with endpoint(script=["good", "good"], then="length", **SEEN) as fake:
        caption(corpus, settings(fake))
        fake.then = "good"
        tally = caption(corpus, settings(fake, ask={"max_tokens": 1024}))
    assert (tally.captioned, tally.outcomes) == (NUM - 1, {"ok": NUM - 1})
    rows = rows_of(corpus)
    assert len(rows) == len({row["caption_id"] for row in rows}) == 2 * NUM - 1


def test_a_long_segment_is_described_sheet_by_sheet(corpus: Corpus) -> None:
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


def test_of_pictures_of_one_colour_nobody_is_asked(corpus: Corpus) -> None:
    video = next(corpus.root.rglob("*.mp4"))
    black = [np.zeros((48, 64, 3), np.uint8)] * 15
    write_source(video, black, codec="libx264", rate=Fraction(10))
    with endpoint(**SEEN) as fake:
        tally = caption(corpus, settings(fake))
    assert tally.outcomes == {"ok": NUM - 1, "unclear": 1}
    assert len(fake.requests) == 2 * (NUM - 1)
    (row,) = (row for row in rows_of(corpus) if row["outcome"] == "unclear")
    assert row["detail"] == "the pictures are of one colour"


def test_only_what_lacks_a_sound_text_may_be_asked_for(corpus: Corpus) -> None:
    with endpoint(**SEEN) as fake:
        assert caption(corpus, settings(fake, only_missing=True)).reached == 0
    found = [
        is_told(Segment(uid="u", start=0, end=9, duration_s=0.9, texts=texts))
        for texts in ((), ("take the cup",), ("倒水",), ("take the cup", "倒水"), ("reach",))
    ]
    assert found == [False, True, False, True, False]


def test_hostile_words_of_a_server_do_not_cost_the_batch(corpus: Corpus) -> None:
    with endpoint(script=["half_character"], **SEEN) as fake:
        tally = caption(corpus, settings(fake))
    assert tally.outcomes == {"blocked": 1, "ok": NUM - 1}
    assert all(row["detail"].isprintable() for row in rows_of(corpus))


def test_answers_are_kept_by_content_and_make_a_replay(corpus: Corpus, tmp_path: Path) -> None:
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


def test_a_damaged_cache_file_is_asked_for_again(corpus: Corpus) -> None:
    cache = Cache(corpus.root / "cache", Disk())
    cache.put("a" * 64, "text", {})
    assert cache.get("a" * 64) == "text"
    for damage in ("", "{", "[]", '{"key": "other", "text": "x"}', '{"text": 1}'):
        (corpus.root / "cache" / "aa" / f"{'a' * 64}.json").write_text(damage)
        assert cache.get("a" * 64) is None


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_dead_endpoint_keeps_what_there_is_and_the_next_run_does_the_rest(
    corpus: Corpus, concurrency: int
) -> None:
    change = {"endpoint": {"failures_to_stop": 1, "concurrency": concurrency}}
    with endpoint(script=["good", "good"], then="500", **SEEN) as fake:
        tally = caption(corpus, settings(fake, **change))
        kept = len(rows_of(corpus))
        assert kept == tally.captioned <= 1
        assert tally.failed >= 1
        assert "requests in a row got no answer" in tally.stopped or tally.reached == NUM
        fake.then = "good"
        assert caption(corpus, settings(fake, **change)).captioned == NUM - kept
    rows = rows_of(corpus)
    assert len(rows) == NUM == len({row["caption_id"] for row in rows})


def test_a_refusal_for_good_keeps_what_there_is(corpus: Corpus) -> None:
    refuses = pytest.raises(ConfigError, match="HTTP 401")
    with endpoint(script=["good", "good"], then="401", **SEEN) as fake, refuses:
        caption(corpus, settings(fake))
    assert len(rows_of(corpus)) == 1


def test_a_video_that_is_gone_skips_its_segment_only(corpus: Corpus) -> None:
    next(corpus.root.rglob("*.mp4")).unlink()
    with endpoint(**SEEN) as fake:
        tally = caption(corpus, settings(fake))
    assert (tally.captioned, tally.skipped) == (NUM - 1, 1)
    assert tally.reasons == {"video": 1}  # and not its place


def test_a_camera_that_is_not_there_captions_nothing(corpus: Corpus) -> None:
    with endpoint(**SEEN) as fake:
        tally = caption(corpus, settings(fake, sheet={"camera": "head"}))
    assert (tally.skipped, tally.reasons, fake.requests) == (NUM, {"no camera": NUM}, [])


def test_answers_that_change_with_the_sample_are_unclear(corpus: Corpus) -> None:
    def other(verb: str) -> str:
        return json.dumps({**SEEN["instruction"], "verb": verb, "object": verb})

    script = ["good", "good", other("pour"), other("cut")]
    with endpoint(script=script, **SEEN) as fake:
        tally = caption(corpus, settings(fake, consistency_share=1.0), limit=1)
    assert tally.outcomes == {"unclear": 1}
    assert tally.checks_failed == {"self_consistency": 1}
    assert [r["seed"] for r in fake.requests] == [0, 0, 1, 2]
    assert [r["temperature"] for r in fake.requests] == [0.3, 0.0, 0.7, 0.7]


def test_only_the_unsure_and_a_share_are_sampled(corpus: Corpus) -> None:
    unsure = {**SEEN["instruction"], "confidence": 0.2}
    with endpoint(description=SEEN["description"], instruction=unsure) as fake:
        tally = caption(corpus, settings(fake), limit=1)
    assert (tally.outcomes, len(fake.requests)) == ({"ok": 1}, 4)


def test_a_model_that_does_not_look_is_found_out(corpus: Corpus) -> None:
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


def test_a_model_that_sees_nothing_on_black_passes_its_control(corpus: Corpus) -> None:
    nothing = {**SEEN["instruction"], "status": "no_action", "instruction": ""}
    script = ["good", json.dumps(SEEN["instruction"])]
    with endpoint(script=script, description=SEEN["description"], instruction=nothing) as fake:
        tally = caption(corpus, settings(fake, controls=1), limit=1)
    assert tally.false_captions == {"black": (1, 0), "shuffled": (1, 0), "stranger": (0, 0)}
    assert not tally.run_checks()[0].has_failed  # "stranger": there is no other segment


# --- segments --------------------------------------------------------------------------------------------------------


def told(kind: str, start: int, end: int, text: str = "") -> dict[str, Any]:
    return {"kind": kind, "start": start, "end": end, "text": text}


def spans(length: int, *rows: dict[str, Any]) -> list[tuple[int, int, tuple[str, ...]]]:
    found = segments_of({"uid": "u", "length": length}, rows, 10.0, CaptionSettings())
    assert all(isinstance(one, Segment) for one in found)
    return [(one.start, one.end, one.texts) for one in found]


def test_texts_make_segments_and_the_rest_goes_into_windows() -> None:
    assert spans(20) == [(0, 20, ())]
    assert spans(9) == []  # shorter than a second, and nothing is said
    assert spans(9, told("task", 0, 9, "take cup")) == [(0, 9, ("take cup",))]
    assert spans(300) == [(0, 100, ()), (100, 200, ()), (200, 300, ())]  # 12 s at most
    assert spans(120) == [(0, 120, ())]
    odd = (told("task", 5, 5, "x"), told("task", -9, -1, "x"), told("task", 20, 900, "take cup"))
    assert spans(30, *odd) == [(0, 20, ()), (20, 30, ("take cup",))]
    rows = (
        told("valid_run", 0, 60),
        told("task", 0, 60, "grab cup"),
        told("task", 0, 60, "take cup"),
        told("task", 0, 60, "take cup"),
        told("subtask", 10, 20, "none"),
        told("summary", 0, 80, "a kitchen"),
    )
    assert spans(80, *rows) == [
        (0, 60, ("grab cup", "take cup")),
        (10, 20, ()),
        (60, 80, ()),
    ]


# --- command ---------------------------------------------------------------------------------------------------------


ASKED = ("--endpoint", "http://127.0.0.1:9/v1", "--model", "m")


def command(*words: str, **env: str) -> Result:
    return CliRunner().invoke(app, ["caption", *words], env=env)


def test_the_command_counts_captions_and_audits(corpus: Corpus, tmp_path: Path) -> None:
    at = str(corpus.root)
    assert json.loads(command(at, "--dry-run", "--json").stdout)["to_do"] == NUM
    found = command(at, "--json", "--limit", "2")
    told = json.loads(found.stdout)
    assert (found.exit_code, told["captioned"], told["left"]) == (0, 2, 1)
    assert command(at).exit_code == 0
    found = command(at, "--audit", str(tmp_path / "audit"))
    assert found.exit_code == 0, found.output
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert page.count("data:image/jpeg") == NUM
    csv = tmp_path / "audit" / "audit.csv"
    csv.write_text(csv.read_text().replace(",\n", ",yes\n"))
    found = command(at, "--audited", str(csv), "--json")
    assert json.loads(found.stdout)["why"].startswith(f"{NUM} of {NUM} correct")
    assert found.exit_code == 1  # three of three are not yet four fifths
    found = command(at, "--audit", str(tmp_path / "b"), "--backend", "replay", "--json")
    assert json.loads(found.stdout)["captions"] == 0  # of that backend there are none
    told = command(at, "--only-missing", "--dry-run", "--json", "--backend", "openai", *ASKED)
    assert json.loads(told.stdout)["to_do"] == 0
    inside = command(at, "--audit", str(corpus.root / "x"))
    assert isinstance(inside.exception, ConfigError)


def test_the_command_fails_with_a_dead_endpoint_and_never_shows_the_key(
    corpus: Corpus, tmp_path: Path
) -> None:
    with endpoint(then="echo") as fake:
        recipe = tmp_path / "caption.yaml"
        recipe.write_text(
            f"backend: openai\nmodel: tiny\nendpoint: {{url: '{fake.url}', api_key_env: MY_KEY, tries: 1, failures_to_stop: 1, concurrency: 1}}\n"
        )
        found = command(str(corpus.root), "--recipe", str(recipe), "--json", MY_KEY="s3cret")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["stopped"]
    assert "s3cret" not in found.output
    assert fake.headers[0]["Authorization"] == "Bearer s3cret"
    assert not any(b"s3cret" in p.read_bytes() for p in corpus.root.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backend", "openai"], "needs --model"),
        (["--backend", "openai", "--model", "m"], "needs --endpoint URL; there is no default"),
        (["--backend", "replay"], "needs --replay FILE"),
        (["--backend", "replay", "--replay", "absent.jsonl"], "no replay file"),
        (["--backend", "transformers", "--model", "absent"], "no model here"),
        (["--backend", "gpt"], "backend: Input should be"),
        (["--recipe", "absent.yaml"], "cannot be read"),
    ],
)
def test_what_is_not_said_is_asked_for(corpus: Corpus, words: list[str], message: str) -> None:
    found = command(
        str(corpus.root), *words, EICORPUS_CAPTION_ENDPOINT="", EICORPUS_CAPTION_MODEL=""
    )
    assert isinstance(found.exception, ConfigError)
    assert message in str(found.exception)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "expected fields"),
        ("endpoint: x", "expected fields"),
        ("a: {", "no YAML"),
        ("api_key: abc", "api_key: Extra inputs"),
        ("sheet: {max_frames: 1000}", "sheet.max_frames"),
        (
            "{backend: openai, model: m, endpoint: {url: 'http://127.0.0.1:9', api_key_env: NO_SUCH}}",
            "NO_SUCH",
        ),
    ],
)
def test_a_wrong_recipe_is_named(corpus: Corpus, tmp_path: Path, text: str, message: str) -> None:
    recipe = tmp_path / "caption.yaml"
    recipe.write_text(text)
    found = command(str(corpus.root), "--recipe", str(recipe))
    assert isinstance(found.exception, ConfigError)
    assert message in str(found.exception)


def test_a_line_that_is_no_record_is_named(corpus: Corpus, tmp_path: Path) -> None:
    replay = tmp_path / "replay.jsonl"
    good = {"uid": "u", "start": 0, "end": 1, "pass": "describe", "text": "{}"}
    replay.write_text(f"{json.dumps(good)}\n\n{{}}\n")
    found = command(str(corpus.root), "--backend", "replay", "--replay", str(replay))
    assert "line 3: uid: Field required" in str(found.exception)


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


@pytest.mark.slow
def test_an_interrupt_is_heard_while_a_server_is_silent(corpus: Corpus, tmp_path: Path) -> None:
    told = "endpoint: {timeout_s: 60}\n"
    (tmp_path / "caption.yaml").write_text(told)
    words = ("--backend", "openai", "--model", "m", "--recipe", str(tmp_path / "caption.yaml"))
    with endpoint(then="hang") as fake:
        code = (
            "import sys; from jobs.cli import main; sys.argv = ['eicorpus', *sys.argv[1:]]; main()"
        )
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                code,
                "caption",
                str(corpus.root),
                *words,
                "--endpoint",
                fake.url,
            ]
        )
        fake.wait_for(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
