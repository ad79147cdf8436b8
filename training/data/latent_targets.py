"""Latent actions of video without actions, as chunks that the task policy says: row i of a chunk is token i, its first slots are the token's elements.

They are an embodiment of their own, LATENT_BODY: a policy that learnt them acts for none by them. What they mean is in their files' pages
(`eicorpus latents actions`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from schemas.errors import ConfigError
from schemas.latents import is_of_actions
from schemas.manifest import Latent, Manifest, ManifestRow
from schemas.manifest_rebuild import rebuild_command
from training.data.action_layout import ACTION_WIDTH, LATENT_BODY, embodiments_of
from training.data.broken import broken_sample, patiently
from training.data.latent_reader import LatentReader, LatentShape, is_finite, shape_of
from training.data.normalise import Normaliser
from training.recipe import DataSettings

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def bodies_of(manifest: Manifest, data: DataSettings) -> tuple[str, ...]:
    """Every body of the manifest, and LATENT_BODY last where latent actions are trained.

    Raises:
        ConfigError: a body of the manifest has that name.
    """
    bodies = embodiments_of(manifest)
    if data.latent_actions is None:
        return bodies
    if LATENT_BODY in bodies:
        problem = f"an embodiment of the manifest is called {LATENT_BODY}, as latent actions are"
        raise ConfigError(problem, where=f"manifest {manifest.facts.name}")
    return (*bodies, LATENT_BODY)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatentTargets:
    """num_tokens Q of width C each, `code_rms` their scale; each leads `steps` timesteps on. is_labelled: [S] rows of the manifest of the tier
    actionless that have them.
    """

    encoder_id: str
    reader: LatentReader
    num_tokens: int
    width: int
    code_rms: float
    steps: int
    is_labelled: Mask

    def scaled(self, normaliser: Normaliser) -> Normaliser:
        """With LATENT_BODY's slots, in units of `code_rms`, where a checkpoint has not said them yet."""
        body = normaliser.embodiments.index(LATENT_BODY)
        if normaliser.is_known[body].any():
            return normaliser
        scale, is_known = normaliser.scale.clone(), normaliser.is_known.clone()
        scale[body, : self.width], is_known[body, : self.width] = self.code_rms, True
        return replace(normaliser, scale=scale, is_known=is_known)

    def read(self, row: ManifestRow, now: int) -> Floats:
        """[Q, C] of one timestep.

        Raises:
            SourceError: it cannot be read; the message has file, episode and timestep.
        """
        latent = _of_row(row, self.encoder_id)
        memory = np.empty((self.num_tokens, self.width), dtype=np.uint16)
        try:
            patiently(partial(self._read, latent, row, now, memory))
        except (ConfigError, OSError) as error:
            raise broken_sample(row, now, latent.path, error) from error
        return np.asarray(torch.from_numpy(memory).view(torch.bfloat16).float().numpy())

    def _read(
        self, latent: Latent, row: ManifestRow, now: int, memory: npt.NDArray[np.uint16]
    ) -> None:
        self.reader.open(latent, row.uid, row.end).read(now, memory)
        if not is_finite(memory):
            raise ConfigError("NaN or infinity in the sample", where=latent.path)


