"""REST: reviews are submitted and listed; which places to review next, and how far a policy agrees with the reviewers."""

from __future__ import annotations

import threading
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from ingest.corpus.layout import CorpusLayout
from ingest.corpus.reviews import NoSuchPlace, OtherReview, StoredReview, in_force, read, submit
from ingest.corpus.snapshot import Snapshot
from ingest.curation.reviews.agreement import agreement
from ingest.curation.reviews.sample import near_threshold
from ingest.curation.tiers.explain import policy_in_force
from ingest.curation.tiers.policy import BUILT_IN, QualityPolicy
from ingest.curation.tiers.tier import judge
from ingest.storage.lock_file import LockHeld
from jobs.service import api_thresholds
from jobs.service.api import Number, current_of, keeper_of, newest_of, refuse_read_only, served_by
from jobs.service.api_session import caller_of
from jobs.service.api_thresholds import JUDGING, THREADS, judged_in_force
from jobs.service.details import row_of
from jobs.service.errors import ApiError, busy
from jobs.service.job_kinds import Name
from jobs.service.job_runner import JobRunner
from jobs.service.keeper import Served
from jobs.service.limits import place, place_within
from jobs.service.models import OfSnapshot, StrictModel
from jobs.service.saved_policies import folder_of, policy_of_name
from schemas.catalog_rows import as_dict
from schemas.review import MAX_AUTHOR, MAX_TEXT, Review, ReviewKind

router = APIRouter()

MOST_AT_ONCE = 100
MAX_CANDIDATES = 1000
SEED = 0  # decides between equal distances
LOCK_WAIT_S = 2.0  # for the journal: the client asks again, and no thread waits longer
_comparing = threading.BoundedSemaphore(1)  # it reads the measurements of the corpus
_BUSY = "another comparison of reviews or measurements is running"
Policy = Annotated[Name | None, Query(description="Default: the one in force.")]


class NewReview(StrictModel):
    review_id: str = Field(description="A UUID that the client makes: it may be sent again.")
    uid: str = Field(max_length=MAX_AUTHOR)
    start: int | None = Field(default=None, ge=0, description="Timestep; null: whole episode.")
    end: int | None = Field(default=None, ge=0)
    kind: ReviewKind
    value: str = Field(default="", max_length=MAX_TEXT)
    supersedes: str | None = None


class ReviewsQuestion(StrictModel):
    reviews: list[NewReview] = Field(min_length=1, max_length=MOST_AT_ONCE)


class ReceiptAnswer(StrictModel):
    review_id: str
    is_pending: bool = Field(description="It waits for the next job that writes.")


class ReceiptsAnswer(StrictModel):
    receipts: list[ReceiptAnswer]


class ReviewAnswer(StrictModel):
    review_id: str
    uid: str
    start: int | None
    end: int | None
    kind: ReviewKind
    value: str
    author: str
    at: datetime
    snapshot: int
    supersedes: str | None
    is_pending: bool
    is_in_force: bool = Field(description="No other review supersedes it; pending ones count.")


class ReviewsAnswer(StrictModel):
    reviews: list[ReviewAnswer]


class CandidateAnswer(StrictModel):
    uid: str
    start: int | None
    end: int | None
    value: float
    threshold: float
    distance: float


class SampleAnswer(OfSnapshot):
    policy: str
    candidates: list[CandidateAnswer]


class ShareAnswer(StrictModel):
    correct: int
    total: int
    value: float | None
    low: float | None = Field(description="95 % Wilson interval, as `high`.")
    high: float | None


class TierAgreementAnswer(StrictModel):
    tier: str
    precision: ShareAnswer
    recall: ShareAnswer


class AgreementAnswer(OfSnapshot):
    policy: str
    tiers: list[TierAgreementAnswer]


