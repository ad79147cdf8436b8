"""Jobs of the service: the queue, the process of a job, and REST. Real processes, which signal through pipes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from starlette.testclient import TestClient

from jobs.build.spec_file import read_spec_alone
from jobs.service import api_jobs, job_store
from jobs.service.job_engine import MAX_FAILURES
from jobs.service.job_kinds import JobRequest
from jobs.service.job_process import run_job
from jobs.service.job_runner import JobRunner
from jobs.service.job_store import JobOwner, JobStore, OtherRequest, QueueFull
from schemas.errors import TransientError
from tests.generators.corpus import WrittenCatalog
from tests.jobs.build_cases import write_spec
from tests.service.corpora import client_of

DEADLINE_S = 60
ROOT = Path(__file__).parents[2]
CLI = (ROOT / "docs/reference/cli.md").read_text()
SUPERVISOR = """import json, sys
from pathlib import Path
from jobs.service.job_process import run_job
from jobs.service.job_store import JobStore
run_job(JobStore(Path(sys.argv[1])), int(sys.argv[2]), json.loads(sys.argv[3]), {})"""
# Says its process id, then waits until its standard input, a pipe of the test, ends.
WAITING = """import os, sys
print(os.getpid(), file=sys.stderr, flush=True)
open(sys.argv[1]).read()
print('{}')"""


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "state")


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def submitted(store: JobStore, key: str = "a") -> int:
    return store.submit(key=key, kind="dedup", request='{"kind":"dedup"}', now_s=1.0)[0].id


def state_of(store: JobStore, job_id: int) -> str:
    job = store.job(job_id)
    assert job is not None
    return job.state


def supervised(store: JobStore, job_id: int, pipe: Path) -> subprocess.Popen[bytes]:
    words = json.dumps([sys.executable, "-c", WAITING, str(pipe)])
    return subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(store.folder.parent), str(job_id), words], cwd=ROOT
    )


def until(check: Callable[[], Any]) -> Any:
    """Asks until the answer is true; the test's own time limit ends it."""
    while not (value := check()):
        pass
    return value


def pid_of_command(store: JobStore, job_id: int) -> int:
    log = store.log_of(job_id)
    return int(until(lambda: log.is_file() and log.read_text().strip()))


def test_a_key_is_one_job(store: JobStore) -> None:
    first, is_new = store.submit(key="k", kind="dedup", request="{}", now_s=1.0)
    again, is_new_again = store.submit(key="k", kind="dedup", request="{}", now_s=2.0)
    assert (is_new, is_new_again, again) == (True, False, first)
    with pytest.raises(OtherRequest):
        store.submit(key="k", kind="dedup", request='{"a":1}', now_s=3.0)


def test_a_queue_of_an_earlier_version_is_read(store: JobStore) -> None:
    with store._writing() as connection:
        for name in ("submission_id", "is_submitted", "log_start", "spec", "ray_address"):
            connection.execute(f"ALTER TABLE jobs DROP COLUMN {name}")
        connection.execute(
            "INSERT INTO jobs (key, kind, request, state, created_at_s) VALUES ('a', 'dedup', '{}', 'queued', 1)"
        )
    job = JobStore(store.folder.parent).next_queued(JobOwner(spec="/any.yaml"))
    assert job is not None
    assert (job.submission_id, job.is_submitted, job.log_start, job.spec) == (None, 0, 0, None)


def test_the_queue_and_the_history_have_bounds(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_store, "MAX_QUEUED", 3)
    monkeypatch.setattr(job_store, "MAX_FINISHED", 1)
    ids = [submitted(store, key) for key in "abc"]
    with pytest.raises(QueueFull):
        submitted(store, "d")
    for job_id in ids[:2]:
        store.log_of(job_id).write_text("log\n")
        store.finish(job_id, state="succeeded", now_s=2.0)
    store.remove_oldest()
    assert [job.id for job in store.page(None, 10)] == ids[:0:-1]
    assert not store.log_of(ids[0]).exists()
    assert store.counts() == ({"succeeded": 1, "queued": 1}, 1)


