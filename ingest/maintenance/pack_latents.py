"""`eicorpus compact --latents`: single files of latents and small packs become packs of full size. Their bytes do not change.

New rows name the new places, and readers take the newest row. The old files stay for older snapshots and for manifests that name them, until
`eicorpus gc`. A file that is not what the catalog says is left where it is. A committed pack is never written again: each run has names of its own.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import polars as pl

from ingest.corpus import publishing, snapshot
from ingest.corpus.latent_packs import PackWriter
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Snapshot
from ingest.storage.local import LocalStorage, within
from schemas.catalog_rows import columns_of, rows_of
from schemas.committed_rows import LatentRow
from schemas.errors import ConfigError
from schemas.latent_header import Span, span_of
from schemas.latent_pack import MAX_FILES, member_name, pack_file
from schemas.latents import TEXT_CAMERA

_KEY = ["uid", "camera", "encoder_id"]
_COPY_BYTES = 1 << 20
_PIECE_ROWS = 1 << 12  # that are objects at once
DIFFERS = "differs from the catalog"
COMMIT_BYTES = 4 << 30  # to a snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPack:
    """Files that are put together: the rows that name them now, and their numbers in the dataset."""

    dataset_path: str
    encoder_id: str
    rows: tuple[LatentRow, ...]
    numbers: tuple[int, ...]

    def path(self, run_id: str) -> str:
        """Of what it holds and of the run: a pack of another run may hold the same names at other places."""
        names = [
            run_id,
            self.encoder_id,
            *(f"{row.uid} {row.camera} {row.sha256}" for row in self.rows),
        ]
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        return f"{self.dataset_path}/{pack_file(self.encoder_id, digest)}"

    @property
    def num_bytes(self) -> int:
        return sum(row.num_bytes for row in self.rows)


@dataclass(kw_only=True)
class PackTally:
    """files = packed + left_out. `left_out`: by why."""

    files: int = 0
    packed: int = 0
    packs: int = 0
    num_bytes: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    first_left_out: str = ""

    def leave_out(self, row: LatentRow, why: str) -> None:
        self.left_out[why] += 1
        self.first_left_out = self.first_left_out or row.path


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackPlan:
    """What may be put together: single files of one dataset and encoder, and members of packs smaller than `pack_bytes`.

    `due`: their newest rows, with the place of the episode, in the order of packs.
    """

    corpus: CorpusLayout
    due: pl.DataFrame
    pack_bytes: int

    def packs(self, tally: PackTally, *, reads: bool) -> Iterator[NewPack]:
        """One pack at a time. A file that is not what the catalog says is counted as left out, before packs are put together; a pack
        that would hold nothing but what one holds already is none. So a run after a run has nothing to do.

        Args:
            reads: look at the bytes of files too, not at their sizes alone.
        """
        by = ["encoder_id", "dataset_path"]
        for (encoder_id, of), group in self.due.group_by(by, maintain_order=True):
            for held in self._groups(group, tally, reads=reads):
                rows = tuple(row for row, _ in held)
                if _is_one_pack(rows):
                    continue
                tally.files += len(rows)
                yield NewPack(
                    dataset_path=str(of),
                    encoder_id=str(encoder_id),
                    rows=rows,
                    numbers=tuple(number for _, number in held),
                )

    def expected(self) -> PackTally:
        """Packs, and files that are left out, by the sizes of files alone. Nothing is `packed`."""
        tally = PackTally()
        for pack in self.packs(tally, reads=False):
            tally.packs += 1
            tally.num_bytes += pack.num_bytes
        return tally

    def _groups(
        self, group: pl.DataFrame, tally: PackTally, *, reads: bool
    ) -> Iterator[list[tuple[LatentRow, int]]]:
        held: list[tuple[LatentRow, int]] = []
        num_bytes = 0
        for row, number in self._usable(group, tally, reads=reads):
            held.append((row, number))
            num_bytes += row.num_bytes
            if num_bytes >= self.pack_bytes or len(held) == MAX_FILES:
                yield held
                held, num_bytes = [], 0
        if held:
            yield held

    def _usable(
        self, group: pl.DataFrame, tally: PackTally, *, reads: bool
    ) -> Iterator[tuple[LatentRow, int]]:
        """Rows with the numbers of their episodes. Without reading any file where all that is there is one pack already."""
        pieces = group.iter_slices(_PIECE_ROWS)
        fits = pl.concat([_has_size(self.corpus, piece) for piece in pieces])
        for row, _ in _rows_of(group.filter(~fits)):
            tally.files += 1
            tally.leave_out(row, _wrong(self.corpus, row) or DIFFERS)
        readable = group.filter(fits)
        is_packed = not readable["pack_offset"].null_count() and readable["path"].n_unique() == 1
        for row, number in () if is_packed else _rows_of(readable):
            if reads and (wrong := _wrong(self.corpus, row)):
                tally.files += 1
                tally.leave_out(row, wrong)
                continue
            yield row, number


def plan_packs(corpus: CorpusLayout, current: Snapshot, pack_bytes: int) -> PackPlan:
    """Reads the catalog, and no file of latents."""
    rows = pl.DataFrame(current.read(corpus.root, "latents", list(columns_of(LatentRow))))
    newest = rows.sort("run_id", maintain_order=True).unique(_KEY, keep="last")
    columns = ["uid", "dataset_path", "episode_index"]
    places = pl.DataFrame(current.read(corpus.root, "episodes", columns))
    loose = newest.filter(~_is_in_full_pack(corpus, newest, pack_bytes))
    due = loose.join(places, on="uid").sort("encoder_id", "dataset_path", "episode_index", "camera")
    return PackPlan(corpus=corpus, due=due, pack_bytes=pack_bytes)


def _is_in_full_pack(corpus: CorpusLayout, rows: pl.DataFrame, pack_bytes: int) -> pl.Series:
    packs = rows.filter(pl.col("pack_offset").is_not_null())["path"].unique()
    full = [path for path in packs if _size(corpus, path) >= pack_bytes]
    return rows["path"].is_in(full) & rows["pack_offset"].is_not_null()


def _has_size(corpus: CorpusLayout, rows: pl.DataFrame) -> pl.Series:
    """[n] whether the file of each row has the size that it says, or its pack has room for it."""
    sizes = {path: _size(corpus, path) for path in rows["path"].unique()}
    fits = []
    for path, num_bytes, pack_offset in rows.select("path", "num_bytes", "pack_offset").iter_rows():
        span = span_of(pack_offset, num_bytes)
        fits.append(sizes[path] == num_bytes if span is None else span.fits(sizes[path]))
    return pl.Series(fits, dtype=pl.Boolean)


def _size(corpus: CorpusLayout, path: str) -> int:
    try:
        return corpus.path(path).stat().st_size
    except (OSError, ConfigError):
        return -1


def _rows_of(frame: pl.DataFrame) -> Iterator[tuple[LatentRow, int]]:
    """The rows of a part of `due` with the numbers of their episodes; few at a time are objects."""
    names = list(columns_of(LatentRow))
    for piece in frame.iter_slices(_PIECE_ROWS):
        rows = rows_of(LatentRow, piece.select(names).to_arrow())
        yield from zip(rows, piece["episode_index"].to_list(), strict=True)


def _is_one_pack(rows: tuple[LatentRow, ...]) -> bool:
    """Whether they are a pack already, or a part of one."""
    return rows[0].pack_offset is not None and len({row.path for row in rows}) == 1


def pack_latents(
    corpus: CorpusLayout,
    disk: LocalStorage,
    current: Snapshot,
    plan: PackPlan,
    run_id: str,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[PackTally, Snapshot]:
    """Write the packs and commit them, several to a snapshot. The caller holds the writer lock.

    Args:
        progress: called with the number of packs so far.

    Raises:
        TransientError: another writer was first; what is committed stays, run again.
        OSError: a pack cannot be written.
    """
    tally = PackTally()
    rows: list[LatentRow] = []
    waiting_bytes = 0
    for number, pack in enumerate(plan.packs(tally, reads=True), start=1):
        packed_rows = _write(corpus, disk, pack, run_id, tally)
        rows += [replace(row, run_id=run_id) for row in packed_rows]
        waiting_bytes += pack.num_bytes
        if waiting_bytes >= COMMIT_BYTES:
            current = _committed(corpus, disk, current, rows, run_id)
            rows, waiting_bytes = [], 0
        progress(number)
    return tally, _committed(corpus, disk, current, rows, run_id)


def _committed(
    corpus: CorpusLayout,
    disk: LocalStorage,
    current: Snapshot,
    rows: list[LatentRow],
    run_id: str,
) -> Snapshot:
    if not rows:
        return current
    part = snapshot.write_part(disk, corpus.root, LatentRow, rows)
    return publishing.publish(disk, corpus.root, current, {"latents": part}, run_id)


class _NothingToKeep(Exception):
    """No file of a pack could be read: there is to be no pack."""


def _write(
    corpus: CorpusLayout, disk: LocalStorage, pack: NewPack, run_id: str, tally: PackTally
) -> list[LatentRow]:
    name = pack.path(run_id)
    path = corpus.path(name)
    disk.make_dir(path.parent)
    packed_rows: list[LatentRow] = []
    try:
        with disk.atomic_writer(path, is_durable=True) as opened:
            writer = PackWriter(opened)
            for row, number in zip(pack.rows, pack.numbers, strict=True):
                member = member_name(number, row.camera or TEXT_CAMERA)
                start = writer.begin(member, row.num_bytes)
                if wrong := _wrong(corpus, row, opened):  # it changed since it was looked at
                    tally.leave_out(row, wrong)
                    continue
                writer.keep(row.num_bytes)
                packed_rows.append(replace(row, path=name, pack_offset=start))
            if not packed_rows:
                raise _NothingToKeep
            writer.finish()
    except _NothingToKeep:
        return []
    tally.packed += len(packed_rows)
    tally.packs += 1
    tally.num_bytes += sum(row.num_bytes for row in packed_rows)
    return packed_rows


def _wrong(corpus: CorpusLayout, row: LatentRow, target: BinaryIO | None = None) -> str:
    """Why the bytes of a row cannot be used, or nothing. They are copied to where `target` stands."""
    try:
        with within(corpus.root, row.path).open("rb") as source:
            size = source.seek(0, 2)
            span = span_of(row.pack_offset, row.num_bytes) or Span(start=0, num_bytes=size)
            if span.num_bytes != row.num_bytes or not span.fits(size):
                return DIFFERS
            source.seek(span.start)
            digest, left = hashlib.sha256(), span.num_bytes
            while left > 0 and (block := source.read(min(left, _COPY_BYTES))):
                digest.update(block)
                if target is not None:
                    target.write(block)
                left -= len(block)
            return "" if digest.hexdigest() == row.sha256 else DIFFERS
    except FileNotFoundError:
        return "missing"
    except (ConfigError, IsADirectoryError):
        return "not a file of the corpus"
