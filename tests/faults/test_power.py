"""The power is cut during every command that writes: what is left keeps its promises, and the same command completes it.

A sample of moments and fates; all of them: `python -m tests.faults.power_cuts`. On a real ext4: `python -m tests.faults.power_ext4`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.storage.local import LocalStorage
from tests.faults import power_ext4
from tests.faults.call_sites import FUNCTIONS, SYSTEM, CallSite, call_sites, source_files
from tests.faults.power import FATES, Disk, Fate, by_chance
from tests.faults.power_check import Recorded, cuts, recorded
from tests.faults.power_sites import BEYOND, RARE, harm_without, reached_by, sites_of_commands
from tests.faults.writers import WRITERS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recorded]:
    """Filled by the tests: one undisturbed run of each command that they ask for."""
    return {}


def run_of(name: str, runs: dict[str, Recorded], factory: pytest.TempPathFactory) -> Recorded:
    if name not in runs:
        runs[name] = recorded(name, factory.mktemp(name) / "home")
    return runs[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_a_command_completes_what_a_power_cut_left_of_it(
    name: str, runs: dict[str, Recorded], tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = run_of(name, runs, tmp_path_factory)
    assert run.unseen == [], "changed by calls that the journal does not watch"
    chance = random.Random(name)
    moments = set(chance.sample(range(len(run.journal.events)), 6))

    def fates(disk: Disk, cut: int) -> Iterator[Fate]:
        yield chance.choice(FATES)
        yield by_chance(chance.randrange(10**6))

    states, wrong = cuts(run, fates, at=moments.__contains__)
    assert wrong == []
    assert states > 2


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory) -> dict[CallSite, list[str]]:
    return reached_by(tmp_path_factory.mktemp("reached"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "site",
    [site for site in sites_of_commands() if str(site) not in BEYOND.keys() | RARE],
    ids=str,
)
def test_without_any_one_call_that_synchronises_it_would_not(
    site: CallSite, reached: dict[CallSite, list[str]], tmp_path: Path
) -> None:
    names = reached.get(site)
    assert names, f"no command comes by {site}: add one to tests/faults/writers.py"
    assert harm_without(site, names, tmp_path), f"no command misses the call at {site}"


def test_what_is_beyond_the_model_is_there() -> None:
    assert BEYOND.keys() | RARE <= {str(site) for site in call_sites()}


def test_every_way_to_synchronise_is_a_call_site() -> None:
    """`call_sites` knows the ways by name: a new one must not escape it."""
    ways = "|".join(("fsync|syncfs|fdatasync|sync|sync_above|adopt", *FUNCTIONS))
    words = re.compile(rf"\b({ways})\(|is_durable=(?!is_durable)")
    for path in source_files():
        name = path.relative_to(ROOT).as_posix()
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            if name != SYSTEM and words.search(line) and not re.match(r"\s*(def |#)", line):
                assert any(s.is_at(str(path), number) for s in call_sites()), f"{name}:{number}"


@pytest.mark.slow
def test_a_real_ext4_loses_power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := power_ext4.why_not(tmp_path):
        pytest.skip(f"NOT RUN: no ext4 can be mounted here: {reason}")
    count, wrong = power_ext4.cut("ingest", 3, 0, tmp_path / "ingest")
    assert wrong == []
    assert count == 4
    # The same cuts see what it costs not to synchronise.
    monkeypatch.setattr(LocalStorage, "sync", lambda self: None)
    _, wrong = power_ext4.cut("tier", 1, 1, tmp_path / "tier")
    assert any("after the end" in each for each in wrong)
