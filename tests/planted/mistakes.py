"""The list of planted mistakes: `mistakes.toml`, one entry for each, with the test that fails while it is in the code."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).with_name("mistakes.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """`old` stands in `file` exactly once; with `new` in its place, `test` fails."""

    what: str
    file: str
    old: str
    new: str
    test: str  # as pytest takes it: FILE::FUNCTION

    def planted(self, text: str) -> str:
        """The text of `file` with the mistake.

        Raises:
            ValueError: `old` is not in it, or more than once.
        """
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.file} has {count} times {self.old!r}, expected once")
        return text.replace(self.old, self.new)


def mistakes() -> list[Mistake]:
    """All of them, in the order of the list."""
    return [Mistake(**entry) for entry in tomllib.loads(LIST.read_text())["mistake"]]
