"""Checks that a manifest is what was published and that the corpus still holds what it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pyarrow.compute as pc

from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.manifest_folders import open_manifest_folder
from ingest.corpus.snapshot import Snapshot
from ingest.curation.manifests.issue import Issue, IssueKind
from ingest.curation.manifests.mixture_text import mixture_from
from ingest.curation.tiers.policy import policy_from
from ingest.curation.tiers.policy_loader import parse_policy_text
from ingest.storage.local import within
from ingest.verify.files import (
    difference_within,
    differs_from_catalog,
    in_batches,
    problem_opening,
    sha256_of,
)
from ingest.verify.finding import CheckCode
from ingest.verify.meta import meta_flaws
from schemas.catalog_rows import CatalogRow, rows_of
from schemas.errors import ConfigError
from schemas.latent_header import MAX_TEXT_HEADER_BYTES, Span, read_tensors, span_of
from schemas.manifest import (
    FACTS_FILE,
    ManifestFacts,
    Redaction,
    how_to_mend,
    load_redaction,
    load_rows,
    odd_num_rows,
    read_page,
    rows_sha256,
)


def page_flaws(
    corpus: Path, folder: Path, facts: ManifestFacts, odd_page: str, odd_num_rows: str
) -> Iterator[Issue]:
    """Of the manifest in a folder. `odd_*`: what `read_page` and `odd_num_rows` say. A changed page is reported once: its texts are not compared."""
    texts = {} if odd_page else _by_text(facts)
    odd = [
        f"{name} {difference}"
        for name, (difference, is_read) in texts.items()
        if difference and is_read
    ]
    for message in filter(None, [odd_page, odd_num_rows, *odd]):
        problem = f"{message}; {how_to_mend(folder)}"
        what = (folder / FACTS_FILE).relative_to(corpus).as_posix()
        yield Issue(what=what, fault=IssueKind.PAGE_CHANGED, message=problem)


def unread_notes(facts: ManifestFacts) -> list[str]:
    """Texts of another version of the program, which have no digest here."""
    return [f"{name} {note}" for name, (note, is_read) in _by_text(facts).items() if not is_read]


def _by_text(facts: ManifestFacts) -> dict[str, tuple[str, bool]]:
    """What is wrong with each text, or "", and whether it could be read at all."""
    policy, mixture = facts.policy, facts.mixture
    return {
        "policy.text": _compared(policy.digest, lambda: _policy_digest(policy.name, policy.text)),
        "mixture.text": _compared(
            mixture.digest, lambda: mixture_from(mixture.text, "mixture.text").digest
        ),
    }


def _policy_digest(name: str, text: str) -> str:
    return policy_from(parse_policy_text(text, name)).digest


def _compared(stated: str, digest: Callable[[], str]) -> tuple[str, bool]:
    try:
        actual = digest()
    except ConfigError as error:
        return f"cannot be read on this machine, so its digest was not checked: {error}", False
    return ("" if actual == stated else f"has digest {actual}; the page records {stated}"), True


ERASED = "erased; readers skip it; build a new manifest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """`notes` are no faults: the corpus has grown, say."""

    facts: ManifestFacts
    flaws: tuple[Issue, ...]
    notes: tuple[str, ...]
    files: int


def verify_manifest(
    corpus: CorpusLayout,
    corpus_uid: str,
    name: str,
    *,
    is_quick: bool = False,
    workers: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Verified:
    """Everything about one manifest; `is_quick` compares sizes of files, not their content.

    Raises:
        ConfigError: there is no such manifest, or its page cannot be read.
    """
    folder = open_manifest_folder(corpus.root, name)
    facts, odd_page = read_page(folder)
    rows = load_rows(folder)
    current = snapshot.load(corpus.root)
    taken_out = load_redaction(folder)
    digest = rows_sha256(rows)
    is_as_published = digest in {facts.rows_sha256, *taken_out.rows_sha256}
    flaws = list(
        _whole_flaws(corpus, corpus_uid, facts, current, "" if is_as_published else digest)
    )
    flaws += page_flaws(
        corpus.root, folder, facts, odd_page, odd_num_rows(facts, rows.num_rows, taken_out)
    )
    flaws += meta_flaws(corpus.root, current, rows["dataset_path"].unique().to_pylist())
    flaws += _taken_out(corpus.root, current, taken_out)
    frame = pl.DataFrame(rows.select(["uid", "dataset_path", "episode_index", "content_sha256"]))
    flaws += _episode_flaws(corpus.root, current, frame.unique("uid"))
    files = [*_artifacts(corpus.root, current, frame), *_latents(corpus.root, current, rows)]
    check = partial(_file_flaws, corpus.root, is_quick=is_quick)
    with ThreadPoolExecutor(workers) as pool:
        for done, flaws_of_file in enumerate(in_batches(pool, check, files), start=1):
            flaws += flaws_of_file
            progress(done, len(files))
    notes = [] if odd_page else unread_notes(facts)
    if current.number > facts.snapshot:
        notes.append(
            f"built from snapshot {facts.snapshot}; the corpus is now at {current.number}: "
            "later episodes are not included"
        )
    return Verified(
        facts=facts, flaws=tuple(sorted(set(flaws))), notes=tuple(notes), files=len(files)
    )


def _whole_flaws(
    corpus: CorpusLayout, corpus_uid: str, facts: ManifestFacts, current: Snapshot, odd_sha256: str
) -> Iterator[Issue]:
    folder = f"manifests/{facts.name}"
    if odd_sha256:
        message = f"the rows have digest {odd_sha256}; the manifest was published with {facts.rows_sha256}"
        yield Issue(what=folder, fault=IssueKind.ROWS_CHANGED, message=f"{message}; restore it")
    if facts.corpus_uid != corpus_uid:
        message = (
            f"the manifest was built from corpus {facts.corpus_uid}, this is corpus {corpus_uid}"
        )
        yield Issue(what=folder, fault=IssueKind.OTHER_CORPUS, message=message)
    path = corpus.path(f"{snapshot.FOLDER}/{facts.snapshot:08d}.json")
    if not path.is_file():
        message = f"the manifest was built from snapshot {facts.snapshot}, which this corpus does not have (latest: {current.number})"
        yield Issue(what=folder, fault=IssueKind.SNAPSHOT_GONE, message=message)


def _episode_flaws(root: Path, current: Snapshot, named: pl.DataFrame) -> Iterator[Issue]:
    """Episodes that were forgotten, are gone, or are others now."""
    columns = ["uid", "dataset_path", "episode_index", "content_sha256"]
    have = pl.DataFrame(current.read(root, "episodes", columns))
    forgotten = set(current.read(root, "tombstones", ["uid"])["uid"].to_pylist())
    for uid in named.join(have, on="uid", how="anti")["uid"].sort():
        fault, message = IssueKind.EPISODE_GONE, f"not in snapshot {current.number}"
        if uid in forgotten:
            fault, message = IssueKind.FORGOTTEN, ERASED
        yield Issue(what=uid, fault=fault, message=message)
    both = named.join(have, on="uid", suffix="_now")
    is_other = pl.any_horizontal(pl.col(c) != pl.col(f"{c}_now") for c in columns[1:])
    for row in both.filter(is_other).sort("uid").iter_rows(named=True):
        changed = [c for c in columns[1:] if row[c] != row[f"{c}_now"]]
        changes = "; ".join(f"{c} was {row[c]} and is now {row[f'{c}_now']}" for c in changed)
        yield Issue(what=row["uid"], fault=IssueKind.EPISODE_CHANGED, message=changes)


def _taken_out(root: Path, current: Snapshot, done: Redaction) -> Iterator[Issue]:
    """Episodes whose rows an erasure took out, by the uid in their tombstones."""
    if not done.erased:
        return
    columns = ["uid", "dataset_path", "episode_index"]
    buried = {
        (row["dataset_path"], row["episode_index"]): row["uid"]
        for row in current.read(root, "tombstones", columns).to_pylist()
    }
    for each in done.erased:
        place = (each.dataset_path, each.episode_index)
        what = buried.get(place, f"{each.dataset_path} episode {each.episode_index}")
        yield Issue(what=what, fault=IssueKind.FORGOTTEN, message=ERASED)


@dataclass(frozen=True, slots=True, kw_only=True)
class _NamedFile(CatalogRow):
    """A file that a manifest needs; `num_bytes` is None where the catalog does not name it."""

    TABLE: ClassVar[str] = "artifacts"

    path: str
    num_bytes: int | None
    sha256: str
    pack_offset: int | None = None


def _artifacts(root: Path, current: Snapshot, frame: pl.DataFrame) -> list[_NamedFile]:
    """Data and videos of the manifest's episodes."""
    columns = ["uid", "kind", "path", "num_bytes", "sha256"]
    no_pack = pl.lit(None, pl.Int64).alias("pack_offset")
    only = pc.field("kind").isin(["data", "video"])
    have = pl.DataFrame(current.read(root, "artifacts", columns, only=only))
    latest = have.join(frame.select("uid").unique(), on="uid", how="semi").unique(
        "path", keep="last"
    )
    return rows_of(_NamedFile, latest.with_columns(no_pack).sort("path").to_arrow())


