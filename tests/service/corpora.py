"""A catalog with what makes paging hard: ties, unknown values, infinities, names of strangers. And the service over a corpus."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from jobs.service.app import ServiceSettings, create_app
from jobs.service.bucket_files import BucketFiles
from jobs.service.cache_build import build_cache
from jobs.service.credentials import Access, Holder
from jobs.service.job_runner import JobRunner
from jobs.service.keeper import Keeper
from jobs.service.roles import Role
from tests.generators.corpus import WrittenCatalog, commit, rows_of, uid_of

TOKEN = "a token that nobody can guess".replace(" ", "-")
READER, REVIEWER = "the-token-of-a-reader", "the-token-of-a-reviewer"
HOLDERS = {
    TOKEN: Holder(name="admin", role=Role.ADMIN),
    REVIEWER: Holder(name="Ada", role=Role.REVIEW),
    READER: Holder(name="Bob", role=Role.READ),
}
HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J' OR 1=1 --\u202e/../../etc/passwd"
NUM_EPISODES = 300


def measured(name: str, index: int, value: float | None, version: int = 1) -> dict[str, Any]:
    return {
        "uid": uid_of(index),
        "name": name,
        "version": version,
        "value": value,
        "unit": "m",
        "start": None,
        "end": None,
        "denominator": 10,
    }


def value_of(index: int) -> float | None:
    """Many ties, unknown ones, both zeros and infinities."""
    if index % 7 == 0:
        return None
    return {1: 0.0, 2: -0.0, 3: math.inf, 4: -math.inf}.get(index % 29, float(index % 5) / 3)


def write_hard_catalog(root: Path, num_episodes: int = NUM_EPISODES) -> WrittenCatalog:
    """Every fifth episode is not measured at all; `renewed` has an older and a newer version."""
    root.mkdir(parents=True)
    (root / "corpus.json").write_text('{"format_version": 1, "uid": "synthetic"}')
    rows = rows_of(num_episodes)
    for index, row in enumerate(rows["episodes"]):
        row["hours"] = row["length"] / 36000
        if index % 11 == 0:
            row["embodiment"] = HOSTILE
            row["tasks"] = [HOSTILE]
            row["task_counts"] = [row["length"]]
    rows["measurements"] += [
        measured("tied", index, value_of(index)) for index in range(num_episodes) if index % 5
    ]
    rows["measurements"] += [
        measured("renewed", index, float(index) + 1000 * version, version)
        for index in range(num_episodes)
        for version in (1, 2)
    ]
    rows["tiers"] = [
        {**row, "tier": ("high", "low", "actionless", "excluded")[index % 4]}
        for index, row in enumerate(rows["tiers"])
    ]
    commit(root, rows)
    return WrittenCatalog(root, rows)


def app_of(
    root: Path,
    state: Path,
    *,
    settings: ServiceSettings | None = None,
    clock: Callable[[], float] = lambda: 0.0,
    builds: bool = True,
    jobs: JobRunner | None = None,
    files: BucketFiles | None = None,
) -> FastAPI:
    """The service over a corpus. The cache is there; nothing polls before the application starts."""
    if builds:
        build_cache(root, state)
    keeper = Keeper(root, state, clock, files)
    keeper.refresh()
    return create_app(
        keeper,
        Access(HOLDERS, clock=clock),
        settings or ServiceSettings(requests_per_s=1e6, request_burst=1e6),
        clock=clock,
        report=lambda _: None,
        version="0",
        jobs=jobs,
    )


def client_of(
    root: Path,
    state: Path,
    *,
    settings: ServiceSettings | None = None,
    clock: Callable[[], float] = lambda: 0.0,
    host: str = "127.0.0.1:8321",
    builds: bool = True,
    jobs: JobRunner | None = None,
    files: BucketFiles | None = None,
) -> TestClient:
    """A client with the token. The cache is there; nothing polls."""
    app = app_of(root, state, settings=settings, clock=clock, builds=builds, jobs=jobs, files=files)
    return TestClient(
        app,
        base_url=f"http://{host}",
        headers={"Authorization": f"Bearer {TOKEN}"},
        raise_server_exceptions=True,
        follow_redirects=False,
    )


def keeper_of(client: TestClient) -> Keeper:
    keeper: Keeper = client.app.state.keeper  # type: ignore[attr-defined]
    return keeper
