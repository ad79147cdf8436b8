"""No text: the network has a token of its own for that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from schemas.manifest import ManifestRow
from training.conditioning.protocol import Conditioner
from training.model.network import Text


class NoTextReader:
    """Tells how many samples there are, and nothing else."""

    def read(
        self, rows: Sequence[ManifestRow], timesteps: npt.NDArray[np.int64]
    ) -> dict[str, Tensor]:
        return {"nothing": torch.zeros(len(rows), 0)}


class NoTextConditioner(Conditioner):
    """[B, 0, 1]."""

    width = 1

    def forward(self, inputs: dict[str, Tensor]) -> Text:
        values = inputs["nothing"].unsqueeze(-1)
        return Text(values=values, has=torch.zeros_like(inputs["nothing"], dtype=torch.bool))
