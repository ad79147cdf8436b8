"""Which row an episode has: millions of uids looked up by number, in linear time and without a text being kept.

A join of five million texts with as many takes DuckDB or Polars seconds and a gigabyte. Two hashes of 64 bits each do: the first says where to look,
the second whether it is the one. A uid is taken for another one of 10^8 with a chance of 10^-19 at most.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from ingest.catalog.segmentation import Ints

Hashes = npt.NDArray[np.uint64]
_CHECK_SEED = 1
SLICE = 1 << 16  # uids looked up at a time: what the caches of a core hold
_NONE = np.zeros(0, dtype=np.int64)


class UidIndex:
    """The rows of N uids, in their order; of equal uids the first."""

    def __init__(self, uids: pl.Series) -> None:
        count = len(uids)
        # The row takes the lowest bits of its hash: numbers are sorted several times as fast as places of numbers.
        self._row_bits = np.uint64(max(count.bit_length(), 1))
        low_bits = np.uint64((1 << int(self._row_bits)) - 1)
        keys = (_hashes(uids, 0) & ~low_bits) | np.arange(count, dtype=np.uint64)
        keys = pl.Series(keys).sort().to_numpy()  # on all cores
        self._row = (keys & low_bits).astype(np.int64)
        self._hashes = keys >> self._row_bits
        self._check = _hashes(uids, _CHECK_SEED)[self._row]
        slots = np.bincount(self._slots(self._hashes), minlength=1 << int(self._row_bits))
        # of each slot, how many rows are in the slots before it
        self._first = np.cumsum(slots) - slots

    def __len__(self) -> int:
        return len(self._row)

    def of(self, uids: pl.Series) -> Ints:
        """The row of each uid; -1 where it is not there."""
        pieces = [self._of(uids.slice(at, SLICE)) for at in range(0, len(uids), SLICE)]
        return pieces[0] if len(pieces) == 1 else np.concatenate([_NONE, *pieces])

    def _of(self, uids: pl.Series) -> Ints:
        key, check = _hashes(uids, 0) >> self._row_bits, _hashes(uids, _CHECK_SEED)
        at = self._first[self._slots(key)]
        out = np.full(len(uids), -1, dtype=np.int64)
        open_ = np.arange(len(uids))
        while True:  # a step along the rows of a slot, for all that are not done: a few
            open_ = open_[at[open_] < len(self)]
            here = at[open_]
            near = self._hashes[here] <= key[open_]
            open_, here = open_[near], here[near]
            if not len(open_):
                return out
            is_it = (self._hashes[here] == key[open_]) & (self._check[here] == check[open_])
            out[open_[is_it]] = self._row[here[is_it]]
            open_ = open_[~is_it]
            at[open_] += 1

    def _slots(self, hashes: Hashes) -> Ints:
        """As many slots as rows, or twice; by the highest bits, so that slots are in the order of hashes."""
        return (hashes >> np.uint64(64 - 2 * int(self._row_bits))).astype(np.int64)


def _hashes(uids: pl.Series, seed: int) -> Hashes:
    return uids.hash(seed).to_numpy()
