"""The thresholds of a policy by name, and the policy with other values of some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ingest.curation.tiers.policy import Condition, QualityPolicy
from schemas.errors import ConfigError
from schemas.invalid import problem


def name_of(way: tuple[str | int, ...], word: str) -> str:
    """`rules.3.when.all.0.above`: the place of a threshold in its policy."""
    return ".".join(map(str, (*way, word)))


def comparisons(policy: QualityPolicy) -> dict[str, tuple[tuple[str | int, ...], str, Condition]]:
    """Every threshold of a measurement of whole episodes, by name; one `of` a stretch has another unit."""
    return {
        name_of(way, word): (way, word, condition)
        for way, condition in policy.all_conditions()
        if condition.measurement is not None and condition.of is None
        for word in condition.thresholds
    }


def changed_document(policy: QualityPolicy, values: Mapping[str, float]) -> dict[str, Any]:
    """The policy with other values of some thresholds, as a document that nothing has checked.

    Raises:
        ConfigError: it has no such threshold.
    """
    document: dict[str, Any] = policy.model_dump(mode="json", by_alias=True, exclude_none=True)
    known = comparisons(policy)
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"no threshold {name[:200]!r}", where="threshold")
        way, word, _ = known[name]
        inside: Any = document
        for key in way:
            inside = inside[key]
        inside[word] = value
    return document


def changed(policy: QualityPolicy, values: Mapping[str, float]) -> QualityPolicy:
    """The policy with other values of some thresholds.

    Raises:
        ConfigError: it has no such threshold, or a range that nothing can be in.
    """
    document = changed_document(policy, values)
    try:
        return QualityPolicy.model_validate(document)
    except ValidationError as error:
        raise ConfigError(problem(error.errors()[0]), where="threshold") from error
