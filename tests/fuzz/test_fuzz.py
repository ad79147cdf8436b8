"""The fuzzer finds what is planted, gives the same for the same seed, and finds nothing in a short run."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from adapters.registry import ADAPTERS
from tests.fuzz import child, corpora, watch
from tests.fuzz.mutations import BINARY, TEXT, Outcome, mutated
from tests.fuzz.raw_sets import FAMILIES, LARGEST_BYTES, RawSet, raw_set, try_raw

SHORT_RUN = 40  # mutations of each family
DATA = b'{"a": 12, "b": "text", "c": [1.5, -3]}' * 20


def test_a_mutation_follows_from_its_seed_alone() -> None:
    for change in {*BINARY, *TEXT}:
        assert change(DATA, random.Random("1")) == change(DATA, random.Random("1"))
    many = {mutated(DATA, "a.json", [b"other"], random.Random(k)) for k in range(200)}
    assert len(many) > 150


def test_every_adapter_is_in_one_family() -> None:
    sources = [source for family in FAMILIES.values() for source in family]
    assert sorted(sources) == sorted(ADAPTERS), (
        "add the source to a family of tests/fuzz/raw_sets.py"
    )


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> RawSet:
    return raw_set("ego4d", tmp_path_factory.mktemp("fuzz"))


def test_every_file_of_a_set_is_mutated(one: RawSet) -> None:
    files = [p for p in one.written.root.rglob("*") if p.is_file()]
    small = {
        p.relative_to(one.written.root).as_posix()
        for p in files
        if p.stat().st_size <= LARGEST_BYTES
    }
    assert {name for same in one.names.values() for name in same} == small
    assert {one.drawn(random.Random(k)) for k in range(400)} == small


def test_a_set_is_whole_again_after_each_mutation(one: RawSet) -> None:
    names = [name for same in one.names.values() for name in same]
    before = {n: (one.written.root / n).read_bytes() for n in names}
    for k in range(20):
        assert try_raw([one], random.Random(k)).problems == []
    assert {n: (one.written.root / n).read_bytes() for n in names} == before


def test_an_error_without_a_code_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[dict[str, object]] = []
    monkeypatch.setattr(child, "say", lambda **line: lines.append(line))

    def broken(rng: random.Random) -> Outcome:
        raise OverflowError("planted")

    child.attempt(broken, "hdf5", 0, 7)
    assert lines[0] == {"begins": 7}
    assert "OverflowError: planted" in str(lines[1]["problems"])


def test_memory_beyond_the_limit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[dict[str, object]] = []
    monkeypatch.setattr(child, "say", lambda **line: lines.append(line))
    monkeypatch.setattr(child, "PEAK_BYTES", 64 << 20)

    def greedy(rng: random.Random) -> Outcome:
        return Outcome("s", str(len(b"x" * (rng.choice([128]) << 20))), "reader")

    child.attempt(greedy, "hdf5", 0, 7)
    assert "GiB of memory" in str(lines[1]["problems"])


READY = "import os, time; print('{}', flush=True); "
DIES, HANGS = READY + "os.abort()", READY + "time.sleep(600)"


@pytest.mark.parametrize(("program", "found"), [(DIES, "died"), (HANGS, "hangs")])
def test_a_crash_and_a_hang_are_found(
    program: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "tests" / "fuzz"
    package.mkdir(parents=True)
    (tmp_path / "tests" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "child.py").write_text(program)
    monkeypatch.setattr(watch, "ROOT", tmp_path)
    monkeypatch.setattr(watch, "HANG_S", 2.0)
    tally = watch.fuzz("hdf5", seconds=0.01, seed=0)  # of one child
    assert tally.violations
    assert found in tally.violations[0]


@pytest.mark.slow
def test_a_corpus_is_the_same_each_time_and_whole_after_each_mutation(tmp_path: Path) -> None:
    """But for the part of the table `sources`, which names the folder of the raw data."""
    one, other = (corpora.written_corpus(tmp_path / name) for name in ("a", "b"))
    differs = set(one.names) ^ set(other.names)
    assert all(name.startswith("catalog/sources/") for name in differs)
    kinds = {"catalog", "datasets", "manifests", "settings", "staging"}
    assert kinds <= {name.split("/")[0] for name in one.names}
    assert {".safetensors", ".parquet", ".yaml", ".json"} <= {
        Path(name).suffix for name in one.names
    }
    for k in range(60):
        drawn, again = (corpora.try_corpus(t, random.Random(f"t {k}")).file for t in (one, other))
        assert drawn == again or "catalog/sources/" in drawn
    assert corpora.digest_of(one.world.sound) == one.digest


@pytest.mark.slow
@pytest.mark.parametrize("family", [*FAMILIES, "corpus", "checkpoint"])
def test_a_short_run_finds_nothing(family: str) -> None:
    """A number of mutations, always the same ones, however long they take; `python -m tests.fuzz` goes on for longer."""
    tally = watch.fuzz(family, seconds=math.inf, seed=0, most=SHORT_RUN)
    assert tally.violations == []
    assert tally.mutations == SHORT_RUN
