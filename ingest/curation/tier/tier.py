"""Applies a tier policy to every episode of a snapshot: cut into segments, gather what the policy asks about, decide in SQL.

The stored numbers are only read: thresholds change nothing that was measured. `judge` touches nothing; `commit` appends one part
of `tiers` and one of `policies` under a new snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest import snapshot
from ingest.corpus import Corpus
from ingest.curation.policy.policy import Edge, Policy
from ingest.curation.policy.sql import (
    TASK_BITS,
    TIERS,
    Compiled,
    aggregates,
    compiled,
    measurement_column,
    used,
)
from ingest.curation.policy.vocabulary import EPISODE_FACTS
from ingest.curation.tier.cut import Edges, Ints, Spans, cut, edges_of, gaps, joined, widened
from ingest.curation.tier.group_facts import group_facts
from ingest.curation.tier.overlap import Line, aggregate, covered_steps
from ingest.curation.tier.wide import SCRATCH, Intervals, Wide, read_spans, read_wide
from ingest.disk import Disk
from ingest.snapshot import Snapshot
from schemas.catalog import TABLES
from schemas.geometry import Array

BATCH_ROWS = 200_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Every segment of N episodes, and what decides its tier."""

    policy: Policy
    sql: Compiled
    episodes: pa.Table  # [N] uid, source, length, duration_s and the facts that the policy names
    segments: Spans  # [S]
    frame: pa.Table  # [S] the columns of `policy.sql`
    threads: int | None = None

    @property
    def rate_hz(self) -> Array:
        """[N] timesteps a second."""
        return _rate_hz(self.episodes)

    @cached_property
    def decided(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """[S] number of the rule, and of the tier."""
        with self._connect() as connection:
            found = self._ruled(connection).select("rule, tier").to_arrow_table()
        rule, tier = (found[name].to_numpy().astype(np.int64) for name in ("rule", "tier"))
        return rule, tier

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
        connection = duckdb.connect(":memory:", config=SCRATCH)
        if self.threads is not None:
            connection.execute(f"SET threads = {self.threads:d}")
        return connection

    def _ruled(self, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
        frame = connection.from_arrow(self.frame)
        ruled = frame.select(f"*, {self.sql.rule} AS rule")
        return ruled.select(f"*, {self.sql.tier} AS tier")


def judge(
    corpus: Path,
    current: Snapshot,
    policy: Policy,
    *,
    only: pc.Expression | None = None,
    threads: int | None = None,
) -> Judged:
    """Cut and gather for the episodes of a snapshot, or those for which `only` (over `uid`) holds. Nothing is written."""
    facts, whole, stretches = used(policy)
    always = {"uid", "source", "embodiment", "length", "duration_s", "supervises"}
    columns = always | (facts & set(EPISODE_FACTS))
    order = [name for name in TABLES["episodes"].names if name in columns]
    episodes = current.read(corpus, "episodes", order, only=only)
    uids = episodes["uid"].combine_chunks()
    wide = read_wide(corpus, current, uids, names=whole, interval_names=stretches, only=only)
    lengths = episodes["length"].to_numpy()
    runs = read_spans(corpus, current, uids, "valid_run", only=only)
    subtasks = (
        read_spans(corpus, current, uids, "subtask", only=only)
        if any(edge.segments == "subtask" for edge in policy.segments.edges)
        else None
    )
    steps = np.ceil(policy.segments.min_length_s * _rate_hz(episodes) - 1e-6).astype(np.int64)
    given = {"valid_run": gaps(runs, lengths), "subtask": subtasks}
    edges = _edges(policy, given, wide.intervals, lengths, np.maximum(steps, 1))
    segments = cut(lengths, np.maximum(steps, 1), edges)
    line = Line(lengths=lengths, segments=segments)
    bodies = episodes["embodiment"].combine_chunks()
    among = group_facts(corpus, current, uids, bodies, facts)
    return Judged(
        policy=policy,
        sql=compiled(policy),
        episodes=episodes,
        segments=segments,
        frame=_frame(policy, episodes, line, _Gathered(wide=wide, runs=runs, among=among)),
        threads=threads,
    )


def _rate_hz(episodes: pa.Table) -> Array:
    length, duration_s = (episodes[name].to_numpy() for name in ("length", "duration_s"))
    return np.asarray(length / duration_s, dtype=np.float64)


def _edges(
    policy: Policy,
    given: Mapping[str, Spans | None],
    intervals: Mapping[str, Intervals],
    lengths: Ints,
    steps: Ints,
) -> Edges:
    """The wanted cuts of all sources of the policy; its order is their rank."""
    parts = []
    for rank, edge in enumerate(policy.segments.edges):
        if edge.measurement is not None:
            found = intervals[edge.measurement]
            spans = found.spans.at(_in_bounds(edge, found.value))
            spans = widened(spans, lengths, steps)
        else:
            spans = given[edge.segments or ""] or Spans(
                row=steps[:0], start=steps[:0], end=steps[:0]
            )
            if edge.segments == "valid_run":  # a short gap is for the masks, not for a segment
                spans = spans.at(spans.end - spans.start >= steps[spans.row])
        parts.append(edges_of(spans, rank))
    return joined(parts)


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Gathered:
    """What conditions compare beside the facts in the episode's row."""

    wide: Wide
    runs: Spans  # in which everything observed is valid
    among: Mapping[str, Array]  # group facts, [N] each


def _frame(policy: Policy, episodes: pa.Table, line: Line, gathered: _Gathered) -> pa.Table:
    """[S] one column for each thing the policy asks about. Where every episode is one segment nothing is copied."""
    segments, row = line.segments, line.segments.row
    wide = gathered.wide
    is_whole = len(row) == len(episodes)
    columns: dict[str, pa.Array] = {
        "row": pa.array(row),
        "start": pa.array(segments.start),
        "end": pa.array(segments.end),
        "supervises": pa.array(_supervised(episodes["supervises"])[row]),
    }
    facts, whole, _ = used(policy)
    for name in sorted(facts & set(EPISODE_FACTS) - {"supervises"}):
        column = episodes[name].combine_chunks()
        columns[f"fact {name}"] = column if is_whole else column.take(pa.array(row))
    size = segments.end - segments.start
    if "segment_s" in facts:
        columns["fact segment_s"] = pa.array(size / _rate_hz(episodes)[row])
    if "valid_share" in facts:
        columns["fact valid_share"] = pa.array(covered_steps(line, gathered.runs) / size)
    for name in sorted(whole):
        value = wide.values[name] if is_whole else wide.values[name][row]
        columns[measurement_column(name)] = _nullable(value)
    for name, value in sorted(gathered.among.items()):
        columns[f"fact {name}"] = _nullable(value[row])
    for name, of in sorted(aggregates(policy)):
        found = wide.intervals[name]
        value = aggregate(line, found.spans, found.value, "share" if of == "seconds" else of)
        if of == "seconds":
            value = value * size / _rate_hz(episodes)[row]
        columns[measurement_column(name, of)] = _nullable(
            np.where(found.is_measured[row], value, np.nan)
        )
    return pa.table(columns)


def _nullable(value: Array) -> pa.Array:
    """NaN is how NumPy says unknown; in SQL it would be larger than every number."""
    return pa.array(value, from_pandas=True)


def _supervised(column: pa.ChunkedArray) -> npt.NDArray[np.int32]:
    """[N] the bits of the tasks in each list; a task that nobody knows has none."""
    lists = column.combine_chunks()
    tasks = pa.array([task.value for task in TASK_BITS])
    index = pc.fill_null(pc.index_in(lists.flatten(), value_set=tasks), len(TASK_BITS))
    bits = np.array([*TASK_BITS.values(), 0], dtype=np.int32)[index.to_numpy()]
    parent = pc.list_parent_indices(lists).to_numpy()
    out = np.zeros(len(lists), dtype=np.int32)
    np.bitwise_or.at(out, parent, bits)
    return out


# --- what is written ----------------------------------------------------------------------------------------------------


def commit(
    corpus: Corpus, current: Snapshot, judged: Judged, text: str, *, run_id: str, disk: Disk
) -> Snapshot:
    """Append the decisions. The caller holds the writer lock.

    Raises:
        TransientError: another writer was first; nothing is lost, run again.
    """
    number = current.number + 1
    policy = judged.policy
    tiers = snapshot.write_tables(disk, corpus.root, "tiers", _rows(judged, run_id, number))
    row = {
        "policy": policy.policy,
        "version": policy.version,
        "policy_digest": policy.digest,
        "text": text,
        "run_id": run_id,
        "snapshot": number,
    }
    policies = snapshot.write_part(disk, corpus.root, "policies", [row])
    added = {"tiers": tiers, "policies": policies}
    return snapshot.publish(disk, corpus.root, current, added, run_id)


def _rows(judged: Judged, run_id: str, number: int) -> Iterator[pa.Table]:
    """The decisions as rows of `tiers`."""
    schema = TABLES["tiers"]
    uids = judged.episodes["uid"].combine_chunks()
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
            "uid": uids.take(pa.array(row)),
            "segment_index": pa.array(at),
            **{name: piece[name] for name in ("start", "end", "tier", "tasks", "reasons")},
            **{name: pa.repeat(value, len(row)) for name, value in constant.items()},
        }
        yield pa.table([columns[name] for name in schema.names], names=schema.names).cast(schema)


def is_up_to_date(corpus: Path, current: Snapshot, policy: Policy) -> bool:
    """Whether the latest run was of this very policy, and nothing that it read has changed since."""
    runs = current.read(corpus, "policies", ["policy_digest", "snapshot"]).to_pylist()
    if not runs:
        return False
    latest = max(runs, key=lambda run: run["snapshot"])
    then = corpus / snapshot.FOLDER / f"{latest['snapshot']:08d}.json"
    if latest["policy_digest"] != policy.digest or not then.is_file():
        return False
    before = snapshot.load(corpus, latest["snapshot"])
    read = ("episodes", "segments", "measurements", "signatures")
    return all(before.parts(table) == current.parts(table) for table in read)
