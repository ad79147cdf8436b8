"""What an episode is among its task's others, and the signatures it rests on: from the worker to the table and back."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from adapters.registry import adapter_for
from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.curation.measurements.each import trajectory
from ingest.curation.measurements.registry import select_measures
from ingest.curation.measurements.runner import measure_corpus, missing
from ingest.curation.tiers.cohort_stats import (
    end_outliers,
    length_outliers,
    task_deviation,
    warped_distance,
)
from ingest.executors.inline import InlineExecutor
from ingest.storage.local import LocalStorage
from jobs.demo.raw import egodex
from schemas.geometry import Array
from tests.curation.arms import ArmPath, minimum_jerk, view_of
from tests.faults.runs import run


def demonstration(*, tempo: int = 30, aside_m: float = 0.0, closes: bool = True) -> Array:
    """The signature of a reach of 30 cm that ends in a grip."""
    path = minimum_jerk(np.zeros(3), np.array([0.3, aside_m, 0.0]), tempo)
    opening = np.where(np.arange(tempo + 1) < tempo * 0.8, 1.0, 0.0 if closes else 1.0)
    view = view_of({"left": ArmPath(position_m=np.array([1.0, 2.0, 3.0]) + path, opening=opening)})
    return trajectory.vectors(view)["trajectory"]


def frame(vectors: dict[str, Array], task: str = "pick") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "uid": list(vectors),
            "task": [task] * len(vectors),
            "vector": pl.Series(
                [v.astype(np.float32).tolist() for v in vectors.values()], dtype=pl.List(pl.Float32)
            ),
        }
    )


def test_the_signature_is_the_moving_part_relative_to_its_start() -> None:
    shape = demonstration().reshape(32, 1, 4)
    assert np.abs(shape[0, 0, :3]).max() == 0.0
    assert shape[-1, 0] == pytest.approx([0.3, 0.0, 0.0, 0.0], abs=2e-3)
    path = minimum_jerk(np.zeros(3), np.array([0.3, 0.0, 0.0]), 30)
    waiting = np.concatenate(
        [np.repeat(path[:1], 40, axis=0), path, np.repeat(path[-1:], 25, axis=0)]
    )
    trimmed, whole = (
        trajectory.vectors(view_of({"left": ArmPath(position_m=p)})) for p in (path, waiting)
    )
    assert whole["trajectory"] == pytest.approx(trimmed["trajectory"], abs=1e-3)


def warped_by_recursion(a: Array, b: Array) -> float:
    """The textbook's: g(i, j) = min(g(i-1, j) + d, g(i-1, j-1) + 2 d, g(i, j-1) + d)."""

    @cache
    def g(i: int, j: int) -> float:
        if (i, j) == (-1, -1):
            return 0.0
        if i < 0 or j < 0 or abs(i - j) > 6:
            return float("inf")
        d = float(np.linalg.norm(a[i] - b[j]))
        return min(g(i - 1, j) + d, g(i - 1, j - 1) + 2 * d, g(i, j - 1) + d)

    return g(len(a) - 1, len(b) - 1) / (2 * len(a))


def test_warping_by_recursion() -> None:
    shapes = np.random.default_rng(1).normal(size=(4, 32, 5)).astype(np.float32)
    expected = [warped_by_recursion(shape, shapes[0]) for shape in shapes]
    assert warped_distance(shapes, shapes[0]) == pytest.approx(expected, rel=1e-5)
    assert expected[0] == 0.0


def test_deviation_finds_the_odd_one_out_whatever_its_tempo() -> None:
    """Ten reaches at different speeds; one goes 20 cm aside, one never closes (10 cm in the last fifth of the way)."""
    vectors = {f"d{i}": demonstration(tempo=20 + 3 * i, aside_m=0.002 * i) for i in range(10)}
    vectors |= {"aside": demonstration(aside_m=0.2), "open": demonstration(closes=False)}
    found = task_deviation(frame(vectors), ["task"])
    told = {row["uid"]: row for row in found.to_dicts()}
    usual = [told[f"d{i}"]["task_deviation_m"] for i in range(10)]
    assert max(usual) < 0.012
    assert told["aside"]["task_deviation_m"] > 0.05
    assert told["open"]["task_deviation_m"] == pytest.approx(0.02, abs=0.008)
    assert told["aside"]["task_deviation_ratio"] > 5
    vectors |= {
        f"more{i}": demonstration(aside_m=0.01 * i) for i in range(20)
    }  # over 16 references
    found = task_deviation(frame(vectors), ["task"])
    shuffled = task_deviation(frame(vectors).sample(fraction=1.0, shuffle=True, seed=3), ["task"])
    assert shuffled.sort("uid").equals(found.sort("uid"))


