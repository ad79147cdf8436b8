"""What a source declares of its own numbers, whether or not an episode carries it: the list that ingestion accounts for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One channel that a mapping, a registry entry or the source's metadata declare.

    `channel` is a channel name of schemas/episode.py, or the source's own word where that grammar has none. `raw` names the
    elements of `source_state` or `raw_command` that hold its numbers; () where no raw stream does.
    """

    channel: str
    raw: tuple[str, ...] = ()
