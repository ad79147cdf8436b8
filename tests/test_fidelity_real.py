"""Real samples against what is said of them, row by row; and mistakes planted in how they are read, each of which shows in a row.

The rows are printed by `make fidelity`, and docs/results/fidelity.md shows them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from schemas.hand import wrist_axes
from tests import fidelity_real, fidelity_report
from tests.fidelity_real import MEASURES, rows_of
from tests.real import folders, hands, recordings
from tests.real.glb import joint_poses
from tests.real.rows import Row, cells, number

DATA = Path(__file__).parents[1] / "docs/results/data/fidelity.json"
SLOW = folders.MEASURES.keys()  # the whole pipeline


@pytest.mark.real
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in MEASURES]
)
def test_a_real_sample_is_as_expected_and_as_the_page_shows_it(name: str, samples: Path) -> None:
    rows = rows_of(name, samples)
    assert rows
    assert [cells(name, row) for row in rows if row.is_fault] == []
    shown = json.loads(DATA.read_text())[-1]["tables"]["real"]["rows"]
    if any(row.holds is None for row in rows):  # the page was made where the extra is
        rows = [row for row in rows if row.holds is not None]
    assert [cells(name, row) for row in rows if cells(name, row) not in shown] == []


# --- planted mistakes ---------------------------------------------------------------------------------------------------


def faults(rows: Iterator[Row]) -> list[str]:
    return [row.what for row in rows if row.is_fault]


@pytest.mark.real
@pytest.mark.parametrize("axes", ["mano", "arkit", "holoassist_psi", "human_policy"])
def test_planted_axes_of_another_device(axes: str, samples: Path, tmp_path: Path) -> None:
    found = faults(hands.webxr_hands(samples, tmp_path, axes))
    assert {"left wrist against the palm fit", "right wrist against the palm fit"} <= set(found)
    if axes != "human_policy":
        assert len(faults(hands.human_policy(samples, tmp_path, axes))) == 4


@pytest.mark.real
@pytest.mark.parametrize("order", ["XYZ", "zyx"])
def test_planted_euler_order(order: str, samples: Path, tmp_path: Path) -> None:
    found = faults(recordings.agibot_gesim_v2(samples, tmp_path, order))
    assert found == ["the same, rotation"]


@pytest.mark.real
def test_planted_matrices_by_rows(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def transposed(path: Path) -> dict[str, np.ndarray]:
        out = {}
        for name, T in joint_poses(path).items():
            out[name] = T.copy()
            out[name][:3, :3] = T[:3, :3].T
        return out

    monkeypatch.setattr(hands, "joint_poses", transposed)
    assert faults(hands.webxr_hands(samples, tmp_path))


@pytest.mark.real
def test_planted_rows_turned_the_other_way(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hands, "OPERATOR2MANO_RIGHT", hands.OPERATOR2MANO_RIGHT.T)
    found = faults(hands.dex_retargeting(samples, tmp_path))
    assert found == ["its wrist against the palm fit"]


@pytest.mark.real
@pytest.mark.parametrize(("name", "wrong"), [("NS_PER_TICK", 200), ("STEP_NS", 50_000_000)])
def test_planted_another_clock(
    name: str, wrong: int, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recordings, name, wrong)
    assert len(faults(recordings.holoassist(samples, tmp_path))) == 4


@pytest.mark.real
def test_planted_camera_pose_the_other_way(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recordings, "inverse", lambda T: T)
    found = faults(recordings.vitra(samples, tmp_path))
    assert any("joints_camspace" in what for what in found)


@pytest.mark.real
def test_planted_left_hands_of_arkit(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hands, "wrist_axes", lambda name: wrist_axes("arkit"))
    found = faults(recordings.hot3d(samples, tmp_path))
    assert found == ["UmeTrack's wrist against the palm fit"] * 2


# --- what rows are made of ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["lerobot", "umi"])
def test_a_folder_that_gives_something_else_is_a_fault(source: str, tmp_path: Path) -> None:
    """Data set without meta/: one is counted, the other source refuses the folder; neither was expected."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "episode_000000.parquet").write_bytes(b"PAR1")
    folder = folders.Folder(
        source=source, path="set", expected="1 committed, 9 timesteps", because="so"
    )
    row = folders.ingested(folder, tmp_path, tmp_path / "scratch")
    assert row.is_fault
    assert row.value.startswith({"lerobot": "0 committed; 1 missing", "umi": "refused"}[source])
    assert cells("set", row)[3:] == ["1 committed, 9 timesteps (so)", "DIFFERS"]


def test_a_rig_by_hand(tmp_path: Path) -> None:
    """One joint at (1, 2, 3), turned a quarter about z; its inverse bind matrix by columns."""
    T_mesh_joint = np.array([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])
    binary = np.linalg.inv(T_mesh_joint).T.astype("<f4").tobytes()
    told = {
        "skins": [{"inverseBindMatrices": 0, "joints": [1]}],
        "nodes": [{"name": "mesh"}, {"name": "wrist"}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 1, "type": "MAT4"}],
        "bufferViews": [{"buffer": 0, "byteLength": 64, "byteOffset": 8}],
    }
    text = json.dumps(told).encode()
    data = struct.pack("<4sII", b"glTF", 2, 0) + struct.pack("<I4s", len(text), b"JSON") + text
    path = tmp_path / "rig.glb"
    path.write_bytes(data + struct.pack("<I4s", 72, b"BIN\0") + bytes(8) + binary)
    np.testing.assert_allclose(joint_poses(path)["wrist"], T_mesh_joint, atol=1e-6)


@pytest.mark.parametrize(
    ("value", "known", "verdict", "is_fault"),
    [
        (1.5, "", "as expected", False),
        (2.5, "", "DIFFERS", True),
        (np.nan, "", "DIFFERS", True),
        (2.5, "the file has it so", "differs: the file has it so", False),
    ],
)
def test_verdicts(value: float, known: str, verdict: str, is_fault: bool) -> None:
    row = number("x", [1.0, value], "mm", "1 to 2", (1, 2), known)
    assert (row.verdict, row.is_fault) == (verdict, is_fault)
    assert row.value == f"1, {value:.2g} mm"


def test_without_the_samples_the_report_has_no_rows(tmp_path: Path) -> None:
    assert fidelity_report.of_real_data(tmp_path / "none") == ([], [])
    row = Row(what="x", value="the extra is not installed", expected="1", holds=None)
    assert (row.verdict, row.is_fault) == ("NOT RUN", False)
    assert cells("s", row) == ["s", "x", "the extra is not installed", "1", "NOT RUN"]


def test_the_report_names_a_row_that_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(samples: Path, scratch: Path) -> Iterator[Row]:
        yield number("x", 3, "mm", "1 to 2 (page)", (1, 2))

    for module in (fidelity_real, fidelity_report):
        monkeypatch.setattr(module, "MEASURES", {"toy": measure})
    rows, found = fidelity_report.of_real_data(tmp_path)
    assert rows == [["toy", "x", "3 mm", "1 to 2 (page)", "DIFFERS"]]
    assert found == ["toy: x: 3 mm; expected 1 to 2 (page)"]
