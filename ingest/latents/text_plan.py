"""Which episodes lack text features, which texts of an episode a manifest may choose, and what encoding them costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import polars as pl
import pyarrow.compute as pc

from ingest.catalog.catalog import Catalog
from ingest.corpus.commit import datasets_without_episodes
from ingest.corpus.layout import CorpusLayout, video_file
from ingest.corpus.snapshot import Snapshot
from ingest.curation.captions.select import is_usable
from ingest.latents.plan import lies_there
from schemas.errors import ConfigError
from schemas.text_features import (
    BYTES_OF_A_NUMBER,
    NO_CAMERA,
    NO_PICTURE,
    FeatureSettings,
    Span,
    picture_timesteps,
    source_sha256,
    text_feature_file,
)

KINDS = ("task", "subtask")  # of segments that have an instruction


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeTexts:
    """One episode: its texts in the order of the alphabet with the timesteps where each holds, and the camera that is shown."""

    uid: str
    dataset_path: str
    episode_index: int
    length: int
    rate_hz: float
    spans: Mapping[str, tuple[Span, ...]]
    camera: str = NO_CAMERA
    video_sha256: str = ""

    @property
    def video(self) -> str:
        """Its video, relative to the corpus."""
        key = f"observation.images.{self.camera}"
        return f"{self.dataset_path}/{video_file(self.episode_index, key)}"

    @property
    def source_sha256(self) -> str:
        return source_sha256(self.spans, self.length, self.video_sha256)

    def target(self, encoder_id: str) -> str:
        """Its file of features, relative to the corpus."""
        return f"{self.dataset_path}/{text_feature_file(encoder_id, self.episode_index)}"

    def moments(self, settings: FeatureSettings) -> list[tuple[int, int]]:
        """[M] (text, timestep of the picture or NO_PICTURE), sorted."""
        every_s, pairs = settings.picture_every_s, []
        for index, spans in enumerate(self.spans.values()):
            pairs.append((index, NO_PICTURE))
            if every_s is not None and self.camera:
                stride = max(1, round(every_s * self.rate_hz))
                pairs += [(index, t) for t in picture_timesteps(spans, stride)]
        return pairs


def spans_of(
    episode: Mapping[str, Any],
    segments: Iterable[Mapping[str, Any]],
    captions: Iterable[Mapping[str, Any]],
) -> dict[str, tuple[Span, ...]]:
    """Text -> where it holds, from rows of `episodes`, `segments` and `captions`."""
    length = int(episode["length"])
    spans: dict[str, set[Span]] = {}

    def add(text: str | None, start: int, end: int) -> None:
        if text is not None and text.strip():
            spans.setdefault(text, set()).add((max(start, 0), min(end, length)))

    placed = [row for row in segments if row["kind"] in KINDS]
    for row in placed:
        add(row["text"], row["start"], row["end"])
    tasks = [text for text in episode["tasks"] or () if text.strip()]
    if tasks and (len(episode["tasks"]) == 1 or not placed):
        add(tasks[0], 0, length)
    elif tasks:
        spans.setdefault(tasks[0], set())  # what a segment gets that nothing else fits
    for row in captions:
        if is_usable(row):
            add(row["text"], row["start"], row["end"])
    return {text: tuple(sorted(spans[text])) for text in sorted(spans)} or {"": ((0, length),)}


CHUNK_EPISODES = 2000  # in memory at a time
_EPISODES = ["uid", "dataset_path", "episode_index", "length", "tasks", "cameras"]
_SEGMENTS = ["uid", "kind", "start", "end", "text"]
_CAPTIONS = ["uid", "start", "end", "text", "backend", "outcome", "checks_failed"]
_LATENTS = ["uid", "path", "num_bytes", "video_sha256", "run_id", "pack_offset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPlan:
    """`due`: uids in order. discovered = len(due) + up_to_date. Moments and texts are of what is due."""

    due: tuple[str, ...]
    up_to_date: int
    num_moments: int
    num_with_picture: int
    texts: frozenset[str]

    def num_bytes(self, tokens_of_a_text: float, max_picture_tokens: int, width: int) -> int:
        """On disk, at most: no picture has more tokens than that."""
        tokens = self.num_moments * tokens_of_a_text + self.num_with_picture * (
            max_picture_tokens + 2
        )
        return round(tokens * width * BYTES_OF_A_NUMBER)


def plan_of(
    corpus: CorpusLayout,
    current: Snapshot,
    encoder_id: str,
    settings: FeatureSettings,
    *,
    where: str = "",
) -> TextPlan:
    """What is wanted and not there.

    Args:
        where: an SQL expression over `episodes`, of a stranger.

    Raises:
        ConfigError: the expression is none.
    """
    due = _selected(corpus, current, where)
    fresh = _fresh(corpus, current, encoder_id)
    to_encode: list[str] = []
    texts: set[str] = set()
    num_moments = num_with_picture = 0
    for work in texts_of_episodes(corpus, current, settings, due):
        if (work.uid, work.source_sha256) in fresh:
            continue
        to_encode.append(work.uid)
        texts.update(work.spans)
        moments = work.moments(settings)
        num_moments += len(moments)
        num_with_picture += len(moments) - len(work.spans)
    return TextPlan(
        due=tuple(to_encode),
        up_to_date=len(due) - len(to_encode),
        num_moments=num_moments,
        num_with_picture=num_with_picture,
        texts=frozenset(texts),
    )


def texts_of_episodes(
    corpus: CorpusLayout,
    current: Snapshot,
    settings: FeatureSettings,
    uids: Sequence[str],
) -> Iterator[EpisodeTexts]:
    """Of these episodes, in this order."""
    rates = {
        path: float(d.fps) for path, d in datasets_without_episodes(corpus.root, current).items()
    }
    has_pictures = settings.picture_every_s is not None
    for start in range(0, len(uids), CHUNK_EPISODES):
        chunk = uids[start : start + CHUNK_EPISODES]
        rows = {
            table: _by_uid(corpus, current, table, columns, chunk)
            for table, columns in (
                ("episodes", _EPISODES),
                ("segments", _SEGMENTS),
                ("captions", _CAPTIONS),
            )
        }
        videos = _video_digests(corpus, current, chunk) if has_pictures else {}
        for uid in chunk:
            (episode,) = rows["episodes"][uid]
            # by name, as in the step and where a policy is served: only a source knows its order
            names = sorted(c["name"] for c in episode["cameras"] or ()) if has_pictures else []
            shown = next((name for name in names if fnmatchcase(name, settings.camera)), NO_CAMERA)
            yield EpisodeTexts(
                uid=uid,
                dataset_path=episode["dataset_path"],
                episode_index=episode["episode_index"],
                length=episode["length"],
                rate_hz=rates[episode["dataset_path"]],
                spans=spans_of(
                    episode, rows["segments"].get(uid, ()), rows["captions"].get(uid, ())
                ),
                camera=shown,
                video_sha256=videos.get((uid, shown), ""),
            )


def _selected(corpus: CorpusLayout, current: Snapshot, where: str) -> list[str]:
    """uids, in the order of their places."""
    episodes = pl.DataFrame(current.read(corpus.root, "episodes", _EPISODES[:3]))
    if where.strip():
        with Catalog.open(corpus.root, snapshot=current.number) as catalog:
            try:
                expression = catalog.expression(where, "episodes")
                # Line breaks around it: a comment in it must not swallow the bracket.
                sql = f"SELECT uid FROM episodes WHERE (\n{expression}\n)"
                chosen = pl.DataFrame(catalog.arrow_of_stranger(sql))
            except ConfigError as error:
                raise ConfigError(error.message, remedy=error.remedy, where="--where") from error
        episodes = episodes.join(chosen, on="uid", how="semi")
    return list(episodes.sort("dataset_path", "episode_index")["uid"])


def _fresh(corpus: CorpusLayout, current: Snapshot, encoder_id: str) -> set[tuple[str, str]]:
    """(uid, source_sha256) of the newest file of each episode, where it lies there as it was written."""
    only = pc.field("encoder_id") == encoder_id
    rows = pl.DataFrame(current.read(corpus.root, "latents", _LATENTS, only=only))
    newest = rows.sort("run_id", maintain_order=True).unique("uid", keep="last")
    fresh = newest.filter(lies_there(corpus, newest))
    return set(fresh.select("uid", "video_sha256").iter_rows())


def _by_uid(
    corpus: CorpusLayout, current: Snapshot, table: str, columns: list[str], uids: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    by_uid: dict[str, list[dict[str, Any]]] = {}
    only = pc.field("uid").isin(list(uids))
    for row in current.read(corpus.root, table, columns, only=only).to_pylist():
        by_uid.setdefault(row["uid"], []).append(row)
    return by_uid


def _video_digests(
    corpus: CorpusLayout, current: Snapshot, uids: Sequence[str]
) -> dict[tuple[str, str], str]:
    """sha256 of the video of each (uid, camera)."""
    only = (pc.field("kind") == "video") & pc.field("uid").isin(list(uids))
    rows = current.read(corpus.root, "artifacts", ["uid", "camera", "sha256"], only=only)
    return {(row["uid"], row["camera"]): row["sha256"] for row in rows.to_pylist()}
