"""Which sample comes when: a pure function of (seed, epoch, index), whatever number of workers and ranks asks.

An epoch has N draws. Draw i goes to place p(i) of a permutation, and place p to the point (p + u) / N of the line on which the samples lie,
each as long as its weight (systematic sampling, Madow 1949). So each segment is drawn floor or ceil of N * weight times an epoch, where
independent draws would scatter by the root of that, and nothing larger than the table of weights is in memory.

The permutation is a Feistel network over the next power of four, walked until it falls below N (Black & Rogaway 2002, "Ciphers
with arbitrary finite domains"); the numbers are SplitMix64's (Steele, Lea & Flood 2014).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
_ROUNDS = 4
_GOLDEN, _MIX_1, _MIX_2 = (
    np.uint64(v) for v in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_ALL = 2**64 - 1


class Purpose(IntEnum):
    """A part of every key: two users of the same seed and step with the same number would draw the same. Runs go on with these values: new ones at the end."""

    SAMPLE_ORDER = 0
    SAMPLE_OFFSET = 1
    ANCHOR = 2
    LOW_QUALITY = 3  # whether such a sample trains the policy
    TASK = 4
    RARE_TASK = 5  # which samples are moved to a task that has too few
    INITIAL_WEIGHTS = 6
    TRAINING_NOISE = 7
    DROPOUT = 8
    EVALUATION_NOISE = 9
    # One value for two: the keys of an order have four parts, that of a served policy has two, so no key is of both.
    TASK_ORDER = 10
    POLICY_NOISE = 10
    TASK_MIX = 11
    REDRAWN_SAMPLE = 12  # in place of one that cannot be read
    REVIVED_CODES = 13
    CAUSAL_BLOCKS = 14
    CAUSAL_NOISE = 15
    MOTION_PROBE = 16
    CAUSAL_POLICY_NOISE = 17
    VALUE_ORDER = 18
    PLAN_NOISE = 19
    PAIR_ORDER = 20
    REDRAWN_PAIR = 21


def mixed(x: npt.ArrayLike) -> U64:
    """The finaliser of SplitMix64: 64 bits to 64 bits, one to one."""
    shape = np.shape(x)
    z = np.atleast_1d(np.asarray(x, dtype=np.uint64))  # an array: scalars warn when they wrap
    z = z + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return (z ^ (z >> np.uint64(31))).reshape(shape)


def key_of(*parts: int) -> np.uint64:
    """One key of several numbers; their order counts."""
    key = 0
    for part in parts:
        key = _mixed_one(key ^ _mixed_one(part))
    return np.uint64(key)


def _mixed_one(x: int) -> int:
    """`mixed` of one number. Numbers of Python are forty times as fast here as arrays of one."""
    z = (x + int(_GOLDEN)) & _ALL
    z = ((z ^ (z >> 30)) * int(_MIX_1)) & _ALL
    z = ((z ^ (z >> 27)) * int(_MIX_2)) & _ALL
    return z ^ (z >> 31)


def uniform(key: np.uint64 | U64, index: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1), one for each index; keys and indices may be arrays that broadcast."""
    bits = mixed(np.asarray(index, dtype=np.uint64) ^ key) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def permuted(key: np.uint64, index: Ints, num: int) -> Ints:
    """A permutation of [0, num), at `index`."""
    half_bits = np.uint64(max(1, (max(num - 1, 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    out = _feistel(np.asarray(index, dtype=np.uint64).reshape(-1), key, half_bits, mask)
    todo = np.flatnonzero(out >= num)
    while len(todo):
        out[todo] = _feistel(out[todo], key, half_bits, mask)
        todo = todo[out[todo] >= num]
    return out.astype(np.int64).reshape(np.shape(index))


def _feistel(x: U64, key: np.uint64, half_bits: np.uint64, mask: np.uint64) -> U64:
    left, right = x >> half_bits, x & mask
    for turn in range(_ROUNDS):
        left, right = right, left ^ (mixed(right ^ key ^ np.uint64(turn << 60)) & mask)
    return (left << half_bits) | right


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Order:
    """Draws from segments with `weights` [S] and `num_anchors` [S] places to begin a window in, `num_draws` an epoch.

    Raises:
        ValueError: nothing to draw, or a weight that is none.
    """

    weights: npt.NDArray[np.float64]
    num_anchors: Ints
    num_draws: int
    seed: int
    _line: npt.NDArray[np.float64] = field(init=False)  # [S] where each segment ends on it

    def __post_init__(self) -> None:
        are_weights = np.isfinite(self.weights).all() and (self.weights >= 0).all()
        if not are_weights or self.weights.sum() <= 0 or self.num_draws < 1:
            problem = "weights must be finite, not negative and not all zero, and at least one sample must be drawn"
            raise ValueError(problem)
        if (self.num_anchors[self.weights > 0] < 1).any():
            raise ValueError("a segment without a valid sample must have weight 0")
        object.__setattr__(self, "_line", np.cumsum(self.weights))

    def at(self, epoch: int, index: npt.ArrayLike) -> tuple[Ints, Ints]:
        """Segment and anchor of these draws of an epoch.

        Args:
            index: in [0, num_draws).
        """
        index = np.asarray(index, dtype=np.int64)
        line = self._line
        place = permuted(key_of(self.seed, epoch, Purpose.SAMPLE_ORDER), index, self.num_draws)
        offset = uniform(key_of(self.seed, epoch, Purpose.SAMPLE_OFFSET), 0)
        point = (place + offset) / self.num_draws * line[-1]
        last = np.searchsorted(line, line[-1])  # with a weight
        segment = np.minimum(np.searchsorted(line, point, side="right"), last)
        chance = uniform(key_of(self.seed, epoch, Purpose.ANCHOR), index)
        anchor = chance * self.num_anchors[segment]
        return segment, anchor.astype(np.int64)


def endless(order: Order, index: Ints) -> tuple[Ints, Ints]:
    """Segment and anchor of draws of epoch after epoch.

    Args:
        index: of each draw, from 0 without end.
    """
    segment, anchor = np.empty_like(index), np.empty_like(index)
    epochs = index // order.num_draws
    for epoch in np.unique(epochs):
        of_epoch = epochs == epoch
        at = index[of_epoch] - epoch * order.num_draws
        segment[of_epoch], anchor[of_epoch] = order.at(int(epoch), at)
    return segment, anchor
