"""All checks of one episode's files, as one function that a thread can run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ingest.corpus.committed_episodes import CommittedEpisode
from ingest.verify.files import differs_from_catalog, problem_opening
from ingest.verify.finding import Check, Finding, finding
from ingest.verify.numbering import Place
from ingest.verify.rows import columns_of, numbering_columns, read_rows, texts_of
from ingest.verify.stats import stats_findings
from ingest.verify.values import value_findings
from ingest.verify.video import video_findings


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeCheck:
    """Settings of `__call__`, the same for every episode."""

    corpus: Path
    deep: bool = False

    def __call__(self, item: tuple[CommittedEpisode, Place]) -> list[Finding]:
        stored, place = item
        found: list[Finding] = []
        for camera in stored.cameras:
            if f"observation.images.{camera}" in place.dataset.video_keys:
                found += video_findings(self.corpus, stored, camera, place, deep=self.deep)
        table, problems = self._rows(stored, place)
        found += problems
        if table is not None:
            found += self._table_findings(table, stored, place, is_sound=not found)
        return found

    def _rows(
        self, stored: CommittedEpisode, place: Place
    ) -> tuple[pa.Table | None, list[Finding]]:
        problem = problem_opening(self.corpus, stored.data_path)
        if problem is not None:
            return None, [problem]
        artifact = stored.artifact("data")
        changed = differs_from_catalog(self.corpus, stored.data_path, artifact) if artifact else []
        table, problems = read_rows(self.corpus, stored, place)
        return table, changed + problems

    def _table_findings(
        self, table: pa.Table, stored: CommittedEpisode, place: Place, *, is_sound: bool
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
                yield finding(Check.CONTENT_CHANGED, stored.data_path, what, was)
