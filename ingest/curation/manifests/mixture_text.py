"""What a mixture file may say. docs/how-to/manifests.md shows one; `ingest/curation/manifests/mixture.py` does what it asks.

version: 1
by: [source, tier]        # what makes a group: source, dataset, embodiment, tier, text, licence_class
draw_hours: 5000          # hours that training draws in all; default: as many as there are, one epoch
temperature: 0.5          # share ~ hours ** temperature: 1 as they are, 0 all groups alike
max_epochs: 8             # of every group, unless a rule says otherwise
rules:
  - name: mostly robots
    groups: {source: droid}          # several groups match: they divide the share among them
    share: 0.4                       # of all draws
  - name: little of the low tier
    groups: {tier: low}
    min_share: 0.01                  # of each group that matches
    max_share: 0.05
    max_epochs: 1
    min_epochs: 0.2
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ingest.curation.tiers.policy_loader import parse_policy_text, read_policy_text
from schemas.errors import ConfigError
from schemas.invalid import problem

DIMENSIONS = ("source", "dataset", "embodiment", "tier", "text", "licence_class")
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
Positive = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]


class _MixturePart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class MixtureRule(_MixturePart):
    """What is asked of the groups that match."""

    name: str = ""
    groups: dict[str, str | Names]
    share: Share | None = None  # of all of them together
    min_share: Share | None = None  # of each of them
    max_share: Share | None = None
    min_epochs: Positive | None = None
    max_epochs: Positive | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> MixtureRule:
        asked = (self.share, self.min_share, self.max_share, self.min_epochs, self.max_epochs)
        if all(value is None for value in asked):
            raise ValueError(
                "the rule sets nothing; expected share, min_share, max_share, min_epochs or max_epochs"
            )
        return self

    @model_validator(mode="after")
    def _leaves_room(self) -> MixtureRule:
        for word in ("share", "epochs"):
            least, most = getattr(self, f"min_{word}"), getattr(self, f"max_{word}")
            if least is not None and most is not None and least > most:
                raise ValueError(f"min_{word} {least:g} is larger than max_{word} {most:g}")
        return self

    @property
    def title(self) -> str:
        shown = ", ".join(f"{key}: {value}" for key, value in self.groups.items())
        return self.name or f"{{{shown}}}"


class Mixture(_MixturePart):
    """The whole file; without one, every hour is as likely as the next."""

    version: Annotated[int, Field(ge=1, le=1)] = 1
    by: Annotated[tuple[str, ...], Field(strict=False)] = ()
    draw_hours: Positive | None = None
    temperature: Annotated[float, Field(ge=0, le=4, allow_inf_nan=False)] = 1.0
    max_epochs: Positive | None = None
    rules: Annotated[tuple[MixtureRule, ...], Field(strict=False, max_length=10_000)] = ()

    @model_validator(mode="after")
    def _dimensions_exist(self) -> Mixture:
        if unknown := sorted(set(self.by) - set(DIMENSIONS)):
            raise ValueError(f"by: unknown {unknown}; expected {', '.join(DIMENSIONS)}")
        if len(set(self.by)) != len(self.by):
            raise ValueError("by: duplicate entry")
        for rule in self.rules:
            if odd := sorted(set(rule.groups) - set(self.by)):
                raise ValueError(f"rule {rule.title!r} uses {odd}; `by` has only {list(self.by)}")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureText:
    """A mixture and the text it was read from."""

    mixture: Mixture = field(default_factory=Mixture)
    text: str = ""

    @property
    def digest(self) -> str:
        """sha256 of the content, 16 hex digits: comments and layout do not count."""
        return hashlib.sha256(self.mixture.model_dump_json().encode()).hexdigest()[:16]


def load_mixture(path: Path | None) -> MixtureText:
    """The mixture of a YAML file, or the one that changes nothing.

    Raises:
        ConfigError: no such file, no YAML, or not a mixture; with the place.
    """
    if path is None:
        return MixtureText()
    read = read_policy_text(path)
    return mixture_from(read.text, str(path))


def mixture_from(text: str, where: str) -> MixtureText:
    """The mixture that a text is.

    Raises:
        ConfigError: it is none; with line and column.
    """
    read = parse_policy_text(text, where)
    try:
        mixture = Mixture.model_validate(read.data or {})
    except ValidationError as error:
        lines = [
            f"{read.place(e['loc'])}: {problem(e, Mixture)} "
            f"({'.'.join(map(str, e['loc'])) or 'the whole'})"
            for e in error.errors()
        ]
        raise ConfigError("\n".join(lines[:20])) from error
    return MixtureText(mixture=mixture, text=text)
