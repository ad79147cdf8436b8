"""docs/how-to/add-a-source.md is true: both adapters and the measure on that page work as they stand."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.spatial.transform import Rotation

from adapters.registry import adapter_for, resolved
from ingest.verify.corpus import verify
from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.video_files import write_scene
from schemas.errors import ConfigError
from tests.faults.runs import facts, run

PAGE = Path(__file__).parent.parent / "docs/how-to/add-a-source.md"


ADDS_UP = re.compile(r"= discovered .* OK")  # the last row of the report


@pytest.fixture
def adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's adapters, and its measure, importable."""
    names = ("toy_arm", "toy_hands", "toy_rise")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for name, code in zip(names, blocks, strict=True):
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def arm_raw(adapters: None, tmp_path: Path) -> Path:
    """A raw file: the hand 500 mm ahead, turned 90 degrees about z, closing."""
    raw = tmp_path / "raw" / "pick_cup"
    raw.mkdir(parents=True)
    count = 21
    quat_xyzw = Rotation.from_euler("z", 90, degrees=True).as_quat()
    with h5py.File(raw / "000.h5", "w") as file:
        file["time"] = 1000.0 + np.arange(count) / 20
        file["joints_deg"] = np.full((count, 7), 90, np.float32)
        file["ee_pose"] = np.tile([500, 0, 0, *quat_xyzw], (count, 1)).astype(np.float32)
        file["grip_closed"] = np.linspace(0, 1, count, dtype=np.float32)
    return raw.parent


