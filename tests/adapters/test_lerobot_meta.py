"""LeRobot metadata, path templates, frame counting and listing: known values, and one test per known defect."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adapters.containers.lerobot_cameras import camera_name
from adapters.containers.lerobot_episodes import (
    BadEntry,
    EpisodeMeta,
    VideoPlace,
    read_episodes,
    read_tasks,
)
from adapters.containers.lerobot_listing import list_episodes
from adapters.containers.lerobot_meta import SetInfo, SourceFeature, read_info, read_modality
from adapters.containers.lerobot_paths import FirstFrame, data_path, first_frames, format_path
from adapters.lerobot.adapter import LeRobot
from jobs.demo.raw.lerobot import CAMERA
from schemas.errors import Code, ConfigError, SourceError
from tests.generators.lerobot_set import write_small

ROBOCOIN = "lerobot_v21_robocoin_meta/examples/example_datas/example_dataset_1"


def _info(**changes: object) -> SetInfo:
    raw = {"codebase_version": "v2.1", "robot_type": None, "fps": 30, "features": {}}
    return SetInfo.model_validate({**raw, **changes})


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _problems(root: Path) -> dict[str, str | None]:
    return {e.name: e.problem[0] if e.problem else None for e in list_episodes(root)}


@pytest.mark.parametrize(
    ("version", "major"),
    [
        ("v2.0", 2),
        ("v2.1", 2),
        ("2.0.1", 2),
        ("v3.0", 3),
        ("v1.6", None),
        ("v3.1", None),
        ("", None),
    ],
)
def test_versions(version: str, major: int | None) -> None:
    assert _info(codebase_version=version).major == major


@pytest.mark.parametrize(
    "raw",
    [
        {"names": ["a", "b"]},
        {"names": {"motors": ["a", "b"]}},
        {"names": {"b": 1, "a": 0}},
        {"name": ["a", "b"]},
        {"names": None, "name": {"axes": ["a", "b"]}},
    ],
)
def test_element_names_in_every_spelling(raw: dict[str, object]) -> None:
    assert SourceFeature.model_validate({"dtype": "float32", "shape": [2], **raw}).names == (
        "a",
        "b",
    )


def test_feature_without_names_and_with_the_older_video_key() -> None:
    feature = SourceFeature.model_validate({"dtype": "video", "shape": 3, "video_info": {"x": 1}})
    assert (feature.names, feature.shape, feature.info) == ((), (3,), {"x": 1})


def test_fractional_rates_stay_exact() -> None:
    assert _info(fps=29.97).rate_hz == Fraction(30000, 1001)
    assert _info(fps=33.333).rate_hz == Fraction(33333, 1000)
    assert _info(fps=20.0).rate_hz == 20


@pytest.mark.parametrize("fps", ["NaN", "0", "-30", "1e9", '"fast"', "null"])
def test_senseless_rate_is_refused(tmp_path: Path, fps: str) -> None:
    write_to = tmp_path / "meta/info.json"
    write_to.parent.mkdir()
    write_to.write_text(f'{{"codebase_version": "v2.1", "features": {{}}, "fps": {fps}}}')
    with pytest.raises(SourceError) as caught:
        read_info(tmp_path)
    assert caught.value.code == Code.UNREADABLE


def test_templates_of_real_sets() -> None:
    behavior = "data/task-{episode_chunk:04d}/episode_{episode_index:08d}.parquet"
    episode = EpisodeMeta(index=30012, length=1, tasks=(), chunk=3)
    assert (
        data_path(_info(data_path=behavior), episode) == "data/task-0003/episode_00030012.parquet"
    )
    assert data_path(_info(), episode) == "data/chunk-003/episode_030012.parquet"
    other = "d/chunk-{chunk_index:03d}/e_{episode_index}.parquet"
    assert data_path(_info(data_path=other), episode) == "d/chunk-003/e_30012.parquet"


@pytest.mark.parametrize(
    "template",
    [
        "{episode_index.__class__}",
        "{episode_index[0]}",
        "{episode_index!r}",
        "{episode_index:>99999999d}",
        "{episode_index:{chunk_index}}",
        "{video_key:1000}",
        "{secret}",
        "{}",
        "{0}",
        "{",
    ],
)
def test_template_that_asks_for_more_is_refused(template: str) -> None:
    with pytest.raises(SourceError) as caught:
        format_path(template, {"episode_index": 1, "chunk_index": 0, "video_key": "a"})
    assert caught.value.code == Code.UNKNOWN_LAYOUT


def _v3(index: int, length: int, from_s: float) -> EpisodeMeta:
    place = {"cam": VideoPlace(chunk=0, file=0, from_s=from_s)}
    return EpisodeMeta(index=index, length=length, tasks=(), chunk=0, videos=place)


def test_frames_are_counted_where_claimed_times_lose_a_frame_each() -> None:
    # A real set: 427 frames at 30 Hz with to_timestamp 14.2 s. By time the second would start at 426.
    episodes = [_v3(0, 427, 0.0), _v3(1, 100, 14.2), _v3(2, 50, 14.2 + 99 / 30)]
    starts = first_frames(episodes, "cam", Fraction(30))
    assert [starts[i].number for i in range(3)] == [0, 427, 527]
    assert all(s.is_counted for s in starts.values())


def test_a_removed_episode_leaves_a_gap_that_the_claimed_time_knows() -> None:
    starts = first_frames([_v3(0, 60, 0.0), _v3(2, 60, 4.1)], "cam", Fraction(30))
    assert starts[0] == FirstFrame(number=0, is_counted=True)
    assert starts[2] == FirstFrame(number=123, is_counted=False)


def test_each_video_file_counts_from_zero() -> None:
    second = EpisodeMeta(
        index=1,
        length=5,
        tasks=(),
        chunk=0,
        videos={"cam": VideoPlace(chunk=0, file=1, from_s=0.0)},
    )
    assert first_frames([_v3(0, 60, 0.0), second], "cam", Fraction(30))[1].number == 0


@pytest.mark.parametrize("column", ["task", "__index_level_0__"])
def test_v3_task_texts(tmp_path: Path, column: str) -> None:
    (tmp_path / "meta").mkdir()
    pq.write_table(
        pa.table({"task_index": [1, 0], column: ["b", "a"]}), tmp_path / "meta/tasks.parquet"
    )
    assert read_tasks(tmp_path, 3) == {0: "a", 1: "b"}


def test_blank_lines_and_integer_tasks_are_taken(tmp_path: Path) -> None:
    write_small(tmp_path / "s", blank_lines=True, int_tasks=True)
    entries = list(read_episodes(tmp_path / "s", read_info(tmp_path / "s")))
    assert [e.tasks for e in entries if isinstance(e, EpisodeMeta)] == [(0,)] * 3
    assert len(read_tasks(tmp_path / "s", 2)) == 3


def test_torn_and_repeated_lines_are_counted(tmp_path: Path) -> None:
    root = write_small(tmp_path / "s").root
    table = root / "meta/episodes.jsonl"
    first = table.read_text().splitlines()[0]
    table.write_text(table.read_text() + first + '\n{"episode_index": -4}\n{"episode_ind')
    bad = [e for e in read_episodes(root, read_info(root)) if isinstance(e, BadEntry)]
    assert [e.code for e in bad] == [Code.BAD_ANNOTATION, Code.CORRUPT_RECORD, Code.CORRUPT_RECORD]
    assert _problems(root) == {
        "episode_000000": None,
        "episode_000001": None,
        "episode_000002": None,
        "meta/episodes.jsonl:4": "bad_annotation",
        "meta/episodes.jsonl:5": "corrupt_record",
        "meta/episodes.jsonl:6": "corrupt_record",
    }


def test_without_an_episode_table_the_total_names_the_episodes(tmp_path: Path) -> None:
    root = write_small(tmp_path / "s").root
    (root / "meta/episodes.jsonl").unlink()
    assert _problems(root) == {f"episode_{n:06d}": None for n in range(3)}


def test_missing_files_and_unlisted_ones(tmp_path: Path) -> None:
    root = write_small(tmp_path / "s").root
    (root / "data/chunk-000/episode_000000.parquet").unlink()
    (root / f"videos/chunk-000/{CAMERA}/episode_000001.mp4").unlink()
    (root / "data/chunk-000/episode_000077.parquet").write_bytes(b"")
    assert _problems(root) == {
        "episode_000000": "missing_file",
        "episode_000001": "missing_video",
        "episode_000002": None,
        "data/chunk-000/episode_000077": "missing_meta",
    }


def test_camera_without_any_file_is_left_out_but_not_the_only_one(tmp_path: Path) -> None:
    root = write_small(tmp_path / "s", phantom_camera=True, depth_camera=True).root
    listed = list(list_episodes(root))
    assert [[c.name for c in e.cameras] for e in listed] == [["top_head"]] * 3
    assert [f.name for f in listed[0].facts] == [
        "camera_left_out.observation.images.wrist_z",
        "camera_left_out.observation.images.egoview",
    ]
    for path in root.rglob("*.mp4"):
        path.unlink()
    assert set(_problems(root).values()) == {"missing_video"}


def test_video_path_null_with_cameras_is_missing_video(tmp_path: Path) -> None:
    root = write_small(tmp_path / "s").root
    _edit(root / "meta/info.json", video_path=None)
    assert set(_problems(root).values()) == {"missing_video"}


def test_hard_coded_camera_folder(tmp_path: Path) -> None:
    video = "videos/egocentric/episode_{episode_index:06d}.mp4"
    root = write_small(tmp_path / "s", video_path=video).root
    listed = list(list_episodes(root))
    assert listed[2].cameras[0].path == "videos/egocentric/episode_000002.mp4"
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["observation.images.second"] = info["features"][CAMERA]
    (root / "meta/info.json").write_text(json.dumps(info))
    assert set(_problems(root).values()) == {"unknown_layout"}


def test_chunks_of_odd_size_and_wrong_counts(tmp_path: Path) -> None:
    root = write_small(tmp_path / "s", chunks_size=2, wrong_counts=True).root
    assert (root / "data/chunk-001/episode_000002.parquet").is_file()
    assert set(_problems(root).values()) == {None}


@pytest.mark.parametrize("template", ["../x/{episode_index}.parquet", "/etc/{episode_index}"])
def test_path_out_of_the_root_is_refused(tmp_path: Path, template: str) -> None:
    root = write_small(tmp_path / "s").root
    _edit(root / "meta/info.json", data_path=template)
    problems = _problems(root)
    assert [problems[f"episode_{n:06d}"] for n in range(3)] == ["unsafe_path"] * 3


def test_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    root = write_small(tmp_path / "s").root
    data = root / "data/chunk-000/episode_000001.parquet"
    data.rename(tmp_path / "elsewhere.parquet")
    data.symlink_to(tmp_path / "elsewhere.parquet")
    assert _problems(root)["episode_000001"] == "unsafe_path"


@pytest.mark.parametrize("version", ["v1.6", "v4.0", "nonsense"])
def test_unknown_version_is_counted_per_data_file(tmp_path: Path, version: str) -> None:
    root = write_small(tmp_path / "s").root
    _edit(root / "meta/info.json", codebase_version=version)
    assert list(_problems(root).values()) == ["unknown_version"] * 3


def test_broken_metadata_is_counted_per_data_file(tmp_path: Path) -> None:
    root = write_small(tmp_path / "s").root
    (root / "meta/modality.json").write_text('{"state": {"a": {"start": 3, "end": 3}}}')
    assert list(_problems(root).values()) == ["unreadable"] * 3
    (root / "meta/info.json").write_text("")
    assert list(_problems(root).values()) == ["unreadable"] * 3


def test_v3_table_without_footer(tmp_path: Path) -> None:
    root = write_small(tmp_path / "s", version="v3.0").root
    table = root / "meta/episodes/chunk-000/file-000.parquet"
    table.write_bytes(table.read_bytes()[:-20])
    assert _problems(root) == {
        "meta/episodes/chunk-000/file-000.parquet": "truncated",
        "data/chunk-000/file-000": "missing_meta",
    }


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("observation.images.cam_high", "cam_high"),
        ("images.rgb.hand_left", "hand_left"),
        ("observation.images.Top-Head", "top_head"),
        ("video.ego_view", "ego_view"),
    ],
)
def test_camera_names(key: str, name: str) -> None:
    assert camera_name(key) == name


@pytest.mark.real
def test_real_robocoin_metadata(samples: Path) -> None:
    root = samples / ROBOCOIN
    info = read_info(root)
    entries = [e for e in read_episodes(root, info) if isinstance(e, EpisodeMeta)]
    assert (len(entries), sum(e.length for e in entries)) == (498, 595_002)
    assert len(info.features["states"].names) == 30  # found under `name`
    assert entries[0].tasks == ("task_stack_basket",)
    assert read_tasks(root, 2) == {0: "build blocks"}
    assert list(_problems(root).values()) == ["missing_file"] * 498


@pytest.mark.real
def test_real_v3_frames_by_count_and_by_claimed_time(samples: Path) -> None:
    root = samples / "lerobot_v30_so101"
    info = read_info(root)
    episodes = [e for e in read_episodes(root, info) if isinstance(e, EpisodeMeta)]
    assert (len(episodes), sum(e.length for e in episodes)) == (50, 22_449)
    starts = first_frames(episodes, "observation.images.top_phone", info.rate_hz)
    assert [starts[i].number for i in (0, 1, 2, 49)] == [0, 448, 897, 22_000]
    assert all(s.is_counted for s in starts.values())
    assert read_tasks(root, 3) == {0: "Pick the tiger and place near elephant"}
    assert list(_problems(root).values()) == ["missing_file"] * 50


@pytest.mark.real
def test_real_gr1_metadata(samples: Path) -> None:
    root = samples / "lerobot_v20_gr1_picknplace"
    listed = list(list_episodes(root))
    assert [e.meta.length for e in listed if e.meta] == [416, 470, 470, 412, 328]
    assert {e.problem for e in listed} == {None}
    assert [c.name for c in listed[0].cameras] == ["ego_view"]
    assert listed[0].facts[0].name == "camera_left_out.observation.images.egoview"
    assert read_modality(root).state["waist"].end == 44


# --- what official writers and broken downloads do ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [["a", "b", "c"], [["a", "b", "c"]], [["a"], ["b", "c"]], {"motors": [["a", "b"], "c"]}],
)
def test_element_names_are_flat_however_they_are_nested(names: object) -> None:
    feature = SourceFeature.model_validate({"dtype": "float32", "shape": [3], "names": names})
    assert feature.names == ("a", "b", "c")


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_info_json_is_said_to_be_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text(text)
    with pytest.raises(SourceError, match=r"info\.json: the file is empty; download it again"):
        read_info(tmp_path)


def test_videos_in_another_folder_are_one_message_and_not_one_per_episode(tmp_path: Path) -> None:
    root = write_small(tmp_path).root
    (root / "videos").rename(root / "video")
    with pytest.raises(ConfigError) as caught:
        LeRobot().survey(root, {})
    found = str(caught.value)
    assert "meta/info.json places the first one at videos/chunk-000/" in found
    assert "but it is at video/chunk-000/" in found
    assert "rename the folder or correct video_path" in found


def test_videos_that_were_not_fetched_are_counted_by_episode(tmp_path: Path) -> None:
    root = write_small(tmp_path).root
    shutil.rmtree(root / "videos")
    refs = list(LeRobot().discover(root, LeRobot().survey(root, {})))
    assert [(ref.problem or ("",))[0] for ref in refs] == [Code.MISSING_VIDEO] * 3
