"""The canonical clock: a 10 Hz grid from the first instant at which everything required exists (design §3.1)."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from schemas.errors import Code, SourceError
from schemas.rate import NS_PER_S, instants_ns

Instants = npt.NDArray[np.int64]


def grid(clocks: Iterable[Instants], rate_hz: Fraction, max_s: int) -> Instants:
    """Instants t_0 + k / rate that all `clocks` [N_i] int64 ns cover, t_0 being the latest of their first samples.

    Raises:
        SourceError: there is no clock, the clocks share no instant, or the grid is longer than `max_s` seconds.
    """
    clocks = list(clocks)
    if not clocks:
        problem = "the episode has neither a camera nor a state; commands alone define no common time range"
        raise SourceError(Code.EMPTY_EPISODE, problem)
    start = max(int(clock[0]) for clock in clocks)
    end = min(int(clock[-1]) for clock in clocks)
    if end < start:
        problem = (
            f"one stream starts at {start / 1e9:.3f} s, after another ended at {end / 1e9:.3f} s"
        )
        raise SourceError(Code.NO_COMMON_TIME, f"{problem}; expected streams that overlap in time")
    if end - start > max_s * NS_PER_S:
        problem = f"{(end - start) / 1e9:.0f} s of common time; expected at most {max_s} s"
        raise SourceError(Code.TOO_LONG, f"{problem}; cut the recording into episodes")
    # Half a nanosecond of rounding in the source's own clock must not lose the last timestep.
    count = int(Fraction(end - start + 1, NS_PER_S) * rate_hz) + 1
    return instants_ns(count, rate_hz, start)


def gap_limit_ns(t_ns: Instants, *, gap_periods: int, gap_ms: int) -> int:
    """The longest step between samples that may be interpolated over, from the stream's median period."""
    period = int(np.median(np.diff(t_ns))) if len(t_ns) > 1 else 0
    return max(gap_periods * period, gap_ms * 1_000_000)


def nearest(clock: Instants, at: Instants) -> npt.NDArray[np.intp]:
    """Index into `clock` [N] (increasing) of the sample nearest to each of `at` [K]; a tie goes to the earlier."""
    right = np.clip(np.searchsorted(clock, at, side="left"), 1, max(len(clock) - 1, 1))
    if len(clock) == 1:
        return np.zeros(len(at), dtype=np.intp)
    left = right - 1
    return np.where(at - clock[left] <= clock[right] - at, left, right)
