"""A corpus that is only a catalog: episodes with measurements of a test's choice, for what decides and never reads a recording."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.curation.measurements.registry import compute, measures, output_names
from ingest.curation.measurements.view import EpisodeView
from ingest.curation.tiers.policy import QualityPolicy, policy_from
from ingest.curation.tiers.policy_loader import parse_policy_text
from ingest.curation.tiers.tier import Judged, judge
from ingest.curation.tiers.tier import commit as commit_tiers
from ingest.storage.local import LocalStorage
from tests.generators.corpus import commit, episode, uid_of, verdict

ALL_TASKS = ("policy", "forward_dynamics", "inverse_dynamics", "visual_forecasting")
Interval = tuple[int, int, float | None]

TEXT = """
policy: mine
version: 3
about: a test
segments:
  min_length_s: 2.0
  origin: ours
  edges:
    - segments: valid_run
    - measurement: regrasp
    - {measurement: pause_s, at_least: 1.5, origin: ours}
    - segments: subtask
conditions:
  lazy: {measurement: idle_share, above: 0.5, origin: ours}
rules:
  - code: blind
    tier: excluded
    text: nothing to see
    when: {measurement: unusable_share.best, above: 0.5, origin: ours}
  - code: lost
    tier: actionless
    text: not observed
    when: {fact: valid_share, below: 0.5, origin: ours}
  - code: retry
    tier: low
    text: a second try
    when: {measurement: regrasp, of: share, at_least: 0.5, origin: ours}
  - code: dull
    tier: low
    text: nobody moves
    when:
      any:
        - condition: lazy
        - all:
            - {measurement: pause_s, of: seconds, above: 1.0, origin: ours}
            - {measurement: pause_s, of: max, above: 2.0, origin: ours}
  - code: sound
    tier: high
    text: fine
    when:
      all:
        - {measurement: idle_share, at_most: 0.5, origin: ours}
        - not: {fact: success, is: false, when_unknown: false}
otherwise: {code: rest, tier: low, text: nothing said}
"""
FINE = {"idle_share": 0.1, "unusable_share.best": 0.0}


@dataclass(frozen=True, kw_only=True)
class Given:
    """One episode of 10 Hz: what is measured of it, and what its row says beyond the usual."""

    length: int = 100
    whole: Mapping[str, float | None] = field(default_factory=dict)
    stretches: Mapping[str, Sequence[Interval]] = field(default_factory=dict)
    valid: Sequence[tuple[int, int]] | None = None  # None: all of it
    subtasks: Sequence[tuple[int, int]] = ()
    row: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1
    tasks: Sequence[tuple[int, int, str]] = ()  # rows of `segments` with a text
    is_measured: bool = False  # whatever else there is to measure was measured, in vain


def measurement(
    uid: str, name: str, value: float | None, start: int | None, end: int | None, version: int = 1
) -> dict[str, Any]:
    return {
        "uid": uid,
        "name": name,
        "version": version,
        "value": value,
        "unit": "1",
        "start": start,
        "end": end,
        "denominator": 0 if value is None else 10,
    }


def write_corpus(root: Path, given: Iterable[Given]) -> Path:
    """The corpus; episode number k has uid `uid_of(k)`."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "corpus.json").write_text('{"format_version": 1, "uid": "synthetic"}')
    rows: dict[str, list[dict[str, Any]]] = {
        table: [] for table in ("episodes", "segments", "measurements", "verdicts")
    }
    for index, one in enumerate(given):
        said = {
            "length": one.length,
            "duration_s": one.length / 10,
            "hours": one.length / 36000,
            "supervises": list(ALL_TASKS),
            "action_coverage": 1.0,
            "camera_motion_removed": True,
            "eef_frame": "hand_xfz",
            "success": None,
            "licence_class": "permissive",
        }
        rows["episodes"].append(episode(index) | said | dict(one.row))
        rows["verdicts"].append(verdict(index, "committed", 1))
        rows["segments"] += _segments(uid_of(index), one)
        rows["measurements"] += _measurements(uid_of(index), one)
    commit(root, rows)
    return root


def _segments(uid: str, one: Given) -> list[dict[str, Any]]:
    valid = [(0, one.length)] if one.valid is None else one.valid
    spans = [("valid_run", *span, "") for span in valid]
    spans += [("subtask", *span, "") for span in one.subtasks]
    spans += [("task", *span) for span in one.tasks]
    return [
        {
            "uid": uid,
            "segment_index": index,
            "kind": kind,
            "start": start,
            "end": end,
            "start_s": start / 10,
            "end_s": end / 10,
            "text": text,
        }
        for index, (kind, start, end, text) in enumerate(spans)
    ]


def _measurements(uid: str, one: Given) -> list[dict[str, Any]]:
    rows = [measurement(uid, n, v, None, None, one.version) for n, v in one.whole.items()]
    for name, intervals in one.stretches.items():
        rows += [measurement(uid, name, v, a, b, one.version) for a, b, v in intervals]
        if not intervals:  # measured, and there was none
            rows.append(measurement(uid, name, None, None, None, one.version))
    if one.is_measured:
        others = sorted(output_names().keys() - one.whole.keys() - one.stretches.keys())
        rows += [measurement(uid, name, None, None, None, one.version) for name in others]
    return rows


def of_view(view: EpisodeView, **row: Any) -> Given:
    """What all measures say of an episode."""
    whole: dict[str, float | None] = {}
    stretches: dict[str, list[Interval]] = {}
    for measure in measures().values():
        for found in compute(measure, view):
            if found.start is None or found.end is None:
                whole[found.name] = found.value
            else:
                stretches.setdefault(found.name, []).append((found.start, found.end, found.value))
    said = ("embodiment", "tasks", "task_counts", "action_source", "success", "facts")
    kept = {name: view.row[name] for name in said if name in view.row}
    return Given(length=view.length, whole=whole, stretches=stretches, row=kept | row)


def policy_of(text: str) -> QualityPolicy:
    return policy_from(parse_policy_text(text, "policy.yaml"))


def judged(root: Path, policy: QualityPolicy) -> Judged:
    return judge(root, snapshot.load(root), policy, threads=1)


def decisions(found: Judged) -> list[list[dict[str, Any]]]:
    """The segments of each episode, in order."""
    out: list[list[dict[str, Any]]] = [[] for _ in range(len(found.episodes))]
    for piece in found.decisions():
        for row in piece.to_pylist():
            out[row["row"]].append(row)
    return out


def run(corpus: Path, policy: QualityPolicy, text: str = TEXT) -> snapshot.Snapshot:
    """Judge the corpus and store what was found."""
    current = snapshot.load(corpus)
    found = judge(corpus, current, policy)
    opened = open_corpus(corpus)
    return commit_tiers(
        opened, current, found, text, run_id=f"run-{current.number}", disk=LocalStorage()
    )
