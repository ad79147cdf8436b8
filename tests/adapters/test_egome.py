"""EgoMe: ego videos with their steps, and a precise failure where the layout is not as inferred. No real file was at hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.egome.adapter import EgoMe
from jobs.demo.raw import Written
from schemas.errors import Code, ConfigError, SourceError
from tests.adapters.video_clips import assert_healthy, by_id, problems, refs_of
from tests.generators import egome as generator

ADAPTER = EgoMe()
WRONG, FOLD, DRAWER = generator.EGO
TRAIN = "EgoMe_Annotation/train.json"


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(path.read_text())
    path.write_text(json.dumps(edit(value) or value))


def test_a_healthy_download(pristine: Written) -> None:
    """The task is the sentence, steps come in their order without the label, exo halves are not there."""
    episodes = assert_healthy(ADAPTER, pristine)
    assert [i.text for i in episodes[FOLD].instructions] == ["Fold the towel", "fold the towel"]
    steps = [(i.kind, i.start_ns, i.end_ns, i.text) for i in episodes[WRONG].instructions]
    assert steps == [
        ("task", 0, None, "Pour water into the cup"),
        ("subtask", 0, 800_000_000, "pick up the bottle"),
        ("subtask", 800_000_000, 1_900_000_000, "pour on the table"),
    ]
    assert [episodes[name].success for name in (WRONG, FOLD, DRAWER)] == [False, True, True]
    facts = {f.name: (f.value, f.certainty.value) for f in episodes[WRONG].facts}
    assert facts["step_verdicts"] == ("T F", "third_party")
    assert facts["video_files"][1] == facts["step_clock"][1] == "unverified"
    drawer = {f.name: f.value for f in episodes[DRAWER].facts}
    assert drawer["steps_left_out"] == "2 without text or length"
    assert episodes[FOLD].licence.licence_class == "non_commercial"
    assert ADAPTER.survey(pristine.root, {}).details == {
        "files": "3",
        "train_ego": "2",
        "train_exo": "2",
        "val_ego": "1",
        "val_exo": "1",
    }


def test_total_is_read_only_without_splits(root: Path) -> None:
    folder = root / "EgoMe_Annotation"
    shutil.copy(folder / "train.json", folder / "total.json")
    assert len(refs_of(ADAPTER, root)) == 3
    (folder / "train.json").unlink()
    (folder / "val.json").unlink()
    refs = refs_of(ADAPTER, root, annotations="EgoMe_Annotation")
    assert problems(refs) == {f"Ego/{DRAWER}.mp4": "missing_meta"}
    assert by_id(refs)[f"Ego/{DRAWER}.mp4"].problem[1] == "no annotation refers to it"


def test_where_videos_lie(root: Path) -> None:
    """By name anywhere, or by the name of the pair in a folder Ego; never out of a folder Exo; never one of two."""
    ego = root / "Ego"
    (root / "part1").mkdir()
    (ego / f"{WRONG}.mp4").rename(root / "part1" / f"{WRONG}.MP4")
    pair = f"{FOLD.removesuffix('_ego')}.mp4"
    (ego / f"{FOLD}.mp4").rename(root / pair)
    assert problems(refs_of(ADAPTER, root)) == {FOLD: "missing_video"}  # whose it is nobody says
    (root / pair).rename(ego / pair)
    assert problems(refs_of(ADAPTER, root)) == {}
    shutil.copy(ego / f"{DRAWER}.mp4", root / "part1" / f"{DRAWER}.mp4")
    ego.rename(root / "EXO")
    refs = refs_of(ADAPTER, root)
    assert problems(refs) == {FOLD: "missing_video"}
    (root / "EXO").rename(ego)
    assert problems(refs_of(ADAPTER, root)) == {DRAWER: "unknown_layout"}


def _entry(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["annotations"][f"{FOLD}.mp4"].update(fields)


def _step(**fields: Any) -> Callable[[dict[str, Any]], None]:
    def edit(data: dict[str, Any]) -> None:
        step = data["annotations"][f"{FOLD}.mp4"]["Fine-level"][0]
        step.update({key.replace("_", " "): value for key, value in fields.items()})

    return edit


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (_entry(View="side"), "expected Ego or Exo"),
        (_entry(View=None), "View"),
        (_entry(Duration="long"), "Duration"),
        (_entry(Duration=0), "Duration 0"),
        (_entry(Duration=2000), "the unit is not seconds"),
        (_entry(**{"Fine-level": [{"Step timestamp": [0, 1]}]}), "Step discription"),
        (_step(Step_timestamp=[1.0]), "Step timestamp"),
        (_step(Step_timestamp=[1.5, 0.5]), "step from 1.5 to 0.5 s"),
        (_step(Step_timestamp=[0, 30]), "step from 0.0 to 30.0 s of 2.0 s"),
        (_step(Step_discription="Q: fold"), "expected T or F"),
    ],
)
def test_entries_that_do_not_hold(
    root: Path, edit: Callable[[dict[str, Any]], None], text: str
) -> None:
    change(root / TRAIN, edit)
    refs = by_id(refs_of(ADAPTER, root))
    assert set(refs) == set(generator.EGO)
    ref = refs.pop(FOLD)
    assert problems(list(refs.values())) == {}
    if ref.problem is None:
        with pytest.raises(SourceError, match=text) as caught:
            ADAPTER.load(ref)
        assert caught.value.code is Code.BAD_ANNOTATION
    else:
        assert ref.problem[0] == Code.BAD_ANNOTATION
        assert text in ref.problem[1]


def test_a_video_that_is_listed_twice(root: Path) -> None:
    change(
        root / TRAIN,
        lambda data: data["annotations"].update(
            {f"../../{DRAWER}.mp4": generator.entry("Ego", "again", [])}
        ),
    )
    refs = refs_of(ADAPTER, root)
    assert problems(refs) == {f"{DRAWER}/again/1": "bad_annotation"}


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda data: {"videos": data["annotations"]}, "expected annotations"),
        (lambda data: {"annotations": list(data["annotations"].values())}, "is a list"),
        (lambda data: {"annotations": "none"}, "expected annotations"),
    ],
)
def test_another_layout_stops_the_run(
    root: Path, edit: Callable[[dict[str, Any]], Any], text: str
) -> None:
    change(root / TRAIN, edit)
    with pytest.raises(ConfigError, match=text):
        ADAPTER.survey(root, {})


def test_a_file_that_is_cut_off_stops_the_run(root: Path) -> None:
    (root / TRAIN).write_text('{"annotations": {')
    with pytest.raises(ConfigError):
        ADAPTER.survey(root, {})
