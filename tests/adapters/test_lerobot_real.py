"""The LeRobot adapter on real samples."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.episode import VideoSpan
from tests.adapters.episode_parts import stream_of
from tests.adapters.lerobot_cases import ADAPTER, facts_of, refs_of


@pytest.mark.real
def test_real_gr1(samples: Path) -> None:
    episodes = [ADAPTER.load(r) for r in refs_of(samples / "lerobot_v20_gr1_picknplace")]
    assert [len(stream_of(e, "joint_position_rad").t_ns) for e in episodes] == [
        416,
        470,
        470,
        412,
        328,
    ]
    first = episodes[0]
    joints = stream_of(first, "joint_position_rad")
    assert (joints.spec.names[0], joints.spec.names[22]) == (
        "state.left_arm.0",
        "state.right_arm.0",
    )
    assert joints.t_ns[:2].tolist() == [0, 50_000_000]
    assert [i.text for i in first.instructions] == [
        "pick the squash from the counter and place it in the plate"
    ]
    assert (first.embodiment, first.rate_hz) == ("fourier_gr1", 20)
    spans = [e.cameras[0].frames for e in episodes]
    for span in spans:
        assert isinstance(span, VideoSpan)
        with av.open(span.path) as container:
            assert container.streams.video[0].frames == span.num_frames


@pytest.mark.real
def test_real_galaxea_has_no_metadata(samples: Path) -> None:
    refs = refs_of(samples / "lerobot_v21_galaxea_r1lite")
    assert [(r.episode_id, r.problem[0]) for r in refs if r.problem] == [
        ("lerobot_v21_galaxea_r1lite/episode_000000", "missing_meta")
    ]


@pytest.mark.real
def test_real_galaxea_rows_under_made_up_metadata(samples: Path, tmp_path: Path) -> None:
    """The rows are real; info.json is ours, after the toolkit's, because the sample comes without."""
    real = samples / "lerobot_v21_galaxea_r1lite/episode_000000.parquet"
    place = tmp_path / "r1/data/chunk-000/episode_000000.parquet"
    place.parent.mkdir(parents=True)
    shutil.copy(real, place)
    row = pq.read_table(real).slice(0, 1).to_pylist()[0]
    features = {
        k: {"dtype": "float64", "shape": [len(v)] if isinstance(v, list) else [1], "names": None}
        for k, v in row.items()
    }
    info = {"codebase_version": "v2.1", "robot_type": "r1lite", "fps": 15, "features": features}
    (tmp_path / "r1/meta").mkdir()
    (tmp_path / "r1/meta/info.json").write_text(json.dumps(info | {"total_episodes": 1}))
    episode = ADAPTER.load(refs_of(tmp_path / "r1")[0])
    right = stream_of(episode, "right.T_base_eef").values
    np.testing.assert_allclose(right[:, :3, :3], np.broadcast_to(np.eye(3), (868, 3, 3)), atol=0.02)
    np.testing.assert_allclose(right[0, :3, 3], [0.059, -0.335, 0.334], atol=1e-3)
    left = stream_of(episode, "left.gripper_opening").values
    assert (left.max(), left.min()) == (1.0, pytest.approx(0.61214, abs=1e-4))
    assert stream_of(episode, "command.left.gripper_opening").values.min() == pytest.approx(0.13)
    assert episode.stream("command.left.T_base_eef") is None
    assert stream_of(episode, "joint_position_rad").values.shape == (868, 12)
    assert episode.embodiment == "galaxea_r1_lite"


@pytest.mark.real
def test_real_robocoin_and_so101_are_all_counted(samples: Path) -> None:
    robocoin = samples / "lerobot_v21_robocoin_meta/examples/example_datas/example_dataset_1"
    for root, count in ((robocoin, 498), (samples / "lerobot_v30_so101", 50)):
        problems = [r.problem[0] for r in refs_of(root) if r.problem]
        assert problems == ["missing_file"] * count


