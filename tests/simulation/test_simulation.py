"""Schedules of several jobs over a faulty store: nothing lost, nothing twice, no commit without its media, one digest."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.simulation.plants import PLANTS
from tests.simulation.world import play

# Plants that need a rare schedule: `python -m tests.simulation --plant NAME` finds them, docs/concepts/shared-corpora.md says in how many.
RARE = (
    "any_history",
    "commits_between_forgotten",
    "copies_not_compared",
    "manifest_put_over",
    "names_kept_after_a_sweep",
    "no_read_back",
    "replaced_blindly",
    "rows_of_any_attempt",
    "sweep_by_listing",
)
SEEDS = range(120)


@pytest.mark.slow
def test_what_jobs_promise_holds_in_every_schedule() -> None:
    done = [play(seed) for seed in SEEDS]
    assert [each for each in done if each.problem] == []
    digests = {(each.episodes, each.digest) for each in done}
    assert len(digests) == len({each.episodes for each in done})
    assert sum(each.deaths for each in done) > len(SEEDS)
    assert sum(each.lanes for each in done) > len(SEEDS)


@pytest.mark.slow
def test_one_seed_is_one_schedule() -> None:
    for seed in (3, 7):
        assert play(seed) == play(seed)


@pytest.mark.slow
@pytest.mark.parametrize("plant", sorted(set(PLANTS) - set(RARE)))
def test_a_mistake_of_the_protocol_is_found(plant: str) -> None:
    """In a process of its own: threads of a schedule that was broken stay where they were."""
    words = [sys.executable, "-m", "tests.simulation", "--plant", plant, "--seeds", "40"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "found by schedule" in done.stdout
    assert "None" not in done.stdout