def _latents(root: Path, current: Snapshot, rows: Any) -> list[_NamedFile]:
    """Files of latents."""
    frame = pl.DataFrame(rows.select(["latents"])).explode("latents").drop_nulls()
    if not len(frame):
        return []
    key = ["path", "pack_offset", "sha256"]
    sizes = pl.DataFrame(current.read(root, "latents", [*key, "num_bytes"])).unique(key)
    named = frame.unnest("latents").select(*key, pl.col("num_bytes").alias("stated"))
    files = named.unique()  # rows that say other things of one place are all compared
    sized = files.join(sizes, on=key, how="left", nulls_equal=True)
    # of a member of a pack the manifest itself says the size
    whole = sized.with_columns(pl.coalesce("stated", "num_bytes").alias("num_bytes"))
    return rows_of(_NamedFile, whole.sort("path", "pack_offset").to_arrow())


def _file_flaws(root: Path, file: _NamedFile, *, is_quick: bool) -> list[Issue]:
    """What is wrong with one file, or nothing."""
    path = file.path
    problem = problem_opening(root, path)
    if problem is not None:
        is_missing = problem.check is CheckCode.FILE_MISSING
        fault = IssueKind.FILE_MISSING if is_missing else IssueKind.FILE_UNREADABLE
        return [Issue(what=path, fault=fault, message=problem.message)]
    if (span := span_of(file.pack_offset, file.num_bytes)) is not None:
        return _member_flaws(within(root, path), file, span, is_quick=is_quick)
    if file.num_bytes is None:
        try:  # its own header has its size: what is of another size is not read
            read_tensors(within(root, path), max_bytes=MAX_TEXT_HEADER_BYTES)
        except ConfigError as error:
            return [Issue(what=path, fault=IssueKind.FILE_CHANGED, message=error.message)]
        digest = "" if is_quick else sha256_of(within(root, path))
        same = is_quick or digest == file.sha256
        message = f"sha256 is {digest}; the manifest records {file.sha256}"
        return [] if same else [Issue(what=path, fault=IssueKind.FILE_CHANGED, message=message)]
    size = within(root, path).stat().st_size
    if is_quick:
        message = f"{size} bytes; expected {file.num_bytes} as committed"
        same = size == file.num_bytes
        return [] if same else [Issue(what=path, fault=IssueKind.FILE_CHANGED, message=message)]
    return [
        Issue(what=path, fault=IssueKind.FILE_CHANGED, message=each.message)
        for each in differs_from_catalog(root, path, file.num_bytes, file.sha256)
    ]


def _member_flaws(path: Path, file: _NamedFile, span: Span, *, is_quick: bool) -> list[Issue]:
    """Of a member of a pack; `is_quick`: the pack has room for it."""
    if is_quick:
        size = path.stat().st_size
        changed = "" if span.fits(size) else f"a pack of {size} bytes"
    else:
        changed = difference_within(path, span, file.sha256)
    expected = f"{span.num_bytes} bytes at byte {span.start}, sha256 {file.sha256} as committed"
    message = f"{changed}; expected {expected}"
    return [Issue(what=file.path, fault=IssueKind.FILE_CHANGED, message=message)] if changed else []
