"""Ego-Exo4D: keysteps and descriptions as segments, the right camera, one test per way a download is broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.ego_exo4d.adapter import EgoExo4D
from adapters.ego_exo4d.segments import interval
from jobs.demo.raw import Written
from schemas.errors import Code, ConfigError, SourceError
from tests.adapters.video_clips import assert_healthy, by_id, problems, refs_of, window_of
from tests.generators import ego_exo4d as generator
from tests.generators.ego_exo4d import BIKE, COOK, NAMES, SILENT, dump

ADAPTER = EgoExo4D()


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Without hands: `test_ego_exo4d_hands.py` is about those."""
    return generator.write(tmp_path_factory.mktemp("ego_exo4d"), has_hands=False)


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    value = json.loads(path.read_text("utf-8"))
    change(value)
    dump(path, value)


def test_a_healthy_download(pristine: Written) -> None:
    episodes = assert_healthy(ADAPTER, pristine)
    texts = [[i.text for i in e.instructions] for e in episodes.values()]
    assert texts == [
        ["get the eggs"],
        ["Crack eggs"],
        ["C picks up the red box with his right hand."],
        ["C grips the blue box."],
        [],
    ]
    spans = [(w.start_s, w.end_s) for w in map(window_of, episodes.values())]
    assert spans == [(0.0, 1.5), (1.5, 3.25), (0.5, 1.5), (1.0, 2.0), (0.0, 4.0)]
    bike = episodes[f"{BIKE}/atomic/0.1"]
    files = [f.path for f in bike.raw_files]
    assert files == [f"takes/{NAMES[BIKE]}/frame_aligned_videos/downscaled/448/aria02_214-1.mp4"]
    assert (bike.subject_id, bike.rate_hz) == ("254", 30)
    assert bike.licence.licence_class == "no_redistribution"
    assert [c.name for c in bike.cameras] == ["ego"]
    details = ADAPTER.survey(pristine.root, {}).details
    left_out = {k: v for k, v in details.items() if k.startswith("atomic_") and "segments" not in k}
    assert left_out == {
        "atomic_other_person": "1",
        "atomic_unsure": "1",
        "atomic_not_visible": "1",
        "atomic_rejected": "1",
    }


@pytest.mark.parametrize("asked", ["cam01", "all", "cam01,cam77"])
def test_standing_cameras_by_option(root: Path, asked: str) -> None:
    edit(root / "takes.json", lambda v: [t["frame_aligned_videos"].pop("cam02") for t in v])
    refs = by_id(refs_of(ADAPTER, root, cameras=asked))
    for name, folder in ((f"{COOK}/keystep/1", ""), (f"{BIKE}/atomic/0.1", "downscaled/448/")):
        episode = ADAPTER.load(refs[name])
        assert [c.name for c in episode.cameras] == ["ego", "cam01"]
        one, two = window_of(episode, 0), window_of(episode, 1)
        assert (one.start_s, one.end_s) == (two.start_s, two.end_s)
        assert two.path.endswith(f"frame_aligned_videos/{folder}cam01.mp4")


def test_a_standing_camera_that_was_not_downloaded(root: Path) -> None:
    ref = by_id(refs_of(ADAPTER, root, cameras="cam02"))[f"{COOK}/keystep/0"]
    with pytest.raises(SourceError) as caught:
        ADAPTER.load(ref)
    assert caught.value.code is Code.MISSING_VIDEO


def test_half_the_gap_to_each_neighbour() -> None:
    times = [1.0, 3.0, 3.4, 20.0]
    assert interval(1.0, times) == (0.0, 2.0)  # gap 2 on the right counts for both sides
    assert interval(3.0, times) == (2.0, 3.5)  # 1 s to the left; 0.2 s to the right becomes 0.5
    assert interval(3.4, times) == (2.9, 7.4)  # 8.3 s to the right becomes 4
    assert interval(20.0, times) == (16.0, 24.0)
    assert interval(5.0, [5.0]) == (4.5, 5.5)
    assert interval(0.2, [0.2]) == (0.0, 0.7)


def test_takes_that_cannot_be_used_are_one_episode_each(root: Path) -> None:
    shutil.rmtree(root / "takes" / NAMES[COOK])

    def change(takes: list[Any]) -> None:
        takes[1]["is_dropped"] = True
        takes[2]["capture"]["cameras"] = []
        takes.append({"take_name": "nameless"})
        outside = "../../../../outside.mp4"
        takes.append(generator.take(SILENT, take_uid="evil"))
        takes[-1]["frame_aligned_videos"]["aria01"]["rgb"]["relative_path"] = outside

    edit(root / "takes.json", change)
    refs = refs_of(ADAPTER, root)
    assert problems(refs) == {
        f"{COOK}/take": "missing_video",
        f"{BIKE}/take": "known_defect",
        f"{SILENT}/take": "unknown_layout",
        "takes.json/3": "bad_annotation",
        "evil/take": "unsafe_path",
    }
    assert "3 segments are lost" in refs[0].problem[1]
    assert [ref.stands_for for ref in refs] == [3, 1, 1, 1, 1]


def test_rows_that_do_not_hold(root: Path) -> None:
    def steps(value: Any) -> None:
        rows = value["annotations"][COOK]["segments"]
        rows[0]["end_time"] = "soon"
        rows[1]["end_time"] = 1.0
        value["annotations"][SILENT] = "?"
        value["annotations"]["stranger"] = {"segments": rows}

    def told(value: Any) -> None:
        value["annotations"][COOK][0]["descriptions"].append({"text": "when?"})
        value["annotations"][COOK].append("?")

    edit(root / "annotations" / "keystep_train.json", steps)
    edit(root / "annotations" / "atomic_descriptions_train.json", told)
    found = problems(refs_of(ADAPTER, root))
    assert found == {
        f"{COOK}/keystep/0": "bad_annotation",
        f"{COOK}/keystep/1": "bad_annotation",
        f"{COOK}/atomic/0.2": "bad_annotation",
        f"{COOK}/atomic/1": "bad_annotation",
        f"{SILENT}/keystep": "bad_annotation",
        "stranger/take": "missing_meta",
    }


def test_a_take_that_is_listed_twice(root: Path) -> None:
    path = root / "annotations" / "keystep_train.json"
    entry = json.dumps(generator.keysteps()["annotations"][COOK])
    path.write_text(f'{{"annotations": {{"{COOK}": {entry}, "{COOK}": {entry}}}}}')
    assert problems(refs_of(ADAPTER, root)) == {f"{COOK}/keystep/again_1": "bad_annotation"}


def test_options(root: Path) -> None:
    assert set(by_id(refs_of(ADAPTER, root, annotations="keystep"))) == {
        f"{COOK}/keystep/{k}" for k in (0, 1)
    }
    windows = refs_of(ADAPTER, root, annotations="windows")
    assert [r.episode_id for r in windows] == [f"{uid}/0000" for uid in NAMES]
    (root / "annotations" / "keystep_train.json").unlink()
    with pytest.raises(ConfigError, match="keystep"):
        ADAPTER.survey(root, {"annotations": "keystep"})
