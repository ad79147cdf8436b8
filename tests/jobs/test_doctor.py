"""`eicorpus doctor`: every check in --json and in the text; what fails is a complaint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import adapters.robomimic.demo as demo
from ingest.doctor.doctor import contact_sheet, examine
from ingest.doctor.hand_drawing import TITLE_HEIGHT_PX, View, enlarged, scale_of
from ingest.pipeline.plan import Request, discover, survey
from ingest.recipe import Recipe
from jobs.cli import app
from jobs.demo.raw import egodex
from schemas.episode import Stream
from tests.faults.toy import write_toy
from tests.generators import robomimic


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    robomimic.write(root / "robomimic")
    return root / "robomimic"


def call(*words: str) -> typer.testing.Result:
    return CliRunner().invoke(app, ["doctor", *words])


def verdicts(one: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["verdict"] for check in one["checks"]}


def test_checks_are_in_the_json_and_in_the_text(raw: Path) -> None:
    result = call("robomimic", str(raw), "--episodes", "2", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)["result"]
    assert len(answer["examined"]) == 2
    for one in answer["examined"]:
        found = verdicts(one)
        assert found["rate"] == found["axes_are_a_rotation"] == found["hand_reach"] == "pass"
        assert found["handshake_roll"] == found["handshake_z"] == "pass"
        assert "fail" not in found.values()
        wanted = {"name", "side", "value", "unit", "wanted", "verdict", "explanation"}
        assert all(set(check) == wanted for check in one["checks"])
    assert [check["name"] for check in answer["over_all"]] == ["approach"]
    shown = call("robomimic", str(raw), "--episodes", "1").output
    assert "handshake_z" in shown
    assert "z_can . (up + forward)" in shown


def test_a_persons_hand_is_checked_too(tmp_path: Path) -> None:
    written = egodex.write(tmp_path / "raw")
    result = call("egodex", str(written.root), "--episodes", "1", "--json")
    (one,) = json.loads(result.stdout)["result"]["examined"]
    found = verdicts(one)
    assert found["curl"] == found["bones"] == found["palm_against_wrist"] == "pass"
    assert found["frames_in_view"] == "pass"
    assert "approach" not in found


def examined(raw: Path) -> tuple[str, ...]:
    request = Request(source="robomimic", root=raw, options={}, recipe=Recipe())
    info, _ = survey(request)
    (one,) = examine(discover(request, info)[:1], "robomimic", request.recipe, num_pictures=1)
    return one.complaints


def test_a_sheet_names_episode_camera_and_scale_and_small_pictures_are_drawn_larger(
    raw: Path,
) -> None:
    request = Request(source="robomimic", root=raw, options={}, recipe=Recipe())
    info, _ = survey(request)
    (one,) = examine(discover(request, info)[:1], "robomimic", request.recipe, num_pictures=2)
    staged = one.outcome.staged
    assert staged is not None
    sheet = contact_sheet([one])
    assert sheet is not None
    cameras = staged.episode.cameras
    heights = [
        camera["height"] * scale_of(camera["width"]) + TITLE_HEIGHT_PX + 4 for camera in cameras
    ]
    assert sheet.shape[0] == TITLE_HEIGHT_PX + sum(
        heights
    )  # the episode's name, and a line for each camera
    assert sheet.shape[1] == max(
        2 * camera["width"] * scale_of(camera["width"]) for camera in cameras
    )
    assert sheet[:TITLE_HEIGHT_PX].max() == 255


@pytest.mark.parametrize(("width", "scale"), [(64, 4), (100, 3), (224, 1), (640, 1), (1, 224)])
def test_pictures_are_enlarged_until_letters_can_be_read(width: int, scale: int) -> None:
    assert scale_of(width) == scale


def test_what_is_drawn_into_an_enlarged_picture_lies_on_the_same_pixel() -> None:
    camera = {
        "K_cam": [50.0, 0, 31.5, 0, 50.0, 23.5, 0, 0, 1],
        "lens_model": None,
        "lens_params": None,
    }
    point = np.array([[0.11, -0.05, 1.0]])
    (small,), _ = View(T_ref_cam=np.eye(4), camera=camera).pixels(point)
    (large,), _ = View(T_ref_cam=np.eye(4), camera=camera, scale=4).pixels(point)
    assert small == (37, 21)
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[small[1], small[0]] = 255
    assert enlarged(picture, 4)[large[1], large[0]].tolist() == [255, 255, 255]
    assert enlarged(picture, 1) is picture


def test_planted_mistakes_of_an_adapter_are_complaints(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Millimetres, a quarter turn of the hand's axes, and a gripper upside down, each planted where the adapter builds streams."""
    assert not [c for c in examined(raw) if ":" in c and "supervises" not in c]

    def planted(name: str, change: Any) -> tuple[str, ...]:
        def wrong(**given: Any) -> Stream:
            if given["spec"].name == name:
                given["values"] = change(np.array(given["values"], dtype=float))
            return Stream(**given)

        monkeypatch.setattr(demo, "Stream", wrong)
        return examined(raw)

    scale = np.ones((4, 4))
    scale[:3, 3] = 1000
    found = planted("left.T_base_eef", lambda T: T * scale)
    assert any("hand_reach" in c and "millimetres" in c for c in found)
    turn = np.array(
        [[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    )  # about the approach
    assert any("handshake_roll" in c for c in planted("left.T_base_eef", lambda T: T @ turn))
    assert any("gripper_polarity" in c for c in planted("left.gripper_opening", lambda g: 1 - g))


def test_a_sheet_that_cannot_be_drawn_hides_no_reason(tmp_path: Path) -> None:
    """Every episode fails: why comes first, that there is no sheet after it, and nothing is written."""
    raw = write_toy(tmp_path / "raw", {"a": "quarantine", "b": "quarantine"})
    sheet = tmp_path / "sheet.png"
    command = ("tests.faults.toy:Toy", str(raw), "--sheet", str(sheet), "--episodes", "2")
    shown = call(*command)
    assert shown.exit_code == 1, shown.output
    reason = call(*command, "--json")
    for one in json.loads(reason.stdout)["result"]["examined"]:
        assert one["code"]
        assert f"[{one['code']}]" in shown.stdout
    assert json.loads(reason.stdout)["result"]["sheet"] is None
    assert "exit 1: no contact sheet: 2 of 2 examined episodes failed" in shown.stderr
    assert "facts" not in shown.stdout  # there are none
    assert not sheet.exists()


def test_a_sheet_under_a_wrong_name_is_refused_before_any_work(tmp_path: Path) -> None:
    refused = call("no_such_source", str(tmp_path), "--sheet", str(tmp_path / "sheet.jpg"))
    assert "expected the name of a .png file" in str(refused.exception)
