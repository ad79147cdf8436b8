"""Something-Something V2: one clip one episode, labels by their true class, one test per way a download is broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from adapters.ssv2 import SomethingSomethingV2
from jobs.demo.raw import Written
from schemas.errors import ConfigError
from tests.adapters.video_clips import assert_healthy, by_id, pictures, problems, refs_of, window_of
from tests.generators import ssv2 as generator

ADAPTER = SomethingSomethingV2()


def dump(root: Path, name: str, value: Any) -> None:
    (root / "labels" / name).write_text(json.dumps(value), encoding="utf-8")


def facts_of(root: Path, label: str) -> dict[str, str]:
    dump(root, "train.json", [{"id": "78687", "label": label, "template": "x"}])
    episode = ADAPTER.load(by_id(refs_of(ADAPTER, root))["78687"])
    found = {f.name: f.value for f in episode.facts}
    assert episode.success is (False if found["label_kind"] == "not_achieved" else None)
    return found


def test_a_healthy_download(pristine: Written) -> None:
    first, pretended, test, rest = assert_healthy(ADAPTER, pristine).values()
    assert [i.text for i in first.instructions] == ["holding potato next to vicks vaporub bottle"]
    assert [i.text for i in pretended.instructions] == ["pretending to open box"]
    assert test.instructions == rest.instructions == ()
    assert {f.name: f.value for f in first.facts}["class_id"] == "28"
    assert (first.success, pretended.success, test.success) == (None, False, None)
    assert first.rate_hz == 12
    assert first.licence.licence_class == "no_redistribution"
    shown = pictures(window_of(first))
    assert len(shown) == 24
    assert shown[0][1].shape == (240, 427, 3)
    splits = [ref.at("split") for ref in refs_of(ADAPTER, pristine.root)]
    assert splits == ["train", "train", "test", "unlabelled"]


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("moving cup up", "action"),
        ("Failing to put cup into box because it does not fit", "not_achieved"),
        ("trying but failing to attach tape to wall because it doesn't stick", "not_achieved"),
        ("turning the camera left while filming cup", "camera"),
        ("moving away from cup with your camera", "camera"),
        ("showing that cup is inside box", "action"),
    ],
)
def test_what_kind_of_thing_a_label_says(root: Path, label: str, kind: str) -> None:
    assert facts_of(root, label)["label_kind"] == kind


def test_the_class_is_looked_up_without_brackets_never_ranked(root: Path) -> None:
    """Sorted with brackets, "[" comes before every letter: the wrong list would swap these two."""
    dump(
        root,
        "labels.json",
        {"Putting part on something": "7", "Putting something on something": "3"},
    )
    rows = [{"id": "78687", "label": "l", "template": "Putting [part] on [something]"}]
    dump(
        root,
        "train.json",
        [*rows, {"id": "42326", "label": "l", "template": "Putting [something] on [something]"}],
    )
    loaded = [ADAPTER.load(ref) for ref in refs_of(ADAPTER, root)[:2]]
    assert [{f.name: f.value for f in e.facts}["class_id"] for e in loaded] == ["7", "3"]
    (root / "labels" / "labels.json").unlink()
    assert "class_id" not in {f.name for f in ADAPTER.load(refs_of(ADAPTER, root)[0]).facts}


def test_the_older_names_and_mp4(root: Path) -> None:
    for path in (root / "labels").glob("*.json"):
        path.rename(root / f"something-something-v2-{path.name}")
    folder = root / "20bn-something-something-v2"
    (folder / "9.webm").rename(folder / "9.mp4")
    folder.rename(root / "videos")
    refs = refs_of(ADAPTER, root)
    assert [r.episode_id for r in refs] == list(generator.SCENES)
    assert not problems(refs)


def test_rows_that_do_not_hold_and_clips_that_are_not_there(root: Path) -> None:
    rows = [
        *generator.TRAIN,
        {"label": "no id"},
        {"id": "../../x"},
        {"id": "78687"},
        "text",
        {"id": "5"},
    ]
    dump(root, "train.json", rows)
    (root / "20bn-something-something-v2" / "42326.webm").unlink()
    assert problems(refs_of(ADAPTER, root)) == {
        "42326": "missing_video",
        "train/2": "bad_annotation",
        "train/3": "bad_annotation",
        "train/4": "bad_annotation",
        "train/5": "bad_annotation",
        "5": "missing_video",
    }


def test_options(root: Path, tmp_path: Path) -> None:
    assert set(by_id(refs_of(ADAPTER, root, splits="train"))) == {"78687", "42326"}
    moved = tmp_path / "elsewhere"
    shutil.move(root / "labels", moved)
    assert {r.at("split") for r in refs_of(ADAPTER, root)} == {"unlabelled"}
    assert len(refs_of(ADAPTER, root, labels=str(moved), splits="train,test")) == 3


def test_a_file_that_breaks_off_stops_the_run(root: Path) -> None:
    path = root / "labels" / "train.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ConfigError, match=r"train\.json"):
        refs_of(ADAPTER, root)
