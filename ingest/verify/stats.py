"""Are the statistics complete, and are they those of the rows? (Rules: format page for LeRobot v2.1, §1.6.)"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ingest.corpus.committed_episodes import CommittedEpisode
from ingest.corpus.lerobot_writer import column_stats
from ingest.verify.finding import CheckCode, Finding, excerpt, finding
from ingest.verify.numbering import EpisodePlace
from ingest.verify.rows import Columns
from ingest.video.stats import sampled_frames
from schemas.lerobot import DEFAULT_FEATURES

_KINDS = {"min", "max", "mean", "std", "count"}
_RELATIVE = 1e-6  # of mean and std: sums may be added up in another order elsewhere


def stats_findings(
    columns: Columns, stored: CommittedEpisode, place: EpisodePlace
) -> Iterator[Finding]:
    """The statistics that the catalog has, and `episodes_stats.jsonl` repeats, of one episode."""
    for artifact in stored.artifacts:
        detail = stored.detail(artifact)
        if artifact["kind"] == "data":
            yield from _numeric_findings(columns, detail, stored, place)
        elif artifact["kind"] == "video":
            path = stored.video_path(artifact["camera"])
            yield from picture_findings(path, detail, stored.row["length"])


def _numeric_findings(
    columns: Columns, statistics: Mapping[str, Any], stored: CommittedEpisode, place: EpisodePlace
) -> Iterator[Finding]:
    features = {n for n, f in place.dataset.features.items() if f["dtype"] != "video"}
    if statistics.keys() != features:
        what = f"statistics of {sorted(statistics)}"
        yield finding(CheckCode.STATS_INCOMPLETE, stored.data_path, what, sorted(features))
    for name in sorted(statistics.keys() & columns.keys() - DEFAULT_FEATURES.keys()):
        expected = column_stats(columns[name])
        for kind in sorted(_KINDS):
            if not _is_same(kind, statistics[name].get(kind), expected[kind]):
                shown = excerpt(str(expected[kind]))
                what = f"{kind} of {name!r} {excerpt(str(statistics[name].get(kind)))}"
                yield finding(
                    CheckCode.STATS_DIFFER, stored.data_path, what, f"{shown} of its rows"
                )


def _is_same(kind: str, actual: Any, expected: list[Any]) -> bool:
    if kind not in ("mean", "std"):
        return bool(actual == expected)
    if np.shape(actual) != np.shape(expected):
        return False
    return bool(np.allclose(actual, expected, rtol=_RELATIVE, atol=_RELATIVE**2))


def picture_findings(path: str, statistics: Mapping[str, Any], length: int) -> Iterator[Finding]:
    """min, max, mean, std of shape (3, 1, 1) in 0..1, and the count of sampled frames."""
    if statistics.keys() != _KINDS:
        yield finding(
            CheckCode.STATS_INCOMPLETE, path, f"statistics {sorted(statistics)}", sorted(_KINDS)
        )
        return
    count = [len(sampled_frames(length))]
    if statistics["count"] != count:
        yield finding(
            CheckCode.STATS_DIFFER, path, f"count {statistics['count']}", f"{count} by the rule"
        )
    values = {kind: np.asarray(statistics[kind], dtype=np.float64) for kind in _KINDS - {"count"}}
    shapes = {kind: value.shape for kind, value in values.items() if value.shape != (3, 1, 1)}
    if shapes:
        yield finding(CheckCode.STATS_DIFFER, path, f"shapes {shapes}", (3, 1, 1))
        return
    low, middle, high = values["min"], values["mean"], values["max"]
    is_sound = np.all((low >= 0) & (low <= middle) & (middle <= high) & (high <= 1))
    if not (is_sound and np.all((values["std"] >= 0) & (values["std"] <= 0.5 + 1e-12))):
        shown = excerpt(str({kind: value.ravel().tolist() for kind, value in values.items()}))
        yield finding(
            CheckCode.STATS_DIFFER, path, shown, "0 <= min <= mean <= max <= 1, std <= 0.5"
        )
