"""A GR00T export, read by the rules of its two loaders (shared/formats/exports.md §4) from the files alone; each rule broken and found."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from ingest.executors.inline import InlineExecutor
from ingest.export.datasets.groot import Groot
from ingest.export.datasets.run import run_export
from schemas.errors import ConfigError
from tests.ingest.export_cases import CAMERAS, manifest_of, numbered_corpus, page_of, plan_of
from tests.ingest.video_files import number_of

SEGMENTS = [("a", 0, 37), ("a", 3, 20), ("a", 10, 30), ("b", 0, 24), ("c", 0, 12)]
TASKS = [["policy"], ["policy"], ["policy", "forward_dynamics"], ["forward_dynamics"], ["policy"]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_corpus(tmp_path_factory.mktemp("numbered"))


@pytest.fixture(scope="module")
def exported(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "out"
    plan = plan_of(corpus, manifest_of(corpus, SEGMENTS, tasks=TASKS), Groot())
    run_export(plan, Groot(), out, InlineExecutor())
    return out


def dataset_of(out: Path) -> Path:
    (info,) = out.glob("*/meta/info.json")
    return info.parent.parent


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def problems(dataset: Path) -> Iterator[str]:
    meta = dataset / "meta"
    info, modality, stats = (
        json.loads((meta / f"{name}.json").read_text()) for name in ("info", "modality", "stats")
    )
    if not isinstance(info["fps"], int):
        yield "fps is no integer"
    for group in ("state", "action"):
        yield from tile_problems(modality[group], info["features"])
    for name, feature in info["features"].items():
        if feature["dtype"] == "string":
            yield f"{name} is a column of strings"
        if feature["dtype"] == "float32":
            yield from stats_problems(name, feature["shape"][0], stats.get(name))
    for each in modality["video"].values():
        if info["features"].get(each["original_key"], {}).get("dtype") != "video":
            yield f"{each['original_key']} is no video"
    for row in lines(meta / "episodes.jsonl"):
        yield from episode_problems(dataset, info, modality, row)


def episode_problems(
    dataset: Path, info: dict[str, Any], modality: dict[str, Any], row: dict[str, Any]
) -> Iterator[str]:
    number = row["episode_index"]
    tasks = {task["task_index"] for task in lines(dataset / "meta/tasks.jsonl")}
    table = pq.read_table(dataset / info["data_path"].format(episode_chunk=0, episode_index=number))
    if table.num_rows != row["length"]:
        yield f"episode {number} has another length than its rows"
    if not set(table["task_index"].to_pylist()) <= tasks:
        yield f"episode {number} has a text that tasks.jsonl lacks"
    for each in modality["video"].values():
        path = dataset / info["video_path"].format(
            episode_chunk=0, video_key=each["original_key"], episode_index=number
        )
        if path.exists() and len(shown(path)) < row["length"]:
            yield f"{path.name} has fewer pictures than rows"


def tile_problems(group: dict[str, Any], features: dict[str, Any]) -> Iterator[str]:
    for column in {each["original_key"] for each in group.values()}:
        spans = sorted(
            (each["start"], each["end"])
            for each in group.values()
            if each["original_key"] == column
        )
        ends = [0, *(end for _, end in spans)]
        if [start for start, _ in spans] != ends[:-1] or ends[-1] != features[column]["shape"][0]:
            yield f"the slices of {column} do not tile it"


def stats_problems(name: str, width: int, stats: dict[str, Any] | None) -> Iterator[str]:
    wanted = {"mean", "std", "min", "max", "q01", "q99"}
    if stats is None or set(stats) != wanted:
        yield f"{name} has not exactly the six statistics"
    elif any(len(value) != width or not np.isfinite(value).all() for value in stats.values()):
        yield f"{name} has statistics of another width"


def shown(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [number_of(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


def test_the_rules_of_both_loaders_hold(exported: Path) -> None:
    assert list(problems(dataset_of(exported))) == []


def _change(path: Path, change: Callable[[Any], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def _drop_last_line(path: Path) -> None:
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))


MISTAKES: dict[str, Callable[[Path], object]] = {
    "do not tile": lambda m: _change(m / "modality.json", lambda v: v["state"].popitem()),
    "the six statistics": lambda m: _change(
        m / "stats.json", lambda v: v["action"].update(count=[3])
    ),
    "another width": lambda m: _change(m / "stats.json", lambda v: v["action"]["q01"].pop()),
    "fps is no integer": lambda m: _change(m / "info.json", lambda v: v.update(fps=10.5)),
    "tasks.jsonl lacks": lambda m: _drop_last_line(m / "tasks.jsonl"),
    "is no video": lambda m: _change(
        m / "modality.json", lambda v: v["video"]["front"].update(original_key="front")
    ),
    "fewer pictures": lambda m: shutil.copy(
        m.parent / "videos/chunk-000/observation.images.front/episode_000001.mp4",
        m.parent / "videos/chunk-000/observation.images.front/episode_000000.mp4",
    ),
}


@pytest.mark.parametrize("told", MISTAKES)
def test_a_broken_rule_is_seen(told: str, exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "out")
    dataset = dataset_of(tmp_path / "out")
    MISTAKES[told](dataset / "meta")
    assert any(told in each for each in problems(dataset))


def test_rotations_are_rows_and_all_else_is_as_stored(exported: Path, corpus: Path) -> None:
    dataset = dataset_of(exported)
    chosen = [
        segment
        for segment, tasks in zip(SEGMENTS, TASKS, strict=True)
        if "policy" in tasks and segment[2] - segment[1] >= 16
    ]
    mapping = pq.read_table(exported / "eicorpus_export.parquet").to_pylist()
    assert len(mapping) == len(chosen)
    for row in mapping:
        number = "abc".index(row["text"].removeprefix("do "))
        (path,) = corpus.glob(f"datasets/*/*/data/*/episode_{number:06d}.parquet")
        stored, length = pq.read_table(path), row["end"] - row["start"]
        data = pq.read_table(dataset / f"data/chunk-000/episode_{row['episode_index']:06d}.parquet")
        for name in ("observation.state", "action"):
            before = np.array(stored[name].to_pylist())[row["start"] : row["end"]]
            after = np.array(data[name].to_pylist())
            # Two columns and their cross product make the matrix; its first two rows must be there.
            columns = before[:, 3:9].reshape(length, 2, 3)
            third = np.cross(columns[:, 0], columns[:, 1])
            rotmat = np.stack([columns[:, 0], columns[:, 1], third], axis=-1)
            np.testing.assert_allclose(after[:, 3:9], rotmat[:, :2].reshape(length, 6), atol=1e-5)
            assert np.abs(after[:, 3:9] - before[:, 3:9]).max() > 0.1
            np.testing.assert_array_equal(after[:, :3], before[:, :3])
            np.testing.assert_array_equal(after[:, 9], before[:, 9])
        for c, camera in enumerate(CAMERAS):
            key = f"observation.images.{camera}"
            video = dataset / f"videos/chunk-000/{key}/episode_{row['episode_index']:06d}.mp4"
            first = 1000 * c + 100 * number + row["start"]
            assert shown(video) == list(range(first, first + length))


def test_how_pictures_were_written_and_what_was_left_out_is_counted(exported: Path) -> None:
    page = page_of(exported)
    assert page["videos"] == {"encoded_again": 2, "file_copied": 2, "packets_copied": 2}
    assert page["left_out"] == [
        {"code": "no_policy", "text": "may not supervise a policy", "segments": 1},
        {
            "code": "too_short",
            "text": "have fewer than 16 timesteps, which N1.6 and N1.7 cannot read",
            "segments": 1,
        },
    ]
    # The last timestep of an episode has no next one: of the one segment that reaches it.
    assert list(page["timesteps_without_a_valid_pose"].values()) == [1]


def test_statistics_are_of_the_exported_values(exported: Path) -> None:
    dataset = dataset_of(exported)
    rows = [
        np.array(pq.read_table(p)["action"].to_pylist()) for p in dataset.glob("data/*/*.parquet")
    ]
    values = np.concatenate(rows)
    stats = json.loads((dataset / "meta/stats.json").read_text())["action"]
    np.testing.assert_allclose(stats["mean"], values.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(stats["std"], values.std(axis=0), atol=1e-6)
    wanted = np.quantile(values, 0.99, axis=0, method="inverted_cdf")
    np.testing.assert_allclose(stats["q99"], wanted, rtol=6e-3, atol=1e-6)


def test_the_config_of_n16_names_what_modality_json_has(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stand-ins for GR00T's modules, which take what they are given."""
    registered: list[Any] = []

    def stand_in(name: str, **members: Any) -> None:
        module = ModuleType(name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)

    class Names:
        def __getattr__(self, name: str) -> str:
            return name

    for name in ("gr00t", "gr00t.configs", "gr00t.configs.data", "gr00t.data"):
        stand_in(name)
    stand_in(
        "gr00t.configs.data.embodiment_configs",
        register_modality_config=lambda config, embodiment_tag: registered.append(config),
    )
    stand_in("gr00t.data.embodiment_tags", EmbodimentTag=Names())
    kinds = dict.fromkeys(("ActionFormat", "ActionRepresentation", "ActionType"), Names())
    stand_in("gr00t.data.types", ActionConfig=dict, ModalityConfig=dict, **kinds)
    (path,) = exported.glob("n16_*.py")
    runpy.run_path(str(path))
    (config,) = registered
    modality = json.loads((dataset_of(exported) / "meta/modality.json").read_text())
    for group in ("video", "state", "action"):
        assert config[group]["modality_keys"] == list(modality[group])
    assert [each["state_key"] for each in config["action"]["action_configs"]] == [
        "left_eef",
        "left_gripper",
    ]
    assert config["action"]["action_configs"][0]["format"] == "XYZ_ROT6D"


def test_a_dataset_without_actions_is_refused(corpus: Path) -> None:
    plan = plan_of(corpus, manifest_of(corpus, SEGMENTS), Groot())
    (dataset,) = plan.datasets
    features = {n: f for n, f in dataset.features.items() if n != "action"}
    without = replace(plan, datasets=(replace(dataset, features=features),))
    with pytest.raises(ConfigError, match="groot needs action"):
        Groot().check(without)
