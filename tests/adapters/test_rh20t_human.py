"""RH20T's human scenes: right pictures at recorded instants, and a precise failure where the layout is not as inferred."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from adapters.rh20t_human import Rh20tHuman
from jobs.demo.raw import Written
from schemas.episode import VideoSpan
from schemas.errors import Code, ConfigError, SourceError
from schemas.supervision import Task, allowed_tasks
from tests.adapters.video_clips import by_id, problems, refs_of
from tests.generators.rh20t import CALIB_MS, FIXED, K_1280, L515

ADAPTER = Rh20tHuman()
FIRST = "task_0092_user_0010_scene_0004_cfg_0003_human"
SECOND = "task_0092_user_0010_scene_0004_cfg_0004_human"


def test_a_healthy_download(pristine: Written) -> None:
    """Third-person views on their recorded clocks; the robot scene beside them is not looked at."""
    refs = refs_of(ADAPTER, pristine.root)
    assert [ref.episode_id for ref in refs] == [FIRST, SECOND]
    assert problems(refs) == {}
    for ref, late_ms in zip(refs, (0, 7), strict=True):
        scene, episode = pristine.scenes[ref.episode_id], ADAPTER.load(ref)
        assert (episode.embodiment, episode.streams, episode.hands) == ("human_video", (), ())
        assert [camera.name for camera in episode.cameras] == [f"cam_{FIXED}", f"cam_{L515}"]
        assert [i.text for i in episode.instructions] == ["Wipe the table with a cloth"]
        for camera, late in zip(episode.cameras, (0, late_ms), strict=True):
            assert camera.t_ns is not None
            assert (camera.t_ns[:2] / 1e6).tolist() == [late, 100 + late]
            assert len(camera.t_ns) == 21  # cut at the finish
            np.testing.assert_allclose(camera.K_cam, K_1280(scene))  # type: ignore[arg-type]
            assert isinstance(camera.frames, VideoSpan)
            assert (camera.frames.first_frame, camera.frames.num_frames) == (0, 21)
            with av.open(camera.frames.path) as video:
                shown = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
            off = [
                np.abs(shown[12].astype(float) - scene.picture(t + late / 1000)).mean()
                for t in (1.1, 1.2, 1.3)
            ]
            assert off[1] < min(off[0], off[2])
        assert allowed_tasks(facts=episode.facts, has_camera=True, action_coverage=0.0)[0] == (
            Task.VISUAL_FORECASTING,
        )
    facts = {f.name: (f.value, f.certainty.value) for f in ADAPTER.load(refs[0]).facts}
    assert facts["camera_motion_removed"] == ("false", "unverified")
    assert facts["calibration"][1] == "inferred"  # issue 10: the stated one was never released
    assert facts["calibration"][0].startswith(f"{CALIB_MS}, the nearest earlier one")
    assert facts["robot_scene"] == (FIRST.removesuffix("_human"), "inferred")


def test_what_is_not_as_inferred_fails(root: Path) -> None:
    folder = root / "RH20T_cfg3" / FIRST
    (folder / "transformed").mkdir()
    (ref, _) = refs_of(ADAPTER, root)
    with pytest.raises(SourceError, match="a human scene with transformed/") as caught:
        ADAPTER.load(ref)
    assert caught.value.code is Code.UNKNOWN_LAYOUT


def test_partial_downloads_and_numbered_folders(root: Path) -> None:
    folder = root / "RH20T_cfg3" / FIRST
    shutil.copytree(folder, folder.with_name(f"{FIRST}_2"))
    (folder / "metadata.json").unlink()
    for path in (root / "RH20T_cfg4" / SECOND).rglob("color.mp4"):
        path.unlink()
    refs = refs_of(ADAPTER, root)
    assert problems(refs) == {FIRST: "missing_file", SECOND: "missing_video"}
    metadata = root / "RH20T_cfg3" / f"{FIRST}_2" / "metadata.json"
    metadata.write_text(json.dumps({}))
    episode = ADAPTER.load(by_id(refs)[f"{FIRST}_2"])
    assert len(episode.cameras[0].t_ns) == 24  # type: ignore[arg-type]  # nothing says where to cut
    assert episode.cameras[0].K_cam is None


def test_a_root_with_robot_scenes_only(root: Path) -> None:
    shutil.rmtree(root / "RH20T_cfg3" / FIRST)
    with pytest.raises(ConfigError, match="_human"):  # a robot scene is left there
        ADAPTER.survey(root / "RH20T_cfg3", {})
