"""What a loader yields and a step consumes: B samples, where each came from, and what a conditioner needs of its text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
from torch import Tensor

from training.conditioning.inputs import TextInputs
from training.data.broken import BadSample
from training.model.network import KnownInputs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Origin:
    """Which samples these are: [B] row of the manifest and [B] timestep of the episode that is "now". Enough to load them again."""

    row: npt.NDArray[np.int64]
    timestep: npt.NDArray[np.int64]

    def at(self, sample: Tensor) -> Origin:
        """Of these samples; one may be named several times."""
        which = sample.cpu().numpy()
        return Origin(row=self.row[which], timestep=self.timestep[which])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """B samples: what is known, and what is to be said.

    action: [B, K, E] normalised, has_action the same shape; asked: [B, E] elements that the body has, which is what a policy is asked
    for: it does not receive which of them were recorded, nor where its segment ends. future: [B, V * N, D], has_future [B, V]. action_t_s: [K] when each
    action of the chunk is reached, future_t_s: when the future picture is, both in seconds from now. text_inputs: what the
    reader of the conditioner made of these samples. later: [B, V * N, D], has_later [B, V], the picture that a
    latent action leads to, where that is another than the future one; may_teach: [B] whether the tier allows the segment to teach the policy. stored: [B, K, E] the actions as they are
    stored, for who measures in their units: an element that never changed in training is its constant after normalising and back.
    image_text: pairs beside the samples, each [pairs, ...] (`training/data/image_text.py`).
    """

    known: KnownInputs
    action: Tensor
    has_action: Tensor
    asked: Tensor
    future: Tensor
    has_future: Tensor
    action_t_s: Tensor
    future_t_s: float
    text_inputs: TextInputs
    origin: Origin
    stored: Tensor | None = None
    later: Tensor | None = None
    has_later: Tensor | None = None
    may_teach: Tensor | None = None
    replaced: tuple[BadSample, ...] = ()
    image_text: dict[str, Tensor] | None = None


def of_samples(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """`change` of every tensor whose first axis is the samples, but for `stored`; where they came from, their text and the pairs beside them stay."""
    known = batch.known
    changed = {
        field.name: change(value)
        for field in fields(KnownInputs)
        if (value := getattr(known, field.name)) is not None
    }
    return replace(
        batch,
        known=replace(known, **changed),
        action=change(batch.action),
        has_action=change(batch.has_action),
        asked=change(batch.asked),
        future=change(batch.future),
        has_future=change(batch.has_future),
        later=None if batch.later is None else change(batch.later),
        has_later=None if batch.has_later is None else change(batch.has_later),
        may_teach=None if batch.may_teach is None else change(batch.may_teach),
    )
