"""The signatures of a whole corpus as a few arrays: episodes are numbers 0..N-1 in order of uid, cameras and arms lie beside them.

Read part by part: a million episodes with two cameras and one arm take about 1.2 GB and no list of Python objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ingest.catalog.uid_index import UidIndex
from ingest.corpus.snapshot import Snapshot
from ingest.curation.duplicates.distances import (
    MIN_CHANGE_LUMA,
    MIN_EXTENT_M,
    Bytes,
    Looks,
    looks_from,
    packed,
)
from ingest.curation.duplicates.search import Indices
from ingest.curation.measurements.each import image_signature, row_hash, trajectory
from ingest.curation.measurements.registry import Measure
from schemas.geometry import Array
from schemas.parquet_file import read_batches

KINDS: dict[str, Measure] = {
    "pictures": image_signature.MEASURE,
    "trajectory": trajectory.MEASURE,
    "rows": row_hash.MEASURE,
}
_DIGEST_WIDTH = 33
_BATCH_ROWS = 65_536
Values = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Signatures:
    """`first_*`, `num_*` [N]: which cameras and arms are an episode's; still ones are left out. `digest` [N]: b"" for none."""

    uids: npt.NDArray[np.object_]
    duration_s: Array
    is_measured: npt.NDArray[np.bool_]  # by every measure of KINDS at its present version
    looks: Looks
    first_look: Indices
    num_looks: Indices
    paths: npt.NDArray[np.float16]  # [A, 32, 4]
    first_path: Indices
    num_paths: Indices
    digest: npt.NDArray[np.bytes_]
    is_unusable: npt.NDArray[np.bool_]  # some vector is not what its measure writes: not compared

    def __len__(self) -> int:
        return len(self.uids)


def read_signatures(corpus: Path, current: Snapshot) -> Signatures:
    """What the measures `look`, `trajectory` and `rows` left in the catalog at their present versions."""
    episodes = current.read(corpus, "episodes", ["uid", "duration_s"]).sort_by("uid")
    uids = episodes["uid"].combine_chunks()
    read, is_unusable = read_kinds(corpus, current, uids, PACKED)
    of_look, scene, motion = read["pictures"]
    of_path, paths = read["trajectory"]
    of_rows, sha256 = read["rows"]
    first_look, num_looks = _spans(of_look, len(uids))
    first_path, num_paths = _spans(of_path, len(uids))
    digest = np.full(len(uids), b"", dtype="S32")
    digest[of_rows] = sha256
    return Signatures(
        uids=uids.to_numpy(zero_copy_only=False),
        duration_s=episodes["duration_s"].to_numpy(),
        is_measured=_measured(corpus, current, uids) & ~is_unusable,
        looks=looks_from(scene, motion),
        first_look=first_look,
        num_looks=num_looks,
        paths=paths,
        first_path=first_path,
        num_paths=num_paths,
        digest=digest,
        is_unusable=is_unusable,
    )


def read_kinds(
    corpus: Path, current: Snapshot, uids: pa.Array, kinds: Mapping[str, VectorKind]
) -> tuple[dict[str, list[Any]], npt.NDArray[np.bool_]]:
    """Each kind as columns, packed as they are read: first the episode of each row, ascending, then what is kept of it; and
    [N] which episodes have a vector that cannot be used."""
    parts: dict[str, list[tuple[Any, ...]]] = {
        name: [kind.pack(np.zeros(0, np.intp), np.zeros((0, kind.width), np.float32))]
        for name, kind in kinds.items()
    }
    seen = {kind: np.zeros(len(uids), dtype=bool) for kind in parts}
    is_unusable = np.zeros(len(uids), dtype=bool)
    places = UidIndex(pl.Series(uids))
    for part in current.parts("signatures"):
        columns = ["uid", "kind", "version", "vector"]
        for batch in read_batches(part.file(corpus), _BATCH_ROWS, columns):
            table = pa.Table.from_batches([batch])
            for name, kind in kinds.items():
                is_wanted = (pc.field("kind") == name) & (
                    pc.field("version") == KINDS[name].stored_version
                )
                rows_of_kind = table.filter(is_wanted)
                episode, values, bad = _of_batch(rows_of_kind, places, seen[name], kind)
                parts[name].append(kind.pack(episode, values))
                is_unusable[bad] = True
    return {kind: _by_episode(tables) for kind, tables in parts.items()}, is_unusable


def _by_episode(parts: list[tuple[Any, ...]]) -> list[Any]:
    order = np.argsort(np.concatenate([part[0] for part in parts]), kind="stable")
    return [np.concatenate(column)[order] for column in zip(*parts, strict=True)]


