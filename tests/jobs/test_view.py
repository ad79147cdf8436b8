"""`eicorpus view`: an .rrd file that Rerun verifies, and that holds the points, poses and numbers of the stored episode."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ingest.catalog.catalog import Catalog
from ingest.corpus import snapshot
from ingest.corpus.layout import MARKER, data_file, open_or_create
from ingest.storage.local import LocalStorage
from ingest.stored_episode import StoredEpisode
from jobs.command_table import loaded
from jobs.commands import view
from jobs.demo.command import raw_of
from schemas.embodiment import embodiment_for
from schemas.errors import ConfigError, SourceError
from tests.faults.runs import run

HANDS, ROBOT, VIDEO = "egodex", "droid", "ego4d"


@dataclass(frozen=True, kw_only=True)
class Viewable:
    """A corpus of hands with a posed camera, a robot with two, and videos alone; tiers of the built-in policy."""

    root: Path
    uids: Mapping[str, str]  # of one episode of each source; the hand that is lost for a while
    rows: Mapping[str, Mapping[str, Any]]

    def episode(self, source: str) -> StoredEpisode:
        with Catalog.open(self.root) as catalog:
            return StoredEpisode.read(catalog, self.uids[source])

    def stored(self, source: str) -> pa.Table:
        row = self.rows[source]
        return pq.read_table(self.root / row["dataset_path"] / data_file(row["episode_index"]))


@pytest.fixture(scope="module")
def viewable(tmp_path_factory: pytest.TempPathFactory) -> Viewable:
    folder = tmp_path_factory.mktemp("viewable")
    for source in (HANDS, ROBOT, VIDEO):
        raw_of(source, folder / source)
        run(folder / source, folder / "corpus", source=source, run_id=source)
    subprocess.run(
        [sys.executable, "-m", "jobs", "tier", str(folder / "corpus")],
        check=True,
        capture_output=True,
    )
    table = snapshot.load(folder / "corpus").read(folder / "corpus", "episodes")
    rows = {row["source"]: row for row in table.to_pylist()}
    lost = pc.ends_with(table["episode_id"], "assemble_tower/10")
    rows[HANDS] = table.filter(lost).to_pylist()[0]
    uids = {source: row["uid"] for source, row in rows.items()}
    return Viewable(root=folder / "corpus", uids=uids, rows=rows)


@pytest.fixture(scope="module")
def recorded(viewable: Viewable, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The file of each source, as the command saves it."""
    pytest.importorskip("rerun", reason="NOT RUN: rerun-sdk is not installed")
    folder = tmp_path_factory.mktemp("recorded")
    for source, uid in viewable.uids.items():
        viewed(viewable.root, uid, "--save", folder / f"{source}.rrd")
    return {source: folder / f"{source}.rrd" for source in viewable.uids}


def viewed(root: Path, *words: object) -> dict[str, Any]:
    """The answer of the command; its errors are raised."""
    with redirect_stdout(StringIO()) as printed:
        loaded("view").main([str(root), *map(str, words), "--json"], standalone_mode=False)
    answer: dict[str, Any] = json.loads(printed.getvalue())["result"]
    return answer


def columns_of(path: Path, entity: str, *, is_static: bool = False) -> dict[str, list[Any]]:
    """Component -> rows of an entity, with its two clocks, by Rerun's own reader."""
    from rerun.chunk import RrdReader

    chunks = [
        chunk.to_record_batch()
        for chunk in RrdReader(path).stream()
        if chunk.entity_path == entity and chunk.is_static == is_static and chunk.num_columns
    ]
    out: dict[str, list[Any]] = {}
    for chunk in chunks:
        for name in chunk.schema.names:
            out.setdefault(name, []).extend(chunk.column(name).to_pylist())
    return out


def entities_of(path: Path) -> set[str]:
    from rerun.chunk import RrdReader

    return {chunk.entity_path for chunk in RrdReader(path).stream()}


