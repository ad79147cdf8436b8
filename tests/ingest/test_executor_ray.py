"""What the driver decides about nodes, with what stands for Ray."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from ingest.executors.crash_report import CrashReport, report_of
from ingest.executors.inline import Placement
from ingest.executors.node_proof import SharedView, nothing_is_doubtful
from ingest.executors.ray import PROBES, RayExecutor
from ingest.executors.ray_autoscaler import AGAIN_S, MOST
from ingest.executors.ray_cluster import ANSWER_S, Cluster, Node
from ingest.executors.ray_run import ahead
from ingest.recipe import Limits
from schemas.errors import Code, ConfigError, TransientError
from schemas.outcome import WorkerFailure
from tests.faults.runs import run
from tests.faults.toy import write_toy

NODES = [Node(id=name, name=name, cpus=1, memory_mib=4000) for name in ("a", "b")]


class Calm:
    """A cluster whose head answers."""

    address = "head:6379"
    is_lost = False

    def __init__(self, nodes: list[Node], drained: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        self.nodes, self.drained, self.is_silent = nodes, drained, False
        self.names = {node.id: node.name for node in nodes}

    def is_drained(self, node_id: str) -> bool:
        return node_id in self.drained

    def watch(self) -> None: ...
    def check(self) -> None: ...
    def close(self) -> None: ...


def executor_on(nodes: list[Node], **limits: Any) -> tuple[RayExecutor, list[str]]:
    said: list[str] = []
    executor = RayExecutor(Limits(**limits), address="auto", workers=None, notify=said.append)
    executor._cluster = Calm(nodes)  # type: ignore[assignment]
    return executor, said


def proving(
    monkeypatch: pytest.MonkeyPatch, executor: RayExecutor, answers: dict[str, Iterator[Any]]
) -> None:
    """Let each node answer its probes in order; an exception is raised."""

    def get(reference: SimpleNamespace) -> Any:
        answer = next(answers[reference.node])
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "wait", lambda waiting, **_: (waiting[:1], waiting[1:]))
    monkeypatch.setattr(executor, "_probe", lambda node: Reference(node.id))
    view = SharedView(folder="/nowhere", nonce="1")
    monkeypatch.setattr("ingest.executors.ray.is_answered", lambda view, node: True)
    executor.share(view, nothing_is_doubtful)


class Reference:
    def __init__(self, node: str) -> None:
        self.node = node


def test_a_probe_that_ray_ends_for_memory_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, said = executor_on(NODES)
    full = ray.exceptions.OutOfMemoryError("full")
    proving(
        monkeypatch,
        executor,
        {"a": iter([full, ("a", "", None)]), "b": iter([full] * PROBES)},
    )
    assert list(executor.excluded) == ["b"]
    assert "its memory is full" in executor.excluded["b"]
    assert "nodes left: 1" in said[0]
    assert executor.selector() == {"ray.io/node-id": "!in(b)"}
    assert executor.slots() == 1


def test_without_a_node_that_proves_itself_there_is_no_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    executor, _ = executor_on(NODES)
    answers = {name: iter([(name, "the corpus is not the driver's", None)]) for name in "ab"}
    with pytest.raises(ConfigError, match="no node is usable: node a: the corpus") as caught:
        proving(monkeypatch, executor, answers)
    assert caught.value.exit_code == 2


def test_a_run_without_nodes_says_so_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """All nodes have left, and none comes: a line soon, a resumable error later."""
    executor, said = executor_on([Node(id="head", name="head", cpus=0, memory_mib=9000)])
    clock = iter([0.0, 19.0, 21.0, 22.0, 301.0])
    monotonic = SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr("ingest.executors.ray.time", monotonic)
    for _ in range(4):
        executor.check()
    assert len(said) == 1
    assert "no node offers a CPU" in said[0]
    with pytest.raises(TransientError, match="to resume"):
        executor.check()


class Dead:
    """A reference whose task ended with `error`."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def task_id(self) -> SimpleNamespace:
        return SimpleNamespace(hex=lambda: "task-1")


SEGFAULT = b'Fatal Python error: Segmentation fault\n\nCurrent thread 0x7 (most recent call first):\n  File "/a/read.py", line 7 in load\n'