@pytest.mark.real
def test_real_so101_rows_in_a_shared_file(samples: Path, tmp_path: Path) -> None:
    """Real rows and the set's real info.json; the episode table is rebuilt because the sample's belongs to another set."""
    root = tmp_path / "so101"
    source = samples / "lerobot_v30_so101"
    with pa.memory_map(str(source / "bb_local/train/data-00000-of-00001.arrow")) as stream:
        rows = pa.ipc.open_stream(stream).read_all()
    (root / "data/chunk-000").mkdir(parents=True)
    pq.write_table(rows, root / "data/chunk-000/file-000.parquet", row_group_size=4000)
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    info = json.loads((source / "meta/info.json").read_text())
    del info["features"]["observation.images.top_phone"]
    (root / "meta/info.json").write_text(json.dumps(info))
    shutil.copy(source / "meta/tasks.parquet", root / "meta/tasks.parquet")
    index, counts = np.unique(rows["episode_index"].to_numpy(), return_counts=True)
    table = pa.table(
        {
            "episode_index": index,
            "length": counts,
            "data/chunk_index": np.zeros_like(index),
            "data/file_index": np.zeros_like(index),
        }
    )
    pq.write_table(table, root / "meta/episodes/chunk-000/file-000.parquet")
    refs = refs_of(root)
    assert len(refs) == 50
    episode = ADAPTER.load(refs[1])
    assert [s.name for s in episode.streams] == ["source_state", "raw_command"]
    assert stream_of(episode, "source_state").spec.names[5] == "gripper.pos"
    assert stream_of(episode, "source_state").t_ns[-1] == 9_966_666_667  # 299 / 30 s, 300 rows
    assert episode.embodiment == "so101_follower"


@pytest.mark.real
def test_real_robocoin_layout_with_made_up_rows(samples: Path, tmp_path: Path) -> None:
    """info.json and tasks are real (right arm first, names under `name`); the rows are ours, the sample has none."""
    source = samples / "lerobot_v21_robocoin_meta/examples/example_datas/example_dataset_1/meta"
    info = json.loads((source / "info.json").read_text())
    info["features"] = {k: v for k, v in info["features"].items() if v["dtype"] != "video"}
    (tmp_path / "s/meta").mkdir(parents=True)
    (tmp_path / "s/data/chunk-000").mkdir(parents=True)
    (tmp_path / "s/meta/info.json").write_text(json.dumps(info))
    for name in ("tasks.jsonl", "episodes.jsonl"):
        shutil.copy(source / name, tmp_path / "s/meta" / name)
    half = float(np.sqrt(0.5))
    right = [0.1 * n for n in range(7)] + [-7.0, 1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 1.0]
    left = [-0.1 * n for n in range(7)] + [912.0, 4.0, 5.0, 6.0, half, 0.0, 0.0, half]
    states = [right + left, [v + 0.0 for v in right + left[:7]] + [500.0, *left[8:]]]
    rows = {"states": states, "actions": states, "frame_index": [0, 1], "task_index": [0, 0]}
    pq.write_table(pa.table(rows), tmp_path / "s/data/chunk-000/episode_000000.parquet")
    episode = ADAPTER.load(refs_of(tmp_path / "s")[0])
    quarter_turn_x = [[1, 0, 0, 4], [0, 0, -1, 5], [0, 1, 0, 6], [0, 0, 0, 1]]
    np.testing.assert_allclose(
        stream_of(episode, "left.T_base_eef").values[0], quarter_turn_x, atol=1e-9
    )
    assert stream_of(episode, "right.T_base_eef").values[0, :3, 3].tolist() == [1.0, 2.0, 3.0]
    assert stream_of(episode, "left.gripper_opening").values[:, 0].tolist() == [0.912, 0.5]
    assert stream_of(episode, "right.gripper_opening").values[:, 0].tolist() == [0.0, 0.0]
    joints = stream_of(episode, "joint_position_rad")
    assert (joints.spec.names[1], joints.values[0, 1]) == ("left_arm_joint_2", -0.1)
    assert [s.name for s in episode.streams if "command" in s.name] == []
    facts = facts_of(episode)
    assert facts["action_source"].value == "achieved"
    assert "task_stack_basket" in facts["task_text"].source
    assert [i.text for i in episode.instructions] == ["build blocks"]
