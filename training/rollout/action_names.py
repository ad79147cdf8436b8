"""The layout of a policy's actions, from the element names in its facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from schemas.action import ActionSpec, action_spec
from schemas.errors import ConfigError

_WHERE = "policy"


def spec_from_names(names: Sequence[str]) -> ActionSpec:
    """`left.position_m.x`, ... -> the slices that they are elements of.

    Raises:
        ConfigError: the names are not those of a layout of the corpus, in its order.
    """
    parts = Counter(".".join(name.split(".")[:2]) for name in names)
    try:
        spec = action_spec(parts.items())
    except ValueError as error:
        raise ConfigError(f"element names of an action: {error}", where=_WHERE) from error
    if spec is None or spec.names != tuple(names):
        problem = f"{', '.join(names)[:200]}; expected element names in the corpus' order"
        raise ConfigError(problem, where=_WHERE)
    return spec


def spec_of_embodiment(facts: Mapping[str, Any], embodiment: str) -> ActionSpec:
    """The layout in which a policy of these facts acts for `embodiment`.

    Raises:
        ConfigError: it was not trained for it.
    """
    known = facts["embodiments"]
    if embodiment not in known:
        problem = f"the policy was trained for {', '.join(known) or 'no embodiment'}, and the environment is {embodiment}"
        raise ConfigError(problem, remedy="use a policy trained on this embodiment", where=_WHERE)
    return spec_from_names(known[embodiment]["action_names"])
