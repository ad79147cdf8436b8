"""A corpus with something in every room, a world beside it that must not change, and every way to make the one lead to the other, or to
something larger than any machine.

Scenarios come from the corpus that the code writes: every path in it, every field of every JSON document, every column of every part. A
new room, field or column joins by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from typer.testing import CliRunner

from ingest.corpus.layout import CorpusLayout
from ingest.corpus.reviews import submit
from ingest.corpus.writer import writing
from ingest.curation.reviews.files import as_file
from ingest.maintenance.erase import forget
from ingest.storage.local import LocalStorage
from jobs.cli import app
from schemas.manifest import FACTS_FILE, PAGE_DIGEST, page_sha256, rows_sha256
from tests.curation.lifecycle_corpus import build, publish_manifest, uids
from tests.faults.toy import write_toy
from tests.ingest.test_reviews import review

POLICY = """
policy: lenient
version: 1
about: Everything that is there.
segments:
  min_length_s: 0.1
  origin: the toy's episodes are short
  edges: [{segments: valid_run}]
rules:
  - {code: nothing, tier: excluded, text: no time at all, when: {fact: segment_s, below: 0.01, origin: any}}
otherwise: {code: fine, tier: high, text: the rest}
"""
TRAINED_AS = "--recipe tiny --steps 1 --device cpu --set run.batch_size=8"
DEEP = 1200  # folders in each other
SPARSE_BYTES = 300 * 10**9
BOMB_ROWS = 2_000_000
SECRET = b"private-0d9f1c7be2"
EPISODES = {"a": "good", "b": "quarantine", "c": "good", "e": "good"}
AT = datetime(2026, 2, 3, tzinfo=UTC)


class StoppedError(Exception):
    """In the middle of an erasure."""


class Stopping(LocalStorage):
    def hard_link_or_copy(self, source: Path, target: Path) -> None:
        raise StoppedError


SPEC = """\
version: 1
sources:
  toy: {path: raw, adapter: "tests.faults.toy:Toy", limits: {max_quarantined_ratio: 1.0}}
