"""A LeRobot v3.0 export, read by the rules of its format alone: every row and picture of every segment, and each rule broken and found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from adapters.lerobot.adapter import LeRobot
from ingest.executors.inline import InlineExecutor
from ingest.export.datasets.lerobot_shared_files import LeRobotV3
from ingest.export.datasets.run import run_export
from tests.ingest.export_cases import (
    CAMERAS,
    LENGTHS,
    manifest_of,
    numbered_corpus,
    page_of,
    plan_of,
)
from tests.ingest.video_files import number_of

# Whole episodes, parts that begin and end at a keyframe, just before and just after one, one picture, and overlapping ones.
SEGMENTS = [
    ("a", 0, 37),
    ("a", 10, 20),
    ("a", 9, 21),
    ("a", 11, 19),
    ("a", 36, 37),
    ("b", 0, 24),
    ("b", 5, 6),
    ("c", 10, 12),
    ("c", 0, 10),
]
SPLITS = ["train", "val", "train", "test", "train", "train", "train", "val", "train"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_corpus(tmp_path_factory.mktemp("numbered"))


@pytest.fixture(scope="module")
def exported(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "out"
    chosen = manifest_of(corpus, SEGMENTS, split=SPLITS)
    run_export(plan_of(corpus, chosen, LeRobotV3()), LeRobotV3(), out, InlineExecutor())
    return out


@cache
def decoded(path: Path) -> dict[int, int]:
    """Number in each picture of a video, by its time in ticks of a tenth of a second."""
    with av.open(str(path)) as container:
        return {
            round(float(frame.pts * frame.time_base) * 10): number_of(
                frame.to_ndarray(format="rgb24")
            )
            for frame in container.decode(video=0)
        }


def datasets(out: Path) -> list[Path]:
    return sorted(path.parent.parent for path in out.glob("*/meta/info.json"))


def episodes_of(dataset: Path) -> list[dict[str, Any]]:
    files = sorted(dataset.glob("meta/episodes/*/*.parquet"))
    return [row for path in files for row in pq.read_table(path).to_pylist()]


def problems(dataset: Path) -> Iterator[str]:
    """What breaks a rule of the format (shared/formats/exports.md §5), by reading the files alone."""
    info = json.loads((dataset / "meta/info.json").read_text())
    rows = episodes_of(dataset)
    tasks = pq.read_table(dataset / "meta/tasks.parquet").to_pylist()
    if [row["task_index"] for row in tasks] != list(range(len(tasks))):
        yield "row i of tasks.parquet is not task i"
    if [row["episode_index"] for row in rows] != list(range(info["total_episodes"])):
        yield "episodes are not numbered 0 to N - 1"
    index = 0
    for row in rows:
        yield from row_problems(dataset, info, row, [task["task"] for task in tasks], index)
        index += row["length"]
        for key, feature in info["features"].items():
            if feature["dtype"] == "video":
                yield from video_problems(dataset, info, row, key)
    if index != info["total_frames"]:
        yield "total_frames is not the number of rows"


def row_problems(
    dataset: Path, info: dict[str, Any], row: dict[str, Any], tasks: list[str], index: int
) -> Iterator[str]:
    file = info["data_path"].format(
        chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
    )
    table, name = pq.read_table(dataset / file), f"episode {row['episode_index']}"
    if set(table.column_names) != {n for n, f in info["features"].items() if f["dtype"] != "video"}:
        yield f"{file} has other columns than info.json"
    own = [r for r in table.to_pylist() if r["episode_index"] == row["episode_index"]]
    if [r["index"] for r in own] != list(range(index, index + row["length"])):
        yield f"{name}: index is not contiguous"
    if (row["dataset_from_index"], row["dataset_to_index"]) != (index, index + row["length"]):
        yield f"{name}: from and to are not its rows"
    if {tasks[r["task_index"]] for r in own} != set(row["tasks"]):
        yield f"{name}: its rows have other texts"


def video_problems(
    dataset: Path, info: dict[str, Any], row: dict[str, Any], key: str
) -> Iterator[str]:
    file = info["video_path"].format(
        video_key=key,
        chunk_index=row[f"videos/{key}/chunk_index"],
        file_index=row[f"videos/{key}/file_index"],
    )
    first = row[f"videos/{key}/from_timestamp"] * info["fps"]
    if abs(first - round(first)) > 1e-6:
        yield f"episode {row['episode_index']}: {key} begins between two pictures"
    places = range(round(first), round(first) + row["length"])
    if missing := set(places) - set(decoded(dataset / file)):
        yield f"episode {row['episode_index']}: {key} has no picture {min(missing)}"
    stats = row[f"stats/{key}/mean"]
    if np.shape(stats) != (3, 1, 1) or not 0 <= np.min(stats) <= np.max(stats) <= 1:
        yield f"episode {row['episode_index']}: {key} has no statistics of three colours"


def test_the_rules_of_the_format_hold(exported: Path) -> None:
    assert [each for dataset in datasets(exported) for each in problems(dataset)] == []


def _rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def _rows(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)


EPISODES, DATA = "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"
FRONT = "videos/observation.images.front"
MISTAKES: dict[str, Callable[[Path], None]] = {
    "not task i": lambda d: _rows(d / "meta/tasks.parquet", lambda rows: rows.reverse()),
    "not numbered": lambda d: _rows(d / EPISODES, lambda rows: rows[1].update(episode_index=5)),
    "not contiguous": lambda d: _rows(d / DATA, lambda rows: rows[3].update(index=99)),
    "not its rows": lambda d: _rows(
        d / EPISODES, lambda rows: rows[2].update(dataset_from_index=0)
    ),
    "other texts": lambda d: _rows(d / DATA, lambda rows: rows[0].update(task_index=1)),
    "between two pictures": lambda d: _rows(
        d / EPISODES, lambda rows: rows[1].update({f"{FRONT}/from_timestamp": 0.05})
    ),
    "has no picture": lambda d: _rows(
        d / EPISODES, lambda rows: rows[1].update({f"{FRONT}/from_timestamp": 99.0})
    ),
    "total_frames": lambda d: _rewrite(d / "meta/info.json", lambda v: v.update(total_frames=1)),
    "other columns": lambda d: _rewrite(
        d / "meta/info.json", lambda v: v["features"].pop("observation.state")
    ),
}


@pytest.mark.parametrize("told", MISTAKES)
def test_a_broken_rule_is_seen(told: str, exported: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(exported, tmp_path / "out")
    (dataset,) = datasets(tmp_path / "out")
    MISTAKES[told](dataset)
    assert any(told in each for each in problems(dataset))


def test_every_row_and_picture_is_that_of_its_segment(exported: Path, corpus: Path) -> None:
    (dataset,) = datasets(exported)
    info = json.loads((dataset / "meta/info.json").read_text())
    mapping = pq.read_table(exported / "eicorpus_export.parquet").to_pylist()
    assert [row["split"] for row in mapping] == ["train"] * 6 + ["val"] * 2 + ["test"]
    assert info["splits"] == {"train": "0:6", "val": "6:8", "test": "8:9"}
    stored = {
        path.stem: pq.read_table(path) for path in corpus.glob("datasets/*/*/data/*/*.parquet")
    }
    data = pq.read_table(dataset / DATA)
    start = 0
    for row, place in zip(episodes_of(dataset), mapping, strict=True):
        letter = place["text"].removeprefix("do ")
        length = place["end"] - place["start"]
        assert (row["length"], row["tasks"]) == (length, [place["text"]])
        source = stored[f"episode_{'abc'.index(letter):06d}"].slice(place["start"], length)
        own = data.slice(start, length)
        start += length
        for name in ("observation.state", "action", "observation.valid", "action.valid"):
            assert own[name].to_pylist() == source[name].to_pylist()
        np.testing.assert_allclose(own["timestamp"].to_numpy(), np.arange(length) / 10, atol=1e-6)
        for c, camera in enumerate(CAMERAS):
            key = f"observation.images.{camera}"
            file = info["video_path"].format(
                video_key=key,
                chunk_index=row[f"videos/{key}/chunk_index"],
                file_index=row[f"videos/{key}/file_index"],
            )
            first = round(row[f"videos/{key}/from_timestamp"] * 10)
            shown = [decoded(dataset / file)[first + k] for k in range(length)]
            base = 1000 * c + 100 * "abc".index(letter) + place["start"]
            assert shown == list(range(base, base + length))


def test_nothing_is_encoded_again_and_extra_pictures_are_counted(exported: Path) -> None:
    page = page_of(exported)
    # Groups of ten pictures: what each segment takes besides its own, for two cameras.
    extra = {(10, 20): 0, (9, 21): 18, (11, 19): 2, (36, 37): 6, (5, 6): 9, (10, 12): 0, (0, 10): 0}
    assert page["videos"]["pictures_of_no_episode"] == 2 * sum(extra.values())
    assert page["segments"] == len(SEGMENTS)


def test_statistics_are_of_the_data(exported: Path) -> None:
    (dataset,) = datasets(exported)
    values = np.array(pq.read_table(dataset / DATA)["observation.state"].to_pylist())
    stats = json.loads((dataset / "meta/stats.json").read_text())["observation.state"]
    np.testing.assert_allclose(stats["mean"], values.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(stats["std"], values.std(axis=0), atol=1e-6)
    np.testing.assert_allclose(stats["max"], values.max(axis=0), atol=1e-6)
    for name, share in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        wanted = np.quantile(values, share, axis=0, method="inverted_cdf")
        np.testing.assert_allclose(stats[name], wanted, rtol=6e-3, atol=1e-6)
    first = episodes_of(dataset)[0]
    assert first["stats/observation.state/count"] == [first["length"]]
    whole = np.array(
        pq.read_table(dataset / DATA)["observation.state"].to_pylist()[: first["length"]]
    )
    np.testing.assert_allclose(
        first["stats/observation.state/q10"], np.quantile(whole, 0.1, axis=0), atol=1e-6
    )


def test_our_own_adapter_reads_it_back(exported: Path) -> None:
    (dataset,) = datasets(exported)
    adapter = LeRobot()
    survey = adapter.survey(dataset, {})
    read = [adapter.load(ref) for ref in adapter.discover(dataset, survey)]
    assert [len(episode.cameras) for episode in read] == [len(CAMERAS)] * len(SEGMENTS)
    lengths = sorted(len(episode.cameras[0].t_ns) for episode in read)
    assert lengths == sorted(end - start for _, start, end in SEGMENTS)
    assert {episode.instructions[0].text for episode in read} == {f"do {name}" for name in LENGTHS}
