"""A tier policy: which segments of an episode are high, low, actionless or excluded, and why. YAML, read and checked before any work.

The page docs/how-to/quality-policy.md shows the format. A condition is true, false or unknown, as in SQL; a rule holds when its condition is
true, and the first rule that holds gives the tier. Thresholds carry their origin.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ingest.curation.tiers.policy_loader import Key, PolicyText, parse_policy_text, read_policy_text
from ingest.curation.tiers.policy_validate import check
from schemas.errors import ConfigError
from schemas.invalid import problem
from schemas.supervision import Task

BUILT_IN = "ei30k"
MAX_PROBLEMS = 20  # told at once
Number = Annotated[float, Field(allow_inf_nan=False)]
Word = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
# No control characters: the texts end in SQL, in Parquet and on terminals.
Line = Annotated[str, Field(min_length=1, max_length=400, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]+$")]
SEMANTICS = 2  # raise it when the same policy would decide otherwise


class Tier(StrEnum):
    """Best first: each may teach a part of what the one before it may."""

    HIGH = "high"
    LOW = "low"
    ACTIONLESS = "actionless"
    EXCLUDED = "excluded"


# design.md §4.3. What an episode's own facts carry (`supervises`) is an upper bound on top of it.
TASKS: dict[Tier, tuple[Task, ...]] = {
    Tier.HIGH: (
        Task.POLICY,
        Task.FORWARD_DYNAMICS,
        Task.INVERSE_DYNAMICS,
        Task.VISUAL_FORECASTING,
    ),
    Tier.LOW: (Task.FORWARD_DYNAMICS, Task.INVERSE_DYNAMICS, Task.VISUAL_FORECASTING),
    Tier.ACTIONLESS: (Task.VISUAL_FORECASTING,),
    Tier.EXCLUDED: (),
}


class _PolicyPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


class Bounds(_PolicyPart):
    """What a number is compared with."""

    above: Number | None = None
    at_least: Number | None = None
    below: Number | None = None
    at_most: Number | None = None
    origin: Line | None = None  # where the numbers come from

    @property
    def thresholds(self) -> dict[str, float]:
        """The bounds that are given, by word."""
        limits = {word: getattr(self, word) for word in ("above", "at_least", "below", "at_most")}
        return {word: value for word, value in limits.items() if value is not None}

    @model_validator(mode="after")
    def _has_an_origin(self) -> Bounds:
        if self.thresholds and self.origin is None:
            raise ValueError(
                "a threshold needs `origin`: the publication that states it, or the data it was chosen on"
            )
        return self


class Condition(Bounds):
    """One of: `all`, `any`, `not` of conditions; a named `condition`; or a `measurement` or `fact` with a comparison."""

    all_: Annotated[tuple[Condition, ...], Field(strict=False, min_length=1)] | None = Field(
        None, alias="all"
    )
    any_: Annotated[tuple[Condition, ...], Field(strict=False, min_length=1)] | None = Field(
        None, alias="any"
    )
    not_: Condition | None = Field(None, alias="not")
    condition: Word | None = None
    measurement: Line | None = None
    fact: Line | None = None
    of: Literal["share", "max", "min", "count", "seconds"] | None = None
    is_: bool | Line | None = Field(None, alias="is")
    in_: Annotated[tuple[Line, ...], Field(strict=False, min_length=1)] | None = Field(
        None, alias="in"
    )
    has: Line | None = None
    known: bool | None = None
    when_unknown: bool | None = None  # what the comparison is where there is nothing to compare

    @property
    def name(self) -> str | None:
        """The measurement or fact that is compared."""
        return self.measurement if self.measurement is not None else self.fact

    @property
    def parts(self) -> tuple[tuple[Key, Condition], ...]:
        """The conditions inside, each with its way from here."""
        if self.not_ is not None:
            return ((("not",), self.not_),)
        word, inside = ("all", self.all_) if self.all_ is not None else ("any", self.any_)
        return tuple(((word, index), part) for index, part in enumerate(inside or ()))

    @property
    def comparisons(self) -> tuple[str, ...]:
        """The words with which the value is compared."""
        words = {"is": self.is_, "in": self.in_, "has": self.has, "known": self.known}
        return (*self.thresholds, *(word for word, value in words.items() if value is not None))

    @model_validator(mode="after")
    def _is_one_thing(self) -> Condition:
        heads = {
            "all": self.all_,
            "any": self.any_,
            "not": self.not_,
            "condition": self.condition,
            "measurement": self.measurement,
            "fact": self.fact,
        }
        stated = [word for word, value in heads.items() if value is not None]
        if len(stated) != 1:
            raise ValueError(
                f"expected exactly one of {', '.join(heads)}, found {stated or 'none'}"
            )
        if self.name is None and (self.comparisons or self.of or self.when_unknown is not None):
            raise ValueError(f"only a measurement or a fact can be compared, not `{stated[0]}`")
        if self.name is not None and not self.comparisons:
            raise ValueError(
                "expected a comparison: above, at_least, below, at_most, is, in, has or known"
            )
        return self


class Edge(Bounds):
    """Where to cut: at the ends of rows of `segments` of a kind, or of an interval measurement whose value is in the bounds."""

    segments: Literal["valid_run", "subtask"] | None = None
    measurement: Line | None = None

    @model_validator(mode="after")
    def _is_one_thing(self) -> Edge:
        if (self.segments is None) == (self.measurement is None):
            raise ValueError("expected exactly one of segments, measurement")
        if self.segments is not None and self.thresholds:
            raise ValueError("`segments` has no value to compare")
        return self


class Cutting(_PolicyPart):
    """How episodes are cut: the edges, the most important first."""

    min_length_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
    origin: Line
    edges: Annotated[tuple[Edge, ...], Field(strict=False)] = ()


class Rule(_PolicyPart):
    code: Word
    tier: Annotated[Tier, Field(strict=False)]
    text: Line
    when: Condition


class Otherwise(_PolicyPart):
    """What holds where no rule does."""

    code: Word
    tier: Annotated[Tier, Field(strict=False)]
    text: Line


class QualityPolicy(_PolicyPart):
    """A whole policy, sound in itself: every name known, no cycle, no range that nothing can be in."""

    policy: Word
    version: Annotated[int, Field(ge=1, le=1_000_000)]
    about: Line
    segments: Cutting
    conditions: Annotated[dict[Word, Condition], Field(max_length=500)] = {}
    rules: Annotated[tuple[Rule, ...], Field(strict=False, min_length=1, max_length=200)]
    otherwise: Otherwise

    @property
    def digest(self) -> str:
        """sha256 of the content, 16 hex digits: comments and layout of the file do not count."""
        whole = {"semantics": SEMANTICS, "policy": self.model_dump(mode="json", by_alias=True)}
        content = json.dumps(whole, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        return f"{self.policy} v{self.version}"

    def whole_conditions(self) -> Iterator[tuple[Key, Condition]]:
        """Every condition that stands by itself, with its way in the file."""
        yield from ((("conditions", name), c) for name, c in self.conditions.items())
        yield from ((("rules", i, "when"), rule.when) for i, rule in enumerate(self.rules))

    def all_conditions(self) -> Iterator[tuple[Key, Condition]]:
        """Every condition at any depth, with its way in the file."""
        stack = list(self.whole_conditions())[::-1]
        while stack:
            way, condition = stack.pop()
            yield way, condition
            stack.extend(((*way, *rest), part) for rest, part in reversed(condition.parts))


def known_policies() -> list[str]:
    """The names of the policies that come with eicorpus."""
    names = [entry.name for entry in files("ingest.curation.tiers.policies").iterdir()]
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def load_policy(name_or_path: str) -> tuple[QualityPolicy, str]:
    """A built-in policy by name, or one from a file; and its text.

    Raises:
        ConfigError: there is none, or it is not sound; every problem with its line and column.
    """
    built_in = known_policies()
    if name_or_path in built_in:
        text = (files("ingest.curation.tiers.policies") / f"{name_or_path}.yaml").read_text()
        return policy_from(parse_policy_text(text, f"{name_or_path}.yaml")), text
    path = Path(name_or_path)
    if not path.is_file():
        problem = f"neither a file nor a built-in policy; expected a YAML file or one of {', '.join(built_in)}"
        raise ConfigError(problem, where=name_or_path)
    read = read_policy_text(path)
    return policy_from(read), read.text


def policy_from(read: PolicyText) -> QualityPolicy:
    """The policy that a text is.

    Raises:
        ConfigError: it is not sound; every problem with its line and column.
    """
    try:
        policy = QualityPolicy.model_validate(read.data)
    except ValidationError as error:
        raise _policy_error(read, _problems_of(error)) from error
    if problems := list(check(policy)):
        raise _policy_error(read, problems)
    return policy


def _problems_of(error: ValidationError) -> list[tuple[Key, str]]:
    """Pydantic's problems; not that a list is too short because what it holds is wrong."""
    errors = [(tuple(e["loc"]), e) for e in error.errors()]
    return [
        (way, problem(e, QualityPolicy))
        for way, e in errors
        if e["type"] != "too_short"
        or not any(len(other) > len(way) and other[: len(way)] == way for other, _ in errors)
    ]


def _policy_error(read: PolicyText, problems: list[tuple[Key, str]]) -> ConfigError:
    lines = [f"{read.place(way)}: {message}{_named(way)}" for way, message in problems]
    more = len(lines) - MAX_PROBLEMS
    rest = [f"and {more} more"] if more > 0 else []
    return ConfigError("\n".join([*lines[:MAX_PROBLEMS], *rest]))


def _named(way: Key) -> str:
    """The last word of a way, which pydantic's messages leave out."""
    words = [step for step in way if isinstance(step, str)]
    return f" ({words[-1]})" if words else ""
