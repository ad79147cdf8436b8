"""All checks of one episode's files, as one function that a thread can run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ingest.corpus.committed_episodes import CommittedEpisode
from ingest.verify.files import differs_from_catalog, problem_opening
from ingest.verify.finding import CheckCode, Finding, finding
from ingest.verify.numbering import EpisodePlace
from ingest.verify.rows import columns_of, numbering_columns, read_rows, texts_of
from ingest.verify.stats import stats_findings
from ingest.verify.values import value_findings
from ingest.verify.video import video_findings


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeCheck:
    """Settings of `__call__`, the same for every episode."""

    corpus: Path
    deep: bool = False

    def __call__(self, item: tuple[CommittedEpisode, EpisodePlace]) -> list[Finding]:
        stored, place = item
        findings: list[Finding] = []
        for camera in stored.cameras:
            if f"observation.images.{camera}" in place.dataset.video_keys:
                findings += video_findings(self.corpus, stored, camera, place, deep=self.deep)
        table, problems = self._rows(stored, place)
        findings += problems
        if table is not None:
            findings += self._table_findings(table, stored, place, is_sound=not findings)
        return findings

    def _rows(
        self, stored: CommittedEpisode, place: EpisodePlace
    ) -> tuple[pa.Table | None, list[Finding]]:
        problem = problem_opening(self.corpus, stored.data_path)
        if problem is not None:
            return None, [problem]
        artifact = stored.artifact("data")
        changed = differs_from_catalog(self.corpus, stored.data_path, artifact) if artifact else []
        table, problems = read_rows(self.corpus, stored, place)
        return table, changed + problems

    def _table_findings(
        self, table: pa.Table, stored: CommittedEpisode, place: EpisodePlace, *, is_sound: bool
    ) -> Iterator[Finding]:
        columns, problems = columns_of(table, stored.data_path)
        yield from problems
        yield from numbering_columns(columns, stored, place)
        yield from value_findings(columns, stored, place)
        yield from stats_findings(columns, stored, place)
        texts = texts_of(columns, place.tasks)
        # Once files differ from what was committed that has been said; here the question is the catalog's own rows.
        if is_sound and texts is not None and stored.row.get("erased") is None:
            videos = {a["camera"]: a["sha256"] for a in stored.artifacts if a["kind"] == "video"}
            content = stored.content_sha256(table, texts, videos)
            if content != stored.row["content_sha256"]:
                what, was = f"content {content}", f"{stored.row['content_sha256']} as committed"
                yield finding(CheckCode.CONTENT_CHANGED, stored.data_path, what, was)
