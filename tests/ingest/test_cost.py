"""The estimate of a plan, against arithmetic and against the benchmark that its constants come from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.corpus.snapshot import Snapshot
from ingest.pipeline.cost import (
    BYTES_PER_PX,
    DECODE_PX_PER_S,
    ENCODE_PX_PER_S,
    EpisodeCost,
    IngestCost,
    estimate,
    ingest_cost,
)
from ingest.pipeline.plan import Request, make_plan
from ingest.recipe import Limits, Recipe
from schemas.episode import EpisodeRef
from tests.faults.runs import LIMITS, TOY
from tests.faults.toy import write_toy

MEASURED = json.loads(
    (Path(__file__).parents[2] / "docs/results/data/ingest.json").read_text()
)[0]["figures"]  # fmt: skip
SIZES = {  # source, output
    "256": (256 * 256, 256 * 256),
    "640x480": (640 * 480, 342 * 256),
    "1080p": (1920 * 1080, 456 * 256),
}


@pytest.mark.parametrize("case", SIZES)
def test_the_constants_are_those_of_the_benchmark(case: str) -> None:
    """It decodes three source frames to a stored one."""
    source_px, out_px = SIZES[case]
    seconds = 3 * source_px / DECODE_PX_PER_S + out_px / ENCODE_PX_PER_S
    assert seconds == pytest.approx(1 / MEASURED[f"ours_fps_{case}"], rel=0.08)


@pytest.mark.slow
def test_a_plan_by_hand(tmp_path: Path) -> None:
    """Of ten toy episodes three are probed: 48 × 32 PNG at 10 Hz, nothing to scale. Metadata says 1 s for each."""
    cost = cost_of(tmp_path, dict.fromkeys("abcdefghij", "good"))
    assert cost is not None
    assert (cost.num_probed, cost.num_objects) == (3, 20)
    assert cost.hours == pytest.approx(10 / 3600)
    px_per_s = 10 * 48 * 32  # recorded
    core_s = px_per_s / DECODE_PX_PER_S + px_per_s / ENCODE_PX_PER_S
    assert cost.core_hours == pytest.approx(10 * core_s / 3600)
    assert cost.video_bytes == pytest.approx(10 * px_per_s * BYTES_PER_PX, abs=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["quarantine", "crash", "segfault", "oom"])
def test_what_cannot_be_read_is_not_probed_and_harms_no_one(kind: str, tmp_path: Path) -> None:
    assert cost_of(tmp_path / "all", dict.fromkeys("abc", kind)) is None
    cost = cost_of(tmp_path / "one", {"a": "good", "b": kind, "c": "good"})
    assert cost is not None
    assert cost.num_probed == 2


@pytest.mark.slow
def test_a_probe_that_hangs_ends_with_its_time_limit(tmp_path: Path) -> None:
    limits = LIMITS.model_copy(update={"time_limit_s": 0.5})
    assert cost_of(tmp_path, {"a": "hang"}, limits) is None


def cost_of(folder: Path, kinds: dict[str, str], limits: Limits = LIMITS) -> IngestCost | None:
    raw = write_toy(folder, kinds)
    request = Request(source=TOY, root=raw, options={}, recipe=Recipe())
    return ingest_cost(make_plan(request, None, Snapshot()), request, limits)


@pytest.mark.parametrize(
    ("hints_s", "total_s"),
    [
        ([0, 0, 0, 0], 4 * 5),  # as the probed one
        ([10, 0, 20, 0], 10 + 20 + 2 * 15),
        ([10, float("inf"), float("nan"), -1], 4 * 10),  # of damaged metadata
        ([1, 2, 3, 4], 10),
    ],
)
def test_an_episode_without_a_length_has_the_mean(hints_s: list[float], total_s: float) -> None:
    todo = [
        EpisodeRef(
            source="toy", dataset="toy", episode_id=str(n), root="", duration_hint_s=float(hint)
        )
        for n, hint in enumerate(hints_s)
    ]
    probed = EpisodeCost(duration_s=5.0, core_s=1.0, video_bytes=1000.0, num_cameras=2)
    cost = estimate(todo, [probed], Recipe())
    assert cost is not None
    assert cost.hours * 3600 == pytest.approx(total_s)
    assert cost.core_hours * 3600 == pytest.approx(total_s / 5)
    assert (cost.video_bytes, cost.num_objects, cost.num_puts) == (total_s * 200, 12, 12)
    uploaded = estimate(todo, [probed], Recipe(), workers_upload=True)
    assert uploaded == replace(cost, num_puts=12 + 4 * (1 + 2 * 4))
