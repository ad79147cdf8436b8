"""The hand–object verdict: what a text says, what evidence decides, and that a detector's silence decides nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.corpus.snapshot import Snapshot
from ingest.curation.measurements import runner as run_module
from ingest.curation.measurements import view as view_module
from ingest.curation.measurements.each import hand_detections, hoi
from ingest.curation.measurements.hoi.decide import (
    VERSION,
    InteractionLimits,
    InteractionState,
    Reason,
    decide,
    windows,
)
from ingest.curation.measurements.hoi.evidence import (
    Evidence,
    filled,
    seen_mask,
    text_evidence_of,
    without_short,
)
from ingest.curation.measurements.hoi.hand_observer import HandObserver, SeenHands
from ingest.curation.measurements.hoi.labels import TextEvidence, text_evidence
from ingest.curation.measurements.pictures import look_at
from ingest.curation.measurements.registry import compute, select_measures
from ingest.curation.measurements.runner import measure_corpus, missing
from ingest.curation.measurements.view import EpisodeView
from ingest.curation.tiers.policy import load_policy
from ingest.curation.tiers.tier import judge
from ingest.executors.inline import InlineExecutor
from ingest.models.hand_landmarker import HAND_LANDMARKER, DetectedHand
from ingest.storage.local import LocalStorage
from tests.curation.tier_corpus import Given as GivenEpisode
from tests.curation.tier_corpus import decisions, write_corpus
from tests.curation.video_corpus import Builder, encode, texture
from tests.faults.runs import run
from tests.generators import epic_kitchens, robomimic

K = 50


# --- what a text says ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("#C C opens a shelf", TextEvidence.HANDLING),
        ("put down wooden spoon", TextEvidence.HANDLING),
        ("turn_on tap", TextEvidence.HANDLING),
        ("still stirring", TextEvidence.HANDLING),
        ("Moving cup closer to plate", TextEvidence.HANDLING),
        ("The man walks to the table and picks a cup", TextEvidence.HANDLING),
        ("#C C walks into the kitchen", TextEvidence.NO_HANDS),
        ("C looks around", TextEvidence.NO_HANDS),
        ("C looks at the light", TextEvidence.NO_HANDS),
        ("turns around", TextEvidence.NO_HANDS),
        ("stand up", TextEvidence.NO_HANDS),
        ("#C C talks to a man X", TextEvidence.NO_HANDS),
        ("Moving away from phone with your camera", TextEvidence.CAMERA_ONLY),
        ("Turning the camera left while filming wall", TextEvidence.CAMERA_ONLY),
        # who handles, or whether, is not settled
        ("looks at the man cutting wood", TextEvidence.NOTHING),
        ("wait for water to boil", TextEvidence.NOTHING),
        ("look in fridge", TextEvidence.NOTHING),
        ("move around meat in pan", TextEvidence.NOTHING),
        ("stand the bottle upright", TextEvidence.NOTHING),
        ("raises his hand", TextEvidence.NOTHING),
        ("#C C interacts with a woman X", TextEvidence.NOTHING),
        ("task 12", TextEvidence.NOTHING),
        ("", TextEvidence.NOTHING),
    ],
)
def test_what_a_text_says(text: str, says: TextEvidence) -> None:
    assert text_evidence(text) is says


def row(kind: str, start: int, end: int, text: str) -> dict[str, Any]:
    return {"kind": kind, "start": start, "end": end, "text": text}


def test_a_subtask_outweighs_its_task_unless_it_says_nothing() -> None:
    segments = [
        row("valid_run", 0, 20, ""),
        row("summary", 0, 20, "walks around"),
        row("task", 0, 20, "make tea"),
        row("subtask", 0, 5, "walk to the fridge"),
        row("subtask", 5, 10, "interact with him"),
        row("subtask", 12, 16, "look around"),
        row("subtask", 14, 20, "open fridge"),
    ]
    h, n = int(TextEvidence.HANDLING), int(TextEvidence.NO_HANDS)
    assert text_evidence_of(segments, 20).tolist() == [n] * 5 + [h] * 7 + [n] * 2 + [h] * 6


# --- masks and windows --------------------------------------------------------------------------------------------------


def mask(text: str) -> np.ndarray:
    return np.array([c == "x" for c in text])


def test_gaps_are_filled_and_lone_finds_dropped() -> None:
    """Ours by hand: a gap of 0.5 s is filled and one of 0.6 s is not; ends are no gaps; a track of 0.4 s is dropped."""
    assert (filled(mask(".xx.....xx......x."), 5) == mask(".xxxxxxxxx......x.")).all()
    assert (without_short(mask(".xxxx.xxxxx."), 5) == mask("......xxxxx.")).all()
    assert without_short(mask("xxx"), 5).all()


def seen(*at_found: int, length: int = K) -> SeenHands:
    at = np.arange(0, length, 2)
    count = np.isin(at, at_found).astype(np.int64)
    nothing = np.full(len(at), np.nan)
    return SeenHands(at=at, count=count, motion_px_s=nothing, flow_px_s=nothing)


def test_each_find_stands_for_its_timesteps() -> None:
    """Found at 10, 12, 18: [10, 20) after the gap of four; alone at 40: dropped."""
    found = np.flatnonzero(seen_mask(seen(10, 12, 18, 40), K, 10.0))
    assert found.tolist() == list(range(10, 20))
    odd = seen_mask(seen(2, 4, 6, length=7), 7, 10.0)  # the last picture has no second timestep
    assert np.flatnonzero(odd).tolist() == [2, 3, 4, 5, 6]


def test_windows_are_not_shorter_than_the_shortest_run() -> None:
    assert windows([0, 3, 10, 13, 48, 50, 50], 50, 5.0).tolist() == [0, 10, 50]
    assert windows([], 3, 5.0).tolist() == [0, 3]


# --- the verdict --------------------------------------------------------------------------------------------------------


def evidence(says: TextEvidence = TextEvidence.NOTHING, length: int = K, **known: Any) -> Evidence:
    base: dict[str, Any] = {
        "tracked": None,
        "seen": None,
        "closing": np.zeros(length, dtype=bool),
        "blank": None,
        "moving": None,
    }
    return Evidence(says=np.full(length, int(says)), rate_hz=10.0, **(base | known))


def share(of_k: int, length: int = K) -> np.ndarray:
    return np.arange(length) < of_k


NONE, ALL = share(0), share(K)


@pytest.mark.parametrize(
    ("given_", "reason"),
    [
        (evidence(TextEvidence.HANDLING, 4, seen=np.ones(4, dtype=bool)), Reason.TOO_SHORT),
        (evidence(TextEvidence.HANDLING, blank=share(25), seen=ALL), Reason.BLANK),
        (evidence(TextEvidence.CAMERA_ONLY, seen=ALL), Reason.CAMERA_LABEL),
        (evidence(TextEvidence.NO_HANDS, seen=share(4)), Reason.LABEL_WITHOUT_HANDS),
        (evidence(TextEvidence.NO_HANDS, seen=share(5)), Reason.LABELS_DISAGREE),
        (evidence(TextEvidence.NO_HANDS, seen=NONE, tracked=share(5)), Reason.LABELS_DISAGREE),
        (evidence(TextEvidence.NO_HANDS), Reason.LABEL_NOT_LOOKED_AT),
        (evidence(TextEvidence.HANDLING), Reason.LABEL_NOT_LOOKED_AT),
        (evidence(TextEvidence.HANDLING, tracked=ALL, seen=NONE), Reason.LABEL_AND_HAND),
        (evidence(TextEvidence.HANDLING, seen=ALL, moving=share(5)), Reason.LABEL_AND_HAND),
        (evidence(TextEvidence.HANDLING, seen=ALL, moving=share(4)), Reason.STILL),
        (evidence(TextEvidence.HANDLING, seen=share(14)), Reason.LABEL_BUT_NO_HAND),
        (evidence(TextEvidence.HANDLING, seen=np.arange(K) % 2 == 0), Reason.LABEL_BUT_NO_HAND),
        (evidence(TextEvidence.HANDLING, seen=NONE), Reason.LABEL_BUT_NO_HAND),
        (evidence(seen=ALL), Reason.HAND_ONLY),
        (evidence(tracked=ALL, closing=share(3)), Reason.HAND_CLOSES),
        (evidence(seen=share(7)), Reason.FEW_HANDS),
        (evidence(seen=NONE), Reason.NO_HAND_SEEN),
        (evidence(seen=NONE, blank=share(24)), Reason.NO_HAND_SEEN),
        (evidence(), Reason.NOTHING_KNOWN),
    ],
)
def test_the_reason_of_one_window(given_: Evidence, reason: Reason) -> None:
    """Thresholds of hoi_filter.md §5, just reached and just not: 0.5 s, 0.3, 0.1, half of it blank."""
    (found,) = {v.reason for v in decide(given_)} - {Reason.HAND_FREE_END, Reason.HAND_FREE_GAP}
    assert found is reason


def test_states_go_by_the_numbers_of_the_reasons() -> None:
    by_state = Counter(reason.state for reason in Reason)
    assert by_state == {
        InteractionState.NO_INTERACTION: 4,
        InteractionState.INTERACTION: 1,
        InteractionState.UNCERTAIN: 11,
    }


@given(
    finds=st.lists(st.integers(0, 29), max_size=30),
    tracks=st.none() | st.lists(st.booleans(), min_size=60, max_size=60),
    says=st.lists(
        st.sampled_from([TextEvidence.NOTHING, TextEvidence.HANDLING]), min_size=60, max_size=60
    ),
    edges=st.sets(st.integers(0, 60)),
)
def test_absence_alone_never_rejects(
    finds: list[int], tracks: list[bool] | None, says: list[TextEvidence], edges: set[int]
) -> None:
    """Whatever a detector does not see and no tracker tracks: without positive evidence there is no 'no interaction'."""
    base = evidence(length=60, seen=seen_mask(seen(*(2 * f for f in finds), length=60), 60, 10.0))
    tracked = None if tracks is None else np.array(tracks)
    verdicts = decide(replace(base, tracked=tracked, says=np.array(says, dtype=np.int64)), edges)
    assert InteractionState.NO_INTERACTION not in {v.state for v in verdicts}
    assert [v.start for v in verdicts] == [0, *(v.end for v in verdicts[:-1])]
    assert verdicts[-1].end == 60
    assert all(v.start < v.end for v in verdicts)


def test_an_interaction_is_trimmed_where_no_hand_is() -> None:
    """Hand-free: 1.1 s at the start, 2.0 s within (kept), 2.1 s within, 1.0 s at the end (kept). The margin of 0.25 s is 2 timesteps."""
    hand = mask("." * 11 + "x" * 19 + "." * 20 + "x" * 10 + "." * 21 + "x" * 9 + "." * 10)
    found = decide(evidence(TextEvidence.HANDLING, 100, seen=hand))
    assert [(v.start, v.end, v.reason) for v in found] == [
        (0, 9, Reason.HAND_FREE_END),
        (9, 62, Reason.LABEL_AND_HAND),
        (62, 79, Reason.HAND_FREE_GAP),
        (79, 100, Reason.LABEL_AND_HAND),
    ]
    assert found[0].hand_share == found[2].hand_share == 0.0


def test_windows_are_judged_each_for_itself() -> None:
    says = np.repeat([TextEvidence.NO_HANDS, TextEvidence.HANDLING], [20, 30]).astype(np.int64)
    given_ = replace(evidence(seen=~share(20)), says=says)
    found = decide(given_, [20])
    assert [(v.start, v.end, v.state) for v in found] == [
        (0, 20, InteractionState.NO_INTERACTION),
        (20, 50, InteractionState.INTERACTION),
    ]
    strict = decide(given_, [20], InteractionLimits(min_run_s=4.0))
    assert {v.reason for v in strict} == {Reason.LABEL_BUT_NO_HAND}


# --- looking at pictures ------------------------------------------------------------------------------------------------


class Fake:
    """Finds a hand in the box 0.25..0.5 of a picture, as long as it is told to."""

    identity = 0xABCDEF

    def __init__(self, finds: set[int] | None = None) -> None:
        self.finds, self.asked = finds, 0

    def find(self, picture: np.ndarray) -> list[DetectedHand]:
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        self.asked += 1
        if self.finds is not None and self.asked - 1 not in self.finds:
            return []
        corners = np.array([[0.25, 0.25], [0.5, 0.5]])
        return [DetectedHand(points=np.repeat(corners, [10, 11], axis=0))]


def test_the_hands_motion_is_less_the_cameras() -> None:
    """All moves by 4 px of 320 a picture, 2 of 160, at 5 pictures a second: 10 px/s. Then the hand alone, by 6 of 320: 15 px/s."""
    wide = texture(3, width=420)
    first, second = wide[:, :320], wide[:, 4:324]
    third = second.copy()
    third[60:120, 80:160] = wide[60:120, 78:158]
    watch = HandObserver(Fake(), 10.0)
    for index, picture in enumerate((first, second, third)):
        watch.see(2 * index, np.ascontiguousarray(picture))
    found = watch.seen()
    assert found.at.tolist() == [0, 2, 4]
    assert np.isnan(found.motion_px_s[0])
    assert found.flow_px_s[1:] == pytest.approx([10.0, 0.0], abs=0.5)
    assert found.motion_px_s[1] < 1.0
    assert found.motion_px_s[2] == pytest.approx(
        15.0, rel=0.35
    )  # flow is smoothed at the box's edge


def person(folder: Path, detector: Any, *, text: str = "", black: range = range(0)) -> EpisodeView:
    pictures = [np.roll(texture(1), 3 * i, axis=1) for i in range(30)]
    pictures = [np.zeros_like(p) if i in black else p for i, p in enumerate(pictures)]
    segments = [row("task", 0, 30, text)]
    view = Builder(30).view(
        {"head": encode(folder / "v.mp4", pictures)}, embodiment="human_video", segments=segments
    )
    object.__setattr__(view, "hand_detector", detector)
    return view


def test_rows_of_an_episode(tmp_path: Path) -> None:
    """Hands in the analysed pictures 2 to 9 of 15: timesteps [4, 20)."""
    fake = Fake(set(range(2, 10)))
    view = person(tmp_path, fake, text="open the door")
    rows = [*compute(hand_detections.MEASURE, view), *compute(hoi.MEASURE, view)]
    assert fake.asked == 15  # every second picture, and once for both measures
    told = {(r.name, r.start, r.end): r.value for r in rows}
    assert told["hoi_hand_share", None, None] == pytest.approx(8 / 15)
    assert told["hoi_hand_run_max_s", None, None] == 1.6
    assert told["hoi_hand_seen", 4, 20] == 1.0
    assert told["hoi_detector", None, None] == 0xABCDEF
    assert (told["hoi_hand_motion_px_s", None, None] or 0) >= 0
    assert told["hoi_interaction", 0, 30] == Reason.LABEL_AND_HAND
    assert told["hoi_interaction_share", None, None] == 1.0
    assert told["hoi_no_interaction", None, None] is None


def test_a_black_half_is_no_interaction(tmp_path: Path) -> None:
    rows = list(compute(hoi.MEASURE, person(tmp_path, None, text="open", black=range(15, 30))))
    told = {(r.name, r.start, r.end): r.value for r in rows}
    assert told["hoi_no_interaction", 15, 30] == Reason.BLANK
    assert told["hoi_uncertain", 0, 15] == Reason.LABEL_NOT_LOOKED_AT


def test_robots_are_not_looked_at(tmp_path: Path) -> None:
    view = person(tmp_path, Fake())
    robot = replace(view, row={**view.row, "embodiment": "franka"})
    for measure in (hand_detections.MEASURE, hoi.MEASURE):
        assert {r.value for r in compute(measure, robot)} == {None}
    assert robot.pictures
    assert robot.hand_detector.asked == 0  # type: ignore[union-attr]


# --- through the real run -----------------------------------------------------------------------------------------------


def do_measure(out: Path, models: dict[str, str]) -> Any:
    corpus, current = open_corpus(out), snapshot.load(out)
    todo = missing(corpus, current, select_measures(["hoi", "hand_detections"]), models)
    return measure_corpus(
        corpus,
        current,
        todo,
        InlineExecutor(LocalStorage()),
        run_id="m",
        disk=LocalStorage(),
        models=models,
    )


def newest(current: Snapshot, out: Path) -> dict[str, set[int]]:
    rows = current.read(out, "measurements", ["name", "version"]).to_pylist()
    found: dict[str, set[int]] = {}
    for r in rows:
        if r["name"].startswith("hoi_"):
            found.setdefault(r["name"], set()).add(r["version"])
    return found


@pytest.mark.slow
def test_a_model_that_comes_later_makes_verdicts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without: verdicts, no detections, and a count of what waits. With: both, once, in one look at each video. Again without: nothing."""
    out = tmp_path / "c"
    run(epic_kitchens.write(tmp_path / "raw").root, out, source="epic_kitchens", limit=2)
    run(robomimic.write(tmp_path / "robot").root, out, source="robomimic", limit=1)
    corpus, both = open_corpus(out), select_measures(["hoi", "hand_detections"])
    fake, looks = Fake(), Counter[Path]()

    def counted(path: Path, *rest: Any) -> Any:
        looks[path] += 1
        return look_at(path, *rest)

    monkeypatch.setattr(run_module, "open_detector", lambda path: fake)
    monkeypatch.setattr(view_module, "look_at", counted)
    people = 2
    tally, current = do_measure(out, {})
    assert (tally.failed, tally.measured) == (0, people)
    version = hoi.MEASURE.stored_version
    assert set(newest(current, out)) == {g.name for g in hoi.MEASURE.outputs}
    assert missing(corpus, current, both).waiting == people
    looks.clear()
    tally, current = do_measure(out, {HAND_LANDMARKER: "model.task"})
    assert (tally.failed, tally.measured) == (0, people)
    assert set(looks.values()) == {1}
    assert len(looks) == people
    found = newest(current, out)
    assert found["hoi_interaction"] == {version, version + 1}
    assert found["hoi_hand_share"] == {hand_detections.MEASURE.stored_version}
    assert missing(corpus, current, both).waiting == 0
    tally, current = do_measure(out, {})
    assert (tally.measured, tally.up_to_date) == (0, tally.discovered)
    # rows on disk are told apart by these numbers: without the model, above it with, above both a later version
    with_model = replace(hoi.MEASURE, has_model=True).stored_version
    after = replace(hoi.MEASURE, version=hoi.MEASURE.version + 1).stored_version
    assert (version, with_model, after) == (2 * VERSION, 2 * VERSION + 1, 2 * VERSION + 2)
    # a later version is not made without the model that the present one had, but is waiting for it
    later = [replace(hoi.MEASURE, version=hoi.MEASURE.version + 1)]
    assert len(missing(corpus, current, later).lacks) == 0
    assert missing(corpus, current, later).waiting == people


