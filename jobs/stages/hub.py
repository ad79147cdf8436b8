"""The work of `eicorpus push`: a corpus or an export to the Hugging Face Hub, or to another folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ingest.corpus.known_files import is_known
from ingest.corpus.layout import MARKER, CorpusLayout, open_corpus
from ingest.corpus.remote_link import read_link
from ingest.corpus.snapshot import load
from ingest.corpus.writer import UNFINISHED
from ingest.export.bucket import Bucket
from ingest.export.datasets.plan import FREE
from ingest.export.datasets.record import (
    CORPUS,
    ORIGIN,
    check_none_erased,
    erased_at,
    origin_of,
    record_push,
)
from ingest.export.datasets.run import PAGE, SEGMENTS, check_files, read_page
from ingest.export.hub import AGAIN, OF_HUB, Hub, LocalFolder, Stored, files_below, hub_at
from ingest.storage.object_store import ObjectStore
from ingest.storage.store_uri import OBJECT_SCHEMES, object_store_uri, scheme_of
from jobs.run_context import new_run_id
from jobs.ui.output import outside, progress_of
from schemas.committed_rows import ExportRow
from schemas.errors import ConfigError, TransientError
from schemas.parquet_file import read_table
from schemas.paths import within

NOT_KEPT = ("staging", "cache")  # rooms of a corpus that a copy does not need
OF_DATASET = ("data", "videos", "meta", "latents")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is pushed. `files`: bytes by path, without the marker. `counts`: of `what` by licence class, tier and source.

    `facts`: what the table `exports` says of it besides its place: manifest, manifest_sha256, num_segments, format, sha256 and uids.
    """

    root: Path
    kind: str  # corpus | export
    marker: str
    files: Mapping[str, int]
    what: str  # episodes | segments
    hours: float
    counts: Mapping[str, Mapping[str, int]]
    snapshot: int  # 0 of an export
    facts: Mapping[str, Any]

    @property
    def num_bytes(self) -> int:
        return sum(self.files.values()) + within(self.root, self.marker).stat().st_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push did, or would do. `deleted`: files of the target that the source lacks.

    `unrecorded`: why no corpus records the copy, "" where one does.
    """

    source: Source
    card: str
    is_private: bool
    deleted: Sequence[str]
    unrecorded: str


def place_at(address: str) -> Hub:
    """The place of an address. Raises as `hub_at` and `object_store_uri`."""
    if scheme_of(address) in OBJECT_SCHEMES:
        return Bucket(ObjectStore(object_store_uri(address)))
    return hub_at(address)


def run_push(
    root: Path,
    hub: Hub,
    *,
    is_private: bool = True,
    allowed_licences: Sequence[str] = (),
    replaces: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Copy a corpus, as its latest snapshot is at the start, or an export. Shows progress on standard error.

    The corpus records the copy before the first byte is sent, so that an erasure names it whatever stops the push. That takes its lock for a
    moment. An export is recorded where its folder names its corpus.

    Raises:
        ConfigError: neither a corpus nor an export, a damaged export, episodes that were erased since, a corpus that is being written or
            cannot be written, a licence that is not allowed, or a target that holds something else or is public; nothing was sent.
        TransientError: the target does not respond, or the corpus changed meanwhile; run again.
    """
    source = source_at(root)
    _check_licences(source, allowed_licences)
    if isinstance(hub, LocalFolder):
        outside(root, hub.folder, "the target")
    corpus, unrecorded = _corpus_of(source)
    if dry_run:
        return Pushed(
            source=source,
            card=card_of(source, hub.address),
            is_private=is_private,
            deleted=(),
            unrecorded=unrecorded,
        )
    stored = hub.look()
    _check_target(source, hub, stored)
    erased = erased_at(corpus, hub.address) if corpus else set()
    _left_over(source, hub, stored, erased, replaces=replaces)
    if stored is not None and is_private and not stored.is_private:
        raise ConfigError(
            "the repository is public", remedy="pass --public to push to it", where=hub.address
        )
    hub.create(is_private=is_private)
    if corpus is not None:
        source = _recorded(source, corpus, hub.address)
        _check_licences(source, allowed_licences)
    deleted = _left_over(source, hub, stored, erased, replaces=replaces)
    with progress_of("files", len(source.files)) as progress:
        hub.upload(root, sorted(source.files), progress)
    _check_unchanged(source)
    hub.finish(root, source.marker, card_of(source, hub.address), deleted)
    if stored is not None:
        is_private = stored.is_private  # a repository stays as it is
    return Pushed(
        source=source,
        card=card_of(source, hub.address),
        is_private=is_private,
        deleted=deleted,
        unrecorded=unrecorded,
    )