def test_the_page_s_robot_ingests(arm_raw: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    tally = run(arm_raw, corpus, source="toy_arm:ToyArm")
    assert (tally.committed, tally.quarantined, tally.failed) == (1, 0, 0)
    assert verify(corpus, workers=1) == []
    (episode,) = facts(corpus, "episodes")
    assert episode["tasks"] == ["pick cup"]
    assert (episode["length"], episode["eef_frame"]) == (11, "hand_xfz")
    (data,) = (corpus / episode["dataset_path"]).rglob("*.parquet")
    table = pq.read_table(data)
    first = table.column("observation.state")[0].as_py()
    # panda_hand: z is the approach and the grasp centre lies 103.4 mm along it; the turn about z leaves it there.
    assert first[:3] == pytest.approx([0.5, 0.0, 0.1034], abs=1e-6)
    # x_can is the hand's z (up, unturned); y_can is minus the hand's y, which the turn carried to -x: so +x.
    assert first[3:9] == pytest.approx([0, 0, 1, 1, 0, 0], abs=1e-6)
    assert first[9] == pytest.approx(1.0)
    joints = table.column("observation.joint_position_rad")[0].as_py()
    assert joints == pytest.approx([np.pi / 2] * 7, abs=1e-6)


HANDS = HandScene(seed=61, duration_s=1.5, sides=("right",))
UNSEEN = (20, 21)


@pytest.fixture
def hands_raw(adapters: None, tmp_path: Path) -> Path:
    """A take of the scene, its hand hidden for two frames, and a take whose video is lost."""
    raw = tmp_path / "raw" / "fold_towel"
    raw.mkdir(parents=True)
    rows, poses = [], []
    for k in range(45):
        T_cam_world = np.linalg.inv(HANDS.T_world_cam(k / 30))
        joints = HANDS.joints_world(k / 30, "right") @ T_cam_world[:3, :3].T + T_cam_world[:3, 3]
        rows.append(None if k in UNSEEN else (1000 * joints).tolist())
        poses.append(T_cam_world.tolist())
    size_px = (HANDS.width, HANDS.height)
    take = {"fps": 30, "size_px": size_px, "K": HANDS.K_cam.tolist(), "right_mm": rows}
    for name in ("000", "001"):
        (raw / f"{name}.json").write_text(json.dumps(take | {"T_cam_world": poses}))
    write_scene(raw / "000.mp4", HANDS)
    return raw.parent


def test_the_page_s_hands_ingest(hands_raw: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    tally = run(hands_raw, corpus, source="toy_hands:ToyHands")
    assert (tally.committed, tally.quarantined, tally.failed) == (1, 1, 0)
    assert verify(corpus, workers=1) == []
    (episode,) = facts(corpus, "episodes")
    assert (episode["tasks"], episode["length"]) == (["fold towel"], 15)
    assert (episode["eef_frame"], episode["camera_motion_removed"]) == ("hand_xfz", True)
    assert episode["supervision_limits"] == []
    (data,) = (corpus / episode["dataset_path"]).rglob("*.parquet")
    table = pq.read_table(data)
    state = np.array(table.column("observation.state").to_pylist())
    for k in (0, 5, 14):  # every timestep hits a frame; the camera moved, the scene's world did not
        T = HANDS.T_base_hand(k / 10, "right")
        assert state[k, :3] == pytest.approx(T[:3, 3], abs=1e-5)
        assert state[k, 3:9] == pytest.approx(T[:3, :2].T.reshape(-1), abs=1e-5)
        points = HANDS.joints_wrist(k / 10, "right")
        assert state[k, 9:].reshape(21, 3) == pytest.approx(points, abs=1e-5)
    valid = np.array(table.column("observation.valid").to_pylist())
    assert np.flatnonzero(~valid.all(axis=1)).tolist() == [7]  # 0.7 s is frame 21
    (present,) = (
        row["value"]
        for row in facts(corpus, "measurements")
        if row["name"] == "hand_pass_share.right.present"
    )
    assert present == pytest.approx(43 / 45)


# --- as a reader does it: the installed command in a folder of their own ------------------------------------------------

COMMAND = Path(sys.executable).with_name("eicorpus")


@pytest.fixture
def clean_folder(arm_raw: Path, tmp_path: Path) -> Path:
    """Nothing but the page's adapter and its raw data, under the page's names."""
    folder = tmp_path / "reader"
    folder.mkdir()
    shutil.copy(tmp_path / "toy_arm.py", folder)
    shutil.copytree(arm_raw, folder / "RAW")
    return folder


def shell(folder: Path, line: str, **environment: str) -> str:
    """Standard output of a line of the page that starts with `eicorpus`."""
    words = shlex.split(line)
    assert words[0] == "eicorpus"
    inherited = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    done = subprocess.run(
        [str(COMMAND), *words[1:]],
        cwd=folder,
        env=inherited | {"HOME": str(folder)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_page_s_commands_work_as_they_stand(clean_folder: Path) -> None:
    section = PAGE.read_text().partition("## 3. Try it")[2].partition("## 4.")[0]
    lines = re.findall(r"^\$ (eicorpus .*)$", section, re.MULTILINE)
    assert [line.split()[1] for line in lines] == ["ingest", "verify", "query"]
    shown = [shell(clean_folder, line) for line in lines]
    assert ADDS_UP.search(shown[0])
    assert "pick_cup/000" in shown[2]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["./toy_arm.py:ToyArm", "{folder}/toy_arm.py:ToyArm"])
def test_a_file_is_named_by_its_path(clean_folder: Path, source: str) -> None:
    elsewhere = clean_folder if source.startswith(".") else clean_folder.parent
    source = source.format(folder=clean_folder)
    raw, corpus = clean_folder / "RAW", clean_folder / "CORPUS"
    assert ADDS_UP.search(shell(elsewhere, f"eicorpus ingest {source} {raw} --out {corpus}"))


def install(folder: Path, module: Path, name: str, entry_points: str) -> dict[str, str]:
    """A distribution of one module, with the metadata that `pip install` leaves of its entry points; the environment that has it."""
    site = folder / "site"
    about = site / f"{name}-1.0.dist-info"
    about.mkdir(parents=True)
    shutil.copy(module, site)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(entry_points)
    return {"PYTHONPATH": str(site)}


@pytest.mark.slow
def test_a_package_names_its_adapters_by_an_entry_point(clean_folder: Path) -> None:
    module = (clean_folder / "toy_arm.py").rename(clean_folder.parent / "toy_arm.py")
    points = "[eicorpus.adapters]\ntoy_arm = toy_arm:ToyArm\nnever_named = absent_module:Absent\n"
    environment = install(clean_folder, module, "toy_arm_data", points)
    line = "eicorpus ingest toy_arm RAW --out CORPUS"
    assert ADDS_UP.search(shell(clean_folder, line, **environment))
    listed = json.loads(shell(clean_folder, "eicorpus list sources --json", **environment))[
        "result"
    ]["sources"]
    assert [row["source"] for row in listed[-2:]] == ["never_named", "toy_arm"]


@pytest.mark.slow
def test_a_package_names_its_measures_by_an_entry_point(clean_folder: Path) -> None:
    shell(clean_folder, "eicorpus ingest toy_arm:ToyArm RAW --out CORPUS")
    points = (
        "[eicorpus.measures]\ntoy_rise = toy_rise:MEASURE\nnever_named = absent_module:MEASURE\n"
    )
    module = clean_folder.parent / "toy_rise.py"
    environment = install(clean_folder, module, "toy_measures", points)
    everything = json.loads(shell(clean_folder, "eicorpus measure CORPUS --json", **environment))[
        "result"
    ]
    assert (everything["measured"], everything["failed"]) == (
        1,
        0,
    )  # neither of the two is imported
    section = PAGE.read_text().partition("## 5. A measure")[2].partition("## 6.")[0]
    measure, query = re.findall(r"^\$ (eicorpus .*)$", section, re.MULTILINE)
    assert (
        json.loads(shell(clean_folder, f"{measure} --json", **environment))["result"]["measured"]
        == 1
    )
    rows = json.loads(shell(clean_folder, f"{query} --json", **environment))["result"]["rows"]
    assert rows == [[0.0, 11]]  # the arm of the page's raw data stands still


@pytest.mark.slow
@pytest.mark.ray
def test_workers_of_ray_find_the_adapter_too(clean_folder: Path) -> None:
    line = "eicorpus ingest toy_arm:ToyArm RAW --out CORPUS --ray --workers 1"
    assert ADDS_UP.search(shell(clean_folder, line))


def test_a_mistaken_name_says_what_a_source_may_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"FILE\.py:Class"):
        adapter_for("toy_arn")
    with pytest.raises(ConfigError, match=r"no such file.*FILE\.py:Class"):
        resolved("./toy_arm.py:ToyArm", tmp_path)


def test_a_file_that_is_called_like_an_installed_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("class Mine: ...")
    with pytest.raises(ConfigError, match=r"'json' is already used by .*rename your file"):
        adapter_for(resolved("./json.py:Mine", tmp_path))


def test_every_path_the_page_names_exists() -> None:
    named = re.findall(
        r"`((?:adapters|schemas|jobs|tests|docs)/[a-z_/]+\.(?:py|yaml|md))`", PAGE.read_text()
    )
    assert len(named) >= 4
    missing = [name for name in named if not (PAGE.parents[2] / name).exists()]
    assert missing == ["adapters/toy_arm.py"]  # the one that the reader writes
