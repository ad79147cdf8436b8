"""Copies that need no likeness: episodes of equal content, or whose numbers and files are equal byte for byte.

Equal files alone prove nothing: two narrations of one long video have the same raw file, two black videos the same bytes. Equal
numbers alone prove nothing about the pictures (a simulator may render one motion twice). So both are asked for.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from ingest.corpus.snapshot import Snapshot
from ingest.curation.duplicates.search import Indices
from ingest.curation.duplicates.signatures import Signatures


def exact_pairs(corpus: Path, current: Snapshot, signatures: Signatures) -> tuple[Indices, Indices]:
    """Chains of episodes that are exact copies of one another: (one, other) of each link."""
    facts = _facts(corpus, current, signatures)
    has_rows = pl.col("rows") != b""
    ways = (
        facts.select("at", "content"),
        facts.filter(has_rows & (pl.col("raw") != "")).select("at", "rows", "raw"),
        facts.filter(has_rows & (pl.col("videos") != "")).select("at", "rows", "videos"),
        # Without numbers to compare: pictures in which something moves, and which are the same bytes.
        facts.filter(~has_rows & pl.col("is_lively") & (pl.col("videos") != "")).select(
            "at", "length", "videos"
        ),
    )
    links = [_links(way) for way in ways]
    return np.concatenate([a for a, _ in links]), np.concatenate([b for _, b in links])


def equal_rows(signatures: Signatures) -> tuple[Indices, Indices]:
    """Chains of episodes with the same state and action bit for bit, whatever they look like."""
    facts = pl.DataFrame({"at": np.arange(len(signatures)), "rows": _digests(signatures)})
    return _links(facts.filter(pl.col("rows") != b""))


def _facts(corpus: Path, current: Snapshot, signatures: Signatures) -> pl.DataFrame:
    """One row per episode in the order of `signatures`: digests of its content, rows, raw files and videos ("" for none)."""
    episodes = pl.DataFrame(
        current.read(corpus, "episodes", ["uid", "length", "content_sha256", "raw_files"])
    )
    files = pl.DataFrame(current.read(corpus, "artifacts", ["uid", "kind", "sha256"]))
    videos = (
        files.filter(pl.col("kind") == "video")
        .group_by("uid")
        .agg(pl.col("sha256").sort().str.join(" ").alias("videos"))
    )
    raw = pl.col("raw_files").list.eval(pl.element().struct.field("digest")).list.sort()
    return (
        episodes.sort("uid")
        .with_row_index("at")
        .join(videos, on="uid", how="left", maintain_order="left")
        .select(
            "at",
            "length",
            pl.col("content_sha256").alias("content"),
            raw.list.join(" ").fill_null("").alias("raw"),
            pl.col("videos").fill_null(""),
        )
        .with_columns(
            _digests(signatures),
            pl.Series("is_lively", signatures.num_looks > 0),
        )
    )


def _digests(signatures: Signatures) -> pl.Series:
    """`rows`: the digest of each episode's numbers, with a type of its own also where there is no episode."""
    return pl.Series("rows", signatures.digest.tolist(), dtype=pl.Binary)


def _links(keyed: pl.DataFrame) -> tuple[Indices, Indices]:
    """Each episode with the first one of the same key, which is every column but `at`."""
    key = [name for name in keyed.columns if name != "at"]
    first = keyed.select(pl.col("at").min().over(key).alias("first"), "at")
    linked = first.filter(pl.col("first") != pl.col("at"))
    return linked["first"].to_numpy().astype(np.intp), linked["at"].to_numpy().astype(np.intp)
