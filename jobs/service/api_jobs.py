"""REST: jobs are submitted, listed, followed and cancelled."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from ingest.curation.measurements.registry import select_measures
from jobs.build.spec_file import read_corpus, read_spec_alone
from jobs.build.targets import section_of
from jobs.service.api import keeper_of
from jobs.service.errors import ApiError, busy, not_here
from jobs.service.job_kinds import KINDS, JobRequest
from jobs.service.job_runner import JobRunner
from jobs.service.job_store import FINISHED, MAX_QUEUED, Job, JobStore, OtherRequest, QueueFull
from jobs.service.models import StrictModel
from jobs.service.saved_policies import folder_of, policy_names
from schemas.errors import ConfigError
from schemas.invalid import did_you_mean
from schemas.json_text import parse_json

router = APIRouter()

MAX_LOG = 256 << 10  # bytes of one answer
MAX_FOLLOWERS = 50
FOLLOW_S = 0.5
HEARTBEAT_S = 15.0
MAX_OFFSET = 1 << 40
MAX_ID = (1 << 63) - 1
_SECTIONS = {model.section for model in KINDS.values()} - {"", "targets"}
_followers = threading.BoundedSemaphore(MAX_FOLLOWERS)
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,100}$")]
After = Annotated[int, Query(ge=0, le=MAX_OFFSET, description="Bytes of the log that are known.")]


class JobQuestion(StrictModel):
    key: Key = Field(
        description="Chosen by the client: the same key is the same job, as long as the job is kept."
    )
    job: JobRequest


class ListedJob(StrictModel):
    id: int
    key: str
    kind: str
    request: dict[str, Any] = Field(description="In a list of jobs, `uids` is their number.")
    state: Literal[
        "queued", "running", "cancelling", "succeeded", "failed", "cancelled", "interrupted"
    ]
    attempts: int
    created_at_s: float = Field(description="Seconds of the Unix epoch, as the two below.")
    started_at_s: float | None
    ended_at_s: float | None
    exit_code: int | None
    problem: str
    submission_id: str | None = Field(description="Of a job on Ray.")
    waits_for: str = Field(description="The server that runs it, where it is not this one.")


class JobAnswer(ListedJob):
    result: dict[str, Any] | None = Field(description="The envelope of the command's --json.")


class JobsAnswer(StrictModel):
    jobs: list[ListedJob]
    cursor: int | None = Field(description="Pass it as `before` for older jobs; null at the end.")
    removed: int = Field(description="Finished jobs that were removed as the oldest.")


class JobOptionsAnswer(StrictModel):
    kinds: dict[str, dict[str, Any]] = Field(
        description="Kinds of job that this server takes, each with the JSON Schema of its options."
    )
    choices: dict[str, list[str]] = Field(description="Values of options that have a closed set.")
    problem: str = Field(description="Why kinds that need the corpus spec are missing.")


class LogAnswer(StrictModel):
    text: str
    after: int = Field(description="Pass it as `after` for what follows.")


@router.post("/jobs", status_code=201, response_model=JobAnswer)
def submit(request: Request, question: JobQuestion, response: Response) -> JobAnswer:
    """A job waits for those before it. 200: the key has this job already."""
    runner = _runner(request)
    if question.job.needs_spec and runner.spec is None:
        raise ApiError(
            409, "no_spec", "the server has no corpus spec", remedy="serve the file of the spec"
        )
    if question.job.needs_spec and runner.spec is not None:
        named = read_corpus(runner.spec).resolve()
        if named != runner.corpus:  # edited since the server started
            message = "the corpus spec names another corpus than the one that is served"
            raise ApiError(409, "other_corpus", message, remedy="restart eicorpus serve")
        question.job.words(runner.corpus, runner.spec)  # the part that it names is there
    _check_choices(request, question.job)
    try:
        job, is_new = runner.store.submit(
            key=question.key,
            kind=question.job.kind,
            request=question.job.model_dump_json(),
            now_s=time.time(),
            owner=runner.owner,
        )
    except OtherRequest as error:
        raise ApiError(409, "key_in_use", "the key belongs to another job") from error
    except QueueFull as error:
        raise busy(f"{MAX_QUEUED} jobs wait already") from error
    response.status_code = 201 if is_new else 200
    return _answer(runner, job)


@router.get("/jobs")
def jobs(
    request: Request,
    before: Annotated[int | None, Query(ge=0, le=MAX_ID)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JobsAnswer:
    """Jobs, newest first."""
    runner = _runner(request)
    page = runner.store.page(before, limit + 1)
    cursor = page[limit - 1].id if len(page) > limit else None
    shown = [ListedJob.model_validate(_fields(runner, each)) for each in page[:limit]]
    return JobsAnswer(jobs=shown, cursor=cursor, removed=runner.store.counts()[1])


@router.get("/job-options")
def job_options(request: Request) -> JobOptionsAnswer:
    """What a form for a new job offers: kinds with their options, targets of the spec, policies and measures."""
    choices, problem = _choices(request)
    return JobOptionsAnswer(
        kinds={
            kind: model.model_json_schema()
            for kind, model in KINDS.items()
            if not model.needs_spec or choices.get(model.section)
        },
        choices=choices,
        problem=problem,
    )


def _choices(request: Request) -> tuple[dict[str, list[str]], str]:
    """Values of options that have a closed set, and what is wrong with the spec that some are from."""
    spec, targets, problem = _runner(request).spec, list[str](), ""
    parts: dict[str, list[str]] = {}
    if spec is not None:
        try:
            file = read_spec_alone(spec)
            targets = list(file.needs)
            parts = {name: list(getattr(file.spec, name)) for name in _SECTIONS}
        except ConfigError as error:  # a spec that is being edited takes away no other kind
            problem = str(error)
    folder = folder_of(keeper_of(request).folder, spec)
    measures = sorted(measure.name for measure in select_measures(()))
    choices = {**parts, "targets": targets, "policy": policy_names(folder), "only": measures}
    return choices, problem


def _check_choices(request: Request, job: BaseModel) -> None:
    """
    Raises:
        ApiError: 422, an option names what is not there.
    """
    choices, problem = _choices(request)
    if problem:
        return  # the spec cannot be read now; the job reports that if it still holds when it runs
    choices["targets"] += map(section_of, choices["targets"].copy())
    for option, value in job.model_dump().items():
        for name in value if isinstance(value, list | tuple) else [value]:
            if option in choices and name is not None and name not in choices[option]:
                hint = did_you_mean(name, choices[option])
                raise ApiError(422, "usage", f"no {option} {name[:100]!r}{hint}", where=option)


@router.get("/jobs/{job_id}")
def job_answer(request: Request, job_id: int) -> JobAnswer:
    """One job."""
    runner = _runner(request)
    return _answer(runner, _job(runner.store, job_id))


@router.post("/jobs/{job_id}/cancel")
def cancel(request: Request, job_id: int) -> JobAnswer:
    """Stop a job as Ctrl-C does; a finished one stays as it is. One on Ray that cannot be reached is forgotten at the second request."""
    runner = _runner(request)
    runner.cancel(_job(runner.store, job_id), time.time())
    return _answer(runner, _job(runner.store, job_id))


@router.get("/jobs/{job_id}/log")
def log(request: Request, job_id: int, after: After = 0) -> LogAnswer:
    """Whole lines of the log."""
    store = _runner(request).store
    text, end = _lines(store, _job(store, job_id), after)
    return LogAnswer(text=text, after=end)


@router.get("/jobs/{job_id}/events", response_class=StreamingResponse)
async def events(
    request: Request,
    job_id: int,
    after: After = 0,
    last_event_id: Annotated[str | None, Header(pattern=r"^[0-9]{1,13}$")] = None,
) -> StreamingResponse:
    """Server-sent events `log` and `state`, until the job ends. The id of an event is the place in the log after it."""
    runner = _runner(request)
    await asyncio.to_thread(_job, runner.store, job_id)
    if not _followers.acquire(blocking=False):
        raise busy(f"{MAX_FOLLOWERS} clients follow jobs already")
    stop: threading.Event = request.app.state.stop
    start = after if last_event_id is None else int(last_event_id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    stream = _Events(runner, job_id, start, stop)
    return StreamingResponse(stream.texts(), media_type="text/event-stream", headers=headers)


class _Events:
    """What one client follows. Its place among the followers is free again when the stream ends, also where it never began."""

    def __init__(self, runner: JobRunner, job_id: int, after: int, stop: threading.Event) -> None:
        self._runner, self._id, self._after, self._stop = runner, job_id, after, stop

    def __del__(self) -> None:
        _followers.release()

    async def texts(self) -> AsyncIterator[str]:
        state, silent_s, store = "", 0.0, self._runner.store
        while not self._stop.is_set():
            job = await asyncio.to_thread(store.job, self._id)
            if job is None:
                return
            text, end = await asyncio.to_thread(_lines, store, job, self._after)
            self._after = end
            if text:
                yield _event("log", end, {"text": text})
            if job.state != state and (job.state not in FINISHED or not text):
                state = job.state
                yield _event("state", end, _answer(self._runner, job).model_dump(mode="json"))
            if text:
                continue
            if state in FINISHED:
                return
            await asyncio.sleep(FOLLOW_S)
            silent_s += FOLLOW_S
            if silent_s >= HEARTBEAT_S:
                silent_s = 0.0
                yield ": still here\n\n"


def _event(name: str, place: int, value: object) -> str:
    return f"id: {place}\nevent: {name}\ndata: {json.dumps(value)}\n\n"


def _runner(request: Request) -> JobRunner:
    runner: JobRunner | None = request.app.state.jobs
    if runner is None:
        raise ApiError(403, "read_only", "this server takes no jobs")
    return runner


def _job(store: JobStore, job_id: int) -> Job:
    job = store.job(job_id) if 0 < job_id <= MAX_ID else None
    if job is None:
        raise not_here(f"no job {job_id}")
    return job


def _answer(runner: JobRunner, job: Job) -> JobAnswer:
    result = None if job.result is None else parse_json(job.result)
    return JobAnswer.model_validate({**_fields(runner, job), "result": result})


def _fields(runner: JobRunner, job: Job) -> dict[str, Any]:
    names = set(ListedJob.model_fields) - {"request", "waits_for"}
    fields = {name: getattr(job, name) for name in names}
    return {**fields, "request": parse_json(job.request), "waits_for": runner.waits_for(job)}


def _lines(store: JobStore, job: Job, after: int) -> tuple[str, int]:
    """Whole lines of a log from a place on, and the place behind them; of a line that fills an answer, a part."""
    try:
        with store.log_of(job.id).open("rb") as file:
            file.seek(after)
            block = file.read(MAX_LOG)
    except FileNotFoundError:  # it has not started
        return "", after
    whole = block[: block.rfind(b"\n") + 1] or (block if len(block) == MAX_LOG else b"")
    return whole.decode(errors="replace"), after + len(whole)
