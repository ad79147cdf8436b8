"""The two halves of conditioning: a reader in the loader's workers, and a module in the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import nn

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

    def forward(self, inputs: TextInputs) -> Text:
        raise NotImplementedError
