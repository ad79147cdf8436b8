"""What the driver decides about nodes, with what stands for Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from ingest.executors.node_proof import SharedView, nothing_is_doubtful
from ingest.executors.ray import PROBES, RayExecutor
from ingest.executors.ray_cluster import Node
from ingest.recipe import Limits
from schemas.errors import Code, ConfigError, TransientError
from schemas.outcome import WorkerFailure

NODES = [Node(id=name, name=name, cpus=1, memory_mib=4000) for name in ("a", "b")]


class Calm:
    """A cluster whose head answers."""

    address = "head:6379"
    is_lost = False

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

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


@pytest.mark.parametrize(
    ("watch", "waited_s", "code"),
    [
        (b"task-1\nTimeout (0:00:12)!\n", 13.0, Code.TIME_LIMIT),
        (b"task-1\n", 13.0, Code.WORKER_DIED),  # it crashed after a long wait for a CPU
        (b"task-2\nTimeout (0:00:12)!\n", 1.0, Code.WORKER_DIED),
    ],
)
def test_a_crash_after_a_long_wait_is_no_time_limit(
    watch: bytes, waited_s: float, code: Code, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, _ = executor_on(NODES, time_limit_s=12)
    executor._view = SharedView(folder=str(tmp_path), nonce="1")
    (tmp_path / "watch.w1").write_bytes(watch)
    error = ray.exceptions.WorkerCrashedError()

    def get(reference: Dead) -> None:
        raise reference.error

    monkeypatch.setattr(ray, "get", get)
    found = executor.ended(Dead(error), waited_s)
    assert isinstance(found, WorkerFailure)
    assert (found.code, found.node_lost) == (code, False)
