"""Every way a corpus can be damaged is found, in the file where it is, and a sound corpus has no findings."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.synthetic import write_part
from ingest.corpus import committed_episodes, publishing, snapshot
from ingest.corpus.commit import datasets_of, stored_episodes
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.lerobot_meta import SIDECAR, Dataset, older_sidecar, project, whole_files
from ingest.corpus.writer import recover
from ingest.storage.local import LocalStorage
from ingest.verify.corpus import VerifyProgress, verify
from ingest.verify.finding import REMEDIES, RULES, CheckCode, Finding, excerpt, finding
from ingest.verify.meta import first_difference
from schemas.catalog import ADDED_COLUMNS
from schemas.errors import ConfigError
from tests.faults.runs import run
from tests.ingest.verify_corpus import (
    build_mixed,
    build_toy,
    data_file,
    dataset,
    edit,
    grey,
    remux,
    replace_part,
    rewrite_column,
    rewrite_rows,
    rewrite_table,
    video_file,
)
from tests.ingest.video_files import CODECS, write_source

pytestmark = pytest.mark.slow  # `make check` has a minute; `make test` runs them

# Damages a corpus; returns the file that every finding must name.
Damage = Callable[[Path], Path]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four one-armed episodes with achieved actions and one camera."""
    root = tmp_path_factory.mktemp("verify")
    return build_toy(root / "toy", root / "corpus", run_id="first")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same and two-armed ones with commanded actions, two cameras and their poses."""
    return build_mixed(tmp_path_factory.mktemp("mixed"))


@pytest.fixture
def corpus(sound: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(sound, tmp_path / "corpus"))


def test_a_sound_corpus_has_no_findings_and_all_of_it_was_looked_at(mixed: Path) -> None:
    seen = VerifyProgress()

    def look(now: VerifyProgress) -> None:
        nonlocal seen
        seen = now

    assert verify(mixed, progress=look, deep=True) == []
    rows = snapshot.load(mixed).read(mixed, "episodes", ["length"]).column("length").to_pylist()
    assert (seen.episodes, seen.total, seen.frames) == (7, 7, sum(rows))
    assert len(seen.datasets) == 2


def test_the_result_does_not_depend_on_threads_or_batches(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for episode in (0, 2, 3):
        rewrite_column(data_file(corpus, episode), "index", lambda v: v + 1)
    edit(dataset(corpus) / "meta/episodes.jsonl", "do e", "do x")
    expected = verify(corpus, workers=1)
    monkeypatch.setattr(committed_episodes, "BATCH_EPISODES", 1)
    assert verify(corpus, workers=4) == expected
    assert len({f.path for f in expected}) == 4


# --- one damage, one file --------------------------------------------------------------------------------------------


def wrong_total_frames(corpus: Path) -> Path:
    return edit(dataset(corpus) / "meta/info.json", '"total_frames": 41', '"total_frames": 40')


def wrong_length_line(corpus: Path) -> Path:
    return edit(dataset(corpus) / "meta/episodes.jsonl", '"length": 12', '"length": 13')


def edited_task(corpus: Path) -> Path:
    return edit(dataset(corpus) / "meta/tasks.jsonl", "do e", "do E")


def missing_stats_line(corpus: Path) -> Path:
    path = dataset(corpus) / "meta/episodes_stats.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:1] + lines[2:]))
    return path


def missing_last_stats_line(corpus: Path) -> Path:
    path = dataset(corpus) / "meta/episodes_stats.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    return path


def blank_line_at_the_end(corpus: Path) -> Path:
    path = dataset(corpus) / "meta/tasks.jsonl"
    path.write_text(path.read_text() + "\n")
    return path


def stats_of_other_values(corpus: Path) -> Path:
    return edit(dataset(corpus) / "meta/episodes_stats.jsonl", '"count": [12]', '"count": [11]')


def no_modality(corpus: Path) -> Path:
    path = dataset(corpus) / "meta/modality.json"
    path.unlink()
    return path


def extra_meta(corpus: Path) -> Path:
    path = dataset(corpus) / "meta/stats.json"
    path.write_text("{}")
    return path


def slow_timestamps(corpus: Path) -> Path:
    return rewrite_column(data_file(corpus), "timestamp", lambda v: v * np.float32(1.5))


def late_timestamps(corpus: Path) -> Path:
    """Steps are right, so LeRobot's own check is content."""
    return rewrite_column(data_file(corpus), "timestamp", lambda v: v + np.float32(0.1))


def shifted_index(corpus: Path) -> Path:
    return rewrite_column(data_file(corpus), "index", lambda v: v + 1)


