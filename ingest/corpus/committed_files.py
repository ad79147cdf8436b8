"""Files of episodes that the catalog names: data, videos, latents. What a corpus in a bucket uploads with a commit and copies for a reader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ingest.corpus.column_checks import DamagedCatalog, check_paths
from ingest.corpus.snapshot import Part
from schemas.latents import is_of_actions
from schemas.parquet_file import read_schema, read_table


@dataclass(frozen=True, slots=True)
class CommittedFile:
    """A file of a dataset that a row of the catalog names. A pack of latents has no size and no sha256 there: its members have."""

    path: str
    num_bytes: int | None
    sha256: str

    @property
    def is_pack(self) -> bool:
        return self.num_bytes is None


def committed_files(
    root: Path, tables: Mapping[str, Sequence[Part]], *, without_images: bool = False
) -> list[CommittedFile]:
    """Files that rows of these parts name: data, videos, latents, placeholder files of erased episodes.

    Args:
        without_images: neither videos nor latents of images, which are nearly all bytes of a corpus.

    Raises:
        OutsideCorpus, DamagedCatalog: a row names no file of a dataset.
    """
    files: list[CommittedFile] = []
    for part in tables.get("artifacts", ()):
        rows = _checked("artifacts", part.file(root), ["kind", "path", "num_bytes", "sha256"])
        kinds = ["data"] if without_images else ["data", "video"]
        files += _files(rows.filter(pc.is_in(rows["kind"], pa.array(kinds))))
    for part in tables.get("tombstones", ()):
        rows = _checked("tombstones", part.file(root), ["files"])
        lying = pc.list_flatten(rows["files"])
        if len(lying):
            files += _files(pa.Table.from_struct_array(lying))
    for part in tables.get("latents", ()):
        path = part.file(root)
        has_packs = "pack_offset" in read_schema(path).names
        names = ["path", "num_bytes", "sha256", *(["pack_offset"] if has_packs else [])]
        rows = _checked("latents", path, [*names, "camera", "encoder_id"])
        if without_images:
            rows = rows.filter(pc.invert(_are_of_images(rows)))
        is_packed = pc.is_valid(rows["pack_offset"]) if has_packs else None
        if is_packed is not None:
            packs = pc.unique(rows.filter(is_packed)["path"]).to_pylist()
            files += [CommittedFile(pack, None, "") for pack in packs]
            rows = rows.filter(pc.invert(is_packed))
        files += _files(rows)
    return list(dict.fromkeys(files))


def _are_of_images(rows: pa.Table) -> pa.Array:
    """Latents of texts have no camera, and latent actions are no images."""
    models = pc.unique(rows["encoder_id"]).to_pylist()
    of_actions = pa.array([each for each in models if is_of_actions(each)], pa.string())
    return pc.and_(
        pc.not_equal(rows["camera"], ""), pc.invert(pc.is_in(rows["encoder_id"], of_actions))
    )


def _checked(table: str, path: Path, names: list[str]) -> pa.Table:
    rows = read_table(path, names)
    check_paths(table, rows)
    return rows


def _files(rows: pa.Table) -> Iterator[CommittedFile]:
    columns = [rows[name].to_pylist() for name in ("path", "num_bytes", "sha256")]
    for path, num_bytes, sha256 in zip(*columns, strict=True):
        if None in (path, num_bytes, sha256) or num_bytes < 0:
            raise DamagedCatalog(
                "a row names a file without its path, size or sha256",
                remedy="treat this corpus as damaged and do not use it",
                where=str(path)[:200],
            )
        yield CommittedFile(path, num_bytes, sha256)