def test_one_job_runs_at_a_time(store: JobStore) -> None:
    first, second = submitted(store, "a"), submitted(store, "b")
    assert store.claim(first, 1.0)
    assert not store.claim(first, 1.0)
    assert not store.claim(second, 1.0)
    assert store.next_queued() is None
    store.finish(first, state="failed", now_s=2.0)
    assert store.claim(second, 3.0)


def test_a_job_without_a_process_waits_once_more(store: JobStore) -> None:
    job_id = submitted(store)
    for expected in ("queued", "interrupted"):
        assert store.claim(job_id, 1.0)
        with store.holding(job_id):
            store.recover(2.0)
            assert state_of(store, job_id) == "running"  # its process lives
        store.recover(2.0)
        assert state_of(store, job_id) == expected


def test_the_log_has_no_secret_and_no_escape_and_a_bound(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submitted(store)
    monkeypatch.setattr("jobs.service.job_output.MAX_LOG_BYTES", 2000)
    script = """import sys
print('\\x1b[31mred s3cret-value Authorization: Bearer abc http://me:pw@host/', file=sys.stderr)
print('x' * 1000 + '\\n' + 'y' * 1000, file=sys.stderr)
print('{"error": {"message": "token s3cret-value \\\\u001b]0;"}}')
sys.exit(1)"""
    run_job(store, job_id, [sys.executable, "-c", script], {"MY_TOKEN": "s3cret-value"})
    log = store.log_of(job_id).read_text()
    assert log.splitlines()[0] == (
        r"\x1b[31mred [hidden] Authorization: Bearer [hidden] http://[hidden]@host/"
    )
    assert log.endswith("x\nthe log is full; later lines are dropped\n")
    job = store.job(job_id)
    assert job is not None
    assert (job.state, job.exit_code, job.problem) == ("failed", 1, r"token [hidden] \x1b]0;")


def test_a_full_disk_takes_the_log_and_not_the_job(store: JobStore) -> None:
    """The command writes more than a pipe holds: if its pipe were not read, it would wait, and hold the corpus."""
    job_id = submitted(store)
    store.log_of(job_id).symlink_to("/dev/full")
    script = "import sys; print(('x' * 99 + '\\n') * 10_000, file=sys.stderr); print('{}')"
    run_job(store, job_id, [sys.executable, "-c", script], {})
    job = store.job(job_id)
    assert job is not None
    assert (job.state, job.problem) == (
        "succeeded",
        "the log lacks lines: No space left on device",
    )


def test_the_end_of_a_job_waits_for_room(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id, tries = submitted(store), list[int]()

    class Full(JobStore):
        def finish(self, job_id: int, **names: Any) -> None:
            tries.append(job_id)
            if len(tries) < 3:
                raise TransientError("database or disk is full")
            super().finish(job_id, **names)

    monkeypatch.setattr("jobs.service.job_process.FINISH_PAUSE_S", 0.0)
    run_job(Full(store.folder.parent), job_id, [sys.executable, "-c", "print('{}')"], {})
    assert (state_of(store, job_id), len(tries)) == ("succeeded", 3)


@pytest.mark.parametrize(
    ("last_act", "exit_code", "problem"),
    [
        ("os.kill(os.getpid(), 9)", -9, "the command was killed (SIGKILL)"),
        ("sys.exit(137)", 137, "the command was killed (SIGKILL)"),  # of Ray's driver
        ("sys.exit(3)", 3, "the command ended with 3 and no result"),
    ],
)
def test_a_command_that_ends_without_a_result_says_how_to_resume(
    store: JobStore, last_act: str, exit_code: int, problem: str
) -> None:
    job_id = submitted(store)
    run_job(store, job_id, [sys.executable, "-c", f"import os, sys; {last_act}"], {})
    job = store.job(job_id)
    assert job is not None
    assert (job.state, job.exit_code) == ("failed", exit_code)
    assert job.problem.startswith(problem)
    assert "run the job again" in job.problem


def test_a_command_reads_what_its_job_has_for_it(store: JobStore) -> None:
    job_id = submitted(store)
    script = "import json, sys; print(json.dumps({'input': sys.stdin.read()}))"
    run_job(store, job_id, [sys.executable, "-c", script], {}, b"a\nb")
    job = store.job(job_id)
    assert job is not None
    assert job.result == '{"input": "a\\nb"}'


@pytest.mark.slow
def test_a_killed_supervisor_runs_nothing_twice(store: JobStore, pipe: Path) -> None:
    """The command lives on without it: the job counts as running until the command ends too."""
    job_id = submitted(store)
    process = supervised(store, job_id, pipe)
    pid_of_command(store, job_id)
    process.kill()
    process.wait(DEADLINE_S)
    JobStore(store.folder.parent).recover(2.0)
    assert state_of(store, job_id) == "running"
    run_job(store, job_id, ["/nonexistent"], {})  # is not run: the lock is held
    pipe.write_text("")  # lets the command end
    until(lambda: (store.recover(3.0), state_of(store, job_id) == "queued")[1])


@pytest.mark.slow
def test_a_command_outlives_the_process_that_keeps_its_log(
    store: JobStore, pipe: Path, tmp_path: Path
) -> None:
    """It writes to a pipe without a reader, as a command does, and goes on."""
    job_id = submitted(store)
    script = """import os, sys
from pathlib import Path
from jobs.ui.output import stderr
stderr.print(os.getpid())
open(sys.argv[1]).read()
stderr.print('the reader has ended')
print('this too', file=sys.stderr, flush=True)
Path(sys.argv[2]).touch()"""
    words = json.dumps([sys.executable, "-c", script, str(pipe), str(tmp_path / "end")])
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(store.folder.parent), str(job_id), words], cwd=ROOT
    )
    pid_of_command(store, job_id)
    process.kill()
    process.wait(DEADLINE_S)
    pipe.write_text("")
    until(lambda: (store.recover(3.0), state_of(store, job_id) == "queued")[1])
    assert (tmp_path / "end").exists()


