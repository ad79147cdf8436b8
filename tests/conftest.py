"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.s3_server import running_s3_server

# No deadline: a shared machine is slow at times, and slow is not wrong. Few examples: the suite is run often.
settings.register_profile("eicorpus", deadline=None, max_examples=40)
settings.load_profile("eicorpus")

pytest_plugins = ["tests.left_out"]

SAMPLES = Path(__file__).parent.parent.parent / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write tests/golden/*.json anew from what the adapters give now; review the diff",
    )


@pytest.fixture(autouse=True)
def wide_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are not folded: what a test looks for stands in one line, however long its temporary folder's name is."""
    from jobs.ui import output

    monkeypatch.setattr(output.stdout, "width", 1000)


@pytest.fixture(autouse=True)
def usual_priority() -> Iterator[None]:
    """For root, the encoder SVT-AV1 makes its process a real-time one, which starves all others of the machine."""
    before = os.sched_getscheduler(0)
    yield
    if os.sched_getscheduler(0) != before:
        os.sched_setscheduler(0, before, os.sched_param(0))


@pytest.fixture
def samples() -> Path:
    """The folder of real sample data beside the checkout; its tests are reported as not run without it."""
    if not SAMPLES.is_dir():
        pytest.skip(f"NOT RUN: no real sample data at {SAMPLES}")
    return SAMPLES


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of an S3 server on loopback: see tests/s3_server.py."""
    with running_s3_server() as endpoint:
        yield endpoint


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a Ray head with a token come first: a process that has learned a token loses a cluster that it joined without one."""
    items.sort(key=lambda item: item.path.name != "test_ray_jobs.py")  # the others keep their order


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One Ray for the whole session, because to start one takes seconds; its workers find the tests' own adapters."""
    import ray

    root = str(Path(__file__).parents[1])
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        object_store_memory=150 * 1024 * 1024,
        runtime_env={"env_vars": {"PYTHONPATH": root}},
    )
    yield
    ray.shutdown()
