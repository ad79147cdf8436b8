"""The estimate of a plan, against arithmetic and against the benchmark that its constants come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingest.corpus.snapshot import Snapshot
from ingest.pipeline.cost import BYTES_PER_PX, DECODE_PX_PER_S, ENCODE_PX_PER_S, ingest_cost
from ingest.pipeline.plan import Request, make_plan
from ingest.recipe import Recipe
from tests.faults.runs import TOY
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


def test_a_plan_by_hand(tmp_path: Path) -> None:
    """Of ten toy episodes three are probed: 48 × 32 PNG at 10 Hz, nothing to scale. Metadata says 1 s for each."""
    raw = write_toy(tmp_path, dict.fromkeys("abcdefghij", "good"))
    request = Request(source=TOY, root=raw, options={}, recipe=Recipe())
    cost = ingest_cost(make_plan(request, None, Snapshot()), request)
    assert cost is not None
    assert (cost.num_probed, cost.num_objects) == (3, 20)
    assert cost.hours == pytest.approx(10 / 3600)
    px_per_s = 10 * 48 * 32  # recorded
    core_s = px_per_s / DECODE_PX_PER_S + px_per_s / ENCODE_PX_PER_S
    assert cost.core_hours == pytest.approx(10 * core_s / 3600)
    assert cost.video_bytes == pytest.approx(10 * px_per_s * BYTES_PER_PX, abs=1)


def test_what_cannot_be_read_gives_no_estimate(tmp_path: Path) -> None:
    raw = write_toy(tmp_path, dict.fromkeys("abc", "quarantine"))
    request = Request(source=TOY, root=raw, options={}, recipe=Recipe())
    assert ingest_cost(make_plan(request, None, Snapshot()), request) is None
