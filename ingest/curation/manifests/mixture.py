"""How often a training run draws from what: hours in, shares and effective epochs out. Arithmetic only, on a table of groups.

Rules with a `share` may not overlap. What they leave goes to the other groups by temperature. All of it is from exact hours
(nanoseconds), correctly rounded powers and sums that do not depend on order, so that every machine gets the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext

from ingest.curation.manifests.mixture_text import Mixture, MixtureRule
from schemas.errors import ConfigError

HOUR_NS = 3_600_000_000_000
SLACK = 1e-9  # what rounding may do, relative to the larger of two shares
Group = tuple[str, ...]  # a value for each dimension of `by`


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupShare:
    """What a group gets. `rule`: which rule fixed its share or stopped it there."""

    group: Group
    num_ns: int
    share: float
    epochs: float
    rule: str

    @property
    def hours(self) -> float:
        return self.num_ns / HOUR_NS


def allocate(mixture: Mixture, hours_ns: Mapping[Group, int]) -> tuple[GroupShare, ...]:
    """Give each group its share of the draws.

    Args:
        hours_ns: how long the train segments of each group last, in nanoseconds, more than 0; keys in the order of `by`.

    Raises:
        ConfigError: no mixture of these groups can do what the rules ask; the message names the rule.
    """
    groups = sorted(hours_ns)
    if not groups:
        return ()
    total_ns = sum(hours_ns.values())
    draw_ns = total_ns if mixture.draw_hours is None else mixture.draw_hours * HOUR_NS
    cells = [_bounds(mixture, group, hours_ns[group], draw_ns) for group in groups]
    shares: dict[Group, float] = {}
    stopped: dict[Group, str] = {}
    for name, share, members in _buckets(mixture, cells):
        allocated = _allocate_within_bounds(members, share, name)
        shares |= {cell.group: value for cell, (value, _) in zip(members, allocated, strict=True)}
        stopped |= {c.group: why or name for c, (_, why) in zip(members, allocated, strict=True)}
    return tuple(
        GroupShare(
            group=cell.group,
            num_ns=cell.num_ns,
            share=shares[cell.group],
            epochs=shares[cell.group] * draw_ns / cell.num_ns,
            rule=stopped[cell.group],
        )
        for cell in cells
    )


def draw_hours(mixture: Mixture, hours_ns: Mapping[Group, int]) -> float:
    """Hours that training draws: those asked for, or all there are."""
    return mixture.draw_hours or sum(hours_ns.values()) / HOUR_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bounds:
    """A group with its bounds; `why_*` names the rule behind a bound."""

    group: Group
    num_ns: int
    weight: float  # hours ** temperature: its share is proportional to this, between the bounds
    low: float
    high: float
    why_low: str
    why_high: str


def _bounds(mixture: Mixture, group: Group, num_ns: int, draw_ns: float) -> _Bounds:
    """Bounds of a group, as shares of all draws: the tightest of every rule that matches."""
    an_epoch = num_ns / draw_ns
    low, why_low, high, why_high = 0.0, "", math.inf, ""
    limit = mixture.max_epochs
    if limit is not None:
        high, why_high = limit * an_epoch, f"max_epochs {limit:g} of the mixture"
    own_limit = [r for r in mixture.rules if r.max_epochs is not None and _is_of(mixture, r, group)]
    if own_limit:
        high, why_high = math.inf, ""  # a rule's own limit stands in the place of the general one
    for rule in mixture.rules:
        if not _is_of(mixture, rule, group):
            continue
        lows = [(rule.min_share, "min_share", 1.0), (rule.min_epochs, "min_epochs", an_epoch)]
        for value, word, factor in lows:
            if value is not None and value * factor > low:
                low, why_low = value * factor, f"{word} {value:g} of rule {rule.title!r}"
        highs = [(rule.max_share, "max_share", 1.0), (rule.max_epochs, "max_epochs", an_epoch)]
        for value, word, factor in highs:
            if value is not None and value * factor < high:
                high, why_high = value * factor, f"{word} {value:g} of rule {rule.title!r}"
    if _is_more(low, high):
        problem = f"{_shown(mixture, group)} cannot have both {why_low} and {why_high}"
        hours = f"the group has {num_ns / HOUR_NS:.3g} h, and {draw_ns / HOUR_NS:.3g} h are sampled"
        raise ConfigError(f"{problem}: {hours}", remedy="change one of them", where="mixture")
    return _Bounds(
        group=group,
        num_ns=num_ns,
        weight=_power(num_ns, mixture.temperature),
        low=low,
        high=max(low, high),
        why_low=why_low,
        why_high=why_high,
    )


def _is_more(one: float, other: float) -> bool:
    """By more than rounding; relative, because the share of a small group is small. Nothing is more than infinity."""
    return one > other and one - other > SLACK * one


def _buckets(mixture: Mixture, cells: Sequence[_Bounds]) -> list[tuple[str, float, list[_Bounds]]]:
    """Who divides which share: one bucket for each rule with a share, one for the groups that are left.

    Raises:
        ConfigError: a rule matches nothing, two shares claim one group, shares add up to more or to less than there is.
    """
    taken: dict[Group, str] = {}
    buckets: list[tuple[str, float, list[_Bounds]]] = []
    for rule in mixture.rules:
        members = [cell for cell in cells if _is_of(mixture, rule, cell.group)]
        if not members:
            raise ConfigError(
                f"rule {rule.title!r}: {_nothing(mixture, rule, cells)}",
                remedy="correct or remove the rule",
                where="mixture",
            )
        if rule.share is None:
            continue
        for cell in members:
            if cell.group in taken:
                problem = f"rules {taken[cell.group]!r} and {rule.title!r} both set a share for"
                raise ConfigError(
                    f"{problem} {_shown(mixture, cell.group)}",
                    remedy="remove one of the two shares",
                    where="mixture",
                )
            taken[cell.group] = rule.title
        buckets.append((f"share {rule.share:g} of rule {rule.title!r}", rule.share, members))
    stated = math.fsum(share for _, share, _ in buckets)
    left = [cell for cell in cells if cell.group not in taken]
    if _is_more(stated, 1):
        problem = f"the shares of {', '.join(name for name, _, _ in buckets)} sum to {stated:g}"
        raise ConfigError(f"{problem}; at most 1", remedy="lower a share", where="mixture")
    if not left and _is_more(1, stated):
        problem = f"every group has a share, and the shares sum to {stated:g}"
        raise ConfigError(
            problem, remedy="make the sum 1, or leave one group without a share", where="mixture"
        )
    if left:
        buckets.append(("", max(1 - stated, 0.0), left))
    return buckets


def _nothing(mixture: Mixture, rule: MixtureRule, cells: Sequence[_Bounds]) -> str:
    """Why a rule matches no group: a value that is not there, or no such combination."""
    for word, values in rule.groups.items():
        have = sorted({cell.group[mixture.by.index(word)] for cell in cells})
        names = (values,) if isinstance(values, str) else values
        if not set(names) & set(have):
            return (
                f"no train segment has {word} {', '.join(names)}; available: {', '.join(have[:30])}"
            )
    return "no train segment has this combination"


def _is_of(mixture: Mixture, rule: MixtureRule, group: Group) -> bool:
    for word, values in rule.groups.items():
        value = group[mixture.by.index(word)]
        if value != values if isinstance(values, str) else value not in values:
            return False
    return True


def _shown(mixture: Mixture, group: Group) -> str:
    return (
        ", ".join(f"{word} {value}" for word, value in zip(mixture.by, group, strict=True)) or "all"
    )


def _power(num_ns: int, temperature: float) -> float:
    """hours ** temperature, correctly rounded: a libm's last bit differs between machines, decimal's does not."""
    if temperature in (0.0, 1.0):
        return num_ns / HOUR_NS if temperature else 1.0
    with localcontext(prec=34):
        return float((Decimal(num_ns) / HOUR_NS) ** Decimal(temperature))


def _allocate_within_bounds(
    cells: Sequence[_Bounds], share: float, bucket: str
) -> list[tuple[float, str]]:
    """Divide `share` by weight, no cell below its low or above its high; each with the bound that stopped it.

    Those that the weight alone would put out of bounds are fixed at the bound on the side that counts more, and the rest is divided
    again (as CSS lays out flexible boxes), which ends at the one division with a common factor.

    Raises:
        ConfigError: the bounds leave no such division.
    """
    least, most = math.fsum(c.low for c in cells), math.fsum(c.high for c in cells)
    if _is_more(least, share):
        why = _why(cells, "low")
        raise ConfigError(
            f"{bucket or 'the remainder after all shares'} gets {share:.4g} of the samples, but {why} require at least {least:.4g}",
            remedy="raise the share or draw_hours, or lower the minimum",
            where="mixture",
        )
    if _is_more(share, most):
        why = _why(cells, "high")
        raise ConfigError(
            f"{bucket or 'the remainder after all shares'} gets {share:.4g} of the samples, but {why} allow at most {most:.4g}",
            remedy="lower the share or draw_hours, or allow more epochs",
            where="mixture",
        )
    fixed: dict[int, tuple[float, str]] = {}
    while len(fixed) < len(cells):
        free = [i for i in range(len(cells)) if i not in fixed]
        room = share - math.fsum(value for value, _ in fixed.values())
        weight = math.fsum(cells[i].weight for i in free)
        offered = {i: room * (cells[i].weight / weight) for i in free}
        short = {i: cells[i].low - v for i, v in offered.items() if v < cells[i].low}
        over = {i: v - cells[i].high for i, v in offered.items() if v > cells[i].high}
        if not short and not over:
            fixed |= {i: (value, "") for i, value in offered.items()}
        elif math.fsum(short.values()) >= math.fsum(over.values()):
            fixed |= {i: (cells[i].low, cells[i].why_low) for i in short}
        else:
            fixed |= {i: (cells[i].high, cells[i].why_high) for i in over}
    return [fixed[i] for i in range(len(cells))]


def _why(cells: Sequence[_Bounds], side: str) -> str:
    """The rules behind the bounds of a bucket, each once."""
    reasons = dict.fromkeys(
        (cell.why_low if side == "low" else cell.why_high) or "no limit" for cell in cells
    )
    return ", ".join(name for name in list(reasons)[:5] if name != "no limit")