@router.post("/reviews", status_code=201)
def submit_reviews(
    request: Request,
    question: ReviewsQuestion,
    number: Annotated[
        int | None,
        Query(
            alias="snapshot", ge=0, description="That the reviewer saw. Default: the one served."
        ),
    ] = None,
) -> ReceiptsAnswer:
    """Store reviews, all or none; the author is the holder of the token. The next job that writes publishes them.

    409 `review_id`: the UUID is of another review. 422 `place`: no such episode or timesteps. 503 `busy`: send the same again.
    """
    refuse_read_only(request)
    author, at = caller_of(request).holder.name, datetime.now(UTC)
    if number is None:
        number = served_by(request).cache.snapshot
    rows = [_review(each, author, at, number) for each in question.reviews]
    try:
        receipts = submit(_corpus(request), rows, LOCK_WAIT_S)
    except LockHeld as error:
        raise busy("other reviews are being stored or published") from error
    except OtherReview as error:
        raise ApiError(
            409, "review_id", error.message, where=error.where, remedy=error.remedy
        ) from error
    except NoSuchPlace as error:
        raise ApiError(422, "place", error.message, where=error.where) from error
    return ReceiptsAnswer(
        receipts=[
            ReceiptAnswer(review_id=each.review_id, is_pending=each.is_pending) for each in receipts
        ]
    )


def _review(new: NewReview, author: str, at: datetime, number: int) -> Review:
    """
    Raises:
        ApiError: 422, which rule it breaks.
    """
    try:
        return Review(**new.model_dump(mode="json"), author=author, at=at, snapshot=number)
    except ValueError as error:
        raise ApiError(422, "usage", str(error), where=f"review {new.review_id[:200]}") from error


@router.get("/episodes/{uid}/reviews")
def reviews_of_episode(request: Request, uid: str) -> ReviewsAnswer:
    """All reviews of an episode, oldest first, also those that came after the snapshot that is served."""
    row_of(served_by(request).cache, uid)
    stored = read(_corpus(request), uid=uid)
    holding = {each.review_id for each in in_force(each.review for each in stored)}
    return ReviewsAnswer(
        reviews=[_answer(each, is_in_force=each.review.review_id in holding) for each in stored]
    )


def _answer(stored: StoredReview, *, is_in_force: bool) -> ReviewAnswer:
    row = as_dict(stored.review)
    row["kind"] = ReviewKind(row["kind"])
    return ReviewAnswer(**row, is_pending=stored.is_pending, is_in_force=is_in_force)


@router.get("/reviews/sample")
def sample(
    request: Request,
    measurement: Annotated[str, Query(max_length=300)],
    count: Annotated[int, Query(ge=1, le=MAX_CANDIDATES)] = 50,
    policy: Policy = None,
    number: Number = None,
) -> SampleAnswer:
    """Episodes and stretches whose measurement is nearest to a threshold of the policy."""
    served = served_by(request, number)
    corpus, current = keeper_of(request).corpus, current_of(request, served)
    with place(_comparing, _BUSY):
        chosen = _policy(request, current, policy)
        nearest = near_threshold(corpus, current, chosen, measurement, count, SEED)
    candidates = [CandidateAnswer(**asdict(each)) for each in nearest]
    return SampleAnswer(**newest_of(request, served), policy=chosen.title, candidates=candidates)


@router.get("/reviews/agreement")
async def agreement_of_policy(
    request: Request, policy: Policy = None, number: Number = None
) -> AgreementAnswer:
    """Precision and recall of each tier over reviewed segments; the policy decides without the reviews. Pending ones do not count."""
    served = served_by(request, number)
    async with place_within(JUDGING, api_thresholds.WAIT_S, _BUSY):  # a what-if may be running
        return await run_in_threadpool(_agreement, request, served, policy)


def _agreement(request: Request, served: Served, policy: str | None) -> AgreementAnswer:
    corpus, current = keeper_of(request).corpus, current_of(request, served)
    if policy is None:
        judged = judged_in_force(request, served)
    else:
        judged = judge(corpus, current, _policy(request, current, policy), threads=THREADS)
    tiers = agreement(corpus, current, judged)
    return AgreementAnswer(
        **newest_of(request, served),
        policy=judged.policy.title,
        tiers=[TierAgreementAnswer(**asdict(each)) for each in tiers],
    )


def _policy(request: Request, current: Snapshot, name: str | None) -> QualityPolicy:
    """Raises as `policy_of_name`."""
    if name is None:
        return policy_in_force(keeper_of(request).corpus, current, BUILT_IN)
    jobs: JobRunner | None = request.app.state.jobs
    folder = None if jobs is None else folder_of(keeper_of(request).folder, jobs.spec)
    return policy_of_name(folder, name)


def _corpus(request: Request) -> CorpusLayout:
    return CorpusLayout(keeper_of(request).corpus)
