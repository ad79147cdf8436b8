"""Trained actions to numbers of order one and back, for each body by the statistics of its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from schemas.errors import ConfigError
from schemas.invalid import invalid
from schemas.manifest import Manifest, Normalisation, Statistics
from schemas.manifest_rebuild import rebuild_command
from schemas.trained_action import REPRESENTATION
from training.data.action_layout import ACTION_WIDTH, slot_names, slots_of
from training.recipe import NormaliseSettings

# An element whose range is below this never changes: a micrometre, a microradian, a millionth of an opening. What
# remains is the rounding of float32 poses, and dividing by it would make noise of it.
SMALLEST_RANGE = 1e-6
# Quantiles nearly meet where what is usual is a jitter and what counts is rare: a gripper that closes in one step of two hundred. So an element
# is never scaled by less than this part of its standard deviation. Then its mean square, which is what a loss sees, is at most 13 whatever
# is rare (the mean is within a standard deviation of the median), and of n values none is beyond 2 sqrt(n) + 3. Not by a part of max - min:
# one glitch makes that as large as it likes, and would squeeze all that is usual; of a glitch the standard deviation has 1 / sqrt(n).
# Ordinary elements stay as they are: the quantiles of 1 and 0 in equal parts are 2 standard deviations apart, those of most motions 3 to 5.
LEAST_STDS = 0.5
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Normaliser:
    """[M, 172] of M bodies: a value is `centre + scale * normalised`. `scale` is 0 where an element never changes.

    `is_known`: the manifest had samples of this element; all others are masked, whatever a recording says.
    """

    embodiments: tuple[str, ...]
    centre: Tensor
    scale: Tensor
    is_known: Tensor
    clip: float | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """By arrays: `multiprocessing` would put tensors into /dev/shm."""
        arrays = (x.cpu().numpy() for x in (self.centre, self.scale, self.is_known))
        return _of_arrays, (self.embodiments, *arrays, self.clip)

    def encode(self, values: Tensor, embodiment: Tensor) -> Tensor:
        """[B, K, 172] in metres, radians and fractions to normalised ones; 0 where unknown or constant.

        Args:
            embodiment: [B] numbers of bodies.
        """
        centre, scale = self._of(embodiment, values)
        changes = scale > 0
        out = torch.where(changes, (values - centre) / torch.where(changes, scale, 1.0), 0.0)
        return out if self.clip is None else out.clamp(-self.clip, self.clip)

    def encode_array(
        self, values: npt.NDArray[np.float32], embodiment: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """`encode` without torch, whose threads would get in each other's way where many samples are made at once."""
        centre, scale = (x.numpy()[embodiment][:, None] for x in (self.centre, self.scale))
        changes = scale > 0
        out = np.where(changes, (values - centre) / np.where(changes, scale, 1), 0)
        out = out if self.clip is None else out.clip(-self.clip, self.clip)
        return np.asarray(out, dtype=np.float32)

    def decode(self, values: Tensor, embodiment: Tensor) -> Tensor:
        """[B, K, 172] back; unknown elements are 0, constant ones their constant."""
        centre, scale = self._of(embodiment, values)
        return centre + scale * values

    def _of(self, embodiment: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        at = embodiment.to(self.centre.device)
        centre, scale = (x[at][:, None].to(like.device) for x in (self.centre, self.scale))
        return centre, scale

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: lists and tensors."""
        return {
            "representation": REPRESENTATION,
            "slots": list(slot_names()),
            "embodiments": list(self.embodiments),
            "centre": self.centre,
            "scale": self.scale,
            "is_known": self.is_known,
            "clip": self.clip,
        }

    def joined(self, later: Normaliser) -> Normaliser:
        """Bodies of this one as they are, new ones as `later` has them: an adapter goes on meaning what it learned."""
        more = [i for i, name in enumerate(later.embodiments) if name not in self.embodiments]
        both = {n: torch.cat([getattr(self, n), getattr(later, n)[more]]) for n in _ARRAYS}
        names = (*self.embodiments, *(later.embodiments[i] for i in more))
        return Normaliser(embodiments=names, clip=self.clip, **both)


def _of_arrays(
    embodiments: tuple[str, ...],
    centre: npt.NDArray[np.float32],
    scale: npt.NDArray[np.float32],
    is_known: npt.NDArray[np.bool_],
    clip: float | None,
) -> Normaliser:
    return Normaliser(
        embodiments=embodiments,
        centre=torch.from_numpy(centre),
        scale=torch.from_numpy(scale),
        is_known=torch.from_numpy(is_known),
        clip=clip,
    )


_ARRAYS = {"centre": torch.float32, "scale": torch.float32, "is_known": torch.bool}


class _Stored(BaseModel):
    """What of `Normaliser.state` is no tensor."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    representation: str
    slots: tuple[str, ...]
    embodiments: tuple[str, ...]
    clip: float | None


def from_state(state: Mapping[str, Any], *, where: str = "checkpoint") -> Normaliser:
    """
    Raises:
        ConfigError: of another representation or another layout, or damaged.
    """
    try:
        stored = _Stored.model_validate({k: v for k, v in state.items() if k not in _ARRAYS})
    except ValidationError as error:
        raise ConfigError(f"normaliser: {invalid(error, _Stored)}", where=where) from error
    if stored.representation != REPRESENTATION:
        problem = f"the normaliser is for {stored.representation}; expected {REPRESENTATION}"
        raise ConfigError(problem, remedy="train again with this eicorpus", where=where)
    if stored.slots != slot_names():
        problem = f"{len(stored.slots)} slots of a different layout; expected {ACTION_WIDTH}"
        raise ConfigError(problem, remedy="use the eicorpus version that wrote it", where=where)
    shape = (len(stored.embodiments), ACTION_WIDTH)
    for name, dtype in _ARRAYS.items():
        if name not in state or state[name].shape != shape or state[name].dtype != dtype:
            raise ConfigError(
                f"the normaliser has no {name} of {dtype} {list(shape)}",
                remedy="use another --checkpoint, or restore this one from a copy",
                where=where,
            )
    arrays = {name: state[name] for name in _ARRAYS}
    return Normaliser(embodiments=stored.embodiments, clip=stored.clip, **arrays)


def normaliser_of(
    manifest: Manifest, embodiments: Sequence[str], settings: NormaliseSettings
) -> Normaliser:
    """From the statistics of a manifest. A body that they do not have is masked whole.

    Raises:
        ConfigError: there are none, or they are of another representation.
    """
    statistics = checked_statistics(manifest)
    arrays = [_of_body(statistics.embodiments.get(name), name, settings) for name in embodiments]
    centre, scale, known = (np.stack(each) for each in zip(*arrays, strict=True))
    return Normaliser(
        embodiments=tuple(embodiments),
        centre=torch.from_numpy(centre).float(),
        scale=torch.from_numpy(scale).float(),
        is_known=torch.from_numpy(known),
        clip=settings.clip,
    )


def checked_statistics(manifest: Manifest) -> Statistics:
    """
    Raises:
        ConfigError: see `normaliser_of`.
    """
    facts, where = manifest.facts, f"manifest {manifest.facts.name}"
    statistics, name = facts.statistics, f"{facts.name}_with_statistics"
    again = f"`{rebuild_command(facts, manifest.corpus, name=name)}`"
    if statistics is None:
        problem = "the manifest has no statistics (--no-stats), which normalise the actions"
        raise ConfigError(problem, remedy=f"run {again}", where=where)
    if statistics.representation != REPRESENTATION:
        problem = f"the statistics are for another representation, {statistics.representation}"
        raise ConfigError(
            f"{problem}; expected {REPRESENTATION}", remedy=f"run {again}", where=where
        )
    return statistics


def _of_body(
    statistics: Normalisation | None, name: str, settings: NormaliseSettings
) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """[172] centre, scale, and what is known."""
    centre, scale = np.zeros(ACTION_WIDTH), np.zeros(ACTION_WIDTH)
    known = np.zeros(ACTION_WIDTH, dtype=bool)
    if statistics is None:
        return centre, scale, known
    at = slots_of(statistics.names, where=f"embodiment {name}")
    has = np.array(statistics.count) > 0
    middle, half = _centre_and_scale(statistics, settings)
    centre[at], scale[at], known[at] = np.where(has, middle, 0), np.where(has, half, 0), has
    return centre, scale, known


def _centre_and_scale(
    statistics: Normalisation, settings: NormaliseSettings
) -> tuple[Array, Array]:
    """[E], NaN where there are no samples. Quantiles that meet while the extremes do not give way to the extremes: then nothing
    that is usual can be squeezed.
    """
    low, high, std = statistics.array("min"), statistics.array("max"), statistics.array("std")
    if settings.mode == "mean_std":
        centre, scale = statistics.array("mean"), std
        changes = 2 * scale > SMALLEST_RANGE
    else:
        if settings.mode == "q99":
            q_low, q_high = statistics.array("q01"), statistics.array("q99")
            is_flat = q_high - q_low <= SMALLEST_RANGE
            low, high = np.where(is_flat, low, q_low), np.where(is_flat, high, q_high)
        centre = (low + high) / 2
        scale = np.maximum((high - low) / 2, LEAST_STDS * std)  # of extremes always the former
        changes = high - low > SMALLEST_RANGE
    return centre, np.where(changes, scale, 0.0)
