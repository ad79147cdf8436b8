"""Is what a power cut left of a corpus what the project promises: before the rerun of the command, and after it?"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ingest.corpus import snapshot
from ingest.corpus.lerobot_meta import LINES_KEY, SIDECAR
from ingest.corpus.manifest_folders import manifest_names
from ingest.corpus.snapshot_list import named_parts
from ingest.storage.local import LocalStorage
from ingest.verify.catalog import latest_snapshot, part_findings
from ingest.verify.corpus import verify
from ingest.verify.finding import CheckCode
from schemas import manifest
from schemas.catalog import TABLES
from schemas.errors import ConfigError
from tests.faults.call_sites import CallSite, asked_at
from tests.faults.journal import Event, Journal, journal_of, unwatched
from tests.faults.power import KEPT, Disk, Fate, Tree, materialise
from tests.faults.runs import tree
from tests.faults.writers import WRITERS, Writer, do, ended

# Columns that tell when and by which run, which a rerun rightly changes.
OF_A_RUN = {"run_id", "snapshot", "attempts", "erased_at"}
OF_MANY_PARTS = (
    "compact",
    "gc",
    "gc_parts",
    "forget",
)  # commands that decide about parts and snapshots


def end_of(corpus: Path, name: str) -> dict[str, Any]:
    """What an undisturbed run and a disturbed one must agree in."""
    current = snapshot.load(corpus)
    end: dict[str, Any] = {"datasets": tree(corpus / "datasets")}
    for table in TABLES:
        if table != "runs":
            rows = current.read(corpus, table).to_pylist()
            kept = [{k: v for k, v in row.items() if k not in OF_A_RUN} for row in rows]
            end[table] = sorted(map(repr, kept))
    # A rerun looks again at what was quarantined, and says again what it found.
    end["verdicts"] = sorted(set(end["verdicts"]))
    manifests = tree(corpus / "manifests")
    end["manifests"] = {k: v for k, v in manifests.items() if k[0] not in "._"}
    if name != "ingest":  # which lists the rerun too
        end["lists"] = {folder: tree(corpus / folder) for folder in ("ledger", "quarantine")}
    if name in OF_MANY_PARTS:
        end["parts"] = {table: len(current.parts(table)) for table in TABLES}
    if name in ("gc", "gc_parts"):
        end["snapshots"] = len(snapshot.numbers(corpus))
    end["left over"] = sorted(
        path
        for path in tree(corpus)
        if path.startswith("staging/") or path.endswith(".part") or path == ".unfinished"
        if not path.startswith("manifests/_cache/")  # swept by the next build that makes something
    )
    return end


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One undisturbed run of a command, and where it ended."""

    name: str
    writer: Writer
    journal: Journal
    home: Path
    argv: list[str]
    end: dict[str, Any]
    unseen: list[str]  # files that are not as all events together make them


@contextmanager
def _acknowledging(journal: Journal) -> Iterator[None]:
    real, real_dir = LocalStorage.put_if_absent, LocalStorage.put_dir_if_absent

    def publish(self: LocalStorage, path: Path, data: bytes) -> bool:
        is_mine = real(self, path, data)
        journal.note(str(path.relative_to(journal.home)))
        return is_mine

    def publish_dir(self: LocalStorage, path: Path, files: Any) -> bool:
        is_mine = real_dir(self, path, files)
        journal.note(str(path.relative_to(journal.home)))
        return is_mine

    with patch.object(LocalStorage, "put_if_absent", publish), patch.object(LocalStorage, "put_dir_if_absent", publish_dir):  # fmt: skip
        yield


def recorded(
    name: str, home: Path, asked: Callable[[CallSite], bool] = lambda site: False
) -> Recorded:
    """Prepare a corpus in `home` and run the command on it, watched; without the synchronising calls that `asked` answers with True."""
    writer = WRITERS[name]
    home.mkdir(parents=True)
    with unwatched():
        writer.prepare(home)
    argv = writer.argv(home)

    def is_left_out(site: CallSite) -> bool:
        is_out = asked(site)
        if is_out:
            journal.events.append(Event(what="left_out", name=str(site)))
        return is_out

    with journal_of(home) as journal, _acknowledging(journal), asked_at(is_left_out):
        do(argv)
    assert verify(home / "corpus") == []
    unseen = _unseen(journal, home.with_name("again"))
    end = end_of(home / "corpus", name)
    home.rename(home.with_name("recorded"))  # corpora know where their raw data is
    return Recorded(
        name=name, writer=writer, journal=journal, home=home, argv=argv, end=end, unseen=unseen
    )


@dataclass(frozen=True, kw_only=True)
class Violation:
    command: str
    cut: int
    fate: str
    found: str