def frame_index_from_1(corpus: Path) -> Path:
    return rewrite_column(data_file(corpus), "frame_index", lambda v: v + 1)


def other_episode_index(corpus: Path) -> Path:
    return rewrite_column(data_file(corpus), "episode_index", lambda v: v + 1)


def nan_in_action(corpus: Path) -> Path:
    def change(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        values[3, 2] = np.nan
        return values

    return rewrite_column(data_file(corpus), "action", change)


def null_in_action(corpus: Path) -> Path:
    def change(table: pa.Table) -> pa.Table:
        rows = table.column("action").to_pylist()
        rows[2] = None
        column = pa.array(rows, table.schema.field("action").type)
        return table.set_column(table.schema.get_field_index("action"), "action", column)

    return rewrite_rows(data_file(corpus), change)


def task_index_out_of_range(corpus: Path) -> Path:
    return rewrite_column(data_file(corpus), "task_index", lambda v: v + 50)


def task_of_another_episode(corpus: Path) -> Path:
    return rewrite_column(data_file(corpus), "task_index", lambda v: v * 0)


def narrow_action(corpus: Path) -> Path:
    return rewrite_column(data_file(corpus), "action", lambda v: v[:, :6])


def doubles(corpus: Path) -> Path:
    return rewrite_column(data_file(corpus), "observation.state", lambda v: v.astype(np.float64))


def number_masks(corpus: Path) -> Path:
    return rewrite_column(data_file(corpus), "action.valid", lambda v: v.astype(np.int64))


def no_action_column(corpus: Path) -> Path:
    return rewrite_rows(data_file(corpus), lambda t: t.drop_columns(["action"]))


def a_row_less(corpus: Path) -> Path:
    return rewrite_rows(data_file(corpus), lambda t: t.slice(0, t.num_rows - 1))


def two_row_groups(corpus: Path) -> Path:
    return rewrite_rows(data_file(corpus), lambda t: t, row_group_size=5)


def list_in_metadata(corpus: Path) -> Path:
    """What datasets >= 4 writes and lerobot 0.3.3 cannot read."""

    def change(table: pa.Table) -> pa.Table:
        said = table.schema.metadata[b"huggingface"].replace(b"Sequence", b"List")
        return table.replace_schema_metadata({"huggingface": said})

    return rewrite_rows(data_file(corpus), change)


def scaled_rotation(corpus: Path) -> Path:
    def change(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        values[4, 3:9] *= 1.01
        return values

    return rewrite_column(data_file(corpus), "observation.state", change)


def skewed_camera_pose(corpus: Path) -> Path:
    def change(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        values[4, 6:9] = values[4, 3:6]
        return values

    path = data_file(corpus, 0, "agibot_world")
    return rewrite_column(path, "observation.camera_pose.head", change)


def wide_open_gripper(corpus: Path) -> Path:
    def change(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        values[2, 9] = 1.5
        return values

    return rewrite_column(data_file(corpus), "action", change)


def valid_last_action(corpus: Path) -> Path:
    return rewrite_column(data_file(corpus), "action.valid", lambda v: v | True)


def action_one_row_late(corpus: Path) -> Path:
    return rewrite_column(data_file(corpus), "action", lambda v: np.roll(v, 1, axis=0))


def action_without_state(corpus: Path) -> Path:
    def change(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        values[0, 0] = False
        return values

    path = data_file(corpus, 1, "agibot_world")
    return rewrite_column(path, "observation.valid", change)


def other_values(corpus: Path) -> Path:
    """Sound in itself, but not what was committed."""
    return rewrite_column(
        data_file(corpus, 0, "agibot_world"), "observation.joint_position_rad", lambda v: v + 1
    )


def truncated_rows(corpus: Path) -> Path:
    path = data_file(corpus)
    path.write_bytes(path.read_bytes()[:-100])
    return path


def enlarged_rows(corpus: Path) -> Path:
    path = data_file(corpus)
    with path.open("r+b") as file:
        file.truncate(80 * 2**20)  # sparse
    return path


def missing_rows(corpus: Path) -> Path:
    path = data_file(corpus)
    path.unlink()
    return path


def a_folder_instead(corpus: Path) -> Path:
    path = missing_rows(corpus)
    path.mkdir()
    return path


def a_link_out(corpus: Path) -> Path:
    path = data_file(corpus)
    path.rename(corpus.parent / "elsewhere.parquet")
    path.symlink_to(corpus.parent / "elsewhere.parquet")
    return path


def missing_video(corpus: Path) -> Path:
    path = video_file(corpus)
    path.unlink()
    return path


def short_video(corpus: Path) -> Path:
    """10 of 12 frames: lerobot 0.3.3 accepts it until one of the others is asked for."""
    return remux(video_file(corpus), keep=10)


def cut_video(corpus: Path) -> Path:
    path = video_file(corpus)
    path.write_bytes(path.read_bytes()[:600])
    return path


def late_pictures(corpus: Path) -> Path:
    """Half a picture late: an edit list may hide whole shifts."""
    return remux(video_file(corpus), stretch=2)


def other_codec(corpus: Path) -> Path:
    codec, options, _ = CODECS["mpeg4_b"]
    return write_source(
        video_file(corpus), grey(12), codec=codec, options=options, rate=Fraction(10)
    )


def other_size(corpus: Path) -> Path:
    options = {"g": "10", "bf": "0"}
    return write_source(video_file(corpus), grey(12, 64), options=options, rate=Fraction(10))


def other_pixels(corpus: Path) -> Path:
    options = {"g": "10", "bf": "0"}
    return write_source(
        video_file(corpus), grey(12), options=options, rate=Fraction(10), pix_fmt="yuv444p"
    )


def one_long_group(corpus: Path) -> Path:
    options = {"x264-params": "keyint=250:scenecut=0"}
    return write_source(video_file(corpus), grey(12), options=options, rate=Fraction(10))


def open_groups(corpus: Path) -> Path:
    params = "keyint=4:min-keyint=4:open-gop=1:bframes=2:b-adapt=0:scenecut=0"
    options = {"x264-params": params}
    return write_source(video_file(corpus), grey(12), options=options, rate=Fraction(10))


def swapped_videos(corpus: Path) -> Path:
    """0 and 3 have the same length, so nothing but the bytes tells them apart."""
    a, b = video_file(corpus, 0), video_file(corpus, 3)
    spare = a.with_name("spare")
    a.rename(spare)
    b.rename(a)
    spare.rename(b)
    return a


def flipped_picture_byte(corpus: Path) -> Path:
    path = video_file(corpus)
    data = bytearray(path.read_bytes())
    data[-1] ^= 0xFF
    path.write_bytes(data)
    return path


def extra_data_file(corpus: Path) -> Path:
    return Path(shutil.copy(data_file(corpus), data_file(corpus, 4)))


def extra_camera(corpus: Path) -> Path:
    path = dataset(corpus) / "videos/chunk-000/observation.images.back/episode_000000.mp4"
    path.parent.mkdir()
    return Path(shutil.copy(video_file(corpus), path))


def wrong_chunk(corpus: Path) -> Path:
    path = dataset(corpus) / "data/chunk-001/episode_000000.parquet"
    path.parent.mkdir()
    return Path(shutil.copy(data_file(corpus), path))


def half_a_file(corpus: Path) -> Path:
    """What a kill in the middle of `LocalStorage.write` leaves."""
    path = dataset(corpus) / "meta/.info.json.part"
    path.write_bytes(b"{")
    return path


def extra_dataset(corpus: Path) -> Path:
    path = corpus / "datasets/toy/other/meta/info.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    return path


def last_part(corpus: Path, table: str) -> Path:
    return corpus / snapshot.load(corpus).parts(table)[-1].path


def missing_part(corpus: Path) -> Path:
    path = last_part(corpus, "episodes")
    path.unlink()
    return path


def flipped_part(corpus: Path) -> Path:
    path = last_part(corpus, "measurements")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


def extra_part(corpus: Path) -> Path:
    path = last_part(corpus, "episodes")
    return Path(shutil.copy(path, path.with_name("part-00000000000000000000000000000000.parquet")))


def foreign(relative: str) -> Damage:
    """A file of nobody's, in the root or in a room."""

    def damage(corpus: Path) -> Path:
        path = corpus / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("buy milk")
        return path

    damage.__name__ = relative.replace("/", "_")
    return damage


FOREIGN = (
    "notes.txt",
    ".hidden",
    "corpus.json.bak",
    "backup/notes.txt",
    "ledger/notes.txt",
    "ledger/old/first.jsonl",
    "quarantine/notes.txt",
    "cache/notes.txt",
    "cache/captions/notes.txt",
    "cache/captions/00/notes.txt",
    "manifests/notes.txt",
    "manifests/train/notes.txt",
    "manifests/train/old/manifest.json",
    "staging/notes.txt",
    "staging/backup/notes.txt",
)
HALVES = (".corpus.json.part", "ledger/.first.jsonl.part", "cache/captions/00/.a.json.part")
OWN = (
    ".writer",
    ".unfinished",
    ".nodes",
    "ledger/second.jsonl",
    "quarantine/second.jsonl",
    "cache/captions/00/00aa.json",
    "manifests/.builders",
    "manifests/erased.json",
    "manifests/train/manifest.json",
    "manifests/train/manifest.parquet",
    "manifests/train/redaction.json",
    "manifests/.train.123.part/manifest.json",
    "manifests/.erased.json.part",
    "manifests/_cache/rep/0123456789abcdef/000000-00.parquet",
    "manifests/_cache/training/.anchors-0.lock",
    "staging/0-1-2.digest/staged.arrow",
    "staging/.nodes.0123/nonce",
    "staging/erase.first/intent.json.txt",
)


def truncated_snapshot(corpus: Path) -> Path:
    path = max((corpus / snapshot.FOLDER).iterdir())
    path.write_text(path.read_text()[:-20])
    return path


def renumbered_snapshot(corpus: Path) -> Path:
    path = max((corpus / snapshot.FOLDER).iterdir())
    return path.rename(path.with_name("00000099.json"))


def wrong_marker(corpus: Path) -> Path:
    path = corpus / "corpus.json"
    path.write_text('{"format_version": 1}')
    return path


DAMAGE: list[tuple[Damage, CheckCode]] = [
    # the ten planted faults of practice/env.md, and one in two variants
    (wrong_total_frames, CheckCode.META_DIFFERS),
    (wrong_length_line, CheckCode.META_DIFFERS),
    (slow_timestamps, CheckCode.DATA_TIMESTAMP),
    (late_timestamps, CheckCode.DATA_TIMESTAMP),
    (shifted_index, CheckCode.DATA_INDEX),
    (nan_in_action, CheckCode.DATA_NOT_FINITE),
    (missing_video, CheckCode.FILE_MISSING),
    (short_video, CheckCode.VIDEO_FRAMES),
    (task_index_out_of_range, CheckCode.DATA_TASK_INDEX),
    (narrow_action, CheckCode.DATA_COLUMNS),
    (missing_stats_line, CheckCode.META_DIFFERS),
    # meta/
    (missing_last_stats_line, CheckCode.META_DIFFERS),
    (stats_of_other_values, CheckCode.META_DIFFERS),
    (edited_task, CheckCode.META_DIFFERS),
    (blank_line_at_the_end, CheckCode.META_DIFFERS),
    (no_modality, CheckCode.META_MISSING),
    (extra_meta, CheckCode.FILE_EXTRA),
    # data/
    (frame_index_from_1, CheckCode.DATA_FRAME_INDEX),
    (other_episode_index, CheckCode.DATA_EPISODE_INDEX),
    (null_in_action, CheckCode.DATA_NOT_FINITE),
    (task_of_another_episode, CheckCode.DATA_TASK_INDEX),
    (doubles, CheckCode.DATA_COLUMNS),
    (number_masks, CheckCode.DATA_COLUMNS),
    (no_action_column, CheckCode.DATA_COLUMNS),
    (a_row_less, CheckCode.DATA_LENGTH),
    (two_row_groups, CheckCode.DATA_ROW_GROUPS),
    (list_in_metadata, CheckCode.DATA_METADATA),
    (scaled_rotation, CheckCode.DATA_ROTATION),
    (wide_open_gripper, CheckCode.DATA_GRIPPER),
    (valid_last_action, CheckCode.DATA_ACTION),
    (action_one_row_late, CheckCode.DATA_ACTION),
    (truncated_rows, CheckCode.DATA_UNREADABLE),
    (enlarged_rows, CheckCode.DATA_UNREADABLE),
    (missing_rows, CheckCode.FILE_MISSING),
    (a_folder_instead, CheckCode.FILE_UNREADABLE),
    (a_link_out, CheckCode.UNSAFE_PATH),
    # videos/
    (cut_video, CheckCode.VIDEO_UNREADABLE),
    (late_pictures, CheckCode.VIDEO_TIMES),
    (other_codec, CheckCode.VIDEO_FORMAT),
    (other_size, CheckCode.VIDEO_FORMAT),
    (other_pixels, CheckCode.VIDEO_FORMAT),
    (one_long_group, CheckCode.VIDEO_KEYFRAMES),
    (open_groups, CheckCode.VIDEO_KEYFRAMES),
    (flipped_picture_byte, CheckCode.FILE_CHANGED),
    # what should not be there
    (extra_data_file, CheckCode.FILE_EXTRA),
    (extra_camera, CheckCode.FILE_EXTRA),
    (wrong_chunk, CheckCode.FILE_EXTRA),
    (extra_dataset, CheckCode.FILE_EXTRA),
    (half_a_file, CheckCode.FILE_UNFINISHED),
    *((foreign(name), CheckCode.FILE_EXTRA) for name in FOREIGN),
    *((foreign(name), CheckCode.FILE_UNFINISHED) for name in HALVES),
    # the catalog itself
    (missing_part, CheckCode.FILE_MISSING),
    (flipped_part, CheckCode.CATALOG_FILE),
    (extra_part, CheckCode.CATALOG_EXTRA),
    (truncated_snapshot, CheckCode.SNAPSHOT),
    (renumbered_snapshot, CheckCode.SNAPSHOT),
    (wrong_marker, CheckCode.CORPUS_MARKER),
]
DAMAGE_OF_MIXED: list[tuple[Damage, CheckCode]] = [
    (skewed_camera_pose, CheckCode.DATA_ROTATION),
    (action_without_state, CheckCode.DATA_ACTION),
    (other_values, CheckCode.FILE_CHANGED),
    (other_values, CheckCode.STATS_DIFFER),
]


def name_of(value: Any) -> str:
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize(("damage", "check"), DAMAGE, ids=name_of)
def test_damage_is_found_in_its_file_and_nowhere_else(
    corpus: Path, damage: Damage, check: CheckCode
) -> None:
    expect_only(corpus, damage(corpus), check)


@pytest.mark.parametrize(("damage", "check"), DAMAGE_OF_MIXED, ids=name_of)
def test_damage_of_other_bodies_is_found_in_its_file_and_nowhere_else(
    mixed: Path, tmp_path: Path, damage: Damage, check: CheckCode
) -> None:
    corpus = Path(shutil.copytree(mixed, tmp_path / "corpus"))
    expect_only(corpus, damage(corpus), check)


def test_what_commands_write_is_no_finding(corpus: Path) -> None:
    for name in OWN:
        foreign(name)(corpus)
    assert verify(corpus) == []


def expect_only(corpus: Path, path: Path, check: CheckCode) -> None:
    findings = verify(corpus)
    assert {f.path for f in findings} == {path.relative_to(corpus).as_posix()}
    assert check in {f.check for f in findings}
    for each in findings:
        assert "found " in each.message
        assert "; expected " in each.message
        assert each.remedy == REMEDIES[each.check]


def test_fillers_where_nothing_is_valid_may_be_anything(corpus: Path) -> None:
    """The last achieved action leads nowhere: its values are looked at by nobody, and are no rotation here."""

    def change(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        values[-1] = 2.0
        return values

    rewrite_column(data_file(corpus), "action", change)
    assert {f.check for f in verify(corpus)} == {CheckCode.FILE_CHANGED, CheckCode.STATS_DIFFER}


def test_each_rule_about_actions_is_said_of_each_slice(corpus: Path) -> None:
    valid_last_action(corpus)
    said = [f.message for f in verify(corpus) if f.check is CheckCode.DATA_ACTION]
    assert sum("of left." in message and "in the last row" in message for message in said) == 3
    assert sum("1.0 of the actions valid" in message for message in said) == 1


def test_swapped_videos_are_both_found(corpus: Path) -> None:
    swapped_videos(corpus)
    assert [(f.path[-18:], f.check) for f in verify(corpus)] == [
        ("episode_000000.mp4", CheckCode.FILE_CHANGED),
        ("episode_000003.mp4", CheckCode.FILE_CHANGED),
    ]


def test_only_deep_finds_a_picture_in_the_middle_that_does_not_decode(corpus: Path) -> None:
    path = video_file(corpus)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    middle = start + (len(data) - start) // 2
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(data)
    quick = {f.check for f in verify(corpus)}
    deep = {f.check for f in verify(corpus, deep=True)}
    assert CheckCode.FILE_CHANGED in quick
    assert CheckCode.VIDEO_UNREADABLE in deep


def test_a_file_that_may_not_be_read_is_a_finding(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patched, because root may read everything."""
    forbidden, opened = data_file(corpus), Path.open

    def refuse(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path == forbidden:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    [found] = verify(corpus)
    assert (found.check, found.path) == (
        CheckCode.FILE_UNREADABLE,
        forbidden.relative_to(corpus).as_posix(),
    )
    assert "Permission denied" in found.message


# --- damage that a wrong writer would do: the catalog agrees with its snapshot ----------------------------------------


def changed(**values: Any) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    """Change columns of the second row."""
    return lambda rows: [rows[0], rows[1] | values, *rows[2:]]


TOY, ONE_MORE = "datasets/toy/", lambda rows: [*rows, rows[0]]
CATALOG_DAMAGE: list[tuple[str, Any, int, CheckCode, str]] = [
    ("episodes", changed(scene_id="kitchen"), 2, CheckCode.CONTENT_CHANGED, "episode_000003.parquet"),
    ("episodes", changed(content_sha256="0"), 2, CheckCode.CONTENT_CHANGED, "episode_000003.parquet"),
    ("segments", changed(text="other"), 2, CheckCode.CONTENT_CHANGED, "episode_000002.parquet"),
    ("measurements", changed(value=0.5), 2, CheckCode.CONTENT_CHANGED, "episode_000002.parquet"),
    ("episodes", changed(index_from=3), 2, CheckCode.NUMBERING, TOY),
    ("episodes", changed(episode_index=7), 2, CheckCode.NUMBERING, TOY),
    ("episodes", changed(task_counts=[99]), 2, CheckCode.NUMBERING, TOY),
    ("episodes", changed(task_counts=[99]), 2, CheckCode.DATA_TASK_INDEX, "episode_000003.parquet"),
    ("episodes", changed(action_coverage=0.5), 2, CheckCode.DATA_ACTION, "episode_000003.parquet"),
    ("episodes", changed(dataset_path="datasets/x/y"), 2, CheckCode.CATALOG_CONTENT, "datasets/x/y"),
    ("episodes", changed(cameras=[]), 2, CheckCode.NUMBERING, TOY),
    ("episodes", lambda rows: rows[:1], 2, CheckCode.ACCOUNTING, "catalog/episodes"),
    ("episodes", ONE_MORE, 2, CheckCode.ACCOUNTING, "catalog/episodes"),
    ("verdicts", lambda rows: rows[1:], 2, CheckCode.ACCOUNTING, "catalog/verdicts"),
    ("verdicts", ONE_MORE, 2, CheckCode.ACCOUNTING, "catalog/verdicts"),
    ("verdicts", changed(state="failed"), 2, CheckCode.ACCOUNTING, "catalog/runs: first"),
    ("runs", lambda rows: [rows[0] | {"discovered": 9}], 0, CheckCode.ACCOUNTING, "catalog/runs: first"),
    ("runs", lambda rows: [rows[0] | {"recipe_json": "{"}], 0, CheckCode.CATALOG_CONTENT, "catalog"),
    ("artifacts", lambda rows: rows[:-1], 2, CheckCode.NUMBERING, TOY),
    ("artifacts", lambda rows: rows[1:], 0, CheckCode.CATALOG_CONTENT, TOY),
    ("artifacts", changed(detail_json="{"), 2, CheckCode.CATALOG_CONTENT, "catalog"),
    ("segments", lambda rows: [*rows, rows[0] | {"uid": "z"}], 2, CheckCode.ACCOUNTING, "catalog/segments"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "change", "part", "check", "where"), CATALOG_DAMAGE)
def test_rows_that_a_wrong_writer_would_commit_are_found(
    corpus: Path, table: str, change: Any, part: int, check: CheckCode, where: str
) -> None:
    rewrite_table(corpus, table, change, part)
    findings = verify(corpus)
    assert [f for f in findings if f.check is check and where in f.path], findings


def test_changed_statistics_are_found(corpus: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        details = [json.loads(row["detail_json"]) for row in rows]
        details[0]["action"]["mean"][0] += 1e-4
        del details[0]["observation.state"]
        details[1]["max"][0] = [[1.5]]
        details[1]["count"] = [1]
        texts = [json.dumps(detail) for detail in details]
        return [row | {"detail_json": text} for row, text in zip(rows, texts, strict=True)]

    rewrite_table(corpus, "artifacts", change)
    said = [(f.check, Path(f.path).name) for f in verify(corpus)]
    assert said == [
        (CheckCode.STATS_DIFFER, "episode_000002.parquet"),
        (CheckCode.STATS_INCOMPLETE, "episode_000002.parquet"),
        (CheckCode.META_DIFFERS, "eicorpus.json"),  # which has the digest of the next one
        (CheckCode.META_DIFFERS, "episodes_stats.jsonl"),
        (CheckCode.STATS_DIFFER, "episode_000002.mp4"),
        (CheckCode.STATS_DIFFER, "episode_000002.mp4"),
    ]


def test_least_and_greatest_values_are_exact(corpus: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        detail = json.loads(rows[0]["detail_json"])
        detail["action"]["min"][0] *= 1 + 1e-9
        return [rows[0] | {"detail_json": json.dumps(detail)}, *rows[1:]]

    rewrite_table(corpus, "artifacts", change)
    [found] = [f for f in verify(corpus) if f.check is CheckCode.STATS_DIFFER]
    assert "min of 'action'" in found.message


def test_a_run_cannot_have_committed_more_than_it_counted(corpus: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [rows[0] | {"committed": 3, "quarantined": 2}]  # the sum still fits

    rewrite_table(corpus, "runs", change, 0)
    [found] = verify(corpus)
    assert found.message == "found 4 verdicts `committed`; expected 3, the count of the run"


def test_a_part_with_other_rows_than_the_snapshot_says_is_found(corpus: Path) -> None:
    path = max((corpus / snapshot.FOLDER).iterdir())
    raw = json.loads(path.read_text())
    raw["tables"]["episodes"][0]["rows"] += 1
    path.write_text(json.dumps(raw))
    [found] = verify(corpus)
    assert (found.check, found.message) == (CheckCode.CATALOG_FILE, "found 1 rows; expected 2")


def test_columns_of_another_type_are_found(corpus: Path) -> None:
    path = corpus / snapshot.load(corpus).parts("episodes")[2].path
    table = pq.read_table(path, partitioning=None)
    at = table.schema.get_field_index("length")
    other = table.set_column(at, "length", table.column("length").cast(pa.int32()))
    replace_part(corpus, "episodes", other.append_column("colour", pa.nulls(2, pa.string())))
    assert [f.check for f in verify(corpus)] == [CheckCode.CATALOG_SCHEMA] * 2


def test_a_part_from_before_a_column_existed_is_sound(corpus: Path) -> None:
    """Columns may be added later, and an older episode's digest is over those that say something."""
    path = corpus / snapshot.load(corpus).parts("episodes")[2].path
    table = pq.read_table(path, partitioning=None)
    replace_part(corpus, "episodes", table.drop_columns(list(ADDED_COLUMNS["episodes"])))
    assert verify(corpus) == []
    batches = committed_episodes.committed_batches(corpus, snapshot.load(corpus))
    absent = [each.row.absent_cameras for batch in batches for each in batch]
    assert absent[:4] == [[], [], None, None]


def test_a_part_without_a_column_that_was_always_there_is_found(corpus: Path) -> None:
    path = corpus / snapshot.load(corpus).parts("episodes")[2].path
    table = pq.read_table(path, partitioning=None).drop_columns(["split"])
    replace_part(corpus, "episodes", table)
    assert [f.check for f in verify(corpus)] == [CheckCode.CONTENT_CHANGED] * 2


def test_rows_that_curation_appends_are_no_change_of_content(corpus: Path) -> None:
    current = snapshot.load(corpus)
    rows = current.read(corpus, "measurements").to_pylist()
    later = [row | {"name": "sharpness", "value": 0.25} for row in rows[:4]]
    part = write_part(LocalStorage(), corpus, "measurements", later)
    publishing.publish(LocalStorage(), corpus, current, {"measurements": part}, "curation")
    assert verify(corpus) == []


def test_nothing_else_is_compared_with_a_damaged_catalog(corpus: Path) -> None:
    flipped_part(corpus)
    shutil.rmtree(corpus / "datasets")
    assert [f.check for f in verify(corpus)] == [CheckCode.CATALOG_FILE]


# --- remedies do what they say ----------------------------------------------------------------------------------------


def test_meta_is_rebuilt_by_its_remedy(corpus: Path) -> None:
    edited_task(corpus)
    (dataset(corpus) / "meta/eicorpus.json").unlink()
    current = snapshot.load(corpus)
    recover(CorpusLayout(corpus), LocalStorage(), current, datasets_of(corpus, current))
    assert verify(corpus) == []


def test_what_a_stopped_run_left_is_swept_by_its_remedy(corpus: Path, sound: Path) -> None:
    extra_data_file(corpus)
    extra_dataset(corpus)
    extra_part(corpus)
    assert len(verify(corpus)) == 3
    run(sound.parent / "toy", corpus, run_id="again")
    assert verify(corpus) == []


def test_a_damaged_snapshot_is_made_again_by_its_remedy(corpus: Path, sound: Path) -> None:
    truncated_snapshot(corpus).unlink()
    assert verify(corpus)
    run(sound.parent / "toy", corpus, run_id="again")
    assert verify(corpus) == []


def test_parts_of_a_snapshot_lie_in_the_folder_of_their_table_once(corpus: Path) -> None:
    path = max((corpus / snapshot.FOLDER).iterdir())
    raw = json.loads(path.read_text())
    tables = raw["tables"]
    tables["runs"].append(tables["runs"][0])
    tables["captions"].append(tables["runs"][0])
    path.write_text(json.dumps(raw))
    assert [(f.check, f.path.split("/")[1]) for f in verify(corpus)] == [
        (CheckCode.CATALOG_CONTENT, "captions"),
        (CheckCode.CATALOG_CONTENT, "runs"),
    ]


def test_a_snapshot_whose_part_lies_outside_is_refused_whole(corpus: Path) -> None:
    path = max((corpus / snapshot.FOLDER).iterdir())
    raw = json.loads(path.read_text())
    raw["tables"]["captions"].append(raw["tables"]["runs"][0] | {"path": "../../elsewhere"})
    path.write_text(json.dumps(raw))
    assert [f.check for f in verify(corpus)] == [CheckCode.SNAPSHOT]


# --- the edges --------------------------------------------------------------------------------------------------------


def test_no_corpus_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no corpus\.json"):
        verify(tmp_path)


def test_a_corpus_that_nothing_was_committed_to_is_sound(tmp_path: Path) -> None:
    (tmp_path / "corpus.json").write_text(
        '{"format_version": 1, "uid": "u", "created_by_recipe": "r"}'
    )
    assert verify(tmp_path) == []


def test_a_corpus_that_is_being_written_is_refused(corpus: Path) -> None:
    with (corpus / ".writer").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another eicorpus command is writing to this corpus"):
            verify(corpus)


def test_meta_of_before_it_had_digests_is_sound_and_is_given_them(corpus: Path) -> None:
    path = dataset(corpus) / "meta" / SIDECAR
    now = path.read_bytes()
    path.write_bytes(older_sidecar(now))
    assert verify(corpus) == []
    current = snapshot.load(corpus)
    assert recover(CorpusLayout(corpus), LocalStorage(), current, datasets_of(corpus, current))
    assert path.read_bytes() == now


def test_meta_is_what_the_committer_would_rebuild(mixed: Path) -> None:
    """The comparison that streams and the projection that rebuilds give the same bytes."""
    current = snapshot.load(mixed)
    for path, known in datasets_of(mixed, current).items():
        empty = Dataset(
            path=path,
            robot_type=known.robot_type,
            fps=known.fps,
            features=known.features,
            spec=known.spec,
        )
        lines = project(empty, stored_episodes(mixed, current, path))
        for name, data in {**lines.files(), **whole_files(empty)}.items():
            assert (mixed / path / "meta" / name).read_bytes() == data


@pytest.mark.parametrize(
    ("found", "expected", "message"),
    [
        (b"a\nb\n", b"a\nc\n", "found line 8: 'b\\n'; expected 'c\\n'"),
        (b"a\n", b"a\nc\n", "found line 8: the end of the file; expected 'c\\n'"),
        (b"a\nb\n", b"a\n", "found line 8: 'b\\n'; expected the end of the file"),
        (b"a\nb", b"a\nb\n", "found line 8: 'b'; expected 'b\\n'"),
        ("é\u2028x\n".encode(), "é\u2028y\n".encode(), "found line 7: 'é\\u2028x\\n'; expected 'é\\u2028y\\n'"),
    ],
)  # fmt: skip
def test_the_first_difference_is_named(found: bytes, expected: bytes, message: str) -> None:
    assert first_difference("f", found, expected, 6).message == message


def test_an_excerpt_shows_the_place_and_is_short() -> None:
    assert excerpt("x" * 500 + "HERE" + "y" * 500, 500).startswith("…")
    assert "HERE" in excerpt("x" * 500 + "HERE" + "y" * 500, 500)
    assert len(excerpt("x" * 5000, 2000)) < 110


def test_findings_sort_by_file_and_name_their_remedy() -> None:
    a = finding(CheckCode.PEER, "a", 1, 2)
    assert a == Finding(
        check=CheckCode.PEER,
        path="a",
        message="found 1; expected 2",
        remedy=REMEDIES[CheckCode.PEER],
    )
    assert sorted([finding(CheckCode.CATALOG_FILE, "b", 1, 2), a])[0] is a


def test_every_check_has_its_rule_and_its_remedy() -> None:
    """docs/reference/codes.md is generated from both (tests/test_docs.py)."""
    assert set(RULES) == set(REMEDIES) == set(CheckCode)