def test_few_are_no_population() -> None:
    found = task_deviation(frame({f"d{i}": demonstration() for i in range(4)}), ["task"])
    assert found["task_deviation_m"].null_count() == 4
    empty = task_deviation(frame({}), ["task"])
    assert (empty.height, empty.columns) == (0, found.columns)
    both = pl.concat(
        [frame({f"a{i}": demonstration() for i in range(5)}), frame({"b": np.zeros(256)})]
    )
    mixed = {r["uid"]: r["task_deviation_m"] for r in task_deviation(both, ["task"]).to_dicts()}
    assert mixed["a0"] == 0.0
    assert mixed["b"] is None  # two arms are another group


def test_length_outliers_by_hand() -> None:
    """Log durations with quartiles ln 10 and ln 10 x 1.2: spread ln 1.2; 30 s is ln(30/12) / ln 1.2 = 5.03 of it beyond."""
    seconds = [10.0, 10.0, 10.0, 11.0, 12.0, 12.0, 12.0]
    episodes = pl.DataFrame(
        {"uid": [f"e{i}" for i in range(8)], "duration_s": [*seconds, 30.0], "task": "t"}
    )
    rows = {r["uid"]: r for r in length_outliers(episodes, ["task"]).to_dicts()}
    assert rows["e0"]["length_fence"] == 0.0
    assert rows["e7"]["length_fence"] == pytest.approx(np.log(30 / 12) / np.log(1.2), rel=1e-6)
    centre = np.log(11.0 * 12.0) / 2
    off = np.sort(np.abs(np.log([*seconds, 30.0]) - centre))
    sigma = 1.4826 * (off[3] + off[4]) / 2
    assert rows["e7"]["length_robust_z"] == pytest.approx((np.log(30) - centre) / sigma)
    # ratio to the median, which is geometric: the root of 11 x 12
    assert rows["e7"]["length_ratio"] == pytest.approx(30 / np.sqrt(132.0))
    few = length_outliers(episodes.head(4), ["task"])
    assert few["length_fence"].null_count() == 4


def test_who_ends_in_motion_where_others_rest_by_hand() -> None:
    """Quartiles 0 and 0.01: 0.11 m/s is 0.1 above, five times the least spread of 0.02; four whose end is known are too few."""
    speeds = [0.0, 0.0, 0.0, 0.01, 0.11, None]
    ends = pl.DataFrame({"end_speed_m_s": speeds, "task": "t"})
    found = end_outliers(ends, ["task"])["end_speed_fence"].to_list()
    assert found == pytest.approx([0.0, 0.0, 0.0, 0.0, 5.0, None])
    assert end_outliers(ends.tail(5), ["task"])["end_speed_fence"].null_count() == 5
    wide = pl.DataFrame({"end_speed_m_s": [0.0, 0.1, 0.2, 0.3, 0.8], "task": "t"})
    # quartiles 0.1 and 0.3
    assert end_outliers(wide, ["task"])["end_speed_fence"].to_list()[-1] == pytest.approx(2.5)


def test_equal_lengths_have_no_outlier_by_rounding() -> None:
    episodes = pl.DataFrame(
        {"uid": ["a", "b", "c", "d", "e"], "duration_s": [10.0] * 4 + [10.1], "task": "t"}
    )
    assert length_outliers(episodes, ["task"])["length_fence"].max() < 1.5  # type: ignore[operator]


def test_signatures_are_committed_with_the_numbers(tmp_path: Path) -> None:
    egodex.write(tmp_path / "raw")
    assert adapter_for("egodex").name == "egodex"
    run(tmp_path / "raw", tmp_path / "out", source="egodex")
    corpus, disk = open_corpus(tmp_path / "out"), LocalStorage()
    wanted, before = select_measures(["trajectory", "motion"]), snapshot.load(corpus.root)
    todo = missing(corpus, before, wanted)
    tally, after = measure_corpus(corpus, before, todo, InlineExecutor(disk), run_id="m", disk=disk)
    rows = after.read(corpus.root, "signatures").to_pylist()
    assert (tally.failed, len(rows)) == (0, tally.measured)
    assert {(r["kind"], r["version"]) for r in rows} == {("trajectory", 1)}
    assert {len(r["vector"]) for r in rows} <= {128, 256}
    todo = missing(corpus, after, wanted)
    again, last = measure_corpus(corpus, after, todo, InlineExecutor(disk), run_id="n", disk=disk)
    assert (again.measured, last.number) == (0, after.number)
