"""Runs the worker body on Ray: Core tasks with a bounded window; no retries of Ray's own, the ledger counts attempts.

A node works only after it has proven that it sees what the driver sees (`ingest/executors/node_proof.py`). A node that does not is excluded;
its work goes to another node and counts as no attempt. What a node calls absent although the driver saw it is read once more by the driver.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from ingest.executors.crash_report import CrashReport, is_more, oom_kills, report_of
from ingest.executors.inline import Placement
from ingest.executors.local import OOM_KILLED_HOW
from ingest.executors.node_proof import SharedView, code_id, is_answered, nothing_is_doubtful
from ingest.executors.ray_autoscaler import ScaleRequest
from ingest.executors.ray_cluster import MIB, Cluster, Node, Offer, connect, offer_of
from ingest.executors.ray_run import TURN_S, Run
from ingest.executors.ray_series import IN_FLIGHT, NODES, OLDEST, WAITING, RaySeries
from ingest.executors.ray_worker import RunTerms, Submit, entry, packed
from ingest.executors.second_look import SecondLook
from ingest.recipe import Limits
from ingest.storage.local import LocalStorage
from schemas.errors import Code, ConfigError, TransientError
from schemas.outcome import WorkerFailure

PROVE_S = (
    120.0  # for a node to prove itself; a first import from a network file system takes a while
)
PROBES = 3  # of a node whose worker process ends while it proves itself
SHOWN_NODES = 3  # of many, in one message
COUNT_S = 2.0  # for a node to answer how often its kernel has killed for memory
REPORT_S = 30.0  # for all nodes to say whether a process ended there
RECENT_S = 1.0  # an answer, or that there was none, holds for the other workers that ended with it
NODE_ID = re.compile(r"\b[0-9a-f]{56}\b")

W = TypeVar("W")
R = TypeVar("R")


class RayExecutor:
    """Ray Core tasks on the nodes that see what the driver sees."""

    name = "ray"
    SAY_S = 20.0  # without a node that can work, until it is said
    WAIT_S = 300.0  # and until the run ends; an autoscaler needs minutes for a node

    def __init__(
        self,
        limits: Limits,
        *,
        address: str | None,
        workers: int | None,
        notify: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.limits, self.address, self.workers, self.notify = limits, address, workers, notify
        self.excluded: dict[str, str] = {}  # node id -> its name and why it gets no work
        self.is_ours = False
        self._cluster: Cluster | None = None
        self._remote: Any = None
        self._offer: Offer | None = None
        self._offered_for: tuple[list[Node], int] = ([], 0)
        self._view: SharedView | None = None
        self._is_doubtful: Callable[[Any, Any], bool] = nothing_is_doubtful
        self._proven: set[str] = set()
        self._idle_since: float | None = None
        self._has_said = False
        self._num_left = 0
        self._scale = ScaleRequest()
        self.latest = Placement()
        self._series: RaySeries | None = None
        self._num_waiting = 0
        self._counted: dict[
            str, tuple[float, tuple[int, ...] | None]
        ] = {}  # node id -> when, kills

    # --- the cluster ---------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Reach the cluster, or start one on this machine.

        Raises:
            ConfigError: nothing answers at the address, or no node can give what an episode asks for.
        """
        if self._cluster is None:
            self.is_ours = connect(self.address, self.workers) or self.is_ours
            self._cluster = Cluster()
            self._series = RaySeries()
        offer = self.offer()
        if not offer.slots and self._lenders():
            self.close()
            raise ConfigError(offer.lack, where="ray")

    def close(self) -> None:
        """Leave the cluster; end it if it is this process's own."""
        import ray

        cluster, self._cluster, self._remote = self._cluster, None, None
        if cluster is None:
            return
        if not cluster.is_lost:
            self._scale.withdraw()
        cluster.close()
        if self.is_ours and not cluster.is_lost:
            ray.shutdown()
            self.is_ours = False

    @property
    def cluster(self) -> Cluster:
        if self._cluster is None:
            self.connect()
        assert self._cluster is not None
        return self._cluster

    def nodes(self) -> list[Node]:
        """Nodes that are alive and not excluded."""
        return [node for node in self.cluster.nodes if node.id not in self.excluded]

    def _lenders(self) -> list[Node]:
        return [node for node in self.nodes() if node.cpus > 0]

    def offer(self) -> Offer:
        """What the nodes can do now; they come and go. The same object until they do."""
        nodes, num_excluded = self.cluster.nodes, len(self.excluded)
        if (
            self._offer is None
            or self._offered_for[0] is not nodes
            or self._offered_for[1] != num_excluded
        ):
            cpus, limit_mib = self.limits.threads_per_episode, self.limits.memory_limit_mib
            self._offer = offer_of(self.nodes(), cpus=cpus, limit_mib=limit_mib)
            self._offered_for = (nodes, num_excluded)
        return self._offer

    def expect(self, num_work: int) -> None:
        """As `node_proof.Distributed`."""
        self._num_left = num_work

    def observe(self, tags: Mapping[str, str], seconds: float, waiting: int) -> None:
        """As `inline.Monitored`. Also an episode that deaths have quarantined has ended, and needs no room."""
        self._num_left = max(self._num_left - 1, 0)
        self._num_waiting = waiting
        if self._series is not None:
            self._series.outcome(tags, seconds)

    def report(self, ages_s: Callable[[], list[float]]) -> None:
        """Series of how full the cluster is, from time to time.

        Args:
            ages_s: of the episodes that are handed out.
        """
        if self._series is None or not self._series.is_due():
            return
        ages = ages_s()
        self._series.report(
            {
                WAITING: self._num_waiting,
                IN_FLIGHT: len(ages),
                OLDEST: max(ages, default=0.0),
                NODES: len(self.excluded),
            }
        )

    @property
    def uploads(self) -> bool:
        """Whether workers hand over in a bucket."""
        return self._view is not None and bool(self._view.bucket)

    def slots(self) -> int:
        """How many episodes the cluster works on at once; it may grow."""
        return self.offer().slots

    def selector(self) -> dict[str, str]:
        """The label selector of Ray that leaves out what is excluded."""
        return (
            {"ray.io/node-id": f"!in({','.join(sorted(self.excluded))})"} if self.excluded else {}
        )

    def check(self) -> None:
        """Look at the cluster, and wait only so long for a node.

        Raises:
            ClusterLost: the head is gone.
            TransientError: no node can work, and none has come for `WAIT_S`.
        """
        self.cluster.check()
        offer, now_s = self.offer(), time.monotonic()
        if not self.cluster.is_silent and self.address is not None:
            self._scale.update(
                self._num_left, {"CPU": offer.cpus, "memory": offer.memory_mib * MIB}
            )
        if offer.slots:
            self._idle_since, self._has_said = None, False
            return
        if self._idle_since is None:
            self._idle_since = now_s
        waited_s = now_s - self._idle_since
        reason = "; ".join(filter(None, [offer.lack, self._reasons()]))
        if waited_s >= self.WAIT_S:
            end = f"no node is usable, and none was added within {self.WAIT_S:g} s: {reason}"
            raise TransientError(end, remedy="add nodes and run the same command again to resume")
        if waited_s >= self.SAY_S and not self._has_said:
            self._has_said = True
            self.notify(f"no node is usable: {reason}; waiting {self.WAIT_S:g} s for one")

    # --- which nodes may work ------------------------------------------------------------------------------------------

    def share(self, view: SharedView, is_doubtful: Callable[[Any, Any], bool]) -> None:
        """As `node_proof.Distributed`."""
        self._view, self._is_doubtful = view, is_doubtful
        self._proven.clear()
        try:
            self.cluster.watch()
            self._await_a_node()
            self._prove()
        except BaseException:
            self.close()
            raise

    def _prove(self) -> None:
        """Probe every node at once; a probe whose process ends is tried again, because a full memory passes."""
        import ray

        waiting = {self._probe(node): node for node in self._lenders()}
        crashes: Counter[str] = Counter()
        until_s = time.monotonic() + PROVE_S
        while waiting and time.monotonic() < until_s:
            self.cluster.check()
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=TURN_S)
            for reference in ready:
                node = waiting.pop(reference)
                problem, has_crashed = self._problem_of(reference)
                crashes[node.id] += has_crashed
                if has_crashed and crashes[node.id] < PROBES:
                    waiting[self._probe(node)] = node
                elif problem:
                    self.exclude(node.id, problem)
        for node in waiting.values():
            self.exclude(node.id, f"has not responded for {PROVE_S:g} s")
        if not self._lenders():
            raise ConfigError(
                f"no node is usable: {self._reasons()}",
                remedy="fix the listed problems or add nodes, then run the same command again",
                where=self.cluster.address,
            )

    def _probe(self, node: Node) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        only_there = NodeAffinitySchedulingStrategy(node.id, soft=False)
        return self.submission(num_cpus=0, scheduling_strategy=only_there)(None, None)

    def _await_a_node(self) -> None:
        while not self.slots():
            self.check()
            time.sleep(TURN_S)

    def _problem_of(self, probe: Any) -> tuple[str, bool]:
        """(why the node of a probe cannot work or "", whether the process of the probe crashed)."""
        import ray

        try:
            node_id, problem, _ = ray.get(probe)
        except ray.exceptions.OutOfMemoryError:
            return "its memory is full: Ray ends worker processes on this node at start-up", True
        except ray.exceptions.WorkerCrashedError as error:
            return f"worker processes end on this node at start-up: {_first_line(error)}", True
        except ray.exceptions.RayError as error:
            return f"no worker process starts on this node: {_first_line(error)}", False
        return problem or self.unanswered(node_id), False

    def _reasons(self) -> str:
        """Why nodes are excluded, the first few of them."""
        reasons = list(self.excluded.values())
        more = [f"and {len(reasons) - SHOWN_NODES} more"] if len(reasons) > SHOWN_NODES else []
        return "; ".join(reasons[:SHOWN_NODES] + more)

    def unanswered(self, node_id: str) -> str:
        """Why a node that reads the corpus is still not proven; "" when it is."""
        if self._view is None or node_id in self._proven:
            return ""
        if is_answered(self._view, node_id):
            self._proven.add(node_id)
            return ""
        place = self._view.bucket or self._view.folder
        return f"what it writes into {place} is not visible to the driver"

    def exclude(self, node_id: str, reason: str) -> None:
        """Give a node no more work in this run."""
        if node_id in self.excluded:
            return
        self.excluded[node_id] = f"node {self.node_name(node_id)}: {reason}"
        left = len(self._lenders())
        self.notify(f"{self.excluded[node_id]}; this node is not used; nodes left: {left}")

    def submission(self, **options: Any) -> Submit:
        """A way to begin tasks, with what an episode needs reserved for it unless `options` say otherwise."""
        import ray

        offer = self.offer()
        options = options or {
            "num_cpus": offer.cpus,
            "memory": offer.memory_mib * MIB,
            "label_selector": self.selector(),
        }
        self._remote = self._remote or ray.remote(max_retries=0)(entry())
        remote = self._remote.options(**options)
        terms = RunTerms(limits=self.limits, view=self._view)
        return Submit(remote=remote, code=code_id(), common=packed(terms))

    # --- work ----------------------------------------------------------------------------------------------------------

    def run(
        self, next_work: Callable[[], W | None], body: Callable[[W, LocalStorage], R]
    ) -> Iterator[tuple[W, R | WorkerFailure]]:
        self.connect()
        try:
            self.cluster.watch()
            with SecondLook(self.limits) as second:
                yield from Run(self, body, second, self._is_doubtful).results(next_work)
        finally:
            self.close()

    def ended(self, reference: Any, waited_s: float) -> Any:
        """(node id, its problem, result) of a task, or the `WorkerFailure` of its process."""
        import ray

        try:
            return ray.get(reference)
        except ray.exceptions.OutOfMemoryError as error:
            how = memory_text(str(error))
            return self._failure(self._report(reference), Code.NODE_MEMORY_FULL, how)
        except ray.exceptions.LocalRayletDiedError as error:
            self.cluster.lose(
                f"or the Ray process of this machine has ended ({_first_line(error)})"
            )
        except ray.exceptions.WorkerCrashedError as error:
            return self._crash(reference, waited_s, _first_line(error))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ConfigError):
                raise error.cause from error
            last = str(error).strip().splitlines()[-1]
            raise ConfigError(
                f"a worker fails on this node: {last}",
                remedy="install the same eicorpus on every node",
                where="ray",
            ) from error
        except (
            ray.exceptions.RayError
        ) as error:  # a lost node, object, raylet or owner: the cluster's trouble
            return self._loss(reference, str(error))

    def _crash(self, reference: Any, waited_s: float, how: str) -> WorkerFailure:
        """Of a process that ended alone: its own report, else the kernel's counter, else only that it was killed."""
        report, limit_s = self._report(reference), self.limits.time_limit_s
        report = report or self._asked_report(reference)
        if waited_s >= limit_s and (report is None or report.is_timed_out):
            limit = f"stopped after the time limit of {limit_s:g} s"
            return self._failure(report, Code.TIME_LIMIT, limit)
        if report is None:
            return self._failure(report, Code.WORKER_DIED, how)
        if report.crash:
            crash = f"worker process was killed by {report.crash}"
            return self._failure(report, Code.WORKER_DIED, crash)
        kills = self._oom_kills(report)
        if kills is not None and is_more(kills, report.oom_kills):
            return self._failure(report, Code.OOM_KILLED, OOM_KILLED_HOW)
        known = "the kernel reports no kill for memory" if kills is not None else "its node does not answer"  # fmt: skip
        ended = f"worker process was killed by SIGKILL or has ended itself ({known})"
        return self._failure(report, Code.WORKER_DIED, ended)

    def _loss(self, reference: Any, text: str) -> WorkerFailure:
        """Of a process whose node or more is gone."""
        report = self._report(reference)
        match = NODE_ID.search(text)
        node_id = report.node_id if report is not None else match[0] if match else ""
        if self.cluster.is_drained(node_id):
            how = "the node was drained or preempted while the episode was processed"
            return self._failure(report, Code.NODE_PREEMPTED, how, node_lost=True)
        how = text.strip().splitlines()[0].partition(". This can happen")[0]
        return self._failure(report, Code.NODE_LOST, how, node_lost=True)

    def _failure(
        self, report: CrashReport | None, code: Code, how: str, *, node_lost: bool = False
    ) -> WorkerFailure:
        node = self.node_name(report.node_id) if report is not None else ""
        return WorkerFailure(code=code, how=how, node_lost=node_lost, node=node)

    def _report(self, reference: Any) -> CrashReport | None:
        return report_of(self._view, reference.task_id().hex())

    def _asked_report(self, reference: Any) -> CrashReport | None:
        """Of a process on another machine, whose files the driver does not see."""
        if self._view is None or not self.uploads:
            return None
        body = partial(_report_here, self._view, reference.task_id().hex())
        # All of them: Ray does not say where a process has ended.
        reports = self._asked([node.id for node in self.nodes()], body, REPORT_S)
        return next((each for each in reports if each is not None), None)

    def _oom_kills(self, report: CrashReport) -> tuple[int, ...] | None:
        """The counters of the kernel of a node after a worker process of it has ended; None where it does not answer."""
        counted_s, kills = self._counted.get(report.node_id, (-RECENT_S, None))
        is_recent = time.monotonic() - counted_s < RECENT_S
        # Counters that have not grown may be older than the end of this process.
        if is_recent and (kills is None or is_more(kills, report.oom_kills)):
            return kills
        kills = self._asked_kills(report.node_id)
        self._counted[report.node_id] = (time.monotonic(), kills)
        return kills

    def _asked_kills(self, node_id: str) -> tuple[int, ...] | None:
        count = next(self._asked([node_id], count_oom_kills, COUNT_S), None)
        return None if count is None else tuple(count)

    def _asked(
        self, node_ids: Iterable[str], body: Callable[[None, LocalStorage], Any], wait_s: float
    ) -> Iterator[Any]:
        """What a body answers on nodes, of those that answer at once, as they do."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        waiting = []
        for node_id in node_ids:
            on_node = NodeAffinitySchedulingStrategy(node_id, soft=False)
            waiting.append(self.submission(num_cpus=0, scheduling_strategy=on_node)(None, body))
        until_s = time.monotonic() + wait_s
        try:
            while waiting and (left_s := until_s - time.monotonic()) > 0:
                ready, waiting = ray.wait(waiting, num_returns=1, timeout=left_s)
                for task in ready:
                    with suppress(ray.exceptions.RayError):
                        _, problem, answer = ray.get(task)
                        if not problem:
                            yield answer
        finally:
            for task in waiting:
                ray.cancel(task, force=True)

    def node_name(self, node_id: str) -> str:
        """Host name, address and id of a node, also of one that is gone."""
        return self.cluster.names.get(node_id, node_id)


def _report_here(
    view: SharedView, task_id: str, work: None, disk: LocalStorage
) -> CrashReport | None:
    """A worker body: what the process of a task has left on this machine."""
    return report_of(view, task_id)


def count_oom_kills(work: None, disk: LocalStorage) -> tuple[int, ...]:
    """A worker body: `oom_kills` of the node that it runs on."""
    return oom_kills()


def memory_text(text: str) -> str:
    """Of the message of Ray's memory monitor: how full the node was."""
    match = re.search(r"was ([\d.]+\w+ / [\d.]+\w+)", text)
    full = f" ({match[1]} used)" if match else ""
    return f"the memory monitor of Ray ended the worker process, because the memory of its node was full{full}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
