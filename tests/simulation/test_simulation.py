"""Schedules of several jobs over a faulty store: nothing lost, nothing twice, no commit without its media, one digest."""

from __future__ import annotations

import pytest

from tests.simulation.plants import PLANTS, found_in
from tests.simulation.world import play

# Plants that need a rare schedule: `python -m tests.simulation --plant NAME` finds them, docs/concepts/shared-corpora.md says in how many.
RARE = ()
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
    assert found_in(plant, range(40), play) is not None
