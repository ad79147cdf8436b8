"""REST: thresholds are saved as a new policy."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field, FiniteFloat, StringConstraints

from jobs.service.api import Number, keeper_of, refuse_read_only, served_by
from jobs.service.api_session import caller_of
from jobs.service.api_thresholds import MAX_CHANGES, policy_of
from jobs.service.errors import ApiError
from jobs.service.job_kinds import Name
from jobs.service.models import StrictModel
from jobs.service.saved_policies import NewPolicy, folder_of, policy_of_name, save

router = APIRouter()

MAX_NOTE = 2000


class PolicyQuestion(StrictModel):
    base: Name = Field(description="The policy in force by its name, or a saved or built-in one.")
    base_digest: str | None = Field(
        default=None,
        max_length=64,
        description="Of the base whose thresholds were looked at: 409 `policy_changed` when the base is another one now.",
    )
    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,59}$")]
    note: str = Field(min_length=1, max_length=MAX_NOTE)
    thresholds: dict[str, FiniteFloat] = Field(
        min_length=1, max_length=MAX_CHANGES, description="By the names of GET /thresholds."
    )


class PolicyAnswer(StrictModel):
    name: str
    sha256: str = Field(description="Of the file.")
    policy: str


@router.post("/policies", status_code=201)
def save_policy(request: Request, question: PolicyQuestion, number: Number = None) -> PolicyAnswer:
    """Save a policy with other thresholds under a new name, which jobs take. It never changes: another one of the name is 409.

    409 `policy_changed`: `base` has another digest than `base_digest`. It lies in `policies/NAME.yaml` beside the spec, else in the state folder.
    """
    refuse_read_only(request)
    folder = folder_of(keeper_of(request).folder, request.app.state.jobs.spec)
    base = policy_of(request, served_by(request, number))
    if base.policy != question.base:
        base = policy_of_name(folder, question.base)
    if question.base_digest not in (None, base.digest):
        raise ApiError(
            409,
            "policy_changed",
            f"the policy {question.base} is another one than the thresholds were moved in",
            remedy="load the page again",
            where="base_digest",
        )
    new = NewPolicy(
        name=question.name,
        base=base,
        thresholds=question.thresholds,
        author=caller_of(request).holder.name,
        at=datetime.now(UTC),
        note=question.note,
    )
    policy, sha256 = save(folder, new)
    return PolicyAnswer(name=question.name, sha256=sha256, policy=policy.title)