measures: {}
tiers: {policy: lenient.yaml}
"""


@dataclass(frozen=True)
class World:
    """`corpus`; `victim`, a whole copy of it with secrets beside it; `raw` data with an episode that is not ingested; a `run` trained from it."""

    root: Path

    @property
    def raw(self) -> Path:
        return self.root / "raw"

    @property
    def corpus(self) -> Path:
        return self.root / "corpus"

    @property
    def spec(self) -> Path:
        """Declares `corpus`."""
        return self.root / "corpus.yaml"

    @property
    def reviews(self) -> Path:
        """A file for `review import`."""
        return self.root / "reviews.csv"

    @property
    def sound(self) -> Path:
        """The corpus as it was."""
        return self.root / "sound"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def out(self) -> Path:
        """A folder that a command makes; beside it may lie `out.html`."""
        return self.root / "out"

    @property
    def bombs(self) -> Path:
        """Each bomb that was written once."""
        return self.root / "bombs"

    @property
    def victim(self) -> Path:
        return self.root / "victim"


def make_world(root: Path) -> World:
    """Curated by the commands themselves; one episode is erased whole, the erasure of another was stopped after its commit."""
    world = World(root)
    corpus = build(root, EPISODES)
    publish_manifest(corpus)
    policy = root / "lenient.yaml"
    policy.write_text(POLICY)
    for words in (
        ["measure", str(corpus), "--workers", "0"],
        ["tier", str(corpus), "--policy", str(policy)],
        ["dedup", str(corpus)],
        ["caption", str(corpus)],
        ["manifest", "build", str(corpus), "built", "--workers", "0"],
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (words, done.output, done.exception)
    of = uids(corpus)
    layout = CorpusLayout(corpus)
    submit(layout, [review(1, of["a"])])
    with writing(layout, LocalStorage(corpus)):  # publishes it
        pass
    submit(layout, [review(2, of["a"])])
    world.reviews.write_bytes(as_file(".csv", [review(3, of["a"])]))
    forget(CorpusLayout(corpus), LocalStorage(), [of["c"]], reason="", run_id="done", erased_at=AT)
    with contextlib.suppress(StoppedError):
        forget(CorpusLayout(corpus), Stopping(), [of["e"]], reason="", run_id="half", erased_at=AT)
    # Last: an erasure removes what was derived, and this is to be there too.
    again = ["manifest", "build", str(corpus), "again", "--workers", "0"]
    trained = ["train", str(corpus / "manifests/built"), "--out", str(world.run)]
    for words in (again, [*trained, *TRAINED_AS.split()]):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (words, done.output, done.exception)
    write_toy(world.raw, {**EPISODES, "f": "good"})
    world.spec.write_text(SPEC)
    shutil.copytree(corpus, world.victim)
    shutil.copytree(corpus, world.sound)
    # Names that a sweep, a collection or a rebuild would take for its own.
    for folder in [world.victim, *(p for p in world.victim.rglob("*") if p.is_dir())]:
        for name in ("f", ".x.part", "part-0.parquet", "episode_999999.parquet", "000001.json"):
            (folder / name).write_bytes(SECRET)
    for path in world.victim.rglob("*.json*"):
        path.write_bytes(path.read_bytes().replace(b'"do ', b'"' + SECRET + b" do "))
    return world


def state(folder: Path) -> str:
    """A digest of everything outside: names, kinds, modes, times of change, contents."""
    lines = []
    for path in sorted([folder, *folder.rglob("*")]):
        about = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(about.st_mode) else b""
        size = hashlib.sha256(data).hexdigest()
        links = about.st_nlink if stat.S_ISREG(about.st_mode) else 0
        lines.append(
            f"{path} {about.st_mode} {about.st_mtime_ns} {about.st_ctime_ns} {links} {size}"
        )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def holds_secret(world: World) -> list[str]:
    """Files of the corpus, and of what a command made of it, with something from outside in them; links are not followed."""
    page = world.out.with_suffix(".html")
    paths = [page] if page.exists() else []
    for place in (world.corpus, world.out):
        paths += _files_below(place)
    return [
        str(path)
        for path in paths
        if path.lstat().st_size < SPARSE_BYTES and SECRET in path.read_bytes()
    ]


def _files_below(folder: Path) -> Iterator[Path]:
    """`os.walk` and `Path.rglob` of Python 3.11 recurse, and scenarios have folders that lie deeper than that goes."""
    waiting = [str(folder)] if folder.is_dir() and not folder.is_symlink() else []
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)  # a Path of a thousand folders takes its time
                elif entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)


def remove_tree(folder: Path) -> None:
    """`shutil.rmtree` recurses too; links are removed and not followed."""
    subprocess.run(["rm", "-rf", "--", folder], check=True)


@dataclass(frozen=True)
class Scenario:
    name: str
    spoil: Callable[[World], None]


# --- rooms -----------------------------------------------------------------------------------------------------------


def rooms(made: World) -> Iterator[Scenario]:
    """Every file and folder of the corpus as a link to its likeness outside, as a pipe, as a device.

    Every file grown to 300 GB that take no room, and every folder with a thousand folders in each other.
    """
    locks = [".writer", ".unfinished", "manifests/.lock"]
    there = {p.relative_to(made.sound).as_posix() for p in made.sound.rglob("*")}
    for relative in sorted({*there, *locks}):
        yield Scenario(f"link:{relative}", _Room(relative, _link))
        yield Scenario(f"pipe:{relative}", _Room(relative, _pipe))
        if not relative.endswith((".mp4", ".safetensors")):
            yield Scenario(f"device:{relative}", _Room(relative, _device))
        path = made.sound / relative
        if path.is_dir():
            yield Scenario(f"deep:{relative}", _Deep(relative))
        elif path.exists():
            yield Scenario(f"sparse:{relative}", _Sparse(relative))


@dataclass(frozen=True)
class _Room:
    relative: str
    put: Callable[[Path, Path], None]

    def __call__(self, world: World) -> None:
        path, target = world.corpus / self.relative, world.victim / self.relative
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        self.put(path, target if target.exists() else world.victim / "f")


@dataclass(frozen=True)
class _Deep:
    relative: str

    def __call__(self, world: World) -> None:
        above = os.open(world.corpus / self.relative, os.O_RDONLY)
        for _ in range(DEEP):  # each from the one above: the kernel need not walk the whole path
            os.mkdir("d", dir_fd=above)
            inner = os.open("d", os.O_RDONLY, dir_fd=above)
            os.close(above)
            above = inner
        os.close(above)


@dataclass(frozen=True)
class _Sparse:
    relative: str

    def __call__(self, world: World) -> None:
        os.truncate(world.corpus / self.relative, SPARSE_BYTES)


def _link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def _pipe(path: Path, target: Path) -> None:
    del target
    os.mkfifo(path)


def _device(path: Path, target: Path) -> None:
    """A link where this user may make no device: `/dev/zero` never ends."""
    del target
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except OSError:
        path.symlink_to("/dev/zero")


# --- fields of JSON documents ----------------------------------------------------------------------------------------

Keys = tuple[str | int, ...]
NUMBERS = (-1, 2**31, 10**18, 2**62, 10**30)
LONG = "x" * (1 << 20)


def json_fields(made: World) -> Iterator[Scenario]:
    """Every text of every JSON document as a way out and as one of megabytes, every number as none of this corpus."""
    seen = set()
    for path in sorted(made.sound.rglob("*.json*")):
        relative = path.relative_to(made.sound).as_posix()
        is_lines = path.suffix == ".jsonl"
        first = path.read_text().splitlines()[0] if is_lines else path.read_text()
        for keys, value in _leaves(json.loads(first)):
            kind = (
                path.parent.name,
                path.name if "_snapshots" not in relative else "",
                _shape(keys),
            )
            if kind in seen:
                continue
            seen.add(kind)
            for label, bad in _bad_values(value):
                spoil = _Field(relative, keys, bad, is_lines)
                yield Scenario(f"json:{relative}:{'.'.join(map(str, keys))}:{label}", spoil)


def _shape(keys: Keys) -> str:
    return ".".join("*" if isinstance(key, int) else key for key in keys)


def _leaves(value: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*keys, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value[:1]):
            yield from _leaves(inner, (*keys, number))
    else:
        yield keys, value


def _bad_values(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, str):
        inside = value if "/" in value else "f"
        yield "dots", lambda world: f"../victim/{inside}"
        yield "deep", lambda world: f"../../../victim/{inside}"
        yield "absolute", lambda world: str(world.victim / inside)
        yield "long", lambda world: LONG
    elif isinstance(value, int | float) and not isinstance(value, bool):
        for number in NUMBERS:
            yield str(number), lambda world, number=number: number


@dataclass(frozen=True)
class _Field:
    relative: str
    keys: Keys
    bad: Callable[[World], Any]
    is_lines: bool

    def __call__(self, world: World) -> None:
        path = world.corpus / self.relative
        lines = path.read_text().splitlines() if self.is_lines else [path.read_text()]
        whole = json.loads(lines[0])
        at = whole
        for key in self.keys[:-1]:
            at = at[key]
        at[self.keys[-1]] = self.bad(world)
        if path.name == FACTS_FILE and self.keys != (PAGE_DIGEST,):
            whole = _with_digest(whole)
        path.write_text("\n".join([json.dumps(whole), *lines[1:]]) + "\n")


def _with_digest(page: dict[str, Any]) -> dict[str, Any]:
    """The page of a manifest that was published so."""
    content = {key: value for key, value in page.items() if key != PAGE_DIGEST}
    return {**content, PAGE_DIGEST: page_sha256(content)}


# --- columns of the catalog and of manifests -------------------------------------------------------------------------


WHOLE = {"minus": -1, "2^31": 2**31, "10^18": 10**18, "2^62": 2**62}
BROKEN = {"minus": -1.0, "huge": 1e300, "nan": float("nan")}


def columns(made: World) -> Iterator[Scenario]:
    """Every text column of every part of the latest snapshot, and of every manifest, as a way out and as megabytes; every number as none."""
    for table, part in _parts(made):
        found = pq.read_table(made.sound / part)
        for keys, kind in _fields(found.schema):
            is_list = pa.types.is_list(kind)
            for label in _labels(kind.value_type if is_list else kind):
                name = f"column:{table or part}.{'.'.join(keys)}:{label}"
                yield Scenario(name, _Column(table, part, keys, label, is_list))


def bombs(made: World) -> Iterator[Scenario]:
    """Every part and manifest as a small file that unpacks to gigabytes: a row many times over, and long texts many times over."""
    for table, part in _parts(made):
        for label in ("rows", "bytes"):
            yield Scenario(f"bomb:{table or part}:{label}", _Bomb(table, part, label))


def _labels(kind: pa.DataType) -> list[str]:
    if pa.types.is_string(kind):
        return ["dots", "absolute", "long"]
    if pa.types.is_floating(kind):
        return [*BROKEN]
    return [label for label, number in WHOLE.items() if number < 1 << (kind.bit_width - 1)]


def _parts(made: World) -> Iterator[tuple[str, str]]:
    latest = max((made.sound / "catalog/_snapshots").glob("*.json"))
    for table, parts in json.loads(latest.read_text())["tables"].items():
        if parts:
            yield table, parts[-1]["path"]
    for path in sorted((made.sound / "manifests").glob("*/manifest.parquet")):
        yield "", path.relative_to(made.sound).as_posix()


def _fields(
    fields: Any, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], pa.DataType]]:
    for field in fields:
        kind = field.type.value_type if pa.types.is_list(field.type) else field.type
        if pa.types.is_struct(kind):
            yield from _fields(kind, (*above, field.name))
        elif pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
            yield (*above, field.name), field.type


@dataclass(frozen=True)
class _Column:
    table: str
    part: str
    keys: tuple[str, ...]
    label: str
    is_list: bool

    def __call__(self, world: World) -> None:
        path = world.corpus / self.part
        rows = pq.read_table(path)
        spoiled = [self._spoiled(row, self.keys, world) for row in rows.to_pylist()]
        table = pa.Table.from_pylist(spoiled, schema=rows.schema)
        pq.write_table(table, path)
        if self.table:
            name_in_snapshots(world, self.table, self.part)
        else:
            page = path.with_name(FACTS_FILE)
            raw = json.loads(page.read_text()) | {"rows_sha256": rows_sha256(table)}
            page.write_text(json.dumps(_with_digest(raw)))

    def _spoiled(self, value: Any, keys: tuple[str, ...], world: World) -> Any:
        if isinstance(value, list):
            return [self._spoiled(each, keys, world) for each in value]
        if value is None and keys:
            return None
        if keys:
            inner = self._spoiled(value[keys[0]], keys[1:], world)
            return {**value, keys[0]: inner}
        if value is None and self.is_list:
            return [self._spoiled("", (), world)]
        if self.label in (WHOLE | BROKEN):
            return (WHOLE | BROKEN)[self.label]
        if self.label == "long":
            return LONG
        value = "f" if value is None else value
        inside = value if "/" in value else "f"
        return f"../victim/{inside}" if self.label == "dots" else str(world.victim / inside)


@dataclass(frozen=True)
class _Bomb:
    table: str
    part: str
    label: str

    def __call__(self, world: World) -> None:
        written = world.bombs / f"{self.part.replace('/', '.')}.{self.label}"
        if not written.exists():
            world.bombs.mkdir(exist_ok=True)
            self._write(world.corpus / self.part, written)
        path = world.corpus / self.part
        shutil.copyfile(written, path)
        if self.table:
            rows = pq.read_metadata(path).num_rows
            name_in_snapshots(world, self.table, self.part, rows=rows)

    def _write(self, source: Path, target: Path) -> None:
        rows = pq.read_table(source)
        rows = rows.take([0] * (BOMB_ROWS // 20 if self.label == "rows" else 100))
        times, options = 20, {}
        if self.label == "bytes":
            text = next(i for i, f in enumerate(rows.schema) if pa.types.is_string(f.type))
            rows = rows.set_column(text, rows.schema.field(text), pa.array([LONG] * len(rows)))
            options = {"use_dictionary": False}
        with pq.ParquetWriter(target, rows.schema, compression="zstd", **options) as writer:
            for _ in range(times):
                writer.write_table(rows)


def name_in_snapshots(world: World, table: str, part: str, **also: int) -> None:
    """The catalog is whole: sizes and digests are those of the spoiled part."""
    data = (world.corpus / part).read_bytes()
    true = {"num_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), **also}
    for file in (world.corpus / "catalog/_snapshots").glob("*.json"):
        whole = json.loads(file.read_text())
        for each in whole["tables"][table]:
            each.update(true if each["path"] == part else {})
        file.write_text(json.dumps(whole))
