"""Cut an unannotated interval of video into windows of bounded length.

Source of the 60 s bound: design §3 ("windows of at most 60 s on scene and validity breaks").
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

LONGEST_WINDOW_S = 60.0
# An annotated segment up to here stays whole: a real Goal-Step step lasts up to 3,077 s, an episode may have 1,000 s.
LONGEST_WHOLE_S = 300.0


def windows(
    start_s: float,
    end_s: float,
    *,
    breaks_s: Iterable[float] = (),
    longest_s: float = LONGEST_WINDOW_S,
) -> tuple[tuple[float, float], ...]:
    """Half-open windows that cover [start_s, end_s) exactly, in order, none crossing a break.

    Each stretch between two breaks is divided into the fewest EQUAL windows of at most `longest_s`: a fixed length
    would leave a useless last window of a fraction of a second. Breaks outside the stretch are ignored.

    Raises:
        ValueError: `longest_s` is not positive or a bound is not finite.
    """
    if longest_s <= 0 or not (math.isfinite(start_s) and math.isfinite(end_s)):
        raise ValueError(f"cannot cut [{start_s}, {end_s}) s into windows of {longest_s} s")
    if end_s <= start_s:
        return ()
    edges = sorted({start_s, end_s, *(b for b in breaks_s if start_s < b < end_s)})
    spans: list[tuple[float, float]] = []
    for first, last in pairwise(edges):
        count = math.ceil((last - first) / longest_s)
        cuts = [first + (last - first) * k / count for k in range(count)] + [last]
        spans += pairwise(cuts)
    return tuple(spans)


def parts(start_s: float, end_s: float) -> tuple[tuple[float, float], ...]:
    """An annotated segment as it is up to 300 s, else cut into windows of at most 60 s."""
    if end_s - start_s <= LONGEST_WHOLE_S:
        return ((start_s, end_s),)
    return windows(start_s, end_s)
