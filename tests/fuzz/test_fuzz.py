"""The fuzzer finds what is planted, gives the same for the same seed, and finds nothing in a short run."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from tests.fuzz import child, corpora, watch
from tests.fuzz.mutations import BINARY, TEXT, mutated
from tests.fuzz.raw_sets import FAMILIES, RawSet, raw_sets, try_raw

SHORT_RUN = 40  # mutations of each family
DATA = b'{"a": 12, "b": "text", "c": [1.5, -3]}' * 20


def test_a_mutation_follows_from_its_seed_alone() -> None:
    for change in {*BINARY, *TEXT}:
        assert change(DATA, random.Random("1")) == change(DATA, random.Random("1"))
    many = {mutated(DATA, "a.json", [b"other"], random.Random(k)) for k in range(200)}
    assert len(many) > 150


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[RawSet]:
    return raw_sets("annotations", tmp_path_factory.mktemp("fuzz"))[:1]


def test_a_set_is_whole_again_after_each_mutation(sets: list[RawSet]) -> None:
    before = {n: (sets[0].written.root / n).read_bytes() for n in sets[0].names}
    for k in range(20):
        assert try_raw(sets, random.Random(k))[1] == []
    assert {n: (sets[0].written.root / n).read_bytes() for n in sets[0].names} == before


def test_an_error_without_a_code_is_found(
    sets: list[RawSet], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[dict[str, object]] = []
    monkeypatch.setattr(child, "say", lambda **line: said.append(line))

    def broken(rng: random.Random) -> tuple[str, list[str]]:
        raise OverflowError("planted")

    child.attempt(broken, "hdf5", 0, 7)
    assert said[0] == {"begins": 7}
    assert "OverflowError: planted" in str(said[1]["told"])


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
    tally = watch.fuzz("hdf5", seconds=0.5, seed=0)
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
        drawn, again = (corpora.try_corpus(t, random.Random(f"t {k}"))[0] for t in (one, other))
        assert drawn == again or "catalog/sources/" in drawn
    assert corpora.digest_of(one.world.sound) == one.digest


@pytest.mark.slow
@pytest.mark.parametrize("family", [*FAMILIES, "corpus"])
def test_a_short_run_finds_nothing(family: str) -> None:
    """A number of mutations, always the same ones, however long they take; `python -m tests.fuzz` goes on for longer."""
    tally = watch.fuzz(family, seconds=math.inf, seed=0, most=SHORT_RUN)
    assert tally.violations == []
    assert tally.mutations == SHORT_RUN