def cuts(
    run: Recorded,
    fates: Callable[[Disk, int], Iterator[Fate]],
    *,
    at: Callable[[int], bool] = lambda cut: True,
    stops_at_first: bool = False,
) -> tuple[int, list[Violation]]:
    """Cut the power after each event that `at` chooses, in all `fates` of it; how many different states there were, and what was wrong."""
    disk, seen, wrong = Disk(run.journal), set[str](), list[Violation]()
    events = run.journal.events
    for cut in range(len(events) + 1):
        is_over = cut == len(events)
        for fate in fates(disk, cut) if at(cut) or is_over else ():
            left = disk.cut(fate)
            if (key := _digest_of(left, is_over, disk)) in seen:
                continue
            seen.add(key)
            for found in _wrong(run, left, disk.acknowledged, is_over=is_over):
                wrong.append(Violation(command=run.name, cut=cut, fate=fate.name, found=found))
                if stops_at_first:
                    return len(seen), wrong
        if not is_over:
            disk.do(events[cut])
    return len(seen), wrong


def _digest_of(left: Tree, is_over: bool, disk: Disk) -> str:
    digest = hashlib.sha256(repr((is_over, disk.acknowledged[-1:])).encode())
    for path, data in sorted(left.items()):
        digest.update(f"{path}\0{len(data) if data is not None else -1}\0".encode())
        digest.update(data or b"")
    return digest.hexdigest()


def _wrong(run: Recorded, left: Tree, acknowledged: list[str], *, is_over: bool) -> list[str]:
    """What is not as promised of a state; empty when all is well."""
    shutil.rmtree(run.home, ignore_errors=True)
    materialise(left, run.home)
    corpus = run.home / "corpus"
    with unwatched():
        found = list(_before(corpus, acknowledged))
        if is_over:
            return found + _after(corpus, run, "before the rerun: ")
        if said := ended(run.argv):
            return [*found, f"the rerun of {said}"]
        return found + _after(corpus, run, "")


def _before(corpus: Path, acknowledged: list[str]) -> Iterator[str]:
    """Promises that need no rerun: what was acknowledged is there, a snapshot names what is there, a manifest is whole, `meta/` is
    vouched for truly."""
    for path in acknowledged[-1:]:
        if not (corpus.parent / path).exists():
            yield f"{path} was acknowledged and is lost"
    yield from _lost_parts(corpus)
    if snapshot.numbers(corpus):
        current, problems = latest_snapshot(corpus)
        with ThreadPoolExecutor(1) as pool:
            problems += part_findings(corpus, current, pool) if current is not None else []
        yield from (f"{f.path}: {f.message}" for f in problems if f.check is not CheckCode.CATALOG_EXTRA)  # fmt: skip
    newest = (corpus / manifest.FOLDER).glob(f"*/{manifest.NEWEST_FILE}")
    for name in [*manifest_names(corpus), *(path.parent.name for path in newest)]:
        try:
            manifest.load(corpus / manifest.FOLDER / name)
        except ConfigError as error:
            yield f"manifest {name}: {error}"
    for own in corpus.glob(f"datasets/*/*/meta/{SIDECAR}"):
        try:
            said = json.loads(own.read_bytes())[LINES_KEY]
        except ValueError:
            continue  # torn: it vouches for nothing
        for name, row in said.items():
            path = own.with_name(name)
            data = path.read_bytes()[: row["num_bytes"]] if path.exists() else b""
            if (len(data), hashlib.sha256(data).hexdigest()) != (row["num_bytes"], row["sha256"]):
                yield f"{own}: {name} is not what it vouches for"


def _lost_parts(corpus: Path) -> Iterator[str]:
    """Of every snapshot, not only of the latest."""
    for number in snapshot.numbers(corpus):
        try:
            named = named_parts([snapshot.load(corpus, number)])
        except snapshot.DamagedSnapshot as error:
            yield str(error)
            continue
        lost = [path for path in named if not (corpus / path).exists()]
        yield from (f"snapshot {number} names {path}, which is lost" for path in lost)


def _after(corpus: Path, run: Recorded, when: str) -> list[str]:
    found = [f"{when}{f.check.value} {f.path}: {f.message}" for f in verify(corpus)]
    if found:
        return found
    end = end_of(corpus, run.name)
    if when:  # the mark of a writer, and what is swept by the next one, may still lie there
        end["left over"] = run.end["left over"]
    differing = [key for key, value in run.end.items() if end.get(key) != value]
    return [f"{when}{', '.join(differing)} differ from the undisturbed run"] if differing else []


def telling(run: Recorded) -> set[int]:
    """The moments at which most is at stake, after the first call that is left out: before a synchronising call, and after an acknowledgement."""
    events = run.journal.events
    first = next((i for i, event in enumerate(events) if event.what == "left_out"), 0)
    return {
        i
        for i, event in enumerate(events)
        if i >= first and (event.is_sync or events[i - 1].what == "acknowledged")
    }


def _unseen(journal: Journal, home: Path) -> list[str]:
    disk = Disk(journal)
    for event in journal.events:
        disk.do(event)
    materialise(disk.cut(KEPT), home)
    now, made = tree(journal.home), tree(home)
    shutil.rmtree(home)
    return sorted(path for path in now.keys() | made.keys() if now.get(path) != made.get(path))
