"""The command that a message tells to run next, whole, so that it can be pasted."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

BY_OPTION = frozenset(
    {"query", "manifest", "snapshot"}
)  # the others take the corpus as first argument


def next_command(words: str, corpus: Path) -> str:
    """`eicorpus tier /data/c` for "tier", `eicorpus query "SHOW TABLES" --corpus /data/c` for 'query "SHOW TABLES"'."""
    name, _, rest = words.partition(" ")
    if name in BY_OPTION:
        return f"eicorpus {words} --corpus {quote(str(corpus))}"
    return f"eicorpus {name} {quote(str(corpus))} {rest}".rstrip()
