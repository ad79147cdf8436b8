"""The command that a message tells to run next, whole, so that it can be pasted."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

GROUPS = frozenset({"latents", "list", "manifest", "review", "snapshot"})  # of commands


def next_command(words: str, corpus: Path) -> str:
    """`eicorpus tier CORPUS` for "tier", `eicorpus manifest build CORPUS NAME` for "manifest build NAME"."""
    name, _, rest = words.partition(" ")
    if name in GROUPS:
        command, _, rest = rest.partition(" ")
        name = f"{name} {command}"
    return f"eicorpus {name} {quote(str(corpus))} {rest}".rstrip()
