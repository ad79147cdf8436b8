"""Sums of errors by episode, as batches go by, and what they say: means with intervals.

Timesteps of an episode are alike; episodes are what is independent. So the interval of a mean comes from drawing whole episodes again, with
replacement (the percentile bootstrap, Efron 1979), always the same draws, so that two means of the same episodes can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
NUM_DRAWS = 1000
FEWEST = 5  # episodes: an interval from fewer is much too narrow, so there is none
BLOCK = 64  # draws at a time: memory is this many numbers for each episode


@dataclass(frozen=True, slots=True, order=True)
class Group:
    """What an error is counted under."""

    embodiment: str
    tier: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Error:
    """[B, K] sums of an error over what is scored of a sample at each of K steps, and [B, K] how many that are."""

    total: Array
    count: Array

    def plus(self, other: Error) -> Error:
        return Error(total=self.total + other.total, count=self.count + other.count)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ByEpisode:
    """[E, K] totals and counts of E episodes, each of which has something."""

    total: Array
    count: Array

    def mean(self) -> float | None:
        """Over everything; None when nothing was scored."""
        count = self.count.sum()
        return float(self.total.sum() / count) if count else None

    def by_step(self) -> list[float | None]:
        """[K] the mean at each step."""
        sums = zip(self.total.sum(axis=0), self.count.sum(axis=0), strict=True)
        return [float(t / c) if c else None for t, c in sums]

    @property
    def num_episodes(self) -> int:
        return len(self.total)

    def resampled(self, *, seed: int, num: int = NUM_DRAWS) -> Array:
        """[num] means of episodes drawn anew; none where there are fewer than FEWEST. The draws depend on E and `seed` alone."""
        total, count = self.total.sum(axis=1), self.count.sum(axis=1)
        size = len(total)
        if size < FEWEST:
            return np.zeros(0)
        rng = np.random.default_rng([seed, size])
        out = []
        for first in range(0, num, BLOCK):
            many = min(BLOCK, num - first)
            times = rng.multinomial(size, np.full(size, 1 / size), size=many)
            out.append((times @ total) / (times @ count))
        return np.concatenate(out)


@dataclass(slots=True)
class _Column:
    total: Array
    count: Array

    def reach(self, num_rows: int) -> None:
        """Room for that many; doubled, so that adding stays cheap."""
        if num_rows > len(self.total):
            more = ((0, max(num_rows, 2 * len(self.total)) - len(self.total)), (0, 0))
            self.total, self.count = np.pad(self.total, more), np.pad(self.count, more)


@dataclass(slots=True)
class ErrorTable:
    """Errors by name and group. Memory grows with episodes, not with samples."""

    groups: dict[Group, int] = field(default_factory=dict)
    columns: dict[str, _Column] = field(default_factory=dict)

    def add(self, groups: Sequence[Group], errors: Mapping[str, Error]) -> None:
        """`groups` of the B samples of `errors`."""
        place = np.array([self.groups.setdefault(group, len(self.groups)) for group in groups])
        for name, error in errors.items():
            column = self.columns.get(name)
            if column is None:
                nothing = np.zeros((0, error.total.shape[1]))
                column = self.columns[name] = _Column(nothing, nothing.copy())
            column.reach(len(self.groups))
            np.add.at(column.total, place, np.where(error.count > 0, error.total, 0.0))
            np.add.at(column.count, place, error.count)

    def of(self, name: str, *, embodiment: str | None = None, tier: str | None = None) -> ByEpisode:
        """By episode; None takes all. Segments of one episode are together.

        Raises:
            KeyError: nothing of this name was added.
        """
        column = self.columns[name]
        column.reach(len(self.groups))
        kept = [
            (group.uid, place)
            for group, place in self.groups.items()
            if embodiment in (None, group.embodiment) and tier in (None, group.tier)
        ]
        uids = {uid: index for index, uid in enumerate(sorted({uid for uid, _ in kept}))}
        width = column.total.shape[1]
        total, count = np.zeros((len(uids), width)), np.zeros((len(uids), width))
        for uid, place in kept:
            total[uids[uid]] += column.total[place]
            count[uids[uid]] += column.count[place]
        has_any = count.sum(axis=1) > 0
        return ByEpisode(total=total[has_any], count=count[has_any])


def interval(draws: Array) -> tuple[float, float] | None:
    """95 % of the draws; None without draws, or where one says nothing finite."""
    if not len(draws) or not np.isfinite(draws).all():
        return None
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)
