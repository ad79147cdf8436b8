"""Flow times and noise of a batch: a pure function of (seed, step, place of the sample in the global batch).

So they do not depend on how many ranks share a batch or in how many parts a rank takes its share. Element j of a sample is a hash of the
sample's key and j (a counter-based generator, Salmon et al. 2011; the hash is SplitMix64's): a batch of any size is about 90 small
operators, where a generator that is seeded for each sample takes eleven a sample. Kinds of devices differ by the rounding of log and cos.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from training.batch import Batch
from training.data.rng_keys import Purpose, key_of
from training.flow import times_from

_TIME, _NORMAL = range(2)  # which numbers of a sample


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Noise:
    """R draws for B samples. t: [R, B], action: [R, B, K, E], future: [R, B, V * N, D]."""

    t: Tensor
    action: Tensor
    future: Tensor


def noise_for(batch: Batch, *, seed: int, step: int, first: int, num_draws: int) -> Noise:
    """On the device of the batch.

    Args:
        first: place of the batch's first sample in the global batch.
    """
    like, num = batch.action, num_draws
    keys = sample_keys(
        seed, step, Purpose.TRAINING_NOISE, first=first, num=len(like), device=like.device
    )
    t = times_from(uniform_of(keys, _TIME, (num,)))
    shapes = like.shape[1:], batch.future.shape[1:]
    drawn = normal_of(keys, _NORMAL, (num, sum(shape.numel() for shape in shapes)))
    of_each = torch.split(drawn, [shape.numel() for shape in shapes], dim=2)
    action, future = (
        x.transpose(0, 1).reshape(num, len(like), *shape)
        for x, shape in zip(of_each, shapes, strict=True)
    )
    return Noise(t=t.transpose(0, 1), action=action, future=future)


def sample_keys(*parts: int, first: int, num: int, device: torch.device) -> Tensor:
    """[num] int64: `key_of(*parts, first + i)` of each sample."""
    place = torch.arange(first, first + num, device=device)
    return _mixed(_mixed(place) ^ _signed(int(key_of(*parts))))


def uniform_of(keys: Tensor, which: int, shape: tuple[int, ...]) -> Tensor:
    """[B, *shape] float32 in [0, 1), multiples of 2^-24."""
    bits = _bits(keys, which, math.prod(shape))
    return (_shifted(bits, 40).float() * 2.0**-24).view(len(keys), *shape)


def normal_of(keys: Tensor, which: int, shape: tuple[int, ...]) -> Tensor:
    """[B, *shape] float32 normal numbers, two of 64 bits (Box & Muller 1958); none is further out than 6.8."""
    num = math.prod(shape)
    bits = _bits(keys, which, -(-num // 2))
    radius = ((_shifted(bits, 32).float() + 0.5) * 2.0**-32).log_().mul_(-2.0).clamp_(min=0.0)
    radius = radius.sqrt_()
    angle = (bits & 0xFFFFFFFF).float().mul_(2.0 * math.pi * 2.0**-32)
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)
    return pairs.flatten(1)[:, :num].reshape(len(keys), *shape)


def _bits(keys: Tensor, which: int, num: int) -> Tensor:
    """[B, num] 64 bits each: of key, kind and counter."""
    counter = torch.arange(num, device=keys.device)
    return _mixed(_mixed(keys ^ _signed(int(key_of(which))))[:, None] + counter)


_ALL = 2**64 - 1
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _mixed(x: Tensor) -> Tensor:
    """`rng_keys.mixed` of int64, whose sums and products wrap as those of 64 bits without a sign do."""
    z = x + _signed(_GOLDEN)
    z = (z ^ _shifted(z, 30)) * _signed(_MIX_1)
    z = (z ^ _shifted(z, 27)) * _signed(_MIX_2)
    return z ^ _shifted(z, 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    """To the right, zeros from the left."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _signed(x: int) -> int:
    """64 bits as int64 has them."""
    x &= _ALL
    return x - 2**64 if x >= 2**63 else x
