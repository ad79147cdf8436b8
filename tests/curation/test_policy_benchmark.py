"""The built-in policy on demonstrations of which we know what is wrong: per fault, per tier, and high against low."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.curation.demonstrations import FAULTS, demonstrations
from tests.curation.scores import auroc, outcome, per_fault, per_tier

SEEN = ("frozen_video", "late_video")  # faults of pictures
BLIND = tuple(fault for fault in FAULTS if fault not in SEEN)


# --- tests --------------------------------------------------------------------------------------------------------------


def test_faults_of_motion_and_action_are_found(tmp_path: Path) -> None:
    """A few of each, without pictures."""
    made = list(demonstrations(5, 1, has_pictures=False, faults=BLIND))
    done = outcome(tmp_path / "corpus", made)
    recall = {fault: found for fault, (_, found, count) in per_fault(done).items() if count}
    assert {fault for fault, found in recall.items() if found < 1} <= {"pause"}
    assert per_tier(done)["high"][0] > 0.95
    assert auroc(done) > 0.95


@pytest.mark.slow
def test_the_labelled_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A part of what `python -m tests.tier_quality_report` measures for docs/results/fidelity.md; shown with `pytest -s`.

    With pictures are those whose fault is in them, and one sound one of each body.
    """
    made = [
        *demonstrations(5, 1, has_pictures=False, faults=BLIND),
        *demonstrations(1, 1, faults=("none", *SEEN)),
    ]
    done = outcome(tmp_path / "corpus", made)
    faults, tiers, score = per_fault(done), per_tier(done), auroc(done)
    with capsys.disabled():
        sys.stdout.write(json.dumps({"episodes": len(made), "auroc": round(score, 4)}) + "\n")
        for name, (precision, recall, count) in (*faults.items(), *tiers.items()):
            line = f"{name:18} precision {precision:.3f} recall {recall:.3f} of {count}"
            sys.stdout.write(f"{line}\n")
    assert score >= 0.95
    assert all(recall >= 0.75 for _, recall, _ in faults.values()), faults
    assert all(precision >= 0.75 for precision, _, _ in faults.values()), faults
    assert tiers["high"][0] >= 0.95
    assert all(recall >= 0.8 for _, recall, _ in tiers.values()), tiers
