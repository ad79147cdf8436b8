"""The LeRobot adapter against the scene's ground truth, known values, known defects and real samples."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.demo.raw.lerobot import T_SRC_HAND, TASKS, write
from schemas.episode import EncodedImages, VideoSpan
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Certainty
from schemas.supervision import Task
from tests.adapters.episode_parts import stream_of
from tests.adapters.lerobot_cases import ADAPTER, facts_of, first_of, refs_of, tasks_of
from tests.generators.lerobot_set import write_ready, write_small
from tests.pickling import travelled


@pytest.mark.parametrize(
    "quirks",
    [
        {},
        {"version": "v2.0", "frame_index": False, "timestamp_start_s": 0.05, "columns": "list"},
        {"version": "2.0.1", "restart_index": True, "int_tasks": True, "blank_lines": True},
        {"version": "v3.0"},
        {"version": "v3.0", "columns": "nested", "task_column": "task"},
        {"names": "dict", "wrong_counts": True, "timestamp_double": True},
        {"names": "name", "chunks_size": 2},
        {"is_wxyz": True},
        {"fps": 29.97},
    ],
)
def test_every_version_and_quirk_gives_the_scene(tmp_path: Path, quirks: dict[str, object]) -> None:
    written = write_small(tmp_path / "s", **quirks)
    refs = refs_of(written.root)
    assert [r.episode_id for r in refs] == list(written.scenes)
    for ref in refs:
        episode = ADAPTER.load(travelled(ref))
        scene = written.scenes[ref.episode_id]
        pose, opening = (
            stream_of(episode, "left.T_base_eef"),
            stream_of(episode, "left.gripper_opening"),
        )
        for k in (0, 17, len(pose.t_ns) - 1):
            t_s = float(pose.t_ns[k]) / 1e9
            found = pose.values[k] @ T_SRC_HAND
            np.testing.assert_allclose(found, scene.T_base_hand(t_s), atol=2e-6)
            assert opening.values[k, 0] == pytest.approx(scene.gripper_opening(t_s), abs=1e-6)
        assert episode.instructions[0].text == TASKS[0]
        assert episode.embodiment == "panda_hand"
        assert set(tasks_of(episode)) == set(Task)


def test_a_command_is_stamped_when_it_is_due(tmp_path: Path) -> None:
    written = write_small(tmp_path / "s")
    episode = first_of(written)
    scene = next(iter(written.scenes.values()))
    command = stream_of(episode, "command.left.T_base_eef")
    assert command.t_ns[:2].tolist() == [33_333_333, 66_666_667]
    found = command.values[0] @ T_SRC_HAND
    np.testing.assert_allclose(found, scene.T_base_hand(1 / 30), atol=2e-6)
    raw = stream_of(episode, "raw_command")
    assert raw.t_ns[:2].tolist() == [0, 33_333_333]
    assert (raw.spec.names[0], raw.values.shape) == ("left_eef_x", (60, 8))
    assert facts_of(episode)["action_kind"].certainty is Certainty.DOCUMENTED


def test_shared_video_is_cut_at_the_right_frames(tmp_path: Path) -> None:
    written = write(tmp_path / "s", version="v3.0", short_durations=True)
    spans = [ADAPTER.load(r).cameras[0].frames for r in refs_of(written.root)]
    assert [(s.first_frame, s.num_frames) for s in spans if isinstance(s, VideoSpan)] == [
        (0, 60),
        (60, 63),
        (123, 57),
    ]
    assert isinstance(spans[0], VideoSpan)
    with av.open(spans[0].path) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    for scene, start in zip(written.scenes.values(), (0, 60, 123), strict=True):
        error = [
            np.abs(frames[start + k] - scene.picture(0.0).astype(float)).mean() for k in (0, 5)
        ]
        assert error[0] < 3
        assert error[0] < error[1]


def test_removed_episode_of_a_shared_video(tmp_path: Path) -> None:
    written = write_small(tmp_path / "s", version="v3.0", removed_episode=1)
    episodes = [ADAPTER.load(r) for r in refs_of(written.root)]
    spans = [e.cameras[0].frames for e in episodes]
    assert [s.first_frame for s in spans if isinstance(s, VideoSpan)] == [0, 123]
    fact = facts_of(episodes[1])["video_start.observation.images.top_head"]
    assert fact.certainty is Certainty.UNVERIFIED
    assert Task.POLICY not in tasks_of(episodes[1])


def test_ready_set_has_the_canonical_rate_and_size(tmp_path: Path) -> None:
    episode = first_of(write_ready(tmp_path / "s"))
    assert episode.rate_hz == 10
    frames = episode.cameras[0].frames
    assert isinstance(frames, VideoSpan)
    with av.open(frames.path) as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.average_rate) == (20, 10)
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 256, 256)


def test_inline_images(tmp_path: Path) -> None:
    episode = first_of(write_small(tmp_path / "s", inline_images=True))
    frames = episode.cameras[0].frames
    assert isinstance(frames, EncodedImages)
    assert len(frames.images) == 60
    assert frames.images[0].startswith(b"\x89PNG")


def test_action_that_repeats_the_state_is_no_command(tmp_path: Path) -> None:
    episode = first_of(write_small(tmp_path / "s", copied_action=True))
    assert [s.name for s in episode.streams] == ["left.T_base_eef", "left.gripper_opening"]
    assert facts_of(episode)["action_source"].value == "achieved"
    assert "action_kind" not in facts_of(episode)
    assert Task.POLICY in tasks_of(episode)


def test_copy_is_seen_without_a_mapping_too(tmp_path: Path) -> None:
    episode = first_of(write_small(tmp_path / "s", copied_action=True, modality=False))
    assert [s.name for s in episode.streams] == ["source_state"]
    assert facts_of(episode)["action_source"].value == "achieved"


def test_without_a_mapping_nothing_is_guessed(tmp_path: Path) -> None:
    written = write_small(tmp_path / "s", modality=False, robot_type=None, names="short")
    episode = first_of(written)
    assert [s.name for s in episode.streams] == ["source_state", "raw_command"]
    assert stream_of(episode, "source_state").spec.names[0] == "observation.state.0"
    assert facts_of(episode)["action_layout"].certainty is Certainty.UNKNOWN
    assert tasks_of(episode) == (Task.VISUAL_FORECASTING,)
    assert episode.embodiment == "unknown_robot"
    assert ADAPTER.survey(written.root, {}).notes[1].startswith("no mapping")


@pytest.mark.parametrize("rotation_type", [None, "quaternion"])
def test_quaternion_of_unnamed_order_is_not_read(tmp_path: Path, rotation_type: str | None) -> None:
    written = write_small(tmp_path / "s", names="none", rotation_type=rotation_type)
    episode = first_of(written)
    assert episode.stream("left.T_base_eef") is None
    assert facts_of(episode)["eef_rotation_form.left"].certainty is Certainty.UNKNOWN
    assert facts_of(episode)["gripper_polarity.left"].certainty is Certainty.UNVERIFIED
    assert stream_of(episode, "source_state").values.shape == (60, 7)  # all but the gripper
    assert tasks_of(episode) == (Task.VISUAL_FORECASTING,)


def test_gripper_of_unnamed_polarity_bars_the_policy_only(tmp_path: Path) -> None:
    episode = first_of(write_small(tmp_path / "s", gripper_name="left_gripper"))
    assert facts_of(episode)["gripper_polarity.left"].certainty is Certainty.UNVERIFIED
    assert set(Task) - set(tasks_of(episode)) == {Task.POLICY}


def test_relative_actions_stay_raw(tmp_path: Path) -> None:
    episode = first_of(write_small(tmp_path / "s", is_absolute=False))
    names = [s.name for s in episode.streams]
    assert names == ["left.T_base_eef", "left.gripper_opening", "raw_command"]
    assert facts_of(episode)["action_kind"].value == "delta"
    assert Task.POLICY in tasks_of(episode)  # by the achieved next pose


def test_actions_of_unstated_kind_are_unverified(tmp_path: Path) -> None:
    episode = first_of(write_small(tmp_path / "s", is_absolute=None))
    assert facts_of(episode)["action_kind"].certainty is Certainty.UNVERIFIED
    assert Task.POLICY not in tasks_of(episode)


def test_subtasks_are_runs_of_the_task_index(tmp_path: Path) -> None:
    episode = first_of(write_small(tmp_path / "s", subtasks=True))
    assert [(i.text, i.start_ns, i.end_ns, i.kind) for i in episode.instructions] == [
        (TASKS[1], 0, 1_000_000_000, "subtask"),
        (TASKS[2], 1_000_000_000, None, "subtask"),
    ]


def test_rows_win_over_a_contradicting_episode_table(tmp_path: Path) -> None:
    episode = first_of(write_small(tmp_path / "s", other_tasks=True))
    assert [i.text for i in episode.instructions] == [TASKS[0]]
    assert "task_stack_basket" in facts_of(episode)["task_text"].source


def test_without_a_task_table_one_stated_text_is_used(tmp_path: Path) -> None:
    written = write_small(tmp_path / "s", other_tasks=True)
    (written.root / "meta/tasks.jsonl").unlink()
    assert [i.text for i in first_of(written).instructions] == ["task_stack_basket"]


def test_task_index_out_of_the_table(tmp_path: Path) -> None:
    written = write_small(tmp_path / "s", subtasks=True)
    tasks = written.root / "meta/tasks.jsonl"
    tasks.write_text(tasks.read_text().splitlines()[0])
    with pytest.raises(SourceError, match=r"task indices \[1, 2\]") as caught:
        first_of(written)
    assert caught.value.code == Code.BAD_ANNOTATION


def test_declared_length_and_gap_become_facts(tmp_path: Path) -> None:
    episode = first_of(write_small(tmp_path / "s", wrong_counts=True, gap_s=0.5))
    assert facts_of(episode)["num_rows"].value == "60 rows, 65 declared; the rows are used"
    assert facts_of(episode)["clock"].value == "stored timestamps"
    t_ns = stream_of(episode, "left.T_base_eef").t_ns
    assert t_ns[10] - t_ns[9] == pytest.approx(533_333_333, abs=1000)


@pytest.mark.parametrize(("value", "code"), [(np.nan, Code.NOT_FINITE), (0.0, Code.NOT_A_ROTATION)])
def test_one_bad_rotation_sets_the_episode_aside(tmp_path: Path, value: float, code: Code) -> None:
    written = write_small(tmp_path / "s")
    path = written.root / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path)
    state = np.array(table["observation.state"].to_pylist(), dtype=np.float32)
    state[5, 3:7] = value
    column = pa.array(state.tolist(), pa.list_(pa.float32()))
    pq.write_table(table.set_column(0, "observation.state", column), path)
    with pytest.raises(SourceError) as caught:
        first_of(written)
    assert caught.value.code == code


def test_options_and_roots(tmp_path: Path) -> None:
    written = write_small(tmp_path / "Some Set")
    info = ADAPTER.survey(written.root, {"name": "kitchen", "licence": "MIT"})
    refs = list(ADAPTER.discover(written.root, info))
    assert (refs[0].episode_id, refs[0].dataset) == ("kitchen/episode_000000", "kitchen")
    assert ADAPTER.load(refs[0]).licence.name == "MIT"
    assert ADAPTER.survey(written.root, {}).dataset == "some_set"
    assert refs[0].duration_hint_s == pytest.approx(2.0)
    assert ADAPTER.survey(tmp_path, {}).dataset == "some_set"  # the only one below it
    write_small(tmp_path / "Another")
    with pytest.raises(ConfigError, match="2 datasets; pass one of them"):
        ADAPTER.survey(tmp_path, {})


def test_raw_files_and_missing_at_load(tmp_path: Path) -> None:
    written = write_small(tmp_path / "s")
    refs = refs_of(written.root)
    assert [f.path for f in ADAPTER.load(refs[0]).raw_files] == [
        "data/chunk-000/episode_000000.parquet",
        "videos/chunk-000/observation.images.top_head/episode_000000.mp4",
    ]
    shutil.rmtree(written.root / "data")
    with pytest.raises(SourceError) as caught:
        ADAPTER.load(refs[0])
    assert caught.value.code == Code.MISSING_FILE