def _check_target(source: Source, hub: Hub, stored: Stored | None) -> None:
    """
    Raises:
        ConfigError: a corpus in a bucket is there, to which other machines may have added.
    """
    if isinstance(hub, Bucket) and stored is not None and MARKER in stored.files:
        raise ConfigError(
            "a corpus is there already, and other machines may have added to it",
            remedy="add to it with `eicorpus ingest --out`, or push to an address below which nothing is",
            where=hub.address,
        )


def _corpus_of(source: Source) -> tuple[CorpusLayout | None, str]:
    """The corpus that records the copy; None, and why, for an export that is not known to be of one on this machine.

    Raises:
        ConfigError: episodes of an export were erased.
    """
    if source.kind == CORPUS:
        return CorpusLayout(source.root), ""
    try:
        corpus = origin_of(source.root, read_page(source.root)["manifest"]["corpus_uid"])
    except ConfigError as error:
        return None, str(error)
    check_none_erased(corpus, load(corpus.root), source.facts["uids"])
    return corpus, ""


def _recorded(source: Source, corpus: CorpusLayout, address: str) -> Source:
    """The source as it is once the copy is recorded: a corpus has a snapshot more.

    Raises:
        TransientError: episodes came meanwhile, which the record does not name.
    """
    row = ExportRow(location=address, run_id=new_run_id(), **source.facts)
    record_push(corpus, row)
    after = source_at(source.root)
    if not set(after.facts["uids"]) <= set(row.uids):
        raise _changed(source.root)
    return after


def source_at(root: Path) -> Source:
    """A corpus or an export, with its files.

    Raises:
        ConfigError: neither of them, a damaged export, or a corpus that is being written.
    """
    if (root / PAGE).is_file():
        return _export_at(root)
    corpus = open_corpus(root)
    if (link := read_link(root)) is not None:
        raise ConfigError(
            f"a working copy of {link.uri}, which lacks most files",
            remedy=f"copy the corpus down with `eicorpus pull {link.uri} DIR`, and push that",
            where=str(root),
        )
    _check_idle(root)
    current = load(corpus.root)
    columns = ["source", "licence", "licence_class", "hours", "uid"]
    episodes = current.read(root, "episodes", columns)
    tiers = current.read(root, "tiers", ["tier", "snapshot"])
    newest = tiers.filter(pc.equal(tiers["snapshot"], pc.max(tiers["snapshot"])))
    counts = {name: _counted(episodes[name]) for name in columns[:3]}
    return Source(
        root=root,
        kind=CORPUS,
        marker=MARKER,
        files={n: size for n, size in files_below(root).items() if is_of_corpus(n) and n != MARKER},
        what="episodes",
        hours=float(pc.sum(episodes["hours"]).as_py() or 0.0),
        counts=counts | {"tier": _counted(newest["tier"])},
        snapshot=current.number,
        facts={
            "sha256": "",
            "format": CORPUS,
            "manifest": "",
            "manifest_sha256": "",
            "num_segments": 0,
            "uids": sorted(episodes["uid"].to_pylist()),
        },
    )


def is_of_corpus(name: str) -> bool:
    """Whether a file is part of a copy of a corpus: no lock, no half file, nothing staged or cached."""
    room, *parts = name.split("/")
    if room in NOT_KEPT or any(part.startswith(".") for part in (room, *parts)):
        return False
    if room == "datasets":
        return len(parts) > 3 and parts[2] in OF_DATASET
    if room == "catalog":
        return len(parts) == 2 and name.endswith((".parquet", ".json"))
    return is_known(name)


def is_of_export(name: str) -> bool:
    """Whether a file is part of a copy of an export."""
    return name not in OF_HUB and not any(part.startswith(".") for part in name.split("/"))


def _export_at(root: Path) -> Source:
    page = read_page(root)
    files = files_below(root)
    findings = findings_of(root, page)
    if findings:
        raise ConfigError(
            f"{len(findings)} files are not as they were exported: {findings[0]}",
            remedy="export again into a new folder",
            where=str(root),
        )
    return Source(
        root=root,
        kind="export",
        marker=PAGE,
        files={name: size for name, size in files.items() if name not in (PAGE, ORIGIN)},
        what="segments",
        hours=sum(each["frames"] / each["fps"] for each in page["datasets"]) / 3600,
        counts={
            "licence_class": page["segments_of"]["licence_class"],
            "tier": page["segments_of"]["tier"],
            "source": _counted(read_table(root / SEGMENTS, ["source"])["source"]),
        },
        snapshot=0,
        facts={
            "sha256": page["sha256"],
            "format": page["format"],
            "manifest": page["manifest"]["name"],
            "manifest_sha256": page["manifest"]["rows_sha256"],
            "num_segments": page["segments"],
            "uids": sorted(set(read_table(root / SEGMENTS, ["uid"])["uid"].to_pylist())),
        },
    )