@pytest.mark.slow
def test_a_running_job_is_cancelled_and_a_stubborn_one_is_killed(
    store: JobStore, pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submitted(store, "a")
    process = supervised(store, job_id, pipe)
    pid_of_command(store, job_id)
    store.cancel(job_id, 2.0)
    assert state_of(store, job_id) in ("cancelling", "cancelled")
    process.wait(DEADLINE_S)
    assert state_of(store, job_id) == "cancelled"

    monkeypatch.setattr("jobs.service.job_process.STOP_S", 0.0)
    stubborn = submitted(store, "b")
    ignores = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN);" + WAITING
    words = [sys.executable, "-c", ignores, str(pipe)]
    cancelled = store.cancel

    class Cancelled(JobStore):
        def is_cancelling(self, job_id: int) -> bool:
            pid_of_command(store, job_id)  # it ignores the signal by now
            cancelled(job_id, 3.0)
            return super().is_cancelling(job_id)

    run_job(Cancelled(store.folder.parent), stubborn, words, {})
    job = store.job(stubborn)
    assert job is not None
    assert (job.state, job.exit_code) == ("cancelled", -signal.SIGKILL)


HOSTILE: list[dict[str, Any]] = [
    {"kind": "shell", "command": "id"},
    {"kind": "tier"},
    {"kind": "tier", "policy": "../../etc/passwd"},
    {"kind": "tier", "policy": "/tmp/policy.yaml"},
    {"kind": "tier", "policy": "--help"},
    {"kind": "tier", "policy": "a\n"},
    {"kind": "tier", "policy": "ei30k", "corpus": "/"},
    {"kind": "measure", "only": ["--address=ray://x"]},
    {"kind": "measure", "workers": 1e9},
    {"kind": "measure", "workers": "2"},
    {"kind": "manifest", "name": "../x"},
    {"kind": "manifest", "name": "-x"},
    {"kind": "manifest", "name": "x", "where": "a\0b"},
    {"kind": "manifest", "name": "x", "mixture": "/etc/passwd"},
    {"kind": "report", "html": "/tmp/x.html"},
    {"kind": "caption", "backend": "openai"},
    {"kind": "caption", "model": "/tmp/model"},
    {"kind": "latents", "latents": "../x"},
    {"kind": "latents", "latents": "a", "weights": "/tmp"},
    {"kind": "text_features", "text_features": "--vlm=/tmp"},
    {"kind": "export", "exports": "a", "warehouse": "/tmp"},
    {"kind": "verify", "deep": "yes"},
    {"kind": "build", "targets": ["--check"]},
    {"kind": "build", "targets": ["manifests.--ray"]},
    {"kind": "build", "spec": "/tmp/corpus.yaml"},
    {"kind": "plan", "targets": ["../tiers"]},
]


