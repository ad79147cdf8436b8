"""Latent actions of an episode, out of its stored picture latents: what `eicorpus latents actions` writes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from schemas.errors import ConfigError
from schemas.latents import ACTIONS_MODEL, CODE, LATENTS, WITH_CHECKSUMS, LatentFacts
from training.data.latent_reader import LatentFile, is_finite, shape_of
from training.lara.lara import Lara
from training.lara.latent_action import PictureShape

NO_CODE = -1  # where there is no later picture
PICTURES = 128  # at once


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionEncoder:
    """A trained latent action model, and the pictures that it compares: those of `source_id` and the ones `later_s` after them, of the cameras that
    `cameras` (globs, one a view) choose."""

    lara: Lara
    source_id: str
    later_s: float
    cameras: tuple[str, ...]
    device: torch.device

    @property
    def weights_sha256(self) -> str:
        """Of names and bytes of all tensors, in order."""
        sha = hashlib.sha256()
        for name, tensor in sorted(self.lara.lam.state_dict().items()):
            sha.update(name.encode())
            sha.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return sha.hexdigest()

    @property
    def id(self) -> str:
        """Another model, other pictures or another time has another id."""
        parts = (
            self.weights_sha256,
            self.source_id,
            self.later_s,
            self.cameras,
            self.lara.change_std,
        )
        return f"{ACTIONS_MODEL}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"

    def facts(self, source: LatentFacts, encoder_id: str, weights_sha256: str) -> LatentFacts:
        """The page of a file, of the page of its first view."""
        lam = self.lara.settings.lam
        return source.model_copy(
            update={
                "latents_version": WITH_CHECKSUMS,
                "encoder_id": encoder_id,
                "model": ACTIONS_MODEL,
                "weights_sha256": weights_sha256,
                "dtype": "bf16",
                "width": lam.code_width,
                "num_prefix": 0,
                "grid_height": 1,
                "grid_width": lam.num_queries,
                "num_codes": lam.num_codes,
                "later_s": self.later_s,
                "code_rms": self.lara.lam.book.rms,
            }
        )

    def step_of(self, views: Sequence[LatentFile | None]) -> int:
        """How many pictures later the other one is.

        Args:
            views: open files of one episode, None where it has no camera for a view; not all None.

        Raises:
            ConfigError: they do not fit the model, or lie at other times.
        """
        (first, *others) = [file for file in views if file is not None]
        facts, shape = first.facts, self.lara.lam.shape
        for file in (first, *others):
            _check(file, shape, facts)
        step = round(self.later_s * facts.rate_hz / facts.grid_stride)
        if abs(step * facts.grid_stride / facts.rate_hz - self.later_s) > 1e-6 or not step:
            interval_s = facts.grid_stride / facts.rate_hz
            problem = f"the model compares pictures {self.later_s:g} s apart; these latents are {interval_s:g} s apart"
            raise ConfigError(problem, remedy="run `eicorpus latents images` with another --stride", where=str(first.facts.uid))  # fmt: skip
        return step

    def pieces(
        self, views: Sequence[LatentFile | None], step: int
    ) -> Iterator[dict[str, memoryview]]:
        """The bytes of the file's tensors, some pictures at a time: z before it is quantised as bfloat16, and the codes as int64.

        Args:
            views, step: see `step_of`.

        Raises:
            ConfigError: one holds NaN or infinity, or is shorter than it was.
            OSError: they cannot be read.
        """
        num = next(file for file in views if file is not None).facts.num_frames
        for begin in range(0, num, PICTURES):
            end = min(begin + PICTURES, num)
            yield self._piece(views, begin, end, min(end, num - step), step)

    @torch.no_grad()
    def _piece(
        self, views: Sequence[LatentFile | None], begin: int, end: int, last: int, step: int
    ) -> dict[str, memoryview]:
        """Of pictures [begin, end), of which those before `last` have a later one."""
        lam = self.lara.settings.lam
        z = torch.zeros(end - begin, lam.num_queries, lam.code_width, dtype=torch.bfloat16)
        code = torch.full((end - begin, lam.num_queries), NO_CODE, dtype=torch.int64)
        if (paired := max(0, last - begin)) > 0:
            now, later = (
                self._pictures(views, at, paired).to(self.device) for at in (begin, begin + step)
            )
            patches = self.lara.lam.shape.num_patches
            here = torch.tensor([file is not None for file in views], device=self.device)
            has = here.repeat_interleave(patches).expand(paired, -1)
            pair = self.lara.lam(now, later, has)
            z[:paired], code[:paired] = pair.z.to(torch.bfloat16).cpu(), pair.quantised.code.cpu()
        return {LATENTS: _bytes(z), CODE: _bytes(code)}

    def _pictures(self, views: Sequence[LatentFile | None], begin: int, count: int) -> Tensor:
        """[count, V * N, D] float32, 0 of views that are not there."""
        shape = self.lara.lam.shape
        out = torch.zeros(count, shape.num_views, shape.num_patches, shape.latent_width)
        for v, file in enumerate(views):
            if file is None:
                continue
            read_as = shape_of(file.facts).read_as
            memory = np.empty((shape.num_patches, shape.latent_width), f"u{read_as.itemsize}")
            for i in range(count):
                timestep = (begin + i) * file.facts.grid_stride
                file.read(timestep, memory)
                if not is_finite(memory):
                    problem = f"NaN or infinity in the picture of timestep {timestep}"
                    raise file.damaged(problem)
                out[i, v] = torch.from_numpy(memory).view(read_as).float()
        return out.flatten(1, 2)


def _check(file: LatentFile, shape: PictureShape, first: LatentFacts) -> None:
    facts = file.facts
    held = (facts.grid_height * facts.grid_width, facts.width)
    if held != (shape.num_patches, shape.latent_width):
        problem = f"latents of {held[0]} x {held[1]}; the latent action model reads {shape.num_patches} x {shape.latent_width}"
        raise ConfigError(problem, where=f"{facts.uid}, camera {facts.camera}")
    if (facts.num_frames, facts.grid_stride) != (first.num_frames, first.grid_stride):
        problem = f"latents at other times than those of camera {first.camera}"
        raise ConfigError(problem, where=f"{facts.uid}, camera {facts.camera}")


def _bytes(x: Tensor) -> memoryview:
    return x.contiguous().view(torch.uint8).numpy().reshape(-1).data