@pytest.mark.slow
def test_rerun_verifies_every_file(recorded: dict[str, Path]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rerun", "rrd", "verify", *map(str, recorded.values())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(recorded)} files verified without error" in done.stdout + done.stderr


@pytest.mark.slow
def test_points_of_a_hand_are_the_stored_ones(
    viewable: Viewable, recorded: dict[str, Path]
) -> None:
    """By hand from the file's columns: the wrist is the end-effector's pose without the registry's constant."""
    stored, episode = viewable.stored(HANDS), viewable.episode(HANDS)
    state = np.array(stored["observation.state"].to_pylist())
    names = list(episode.features["observation.state"])
    masks = np.array(stored["observation.valid"].to_pylist())
    T_wrist_eef = embodiment_for("human_hands").arms["right"].T_src_hand
    assert T_wrist_eef is not None
    start = names.index("right.position_m.x")
    first = names.index("right.hand_keypoints_m.wrist.x")
    valid = masks[:, episode.features["observation.valid"].index("right.hand_keypoints_m")]
    rows = columns_of(recorded[HANDS], "/world/right/hand")
    assert 0 < (~valid).sum() < len(valid)
    for k, points in enumerate(rows["Points3D:positions"]):
        if not valid[k]:
            assert points == []  # the hand of the timestep before does not stay
            continue
        x, y = state[k, start + 3 : start + 6], state[k, start + 6 : start + 9]
        R_eef = np.stack([x, y, np.cross(x, y)], axis=1)
        R = R_eef @ T_wrist_eef[:3, :3].T
        origin = state[k, start : start + 3] - R @ T_wrist_eef[:3, 3]
        expected = state[k, first : first + 63].reshape(21, 3) @ R.T + origin
        assert np.abs(np.array(points) - expected).max() < 1e-5
    assert rows["timestep"] == list(range(len(state)))
    assert [t.total_seconds() for t in rows["time"]] == pytest.approx([k / 10 for k in rows["timestep"]])  # fmt: skip
    bones = columns_of(recorded[HANDS], "/world/right/hand/bones")["LineStrips3D:strips"]
    for points, strips in zip(rows["Points3D:positions"], bones, strict=True):
        assert len(strips) == (5 if points else 0)
        assert all(strip[0] == points[0] and strip[-1] in points for strip in strips)


@pytest.mark.slow
def test_poses_and_lenses_are_the_stored_ones(
    viewable: Viewable, recorded: dict[str, Path]
) -> None:
    stored = viewable.stored(ROBOT)
    for entity, column in (
        ("/world/left/eef", "observation.state"),
        ("/world/cameras/ext1", "observation.camera_pose.ext1"),
    ):
        pose = np.array(stored[column].to_pylist())[:, :9]
        rows = columns_of(recorded[ROBOT], entity)
        moved = np.array([row[0] for row in rows["Transform3D:translation"]])
        assert np.abs(moved - pose[:, :3]).max() < 1e-6
        turned = np.array([row[0] for row in rows["Transform3D:mat3x3"]])  # column after column
        assert np.abs(turned[:, :6] - pose[:, 3:]).max() < 1e-6
    (camera,) = [c for c in viewable.rows[ROBOT]["cameras"] if c["name"] == "ext1"]
    lens = columns_of(recorded[ROBOT], "/world/cameras/ext1", is_static=True)
    (matrix,) = lens["Pinhole:image_from_camera"][-1]
    assert np.array(matrix).reshape(3, 3).T.ravel().tolist() == camera["K_cam"]
    assert lens["Pinhole:resolution"][-1] == [[camera["width"], camera["height"]]]


@pytest.mark.slow
def test_numbers_are_the_stored_ones_and_actions_at_the_time_they_aim_at(
    viewable: Viewable, recorded: dict[str, Path]
) -> None:
    stored, episode = viewable.stored(HANDS), viewable.episode(HANDS)
    for feature, last, ahead in (("observation.state", "state", 0), ("action", "action", 1)):
        values = np.array(stored[feature].to_pylist())[:, :3]
        mask = "observation.valid" if last == "state" else "action.valid"
        valid = np.array(stored[mask].to_pylist())[:, 0]
        rows = columns_of(recorded[HANDS], f"/series/left.position_m/{last}")
        scalars = np.array(rows["Scalars:scalars"])
        assert np.array_equal(scalars[valid], values[valid])
        assert np.isnan(scalars[~valid]).all()
        assert rows["timestep"] == [k + ahead for k in range(episode.length)]
    robot = viewable.stored(ROBOT)["observation.joint_position_rad"].to_pylist()
    rows = columns_of(recorded[ROBOT], "/series/observation.joint_position_rad")
    assert np.array_equal(rows["Scalars:scalars"], robot)


@pytest.mark.slow
def test_videos_are_whole_and_every_timestep_has_its_frame(
    viewable: Viewable, recorded: dict[str, Path]
) -> None:
    path = recorded[ROBOT]
    for camera, entity in (("ext1", "/world/cameras/ext1/video"), ("wrist", "/videos/wrist")):
        (blob,) = columns_of(path, entity, is_static=True)["AssetVideo:blob"][-1]
        assert bytes(blob) == viewable.episode(ROBOT).view.videos[camera].read_bytes()
        rows = columns_of(path, entity)
        shown_s = [row[0] / 1e9 for row in rows["VideoFrameReference:timestamp"]]
        assert shown_s == pytest.approx([k / 10 for k in rows["timestep"]], abs=1e-3)


@pytest.mark.slow
def test_segments_are_states_and_nothing_holds_after_the_last(
    viewable: Viewable, recorded: dict[str, Path]
) -> None:
    tiers = viewable.episode(HANDS).tiers
    rows = columns_of(recorded[HANDS], "/segments/tier")
    expected = {end: [] for end in tiers["end"]} | {
        start: [tier] for start, tier in tiers.select("start", "tier").iter_rows()
    }
    assert dict(zip(rows["timestep"], rows["StateChange:state"], strict=True)) == expected
    tasks = columns_of(recorded[HANDS], "/segments/task")["StateChange:state"]
    assert tasks[0] == viewable.rows[HANDS]["tasks"]


@pytest.mark.slow
def test_the_blueprint_shows_what_the_recording_has(recorded: dict[str, Path]) -> None:
    from rerun.chunk import RrdReader

    for path in recorded.values():
        reader = RrdReader(path)
        (store,) = reader.blueprints()
        batches = [chunk.to_record_batch() for chunk in reader.stream(store=store)]
        origins = values_of(batches, "ViewBlueprint:space_origin")
        assert {"/world", "/segments", "/about", "/text"} < set(origins)
        entities = entities_of(path)
        # an episode without tiers and captions has no text
        assert [
            o for o in origins if o != "/text" and not any(e.startswith(o) for e in entities)
        ] == []
        drawn_over = "/world/right/hand/**" in values_of(batches, "ViewContents:query")
        assert drawn_over == (path.stem != VIDEO)  # a camera without a pose shows no hands


def values_of(batches: list[pa.RecordBatch], component: str) -> list[str]:
    """All values of a component, whichever entity has it."""
    columns = [batch.column(component) for batch in batches if component in batch.schema.names]
    return [value for column in columns for row in column.to_pylist() for value in row]


@pytest.mark.slow
def test_what_an_episode_lacks_is_listed(
    viewable: Viewable, recorded: dict[str, Path], tmp_path: Path
) -> None:
    assert recorded
    answers = {
        source: viewed(viewable.root, uid, "--save", tmp_path / f"{source}.rrd")
        for source, uid in viewable.uids.items()
    }
    left_out = {s: {e["what"]: e["reason"] for e in a["left_out"]} for s, a in answers.items()}
    assert left_out[ROBOT]["frustum of camera wrist"] == "the source has no intrinsics of it"
    assert left_out[ROBOT]["left hand"] == "the episode has no keypoints of it"
    assert left_out[VIDEO]["series"] == "the episode has neither state nor action"
    assert left_out[VIDEO]["frustum of camera ego"] == "the source has no pose of it"
    assert left_out[HANDS].keys() == {
        "series of left.hand_keypoints_m",
        "series of right.hand_keypoints_m",
        "captions",
    }
    assert answers[ROBOT]["uid"] == viewable.uids[ROBOT]
    assert answers[ROBOT]["num_bytes"] == (tmp_path / "droid.rrd").stat().st_size
    assert not any(entity.startswith("/series") for entity in entities_of(tmp_path / "ego4d.rrd"))


@pytest.mark.slow
def test_a_file_is_replaced_only_on_request(
    viewable: Viewable,
    recorded: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert recorded
    target, uid = tmp_path / "a.rrd", viewable.uids[VIDEO]
    target.write_bytes(b"mine")
    with pytest.raises(ConfigError, match="the file exists"):
        viewed(viewable.root, uid, "--save", target)
    assert target.read_bytes() == b"mine"
    # another process writes it while the recording is being made
    late = tmp_path / "late.rrd"
    monkeypatch.setattr(view, "recording_bytes", lambda _: (b"", [late.write_bytes(b"theirs")][:0]))
    with pytest.raises(ConfigError, match="the file exists"):
        viewed(viewable.root, uid, "--save", late)
    assert late.read_bytes() == b"theirs"
    late.unlink()
    monkeypatch.undo()
    viewed(viewable.root, uid, "--save", target, "--overwrite")
    assert target.read_bytes()[:4] == b"RRF2"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.mp4", r"ends with \.rrd"),
        ("nowhere/a.rrd", "cannot be written"),
        ("../corpus/a.rrd", "is inside the corpus"),
    ],
)
def test_a_place_that_no_recording_belongs_to_is_refused(
    viewable: Viewable, recorded: dict[str, Path], tmp_path: Path, name: str, message: str
) -> None:
    assert recorded
    folder = viewable.root.parent / "x" if "corpus" in name else tmp_path
    with pytest.raises(ConfigError, match=message):
        viewed(viewable.root, viewable.uids[VIDEO], "--save", folder / name)


