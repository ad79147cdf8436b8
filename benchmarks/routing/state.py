"""What is done already: one JSON file in the run's folder, replaced whole after every step, so that a run may be killed at any time."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError

STATE = "state.json"
Answer = dict[str, Any]


class State:
    """Answers of the steps that are done, by their names.

    Raises:
        ConfigError: the folder holds a run with other settings.
    """

    def __init__(self, out: Path, settings: Answer) -> None:
        self._path = out / STATE
        self._settings = json.loads(json.dumps(settings))  # as a file has it: no tuples
        self.done: dict[str, Answer] = {}
        if self._path.is_file():
            before = json.loads(self._path.read_text())
            if before["settings"] != self._settings:
                changed = [k for k, v in self._settings.items() if before["settings"].get(k) != v]
                problem = f"{out} holds a run with other {', '.join(changed) or 'settings'}"
                raise ConfigError(
                    f"{problem}; give another --out, or the same options", where="--out"
                )
            self.done = before["done"]

    def once(self, step: str, work: Callable[[], Answer]) -> Answer:
        """The answer of a step: kept from before, or made now."""
        if step not in self.done:
            self.done[step] = work()
            self._write()
        return self.done[step]

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(f".{STATE}.part")
        text = json.dumps({"settings": self._settings, "done": self.done}, indent=1)
        with part.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self._path)


def timed(work: Callable[[], Answer]) -> Answer:
    """The answer, and how long it took."""
    started = time.monotonic()
    answer = work()
    return answer | {"elapsed_s": time.monotonic() - started}
