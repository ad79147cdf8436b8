"""The picture measures on real recordings: a robot's, a person's, and a person's with hands and camera poses."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.curation.measurements import view as view_module
from ingest.curation.measurements.pictures import look_at
from ingest.curation.measurements.registry import select_measures
from ingest.curation.measurements.runner import measure_corpus, missing
from ingest.executors.inline import InlineExecutor
from ingest.storage.local import LocalStorage
from tests.faults.runs import run

NAMES = ["video", "alignment", "camera", "projection", "language", "label", "hands", "facts"]
Values = dict[str, float | None]


def measured(
    raw: Path, out: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Values]:
    """Whole-episode values by uid, through the real run; no video is decoded twice."""
    run(raw, out, source=source, limit=6)
    looks: Counter[Path] = Counter()

    def counted(path: Path, length: int) -> object:
        looks[path] += 1
        return look_at(path, length)

    monkeypatch.setattr(view_module, "look_at", counted)
    corpus, before = open_corpus(out), snapshot.load(out)
    tally, current = measure_corpus(
        corpus,
        before,
        missing(corpus, before, select_measures(NAMES)),
        InlineExecutor(LocalStorage()),
        run_id="measure",
        disk=LocalStorage(),
    )
    assert tally.failed == 0, tally.errors
    assert sorted(looks) == sorted(out.rglob("*.mp4"))
    assert set(looks.values()) == {1}
    rows = current.read(out, "measurements").to_pylist()
    found: dict[str, Values] = {row["uid"]: {} for row in rows}
    for row in rows:
        if row["start"] is None:
            found[row["uid"]][row["name"]] = row["value"]
    return found


@pytest.mark.real
def test_bridge(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """5 Hz on a 10 Hz grid: every second picture is the one before. The cameras stand on tripods."""
    found = measured(samples / "oxe_bridge_rlds", tmp_path / "c", "oxe", monkeypatch)
    assert len(found) == 6
    for values in found.values():
        assert values["black_share"] == values["overexposed_share"] == values["scene_cuts"] == 0.0
        assert 0.5 <= (values["repeated_picture_share"] or 0) < 0.8
        assert (values["camera_energy_share"] or 0) < 0.1
        assert values["eef_in_image_share"] is None
        assert values["alignment_lag_s"] is None  # 1.9 s are too short to say
        assert values["unsettled_action_facts"] == 0.0
    with_text = [v for v in found.values() if v["language_share"] == 1.0]
    assert len(with_text) >= 4
    assert all(v["language_verb_share"] == v["language_object_share"] == 1.0 for v in with_text)


@pytest.mark.real
def test_ego4d(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(samples / "ego4d_lavila", tmp_path / "c", "video_folder", monkeypatch)
    (values,) = found.values()
    for name in ("black_share", "blurred_share", "frozen_share", "repeated_picture_share"):
        assert values[name] == 0.0
    assert values["scene_cuts"] == 0.0
    assert values["camera_moving_share"] is None  # nobody gives its pose
    assert 0.0 < (values["camera_energy_share"] or 0) < 0.3  # the head is calm, the hand stirs
    assert values["language_share"] == 0.0


@pytest.mark.real
def test_vitra(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The right hand takes a bottle before a head that turns."""
    found = measured(samples / "vitra", tmp_path / "c", "vitra", monkeypatch)
    (values,) = found.values()
    assert values["eef_in_image_share"] == values["eef_in_image_share.right"] == 1.0
    assert values["eef_in_image_share.left"] is None
    assert values["camera_moving_share"] == 1.0
    assert (values["camera_energy_share"] or 0) > 0.3
    assert values["hand_present_share"] == 1.0
    assert values["both_hands_share"] == 0.0
    assert (values["hand_aperture_range"] or 0) > 0.2
    assert values["language_english_share"] == values["language_object_share"] == 1.0