@pytest.mark.parametrize("job", HOSTILE, ids=json.dumps)
def test_options_outside_the_schema_are_refused(job: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(JobRequest).validate_python(job)


def test_a_value_never_becomes_an_option() -> None:
    job = {"kind": "manifest", "name": "x", "where": "--help"}
    words = TypeAdapter(JobRequest).validate_python(job).words(Path("/corpus"), None)
    assert words[:4] == ["manifest", "build", "/corpus", "x"]
    assert "--where=--help" in words
    assert "--help" not in words


@pytest.fixture
def jobs_client(hard: WrittenCatalog, tmp_path: Path) -> TestClient:
    """Nothing runs the queue."""
    state = tmp_path / "state"
    state.mkdir()
    return client_of(hard.root, state, builds=False, jobs=JobRunner(JobStore(state), hard.root))


def store_of(client: TestClient) -> JobStore:
    runner: JobRunner = client.app.state.jobs  # type: ignore[attr-defined]
    return runner.store


def test_jobs_over_rest(jobs_client: TestClient) -> None:
    question = {"key": "k", "job": {"kind": "tier", "policy": "ei30k"}}
    first = jobs_client.post("/api/v1/jobs", json=question)
    assert (first.status_code, first.json()["state"]) == (201, "queued")
    again = jobs_client.post("/api/v1/jobs", json=question)
    assert (again.status_code, again.json()) == (200, first.json())
    other = jobs_client.post("/api/v1/jobs", json={"key": "k", "job": {"kind": "dedup"}})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "key_in_use")
    hostile = jobs_client.post("/api/v1/jobs", json={"key": "h", "job": HOSTILE[0]})
    assert hostile.status_code == 422
    jobs_client.post("/api/v1/jobs", json={"key": "l", "job": {"kind": "dedup"}})
    page = jobs_client.get("/api/v1/jobs", params={"limit": 1}).json()
    assert ([job["key"] for job in page["jobs"]], page["cursor"]) == (["l"], 2)
    rest = jobs_client.get("/api/v1/jobs", params={"before": page["cursor"]}).json()
    assert [job["key"] for job in rest["jobs"]] == ["k"]
    assert jobs_client.post("/api/v1/jobs/1/cancel").json()["state"] == "cancelled"
    assert jobs_client.get("/api/v1/jobs/99").status_code == 404
    assert jobs_client.get(f"/api/v1/jobs/{1 << 70}").status_code == 404
    assert 'eicorpus_jobs{state="queued"} 1.0' in jobs_client.get("/metrics").text


def test_a_build_needs_a_server_of_a_spec(jobs_client: TestClient) -> None:
    for kind in ("build", "plan"):
        answer = jobs_client.post("/api/v1/jobs", json={"key": kind, "job": {"kind": kind}})
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "no_spec")
    assert jobs_client.get("/api/v1/jobs").json()["jobs"] == []


def test_a_full_queue_answers_busy(
    jobs_client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_store, "MAX_QUEUED", 0)
    answer = jobs_client.post("/api/v1/jobs", json={"key": "k", "job": {"kind": "dedup"}})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


