"""Where an episode stands in its dataset by the rules of numbering: what its files must say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ingest.corpus.committed_episodes import CommittedEpisode
from ingest.corpus.lerobot_meta import Dataset, JsonlAppends, add_episode
from ingest.verify.finding import CheckCode, Finding, finding


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodePlace:
    """What only the sequence of episodes tells about one of them. `tasks` maps the dataset's task index to its text."""

    dataset: Dataset
    index_from: int
    tasks: Mapping[int, str]
    gop: int  # pictures between keyframes at most


def number(
    stored: CommittedEpisode, dataset: Dataset, lines: JsonlAppends, gop: int
) -> EpisodePlace:
    """Give an episode the next place in `dataset`, as the committer did; extends `dataset` and `lines`.

    Raises:
        ValueError, KeyError, TypeError: its rows lack what numbering needs.
    """
    index_from = dataset.frames
    indices = add_episode(lines, dataset, stored.row, feature_stats(stored))
    tasks = dict(zip(indices, stored.row["tasks"], strict=True))
    return EpisodePlace(dataset=dataset, index_from=index_from, tasks=tasks, gop=gop)


def feature_stats(stored: CommittedEpisode) -> dict[str, Any]:
    """Statistics by feature as `episodes_stats.jsonl` has them: numeric columns, then videos."""
    out: dict[str, Any] = {}
    for artifact in sorted(stored.artifacts, key=lambda a: a["kind"]):  # data before video
        if artifact["kind"] == "data":
            out |= stored.detail(artifact)
        elif artifact["kind"] == "video":
            out[f"observation.images.{artifact['camera']}"] = stored.detail(artifact)
    return out


def numbering_findings(
    stored: CommittedEpisode, place: EpisodePlace, episode_index: int
) -> Iterator[Finding]:
    """Does the catalog itself number without gaps, and do the episode's rows agree with each other?"""
    row = stored.row
    for name, expected in (("episode_index", episode_index), ("index_from", place.index_from)):
        if row[name] != expected:
            what = f"{name} {row[name]} of {row['uid']}"
            yield finding(CheckCode.NUMBERING, row["dataset_path"], what, expected)
    if row["length"] != sum(row["task_counts"]):
        what = f"{row['length']} timesteps of {row['uid']}"
        yield finding(
            CheckCode.NUMBERING,
            row["dataset_path"],
            what,
            f"{sum(row['task_counts'])}, by its tasks",
        )
    kinds = sorted((a["kind"], a["camera"] or "", a["path"]) for a in stored.artifacts)
    files = [("data", "", stored.data_path)]
    files += [("video", camera, stored.video_path(camera)) for camera in stored.cameras]
    if kinds != sorted(files):
        what = f"files {kinds} of {row['uid']}"
        yield finding(CheckCode.NUMBERING, row["dataset_path"], what, sorted(files))
    keys = sorted(f"observation.images.{camera}" for camera in stored.cameras)
    if keys != sorted(place.dataset.video_keys):
        what = f"cameras {keys} of {row['uid']}"
        yield finding(CheckCode.NUMBERING, row["dataset_path"], what, place.dataset.video_keys)
