"""A store of objects in memory that loses requests and answers, carries requests out late, lists late, and sees to it that commits hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import Code, SourceError, TransientError, UnknownOutcome
from tests.simulation.scheduler import Died, Process, Scheduler

PAGE = 5  # keys of a listing


class Broken(AssertionError):
    """The store holds, or lacks, what it must not: a defect of the protocol."""


@dataclass
class Faults:
    """How often what goes wrong, as shares of requests. All of it ends at `until_s`."""

    lost_request: float = 0.0
    lost_answer: float = 0.0
    late: float = 0.0
    read_error: float = 0.0
    torn_read: float = 0.0
    listing_lag_s: float = 0.0
    slow: float = 0.02  # of ways there and back
    death: float = 0.0
    write_death: float = 0.0  # of writes, beside `death`
    node_loss: float = 0.0  # of deaths
    until_s: float = 300.0


@dataclass
class Object:
    data: bytes
    at_s: float


@dataclass
class Bucket:
    """The objects, and what commits promise of them: `sha256_of` every key that a commit names."""

    scheduler: Scheduler
    faults: Faults
    objects: dict[str, Object] = field(default_factory=dict)
    sha256_of: dict[str, str] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)  # all there were

    def change(self, key: str, data: bytes | None) -> None:
        """Make, replace or delete an object.

        Raises:
            Broken: a commit names the object as it was, or the object is a commit that names what is not there.
        """
        if key in self.sha256_of and (data is None or _sha256(data) != self.sha256_of[key]):
            raise Broken(f"{key} was committed with other bytes than it gets now")
        if data is None:
            self.objects.pop(key, None)
            return
        self.objects[key] = Object(data, self.scheduler.now_s)
        if key.startswith("catalog/_log/"):
            self._promise(json.loads(data))
        elif key.startswith("catalog/_snapshots/"):
            self._promise_state(key)
        elif key.startswith("manifests/") and key.endswith("/manifest.json"):
            state = f"catalog/_log/{json.loads(data)['snapshot']:08d}.json"
            for each in (key, f"{key.rpartition('/')[0]}/manifest.parquet", state):
                self._keep(each)

    def restore(self, objects: dict[str, Object], sha256_of: dict[str, str]) -> None:
        """Back to an earlier state, when nothing is running and no request is under way."""
        for process in self.processes:
            process.is_dead = True
        self.scheduler.due.clear()
        self.objects, self.sha256_of = dict(objects), dict(sha256_of)

    def _promise(self, entry: dict[str, Any]) -> None:
        for table, parts in entry["added"].items():
            for part in parts:
                self._named(part["path"], part["sha256"])
                if table in ("artifacts", "latents"):
                    for row in rows_of(self.objects[part["path"]].data):
                        self._promise_file(row)
        for new in entry["replaced"].values():
            for part in new["parts"]:
                self._named(part["path"], part["sha256"])

    def _promise_file(self, row: dict[str, Any]) -> None:
        if row["sha256"] is None:
            return
        start = row.get("pack_offset")
        if start is None:
            self._named(row["path"], row["sha256"])
            return
        stored = self.objects.get(row["path"])
        data = b"" if stored is None else stored.data[start : start + row["num_bytes"]]
        if _sha256(data) != row["sha256"]:
            raise Broken(f"a commit names a member of {row['path']}, which lacks it")
        self._keep(row["path"])

    def _promise_state(self, key: str) -> None:
        """A whole state: whoever makes one makes the same."""
        self._keep(key)
        for parts in json.loads(self.objects[key].data)["tables"].values():
            for part in parts:
                self._named(part["path"], part["sha256"])

    def _keep(self, key: str) -> None:
        if key not in self.objects:
            raise Broken(f"{key} is missing, and a manifest needs it")
        self.sha256_of[key] = _sha256(self.objects[key].data)

    def _named(self, key: str, sha256: str) -> None:
        stored = self.objects.get(key)
        if stored is None or _sha256(stored.data) != sha256:
            raise Broken(
                f"a commit names {key}, which {'is missing' if stored is None else 'has other bytes'}"
            )
        self.sha256_of[key] = sha256


def rows_of(data: bytes) -> list[dict[str, Any]]:
    """The rows of a catalog file."""
    return list(pq.read_table(pa.BufferReader(data)).to_pylist())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class SimStore:
    """The bucket as one process sees it."""

    def __init__(self, bucket: Bucket, process: Process) -> None:
        self.bucket, self.process = bucket, process
        bucket.processes.append(process)
        self.scheduler = bucket.scheduler

    # --- requests -----------------------------------------------------------------------------------------------------

    def get(self, key: str, *, max_bytes: int) -> bytes:
        stored = self._read(lambda: self.bucket.objects.get(key))
        if stored is None:
            raise SourceError(Code.MISSING_FILE, "no such object", where=key)
        if len(stored.data) > max_bytes:
            raise SourceError(Code.TOO_LARGE, "too large", where=key)
        return bytes(stored.data)

    def get_file(self, key: str, path: Path, *, max_bytes: int | None = None) -> str:
        data = self.get(key, max_bytes=1 << 30 if max_bytes is None else max_bytes)
        if self._happens(self.bucket.faults.torn_read):
            data = data[: len(data) // 2]
        path.write_bytes(data)
        return _sha256(data)

    def size(self, key: str) -> int | None:
        stored = self._read(lambda: self.bucket.objects.get(key))
        return None if stored is None else len(stored.data)

    def list(self, prefix: str, *, after: str | None = None) -> Sequence[str]:
        lag_s = self.scheduler.random.uniform(0, self.bucket.faults.listing_lag_s)
        if self.scheduler.now_s > self.bucket.faults.until_s:
            lag_s = 0.0

        def listed() -> list[str]:
            seen_s = self.scheduler.now_s - lag_s
            folder = f"{prefix}/" if prefix else ""
            return sorted(
                key
                for key, each in self.bucket.objects.items()
                if key.startswith(folder) and each.at_s <= seen_s and key > (after or "")
            )

        return self._read(listed)

    def entries(self, prefix: str) -> Iterator[dict[str, Any]]:
        """A page at a time, each as the store is when it is asked for it."""
        last = f"{prefix}/"

        def page() -> list[tuple[str, Object]]:
            after = [
                key for key in self.bucket.objects if key > last and key.startswith(f"{prefix}/")
            ]
            return [(key, self.bucket.objects[key]) for key in sorted(after)[:PAGE]]

        while found := self._read(page):
            for key, each in found:
                yield {"key": key, "size": len(each.data), "modified_s": each.at_s}
            last = found[-1][0]

    def put(self, key: str, data: bytes, *, is_durable: bool = False) -> None:
        try:
            self._write(lambda: self.bucket.change(key, data))
        except UnknownOutcome as error:
            raise TransientError("no answer", where=key) from error

    def put_file(self, key: str, path: Path) -> None:
        self.put(key, path.read_bytes())

    def create(self, key: str, data: bytes) -> bool:
        def effect() -> bool:
            if key in self.bucket.objects:
                return False
            self.bucket.change(key, data)
            return True

        return bool(self._write(effect))

    def create_copy(self, source_key: str, target_key: str) -> bool:
        def effect() -> bool:
            source = self.bucket.objects.get(source_key)
            if source is None:
                raise SourceError(Code.MISSING_FILE, "no such object", where=source_key)
            if target_key in self.bucket.objects:
                return False
            self.bucket.change(target_key, source.data)
            return True

        return bool(self._write(effect))

    def sha256(self, key: str) -> str:
        return _sha256(self.get(key, max_bytes=1 << 30))

    def delete_all(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.delete(key)

    def delete(self, key: str) -> None:
        try:
            self._write(lambda: self.bucket.change(key, None))
        except UnknownOutcome as error:
            raise TransientError("no answer", where=key) from error

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    def _happens(self, share: float) -> bool:
        is_over = self.scheduler.now_s > self.bucket.faults.until_s
        return not is_over and self.scheduler.random.random() < share

    def _on_the_way(self) -> None:
        random = self.scheduler.random
        self.scheduler.sleep(
            random.uniform(1, 30)
            if random.random() < self.bucket.faults.slow
            else random.expovariate(20)
        )
        if self.process.is_dead:
            raise Died(self.process.name)

    def _may_die(self) -> None:
        if self.process.is_dead or self._happens(self.bucket.faults.death):
            self.process.is_dead = True
            raise Died(self.process.name)

    def _read(self, look: Callable[[], Any]) -> Any:
        self._may_die()
        self._on_the_way()
        seen = look()
        self._on_the_way()
        if self._happens(self.bucket.faults.read_error):
            raise TransientError("the store does not answer")
        return seen

    def _write(self, effect: Callable[[], Any]) -> Any:
        faults = self.bucket.faults
        if self.process.is_dead:
            raise Died(self.process.name)
        if self._happens(
            faults.death + faults.write_death
        ):  # the request may be on its way already
            self.process.is_dead = True
            if self._happens(0.5):
                self._send_late(effect)
            raise Died(self.process.name)
        if self._happens(faults.late):
            self._send_late(effect)
            self._on_the_way()
            raise UnknownOutcome("no answer")
        self._on_the_way()
        if self._happens(faults.lost_request):
            raise UnknownOutcome("no answer")
        done = effect()
        self._on_the_way()
        self._may_die()
        if self._happens(faults.lost_answer):
            raise UnknownOutcome("no answer")
        return done

    def _send_late(self, effect: Callable[[], Any]) -> None:
        def unheard() -> None:
            with suppress(SourceError):  # nobody waits for the answer
                effect()

        self.scheduler.later(self.scheduler.random.uniform(0.01, 60), unheard)
