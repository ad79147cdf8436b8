"""Which episode a person means: by uid, by the beginning of one, or by `source/episode_id`."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pyarrow.compute as pc

from ingest.catalog.next_command import next_command
from ingest.corpus.snapshot import Snapshot
from schemas.errors import ConfigError

SHOWN = 10
KNOWN_IN = ("episodes", "verdicts", "tombstones")  # committed, never committed, forgotten
LIST = 'query "SELECT uid, source, episode_id, state FROM verdicts LIMIT 20"'
_COLUMNS = ["uid", "source", "episode_id"]


def find_uids(corpus: Path, current: Snapshot, names: list[str]) -> list[str]:
    """The uid of each name, in order.

    Raises:
        ConfigError: nothing of that name is known, or several episodes are; the message lists them.
    """
    only = _may_mean(names)
    known = pl.concat(
        [pl.DataFrame(current.read(corpus, table, _COLUMNS, only=only)) for table in KNOWN_IN]
    ).unique("uid", keep="first", maintain_order=True)
    return [_find(corpus, current, known, name) for name in names]


def _may_mean(names: list[str]) -> pc.Expression:
    """Rows of all episodes that one of the names may mean: only they are kept in memory."""
    uid, source, episode_id = (pc.field(name) for name in _COLUMNS)
    whole = pc.binary_join_element_wise(source, episode_id, pc.scalar("/"))
    begins = "|".join(re.escape(name.lower()) for name in names if name)
    return (
        uid.isin(names)
        | episode_id.isin(names)
        | whole.isin(names)
        | pc.match_substring_regex(uid, f"^({begins})" if begins else "^$")
    )


def _find(corpus: Path, current: Snapshot, known: pl.DataFrame, name: str) -> str:
    whole = pl.format("{}/{}", "source", "episode_id")
    matches = known.filter(pl.col("uid") == name)
    if not len(matches):
        matches = known.filter((whole == name) | (pl.col("episode_id") == name))
    if not len(matches) and name:
        matches = known.filter(pl.col("uid").str.starts_with(name.lower()))
    if len(matches) == 1:
        return str(matches["uid"][0])
    where = str(corpus)
    if not len(matches):
        message = f"no episode {name!r} in snapshot {current.number}; expected a uid, a prefix of one, or SOURCE/EPISODE_ID"
        raise ConfigError(
            message, remedy=f"list some with: {next_command(LIST, corpus)}", where=where
        )
    rows = matches.sort("source", "episode_id", "uid").head(SHOWN).rows()
    lines = [f"  {uid}  {source}/{episode}" for uid, source, episode in rows]
    more = [f"  and {len(matches) - SHOWN} more"] if len(matches) > SHOWN else []
    candidates = "\n".join([*lines, *more])
    raise ConfigError(
        f"{name!r} matches {len(matches)} episodes",
        remedy=f"use one of:\n{candidates}",
        where=where,
    )