def ended(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    error: Exception,
    *,
    watch: bytes,
    waited_s: float = 1.0,
    drained: set[str] | None = None,
    kills_now: int | None = 0,
) -> WorkerFailure:
    """How the executor reports a task that Ray ends with `error`."""
    executor, _ = executor_on(NODES, time_limit_s=12)
    executor._cluster.drained = drained or set()  # type: ignore[union-attr]
    executor._view = SharedView(folder=str(folder), nonce="1")
    monkeypatch.setattr(
        executor, "_oom_kills", lambda node_id: None if kills_now is None else (kills_now, 0, 2)
    )
    (folder / "watch.w1").write_bytes(watch)

    def get(reference: Dead) -> None:
        raise reference.error

    monkeypatch.setattr(ray, "get", get)
    failure = executor.ended(Dead(error), waited_s)
    assert isinstance(failure, WorkerFailure)
    return failure


CRASHED = ray.exceptions.WorkerCrashedError()


@pytest.mark.parametrize(
    ("watch", "waited_s", "code"),
    [
        (b"task-1 a 0,0,2\nTimeout (0:00:12)!\n", 13.0, Code.TIME_LIMIT),
        (b"task-1 a 0,0,2\n", 13.0, Code.WORKER_DIED),  # it crashed after a long wait for a CPU
        (b"task-2 a 0,0,2\nTimeout (0:00:12)!\n", 1.0, Code.WORKER_DIED),
    ],
)
def test_a_crash_after_a_long_wait_is_no_time_limit(
    watch: bytes, waited_s: float, code: Code, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = ended(monkeypatch, tmp_path, CRASHED, watch=watch, waited_s=waited_s)
    assert (failure.code, failure.node_lost) == (code, False)


def test_the_causes_of_a_crash_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray reports one error for the three."""
    signal = ended(
        monkeypatch, tmp_path, CRASHED, watch=b"task-1 a 5,0,2\n" + SEGFAULT, kills_now=6
    )
    assert (signal.code, signal.node) == (Code.WORKER_DIED, "a")
    assert signal.how == "worker process was killed by SIGSEGV at read.py:7 in load"
    kernel = ended(monkeypatch, tmp_path, CRASHED, watch=b"task-1 a 5,0,2\n", kills_now=6)
    assert kernel.code is Code.OOM_KILLED
    killed = ended(monkeypatch, tmp_path, CRASHED, watch=b"task-1 a 5,0,2\n", kills_now=5)
    assert (killed.code, "no kill for memory" in killed.how) == (Code.WORKER_DIED, True)
    silent = ended(monkeypatch, tmp_path, CRASHED, watch=b"task-1 a 5,0,2\n", kills_now=None)
    assert (silent.code, "does not answer" in silent.how) == (Code.WORKER_DIED, True)


NODE = "ab" * 28


def counting(
    monkeypatch: pytest.MonkeyPatch, answers: list[tuple[int, ...] | None]
) -> tuple[RayExecutor, list[str], SimpleNamespace]:
    """An executor whose nodes answer in this order, None: not in time; what was done; and the clock."""
    executor, _ = executor_on(NODES)
    done: list[str] = []
    clock = SimpleNamespace(now_s=100.0)

    def wait(tasks: list[str], num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        assert (num_returns, timeout <= 2) == (len(tasks), True)
        done.append("asked")
        if answers[0] is not None:
            return tasks, []
        answers.pop(0)
        clock.now_s += timeout
        return [], tasks

    monkeypatch.setattr(executor, "submission", lambda **options: lambda work, body: "task")
    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "get", lambda task: (NODE, "", answers.pop(0)))
    monkeypatch.setattr(ray, "cancel", lambda task, force: done.append("cancelled"))
    monkeypatch.setattr("ingest.executors.ray.time", SimpleNamespace(monotonic=lambda: clock.now_s))
    return executor, done, clock


def test_a_node_that_does_not_answer_is_asked_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hundred workers may end with one node, and the driver waits for each."""
    executor, done, clock = counting(monkeypatch, [None, (1, 0, 0)])
    report = CrashReport(node_id=NODE, oom_kills=(0, 0, 0))
    assert [executor._oom_kills(report) for _ in range(100)] == [None] * 100
    assert done == ["asked", "cancelled"]
    clock.now_s += 1.0
    assert executor._oom_kills(report) == (1, 0, 0)
    assert [executor._oom_kills(report) for _ in range(100)] == [(1, 0, 0)] * 100
    assert done == ["asked", "cancelled", "asked"]


def test_counters_that_are_older_than_a_kill_are_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    executor, done, _ = counting(monkeypatch, [(1, 0, 0), (2, 0, 0)])
    assert executor._oom_kills(CrashReport(node_id=NODE, oom_kills=(1, 0, 0))) == (1, 0, 0)
    assert executor._oom_kills(CrashReport(node_id=NODE, oom_kills=(1, 0, 0))) == (2, 0, 0)
    assert done == ["asked", "asked"]


def test_the_last_words_of_a_process_are_asked_of_the_nodes_where_no_folder_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes, each with a disk of its own; Ray does not say on which one the process ended."""
    executor, _ = executor_on(NODES)
    disks = iter(("a", "b"))
    for name in ("a", "b"):
        (tmp_path / name / ".process.1").mkdir(parents=True)
    (tmp_path / "b/.process.1/watch.w1").write_bytes(b"task-1 b 5,0,2\n" + SEGFAULT)
    executor._view = SharedView(folder=str(tmp_path / "driver"), nonce="1", bucket="s3://b/c")
    nodes = [SimpleNamespace(id=digits * 28) for digits in ("ab", "cd")]
    monkeypatch.setattr(executor, "nodes", lambda: nodes)

    def on_a_node(view: SharedView, task_id: str, work: None, disk: Any) -> CrashReport | None:
        return report_of(replace(view, folder=str(tmp_path / next(disks))), task_id)

    monkeypatch.setattr("ingest.executors.ray._report_here", on_a_node)
    monkeypatch.setattr(
        executor, "submission", lambda **options: lambda work, body: body(work, None)
    )
    monkeypatch.setattr(ray, "wait", lambda tasks, **_: (tasks, []))
    monkeypatch.setattr(ray, "get", lambda answer: (NODE, "", answer))
    report = executor._asked_report(Dead(CRASHED))
    assert report is not None
    assert (report.node_id, report.crash) == ("b", "SIGSEGV at read.py:7 in load")


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The head of a cluster: `answers` before it says more, `drained` is what it says; and the threads that asked."""
    head = SimpleNamespace(answers=threading.Event(), drained=set(), threads=[])

    def look(cluster: Cluster) -> None:
        head.threads.append(threading.current_thread())
        head.answers.wait(60)
        cluster.drained |= head.drained

    context = SimpleNamespace(gcs_address="head:6379")
    monkeypatch.setattr(ray, "nodes", list)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(Cluster, "_look", look)
    head.cluster = Cluster()
    head.cluster.watch()
    yield head
    head.answers.set()
    head.cluster.close()


def test_a_head_that_does_not_answer_holds_the_driver_up_once(
    head: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float | None] = []
    wait_for = threading.Condition.wait_for

    def recorded(self: Any, predicate: Any, timeout: float | None = None) -> bool:
        waited.append(timeout)
        return wait_for(self, predicate, 0.1)

    monkeypatch.setattr(threading.Condition, "wait_for", recorded)
    assert not any(head.cluster.is_drained("a") for _ in range(100))
    assert waited == [ANSWER_S]
    assert threading.current_thread() not in head.threads


def test_why_a_node_has_gone_is_looked_up_when_it_is_asked(head: SimpleNamespace) -> None:
    head.drained.add("a")
    head.answers.set()
    assert head.cluster.is_drained("a")
    assert not head.cluster.is_drained("b")
    assert threading.current_thread() not in head.threads


def test_the_memory_monitor_of_ray_is_not_the_limit_of_the_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its message begins with where and goes on for a page."""
    full = ray.exceptions.OutOfMemoryError(
        "Task was killed due to the node running low on memory.\nMemory on the node (IP: 1) "
        "where the task was running was 15.21GB / 16.00GB (0.95), which exceeds the threshold"
    )
    failure = ended(monkeypatch, tmp_path, full, watch=b"task-1 b 0,0,2\n")
    assert (failure.code, failure.node, failure.node_lost) == (Code.NODE_MEMORY_FULL, "b", False)
    assert failure.how.endswith("memory of its node was full (15.21GB / 16.00GB used)")


@pytest.mark.parametrize("watch", [b"task-1 b 0,0,2\n", b""], ids=["begun", "not begun"])
def test_a_node_that_was_preempted_is_not_one_that_was_lost(
    watch: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the task has not begun, the node is in the message of Ray."""
    node_id = "b" if watch else NODE
    gone = ray.exceptions.NodeDiedError(
        f"Task failed because the node it was running on is dead or unavailable. Node IP: 1.2.3.4, node ID: {node_id}. "
        "This can happen if the node was preempted, had a hardware failure, or its raylet crashed unexpectedly."
    )
    lost = ended(monkeypatch, tmp_path, gone, watch=watch)
    assert (lost.code, lost.node_lost) == (Code.NODE_LOST, True)
    assert lost.how.endswith(f"node ID: {node_id}")
    preempted = ended(monkeypatch, tmp_path, gone, watch=watch, drained={node_id})
    assert (preempted.code, preempted.node_lost) == (Code.NODE_PREEMPTED, True)


def scaling(monkeypatch: pytest.MonkeyPatch, *, is_autoscaled: bool = True) -> list[list[Any]]:
    """What is requested of the autoscaler, in order."""
    requests: list[list[Any]] = []
    monkeypatch.setattr("ingest.executors.ray_autoscaler.has_autoscaler", lambda: is_autoscaled)
    monkeypatch.setattr("ingest.executors.ray_autoscaler._request", requests.append)
    return requests


def test_the_autoscaler_is_asked_from_the_plan_and_for_less_as_it_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requests = scaling(monkeypatch)
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(
        "ingest.executors.ray_autoscaler.time", SimpleNamespace(monotonic=lambda: clock.now_s)
    )
    executor, _ = executor_on(NODES, memory_limit_mib=1000)
    executor.expect(10)
    executor.check()
    assert requests == [[{"CPU": 1, "memory": 1000 << 20}] * 10]
    for at_s, ended in ((4.0, 9), (20.0, 0), (26.0, 0)):  # not at every look
        for _ in range(ended):
            executor.observe({}, 0.0, 0)
        clock.now_s = at_s
        executor.check()
    assert [len(each) for each in requests] == [10, 1]
    executor.close()
    assert [len(each) for each in requests] == [10, 1, 0]


class Deadly:
    """Every worker process ends without an answer; what is observed goes to `executor`."""

    name = "deadly"
    latest = Placement()

    def __init__(self, executor: RayExecutor) -> None:
        self.observe = executor.observe

    def run(self, next_work: Callable[[], Any], body: Any) -> Iterator[Any]:
        while (work := next_work()) is not None:
            yield work, WorkerFailure(code=Code.WORKER_DIED, how="killed")


def test_an_episode_that_deaths_quarantine_needs_no_room_any_more(tmp_path: Path) -> None:
    executor, _ = executor_on(NODES)
    executor.expect(5)
    raw = write_toy(tmp_path / "raw", dict.fromkeys("abc", "good"))
    deadly: Any = Deadly(executor)
    assert run(raw, tmp_path / "corpus", executor=deadly).quarantined == 3
    assert executor._num_left == 5 - 3  # each died twice


def test_a_request_is_bounded_and_made_only_where_an_autoscaler_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requests = scaling(monkeypatch)
    executor, _ = executor_on(NODES)
    executor.expect(10_000_000)
    executor.check()
    assert [len(each) for each in requests] == [MOST]
    requests.clear()
    scaling(monkeypatch, is_autoscaled=False)
    executor, _ = executor_on(NODES)
    executor.expect(10)
    executor.check()
    executor.close()
    assert requests == []


def test_an_autoscaler_that_starts_with_the_run_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reports for the first time some seconds after its head."""
    requests = scaling(monkeypatch, is_autoscaled=False)
    executor, _ = executor_on(NODES)
    executor.expect(3)
    executor.check()
    monkeypatch.setattr("ingest.executors.ray_autoscaler.has_autoscaler", lambda: True)
    executor._scale._asked_s = -AGAIN_S
    executor.check()
    assert [len(each) for each in requests] == [3]


@pytest.mark.parametrize(
    ("mean_s", "episodes"), [(None, 1), (0.0, 4), (0.5, 4), (1.0, 2), (2.0, 1), (1800.0, 1)]
)
def test_two_seconds_of_work_wait_at_each_slot(mean_s: float | None, episodes: int) -> None:
    assert ahead(mean_s) == episodes
