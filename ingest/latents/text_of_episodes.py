"""Every text that a manifest may choose for a segment of one episode, and when it holds. Pure.

Which text it will be is decided when a manifest is built (`ingest/curation/manifests/sql.py`), and features come before: so all candidates
are told to the model. What has no text at all is told "".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ingest.corpus.layout import video_file
from ingest.curation.captions.select import is_usable
from schemas.text_features import (
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
