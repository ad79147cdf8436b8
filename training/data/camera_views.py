"""Which latents a sample sees: the encoder of the run, and for each view a camera of the episode."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from operator import attrgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import ConfigError
from schemas.latents import UNTRAINED, is_of_actions
from schemas.manifest import Latent, Manifest
from schemas.manifest_rebuild import rebuild_command
from training.recipe import DataSettings


def repair_of(corpus: Path, encoder_id: str = "") -> str:
    """The command that makes what is lacking, of one encoder where it is known."""
    model = encoder_id.partition("-")[0].partition(f"_{UNTRAINED}")[0]
    return (
        f"eicorpus latents images {corpus} --encoder {model}"
        if model
        else f"eicorpus latents images {corpus}"
    )


def again(manifest: Manifest, encoder_id: str = "") -> str:
    """The commands after which a manifest has latents."""
    corpus, facts = manifest.corpus, manifest.facts
    rebuilt = rebuild_command(facts, corpus, name=f"{facts.name}_with_latents")
    return (
        f"run `{repair_of(corpus, encoder_id)}`, then build a new manifest with them: `{rebuilt}`"
    )


def encoder_of(manifest: Manifest, encoder: str) -> str:
    """The id of the encoder that is meant. Latents without a camera are of texts, and latent actions are no pictures: neither is meant.

    Args:
        encoder: an id, the name of a model, or nothing where there is only one.

    Raises:
        ConfigError: none, or several, fit.
    """
    where = f"manifest {manifest.facts.name}"
    flat = manifest.rows["latents"].combine_chunks().flatten()
    has_camera = pc.not_equal(pc.struct_field(flat, "camera"), "")
    every = sorted(pc.unique(pc.struct_field(flat, "encoder_id").filter(has_camera)).to_pylist())
    ids = [each for each in every if not is_of_actions(each)]
    if not ids:
        raise ConfigError(
            "latents missing: no row of the manifest has latents",
            remedy=again(manifest),
            where=where,
        )
    fitting = [i for i in ids if encoder in ("", i, i.partition("-")[0])]
    present = f"the manifest has {', '.join(ids)}"
    if not fitting:
        problem = f"latents of another encoder: {present}; the recipe asks for {encoder}"
        repair = f"use `--set data.encoder={ids[0]}`, or {again(manifest)}"
        raise ConfigError(problem, remedy=repair, where=where)
    if len(fitting) > 1:
        repair = f"choose one with `--set data.encoder={fitting[0]}`"
        raise ConfigError(
            f"several encoders match {encoder!r}: {present}", remedy=repair, where=where
        )
    return str(fitting[0])


def views_of(cameras: Sequence[str], patterns: Sequence[str]) -> tuple[int | None, ...]:
    """For each view which camera it is: the first that its glob fits and that is no earlier view; None for none.

    Args:
        cameras: of the episode with latents of the encoder, sorted by name. patterns: `data.cameras`.
    """
    out: list[int | None] = []
    for pattern in patterns:
        free = (i for i, c in enumerate(cameras) if i not in out and fnmatchcase(c, pattern))
        out.append(next(free, None))
    return tuple(out)


def latents_of_views(
    latents: Sequence[Latent], encoder_id: str, patterns: Sequence[str]
) -> tuple[Latent | None, ...]:
    """[V] the file of each view of one row of a manifest."""
    own = sorted((x for x in latents if x.encoder_id == encoder_id), key=_camera)
    views = _views_of(tuple(x.camera for x in own), tuple(patterns))
    return tuple(None if i is None else own[i] for i in views)


_camera = attrgetter("camera")
_views_of = lru_cache(maxsize=4096)(views_of)  # a corpus has few sets of cameras


def files_of_views(
    rows: pa.Table, encoder_id: str, patterns: Sequence[str]
) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """`latents_of_views` of all rows at once: the paths of F files, row by row, and [F] of which row each is."""
    lists = rows["latents"].combine_chunks()
    flat, parent = lists.flatten(), pc.list_parent_indices(lists).to_numpy()
    is_ours = pc.equal(pc.struct_field(flat, "encoder_id"), encoder_id)
    ours = np.flatnonzero(is_ours.to_numpy(zero_copy_only=False))
    cameras = pc.struct_field(flat, "camera").take(pa.array(ours)).dictionary_encode()
    names, camera = cameras.dictionary.to_pylist(), cameras.indices.to_numpy()
    by_name = np.argsort(np.argsort(np.array(names, dtype=np.str_)))
    order = np.lexsort((by_name[camera], parent[ours]))
    ours, camera = ours[order], camera[order]
    row = parent[ours].astype(np.int64)
    is_view = np.zeros(len(ours), dtype=bool)
    for pattern in patterns:  # in each row the first that fits and is no earlier view
        fits = np.array([fnmatchcase(name, pattern) for name in names], dtype=bool)
        free = np.flatnonzero(fits[camera] & ~is_view)
        _, first = np.unique(row[free], return_index=True)
        is_view[free[first]] = True
    return pc.struct_field(flat, "path").take(pa.array(ours[is_view])), row[is_view]


def refuse_missing(
    manifest: Manifest, is_seen: npt.NDArray[np.bool_], encoder_id: str, settings: DataSettings
) -> None:
    """
    Args:
        is_seen: [S] which rows of the manifest have a view with latents.

    Raises:
        ConfigError: rows have none, and the recipe does not leave them out, or no row would be left.
    """
    missing = np.flatnonzero(~is_seen)
    if not len(missing) or (settings.without_missing and is_seen.any()):
        return
    row = manifest.row(int(missing[0]))
    problem = f"latents missing: {len(missing)} of {len(manifest)} rows have no latents of {encoder_id} for a camera matching {' or '.join(settings.cameras)}"
    first = f"{row.uid} first"
    repair = (
        f"{again(manifest, encoder_id)}; or skip these rows with `--set data.without_missing=true`"
    )
    raise ConfigError(f"{problem}, {first}", remedy=repair, where=f"manifest {manifest.facts.name}")
