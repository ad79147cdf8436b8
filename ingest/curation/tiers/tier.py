"""Applies a tier policy to every episode of a snapshot: cut into segments, gather what the policy asks about, decide in SQL.

The stored numbers are only read: thresholds change nothing that was measured. `judge` touches nothing; `commit` appends one part
of `tiers` and one of `policies` under a new snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ingest.catalog.segmentation import (
    CutPoints,
    Ints,
    Spans,
    concat,
    cut_points_of,
    gaps,
    pad_to,
    split_at,
)
from ingest.catalog.tables import rows_of
from ingest.catalog.uid_index import UidIndex
from ingest.catalog.views import without_progress_bar
from ingest.corpus import publishing, snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Snapshot
from ingest.curation.tiers.cohort_features import group_facts, measured_for
from ingest.curation.tiers.frame import Frame, Gathered, SegmentLine
from ingest.curation.tiers.last_run import READS
from ingest.curation.tiers.measurement_matrix import IntervalRows, read_matrix, read_spans
from ingest.curation.tiers.policy import Edge, QualityPolicy
from ingest.curation.tiers.policy_fields import EPISODE_FACTS
from ingest.curation.tiers.policy_sql import (
    REVIEW_TIER,
    TASK_BITS,
    TIERS,
    Compiled,
    compiled,
    overrides,
    required,
    used,
)
from ingest.curation.tiers.reviewed import decisions_of, review_columns
from ingest.storage.local import LocalStorage
from schemas.catalog import TABLES
from schemas.committed_rows import PolicyRow
from schemas.geometry import Array
from schemas.parquet_file import collect

BATCH_ROWS = 200_000
# A DuckDB that works in memory and leaves nothing behind: it would spill into the current folder.
SCRATCH: dict[str, Any] = {"temp_directory": "", "python_enable_replacements": "false"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Every segment of N episodes, and what decides its tier."""

    policy: QualityPolicy
    sql: Compiled
    # [N] uid, source, length, duration_s, supervises (bits of TASK_BITS) and the facts that the policy names
    episodes: pl.DataFrame
    segments: Spans  # [S]
    is_reviewed: npt.NDArray[np.bool_]  # [S] a review gives the tier
    frame: Frame
    threads: int | None = None

    @property
    def rate_hz(self) -> Array:
        """[N] timesteps a second."""
        return self.frame.gathered.rate_hz

    @cached_property
    def decided(self) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
        """[S] number of the rule, and of the tier."""
        with self._connect() as connection:
            table = self._ruled(connection).select("rule, tier").to_arrow_table()
        rule, tier = (table[name].to_numpy().astype(np.int16) for name in ("rule", "tier"))
        return rule, tier

    def under(self, policy: QualityPolicy) -> Judged:
        """The same policy with other thresholds; reviews decide as before."""
        sql = compiled(policy, is_reviewed=bool(self.is_reviewed.any()))
        return replace(self, policy=policy, sql=sql)

    def without_reviews(self) -> Judged:
        """What the measurements alone decide, in the same segments."""
        line = SegmentLine(lengths=self.episodes["length"].to_numpy(), segments=self.segments)
        nothing = np.zeros_like(self.is_reviewed)
        added = {n: each for n, each in review_columns(line, None) if n in self.frame.added}
        frame = replace(self.frame, added=added)
        return replace(self, sql=compiled(self.policy), is_reviewed=nothing, frame=frame)

    def rules_hold(self) -> pa.Table:
        """[S] `rule`, `tier`, `cap`, and one truth value for each rule: rule_0, rule_1 ..."""
        each = ", ".join(f"{when} AS rule_{i}" for i, when in enumerate(self.sql.rules))
        with self._connect() as connection:
            ruled = self._ruled(connection)
            return ruled.select(f"rule, tier, {self.sql.cap} AS cap, {each}").to_arrow_table()

    def decisions(self) -> Iterator[pa.Table]:
        """row, start, end, tier, tasks and reasons of the segments, in order, some at a time."""
        names = pa.array([tier.value for tier in TIERS])
        with self._connect() as connection:
            relation = self._ruled(connection).select(
                f'"row", "start", "end", tier, {self.sql.tasks} AS tasks, {self.sql.reasons} AS reasons'
            )
            for batch in relation.to_arrow_reader(BATCH_ROWS):
                table = pa.Table.from_batches([batch])
                tier = names.take(table["tier"].combine_chunks().cast(pa.int64()))
                yield table.set_column(table.column_names.index("tier"), "tier", tier)

    def _connect(self) -> duckdb.DuckDBPyConnection:
        config = SCRATCH | {"threads": self.threads or pa.cpu_count()}
        return without_progress_bar(duckdb.connect(":memory:", config=config))

    def _ruled(self, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
        frame = connection.from_arrow(self.frame.reader())
        ruled = frame.select(f"*, {self.sql.rule} AS rule")
        return ruled.select(f"*, {self.sql.tier} AS tier")


def judge(
    corpus: Path,
    current: Snapshot,
    policy: QualityPolicy,
    *,
    uid: str | None = None,
    threads: int | None = None,
) -> Judged:
    """Cut and gather for the episodes of a snapshot, or the one `uid`. Nothing is written."""
    facts, whole, stretches = used(policy)
    episodes = _episodes(corpus, current, facts, uid)
    places = UidIndex(episodes["uid"])
    numbers = whole | measured_for(facts)
    wide = read_matrix(
        corpus,
        current,
        places,
        names=numbers,
        interval_names=stretches,
        required=required(policy),
    )
    lengths = episodes["length"].to_numpy()
    kinds = {edge.segments for edge in policy.segments.edges if edge.segments} | {"valid_run"}
    spans_by_kind = read_spans(corpus, current, places, sorted(kinds))
    runs = spans_by_kind["valid_run"]
    spans_by_kind["valid_run"] = gaps(runs, lengths)
    rate_hz = _rate_hz(episodes)
    steps = np.ceil(policy.segments.min_length_s * rate_hz - 1e-6).astype(np.int64)
    edges = _edges(policy, spans_by_kind, wide.intervals, lengths, np.maximum(steps, 1))
    reviews = decisions_of(corpus, current, places, lengths, uid)
    if reviews is not None:  # before the edges of the policy
        edges = concat([cut_points_of(reviews.spans, -1), edges])
    segments = split_at(lengths, np.maximum(steps, 1), edges)
    bodies = None if uid is None else episodes["embodiment"]
    gathered = Gathered(
        episodes=episodes,
        rate_hz=rate_hz,
        line=SegmentLine(lengths=lengths, segments=segments),
        wide=wide,
        runs=runs,
        among=group_facts(corpus, current, places, bodies, facts, wide),
    )
    added: dict[str, pa.Array] = {}
    is_reviewed = np.zeros(len(segments), dtype=bool)
    decides = reviews is not None and overrides(policy)
    if reviews is not None or not overrides(policy):  # else a second for a million segments
        added = dict(review_columns(gathered.line, reviews))
        is_reviewed = decides & added[REVIEW_TIER].is_valid().to_numpy(zero_copy_only=False)
    return Judged(
        policy=policy,
        sql=compiled(policy, is_reviewed=decides),
        episodes=episodes,
        segments=segments,
        is_reviewed=is_reviewed,
        frame=Frame(policy=policy, gathered=gathered, added=added),
        threads=threads,
    )


def _episodes(corpus: Path, current: Snapshot, facts: Set[str], uid: str | None) -> pl.DataFrame:
    """What is asked of the rows of episodes; lists of tasks are numbers before anything keeps them."""
    columns = {"uid", "source", "length", "duration_s"} | (facts & set(EPISODE_FACTS))
    columns |= {"embodiment"} if uid is not None else set()
    order = [n for n in TABLES["episodes"].names if n in columns - {"supervises"}]
    lists = pl.col("supervises").list
    bits = pl.sum_horizontal(
        lists.contains(task.value).fill_null(value=False).cast(pl.Int32) * bit
        for task, bit in TASK_BITS.items()
    )
    rows = rows_of(corpus, current, "episodes")
    if uid is not None:
        rows = rows.filter(pl.col("uid") == uid)
    return collect(rows.select(*order, bits.alias("supervises")), "catalog/episodes")


def _rate_hz(episodes: pl.DataFrame) -> Array:
    length, duration_s = (episodes[name].to_numpy() for name in ("length", "duration_s"))
    return np.asarray(length / duration_s, dtype=np.float64)


def _edges(
    policy: QualityPolicy,
    spans_by_kind: Mapping[str, Spans],
    intervals: Mapping[str, IntervalRows],
    lengths: Ints,
    steps: Ints,
) -> CutPoints:
    """The wanted cuts of all sources of the policy; its order is their rank."""
    parts = []
    for rank, edge in enumerate(policy.segments.edges):
        if edge.measurement is not None:
            interval_rows = intervals[edge.measurement]
            spans = interval_rows.spans.at(_in_bounds(edge, interval_rows.value))
            spans = pad_to(spans, lengths, steps)
        else:
            spans = spans_by_kind[edge.segments or ""]
            if edge.segments == "valid_run":  # a short gap is for the masks, not for a segment
                spans = spans.at(spans.end - spans.start >= steps[spans.row])
        parts.append(cut_points_of(spans, rank))
    return concat(parts)


def _in_bounds(edge: Edge, value: Array) -> npt.NDArray[np.bool_]:
    compare = {
        "above": np.greater,
        "at_least": np.greater_equal,
        "below": np.less,
        "at_most": np.less_equal,
    }
    out = np.ones(len(value), dtype=bool)
    for word, threshold in edge.thresholds.items():
        out &= compare[word](value, threshold)  # an unknown value is in no bounds
    return out


# --- what is written ----------------------------------------------------------------------------------------------------


def commit(
    corpus: CorpusLayout,
    current: Snapshot,
    judged: Judged,
    text: str,
    *,
    run_id: str,
    disk: LocalStorage,
) -> Snapshot:
    """Append the decisions. The caller holds the writer lock.

    Raises:
        TransientError: another writer was first; nothing is lost, run again.
    """
    number = current.number + 1
    policy = judged.policy
    tiers = snapshot.write_tables(disk, corpus.root, "tiers", _rows(judged, run_id, number))
    row = PolicyRow(
        policy=policy.policy,
        version=policy.version,
        policy_digest=policy.digest,
        text=text,
        run_id=run_id,
        snapshot=number,
        reads_sha256=snapshot.tables_sha256(current, READS),
    )
    policies = snapshot.write_part(disk, corpus.root, PolicyRow, [row])
    added = {"tiers": tiers, "policies": policies}
    return publishing.publish(disk, corpus.root, current, added, run_id)


def _rows(judged: Judged, run_id: str, number: int) -> Iterator[pa.Table]:
    """The decisions as rows of `tiers`."""
    schema = TABLES["tiers"]
    uids = judged.episodes["uid"]
    first = np.flatnonzero(judged.segments.start == 0)  # of each episode
    done = 0
    for piece in judged.decisions():
        row = piece["row"].to_numpy()
        at = np.arange(done, done + len(row)) - first[row]
        done += len(row)
        constant = {
            "policy": judged.policy.policy,
            "policy_digest": judged.policy.digest,
            "run_id": run_id,
            "snapshot": number,
        }
        columns = {
            "uid": uids.gather(row).to_arrow(),
            "segment_index": pa.array(at),
            **{name: piece[name] for name in ("start", "end", "tier", "tasks", "reasons")},
            **{name: pa.repeat(value, len(row)) for name, value in constant.items()},
        }
        yield pa.table([columns[name] for name in schema.names], names=schema.names).cast(schema)