@pytest.mark.slow
def test_a_damaged_video_is_named(viewable: Viewable, recorded: dict[str, Path]) -> None:
    from jobs.rerun_recording import recording_bytes

    assert recorded
    episode = viewable.episode(ROBOT)
    other = viewable.episode(HANDS).view.videos["ego"]
    for path, message in (
        (other, "15 frames for 20 timesteps"),
        (viewable.root / MARKER, "run `eicorpus verify`"),
        (viewable.root / "nothing.mp4", "nothing.mp4"),
    ):
        videos = {**episode.view.videos, "ext1": path}
        with pytest.raises(SourceError, match=message):
            recording_bytes(replace(episode, view=replace(episode.view, videos=videos)))


@pytest.mark.slow
def test_a_video_that_memory_should_not_hold_is_left_out(
    viewable: Viewable, recorded: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs import rerun_recording

    assert recorded
    monkeypatch.setattr(rerun_recording, "MOST_VIDEO_BYTES", 100)
    _, left_out = rerun_recording.recording_bytes(viewable.episode(VIDEO))
    assert "video of camera ego" in [each.what for each in left_out]


@pytest.mark.slow
def test_names_of_strangers_are_one_part_of_a_path(
    viewable: Viewable, recorded: dict[str, Path], tmp_path: Path
) -> None:
    from jobs.rerun_recording import recording_bytes

    assert recorded
    episode = viewable.episode(VIDEO)
    name = "a/../b <script> $origin/**"
    (camera,) = episode.row["cameras"]
    (path,) = episode.view.videos.values()
    row = {**episode.row, "cameras": [{**camera, "name": name}], "tasks": ["# <b>x</b>"]}
    hostile = replace(episode, row=row, view=replace(episode.view, row=row, videos={name: path}))
    (tmp_path / "a.rrd").write_bytes(recording_bytes(hostile)[0])
    (video,) = [entity for entity in entities_of(tmp_path / "a.rrd") if "videos" in entity]
    assert video.replace("\\", "") == f"/videos/{name}"
    assert "\\/" in video
    about = columns_of(tmp_path / "a.rrd", "/about", is_static=True)
    assert about["TextDocument:media_type"][-1] == ["text/plain"]


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    return open_or_create(
        tmp_path / "empty", uid="corpus", recipe_digest="", disk=LocalStorage()
    ).root


def test_without_rerun_the_extra_is_named(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as refused:
        viewed(empty, "x", "--save", empty.parent / "a.rrd")
    assert refused.value.remedy == "run pip install 'eicorpus[rerun]'"
    assert list(empty.parent.iterdir()) == [empty]


def test_without_a_display_saving_is_named(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "find_spec", lambda name: object())
    monkeypatch.setattr(sys, "platform", "linux")
    for name in view.DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="no display") as refused:
        viewed(empty, "x")
    assert "--save" in refused.value.remedy


@pytest.mark.slow
def test_the_viewer_gets_the_file_and_no_other_machine_reaches_it(
    viewable: Viewable, recorded: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recorded
    calls: list[list[str]] = []

    def started(words: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        calls.append(words)
        if words[-1].endswith(".rrd"):
            assert Path(words[-1]).read_bytes()[:4] == b"RRF2"
        return subprocess.CompletedProcess(words, returncode=0)

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(view.subprocess, "run", started)
    viewed(viewable.root, viewable.uids[VIDEO], "--memory-limit-mb", "512")
    off, viewer = calls
    assert off[2:] == ["rerun", "analytics", "disable"]
    assert viewer[viewer.index("--bind") + 1] == "127.0.0.1"
    assert viewer[viewer.index("--memory-limit") + 1] == "512MiB"
    assert not Path(viewer[-1]).exists()
