"""The bytes of a file of text features. The same moments and facts give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schemas.text_features import FEATURES, OFFSETS, TEXT_INDEX, TIMESTEP, TextFacts

_EXPONENT = np.uint16(0x7F80)  # of bfloat16: all ones in what is no number


def file_bytes(
    moments: Sequence[tuple[int, int]], features: Sequence[npt.NDArray[np.uint16]], facts: TextFacts
) -> bytes:
    """
    Args:
        moments: [M] (text, timestep), sorted.
        features: [M] of [T, C] bits of bfloat16.
    """
    import torch
    from safetensors.torch import save

    bits = np.concatenate(list(features)).view(np.int16)
    offsets = np.cumsum([0, *(len(each) for each in features)], dtype=np.int64)
    texts, timesteps = np.ascontiguousarray(np.array(moments, dtype=np.int64).T)
    tensors = {
        FEATURES: torch.from_numpy(bits).view(torch.bfloat16),
        OFFSETS: torch.from_numpy(offsets),
        TEXT_INDEX: torch.from_numpy(texts),
        TIMESTEP: torch.from_numpy(timesteps),
    }
    return save(tensors, metadata=facts.metadata())


def is_finite(features: npt.NDArray[np.uint16]) -> bool:
    """Whether all of these bits of bfloat16 are numbers."""
    return not bool(((features & _EXPONENT) == _EXPONENT).any())
