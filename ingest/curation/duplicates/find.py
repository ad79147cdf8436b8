"""Finds duplicates in a corpus: equal content first, then candidates by motion and images, a comparison of each pair, and clusters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ingest.corpus.snapshot import Snapshot
from ingest.curation.duplicates import distances
from ingest.curation.duplicates.array_parts import INLINE, PartRunner
from ingest.curation.duplicates.compare import (
    PairComparison,
    Thresholds,
    are_same,
    compare_pair,
    plausible,
)
from ingest.curation.duplicates.search import Indices, Pairs, joined, near_pairs, of_owners
from ingest.curation.duplicates.signatures import Signatures
from ingest.curation.measurements.components import components


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


Side = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Copies:
    """[N] cluster of each episode: what copies join, be it in a chain; `exact`: copies of one another byte for byte."""

    cluster: Indices
    exact: Indices
    links: tuple[Indices, Indices]  # every pair that was found to be copies
    candidates: int
    crowded: int  # vectors with more neighbours than were kept


def candidates(
    signatures: Signatures, *, side: Side | None = None, parts: PartRunner = INLINE
) -> Pairs:
    """Pairs of episodes that are near by motion, by pictures, or have equal numbers; each once."""
    count = len(signatures)
    of_look = np.repeat(np.arange(count), signatures.num_looks)
    of_path = np.repeat(np.arange(count), signatures.num_paths)
    by_look = near_pairs(
        distances.coarse_image_vectors(signatures.looks),
        of_look,
        distances.COARSE_IMAGE_RADIUS,
        side=None if side is None else side[of_look],
        parts=parts,
    )
    by_path = near_pairs(
        distances.coarse_motion_vectors(signatures.paths),
        of_path,
        distances.COARSE_MOTION_RADIUS,
        side=None if side is None else side[of_path],
        parts=parts,
    )
    one, other = equal_rows(signatures)
    if side is not None:
        one, other = _across(components(count, one, other), side)
    by_rows = Pairs(one=np.minimum(one, other), other=np.maximum(one, other))
    pairs = joined(count, of_owners(by_look, of_look), of_owners(by_path, of_path), by_rows)
    return plausible(signatures, pairs, parts)


def find_copies(
    corpus: Path,
    current: Snapshot,
    signatures: Signatures,
    limits: Thresholds,
    parts: PartRunner = INLINE,
) -> Copies:
    """Every cluster of copies."""
    one, other = exact_pairs(corpus, current, signatures)
    pairs = candidates(signatures, parts=parts)
    is_same = are_same(signatures, pairs, limits, parts)
    links = np.append(one, pairs.one[is_same]), np.append(other, pairs.other[is_same])
    return Copies(
        cluster=components(len(signatures), *links),
        exact=components(len(signatures), one, other),
        links=links,
        candidates=len(pairs.one),
        crowded=pairs.crowded,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Leaks:
    """[n] episodes `checked` that are copies of an episode `reference` of the other side, nearest first for each."""

    checked: Indices
    reference: Indices
    is_exact: npt.NDArray[np.bool_]
    judged: PairComparison
    crowded: int


def find_leaks(
    corpus: Path,
    current: Snapshot,
    signatures: Signatures,
    is_reference: Side,
    limits: Thresholds,
    parts: PartRunner = INLINE,
) -> Leaks:
    """Pairs of copies across: one among the episodes where `is_reference`, the other not."""
    exact = components(len(signatures), *exact_pairs(corpus, current, signatures))
    one, other = _across(exact, is_reference)
    pairs = candidates(signatures, side=is_reference, parts=parts)
    both = joined(
        len(signatures), pairs, Pairs(one=np.minimum(one, other), other=np.maximum(one, other))
    )
    judged = compare_pair(signatures, both, limits)
    is_exact = exact[both.one] == exact[both.other]
    kept = np.flatnonzero(is_exact | judged.is_same)
    swap = is_reference[both.one[kept]]
    checked = np.where(swap, both.other[kept], both.one[kept])
    reference = np.where(swap, both.one[kept], both.other[kept])
    order = np.lexsort((reference, np.nan_to_num(judged.look[kept]), ~is_exact[kept], checked))
    return Leaks(
        checked=checked[order],
        reference=reference[order],
        is_exact=is_exact[kept][order],
        judged=judged.at(kept[order]),
        crowded=both.crowded,
    )


def _across(label: Indices, side: Side) -> tuple[Indices, Indices]:
    """Each element off the side that shares its label with some on it, and the first of those."""
    first = np.full(int(label.max(initial=0)) + 1, -1)
    on_it = np.flatnonzero(side)[::-1]  # backwards: the first is written last
    first[label[on_it]] = on_it
    off_it = np.flatnonzero(~side)
    partner = first[label[off_it]]
    return off_it[partner >= 0], partner[partner >= 0]
