"""What types cannot say of a tier policy: names that exist, comparisons that fit, references that end, ranges that hold something."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from ingest.curation.tiers.policy_fields import AT_LEAST_0, FACTS, SHARE, Column, Kind, measurements
from ingest.curation.tiers.policy_loader import Key

if TYPE_CHECKING:
    from ingest.curation.tiers.policy import Bounds, Condition, Edge, QualityPolicy

MAX_LEAVES = 2000  # comparisons of a policy, with every reference written out
MAX_REFERENCES = 16  # one inside the other
Problem = tuple[Key, str]
# Kind of the value -> the words that compare it; `known` fits all.
WORDS = {
    Kind.NUMBER: {"above", "at_least", "below", "at_most"},
    Kind.FLAG: {"is"},
    Kind.TEXT: {"is", "in"},
    Kind.LIST: {"has"},
}


def check(policy: QualityPolicy) -> Iterator[Problem]:
    """Every problem with its way in the file; none is a sound policy."""
    leaves = (condition.measurement for _, condition in policy.all_conditions())
    edges = (edge.measurement for edge in policy.segments.edges)
    known = measurements(name for name in (*leaves, *edges) if name)
    codes = [rule.code for rule in policy.rules]
    for index, code in enumerate(codes):
        if code in codes[:index] or code == policy.otherwise.code:
            yield ("rules", index, "code"), f"duplicate rule code {code!r}"
    for index, edge in enumerate(policy.segments.edges):
        for way, message in _of_edge(edge, known):
            yield ("segments", "edges", index, *way), message
    problems = list(_of_conditions(policy, known))
    yield from problems
    if not problems:  # only then do all names and references lead somewhere
        yield from _of_ranges(policy, known)


def _of_conditions(policy: QualityPolicy, known: Mapping[str, Column]) -> Iterator[Problem]:
    for way, condition in policy.all_conditions():
        if condition.condition is not None and condition.condition not in policy.conditions:
            message = _unknown("condition", condition.condition, policy.conditions)
            yield (*way, "condition"), message
        if condition.name is not None:
            yield from (((*way, *rest), message) for rest, message in _of_leaf(condition, known))
    yield from _of_cycles(policy)


def _unknown(what: str, name: str, known: Mapping[str, object]) -> str:
    near = get_close_matches(name, known, n=3)
    if near:
        return f"no {what} {name!r}; did you mean {', '.join(near)}?"
    listed = ", ".join(sorted(known)) or "none"
    hint = "see `eicorpus list measures`" if what == "measurement" else f"there are {listed}"
    return f"no {what} {name!r}; {hint}"


def _of_edge(edge: Edge, known: Mapping[str, Column]) -> Iterator[Problem]:
    if edge.measurement is None:
        return
    if edge.measurement not in known:
        yield ("measurement",), _unknown("measurement", edge.measurement, known)
    elif not known[edge.measurement].is_interval:
        yield (
            ("measurement",),
            f"{edge.measurement} is one number per episode, so it gives no interval to cut",
        )
    elif _range(edge, known[edge.measurement]).is_empty:
        yield (), _impossible(edge, known[edge.measurement])


def _of_leaf(leaf: Condition, known: Mapping[str, Column]) -> Iterator[Problem]:
    column = column_of(leaf, known)
    if column is None:
        name = leaf.name or ""
        if leaf.measurement is not None:
            yield ("measurement",), _unknown("measurement", name, known)
        else:
            yield ("fact",), _unknown("fact", name, FACTS)
        return
    if column.is_interval and leaf.of is None:
        message = (
            f"{leaf.name} has one value per interval; add `of`: share, seconds, count, max or min"
        )
        yield ("measurement",), message
        return
    if leaf.of is not None and not _is_interval(leaf, known):
        yield ("of",), f"{leaf.name} is one number per episode; remove `of`, which is for intervals"
    fitting = WORDS[column.kind] | {"known"}
    for word in leaf.comparisons:
        if word not in fitting:
            message = f"{leaf.name} is a {column.kind.value}; compare it with {', '.join(sorted(fitting))}"
            yield (word,), message
    yield from _of_values(leaf, column)
    if column.kind is Kind.NUMBER and _range(leaf, column).is_empty:
        yield (), _impossible(leaf, column)


def _of_values(leaf: Condition, column: Column) -> Iterator[Problem]:
    if leaf.is_ is not None and column.kind in (Kind.FLAG, Kind.TEXT):
        kind = bool if column.kind is Kind.FLAG else str
        if not isinstance(leaf.is_, kind):
            yield ("is",), f"{leaf.name} is a {column.kind.value}, not {leaf.is_!r}"
    values_by_word = {"is": (leaf.is_,), "in": leaf.in_ or (), "has": (leaf.has,)}
    for word, values in values_by_word.items():
        for value in values:
            if isinstance(value, str) and column.values is not None and value not in column.values:
                message = (
                    f"{leaf.name} is never {value!r}; it is {', '.join(sorted(column.values))}"
                )
                yield (word,), message


def _is_interval(leaf: Condition, known: Mapping[str, Column]) -> bool:
    return leaf.measurement is not None and known[leaf.measurement].is_interval


def column_of(leaf: Condition, known: Mapping[str, Column]) -> Column | None:
    """The type of what a leaf compares, after `of`; None when there is no such thing."""
    if leaf.fact is not None:
        return FACTS.get(leaf.fact)
    column = known.get(leaf.measurement or "")
    if column is None or not column.is_interval or leaf.of in (None, "max", "min"):
        return column
    return SHARE if leaf.of == "share" else AT_LEAST_0


# --- references ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _PolicySize:
    """A condition with every reference written out; or what is wrong with it."""

    leaves: int = 0
    references: int = 0  # how deep they go
    problem: Problem | None = None

    def with_part(self, part: _PolicySize) -> _PolicySize:
        references = max(self.references, part.references)
        return _PolicySize(self.leaves + part.leaves, references, self.problem or part.problem)


def _of_cycles(policy: QualityPolicy) -> Iterator[Problem]:
    """Each condition that leads back to itself, at the reference that closes the circle; and a policy that is too large."""
    known: dict[str, _PolicySize] = {}
    total = 0
    for way, condition in policy.whole_conditions():
        inside = tuple(map(str, way[1:2])) if way[0] == "conditions" else ()
        size = _size(policy, way, condition, inside, known)
        if size.problem is not None:
            yield size.problem
            return
        total += size.leaves
        if total > MAX_LEAVES:
            yield way, f"more than {MAX_LEAVES} comparisons after references are expanded"
            return


def _size(
    policy: QualityPolicy,
    way: Key,
    condition: Condition,
    path: tuple[str, ...],
    known: dict[str, _PolicySize],
) -> _PolicySize:
    """Of a condition inside of the named ones in `path`."""
    name = condition.condition
    if name is None:
        size = _PolicySize(leaves=int(condition.name is not None))
        for rest, part in condition.parts:
            size = size.with_part(_size(policy, (*way, *rest), part, path, known))
        return size
    here = (*way, "condition")
    if name in path:
        circle = " -> ".join([*path[path.index(name) :], name])
        return _PolicySize(problem=(here, f"a circle: {circle}"))
    if name not in policy.conditions:  # told elsewhere
        return _PolicySize()
    if len(path) > MAX_REFERENCES:
        return _PolicySize(problem=(here, f"references nested more than {MAX_REFERENCES} deep"))
    if name not in known:
        inner = policy.conditions[name]
        inner_size = _size(policy, ("conditions", name), inner, (*path, name), known)
        known[name] = _PolicySize(inner_size.leaves, inner_size.references + 1, inner_size.problem)
    if known[name].references > MAX_REFERENCES:
        return _PolicySize(problem=(here, f"references nested more than {MAX_REFERENCES} deep"))
    return known[name]


# --- ranges -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Range:
    """Numbers between two bounds; an open bound is outside itself."""

    low: float = -math.inf
    high: float = math.inf
    is_low_open: bool = False
    is_high_open: bool = False

    @property
    def is_empty(self) -> bool:
        is_open = self.is_low_open or self.is_high_open
        return self.low > self.high or (self.low == self.high and is_open)

    def within(self, other: _Range) -> _Range:
        """What is in both."""
        low, is_low_open = max((self.low, self.is_low_open), (other.low, other.is_low_open))
        high, is_high_closed = min(
            (self.high, not self.is_high_open), (other.high, not other.is_high_open)
        )
        return _Range(low, high, is_low_open, not is_high_closed)


def _range(leaf: Bounds, column: Column) -> _Range:
    out = _Range(column.low, column.high)
    for word, value in leaf.thresholds.items():
        if word in ("above", "at_least"):
            out = out.within(_Range(low=value, is_low_open=word == "above"))
        else:
            out = out.within(_Range(high=value, is_high_open=word == "below"))
    return out


def _impossible(leaf: Bounds, column: Column) -> str:
    asked = " and ".join(f"{word} {value:g}" for word, value in leaf.thresholds.items())
    bounds = f"; its range is {column.low:g} to {column.high:g}" if column.low > -math.inf else ""
    return f"no value can be {asked}{bounds}"


def _of_ranges(policy: QualityPolicy, known: Mapping[str, Column]) -> Iterator[Problem]:
    """Bounds of an `all`, its own and those of what it refers to, that no number satisfies together."""
    for way, condition in policy.all_conditions():
        if condition.all_ is None:
            continue
        ranges: dict[tuple[str | None, str | None, bool], _Range] = {}
        for part_way, leaf in _conjuncts(policy, condition, way):
            column = column_of(leaf, known)
            if column is None or column.kind is not Kind.NUMBER:
                continue
            key = (leaf.name, leaf.of, leaf.fact is None)
            both = _range(leaf, column).within(ranges.get(key, _Range()))
            if both.is_empty:
                yield (
                    part_way,
                    f"with the other bounds of this `all`, no value of {leaf.name} is possible",
                )
                return
            ranges[key] = both


def _conjuncts(
    policy: QualityPolicy, condition: Condition, way: Key
) -> Iterator[tuple[Key, Condition]]:
    """The leaves that must all hold for `condition` to hold."""
    if condition.condition is not None:
        name = condition.condition
        yield from ((way, leaf) for _, leaf in _conjuncts(policy, policy.conditions[name], way))
    elif condition.all_ is not None:
        for rest, part in condition.parts:
            yield from _conjuncts(policy, part, (*way, *rest))
    elif condition.name is not None and condition.thresholds and not condition.when_unknown:
        yield way, condition
