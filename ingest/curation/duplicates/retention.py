"""Which of several copies of an episode to keep, and why: a rule over what the catalog says of them, the same for any order of work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# Best first; what is not in the list comes last.
HELD_OUT_FIRST = ("test", "val")
TIERS = ("high", "low", "actionless", "", "excluded")  # "" when no policy was asked
LICENCES = ("permissive", "non_commercial", "no_redistribution", "unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What speaks for an episode. `unsettled_facts`: conventions of its source that are inferred, unverified or unknown."""

    uid: str
    source_split: str = ""
    tier: str = ""
    num_cameras: int = 0
    licence_class: str = "unknown"
    is_native_rate: bool = False  # the source is at least as fast as the corpus, so nothing between its samples is invented
    unsettled_facts: int = 0


@dataclass(frozen=True, slots=True)
class _Criterion:
    """One thing to prefer by: the lowest `rank` is best."""

    rank: Callable[[Standing], Any]
    text: Callable[[Standing, Standing], str]


def _place(value: str, best_first: tuple[str, ...]) -> int:
    return best_first.index(value) if value in best_first else len(best_first)


_CRITERIA = (
    # The copy that its source holds out stays: in its place another one would train on a benchmark's own test.
    _Criterion(
        lambda s: _place(s.source_split, HELD_OUT_FIRST),
        lambda kept, other: (
            f"its source publishes it as {kept.source_split}, the other as {other.source_split or 'nothing'}"
        ),
    ),
    _Criterion(
        lambda s: _place(s.tier, TIERS),
        lambda kept, other: f"tier {kept.tier or 'unknown'} over {other.tier or 'unknown'}",
    ),
    _Criterion(
        lambda s: -s.num_cameras,
        lambda kept, other: f"{kept.num_cameras} cameras over {other.num_cameras}",
    ),
    _Criterion(
        lambda s: _place(s.licence_class, LICENCES),
        lambda kept, other: f"licence {kept.licence_class} over {other.licence_class}",
    ),
    _Criterion(
        lambda s: not s.is_native_rate,
        lambda kept, other: "recorded at the corpus's rate or above, the other below",
    ),
    _Criterion(
        lambda s: s.unsettled_facts,
        lambda kept, other: (
            f"{kept.unsettled_facts} unsettled facts against {other.unsettled_facts}"
        ),
    ),
    _Criterion(lambda s: s.uid, lambda kept, other: "nothing tells them apart; the lower uid"),
)


def best(copies: Sequence[Standing]) -> Standing:
    """The one to keep.

    Raises:
        ValueError: of nothing.
    """
    return min(copies, key=rank)


def rank(standing: Standing) -> tuple[Any, ...]:
    """What to order by, the best first; no two are equal."""
    return tuple(c.rank(standing) for c in _CRITERIA)


def why(kept: Standing, other: Standing) -> str:
    """What `kept` is better by: the first criterion in which the two differ."""
    return next(c.text(kept, other) for c in _CRITERIA if c.rank(kept) != c.rank(other))
