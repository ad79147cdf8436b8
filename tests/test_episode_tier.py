"""The tier of an episode against a count of its timesteps one by one."""

from __future__ import annotations

import random
from collections import Counter

import duckdb

from ingest.catalog.episode_tier import EPISODE_TIERS
from ingest.curation.duplicates import cluster

BEST_FIRST = ["high", "low", "actionless", "excluded"]


def by_hand(segments: list[tuple[int, int, str]]) -> str:
    """Every timestep votes; of equals the best wins."""
    votes = Counter(tier for start, end, tier in segments for _ in range(start, end))
    most = max(votes.values())
    return next(tier for tier in BEST_FIRST if votes[tier] == most)


def test_it_is_the_tier_of_most_timesteps_and_of_equals_the_best() -> None:
    dice, expected, rows = random.Random(0), {}, []
    num_ties = 0
    for number in range(2_000):
        edges = sorted(dice.sample(range(1, 12), dice.randint(1, 5)))
        own = [
            (start, end, dice.choice(BEST_FIRST))
            for start, end in zip([0, *edges], edges, strict=False)
        ]
        expected[f"u{number}"] = by_hand(own)
        rows += [(f"u{number}", *segment) for segment in own]
        votes = Counter(tier for start, end, tier in own for _ in range(start, end)).values()
        num_ties += sorted(votes)[-2:].count(max(votes)) == 2
    assert num_ties > 50
    dice.shuffle(rows)
    with duckdb.connect(":memory:") as connection:
        connection.execute(
            """CREATE TABLE tiers (uid VARCHAR, "start" INTEGER, "end" INTEGER, tier VARCHAR)"""
        )
        connection.executemany("INSERT INTO tiers VALUES (?, ?, ?, ?)", rows)
        for query in (f"SELECT uid, tier FROM {EPISODE_TIERS}", cluster._TIER):
            assert dict(connection.sql(query).fetchall()) == expected