def pack_looks(episode: Indices, values: Values) -> tuple[Indices, Bytes, Bytes]:
    """Cameras in which something moves: scene and motion."""
    lively = values[:, 0] >= MIN_CHANGE_LUMA
    return episode[lively], *packed(values[lively])


def pack_paths(episode: Indices, values: Values) -> tuple[Indices, npt.NDArray[np.float16]]:
    """Arms that move: their paths [n, 32, 4]."""
    paths = _by_arm(episode, values).reshape(-1, trajectory.POINTS, trajectory.WIDTH)
    moves = np.linalg.norm(paths[..., :3], axis=2).max(axis=1, initial=0.0) >= MIN_EXTENT_M
    return episode[moves], paths[moves].astype(np.float16)


def _pack_rows(episode: Indices, values: Values) -> tuple[Indices, npt.NDArray[np.bytes_]]:
    return episode, np.ascontiguousarray(values[:, 1:].astype(np.uint8)).view("S32")[:, 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorKind:
    """What a vector of a kind has to be: 1 to `most` times `width` finite numbers, none above `largest`."""

    width: int
    most: int
    largest: float
    pack: Callable[[Indices, Values], tuple[Any, ...]]


PACKED = {
    "pictures": VectorKind(width=image_signature.WIDTH, most=64, largest=1e6, pack=pack_looks),
    "trajectory": VectorKind(
        width=trajectory.POINTS * trajectory.WIDTH, most=8, largest=6e4, pack=pack_paths
    ),  # float16 ends at 65504
    "rows": VectorKind(width=_DIGEST_WIDTH, most=1, largest=float(2**31), pack=_pack_rows),
}


def _spans(episode: Indices, count: int) -> tuple[Indices, Indices]:
    edges = np.searchsorted(episode, np.arange(count + 1))
    return edges[:-1], np.diff(edges)


def _by_arm(episode: Indices, values: Values) -> Values:
    """Rows of [32, arms, 4] per episode, cut as [arms x 128], to rows that are one arm each."""
    out = values.copy()
    _, first, arms = np.unique(episode, return_index=True, return_counts=True)
    for number in np.unique(arms[arms > 1]):
        at = (first[arms == number][:, None] + np.arange(number)).ravel()
        stored = values[at].reshape(-1, trajectory.POINTS, number, trajectory.WIDTH)
        out[at] = np.swapaxes(stored, 1, 2).reshape(len(at), -1)
    return out


def _of_batch(
    vectors: pa.Table, places: UidIndex, seen: npt.NDArray[np.bool_], kind: VectorKind
) -> tuple[Indices, Values, Indices]:
    """(episode, [n, width]) of what was not seen yet, those of one vector together and in its order; and episodes whose vector is none."""
    at = places.of(pl.Series(vectors["uid"]))
    episode, first = np.unique(at, return_index=True)
    rows_at = np.sort(first[(episode >= 0) & ~seen[episode]])
    at = at[rows_at].astype(np.intp)
    seen[at] = True
    vector = vectors["vector"].combine_chunks()
    if len(rows_at) < len(vector):
        vector = vector.take(pa.array(rows_at, pa.int64()))
    is_good = _good(vector, kind)
    if not is_good.all():
        vector = vector.filter(pa.array(is_good))
    number = pc.list_value_length(vector).to_numpy(zero_copy_only=False) // kind.width
    values = vector.flatten().to_numpy(zero_copy_only=False).reshape(-1, kind.width)
    return np.repeat(at[is_good], number), values, at[~is_good]


def _good(vector: pa.ListArray, kind: VectorKind) -> npt.NDArray[np.bool_]:
    """[n] which vectors are what `kind` says; one that is NULL, or has a NULL in it, is not."""
    lengths = pc.fill_null(pc.list_value_length(vector), 0).to_numpy(zero_copy_only=False)
    flat = vector.flatten().to_numpy(zero_copy_only=False)  # of a NULL vector: nothing
    is_odd = ~(np.abs(flat) <= kind.largest)
    odd = np.zeros(len(lengths), dtype=bool)
    odd[np.repeat(np.arange(len(lengths)), lengths)[is_odd]] = True
    number, rest = np.divmod(lengths, kind.width)
    return np.asarray(~odd & (rest == 0) & (number >= 1) & (number <= kind.most))


def _measured(corpus: Path, current: Snapshot, uids: pa.Array) -> npt.NDArray[np.bool_]:
    """[N] every measure has been there: some of its numbers are in the catalog."""
    every = np.ones(len(uids), dtype=bool)
    for measure in KINDS.values():
        is_measured = (pc.field("name") == measure.outputs[0].name) & (
            pc.field("version") == measure.stored_version
        )
        have = current.read(corpus, "measurements", ["uid"], only=is_measured)["uid"]
        every &= pc.is_in(uids, value_set=have).to_numpy(zero_copy_only=False)
    return every
