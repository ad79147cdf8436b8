"""Packs of latents in a corpus: which a snapshot names, which none does, and what `eicorpus forget` does to one.

Offsets stand in the rows of snapshots and in manifests, so a pack that loses an episode keeps its name and its size: the bytes of the episode become
zeros, and the head before them no longer has its name. Which member is whose is read from the pack itself, whatever the catalog says of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import polars as pl

from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Part, Snapshot
from ingest.storage.local import LocalStorage, within
from schemas.committed_rows import TombstoneRow
from schemas.errors import ConfigError
from schemas.latent_pack import BLOCK, END, Member, is_place_of, member_at, members_of
from schemas.latents import FOLDER
from schemas.parquet_file import read_schema, read_table

_COPY_BYTES = 1 << 20


class PackWriter:
    """Fills an empty file with members, one after the other. A member that was begun and is not kept is written over by the next."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._at = file, 0

    def begin(self, name: str, num_bytes: int) -> int:
        """Write the head of the next member; its first byte."""
        member = member_at(self._at, name, num_bytes)
        self._file.seek(self._at)
        self._file.write(member.head())
        return member.start

    def keep(self, num_bytes: int) -> None:
        """The member that was begun is whole."""
        end = self._at + BLOCK + num_bytes
        self._file.seek(end)
        padding = bytes(-num_bytes % BLOCK)  # written: a longer member may have been given up here
        self._file.write(padding)
        self._at = end + len(padding)

    def finish(self) -> None:
        self._file.seek(self._at)
        self._file.write(END)
        self._file.truncate(self._at + len(END))


def pack_paths(corpus: CorpusLayout, dataset_path: str = "datasets/*/*") -> Iterator[str]:
    """Paths of the packs on disk, of one dataset or of all, relative to the corpus. Links are not followed."""
    for path in sorted(corpus.root.glob(f"{dataset_path}/{FOLDER}/*/packs/*.tar")):
        relative = path.relative_to(corpus.root).as_posix()
        if within(corpus.root, relative).is_file():
            yield relative


def parts_of(snapshots: Iterable[Snapshot]) -> dict[str, Part]:
    """Every part of the table `latents` that a snapshot names, by path."""
    return {part.path: part for each in snapshots for part in each.parts("latents")}


def named_packs(corpus: Path, snapshots: Iterable[Snapshot]) -> set[str]:
    """Packs that a row of a snapshot names. One part is in memory at a time."""
    named: set[str] = set()
    for part in parts_of(snapshots).values():
        path = part.file(corpus)
        if "pack_offset" in read_schema(path).names:
            rows = pl.DataFrame(read_table(path, ["path", "pack_offset"]))
            named.update(rows.filter(pl.col("pack_offset").is_not_null())["path"].unique())
    return named


def orphan_packs(corpus: CorpusLayout, snapshots: Callable[[], Iterable[Snapshot]]) -> list[str]:
    """Packs that no snapshot names: of a run that was stopped before it committed them. Where none lies, no snapshot is read."""
    lying = list(pack_paths(corpus))
    if not lying:
        return []
    named = named_packs(corpus.root, snapshots())
    return [path for path in lying if path not in named]


_KEY = ["uid", "camera", "encoder_id"]


def replaced_latents(
    corpus: CorpusLayout, snapshots: Iterable[Snapshot], left: Iterable[Snapshot]
) -> list[str]:
    """Files and packs on disk that rows of `snapshots` name, and in which no row of `left` is the newest of its episode, camera and encoder.

    A reader takes the newest. The others were replaced: encoded again, or put into a pack. A row is a stranger's: what it names is a file
    of latents only where those of its encoder lie. `left` are some of `snapshots`. Each part is read once.
    """
    packs = set(pack_paths(corpus))
    parts = parts_of(snapshots)
    number = {path: each for each, path in enumerate(parts)}
    if not parts:
        return sorted(packs)
    columns = [*_KEY, "path", "run_id"]
    rows = pl.concat(
        pl.DataFrame(_alone(part).read(corpus.root, "latents", columns)).with_columns(
            part=pl.lit(number[path])
        )
        for path, part in parts.items()
    ).with_columns(has_others=pl.col("path").n_unique().over(_KEY) > 1)
    if not rows["has_others"].any() and not packs:
        return []
    kept = {tuple(number[part.path] for part in each.parts("latents")) for each in left}
    is_kept = pl.col("part").is_in(sorted({each for own in kept for each in own}))
    needed = set(rows.filter(is_kept & ~pl.col("has_others"))["path"])
    others = rows.filter("has_others")
    of_part = others.partition_by("part", as_dict=True)
    for own in kept:
        together = pl.concat([others.clear(), *(of_part[i,] for i in own if (i,) in of_part)])
        newest = together.sort("run_id", maintain_order=True).unique(_KEY, keep="last")
        needed.update(newest["path"])
    named = rows.select("path", "encoder_id").unique()
    unneeded = named.filter(~pl.col("path").is_in(sorted(needed))).iter_rows()
    own_files = {path for path, encoder_id in unneeded if is_place_of(path, encoder_id)}
    replaced = sorted(own_files | (packs - needed))
    return [path for path in replaced if within(corpus.root, path).is_file()]


def _alone(part: Part) -> Snapshot:
    return Snapshot(tables={"latents": (part,)})


def erase_members(
    corpus: CorpusLayout, disk: LocalStorage, erased: Iterable[TombstoneRow]
) -> list[str]:
    """Take the latents of these episodes out of all packs. Returns the packs that changed.

    A pack whose members cannot be read is removed: latents can be made again, and what it holds of the episodes cannot be shown to be gone.
    """
    by_dataset: dict[str, set[int]] = {}
    for row in erased:
        if row.dataset_path is not None and row.episode_index is not None:
            by_dataset.setdefault(row.dataset_path, set()).add(row.episode_index)
    changed = []
    for dataset_path, numbers in sorted(by_dataset.items()):
        packs = list(pack_paths(corpus, dataset_path))
        changed += [path for path in packs if _erase_from(corpus.path(path), disk, numbers)]
    return changed


def _erase_from(path: Path, disk: LocalStorage, numbers: set[int]) -> bool:
    try:
        with disk.reading(path) as source:
            members = list(members_of(source, where=str(path)))
            doomed = [m for m in members if any(m.is_of(number) for number in numbers)]
            if doomed:
                _rewrite(path, disk, source, doomed)
            return bool(doomed)
    except ConfigError:
        disk.remove(path)
        return True


def _rewrite(path: Path, disk: LocalStorage, source: BinaryIO, doomed: list[Member]) -> None:
    """In place of the old one at once, so that a reader never sees half of it."""
    size = source.seek(0, 2)
    with disk.atomic_writer(path, is_durable=True) as target:
        at = 0
        for member in doomed:
            _copy(source, target, at, member.start - BLOCK)
            target.write(member.erased().head())
            at = min(member.end, size)
            target.seek(at)  # what is passed over reads as zeros, and takes no room on the disk
        _copy(source, target, at, size)
        target.truncate(size)


def _copy(source: BinaryIO, target: BinaryIO, start: int, end: int) -> None:
    source.seek(start)
    target.seek(start)
    left = end - start
    while left > 0 and (block := source.read(min(left, _COPY_BYTES))):
        target.write(block)
        left -= len(block)
