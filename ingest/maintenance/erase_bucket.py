"""`eicorpus forget` of a corpus in a bucket: an entry of the log, and after it the objects.

1. The lanes of the episodes are sealed: their sessions number no further episode, so places and task numbers stay.
2. Placeholder files for the episodes are uploaded under other names, with a page that says which file each one replaces.
3. An entry of kind `erase` replaces the catalog files that have rows of the episodes, in the newest state and in every older one. If another
   writer takes its number, the erasure is worked out anew from the state then.
4. Objects follow: placeholder files replace data and videos; catalog files, latents and lines of logs are deleted; packs and manifests are written again
   without the episodes. Each step may be done again, by any machine, until the page is deleted.

This is the one command that replaces objects. It does so after its entry, and the bytes are those that the entry names, or bytes without the
episodes of every erasure that is known. It reads the log again after that, and begins again if another erasure has landed. So two at once
do not undo each other. ADR 94 says what a late request of a process that died can still do.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import pyarrow.compute as pc

from ingest.corpus import commit_log, lerobot_meta, remote_staging, snapshot
from ingest.corpus.commit import datasets_of
from ingest.corpus.commit_log import (
    AddedBeside,
    Conflict,
    Erasure,
    LogEntry,
    change_between,
    following,
)
from ingest.corpus.committed_files import CommittedFile
from ingest.corpus.erasure import files_in_places, scrub_logs
from ingest.corpus.erasure_page import FOLDER, PAGE, ErasurePage, begun_erasures, read_page
from ingest.corpus.lanes import LOGS
from ingest.corpus.latent_packs import erase_members
from ingest.corpus.layout import REPORT, CorpusLayout
from ingest.corpus.lerobot_meta import Dataset
from ingest.corpus.shared_manifests import fetch_manifests, share_redactions
from ingest.corpus.shared_store import MOST_PACK_BYTES
from ingest.corpus.snapshot import Part, Snapshot
from ingest.corpus.tombstones import tombstones
from ingest.corpus.working_copy import WorkingCopy
from ingest.corpus.writer import rebuild, recover
from ingest.maintenance.erasure_plan import (
    AffectedPart,
    EpisodeSelection,
    ErasureImpact,
    ErasurePreview,
    erasure_impact,
    find_episodes,
    rewrite_parts,
)
from ingest.maintenance.tombstone_writer import (
    ErasureRequest,
    PlaceholderFile,
    frozen_tasks,
    pinned_row,
    tombstone,
    write_placeholders,
)
from ingest.storage.local import LocalStorage
from schemas.catalog import TABLES
from schemas.committed_rows import ArtifactRow, TombstoneRow
from schemas.errors import Code, ConfigError, SourceError
from schemas.latent_pack import is_pack_of, is_place_of
from schemas.parquet_file import read_schema, read_table
from schemas.paths import within

MOST_TRIES = 8
MOST_LOG_BYTES = 1 << 34
_LANE = re.compile(r"datasets/[^/]+/[^/]+\.(lane-[1-9][0-9]{0,17})")


def forget_in_bucket(
    copy: WorkingCopy,
    disk: LocalStorage,
    uids: Sequence[str],
    *,
    reason: str,
    run_id: str,
    erased_at: datetime,
) -> tuple[ErasurePreview, Snapshot]:
    """Erase episodes. The caller holds the writer lock of the working copy. Stopped ones are finished first.

    Returns:
        What went, and the state without it; the one there was when all were forgotten before.

    Raises:
        ConfigError: an unknown episode, or a damaged state; nothing was changed.
        Conflict: other writers commit too fast.
        TransientError: the store does not answer. Run it again.
    """
    request = ErasureRequest(reason=reason, run_id=run_id, at=erased_at)
    for _ in range(MOST_TRIES):
        copy.refresh()
        finish_erasures(copy, disk)
        fetch_manifests(copy)
        state = copy.refresh()
        attempt = _Attempt(copy=copy, disk=disk, request=request)
        try:
            looked, entry = attempt.prepared(state, uids)
            if entry is None:
                return looked, state
            if attempt.append(entry):
                state = copy.refresh()
                finish_erasures(copy, disk)
                return looked, state
        finally:
            attempt.clean()
    raise Conflict(
        f"other writers committed first, {MOST_TRIES} times",
        remedy="run the same command again",
        where=copy.link.uri,
    )


@dataclass(slots=True, kw_only=True)
class _History:
    """Every part that any state has. `first`: path -> the number of the first state that has it. `lanes`: of those that are not
    sealed, the token of the last session."""

    first: dict[str, int] = field(default_factory=dict)
    parts: dict[str, dict[str, Part]] = field(default_factory=lambda: {t: {} for t in TABLES})
    lanes: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def of(copy: WorkingCopy) -> _History:
        """By the log, and by the states of checkpoints that no log made."""
        history, replaced, sealed = _History(), set[str](), set[str]()
        for number in snapshot.numbers_in(copy.store.list(snapshot.FOLDER)):
            state = snapshot.load_from(copy.store, number)
            history._take(number, ((t, part) for t in TABLES for part in state.parts(t)))
        numbers = (commit_log.number_of(key) for key in copy.store.list(commit_log.FOLDER))
        for entry in copy.log.after(min((n for n in numbers if n), default=1) - 1):
            history._take(entry.number, entry.change.parts)
            if entry.erasure is not None:
                replaced |= {*entry.erasure.instead}
                history._take(entry.number, entry.erasure.parts)
            if entry.kind == "seal":
                sealed.add(entry.lane)
            elif entry.lane:
                history.lanes[entry.lane] = entry.token
        for parts in history.parts.values():
            for path in replaced & {*parts}:
                del parts[path]
        for lane in sealed & {*history.lanes}:
            del history.lanes[lane]
        return history

    def _take(self, number: int, parts: Iterable[tuple[str, Part]]) -> None:
        for table, part in parts:
            self.parts[table].setdefault(part.path, part)
            self.first[part.path] = min(number, self.first.get(part.path, number))

    def as_snapshot(self) -> Snapshot:
        return Snapshot(tables={t: tuple(parts.values()) for t, parts in self.parts.items()})


@dataclass(slots=True, kw_only=True)
class _Attempt:
    """One try to commit an erasure. `placed`: its catalog files; `staged`: what shall lie in the places; `may_land`: its entry may stand."""

    copy: WorkingCopy
    disk: LocalStorage
    request: ErasureRequest
    commit_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    placed: list[Part] = field(default_factory=list)
    staged: dict[str, Path] = field(default_factory=dict)
    page: dict[str, object] = field(default_factory=dict)
    local_parts: list[str] = field(default_factory=list)  # that were written or fetched
    may_land: bool = False

    @property
    def corpus(self) -> CorpusLayout:
        return CorpusLayout(self.copy.root)

    @property
    def folder(self) -> Path:
        """Where what is uploaded is made."""
        return self.corpus.path(f"staging/erase.{self.request.run_id}")

    def prepared(
        self, state: Snapshot, uids: Sequence[str]
    ) -> tuple[ErasurePreview, LogEntry | None]:
        """What goes, and the entry; none where all were erased before."""
        root = self.copy.root
        while True:
            datasets = datasets_of(root, state)
            recover(self.corpus, self.disk, state, datasets)
            selection = find_episodes(self.corpus, state, uids)
            if not selection.uids:
                return erasure_impact(self.corpus, state, selection, [state]).looked, None
            history = _History.of(self.copy)
            lanes = {match[1] for path in selection.datasets if (match := _LANE.fullmatch(path))}
            unsealed = sorted(lanes & {*history.lanes})
            if not unsealed:
                break
            for lane in unsealed:
                state = self._sealed(state, lane, history.lanes[lane])
            state = self.copy.refresh()
        self._fetch(history)
        impact = erasure_impact(self.corpus, state, selection, [state, history.as_snapshot()])
        first = min((history.first[each.part.path] for each in impact.parts), default=state.number)
        looked = replace(impact.looked, snapshots=state.number - first + 1)
        return looked, self._entry(state, selection, impact, datasets)

    def _sealed(self, state: Snapshot, lane: str, token: int) -> Snapshot:
        seal = LogEntry(number=1, run_id=self.request.run_id, kind="seal", lane=lane, token=token)
        while True:
            entry = replace(seal, number=state.number + 1, parent=state.commit_id)
            standing = self.copy.log.append(entry)
            state = following(state, standing)
            if standing.commit_id == entry.commit_id:
                return state

    def _fetch(self, history: _History) -> None:
        """Have the catalog files of all states here."""
        parts = [part for parts in history.parts.values() for part in parts.values()]
        missing = [part for part in parts if not within(self.copy.root, part.path).exists()]
        self.local_parts += [part.path for part in missing]
        self.copy.fetch_files([CommittedFile(p.path, p.num_bytes, p.sha256) for p in missing])

    def _entry(
        self,
        state: Snapshot,
        selection: EpisodeSelection,
        impact: ErasureImpact,
        datasets: Mapping[str, Dataset],
    ) -> LogEntry:
        root, run_id = self.copy.root, self.request.run_id
        tasks = frozen_tasks(root, state, selection, datasets)
        self.disk.make_dir(self.folder)
        lying = write_placeholders(
            self.corpus,
            self.disk,
            selection,
            self.folder,
            {path: (datasets[path], texts) for path, texts in tasks.items()},
        )
        by = rewrite_parts(self.disk, root, impact.parts, impact.doomed)
        instead = {path: part and self._placed(part, state) for path, part in by.items()}
        added, alone = self._tombstones(state, selection, impact, lying)
        added += self._pins(state, selection, impact, tasks)
        erasure = Erasure(instead=instead, added=tuple(added))
        tables = erasure.applied(state.tables)
        tables["tombstones"] = (*tables.get("tombstones", ()), *alone)
        self.staged = {
            each.name: within(self.folder, each.name) for some in lying.values() for each in some
        }
        self.page = {
            "number": state.number + 1,
            "run_id": run_id,
            "files": {each.name: each.row["path"] for some in lying.values() for each in some},
            "packs": sorted(
                pack
                for pack in _packs(root, impact.parts, {*selection.uids})
                if _is_pack(pack, selection.datasets)
            ),
        }
        return LogEntry(
            number=state.number + 1,
            run_id=run_id,
            kind="erase",
            change=change_between(state, tables),
            parent=state.commit_id,
            commit_id=self.commit_id,
            erasure=erasure,
        )

    def _tombstones(
        self,
        state: Snapshot,
        selection: EpisodeSelection,
        impact: ErasureImpact,
        lying: Mapping[str, Sequence[PlaceholderFile]],
    ) -> tuple[list[AddedBeside], list[Part]]:
        """Tombstones of committed episodes, each for the states that have the episode, and those of others, for the newest state."""
        added, alone = [], []
        for uid in selection.uids:
            row = tombstone(uid, selection, lying.get(uid, ()), self.request)
            part = self._placed(
                snapshot.write_part(self.disk, self.copy.root, TombstoneRow, [row]), state
            )
            beside = tuple(e.part.path for e in _episodes(impact) if uid in e.uids)
            if uid in selection.episodes:
                added.append(AddedBeside(table="tombstones", part=part, beside=beside))
            else:
                alone.append(part)
        return added, alone

    def _pins(
        self,
        state: Snapshot,
        selection: EpisodeSelection,
        impact: ErasureImpact,
        tasks: Mapping[str, Sequence[str]],
    ) -> list[AddedBeside]:
        """The task numbers of each dataset, for the states that have one of the episodes, or had task numbers of an erasure before."""
        added = []
        for path, texts in tasks.items():
            row = pinned_row(path, texts)
            part = self._placed(
                snapshot.write_part(self.disk, self.copy.root, ArtifactRow, [row]), state
            )
            own = {uid for uid, e in selection.episodes.items() if e.dataset_path == path}
            beside = [e.part.path for e in _episodes(impact) if not own.isdisjoint(e.uids)]
            beside += [
                e.part.path
                for e in impact.parts
                if e.table == "artifacts" and _has_pin(self.copy.root, e.part, path)
            ]
            added.append(AddedBeside(table="artifacts", part=part, beside=tuple(beside)))
        return added

    def _placed(self, part: Part, state: Snapshot) -> Part:
        """The part under a name of this attempt, which no other part has."""
        suffix = f"{self.commit_id[:12]}-{state.number + 1}-{len(self.placed)}"
        named = replace(part, path=f"{part.path.removesuffix('.parquet')}-{suffix}.parquet")
        source = within(self.copy.root, part.path)
        self.disk.hard_link_or_copy(source, within(self.copy.root, named.path))
        self.local_parts += [part.path, named.path]
        self.placed.append(named)
        return named

    def append(self, entry: LogEntry) -> bool:
        """Upload what the entry needs, and create it. Whether it is the one that stands.

        Raises:
            UnknownOutcome: the store does not say. The next `forget` or `gc` finds out.
        """
        store, root = self.copy.store, self.copy.root
        self.disk.sync()
        # The page first: who finds objects of an erasure can tell whether its entry was made or can still be.
        store.put(f"{FOLDER}/{self.commit_id}/{PAGE}", json.dumps(self.page).encode())
        sent = [(f"{FOLDER}/{self.commit_id}/{name}", path) for name, path in self.staged.items()]
        sent += [(part.path, within(root, part.path)) for part in self.placed]
        with ThreadPoolExecutor(commit_log.AT_ONCE) as pool:
            list(pool.map(lambda each: store.put_file(*each), sent))
        self.may_land = True
        standing = self.copy.log.append(entry)
        is_ours = standing.commit_id == entry.commit_id
        self.may_land = is_ours
        return is_ours

    def clean(self) -> None:
        """Remove what was made here, and in the bucket what no entry names."""
        root = self.copy.root
        self.disk.remove_tree(self.folder)
        known = snapshot.numbers(root)
        named = {
            part.path
            for number in known[-1:]
            for table in TABLES
            for part in snapshot.load(root, number).parts(table)
        }
        for path in {*self.local_parts} - named:
            self.disk.remove(within(root, path))
        if not self.may_land and self.page:
            _delete(self.copy, [part.path for part in self.placed])
            _delete_staged(self.copy, self.commit_id)


def _episodes(impact: ErasureImpact) -> Iterator[AffectedPart]:
    return (each for each in impact.parts if each.table == "episodes")


def _has_pin(root: Path, part: Part, dataset_path: str) -> bool:
    rows = read_table(part.file(root), ["kind", "path"])
    is_pin = pc.and_(pc.equal(rows["kind"], "tasks"), pc.equal(rows["path"], dataset_path))
    return bool(pc.any(pc.fill_null(is_pin, False)).as_py())  # noqa: FBT003  pyarrow's own


def _packs(root: Path, affected: Iterable[AffectedPart], uids: set[str]) -> set[str]:
    """Packs that rows of these episodes name, in any state."""
    packs: set[str] = set()
    for each in affected:
        path = each.part.file(root)
        if each.table == "latents" and "pack_offset" in read_schema(path).names:
            for row in read_table(path, ["uid", "path", "pack_offset"]).to_pylist():
                if row["uid"] in uids and row["pack_offset"] is not None:
                    packs.add(row["path"])
    return packs


# --- after the entry ----------------------------------------------------------------------------------------------


def finish_erasures(copy: WorkingCopy, disk: LocalStorage) -> list[str]:
    """Do what committed erasures left undone in the bucket, and remove what those left that can never be committed. A line for each.

    The caller holds the writer lock, and the working copy is up to date.
    """
    done = []
    for commit_id in begun_erasures(copy):
        page = read_page(copy, commit_id)
        entry = copy.log.entry(page.number) if page is not None else None
        if page is None or entry is None:
            continue  # another machine is at it, or it was stopped just before its entry
        if entry.commit_id == commit_id:
            _finish(copy, disk, entry, page)
            done.append(f"finished the erasure of run {page.run_id}")
        _delete_staged(copy, commit_id)
    return done


def _finish(copy: WorkingCopy, disk: LocalStorage, entry: LogEntry, page: ErasurePage) -> None:
    """Each step may be done again. Objects lose what every erasure of the newest state names, until none has landed since they were read.

    Raises:
        Conflict: others erase too fast.
    """
    for _ in range(MOST_TRIES):
        state = snapshot.load(copy.root)
        _erase_objects(copy, disk, entry, page, state)
        if copy.refresh().content("tombstones") == state.content("tombstones"):
            return
    raise Conflict(
        f"other erasures were committed meanwhile, {MOST_TRIES} times",
        remedy="run the same command again",
        where=copy.link.uri,
    )


def _erase_objects(
    copy: WorkingCopy, disk: LocalStorage, entry: LogEntry, page: ErasurePage, state: Snapshot
) -> None:
    corpus = CorpusLayout(copy.root)
    buried = tombstones(copy.root, state)
    rows = [row for row in buried if row.run_id == page.run_id]
    own_datasets = sorted({row.dataset_path for row in rows if row.dataset_path})
    _fill_places(copy, entry, page, rows)
    if entry.erasure is not None:
        _delete(copy, entry.erasure.instead)
    for dataset_path in own_datasets:
        numbers = {row.episode_index for row in rows if row.dataset_path == dataset_path}
        starts = tuple(f"episode_{number:06d}." for number in numbers)
        keys = copy.store.list(f"{dataset_path}/latents")
        _delete(copy, [key for key in keys if key.rpartition("/")[2].startswith(starts)])
    _check_packs(copy, page.packs, own_datasets)
    for pack in page.packs:
        _erase_from_pack(copy, disk, pack, buried)
    uids = {row.uid for row in buried}
    staged = copy.store.list(remote_staging.FOLDER)
    _delete(copy, [key for key in staged if remote_staging.uid_in(key) in uids])
    _scrub_logs(copy, disk, uids)
    fetch_manifests(copy)
    copy.erase_copies(state)
    share_redactions(copy)
    state = snapshot.load(copy.root)  # newer where another erasure has landed
    datasets = datasets_of(copy.root, state)
    for dataset_path in own_datasets:
        _share_meta(copy, corpus, disk, state, datasets[dataset_path])
    copy.store.delete(REPORT)


def _is_pack(path: str, datasets: Iterable[str]) -> bool:
    """Whether a path is that of a pack of latents of one of these datasets."""
    names = path.split("/")
    if len(names) < 5 or not is_place_of(path, names[4]):
        return False
    return any(is_pack_of(path, each, names[4]) for each in datasets)


def _check_packs(copy: WorkingCopy, packs: Iterable[str], datasets: Iterable[str]) -> None:
    """
    Raises:
        ConfigError: one is no pack of latents of these datasets.
    """
    for pack in packs:
        if not _is_pack(pack, datasets):
            raise ConfigError(
                f"the page of an erasure has the pack {pack!r}, which is none of a dataset of its episodes",
                where=copy.link.uri,
            )


def _fill_places(
    copy: WorkingCopy, entry: LogEntry, page: ErasurePage, rows: Sequence[TombstoneRow]
) -> None:
    places = files_in_places(rows)
    digests = {each["path"]: each["sha256"] for row in rows for each in row.files}
    for name, path in page.files.items():
        if path not in places:
            raise ConfigError(
                f"the page of an erasure has the file {path!r}, which no tombstone of its run has",
                where=copy.link.uri,
            )
        try:
            copy.store.copy(f"{FOLDER}/{entry.commit_id}/{name}", path)
        except SourceError as error:
            if error.code is not Code.MISSING_FILE or copy.store.sha256(path) != digests[path]:
                raise


def _erase_from_pack(
    copy: WorkingCopy, disk: LocalStorage, pack: str, rows: Sequence[TombstoneRow]
) -> None:
    folder = within(copy.root, "staging/erase.packs")
    path = within(folder, pack)
    disk.remove_tree(folder)
    try:
        disk.make_dir(path.parent)
        copy.store.get_file(pack, path, max_bytes=MOST_PACK_BYTES)
        if pack in erase_members(CorpusLayout(folder), disk, rows):
            if path.exists():
                copy.store.put_file(pack, path)
            else:  # its members cannot be read
                copy.store.delete(pack)
    except SourceError as error:
        if error.code is not Code.MISSING_FILE:
            raise
    finally:
        disk.remove_tree(folder)


def _scrub_logs(copy: WorkingCopy, disk: LocalStorage, uids: set[str]) -> None:
    """Lines of the episodes go from the logs of all runs, of all machines."""
    folder = within(copy.root, "staging/erase.logs")
    disk.remove_tree(folder)
    try:
        sizes = {}
        for room in LOGS:
            disk.make_dir(folder / room)
            for each in copy.store.entries(room):
                if each["key"].endswith(".jsonl") and each["key"].count("/") == 1:
                    path = within(folder, each["key"])
                    copy.store.get_file(each["key"], path, max_bytes=MOST_LOG_BYTES)
                    sizes[each["key"]] = path.stat().st_size
        scrub_logs(CorpusLayout(folder), disk, uids)
        for key, size in sizes.items():
            if within(folder, key).stat().st_size != size:
                copy.store.put_file(key, within(folder, key))
    finally:
        disk.remove_tree(folder)


def _share_meta(
    copy: WorkingCopy, corpus: CorpusLayout, disk: LocalStorage, state: Snapshot, dataset: Dataset
) -> None:
    """`meta/` of a dataset, where the bucket has one."""
    keys = copy.store.list(f"{dataset.path}/meta")
    if not keys:
        return
    disk.make_dir(corpus.path(f"{dataset.path}/meta"))
    if not lerobot_meta.is_current(disk, corpus.root, dataset):
        rebuild(corpus, disk, state, dataset)
    for key in keys:
        path = within(copy.root, key)
        if path.is_file():
            copy.store.put_file(key, path)
        else:
            copy.store.delete(key)


def _delete(copy: WorkingCopy, keys: Iterable[str]) -> None:
    with ThreadPoolExecutor(commit_log.AT_ONCE) as pool:
        list(pool.map(copy.store.delete, keys))


def _delete_staged(copy: WorkingCopy, commit_id: str) -> None:
    """The page last: what is left of a stop is found by it."""
    page = f"{FOLDER}/{commit_id}/{PAGE}"
    _delete(copy, [key for key in copy.store.list(f"{FOLDER}/{commit_id}") if key != page])
    copy.store.delete(page)
