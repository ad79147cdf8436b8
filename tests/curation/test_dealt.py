"""No group is in two splits, whatever the groups are, and nothing moves when data grow."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.catalog.catalog import Catalog
from ingest.curation.manifests.split_by import SplitBy
from ingest.curation.manifests.splits import assign_splits, split_groups, whole_tasks
from schemas.split import DEFAULT_SHARES, Shares, split_of
from tests.curation.tier_corpus import Given, write_corpus
from tests.generators.corpus import uid_of

WIDE = Shares(val=0.3, test=0.3)
SCHEMA = {
    "uid": pl.String,
    "source": pl.String,
    "dataset": pl.String,
    "split_group": pl.String,
    "split": pl.String,
    "source_split": pl.String,
    "subject_id": pl.String,
    "scene_id": pl.String,
    "texts": pl.List(pl.String),
}


def frame(rows: list[dict[str, object]]) -> pl.DataFrame:
    full = {"source": "s", "dataset": "d", "split_group": "g", "split": None, "texts": []}
    none = {"subject_id": None, "scene_id": None, "source_split": None}
    return pl.DataFrame([{"uid": str(i), **full, **none, **r} for i, r in enumerate(rows)], SCHEMA)


few = st.sampled_from(["a", "b", "c", "d"])
episodes = st.lists(
    st.fixed_dictionaries(
        {
            "source": st.sampled_from(["s", "t"]),
            "split_group": st.none() | st.sampled_from(["g", "h", "i"]),
            "subject_id": st.none() | st.just("") | few,
            "scene_id": st.none() | few,
            "texts": st.lists(st.sampled_from(["", "Pick it", "pick it.", "put", "pour", "x y"]), max_size=3),
        }
    ),
    max_size=25,
)  # fmt: skip


def plain(text: str) -> str:
    return text.lower().rstrip(".").strip()


@given(episodes, st.sampled_from(list(SplitBy)))
def test_no_group_straddles(rows: list[dict[str, object]], by: SplitBy) -> None:
    found = frame(rows).with_columns(now=assign_splits(frame(rows), by, WIDE))
    assert set(found["now"]) <= {"train", "val", "test"}
    keys: dict[object, set[str]] = {}
    for row in found.iter_rows(named=True):
        names: list[object]
        if by is SplitBy.TASK:
            names = [plain(text) for text in row["texts"] if plain(text)]
        elif by is SplitBy.EPISODE:
            names = [row["uid"]]
        elif by in (SplitBy.AUTO, SplitBy.COPIES, SplitBy.SOURCE):
            names = [row["split_group"]] if row["split_group"] else []
        else:
            name = row[f"{by.value}_id"]
            names = [(row["source"], name)] if name else []
        for name in names:
            keys.setdefault(name, set()).add(row["now"])
    assert all(len(splits) == 1 for splits in keys.values()), keys


@given(episodes, episodes, st.sampled_from([by for by in SplitBy if by is not SplitBy.TASK]))
def test_more_data_moves_nobody(
    rows: list[dict[str, object]], more: list[dict[str, object]], by: SplitBy
) -> None:
    before = assign_splits(frame(rows), by, WIDE)
    after = assign_splits(frame([*rows, *more]), by, WIDE)
    assert before.to_list() == after.head(len(rows)).to_list()


def test_tasks_are_joined_through_episodes_that_share_them() -> None:
    """a-b and b-c make one group of three; d stands alone; without a text an episode keeps its own group."""
    rows = [{"texts": ["B", "a"]}, {"texts": ["b.", "C"]}, {"texts": ["d"]}, {"texts": [""]}]
    assert split_groups(frame(rows), SplitBy.TASK).to_list() == ["task:a", "task:a", "task:d", "g"]


def test_unrelated_tasks_are_not_chained_through_a_step_they_share(tmp_path: Path) -> None:
    """Two tasks that both end with "Place it"; the third episode has no text of the whole, the fourth two of them."""
    texts = ["Grasp the cup", "Place it"], ["Lift the bag", "Place it"], ["Place it"], ["Say"]
    whole = (
        [(0, 100, "Lay the table")],
        [(1, 99, "Pack")],
        [(0, 50, "Pack"), (0, 100, " ")],
        [(0, 100, "Pack!"), (0, 100, "Fill a bag")],
    )
    given = [Given(tasks=w, row={"tasks": t}) for t, w in zip(texts, whole, strict=True)]
    with Catalog.open(write_corpus(tmp_path / "c", given)) as catalog:
        columns = ("uid", "source", "dataset", "split_group", "tasks")
        found = catalog.episodes(columns).rename({"tasks": "texts"})
        found = pl.DataFrame({"uid": [uid_of(i) for i in range(4)]}).join(
            found, on="uid", maintain_order="left"
        )
        chained = split_groups(found, SplitBy.TASK).to_list()
        found = found.with_columns(whole_tasks(catalog, found))
    assert chained[:3] == ["task:grasp the cup"] * 3
    assert split_groups(found, SplitBy.TASK).to_list() == [
        "task:lay the table",
        "task:fill a bag",
        "task:place it",
        "task:fill a bag",
    ]


def test_a_subject_is_one_of_its_own_dataset() -> None:
    rows = [{"subject_id": "p"}, {"subject_id": "p", "source": "t"}, {"subject_id": None}]
    found = split_groups(frame(rows), SplitBy.SUBJECT).to_list()
    assert found == ["s/d/subject:p", "t/d/subject:p", "g"]


def test_the_default_is_what_ingestion_wrote() -> None:
    rows = [{"split": "val"}, {"split": "test"}]  # not what the hash says: it is not asked
    assert assign_splits(frame(rows), SplitBy.AUTO, DEFAULT_SHARES).to_list() == ["val", "test"]
    old = [{"split": None, "split_group": f"g{i}"} for i in range(200)]
    found = assign_splits(frame(old), SplitBy.AUTO, DEFAULT_SHARES).to_list()
    assert found == [split_of(f"g{i}") for i in range(200)]
    assert len(set(found)) == 3


@pytest.mark.parametrize("by", list(SplitBy))
def test_nothing_is_dealt_without_episodes(by: SplitBy) -> None:
    assert assign_splits(frame([]), by, WIDE).to_list() == []
