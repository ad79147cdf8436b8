"""Errors of future latents: how far a predicted token is from the true one, and what a copy of the picture of now would have been."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as fn

from training.batch import Batch
from training.evaluation.accumulate import Error

COSINE, L2 = (
    "latent_cosine_distance",
    "latent_l2",
)  # of a token: 1 - similarity, and length of the difference
METRICS = (COSINE, L2)


def scored_views(batch: Batch) -> Tensor:
    """[B, V] views whose future is there and whose picture of now is: without that there is nothing to compare with."""
    return batch.has_future & batch.known.has_past[:, -1]


def last_picture(batch: Batch) -> Tensor:
    """[B, V * N, D] the latents of now: the baseline that says nothing will change."""
    return batch.known.past[:, -1]


def picture_errors(predicted: Tensor, batch: Batch) -> dict[str, Error]:
    """By metric, [B, 1]: over the tokens of the views that are scored."""
    predicted, true = predicted.float(), batch.future.float()
    views = scored_views(batch)
    known = views.repeat_interleave(true.shape[1] // views.shape[1], dim=1)
    errors = {
        COSINE: 1 - fn.cosine_similarity(predicted, true, dim=-1),
        L2: torch.linalg.vector_norm(predicted - true, dim=-1),
    }
    count = known.sum(dim=1, keepdim=True).double().cpu().numpy()
    return {
        name: Error(
            total=torch.where(known, value, 0.0).double().sum(dim=1, keepdim=True).cpu().numpy(),
            count=count,
        )
        for name, value in errors.items()
    }