def open_targets(
    manifest: Manifest, data: DataSettings, pictures: LatentShape, *, verify_latents: bool
) -> LatentTargets:
    """
    Args:
        pictures: of the latents that are trained on.

    Raises:
        ConfigError: no video of the manifest has latent actions, those of several models fit, or they do not fit the pictures or a chunk of actions.
    """
    assert data.latent_actions is not None
    encoder_id = _encoder_of(manifest, data.latent_actions.encoder)
    is_video = np.asarray(pc.equal(manifest.rows["tier"], "actionless").to_numpy())
    is_labelled = is_video & _has_latents(manifest.rows, encoder_id)
    if not is_labelled.any():
        problem = f"no segment without actions has latent actions of {encoder_id}"
        raise ConfigError(problem, remedy="train without data.latent_actions", where=f"manifest {manifest.facts.name}")  # fmt: skip
    row = manifest.row(int(np.flatnonzero(is_labelled)[0]))
    latent = _of_row(row, encoder_id)
    facts = LatentReader(manifest.corpus).open(latent, row.uid, 0).facts
    shape = shape_of(facts)
    if facts.later_s is None or facts.code_rms is None or facts.dtype != "bf16":
        raise ConfigError("these are no latent actions", where=latent.path)
    if (shape.grid_stride, shape.rate_hz) != (pictures.grid_stride, pictures.rate_hz):
        problem = f"latent actions every {shape.grid_stride} timesteps at {shape.rate_hz:g} Hz, pictures every {pictures.grid_stride} at {pictures.rate_hz:g} Hz"
        raise ConfigError(problem, where=latent.path)
    if facts.num_tokens > data.num_actions or facts.width > ACTION_WIDTH:
        problem = f"latent actions of {facts.num_tokens} x {facts.width}; a chunk has {data.num_actions} x {ACTION_WIDTH}"
        raise ConfigError(problem, remedy=f"train with --set data.num_actions={facts.num_tokens}", where=latent.path)  # fmt: skip
    return LatentTargets(
        encoder_id=encoder_id,
        reader=LatentReader(manifest.corpus, shape, with_digest=verify_latents),
        num_tokens=facts.num_tokens,
        width=facts.width,
        code_rms=facts.code_rms,
        steps=round(facts.later_s * facts.rate_hz),
        is_labelled=is_labelled,
    )


def paths_of(manifest: Manifest, encoder_id: str, rows: Mask) -> pa.Array:
    """Paths of the files of these rows."""
    flat, parent = _flat(manifest.rows)
    ours = pc.equal(pc.struct_field(flat, "encoder_id"), encoder_id)
    keep = ours.to_numpy(zero_copy_only=False) & rows[parent]
    return pc.struct_field(flat, "path").filter(pa.array(keep))


def _encoder_of(manifest: Manifest, encoder: str) -> str:
    facts = manifest.facts
    flat, _ = _flat(manifest.rows)
    every = pc.unique(pc.struct_field(flat, "encoder_id")).to_pylist()
    ids = sorted(each for each in every if is_of_actions(each))
    fitting = [each for each in ids if encoder in (each, each.partition("-")[0])]
    if len(fitting) == 1:
        return str(fitting[0])
    where = f"manifest {facts.name}"
    if fitting:
        problem = f"latent actions of several models: {', '.join(fitting)}"
        repair = f"choose one with `--set data.latent_actions.encoder={fitting[0]}`"
        raise ConfigError(problem, remedy=repair, where=where)
    again = rebuild_command(facts, manifest.corpus, name=f"{facts.name}_with_latent_actions")
    raise ConfigError(
        f"no latent actions of {encoder}: the manifest has {', '.join(ids) or 'none'}",
        remedy=f"run `eicorpus latents actions {manifest.corpus} --lam RUN`, then build a new manifest with them: `{again}`",
        where=where,
    )


def _flat(rows: pa.Table) -> tuple[pa.Array, Ints]:
    """Latents of all rows, and [F] of which row each is."""
    lists = rows["latents"].combine_chunks()
    return lists.flatten(), pc.list_parent_indices(lists).to_numpy()


def _has_latents(rows: pa.Table, encoder_id: str) -> Mask:
    flat, parent = _flat(rows)
    out = np.zeros(len(rows), dtype=bool)
    ours = pc.equal(pc.struct_field(flat, "encoder_id"), encoder_id)
    out[parent[ours.to_numpy(zero_copy_only=False)]] = True
    return out


def _of_row(row: ManifestRow, encoder_id: str) -> Latent:
    return next(each for each in row.latents if each.encoder_id == encoder_id)
