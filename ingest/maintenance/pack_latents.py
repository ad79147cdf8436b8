"""`eicorpus compact --latents`: files of latents that lie alone, and those in small packs, are put into packs of full size. Their bytes do not change.

New rows name the new places, and readers take the newest row. The old files stay for older snapshots and for manifests that name them, until
`eicorpus gc`. A file that is not what the catalog says is left where it is.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
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
from schemas.latent_header import Span, sha256_within, span_of
from schemas.latent_pack import MAX_FILES, member_name, pack_file
from schemas.latents import TEXT_CAMERA

_KEY = ["uid", "camera", "encoder_id"]
_COPY_BYTES = 1 << 20
COMMIT_BYTES = 4 << 30  # to a snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPack:
    """Files that are put together: the rows that name them now, and their numbers in the dataset."""

    dataset_path: str
    encoder_id: str
    rows: tuple[LatentRow, ...]
    numbers: tuple[int, ...]

    @property
    def path(self) -> str:
        """Named by what it holds."""
        names = [self.encoder_id, *(f"{row.uid} {row.camera} {row.sha256}" for row in self.rows)]
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


def plan_packs(corpus: CorpusLayout, current: Snapshot, pack_bytes: int) -> list[NewPack]:
    """What is to be put together: files of one dataset and encoder that lie alone, and members of packs smaller than `pack_bytes`.

    A pack that would hold nothing but what one holds already is left out.
    """
    rows = pl.DataFrame(current.read(corpus.root, "latents", list(columns_of(LatentRow))))
    newest = rows.sort("run_id", maintain_order=True).unique(_KEY, keep="last")
    columns = ["uid", "dataset_path", "episode_index"]
    places = pl.DataFrame(current.read(corpus.root, "episodes", columns))
    loose = newest.filter(~_is_in_full_pack(corpus, newest, pack_bytes))
    ordered = loose.join(places, on="uid").sort(
        "encoder_id", "dataset_path", "episode_index", "camera"
    )
    return [pack for pack in _grouped(ordered, pack_bytes) if not _is_one_pack(pack)]


def _is_in_full_pack(corpus: CorpusLayout, rows: pl.DataFrame, pack_bytes: int) -> pl.Series:
    packs = rows.filter(pl.col("pack_offset").is_not_null())["path"].unique()
    full = [path for path in packs if _size(corpus.path(path)) >= pack_bytes]
    return rows["path"].is_in(full) & rows["pack_offset"].is_not_null()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _grouped(ordered: pl.DataFrame, pack_bytes: int) -> Iterator[NewPack]:
    names = list(columns_of(LatentRow))
    for (encoder_id, of), group in ordered.group_by(
        ["encoder_id", "dataset_path"], maintain_order=True
    ):
        rows = rows_of(LatentRow, group.select(names).to_arrow())
        numbers = group["episode_index"].to_list()
        first, num_bytes = 0, 0
        for place, row in enumerate(rows, start=1):
            num_bytes += row.num_bytes
            is_last = place == len(rows)
            if num_bytes >= pack_bytes or place - first == MAX_FILES or is_last:
                yield NewPack(
                    dataset_path=str(of),
                    encoder_id=str(encoder_id),
                    rows=tuple(rows[first:place]),
                    numbers=tuple(numbers[first:place]),
                )
                first, num_bytes = place, 0


def _is_one_pack(pack: NewPack) -> bool:
    """Whether it is a pack already, or a part of one."""
    return len({row.path for row in pack.rows}) == 1 and pack.rows[0].pack_offset is not None


def pack_latents(
    corpus: CorpusLayout,
    disk: LocalStorage,
    current: Snapshot,
    packs: Sequence[NewPack],
    run_id: str,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[PackTally, Snapshot]:
    """Write the packs and commit them, several to a snapshot. The caller holds the writer lock.

    Raises:
        TransientError: another writer was first; what is committed stays, run again.
        OSError: a pack cannot be written.
    """
    tally = PackTally()
    rows: list[LatentRow] = []
    waiting_bytes = 0
    for number, pack in enumerate(packs, start=1):
        packed_rows = _write(corpus, disk, pack, tally)
        rows += [replace(row, run_id=run_id) for row in packed_rows]
        waiting_bytes += pack.num_bytes
        if rows and (waiting_bytes >= COMMIT_BYTES or number == len(packs)):
            part = snapshot.write_part(disk, corpus.root, LatentRow, rows)
            current = publishing.publish(disk, corpus.root, current, {"latents": part}, run_id)
            rows, waiting_bytes = [], 0
        progress(number)
    return tally, current


class _NothingToKeep(Exception):
    """No file of a pack could be read: there is to be no pack."""


def _write(
    corpus: CorpusLayout, disk: LocalStorage, pack: NewPack, tally: PackTally
) -> list[LatentRow]:
    path = corpus.path(pack.path)
    disk.make_dir(path.parent)
    packed_rows: list[LatentRow] = []
    tally.files += len(pack.rows)
    try:
        with disk.atomic_writer(path, is_durable=True) as opened:
            writer = PackWriter(opened)
            for row, number in zip(pack.rows, pack.numbers, strict=True):
                name = member_name(number, row.camera or TEXT_CAMERA)
                start = writer.begin(name, row.num_bytes)
                if wrong := _copied(corpus, row, opened):
                    tally.left_out[wrong] += 1
                    tally.first_left_out = tally.first_left_out or row.path
                    continue
                writer.keep(row.num_bytes)
                packed_rows.append(replace(row, path=pack.path, pack_offset=start))
            if not packed_rows:
                raise _NothingToKeep
            writer.finish()
    except _NothingToKeep:
        return []
    tally.packed += len(packed_rows)
    tally.packs += 1
    tally.num_bytes += sum(row.num_bytes for row in packed_rows)
    return packed_rows


def _copied(corpus: CorpusLayout, row: LatentRow, target: BinaryIO) -> str:
    """Copies the bytes of a row to where `target` stands; why not, or nothing."""
    try:
        with within(corpus.root, row.path).open("rb") as source:
            size = source.seek(0, 2)
            span = span_of(row.pack_offset, row.num_bytes) or Span(start=0, num_bytes=size)
            if span.num_bytes != row.num_bytes or not span.fits(size):
                return "differs from the catalog"
            if sha256_within(source, span) != row.sha256:
                return "differs from the catalog"
            source.seek(span.start)
            left = span.num_bytes
            while left > 0 and (block := source.read(min(left, _COPY_BYTES))):
                target.write(block)
                left -= len(block)
    except FileNotFoundError:
        return "missing"
    except ConfigError:
        return "not a file of the corpus"
    return ""
