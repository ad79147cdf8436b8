"""Checks the SQL expressions of a spec before any work, by binding them to the tables of an empty corpus."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from ingest.catalog.catalog import Catalog
from ingest.catalog.query_process import QueryLimits
from ingest.corpus.snapshot import Snapshot
from schemas.catalog import TABLES
from schemas.errors import ConfigError

SEGMENTS, EPISODES = "candidates", "episodes"  # relations that manifests and latents select from


def check_where(text: str, relation: str) -> None:
    """
    Raises:
        ConfigError: it is no expression over that relation; the message is DuckDB's.
    """
    if not text.strip():
        return
    try:
        with Catalog(Path("/"), Snapshot(), QueryLimits()) as catalog:
            if relation == SEGMENTS:
                catalog.register(SEGMENTS, _no_segments())
            expression = catalog.expression(text, relation)
            # Line breaks around it: a comment in it must not swallow the bracket.
            catalog.arrow(f"SELECT 1 FROM {relation} WHERE (\n{expression}\n)")
    except ConfigError as error:
        first, *_ = error.message.splitlines()  # the file has the place
        raise ConfigError(first) from error


def _no_segments() -> pa.Table:
    """The columns of `ingest.curation.manifests.sql`: those of an episode, and of a segment."""
    tiers = TABLES["tiers"]
    names = {
        "start": "start",
        "end": "end",
        "tier": "tier",
        "serves": "tasks",
        "reasons": "reasons",
    }
    fields = [
        *TABLES["episodes"],
        *(tiers.field(own).with_name(name) for name, own in names.items()),
    ]
    return pa.schema(fields).empty_table()
