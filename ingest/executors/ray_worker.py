"""What runs in a worker process of Ray: the proof of its node once, then the worker body under its limits."""

from __future__ import annotations

import faulthandler
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from ingest.executors.crash_report import WATCH, heading
from ingest.executors.inline import memory_limit, shortage
from ingest.executors.node_proof import SharedView, difference
from ingest.recipe import Limits
from ingest.storage.local import LocalStorage
from ingest.storage.process_folder import process_folder

Body = Callable[[Any, LocalStorage], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTerms:
    """What all tasks of a run have in common."""

    limits: Limits
    view: SharedView | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RayTask:
    """One task; without a body it only proves the node."""

    work: Any = None
    body: Body | None = None


def packed(value: RunTerms | RayTask) -> bytes:
    """For `run_packed`; in bytes, so that a node that cannot read it can still say why."""
    from ray import cloudpickle

    data: bytes = cloudpickle.dumps(value)
    return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Begins a task; travels to actors, which begin some themselves."""

    remote: Any
    code: str
    common: bytes  # packed Terms

    def __call__(self, work: Any, body: Body | None) -> Any:
        return self.remote.remote(self.code, self.common, packed(RayTask(work=work, body=body)))


def run_packed(common: bytes, payload: bytes, node_id: str) -> tuple[str, Any]:
    """(why this node cannot work or "", what the body made of the work)."""
    from ray import cloudpickle

    terms = _terms(common)
    problem = shortage(terms.limits.memory_limit_mib)
    if not problem and terms.view is not None:
        problem = difference(terms.view, node_id)
    task: RayTask = cloudpickle.loads(payload)
    if problem or task.body is None:
        return problem, None
    return "", _watched(task, terms)


@cache
def _terms(common: bytes) -> RunTerms:
    from ray import cloudpickle

    terms: RunTerms = cloudpickle.loads(common)
    return terms


def _watched(task: RayTask, terms: RunTerms) -> Any:
    """The watchdog is faulthandler's: a C thread, which a stuck decoder cannot hold up. What it writes outlives the process."""
    import ray

    assert task.body is not None
    sink = _sink(terms.view)
    sink.seek(0)
    sink.truncate()
    context = ray.get_runtime_context()
    sink.write(heading(str(context.get_task_id()), context.get_node_id()).encode())
    sink.flush()
    faulthandler.dump_traceback_later(terms.limits.time_limit_s, exit=True, file=sink)
    try:
        with memory_limit(terms.limits.memory_limit_mib):
            return task.body(task.work, LocalStorage())
    finally:
        faulthandler.cancel_dump_traceback_later()


@cache
def _sink(view: SharedView | None) -> IO[bytes]:
    """The file of this process in the corpus, where the driver reads it, or asks its node. The signal of a crash goes there, too."""
    import ray

    if view is None:
        return TemporaryFile()
    worker = ray.get_runtime_context().get_worker_id()
    folder = Path(view.folder)
    folder = process_folder(folder) if view.bucket else folder
    file = (folder / f"{WATCH}{worker}").open("w+b")
    faulthandler.enable(file, all_threads=False)
    return file


def entry() -> Callable[[str, bytes, bytes], tuple[str, str, Any]]:
    """What is sent to Ray. It travels by value, because a node without this package must be able to say so."""

    def _on_ray(driver_code: str, common: bytes, payload: bytes) -> tuple[str, str, Any]:
        import ray

        node_id: str = ray.get_runtime_context().get_node_id()
        try:
            from ingest.executors.node_proof import code_id
            from ingest.executors.ray_worker import run_packed
        except ImportError as error:
            return (
                node_id,
                f"eicorpus cannot be imported on this node ({error}); install {driver_code}",
                None,
            )
        if code_id() != driver_code:
            return (
                node_id,
                f"eicorpus {code_id()} is installed on this node; expected {driver_code}",
                None,
            )
        return node_id, *run_packed(common, payload, node_id)

    return _on_ray
