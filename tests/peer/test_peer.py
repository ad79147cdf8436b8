"""LeRobot 0.3.3 itself reads a set, and the check that runs it notices planted faults.

All folders go through one process, because importing LeRobot costs seconds.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.peer import tiny_dataset
from tests.peer.reader import PEER, run_check

pytestmark = PEER


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def change_line(path: Path, number: int, **values: object) -> None:
    lines = tiny_dataset.read_lines(path)
    lines[number] |= values
    tiny_dataset.write_lines(path, lines)


def change_rows(root: Path, number: int, **values: Any) -> None:
    tiny_dataset.write_rows(root, number, healthy_columns(number) | values)


def healthy_columns(number: int) -> dict[str, Any]:
    lengths = tiny_dataset.LENGTHS
    return tiny_dataset.columns(number, lengths[number], sum(lengths[:number]))


def total_frames_wrong(root: Path) -> None:
    change_json(root / "meta/info.json", lambda info: info.update(total_frames=1))


def episode_length_wrong(root: Path) -> None:
    change_line(root / "meta/episodes.jsonl", 0, length=24)


def timestamps_stretched(root: Path) -> None:
    values = healthy_columns(1)["timestamp"] * np.float32(1.5)
    change_rows(root, 1, timestamp=values)


def index_shifted(root: Path) -> None:
    change_rows(root, 1, index=healthy_columns(1)["index"] + 1)


def video_missing(root: Path) -> None:
    video(root, 1).unlink()


def video_short(root: Path) -> None:
    tiny_dataset.write_video(root, 0, 10)


def video_of_another_episode(root: Path) -> None:
    shutil.copy(video(root, 0), video(root, 2))


def video_a_frame_late(root: Path) -> None:
    tiny_dataset.write_video(root, 1, 9, first_pts=1)


def video_with_open_groups(root: Path) -> None:
    # x265's default: pictures after a seek refer to pictures before it.
    tiny_dataset.write_video(root, 0, 25, codec="libx265")


def task_index_out_of_range(root: Path) -> None:
    change_rows(root, 2, task_index=np.full(12, 9))


def action_narrower_in_one_episode(root: Path) -> None:
    change_rows(root, 1, action=np.zeros((9, 3), np.float32))


def stats_line_missing(root: Path) -> None:
    path = root / "meta/episodes_stats.jsonl"
    tiny_dataset.write_lines(path, tiny_dataset.read_lines(path)[:2])


def task_text_swapped(root: Path) -> None:
    change_line(root / "meta/tasks.jsonl", 0, task="another text")


def hugging_face_metadata_of_a_newer_writer(root: Path) -> None:
    # datasets >= 4 says "List", which 0.3.3's datasets does not know.
    path = root / "data/chunk-000/episode_000000.parquet"
    feature = {"_type": "List", "length": 3, "feature": {"_type": "Value", "dtype": "float32"}}
    text = json.dumps({"info": {"features": {"observation.state": feature}}})
    pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": text}), path)


def video(root: Path, number: int) -> Path:
    return root / f"videos/chunk-000/{tiny_dataset.CAMERA}/episode_{number:06d}.mp4"


# Fault -> a piece of the first problem. The lines marked "files" are what LeRobot alone accepts (practice: it trusts
# its metadata), so there the check's own comparison has to speak.
FAULTS: dict[Callable[[Path], None], str] = {
    total_frames_wrong: "total_frames",  # files
    episode_length_wrong: "opening: ValueError",
    timestamps_stretched: "opening: ValueError",
    index_shifted: "episode 1 index",  # files
    video_missing: "opening: OfflineModeIsEnabled",
    video_short: "violate the tolerance",
    video_of_another_episode: "25 frames in the video for 12 rows",  # files
    video_a_frame_late: "violate the tolerance",
    video_with_open_groups: "violate the tolerance",
    task_index_out_of_range: "KeyError",
    action_narrower_in_one_episode: "opening: DatasetGeneration",
    stats_line_missing: "episodes_stats.jsonl",  # files
    task_text_swapped: "is not in episodes.jsonl",  # files
    hugging_face_metadata_of_a_newer_writer: "Feature type 'List' not found",
}


# LeRobot reads files in the order of their names, where episode 10 comes before 2.
UNSORTED = "data/episode_{episode_index}.parquet"


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The report on the healthy set and on each fault, by name, from one run of the check."""
    root = tmp_path_factory.mktemp("peer")
    healthy = tiny_dataset.write(root / "healthy")
    for fault in FAULTS:
        fault(shutil.copytree(healthy, root / fault.__name__))
    tiny_dataset.write(root / "unsorted", lengths=(4,) * 11, data_path=UNSORTED)
    names = ["healthy", "unsorted", *(fault.__name__ for fault in FAULTS)]
    done = run_check(*(root / name for name in names))
    assert done.returncode == 1, done.stderr
    return dict(zip(names, map(json.loads, done.stdout.splitlines()), strict=True))


def test_a_healthy_set_is_read_whole(reports: dict[str, dict[str, Any]]) -> None:
    report = reports["healthy"]
    assert report["problems"] == []
    assert report["ok"]
    assert (report["episodes"], report["frames"]) == (3, 46)
    assert report["values_compared"] == 46 * (3 + 2 + 2 + 5)
    assert report["frames_compared"] == 3 * 3
    assert report["max_abs_diff"] <= 1


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_reported(
    fault: Callable[[Path], None], reports: dict[str, dict[str, Any]]
) -> None:
    report = reports[fault.__name__]
    assert not report["ok"]
    assert any(FAULTS[fault] in problem for problem in report["problems"]), report["problems"]


def test_rows_that_lerobot_takes_from_another_episode_are_noticed(
    reports: dict[str, dict[str, Any]],
) -> None:
    problems = reports["unsorted"]["problems"]
    assert "episode 1 action: values differ from the Parquet file" not in problems
    assert "episode 2 action: values differ from the Parquet file" in problems
    assert "episode 2 row 0 window action: differs from rows [0, 0, 2]" in problems


def test_a_folder_that_is_no_data_set_is_a_usage_error(tmp_path: Path) -> None:
    done = run_check(tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())
