"""The two halves of conditioning: a reader in the loader's workers, and a module in the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from schemas.manifest import ManifestRow
from schemas.text_features import FeatureSettings
from training.conditioning.inputs import TextInputs
from training.model.text import Text


class TextReader(Protocol):
    """Runs where samples are loaded; picklable. What it reads of a sample must not depend on the batch that the sample is in."""

    def read(self, rows: Sequence[ManifestRow], timesteps: npt.NDArray[np.int64]) -> TextInputs:
        """Of segment `rows[b]` at `timesteps[b]` of its episode, equal texts once.

        Raises:
            SourceError: something that the run was promised is not there; the message has its file, episode and timestep.
        """
        ...


class Conditioner(nn.Module):
    """Turns what the reader read into tokens of `width`. What of it is not trained has requires_grad False and is in no checkpoint.

    `text_id`, `text_settings`: of a frozen model whose features they are, and how it was asked; "" and None where there is none.
    """

    width: int
    text_id: str = ""
    text_settings: FeatureSettings | None = None

    @property
    def tuned_layers(self) -> list[nn.Module]:
        """Trained layers of a model that is frozen otherwise: each is sharded by itself."""
        return []

    @property
    def frozen_bytes(self) -> int:
        """Of weights on the device that are not trained."""
        return 0

    def forward(self, inputs: TextInputs) -> Text:
        raise NotImplementedError

    def answer_loss(self, inputs: dict[str, Tensor]) -> Tensor:
        """[] sum over the tokens of answers of `Batch.image_text` of their negative log-likelihood; only a language model has one."""
        raise NotImplementedError
