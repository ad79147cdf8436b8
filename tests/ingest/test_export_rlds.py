"""An RLDS export: its Examples against a protobuf parser of its own kind, and whole through the `oxe` adapter."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from adapters.containers.rlds_dir import open_dir, records_of, shards_of
from adapters.containers.rlds_steps import Steps, steps_of
from adapters.containers.tf_example import parse_example
from adapters.containers.tfrecord import read_record
from adapters.oxe import adapter, survey
from adapters.oxe.registry import sets_from
from ingest.executors.inline import InlineExecutor
from ingest.export.datasets.plan import DatasetPlan
from ingest.export.datasets.rlds import MOST_TIMESTEPS, Rlds, tfds_name
from ingest.export.datasets.run import run_export
from ingest.export.datasets.tf_record import example_bytes
from schemas.errors import ConfigError
from tests.ingest.export_cases import CAMERAS, manifest_of, numbered_corpus, page_of, plan_of
from tests.ingest.video_files import number_of

SEGMENTS = [("a", 0, 37), ("a", 3, 12), ("b", 0, 24), ("c", 0, 12)]
SPLITS = ["train", "val", "train", "train"]
REGISTRY = """
datasets:
  {name}:
    tfds_name: {name}
    robot: toy
    embodiment: toy_arm
    rate: {{hz: '10', certainty: documented, source: test}}
    cameras: [{{key: observation/front}}, {{key: observation/wrist}}]
    instruction: {{keys: [language_instruction]}}
    arms:
      left:
        eef:
          position: {{key: observation/state, stop: 3}}
          rotation: {{key: observation/state, start: 3, stop: 9}}
          form: rot6d_cols
          certainty: documented
          source: test
          frame: robot_base
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_corpus(tmp_path_factory.mktemp("numbered"))


@pytest.fixture(scope="module")
def exported(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "out"
    plan = plan_of(corpus, manifest_of(corpus, SEGMENTS, split=SPLITS), Rlds())
    run_export(plan, Rlds(), out, InlineExecutor())
    return out


def version_dir(out: Path) -> Path:
    (path,) = out.glob("*/1.0.0")
    return path


def all_steps(out: Path) -> list[tuple[str, Steps, dict[str, Any]]]:
    directory = open_dir(version_dir(out))
    found = []
    for shard in shards_of(directory.info):
        for _, record in records_of(directory.path, shard):
            assert record.problem is None
            data = read_record(directory.path / shard.name, record.offset, record.num_bytes)
            features = parse_example(data)
            found.append((shard.split, steps_of(features, directory.leaves), dict(features)))
    return found


def test_state_and_action_come_back_with_equal_bytes(exported: Path, corpus: Path) -> None:
    seen = []
    for split, steps, features in all_steps(exported):
        start, end = (int(features[f"episode_metadata/{n}"].ints()[0]) for n in ("start", "end"))
        text = bytes(features["steps/language_instruction"].blobs()[0]).decode()
        number = "abc".index(text.removeprefix("do "))
        (path,) = corpus.glob(f"datasets/*/*/data/*/episode_{number:06d}.parquet")
        stored = pq.read_table(path).slice(start, end - start)
        for leaf, column in (
            ("observation/state", "observation.state"),
            ("action", "action"),
            ("action_valid", "action.valid"),
        ):
            wanted = np.array(stored[column].to_pylist())
            values = steps.numbers(leaf)
            assert values.astype(wanted.dtype).shape == wanted.shape
            assert values.tobytes() == wanted.astype(values.dtype).tobytes()
        for c, camera in enumerate(CAMERAS):
            blobs = features[f"steps/observation/{camera}"].blobs()
            pictures = [cv2.imdecode(np.frombuffer(b, np.uint8), cv2.IMREAD_COLOR) for b in blobs]
            first = 1000 * c + 100 * number + start
            shown = [number_of(np.asarray(picture)[..., ::-1]) for picture in pictures]
            assert shown == list(range(first, first + end - start))
        flags = [features[f"steps/{name}"].ints() for name in ("is_first", "is_last")]
        assert [int(flag.argmax()) for flag in flags] == [0, end - start - 1]
        assert [int(flag.sum()) for flag in flags] == [1, 1]
        assert features["steps/is_terminal"].ints()[-1] == (end != 12 or text == "do c")
        seen.append((split, text, start, end))
    assert sorted(seen) == sorted(
        (split, f"do {name}", start, end)
        for split, (name, start, end) in zip(SPLITS, SEGMENTS, strict=True)
    )


def test_our_oxe_adapter_reads_it(
    exported: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = version_dir(exported).parent.name
    entry = sets_from(REGISTRY.format(name=name))[name]
    for module in (adapter, survey):
        monkeypatch.setattr(module, "oxe_set", lambda _: entry)
    oxe = adapter.OpenXEmbodiment()
    refs = list(oxe.discover(exported / name, oxe.survey(exported / name, {})))
    assert [ref.problem for ref in refs] == [None] * 4
    for ref in refs:
        episode = oxe.load(ref)
        number = "abc".index(episode.instructions[0].text.removeprefix("do "))
        (path,) = corpus.glob(f"datasets/*/*/data/*/episode_{number:06d}.parquet")
        stored = pq.read_table(path)
        # poses that jump by metres are not taken for a hand: the vectors are kept as they are
        for name, column in (("source_state", "observation.state"), ("raw_command", "action")):
            stream = episode.stream(name)
            assert stream is not None
            wanted = np.array(stored[column].to_pylist(), np.float32)
            first = 3 if len(stream.values) == 9 else 0
            wanted = wanted[first : first + len(stream.values)]
            assert stream.values[:, : wanted.shape[1]].astype(np.float32).tobytes() == (
                wanted.tobytes()
            )
        assert {camera.name for camera in episode.cameras} == set(CAMERAS)


def test_metadata_adds_up(exported: Path) -> None:
    info = json.loads((version_dir(exported) / "dataset_info.json").read_text())
    assert {each["name"]: each["shardLengths"] for each in info["splits"]} == {
        "train": ["3"],
        "val": ["1"],
    }
    page = page_of(exported)
    assert next(iter(page["element_names"].values()))["observation/state"][0] == "left.position_m.x"


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31, 2**63 - 1, -1, -(2**63)])
def test_integers_come_back(value: int) -> None:
    array = np.array([value, 5], np.int64)
    assert parse_example(example_bytes({"x": array}))["x"].ints().tolist() == [value, 5]


def test_what_one_record_cannot_hold_is_left_out(corpus: Path) -> None:
    rows = plan_of(corpus, manifest_of(corpus, SEGMENTS), Rlds()).datasets[0].rows
    long = rows.set_column(rows.schema.get_field_index("end"), "end", [[MOST_TIMESTEPS + 1] * 4])
    (unfit,) = Rlds().left_out(long)
    assert (unfit.code, int(unfit.rows.sum())) == ("too_long", 3)


def test_two_datasets_of_one_name_are_refused(corpus: Path) -> None:
    plan = plan_of(corpus, manifest_of(corpus, SEGMENTS), Rlds())
    (dataset,) = plan.datasets

    def called(name: str) -> DatasetPlan:
        return replace(dataset, name=name)

    twice = replace(plan, datasets=(called("Arm.1"), called("arm_1")))
    assert tfds_name(twice.datasets[0]) == "arm_1"
    with pytest.raises(ConfigError, match="two datasets would be called arm_1"):
        Rlds().check(twice)