def findings_of(root: Path, page: Mapping[str, Any]) -> list[str]:
    """What is wrong with the files of an export.

    Raises:
        ConfigError: its page is damaged.
    """
    try:
        return list(check_files(root, page))
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"is damaged ({error!r})", where=str(root / PAGE)) from error


def _counted(column: Any) -> dict[str, int]:
    return dict(sorted(Counter(column.to_pylist()).items()))


def _check_idle(root: Path) -> None:
    if (root / UNFINISHED).exists():
        raise ConfigError(
            "another eicorpus command is writing to this corpus, or was stopped",
            remedy="wait until it ends, or run `eicorpus gc`",
            where=str(root),
        )


def _check_unchanged(source: Source) -> None:
    """
    Raises:
        TransientError: a command wrote to the corpus while its files were copied.
    """
    root = source.root
    if source.kind == CORPUS and (
        (root / UNFINISHED).exists() or load(root).number != source.snapshot
    ):
        raise _changed(root)


def _changed(root: Path) -> TransientError:
    return TransientError(
        "another eicorpus command wrote to the corpus while it was copied",
        remedy=f"when it has ended, {AGAIN}",
        where=str(root),
    )


def _check_licences(source: Source, allowed: Sequence[str]) -> None:
    """
    Raises:
        ConfigError: something has a class that is neither free nor allowed.
    """
    classes = source.counts["licence_class"]
    refused = {name: n for name, n in sorted(classes.items()) if name not in (FREE, *allowed)}
    if refused:
        listed = ", ".join(f"{n} {source.what} are {name}" for name, n in refused.items())
        flags = " ".join(f"--allow-licence {name}" for name in refused)
        remedy = f"if their terms let you copy them there, pass {flags}"
        raise ConfigError(f"licence: {listed}", remedy=remedy)


def _left_over(
    source: Source, hub: Hub, stored: Stored | None, erased: Set[str], *, replaces: bool
) -> list[str]:
    """
    Args:
        erased: episodes that were pushed there, and that the corpus has erased since.

    Raises:
        ConfigError: the target has files that the source lacks.
    """
    known = {*source.files, source.marker, *OF_HUB}
    others = sorted(set(stored.files) - known) if stored else []
    if others and not replaces:
        problem = (
            f"the target holds {len(others)} files that {source.root} lacks, such as {others[0]}"
        )
        remedy = "push to another place, or pass --replace to delete them there"
        if erased:
            problem += f"; {len(erased)} episodes that were pushed there were erased since"
            remedy = "pass --replace to delete what is left of them there"
        raise ConfigError(problem, remedy=remedy, where=hub.address)
    return others


def card_of(source: Source, address: str) -> str:
    """The dataset card, as the Hub shows it."""
    number = sum(source.counts["licence_class"].values())
    read = f"eicorpus pull {address} DIR"
    if source.kind == CORPUS:
        read += "\neicorpus query DIR 'SELECT source, count(*) FROM episodes GROUP BY source'"
        holds = f"a corpus of eicorpus, snapshot {source.snapshot}: LeRobot v2.1 datasets"
    else:
        holds = "an export of eicorpus: datasets for a trainer, and `eicorpus_export.json`"
    titles = {
        "licence": "Licences",
        "licence_class": "Licence classes",
        "tier": "Tiers (segments)",
        "source": "Sources",
    }
    tables = [
        f"## {title}\n\n| | |\n|-|-|\n"
        + "".join(_line(*row) for row in source.counts[name].items())
        for name, title in titles.items()
        if source.counts.get(name)
    ]
    return (
        "---\nlicense: other\ntask_categories:\n- robotics\n"
        "tags:\n- LeRobot\n- robotics\n- eicorpus\n---\n\n"
        f"# {address.partition('@')[0].rpartition('/')[2]}\n\nThis is {holds}.\n\n"
        f"{source.hours:,.2f} hours, {number:,} {source.what}, {len(source.files) + 1:,} files.\n"
        "The terms of each source apply to its part.\n\n"
        f"```\n{read}\n```\n\n" + "\n".join(tables)
    )


def _line(name: str, count: int) -> str:
    text = " ".join(name.split()).replace("|", "\\|").replace("<", "&lt;")
    return f"| {text} | {count:,} |\n"
