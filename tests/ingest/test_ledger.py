"""The ledger: attempts before the work, ends after it, and a torn last line that never happened."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.corpus.erasure import scrub_logs
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.ledger import EVENT_LIMITS, EndFacts, Ledger, read_history
from ingest.storage.local import LocalStorage
from schemas.errors import Code, ConfigError
from schemas.outcome import Outcome, State, WorkerFailure

DIED = Outcome(uid="b", state=State.QUARANTINED, code="worker_died", message="SIGSEGV")
FINE = Outcome(uid="b", state=State.FILTERED, code="too_short")


def ledger(folder: Path, run_id: str) -> Ledger:
    return Ledger(LocalStorage(), folder, run_id)


def events(folder: Path, run_id: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / f"{run_id}.jsonl").read_text().splitlines()]


def test_events_by_hand(tmp_path: Path) -> None:
    book = ledger(tmp_path / "ledger", "r1")
    book.attempts({"b": 1})
    book.death("b", WorkerFailure(code=Code.WORKER_DIED, how="SIGSEGV"))
    book.ends([(DIED, State.QUARANTINED)])
    book.ends([])
    assert events(tmp_path / "ledger", "r1") == [
        {"event": "attempt", "uid": "b", "number": 1},
        {"event": "death", "uid": "b", "code": "worker_died", "message": "SIGSEGV"},
        {
            "event": "end",
            "uid": "b",
            "state": "quarantined",
            "code": "worker_died",
            "message": "SIGSEGV",
        },
    ]


def test_the_end_of_an_episode_is_one_line_with_where_and_how_long(tmp_path: Path) -> None:
    facts = EndFacts(
        source="droid", dataset="droid_100", node="w1 (10.0.0.1, ab12)", seconds=1.5, attempt=2, video_bytes=77
    )  # fmt: skip
    book = ledger(tmp_path, "r1")
    book.ends([(DIED, State.QUARANTINED), (replace(FINE, uid="c"), State.FILTERED)], {"b": facts})
    [line, plain] = events(tmp_path, "r1")
    assert line == {
        "event": "end",
        "uid": "b",
        "state": "quarantined",
        "code": "worker_died",
        "message": "SIGSEGV",
        "source": "droid",
        "dataset": "droid_100",
        "node": "w1 (10.0.0.1, ab12)",
        "seconds": 1.5,
        "attempt": 2,
        "video_bytes": 77,
    }
    assert "node" not in plain
    assert read_history(tmp_path).poisoned == {"b": ("worker_died", "SIGSEGV")}


def test_a_death_names_its_node(tmp_path: Path) -> None:
    death = WorkerFailure(code=Code.NODE_LOST, how="gone", node_lost=True, node="w1")
    ledger(tmp_path, "r1").death("b", death)
    assert [event["node"] for event in events(tmp_path, "r1")] == ["w1"]


def test_what_took_a_worker_with_it_is_remembered(tmp_path: Path) -> None:
    ledger(tmp_path, "r1").ends([(DIED, State.QUARANTINED)])
    assert read_history(tmp_path).poisoned == {"b": ("worker_died", "SIGSEGV")}
    ledger(tmp_path, "r2").ends([(FINE, State.FILTERED)])  # mended since
    assert read_history(tmp_path).poisoned == {}


def test_every_deadly_code_is_remembered_and_no_other(tmp_path: Path) -> None:
    for code in Code:
        outcome = Outcome(uid=code.value, state=State.QUARANTINED, code=code.value)
        ledger(tmp_path, "r1").ends([(outcome, State.QUARANTINED)])
    assert set(read_history(tmp_path).poisoned) == {
        "worker_died",
        "time_limit",
        "out_of_memory",
        "oom_killed",
        "node_memory_full",
        "node_lost",
        "node_preempted",
    }


def test_a_stopped_driver_is_not_a_poisonous_episode(tmp_path: Path) -> None:
    """An attempt, or even a death, without an end: the driver stopped before it decided."""
    book = ledger(tmp_path, "r1")
    book.attempts({"b": 1})
    book.death("b", WorkerFailure(code=Code.WORKER_DIED, how="SIGKILL"))
    assert read_history(tmp_path).poisoned == {}


def test_a_torn_last_line_never_happened(tmp_path: Path) -> None:
    ledger(tmp_path, "r1").ends([(DIED, State.QUARANTINED)])
    path = tmp_path / "r1.jsonl"
    whole = path.read_text()
    for size in range(len(whole)):
        path.write_text(whole[:size])
        assert read_history(tmp_path).poisoned == {}
    assert read_history(tmp_path / "nowhere").poisoned == {}


def test_lines_that_no_ledger_wrote_are_passed_over(tmp_path: Path) -> None:
    """A corpus of a stranger, or a damaged disk: no text, no object, no uid, a number for a code."""
    book = ledger(tmp_path, "r1")
    book.ends([(DIED, State.QUARANTINED)])
    strange = [b"\xff\xfe", b"[]", b"7", b'{"event": "end"}', b'{"event": "end", "uid": 1}', b"{}"]
    code = b'{"event": "end", "uid": "c", "code": [], "message": ""}'
    with (tmp_path / "r1.jsonl").open("ab") as file:
        file.write(b"\n".join([*strange, code]) + b"\n")
    book.ends([(FINE, State.FILTERED)])
    assert read_history(tmp_path).poisoned == {}
    (tmp_path / "r2.jsonl").write_bytes(
        (tmp_path / "r1.jsonl").read_bytes().split(b"\n")[0] + b"\n"
    )
    assert read_history(tmp_path).poisoned == {"b": ("worker_died", "SIGSEGV")}


@pytest.mark.parametrize("num_bytes", [300 << 30, EVENT_LIMITS.max_bytes + 1])
def test_what_is_larger_than_any_run_writes_is_named_and_not_held(
    tmp_path: Path, num_bytes: int
) -> None:
    """Of zeros that take no room on the disk: 300 GB of them, and a line that has no end."""
    ledger(tmp_path / "ledger", "r1").ends([(DIED, State.QUARANTINED)])
    path = tmp_path / "ledger" / "zz.jsonl"
    path.touch()
    os.truncate(path, num_bytes)
    for read in (
        lambda: read_history(path.parent),
        lambda: scrub_logs(CorpusLayout(tmp_path), LocalStorage(tmp_path), {"b"}),
    ):
        with pytest.raises(ConfigError, match=r"zz\.jsonl.*move it out"):
            read()


def test_lines_of_an_erased_episode_go_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    lines = [b'{"uid": "%s"}\n' % (uid * 36) for uid in (b"a", b"b", b"c")]
    for name, content in (("r1", [*lines, b"\xff\n", b'{"ui']), ("r2", lines[1:])):
        (tmp_path / "ledger" / f"{name}.jsonl").write_bytes(b"".join(content))
    scrub_logs(CorpusLayout(tmp_path), LocalStorage(tmp_path), {"a" * 36})
    left = [path.read_bytes() for path in sorted((tmp_path / "ledger").iterdir())]
    assert left == [b"".join([*lines[1:], b"\xff\n", b'{"ui']), b"".join(lines[1:])]
