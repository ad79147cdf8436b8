"""A convention of a source (rotation form, delta or absolute, polarity ...) with how sure we are of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # adapters state facts without Arrow
    from schemas.catalog_rows import FactValue


class Certainty(StrEnum):
    """How a fact is known, best first. Wording of the format pages: [V], [D], [C], third party, [I], [U]."""

    VERIFIED = "verified"  # checked numerically on real files
    DOCUMENTED = "documented"  # stated by the authors
    CODE = "code"  # implied by the authors' or a widely used reader's code
    THIRD_PARTY = "third_party"  # stated in other public code
    INFERRED = "inferred"  # our reasoning
    UNVERIFIED = "unverified"  # passed through by others, stated by nobody
    UNKNOWN = "unknown"

    @property
    def is_settled(self) -> bool:
        """Good enough to supervise actions without a numeric probe."""
        return self in (
            Certainty.VERIFIED,
            Certainty.DOCUMENTED,
            Certainty.CODE,
            Certainty.THIRD_PARTY,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """`name` is what it is about, e.g. `action_kind`, `eef_rotation_form`, `gripper_polarity`, `eef_axes`.

    `is_for_actions` is False for facts that a wrong value of would not corrupt actions (camera names, say).
    """

    name: str
    value: str
    certainty: Certainty
    source: str  # who says so; for a probe: what was measured
    is_for_actions: bool = True

    def as_row(self) -> FactValue:
        """The fact as the catalog and `--json` have it."""
        return {
            "name": self.name,
            "value": self.value,
            "certainty": self.certainty.value,
            "source": self.source,
        }

    def settled_by_probe(self, value: str, evidence: str) -> Fact:
        """The same fact after a numeric probe on real episodes decided it."""
        return replace(
            self,
            value=value,
            certainty=Certainty.VERIFIED,
            source=f"{self.source}; probe: {evidence}",
        )


def fact(
    name: str, value: str, certainty: Certainty, source: str, *, for_actions: bool = False
) -> Fact:
    """A `Fact` that does not touch actions unless told so."""
    return Fact(
        name=name, value=value, certainty=certainty, source=source, is_for_actions=for_actions
    )
