"""The ledger: what was tried and how it ended, append-only, one JSONL file a run. Attempts are written BEFORE the work.

It is bookkeeping for the driver, not the truth about what is in the corpus: that is the snapshot.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ingest.storage.local import LocalStorage
from schemas.errors import Code, ConfigError, SourceError
from schemas.json_text import JsonLimits, parse_json
from schemas.outcome import Outcome, State, WorkerFailure
from schemas.regular_file import lines_of_regular

MAX_BYTES = (
    16 << 30
)  # of one run: 10^7 episodes, each with two attempts and a long message, have 10 GB
EVENT_LIMITS = JsonLimits(max_bytes=1 << 24, max_elements=100)

# Codes of episodes that take a worker with them: not tried again unless asked.
POISON = frozenset(
    {
        *(Code.WORKER_DIED.value, Code.TIME_LIMIT.value, Code.OUT_OF_MEMORY.value),
        *(Code.OOM_KILLED.value, Code.NODE_MEMORY_FULL.value),
        *(Code.NODE_LOST.value, Code.NODE_PREEMPTED.value),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What earlier runs on this corpus found out, by episode uid.

    An attempt without an end is a stopped driver, not a poisonous episode: only deaths that a driver SAW count.
    """

    poisoned: dict[str, tuple[str, str]] = field(default_factory=dict)  # uid -> (code, message)


def read_history(folder: Path) -> History:
    """Sum up all runs. A last line cut short by a kill is ignored: its event had not happened yet.

    Raises:
        ConfigError: a file is larger than any run writes.
    """
    history = History()
    for path in sorted(folder.glob("*.jsonl")):
        for event in _events(path, history.poisoned):
            if event["code"] in POISON:
                history.poisoned[event["uid"]] = (event["code"], event["message"])
            else:
                history.poisoned.pop(event["uid"], None)
    return history


# Of the lines that `Ledger` writes: what it is, and of which episode.
_START = re.compile(rb'\{"event": "([a-z]+)", "uid": "([^"\\]*)", ')
_POISON = re.compile(b"|".join(code.encode() for code in sorted(POISON)))


def _changes_nothing(line: bytes, poisoned: Mapping[str, tuple[str, str]]) -> bool:
    """Whether a line is plainly an attempt, or the end of an episode that took no worker with it: nearly all are, and are not parsed."""
    start = _START.match(line)
    if start is None or line.count(b'"uid": ') != 1 or line.count(b'"event": ') != 1:
        return False
    if start[1] != b"end":
        return True
    return _POISON.search(line) is None and start[2].decode(errors="replace") not in poisoned


def _events(path: Path, poisoned: Mapping[str, tuple[str, str]]) -> Iterator[dict[str, str]]:
    """Events of one run that end an episode, each with its uid, code and message; without most that change nothing."""
    for line in lines_of_log(path):
        if _changes_nothing(line, poisoned):
            continue
        # A damaged line must not stop a run: at worst its episode is tried once more. What lacks its newline was never finished.
        with suppress(ValueError):
            event: Any = parse_json(line, limits=EVENT_LIMITS) if line.endswith(b"\n") else None
            if _is_end(event):
                yield event


def lines_of_log(path: Path) -> Iterator[bytes]:
    """The lines of a list of a past run, one in memory at a time.

    Raises:
        ConfigError: it cannot be read, or is larger than any run writes.
    """
    try:
        yield from lines_of_regular(
            path, max_bytes=MAX_BYTES, max_line_bytes=EVENT_LIMITS.max_bytes
        )
    except SourceError as error:
        remedy = "no eicorpus run wrote this file; move it out of the corpus"
        raise ConfigError(error.message, remedy=remedy, where=str(path)) from error


def _is_end(event: Any) -> bool:
    return (
        isinstance(event, dict)
        and event.get("event") == "end"
        and all(isinstance(event.get(name), str) for name in ("uid", "code", "message"))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndFacts:
    """What the line of an episode's end has beside its result."""

    source: str
    dataset: str
    node: str
    seconds: float  # in its worker, the last attempt
    attempt: int
    video_bytes: int  # that were stored


_FACTS = tuple(each.name for each in fields(EndFacts))


def _facts_of(facts: EndFacts | None) -> dict[str, Any]:
    return {} if facts is None else {name: getattr(facts, name) for name in _FACTS}


class Ledger:
    """Writes one run's events."""

    def __init__(self, disk: LocalStorage, folder: Path, run_id: str) -> None:
        disk.make_dir(folder)
        self._disk, self._path = disk, folder / f"{run_id}.jsonl"

    def attempts(self, numbers: Mapping[str, int]) -> None:
        """Attempts that are about to begin, by uid: one append for all of them."""
        self._append(*({"event": "attempt", "uid": uid, "number": n} for uid, n in numbers.items()))

    def death(self, uid: str, death: WorkerFailure) -> None:
        event = {"event": "death", "uid": uid, "code": death.code.value, "message": death.how}
        self._append(event | ({"node": death.node} if death.node else {}))

    def ends(
        self, outcomes: Iterable[tuple[Outcome, State]], facts: Mapping[str, EndFacts] | None = None
    ) -> None:
        """How episodes ended, written when that is lasting: one append for a whole batch.

        Args:
            facts: by uid.
        """
        known = facts or {}
        events = [
            {
                "event": "end",
                "uid": outcome.uid,
                "state": state.value,
                "code": outcome.code,
                "message": outcome.message,
                **_facts_of(known.get(outcome.uid)),
            }
            for outcome, state in outcomes
        ]
        self._append(*events)

    def _append(self, *events: dict[str, Any]) -> None:
        if not events:
            return
        text = "".join(json.dumps(event) + "\n" for event in events)
        self._disk.append(self._path, text.encode())