# --- the built-in policy ------------------------------------------------------------------------------------------------


def test_the_policy_leaves_out_what_is_no_interaction_and_nothing_else(tmp_path: Path) -> None:
    """A minute without hands on positive evidence, one half of it, one that is uncertain, one that was never measured."""
    watched: dict[str, Any] = {
        "action_source": "none", "embodiment": "human_video", "supervises": ["visual_forecasting"],
    }  # fmt: skip
    none, unsure = "hoi_no_interaction", "hoi_uncertain"
    spans = [
        {none: [(0, 600, 13.0)], unsure: []},
        {none: [(0, 300, 13.0)], unsure: [(300, 600, 37.0)]},
        {none: [], unsure: [(0, 600, 37.0)]},
        {},
    ]
    episodes = [GivenEpisode(length=600, stretches=dict(s), row=watched) for s in spans]
    root = write_corpus(tmp_path / "c", episodes)
    found = decisions(judge(root, snapshot.load(root), load_policy("ei30k")[0], threads=1))
    tiers = [[(d["start"], d["end"], d["tier"]) for d in each] for each in found]
    assert tiers == [
        [(0, 600, "excluded")],
        [(0, 300, "excluded"), (300, 600, "actionless")],
        [(0, 600, "actionless")],
        [(0, 600, "actionless")],
    ]
