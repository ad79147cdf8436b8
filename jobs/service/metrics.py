"""What `/metrics` tells Prometheus. Names of files, episodes and tokens are in none of it; a path is the pattern of its route."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.command_table import COMMANDS
from jobs.service.errors import answer_of, busy
from jobs.service.job_store import STATES, JobStore
from jobs.service.keeper import Keeper
from jobs.service.roles import API
from jobs.service.snapshot_cache import SnapshotCache
from schemas.errors import TransientError
from schemas.json_text import parse_json

MAX_IN_FLIGHT = 512
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_RUNS = """SELECT command, epoch(finished_at) AS finished, epoch(finished_at) - epoch(started_at) AS seconds,
    coalesce(committed, 0) + coalesce(filtered, 0) + coalesce(quarantined, 0) + coalesce(failed, 0) AS episodes
    FROM runs WHERE started_at IS NOT NULL AND finished_at IS NOT NULL ORDER BY finished_at, run_id"""
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0)


class ServiceMetrics:
    """The counters of one server."""

    def __init__(self, keeper: Keeper, jobs: JobStore | None = None) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "eicorpus_http_requests_total",
            "Requests by route, method and status.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.latency = Histogram(
            "eicorpus_http_request_seconds",
            "Seconds to the first byte of an answer, by route.",
            ["route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.decode_wait = Histogram(
            "eicorpus_decode_wait_seconds",
            "Seconds that a picture waited for a place among those being decoded.",
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "eicorpus_http_requests_in_flight", "Requests being answered.", registry=self.registry
        )
        self.corpus = _Corpus(keeper)
        self.registry.register(self.corpus)
        if jobs is not None:
            self.registry.register(_Jobs(jobs))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Corpus(Collector):
    """Figures of the snapshot that is served, read when they are asked for."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._stale: tuple[SnapshotCache, dict[str, int]] | None = None

    def note_stale(self, cache: SnapshotCache, counts: dict[str, int]) -> None:
        """What `/stale` has counted. A scrape counts nothing itself: that reads every measurement."""
        self._stale = cache, counts

    def collect(self) -> Iterator[Metric]:
        state = self._keeper.state
        yield GaugeMetricFamily(
            "eicorpus_snapshot_newest", "Newest snapshot of the corpus.", value=state.newest
        )
        serving = state.held[0].cache.snapshot if state.held else 0
        yield GaugeMetricFamily("eicorpus_snapshot_served", "Snapshot served.", value=serving)
        yield GaugeMetricFamily(
            "eicorpus_cache_building", "1 while a cache is built.", value=float(state.is_building)
        )
        yield GaugeMetricFamily(
            "eicorpus_cache_failed",
            "1 after a cache could not be built.",
            value=float(bool(state.problem)),
        )
        if not state.held:
            return
        cache, stamp = state.held[0].cache, state.held[0].stamp
        if stamp is not None:
            yield GaugeMetricFamily(
                "eicorpus_snapshot_published_timestamp_seconds",
                "When the snapshot served was published.",
                value=stamp[-1] / 1e9,
            )
        if self._stale is not None and self._stale[0] is cache:
            stale = GaugeMetricFamily(
                "eicorpus_stale",
                "What is out of date in the snapshot served, by kind, as /stale has last counted it.",
                labels=["kind"],
            )
            for kind, count in sorted(self._stale[1].items()):
                stale.add_metric([kind], count)
            yield stale
        episodes = GaugeMetricFamily(
            "eicorpus_episodes", "Episodes by outcome and code.", labels=["state", "code"]
        )
        counts: dict[tuple[str, str], int] = {}
        for row in cache.outcomes:
            key = (row["state"] or "", row["code"] or "")
            counts[key] = counts.get(key, 0) + row["episodes"]
        for (outcome, code), count in sorted(counts.items()):
            episodes.add_metric([outcome, code], count)
        yield episodes
        yield GaugeMetricFamily(
            "eicorpus_hours", "Hours of committed episodes.", value=float(cache.hours.sum())
        )
        yield from _stages(cache.ask(_RUNS))


def _stages(runs: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
    """The latest finished run of each command. A run stores its whole command line, which has paths: only a known command name is shown."""
    rate = GaugeMetricFamily(
        "eicorpus_stage_episodes_per_second",
        "Episodes per second of the latest finished run, by command.",
        labels=["stage"],
    )
    finished = GaugeMetricFamily(
        "eicorpus_stage_finished_timestamp_seconds",
        "When the latest run ended, by command.",
        labels=["stage"],
    )
    latest = {stage_of(run["command"] or ""): run for run in runs}
    for stage, run in sorted(latest.items()):
        rate.add_metric([stage], run["episodes"] / run["seconds"] if run["seconds"] > 0 else 0.0)
        finished.add_metric([stage], run["finished"])
    yield rate
    yield finished


def stage_of(command: str) -> str:
    """`eicorpus ingest oxe PATH` -> `ingest`."""
    words = command.split(maxsplit=2)
    return words[1] if len(words) > 1 and words[1] in COMMANDS else "other"


class _Jobs(Collector):
    """The queue, read when it is asked for."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        try:
            counts, _ = self._store.counts()
            last, waits = self._store.last_seconds(), dict(self._waits())
        except TransientError:  # the other figures are still true
            return
        jobs = GaugeMetricFamily("eicorpus_jobs", "Jobs kept, by state.", labels=["state"])
        for state in STATES:
            jobs.add_metric([state], counts.get(state, 0))
        yield jobs
        seconds = GaugeMetricFamily(
            "eicorpus_job_last_seconds",
            "Seconds of the last job of each kind that succeeded.",
            labels=["kind"],
        )
        for kind, last_s in sorted(last.items()):
            seconds.add_metric([kind], last_s)
        yield seconds
        wait = GaugeMetricFamily(
            "eicorpus_encoder_wait_share",
            "Share of the time of encoders in which they waited, in the last job `latents`, by what for.",
            labels=["waits_for"],
        )
        for name, share in waits.items():
            wait.add_metric([name], share)
        if wait.samples:
            yield wait

    def _waits(self) -> Iterator[tuple[str, float]]:
        text = self._store.last_result("latents")
        result = parse_json(text)["result"] if text else {}
        for name, key in (("images", "decode_wait_share"), ("disk", "write_wait_share")):
            if key in result:
                yield name, result[key]


class RequestMeter:
    """The ASGI layer that counts, and that refuses what is more than the server can hold."""

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics) -> None:
        self._app, self._metrics = app, metrics
        self._lock, self._in_flight = threading.Lock(), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._metrics.latency.labels(_route(scope)).observe(time.perf_counter() - started)
            await send(message)

        with self._lock:
            self._in_flight += 1
            is_full = self._in_flight > MAX_IN_FLIGHT
        self._metrics.in_flight.inc()
        try:
            if is_full:
                refusal = answer_of(busy("too many requests at a time"))
                await refusal(scope, receive, send_counted)
            else:
                await self._app(scope, receive, send_counted)
        finally:
            with self._lock:
                self._in_flight -= 1
            self._metrics.in_flight.dec()
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(_route(scope), method, str(status)).inc()


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


def _route(scope: Scope) -> str:
    """The pattern, so that a scan of a million paths is one series. A route of the API does not know its prefix."""
    own = getattr(scope.get("route"), "path", None)
    if own is None:
        return "other"
    return f"{API}{own}" if scope["path"].startswith(f"{API}/") and not own.startswith(API) else own
