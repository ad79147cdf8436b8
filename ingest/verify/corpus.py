"""Verifies a corpus against its latest snapshot, episode by episode in threads, with bounded memory."""

from __future__ import annotations

import fcntl
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from ingest.corpus import reviews
from ingest.corpus.commit import datasets_without_episodes
from ingest.corpus.committed_episodes import (
    CommittedEpisode,
    committed_batches,
    erased_places,
    in_order,
)
from ingest.corpus.erasure import unfinished
from ingest.corpus.erasure_page import FOLDER as ERASURES
from ingest.corpus.erasure_page import unfinished_erasures
from ingest.corpus.layout import CorpusLayout, open_corpus
from ingest.corpus.lerobot_meta import Dataset, JsonlAppends, info_of, task_lines
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.working_copy import WorkingCopy
from ingest.recipe import Recipe
from ingest.verify.accounting import accounting_findings, foreign_files
from ingest.verify.bucket import FetchedObjects
from ingest.verify.catalog import blocks_the_rest, latest_snapshot, marker_findings, part_findings
from ingest.verify.files import differs_from_catalog, problem_opening
from ingest.verify.finding import CheckCode, Finding, finding
from ingest.verify.latents import latents_findings
from ingest.verify.meta import MetaComparison, extra_files
from ingest.verify.rows import (
    EpisodePlace,
    columns_of,
    number,
    numbering_columns,
    numbering_findings,
    read_rows,
    texts_of,
)
from ingest.verify.values import stats_findings, value_findings
from ingest.verify.video import profile_not_played, video_findings
from schemas.errors import ConfigError
from schemas.invalid import reason
from schemas.json_text import parse_json


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedEpisode:
    """`not_played`: H.264 profile and path of each video that browsers do not play, which is no finding."""

    findings: list[Finding]
    not_played: list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeCheck:
    """Settings of `__call__`, the same for every episode."""

    corpus: Path
    deep: bool = False

    def __call__(self, item: tuple[CommittedEpisode, EpisodePlace]) -> CheckedEpisode:
        stored, place = item
        findings: list[Finding] = []
        not_played: list[tuple[str, str]] = []
        for camera in stored.cameras:
            if f"observation.images.{camera}" in place.dataset.video_keys:
                findings += video_findings(self.corpus, stored, camera, place, deep=self.deep)
                path = stored.video_path(camera)
                if profile := profile_not_played(self.corpus, path):
                    not_played.append((profile, path))
        table, problems = self._rows(stored, place)
        findings += problems
        if table is not None:
            findings += self._table_findings(table, stored, place, is_sound=not findings)
        return CheckedEpisode(findings=findings, not_played=not_played)

    def _rows(
        self, stored: CommittedEpisode, place: EpisodePlace
    ) -> tuple[pa.Table | None, list[Finding]]:
        problem = problem_opening(self.corpus, stored.data_path)
        if problem is not None:
            return None, [problem]
        artifact = stored.artifact("data")
        changed = (
            differs_from_catalog(self.corpus, stored.data_path, artifact.num_bytes, artifact.sha256)
            if artifact
            else []
        )
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
        if is_sound and texts is not None and not stored.is_erased:
            videos = {str(a.camera): str(a.sha256) for a in stored.artifacts if a.kind == "video"}
            content = stored.content_sha256(table, texts, videos)
            if content != stored.row.content_sha256:
                what, was = f"content {content}", f"{stored.row.content_sha256} as committed"
                yield finding(CheckCode.CONTENT_CHANGED, stored.data_path, what, was)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedEpisodeCheck:
    """As `EpisodeCheck`, of objects of a bucket."""

    check: EpisodeCheck
    objects: FetchedObjects

    def __call__(self, item: tuple[CommittedEpisode, EpisodePlace]) -> CheckedEpisode:
        stored, _ = item
        sizes = {each.path: each.num_bytes for each in stored.artifacts}
        paths = [stored.data_path, *map(stored.video_path, stored.cameras)]
        with self.objects.files([(path, sizes.get(path)) for path in paths]) as folder:
            return replace(self.check, corpus=folder)(item)


