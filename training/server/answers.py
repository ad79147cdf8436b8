"""What the other end of `serve-policy` may say: it is another program, so nothing of it is trusted."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.action import ActionSpec
from schemas.errors import ConfigError
from schemas.geometry import Array
from schemas.invalid import invalid
from training.policy.observation import ActionChunk

LONGEST_S = 3600.0  # of the past that a policy looks back on
REMEDY = "use a server of this version of eicorpus"


class _ServerFacts(BaseModel):
    """Of whatever else a server says nothing is read."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class ServedBody(_ServerFacts):
    """How a policy acts for one embodiment."""

    action_names: list[str] = Field(min_length=1)


class ServedPlan(_ServerFacts):
    """Among how many chunks the policy chooses, and by which value head."""

    num_chunks: int = Field(ge=2)
    value_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class ServedFacts(_ServerFacts):
    """The part of `Policy.facts` that a rollout reads."""

    recipe: str
    step: int | None = None
    embodiments: dict[str, ServedBody]
    cameras: list[str] = Field(min_length=1)
    past_s: list[Annotated[float, Field(ge=-LONGEST_S, le=0)]] = Field(min_length=1)
    num_actions: int = Field(ge=1)
    rate_hz: float = Field(ge=0.01, le=1000)
    plan: ServedPlan | None = None


def checked_facts(message: dict[str, Any], where: str) -> dict[str, Any]:
    """The same.

    Raises:
        ConfigError: a key is missing or holds what no policy says.
    """
    try:
        ServedFacts.model_validate(message, strict=True)
    except ValidationError as error:
        problem = f"the server says no facts of a policy: {invalid(error)}"
        raise ConfigError(problem, remedy=REMEDY, where=where) from error
    return message


def checked_chunk(answer: dict[str, Any], spec: ActionSpec, where: str) -> ActionChunk:
    """
    Raises:
        ConfigError: the targets are not [K, A] finite numbers with K > 0, or their times not [K] of them.
    """
    targets, t_s = (_numbers(answer.get(name), name, where) for name in ("actions", "t_s"))
    if targets.ndim != 2 or targets.shape[1] != spec.width or not len(targets):
        problem = f"actions of shape {list(targets.shape)}; expected [K, {spec.width}], K > 0"
        raise ConfigError(problem, remedy=REMEDY, where=where)
    if t_s.shape != targets.shape[:1]:
        problem = f"t_s of shape {list(t_s.shape)}; expected [{len(targets)}]"
        raise ConfigError(problem, remedy=REMEDY, where=where)
    return ActionChunk(spec=spec, targets=targets, t_s=t_s)


def _numbers(value: Any, name: str, where: str) -> Array:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        problem = f"{name} is a {type(value).__name__}; expected an array of numbers"
        raise ConfigError(problem, remedy=REMEDY, where=where)
    if not np.isfinite(value).all():
        problem = f"{name} holds numbers that are not finite"
        raise ConfigError(problem, remedy="check the policy of the server", where=where)
    return value.astype(np.float64)
