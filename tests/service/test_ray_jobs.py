"""Jobs on Ray: a real head of this module, the engine as one server after another, and the commands that Ray runs."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray._private.authentication_test_utils import reset_auth_token_state

from benchmarks.raylets import kill_tree
from jobs.service.job_ray import RayEngine, RayJobs, RayUnreachable
from jobs.service.job_runner import JobRunner
from jobs.service.job_store import FINISHED, Job, JobStore
from tests.faults.test_build_stops import GATED
from tests.jobs.build_cases import build, write_spec

pytestmark = [pytest.mark.slow, pytest.mark.ray]
ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef" * 4
OF_THE_CLUSTER = "a-key-that-the-server-has-not"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of its dashboard. It wants a token, which this process has too."""
    port = free_port()
    tokens = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **tokens, "PATH": programs, "PYTHONPATH": str(ROOT)}
    environment["OTHER_API_KEY"] = OF_THE_CLUSTER
    words = [
        *("start", "--head", "--block", "--num-cpus=1", "--object-store-memory=100000000"),
        f"--dashboard-agent-listen-port={free_port()}",  # that of another cluster of the tests is taken
        *(f"--port={free_port()}", f"--dashboard-port={port}", "--dashboard-host=127.0.0.1"),
        *("--ray-client-server-port", str(free_port()), "--include-dashboard=true"),
        f"--temp-dir={tmp_path_factory.mktemp('r')}",
    ]
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "ray"), *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in tokens.items():
            patch.setenv(name, value)
        reset_auth_token_state()  # Ray reads the variables once
        try:
            until(lambda: answers(f"http://127.0.0.1:{port}", process))
            yield f"http://127.0.0.1:{port}"
        finally:
            kill_tree(process)
    reset_auth_token_state()


def answers(address: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None
    try:
        return RayJobs(address).info("nothing") is None
    except RayUnreachable:
        return False


def until(check: Callable[[], object]) -> None:
    """Asks until the answer is true; the test's own time limit ends it."""
    while not check():
        time.sleep(0.2)


def server(store: JobStore, corpus: Path, address: str, spec: Path | None = None) -> JobRunner:
    return JobRunner(store, corpus, spec, RayEngine(store, corpus, spec, address))


def job_of(store: JobStore, job_id: int) -> Job:
    job = store.job(job_id)
    assert job is not None
    return job


def submitted(runner: JobRunner, **job: object) -> int:
    names = {"key": str(job), "kind": str(job["kind"]), "request": json.dumps(job)}
    return runner.store.submit(**names, now_s=1.0, owner=runner.owner)[0].id


def ended(runner: JobRunner, job_id: int) -> Job:
    until(lambda: (runner.step(), job_of(runner.store, job_id).state in FINISHED)[1])
    return job_of(runner.store, job_id)


def test_a_job_is_found_by_the_next_server_wherever_the_first_was_killed(
    head: str, toy: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(toy, corpus)
    store = JobStore(tmp_path / "state")
    job_id = submitted(server(store, corpus, head), kind="tier", policy="ei30k")
    server(store, corpus, head).step()
    stored = job_of(store, job_id)
    assert (stored.state, stored.is_submitted) == ("running", 0)  # killed before it is submitted
    assert stored.submission_id
    server(store, corpus, head).step()
    with store._writing() as connection:  # killed before it is known to be submitted
        connection.execute("UPDATE jobs SET is_submitted = 0")
    with pytest.raises(RayUnreachable, match="status code 500"):
        RayJobs(head).submit(stored.submission_id, "true")  # what a second submit would get
    tiered = ended(server(store, corpus, head), job_id)
    assert (tiered.state, tiered.exit_code, tiered.problem) == ("succeeded", 0, ""), tiered
    assert (tiered.attempts, tiered.submission_id) == (1, stored.submission_id)
    assert tiered.result is not None
    assert json.loads(tiered.result)["command"] == "tier"
    log = store.log_of(job_id).read_text()
    assert "Running entrypoint" in log
    assert '"command"' not in log
    assert TOKEN not in log


def test_a_job_that_ray_lost_runs_once_more(head: str, toy: Path, tmp_path: Path) -> None:
    store = JobStore(tmp_path / "state")
    job_id = submitted(
        server(store, toy, head), kind="manifest", name="a", uids=["no-such-episode"]
    )
    assert store.claim(job_id, 1.0, submission_id="of-a-head-that-was-lost")
    store.mark_submitted(job_id)
    without_head = server(store, toy, head)
    without_head._engine._ray = RayJobs(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(RayUnreachable, match="does not answer"):
        without_head.step()
    waiting = job_of(store, job_id)
    assert (waiting.state, waiting.attempts) == ("running", 1)
    assert "does not answer" in waiting.problem
    refused = ended(server(store, toy, head), job_id)
    assert (refused.state, refused.exit_code, refused.attempts) == ("failed", 2, 2)
    assert "lacks 1 of 1 episodes" in refused.problem  # the command has read its input


def test_a_cancelled_job_stops_in_order(head: str, tmp_path: Path) -> None:
    """It has an episode that waits until the test opens its gate, which happens after the stop."""
    spec = write_spec(tmp_path, GATED)
    store = JobStore(tmp_path / "state")
    runner = server(store, tmp_path / "corpus", head, spec)
    job_id = submitted(runner, kind="build")
    log = store.log_of(job_id)
    until(lambda: (runner.step(), log.exists() and "sources.toy: " in log.read_text())[1])
    store.cancel(job_id, 2.0)
    stopped = ended(runner, job_id)
    assert (stopped.state, stopped.result is not None) == ("cancelled", True), stopped
    assert stopped.problem == "interrupted"
    (tmp_path / "raw/gate").touch()
    assert "sources.toy" in build(spec)["built"]


def test_a_secret_of_the_cluster_is_in_neither_log_nor_result(
    head: str, toy: Path, tmp_path: Path
) -> None:
    """The head has it, and this server has not."""
    runner = server(JobStore(tmp_path / "state"), toy, head)
    job_id = submitted(runner, kind="tier", policy=OF_THE_CLUSTER)
    failed = ended(runner, job_id)
    assert failed.state == "failed", failed
    assert failed.result is not None
    assert "[hidden]" in failed.result
    log = runner.store.log_of(job_id).read_text().splitlines()
    of_command = "".join(
        line for line in log if "entrypoint" not in line
    )  # that one has the request
    assert OF_THE_CLUSTER not in f"{failed.problem}{failed.result}{of_command}"


def test_a_stop_may_take_longer_than_the_3_s_of_ray(head: str, tmp_path: Path) -> None:
    calls, end = RayJobs(head), tmp_path / "end"
    script = f"""import signal, sys, time
def stop(*_):
    time.sleep(4)
    open({str(end)!r}, "w").close()
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
print("waits", flush=True)
while True:
    signal.pause()"""
    (tmp_path / "script.py").write_text(script)
    calls.submit("slow-stop", f"exec {sys.executable} {tmp_path / 'script.py'}")
    until(lambda: "waits" in calls.logs("slow-stop"))
    calls.stop("slow-stop")
    until(lambda: (info := calls.info("slow-stop")) is not None and info.status.is_terminal())
    assert end.exists()


def test_a_wrong_token_is_named_and_not_shown(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 64)
    script = "import sys; from jobs.service.job_ray import RayJobs; RayJobs(sys.argv[1]).info('a')"
    done = subprocess.run(
        [sys.executable, "-c", script, head], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "RayUnreachable: Ray refuses the token" in done.stderr
    assert "f" * 64 not in done.stderr