MAX_GOP = 300  # what a recipe may ask for at most: the bound where a stopped run left no row with its recipe


@dataclass(kw_only=True)
class NotPlayed:
    """Videos of one profile. `first`: the path of one of them."""

    first: str
    videos: int = 0


@dataclass(kw_only=True)
class VerifyProgress:
    """How far it is, and in the end how much was looked at."""

    total: int = 0  # episodes
    episodes: int = 0
    frames: int = 0
    datasets: list[str] = field(default_factory=list)
    snapshot: int = 0
    not_played: dict[str, NotPlayed] = field(default_factory=dict)  # by H.264 profile


Progress = Callable[[VerifyProgress], None]


def verify(
    path: Path,
    *,
    progress: Progress = lambda seen: None,
    workers: int = 2,
    deep: bool = False,
    bucket: WorkingCopy | None = None,
) -> list[Finding]:
    """Everything that does not hold, sorted by path. Empty when all is well.

    Args:
        path: the corpus; it is only read.
        progress: called after each episode.
        workers: threads that read and hash files.
        deep: decode every picture of every video instead of the first and the last.
        bucket: `path` as a working copy, which has the newest catalog and `meta/` of every dataset. Every object is read, whatever copies are
            here, and none is kept.

    Raises:
        ConfigError: no corpus, one of a newer format, or one that is being written.
    """
    corpus = open_corpus(path)
    _refuse_while_written(corpus)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="verify")
    try:
        check = EpisodeCheck(corpus=path, deep=deep)
        if bucket is None:
            return sorted(_Verification(corpus.root, pool, progress, check).findings())
        with tempfile.TemporaryDirectory(prefix="eicorpus-") as folder:
            objects = FetchedObjects(bucket.store, Path(folder))
            run = _Verification(corpus.root, pool, progress, check, objects)
            return sorted([*_half_done_there(bucket), *run.findings()])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Verification:
    """One pass over a corpus: the order of episodes decides numbering, so it is followed here. Files go to threads."""

    def __init__(
        self,
        root: Path,
        pool: Executor,
        progress: Progress,
        check: EpisodeCheck,
        objects: FetchedObjects | None = None,
    ) -> None:
        self.root, self.pool, self.progress, self.check = root, pool, progress, check
        self.objects = objects
        self.datasets: dict[str, Dataset] = {}
        self.meta: dict[str, MetaComparison] = {}
        self.gops = {Recipe().digest: Recipe().video.gop}
        self.seen = VerifyProgress()

    def findings(self) -> Iterator[Finding]:
        yield from marker_findings(self.root)
        current, problems = latest_snapshot(self.root)
        yield from problems
        if current is None:
            return
        if half := unfinished(CorpusLayout(self.root), current):
            yield _half_done(half[0].relative_to(self.root).as_posix())
            return
        problems = part_findings(self.root, current, self.pool, self.objects)
        yield from problems
        if blocks_the_rest(problems):
            return
        yield from accounting_findings(self.root, current)
        yield from self._describe(current)
        yield from self._reviews(current)
        yield from self._pinned()
        erased = erased_places(self.root, current)
        for batch in in_order(committed_batches(self.root, current), erased):
            yield from self._batch(batch)
        for path, dataset in self.datasets.items():
            yield from self.meta[path].finish(dataset)
        yield from extra_files(self.root, self.datasets)
        yield from foreign_files(self.root)
        deep = self.check.deep
        yield from latents_findings(self.root, current, self.pool, deep=deep, objects=self.objects)

    def _describe(self, current: Snapshot) -> Iterator[Finding]:
        """Load what is small: the datasets and the recipes of finished runs."""
        try:
            self.datasets = datasets_without_episodes(self.root, current)
            for dataset in self.datasets.values():
                info_of(dataset)
            for row in current.read(
                self.root, "runs", ["recipe_digest", "recipe_json"]
            ).to_pylist():
                recipe = Recipe.model_validate(parse_json(row["recipe_json"]))
                self.gops[row["recipe_digest"]] = recipe.video.gop
        except (ValueError, KeyError, TypeError) as error:
            yield _bad_content(error)
        self.meta = {path: MetaComparison(self.root, path) for path in self.datasets}
        self.seen.total = sum(part.rows for part in current.parts("episodes"))
        self.seen.snapshot, self.seen.datasets = current.number, sorted(self.datasets)
        self.progress(self.seen)

    def _reviews(self, current: Snapshot) -> Iterator[Finding]:
        """The table and the journal can be read, and have each review once."""
        try:
            rows = reviews.published(CorpusLayout(self.root), current)
            reviews.read(CorpusLayout(self.root), current)
        except ConfigError as error:
            yield finding(CheckCode.CATALOG_CONTENT, error.where, error.message, "reviews")
            return
        counts = Counter(row.review_id for row in rows)
        for review_id, count in counts.items():
            if count > 1:
                rows_of_id = f"{count} rows of {review_id}"
                yield finding(CheckCode.CATALOG_CONTENT, "catalog/reviews", rows_of_id, "one")

    def _pinned(self) -> Iterator[Finding]:
        """Tasks that an erasure numbered come before those of any episode."""
        for path, dataset in self.datasets.items():
            yield from self.meta[path].feed(JsonlAppends(tasks=task_lines(dataset)))

    def _batch(self, batch: list[CommittedEpisode]) -> Iterator[Finding]:
        """Number the episodes in their order, compare `meta/`, and let threads look at the files."""
        work: list[tuple[CommittedEpisode, EpisodePlace]] = []
        lines: dict[str, JsonlAppends] = {}
        for stored in batch:
            try:
                yield from self._place(stored, work, lines)
            except (ValueError, KeyError, TypeError) as error:
                yield _bad_content(error)
        for path, added in lines.items():
            yield from self.meta[path].feed(added)
        yield from self._files(work)

    def _place(
        self,
        stored: CommittedEpisode,
        work: list[tuple[CommittedEpisode, EpisodePlace]],
        lines: dict[str, JsonlAppends],
    ) -> Iterator[Finding]:
        path = stored.row.dataset_path
        dataset = self.datasets.get(path)
        if dataset is None:
            what = f"episode {stored.row.uid} of a dataset that has no features"
            yield finding(CheckCode.CATALOG_CONTENT, path, what, sorted(self.datasets))
            return
        expected_index = dataset.episodes
        gop = self.gops.get(stored.row.recipe_digest, MAX_GOP)
        place = number(stored, dataset, lines.setdefault(path, JsonlAppends()), gop)
        yield from numbering_findings(stored, place, expected_index)
        work.append((stored, place))

    def _files(self, work: list[tuple[CommittedEpisode, EpisodePlace]]) -> Iterable[Finding]:
        check = (
            self.check
            if self.objects is None
            else FetchedEpisodeCheck(check=self.check, objects=self.objects)
        )
        for (stored, _), checked in zip(work, self.pool.map(check, work), strict=True):
            if not stored.is_erased:
                self.seen.episodes += 1
                self.seen.frames += stored.row.length
            for profile, path in checked.not_played:
                self.seen.not_played.setdefault(profile, NotPlayed(first=path)).videos += 1
            self.progress(self.seen)
            yield from checked.findings


def _half_done_there(bucket: WorkingCopy) -> Iterator[Finding]:
    for run_id in unfinished_erasures(bucket):
        yield _half_done(f"{ERASURES}: {run_id}")


def _half_done(path: str) -> Finding:
    what = "an erasure that is committed and not finished"
    return finding(CheckCode.ERASURE_UNFINISHED, path, what, "a finished erasure")


def _bad_content(error: Exception) -> Finding:
    problem = f"{type(error).__name__}: {reason(error)}"
    return finding(CheckCode.CATALOG_CONTENT, "catalog", problem, "rows as ingestion writes them")


def _refuse_while_written(corpus: CorpusLayout) -> None:
    """Files of a batch appear before its snapshot, so a run at work would look like damage."""
    try:
        file = (corpus.root / ".writer").open("rb")
    except OSError:  # never written to on this machine, or not ours to lock
        return
    with file, suppress(OSError):
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            problem = "another eicorpus command is writing to this corpus"
            raise ConfigError(
                problem, remedy="run verify after it ends", where=str(corpus.root)
            ) from error