def test_a_server_that_only_reads_takes_no_jobs(client: TestClient) -> None:
    answer = client.post("/api/v1/jobs", json={"key": "k", "job": {"kind": "dedup"}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "read_only")


def test_log_and_events_go_on_where_a_client_was(jobs_client: TestClient) -> None:
    store = store_of(jobs_client)
    job_id = submitted(store)
    assert jobs_client.get(f"/api/v1/jobs/{job_id}/log").json() == {"text": "", "after": 0}
    store.log_of(job_id).write_text("one\ntwo\nhalf")
    log = f"/api/v1/jobs/{job_id}/log"
    assert jobs_client.get(log).json() == {"text": "one\ntwo\n", "after": 8}
    assert jobs_client.get(log, params={"after": 4}).json() == {"text": "two\n", "after": 8}
    store.finish(job_id, state="succeeded", now_s=2.0)
    events = f"/api/v1/jobs/{job_id}/events"
    text = jobs_client.get(events).text
    assert 'id: 8\nevent: log\ndata: {"text": "one\\ntwo\\n"}\n\n' in text
    assert text.count("event: state") == 1
    resumed = jobs_client.get(events, headers={"Last-Event-ID": "4"}).text
    assert '"two\\n"' in resumed
    assert "one" not in resumed


def test_a_line_that_fills_an_answer_is_passed_on_in_parts(
    jobs_client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_jobs, "MAX_LOG", 4)
    job_id = submitted(store_of(jobs_client))
    store_of(jobs_client).log_of(job_id).write_text("sixsix\nend\n")
    log, parts, after = f"/api/v1/jobs/{job_id}/log", [], 0
    while (part := jobs_client.get(log, params={"after": after}).json())["text"]:
        parts.append(part["text"])
        after = part["after"]
    assert parts == ["sixs", "ix\n", "end\n"]


def test_a_job_waits_for_a_server_of_its_spec_and_engine(
    hard: WrittenCatalog, tmp_path: Path, store: JobStore
) -> None:
    specs = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    first, second, bare = (JobRunner(store, hard.root, spec) for spec in (*specs, None))
    request = {"kind": "tier", "request": '{"kind":"tier","policy":"mine"}', "now_s": 1.0}
    job, _ = store.submit(key="a", owner=first.owner, **request)
    on_ray, _ = store.submit(key="b", owner=JobOwner(ray_address="http://head:8265"), **request)
    assert store.next_queued(first.owner) == job
    assert store.next_queued(second.owner) is None
    assert store.next_queued(bare.owner) is None
    assert first.waits_for(job) == ""
    assert second.waits_for(job) == f"a server of {specs[0]} and without --ray-address"
    assert bare.waits_for(on_ray) == "a server without a spec with --ray-address http://head:8265"
    client = client_of(hard.root, tmp_path / "state", builds=False, jobs=second)
    (_, listed) = client.get("/api/v1/jobs").json()["jobs"]
    assert listed["waits_for"] == second.waits_for(job)
    answer = client.post("/api/v1/jobs", json={"key": "c", "job": {"kind": "dedup"}})
    own = store.job(answer.json()["id"])
    assert (own and own.spec, own and own.ray_address) == (str(specs[1]), "")


def test_a_job_of_ray_is_forgotten_at_the_second_cancel_on_a_server_without_ray(
    hard: WrittenCatalog, store: JobStore
) -> None:
    """Until then it keeps the queue waiting: a server with Ray may stop it yet."""
    runner = JobRunner(store, hard.root)
    owner = JobOwner(ray_address="http://head:8265")
    names = {"kind": "dedup", "request": '{"kind":"dedup"}', "now_s": 1.0}
    first, second = store.submit(key="first", owner=owner, **names)[0], submitted(store, "second")
    assert store.claim(first.id, 1.0, submission_id="of-ray")
    states = []
    for _ in range(2):
        runner._engine.follow()
        job = store.job(first.id)
        assert job is not None
        assert store.next_queued(runner.owner) is None
        runner.cancel(job, 2.0)
        states.append(state_of(store, first.id))
    assert states == ["cancelling", "cancelled"]
    behind = store.next_queued(runner.owner)
    assert behind is not None
    assert behind.id == second


def test_a_stop_that_ray_answers_is_not_cut_short(hard: WrittenCatalog, store: JobStore) -> None:
    runner, job_id = JobRunner(store, hard.root), submitted(store)
    assert store.claim(job_id, 1.0, submission_id="of-ray")
    for _ in range(2):
        job = store.job(job_id)
        assert job is not None
        runner.cancel(job, 2.0)
    assert state_of(store, job_id) == "cancelling"


@pytest.mark.slow
def test_a_process_that_cannot_start_leaves_its_reason(
    store: JobStore, hard: WrittenCatalog
) -> None:
    job = store.submit(key="a", kind="of-a-later-version", request='{"kind":"x"}', now_s=1.0)[0]
    runner = JobRunner(store, hard.root)
    until(lambda: (runner.step(), state_of(store, job.id) == "failed")[1])
    ended = store.job(job.id)
    assert ended is not None
    assert ended.problem.endswith("its log has the reason")
    assert store.log_of(job.id).read_text().count("ValidationError") == MAX_FAILURES


@pytest.mark.slow
def test_workers_that_outlive_their_command_do_not_keep_the_job(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have its pipes, as after a command that the kernel killed for memory."""
    monkeypatch.setattr("jobs.service.job_output.DRAIN_S", 0.1)
    job_id = submitted(store)
    script = """import os, subprocess, sys
reader, _ = os.pipe()
worker = "import os, sys; print(os.getpid(), file=sys.stderr, flush=True); os.read(int(sys.argv[1]), 1)"
process = subprocess.Popen([sys.executable, "-c", worker, str(reader)], pass_fds=[reader, _])
while not os.path.getsize(sys.argv[1]): pass
print("{}", flush=True)
os._exit(0)"""
    log = store.log_of(job_id)
    log.touch()
    run_job(store, job_id, [sys.executable, "-c", script, str(log)], {})
    assert state_of(store, job_id) == "succeeded"
    worker = int(log.read_text())
    until(lambda: not Path(f"/proc/{worker}/fd/0").exists())


@pytest.mark.slow
def test_a_folder_called_jobs_beside_the_operator_is_not_run(
    hard: WrittenCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    store = JobStore(Path("state"))
    job_id = submitted(store)
    runner = JobRunner(store, hard.root)
    runner.step()
    until(lambda: (runner.step(), state_of(store, job_id) in job_store.FINISHED)[1])
    until(lambda: (runner.step(), runner._engine._child is None)[1])
    job = store.job(job_id)
    assert job is not None
    assert job.result is not None, job


def test_a_damaged_queue_is_a_503_and_other_figures_stay(jobs_client: TestClient) -> None:
    for path in store_of(jobs_client).folder.glob("jobs.sqlite*"):
        path.write_bytes(b"no database" * 99)
    answer = jobs_client.get("/api/v1/jobs")
    assert answer.status_code == 503
    assert "the queue of jobs cannot be used" in answer.json()["error"]["message"]
    figures = jobs_client.get("/metrics").text
    assert "eicorpus_snapshot_newest" in figures
    assert "eicorpus_jobs{" not in figures


def test_a_page_of_jobs_has_no_results(jobs_client: TestClient) -> None:
    store = store_of(jobs_client)
    job_id = submitted(store)
    store.finish(job_id, state="succeeded", now_s=2.0, exit_code=0, result='{"a": 1}')
    assert jobs_client.get(f"/api/v1/jobs/{job_id}").json()["result"] == {"a": 1}
    (listed,) = jobs_client.get("/api/v1/jobs").json()["jobs"]
    assert "result" not in listed


def test_a_page_of_jobs_counts_named_episodes(jobs_client: TestClient) -> None:
    uids = [f"episode-{number:05d}" for number in range(10_000)]
    job = {"kind": "manifest", "name": "a", "uids": uids}
    assert jobs_client.post("/api/v1/jobs", json={"key": "m", "job": job}).status_code == 201
    answer = jobs_client.get("/api/v1/jobs")
    (listed,) = answer.json()["jobs"]
    assert (listed["request"]["uids"], listed["request"]["name"]) == (10_000, "a")
    assert len(answer.content) < 1000
    assert jobs_client.get(f"/api/v1/jobs/{listed['id']}").json()["request"]["uids"] == uids


def test_options_need_no_raw_data_and_a_damaged_spec_takes_its_own_kinds_alone(
    hard: WrittenCatalog, tmp_path: Path
) -> None:
    spec = write_spec(tmp_path, {"a": "good"})
    shutil.rmtree(tmp_path / "raw")
    runner = JobRunner(JobStore(tmp_path / "state"), hard.root, spec)
    client = client_of(hard.root, tmp_path / "state", builds=False, jobs=runner)
    options = client.get("/api/v1/job-options").json()
    assert "build" in options["kinds"]
    assert "sources.toy" in options["choices"]["targets"]
    spec.write_text("sources: [")
    damaged = client.get("/api/v1/job-options").json()
    assert "build" not in damaged["kinds"]
    assert "tier" in damaged["kinds"]
    assert "corpus.yaml:" in damaged["problem"]


PARTS = """
latents:
  tokens:
    {encoder: a, weights: w, hub_id: o/n, untrained: 0, dtype: fp8, stride: 2, keep_prefix: true, fit: crop,
     cameras: [top], where: "source = 'x'", device: cpu, batch: 4, compile: true}
text_features:
  qwen:
    {vlm: v, layer: -2, frame_every_s: 0.5, prompt: "{text}", camera: top, where: "true", device: cpu, batch: 2}
exports:
  lake: {to: iceberg, warehouse: lake, catalog: c, namespace: n}
"""


def test_stages_of_the_spec_are_jobs_with_its_settings_and_no_other_folders(
    hard: WrittenCatalog, tmp_path: Path
) -> None:
    spec = write_spec(tmp_path, {"a": "good"})
    runner = JobRunner(JobStore(tmp_path / "state"), hard.root, spec)
    runner.corpus = tmp_path / "corpus"  # which the spec names
    client = client_of(hard.root, tmp_path / "state", builds=False, jobs=runner)
    kinds = client.get("/api/v1/job-options").json()["kinds"]
    assert "caption" in kinds
    assert not kinds.keys() & {"latents", "text_features", "export"}  # it declares none
    spec.write_text(spec.read_text() + PARTS)
    options = client.get("/api/v1/job-options").json()
    file = read_spec_alone(spec)
    names = {"latents": "latents", "text_features": "text_features", "export": "exports"}
    for kind, section in names.items():
        (name,) = options["choices"][section]
        assert section in options["kinds"][kind]["properties"]
        answer = client.post(
            "/api/v1/jobs", json={"key": kind, "job": {"kind": kind, section: name}}
        )
        assert answer.status_code == 201, answer.json()
        job = TypeAdapter(JobRequest).validate_python(answer.json()["request"])
        words = job.words(Path("/corpus"), spec)
        part = getattr(file.spec, section)[name]
        chosen = [word for word in words if word.startswith("--")]
        keys = part.own_keys if kind == "export" else set(type(part).model_fields) - {"after"}
        assert len(chosen) == len(keys) + (kind == "export")  # --to
        assert all(f"`{word.partition('=')[0]}" in CLI for word in chosen)
        refused = client.post(
            "/api/v1/jobs", json={"key": "x", "job": {"kind": kind, section: "b"}}
        )
        assert f"the corpus spec has no {section}.b" in refused.json()["error"]["message"]
        assert refused.status_code < 500
    assert f"--weights={tmp_path}/w" in client_words(client, spec, 1)
    assert f"--vlm={tmp_path}/v" in client_words(client, spec, 2)
    assert f"--warehouse={tmp_path}/lake" in client_words(client, spec, 3)


def client_words(client: TestClient, spec: Path, job_id: int) -> list[str]:
    request = client.get(f"/api/v1/jobs/{job_id}").json()["request"]
    return TypeAdapter(JobRequest).validate_python(request).words(Path("/corpus"), spec)


def test_episodes_of_a_manifest_are_no_part_of_the_command_line() -> None:
    uids = [f"episode-{number:05d}" for number in range(10_000)]
    job = TypeAdapter(JobRequest).validate_python({"kind": "manifest", "name": "a", "uids": uids})
    assert sum(map(len, job.words(Path("/corpus"), None))) < 200
    assert job.standard_input().decode().split() == uids


def test_a_job_that_names_what_is_not_there_is_refused(jobs_client: TestClient) -> None:
    for job, message in (
        ({"kind": "tier", "policy": "ei3k"}, "did you mean ei30k?"),
        ({"kind": "measure", "only": ["colums"]}, "did you mean columns?"),
    ):
        answer = jobs_client.post("/api/v1/jobs", json={"key": "x", "job": job})
        assert answer.status_code == 422, answer.json()
        assert message in answer.json()["error"]["message"]
    assert jobs_client.get("/api/v1/jobs").json()["jobs"] == []
