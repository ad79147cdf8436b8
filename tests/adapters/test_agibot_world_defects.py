"""AgiBot World: every known defect with its code, and the lists of defects that its authors published."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

from adapters.agibot_world.task_info import read_defects
from jobs.demo.raw import agibot_world as generator
from schemas.errors import Code, SourceError
from tests.adapters.agibot_cases import ADAPTER, fact_of, fails, load, one, refs_of


@pytest.mark.parametrize("index", [[0, 1, 15], [0, 1], [-1, 0, 1], [3, 2, 1]])
def test_an_index_that_does_not_fit(tmp_path: Path, index: list[int]) -> None:
    h5, _ = one(tmp_path)
    generator.replace(
        h5, action__joint__position=np.zeros((3, 14)), action__joint__index=np.array(index)
    )
    assert fails(tmp_path).code is Code.CORRUPT_RECORD


def test_no_action_at_all(tmp_path: Path) -> None:
    h5, _ = one(tmp_path)
    generator.replace(h5, action__joint__position=np.zeros((0,), np.float32))
    episode = load(tmp_path)
    assert fact_of(episode, "action_source.joint") == "achieved: no usable action rows"
    assert episode.stream("raw_command") is None


@pytest.mark.parametrize("code", [Code.FRAME_COUNT, Code.CORRUPT_VIDEO, Code.MISSING_VIDEO])
def test_videos_that_do_not_fit(tmp_path: Path, code: Code) -> None:
    one(tmp_path, extra_pictures=-1 if code is Code.FRAME_COUNT else 0)
    head = tmp_path / "observations/327/7/videos/head_color.mp4"
    if code is Code.CORRUPT_VIDEO:
        head.write_bytes(head.read_bytes()[:200])
    if code is Code.MISSING_VIDEO:
        (ref,) = refs_of(tmp_path)
        head.unlink()
        assert refs_of(tmp_path)[0].problem == (
            "missing_video",
            "observations/327/7/videos/head_color.mp4 is missing; download it",
        )
        with pytest.raises(SourceError) as caught:  # gone between plan and load
            ADAPTER.load(ref)
        assert caught.value.code is code
        return
    error = fails(tmp_path)
    assert error.code is code
    if code is Code.FRAME_COUNT:
        assert "14 images for 15 rows" in str(error)


@pytest.mark.parametrize(
    ("key", "array", "code"),
    [
        ("action__joint__position", np.zeros((16, 14)), Code.FRAME_COUNT),  # tasks 352, 354, ...
        ("action__joint__position", np.zeros((15, 13)), Code.SHAPE_MISMATCH),
        ("state__end__position", np.zeros((14, 2, 3)), Code.SHAPE_MISMATCH),
        ("state__end__position", np.zeros((0,), np.float32), Code.MISSING_CHANNEL),
        ("state__joint__position", np.zeros((0, 14)), Code.EMPTY_EPISODE),
        ("state__joint__position", np.full((15, 14), np.nan), Code.NOT_FINITE),
        ("state__end__orientation", np.zeros((15, 2, 4)), Code.NOT_A_ROTATION),
        ("state__end__orientation", np.full((15, 2, 4), np.nan), Code.NOT_FINITE),
        ("state__effector__position", np.zeros((15, 7)), Code.SHAPE_MISMATCH),
        ("state__effector__position", np.full((15, 2), np.nan), Code.NOT_FINITE),
        ("timestamp", np.full(15, 5), Code.CLOCK_NOT_INCREASING),
        ("timestamp", np.arange(15)[::-1].copy() + 5, Code.CLOCK_NOT_INCREASING),
        ("timestamp", np.arange(14), Code.SHAPE_MISMATCH),
        ("timestamp", np.arange(15.0), Code.SHAPE_MISMATCH),
    ],
)
def test_proprio_defects(tmp_path: Path, key: str, array: np.ndarray, code: Code) -> None:
    h5, _ = one(tmp_path, cameras=("head",))
    generator.replace(h5, **{key: array})
    assert fails(tmp_path).code is code


@pytest.mark.parametrize("stamps", [np.zeros(15, np.int64), np.zeros((0,), np.float32)])
def test_unused_clock_is_nominal(tmp_path: Path, stamps: np.ndarray) -> None:
    h5, _ = one(tmp_path)
    generator.replace(h5, timestamp=stamps)
    episode = load(tmp_path)
    assert episode.streams[0].t_ns[3] == 100_000_000
    assert fact_of(episode, "clock").startswith("nominal")


def test_truncated_and_missing_h5(tmp_path: Path) -> None:
    h5, _ = one(tmp_path)
    (ref,) = refs_of(tmp_path)
    h5.write_bytes(h5.read_bytes()[:2000])
    assert fails(tmp_path).code is Code.TRUNCATED
    h5.unlink()
    assert refs_of(tmp_path)[0].problem == (
        "missing_file",
        "proprio_stats/327/7/proprio_stats.h5 is missing; download it",
    )
    with pytest.raises(SourceError) as caught:
        ADAPTER.load(ref)
    assert caught.value.code is Code.MISSING_FILE


def test_links_out_of_the_root_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "set"
    h5, _ = one(root)
    outside = tmp_path / "outside.h5"
    os.rename(h5, outside)
    h5.symlink_to(outside)
    assert fails(root).code is Code.UNSAFE_PATH
    h5.unlink()
    with h5py.File(h5, "w") as file:
        file["state"] = h5py.ExternalLink(str(outside), "/state")
    assert fails(root).code is Code.UNSAFE_CONTENT


def test_on_disk_but_not_listed(tmp_path: Path) -> None:
    one(tmp_path, is_listed=False)
    (ref,) = refs_of(tmp_path)
    assert ref.problem is not None
    assert ref.problem[0] == "missing_meta"
    generator.list_episode(tmp_path, 327, 8)
    assert [(r.episode_id, r.problem and r.problem[0]) for r in refs_of(tmp_path)] == [
        ("327/7", "missing_meta"),
        ("327/8", "missing_file"),
    ]


def test_broken_task_info(tmp_path: Path) -> None:
    one(tmp_path)
    path = tmp_path / "task_info/task_327.json"
    (entry,) = json.loads(path.read_text())
    other = {**entry, "task_name": "Something else"}
    path.write_text(json.dumps([entry, entry, {"episode_id": "../../etc"}, 5]))
    problems = {r.episode_id: r.problem and r.problem[0] for r in refs_of(tmp_path)}
    assert problems == {
        "327/7": None,
        "327/entry_2": "bad_annotation",
        "327/entry_3": "bad_annotation",
    }
    path.write_text(json.dumps([entry, other]))
    assert [r.problem and r.problem[0] for r in refs_of(tmp_path)] == ["bad_annotation"]
    only = tmp_path / "task_info/task_400.json"
    only.write_text("")  # a file cut to nothing is counted even with no episode on disk
    assert [(r.episode_id, r.problem and r.problem[0]) for r in refs_of(tmp_path)][1:] == [
        ("400/task_info", "unreadable")
    ]
    only.unlink()
    for text, code in (("[{", "unreadable"), ("{}", "bad_annotation"), ("[" * 10**5, "unreadable")):
        path.write_text(text)
        assert [r.problem and r.problem[0] for r in refs_of(tmp_path)] == [code]
    path.write_text(json.dumps([{**entry, "label_info": {"action_config": [{"start_frame": 1}]}}]))
    assert fails(tmp_path).code is Code.BAD_ANNOTATION


def test_known_defects_are_counted_and_still_ranges_are_facts(tmp_path: Path) -> None:
    root, lists = tmp_path / "set", tmp_path / "lists"
    generator.write(root)
    lists.mkdir()
    (lists / "bad.jsonl").write_text('{"task": "327", "episode": "648642", "reason": "too_high"}\n')
    (lists / "still_frames.jsonl").write_text(
        '{"task": "327", "episode": "648649", "start_frame": 3, "end_frame": 40}\n'
    )
    bad, still, fine = refs_of(root, defects=str(lists))
    assert bad.problem == ("known_defect", "327/648642: too_high (bad.jsonl)")
    assert still.problem is None
    assert [f.value for f in ADAPTER.load(still).facts if f.name == "moving_frames"] == ["[3, 40]"]
    assert fine.problem is None
    assert fine.facts == ()


@pytest.mark.real
def test_real_defect_lists(samples: Path) -> None:
    found = read_defects(samples / "agibot_defect_lists/filter_store")
    assert len(found) == 31  # 29 extrinsics, 1 frame count, 1 still range
    per_task = Counter(task for (task, _), (why, _) in found.items() if why)
    assert per_task == {"327": 1, "354": 19, "359": 10}
    assert found["327", "648642"][0] is None
    assert found["327", "648642"][1][0].value == "[113, 1228]"
    assert found["359", "687075"][0] == "missing_files:extrinsic (camera_extrinsic.jsonl)"
