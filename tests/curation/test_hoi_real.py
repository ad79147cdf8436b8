"""The filter on real recordings and real narrations; its figures are those of docs/results/fidelity.md, "Hands and objects"."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import pytest

from ingest.curation.measurements.each import hoi
from ingest.curation.measurements.hoi.decide import Reason
from ingest.curation.measurements.hoi.labels import TextEvidence, text_evidence
from ingest.curation.measurements.registry import compute
from ingest.models.hand_landmarker import HandLandmarker, landmarker_of
from tests.curation.video_corpus import Builder, encode
from tests.faults.runs import run

pytestmark = pytest.mark.real
VITRA = "vitra/videos/03cc49c3-a7d1-445b-9a2a-545c4fae6843.mp4"
LAVILA = "ego4d_lavila/3c0dffd0-e38e-4643-bc48-d513943dc20b_012_014.mp4"
GESTURES = "dex_retargeting/human_hand_video.mp4"
EPIC = "epic_kitchens/epic_fields/P28_101"
Picture = Any


@pytest.fixture(scope="module")
def detector() -> HandLandmarker:
    pytest.importorskip("mediapipe", reason="NOT RUN: the extra hoi is not installed")
    path = Path(__file__).parents[3] / "shared/data/mediapipe_hand/hand_landmarker.task"
    if not path.is_file():
        pytest.skip(f"NOT RUN: no model at {path}")
    return landmarker_of(str(path))


def video(path: Path, every: int = 1, stop: int | None = None) -> list[Picture]:
    """Every so manieth picture, up to the `stop`th of the recording; the others are not converted, and what follows is not decoded."""
    with av.open(str(path)) as container:
        frames = islice(container.decode(video=0), 0, stop, every)
        return [frame.to_ndarray(format="rgb24") for frame in frames]


def stills(folder: Path) -> list[Picture]:
    paths = sorted(p for p in folder.iterdir() if p.suffix in (".jpg", ".png"))
    return [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]


def found(detector: HandLandmarker, pictures: list[Picture]) -> list[bool]:
    return [len(detector.find(picture)) > 0 for picture in pictures]


@pytest.mark.slow
def test_what_the_detector_sees_of_hands(samples: Path, detector: HandLandmarker) -> None:
    """Every picture has a hand, but EPIC's first five. A hand that is not found is no rarity."""
    sample = video(samples / GESTURES, every=30)
    assert sum(found(detector, sample)) == len(sample) == 21
    assert sum(found(detector, video(samples / LAVILA))) in range(50, 57)  # 53 of 60
    assert sum(found(detector, video(samples / VITRA))) in range(13, 18)  # 15 of 25
    assert found(detector, stills(samples / "vitra/recon_examples")) == [True] * 3
    assert found(detector, stills(samples / EPIC)) == [False] * 8  # three of them have one


@pytest.mark.slow
def test_what_the_detector_sees_where_there_is_no_hand(
    samples: Path, detector: HandLandmarker, tmp_path: Path
) -> None:
    """Robots, as the corpus has them: 6 of 1315 pictures."""
    seen: Counter[bool] = Counter()
    for source, name in (
        ("oxe", "oxe_bridge_rlds"),
        ("robocasa_gr1", "lerobot_v20_gr1_picknplace"),
        ("aloha", "aloha_sim_hdf5"),
    ):
        run(samples / name, tmp_path / source, source=source)
        for path in sorted((tmp_path / source / "datasets").rglob("*.mp4")):
            seen.update(found(detector, video(path, every=2)))
    assert seen.total() == 1315
    assert seen[True] <= 12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clip", "narration", "reason"),
    [
        (VITRA, "Pick up the spray bottle", Reason.LABEL_AND_HAND),
        (VITRA, "", Reason.HAND_ONLY),
        (VITRA, "walks around", Reason.LABELS_DISAGREE),
        (LAVILA, "#C C stirs the food with a spatula", Reason.LABEL_AND_HAND),
        (LAVILA, "", Reason.HAND_ONLY),
        (LAVILA, "#C C looks around", Reason.LABELS_DISAGREE),
        (GESTURES, "", Reason.HAND_ONLY),
        (GESTURES, "wave hand", Reason.HAND_ONLY),
        (GESTURES, "pick up bottle", Reason.LABEL_AND_HAND),  # wrong, as its narration is
        (EPIC, "", Reason.NO_HAND_SEEN),
        (EPIC, "walk to cupboard", Reason.LABEL_WITHOUT_HANDS),
        (EPIC, "open cupboard", Reason.LABEL_BUT_NO_HAND),
    ],
)
def test_the_verdict_on_a_clip(
    samples: Path,
    detector: HandLandmarker,
    tmp_path: Path,
    clip: str,
    narration: str,
    reason: Reason,
) -> None:
    """As a corpus has it, at 10 Hz, under a narration of ours: none, a true one, a false one. VITRA's hand poses are left out."""
    path = samples / clip
    pictures = stills(path) if path.is_dir() else video(path, every=3, stop=60)  # of 30 Hz
    pictures = [p[: p.shape[0] // 2 * 2, : p.shape[1] // 2 * 2] for p in pictures]
    length = len(pictures)
    view = Builder(length).view(
        {"head": encode(tmp_path / "v.mp4", pictures)},
        embodiment="human_video",
        segments=[{"kind": "task", "start": 0, "end": length, "text": narration}],
    )
    object.__setattr__(view, "hand_detector", detector)
    rows = [r for r in compute(hoi.MEASURE, view) if r.start is not None]
    assert [Reason(int(r.value or 0)) for r in rows] == [reason]


# --- narrations ---------------------------------------------------------------------------------------------------------

EPIC_WITHOUT_HANDS = {"38", "67", "72"}  # verb classes look, transition, wait
HOLOASSIST_EITHER = {"approach", "inspect", "point", "stand", "validate"}


def narrations_of_epic(samples: Path) -> Iterator[tuple[str, bool]]:
    folder = samples / "epic_kitchens/annotations"
    for name in ("EPIC_100_validation.csv", "UDA_annotations/EPIC_100_uda_source_train.csv"):
        with (folder / name).open() as file:
            for row in csv.DictReader(file):
                yield row["narration"], row["verb_class"] not in EPIC_WITHOUT_HANDS


def actions_of_holoassist(samples: Path) -> Iterator[str]:
    path = samples / "holoassist/data-annotation-trainval.per_video.jsonl.gz"
    with gzip.open(path, "rt") as file:
        for line in file:
            for event in json.loads(line)["events"]:
                said = event["attributes"]
                if (
                    event["label"] == "Fine grained action"
                    and said["Verb"] not in HOLOASSIST_EITHER
                ):
                    yield f"{said['Verb']} {said['Noun']}"


def test_what_narrations_say(samples: Path) -> None:
    """EPIC-KITCHENS: against its annotators' verb classes. Few are without hands, so that precision is what counts."""
    counted = Counter((text_evidence(t), is_hand) for t, is_hand in narrations_of_epic(samples))
    assert counted == {
        (TextEvidence.HANDLING, True): 25373,
        (TextEvidence.NOTHING, True): 328,
        (TextEvidence.NO_HANDS, True): 3,
        (TextEvidence.HANDLING, False): 2,
        (TextEvidence.NOTHING, False): 38,
        (TextEvidence.NO_HANDS, False): 39,
    }
    actions = Counter(text_evidence(text) for text in actions_of_holoassist(samples))
    assert actions == {TextEvidence.HANDLING: 137866, TextEvidence.NOTHING: 2102}
