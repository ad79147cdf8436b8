"""A frozen camera is told from a live one that sees nothing move: by the source's own pictures and by the view itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ingest.catalog.catalog import Catalog
from ingest.curation.measurements.each import video
from ingest.curation.measurements.view import EpisodeView
from jobs.cli import app
from jobs.demo.raw.oxe import BRIDGE, bridge_episode, jpeg, write_set
from jobs.demo.raw.scene import Scene
from tests.curation.video_corpus import Builder, Picture, camera_row, encode, spans_of, texture

K, WIDTH, HEIGHT, BLOCK = 60, 320, 240, 60
OUT = (20, 40)  # timesteps in which the block is left of the picture


def place_px(timestep: int) -> int:
    """Left edge of the block: it walks out to the left, moves on out of view for two seconds, and walks in again."""
    start, end = OUT
    return round(-BLOCK + 12 * max(start - timestep, timestep - (end - 1), 0))


def picture_of(left_px: int, noise: np.random.Generator | None) -> Picture:
    picture = texture(3, width=WIDTH, height=HEIGHT).astype(np.float64)
    right = max(0, left_px + BLOCK)
    picture[80:160, max(0, left_px) : right] = (230, 230, 60)
    if noise is not None:
        picture += noise.normal(0, 1.5, picture.shape)
    return np.clip(picture, 0, 255).round().astype(np.uint8)


def walked(index: np.ndarray[Any, Any] | None = None, *, is_noisy: bool = True) -> list[Picture]:
    noise = np.random.default_rng(0) if is_noisy else None
    shown = np.arange(K) if index is None else index
    return [picture_of(place_px(int(k)), noise) for k in shown]


def view_of(path: Path, pictures: list[Picture], codec: str = "av1", **row: Any) -> EpisodeView:
    """The arm moves 2 cm every timestep, in view or not."""
    T = np.tile(np.eye(4), (K, 1, 1))
    T[:, 0, 3] = 0.02 * np.arange(K)
    camera = camera_row("front") | {"source_codec": codec}
    videos = {"front": encode(path, pictures)}
    return Builder(K).arm("left", T).view(videos, cameras=[camera], **row)


def repeat(start: int, end: int, luma: float) -> dict[str, Any]:
    return {"camera": "front", "start": start, "end": end, "luma": luma}


LIVE: dict[str, dict[str, Any]] = {
    "a corpus from before the sources were compared": {},
    "no two source pictures are alike": {"source_repeats": [], "source_rate_hz": 30.0},
    # What prediction makes of a live view without motion (HEVC: bit for bit, whatever the sensor's noise).
    "the source's codec erased the noise": {"source_repeats": [repeat(20, 41, 0.0)]},
}


@pytest.mark.parametrize("row", LIVE.values(), ids=LIVE)
def test_a_live_view_that_the_arm_has_left_is_not_frozen(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    view = view_of(tmp_path / "x.mp4", walked(), **row)
    assert view.pictures["front"].repeated[OUT[0] : OUT[1] - 1].all(), (
        "no visible change in storage"
    )
    for name in ("frozen_video", "frozen_camera", "frozen_source_luma"):
        assert spans_of(video.compute, view, name) == []


FROZEN: dict[str, dict[str, Any]] = {
    "before the sources were compared": {},
    "through a codec": {"source_repeats": [repeat(6, 16, 0.03)]},
    "bit-equal single pictures": {"source_repeats": [repeat(6, 16, 0.0)], "codec": "mjpeg"},
}


@pytest.mark.parametrize("row", FROZEN.values(), ids=FROZEN)
def test_a_camera_that_stops_while_the_arm_is_in_view_is_frozen(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    index = np.arange(K)
    index[5:16] = 5
    view = view_of(tmp_path / "x.mp4", walked(index, is_noisy=False), **row)
    assert spans_of(video.compute, view, "frozen_video") == [(6, 16)]
    said = [
        (m.value, m.start, m.end) for m in video.compute(view) if m.name == "frozen_source_luma"
    ]
    assert said == [(r["luma"], 6, 16) for r in row.get("source_repeats", ())]


def test_single_pictures_that_are_bit_equal_prove_it_also_where_nothing_is_seen_to_move(
    tmp_path: Path,
) -> None:
    """The same two seconds out of view: the noise of a live sensor never repeats bit for bit."""
    calm_span = (OUT[0] + 1, OUT[1])
    said = {"source_repeats": [repeat(*calm_span, 0.0)]}
    calm = walked(is_noisy=False)
    assert spans_of(
        video.compute, view_of(tmp_path / "x.mp4", calm, "png", **said), "frozen_video"
    ) == [calm_span]
    assert (
        spans_of(video.compute, view_of(tmp_path / "y.mp4", calm, "h264", **said), "frozen_video")
        == []
    )


@pytest.mark.parametrize("is_compared", [True, False])
def test_a_source_below_10_hz_repeats_nothing(tmp_path: Path, *, is_compared: bool) -> None:
    """One picture a second, each shown for ten timesteps in which the arm travels 20 cm."""
    index = np.arange(K) // 10 * 10
    row: dict[str, Any] = {"source_rate_hz": 1.0} | ({"source_repeats": []} if is_compared else {})
    view = view_of(tmp_path / "x.mp4", walked(index, is_noisy=False), **row)
    assert view.pictures["front"].repeated.mean() > 0.8
    assert spans_of(video.compute, view, "frozen_camera") == []


def test_a_camera_that_dies_is_frozen_to_the_end(tmp_path: Path) -> None:
    index = np.minimum(np.arange(K), 10)
    view = view_of(tmp_path / "x.mp4", walked(index, is_noisy=False))
    assert spans_of(video.compute, view, "frozen_video") == [(11, K)]


def test_the_evidence_travels_from_the_source_to_the_measure(tmp_path: Path) -> None:
    """Two JPEG episodes at 5 Hz through `ingest` and `measure`: a live one, and one that repeats a picture for 3 s."""
    scene = Scene(duration_s=8.0, width=64, height=64)
    live = bridge_episode(scene, 40)
    frozen = dict(live)
    for key in (("observation", f"image_{k}") for k in range(2)):
        rng = np.random.default_rng(1)
        shown = [scene.picture(t) for t in np.arange(40) / 5]
        noisy = [
            jpeg(np.clip(p + rng.normal(0, 2, p.shape), 0, 255).round().astype(np.uint8))
            for p in shown
        ]
        live[key] = noisy
        frozen[key] = [noisy[12] if 12 <= k < 27 else p for k, p in enumerate(noisy)]
    write_set(tmp_path / "raw/bridge_dataset/1.0.0", BRIDGE, [live, frozen])
    out = tmp_path / "corpus"
    for words in (
        ["ingest", "oxe", str(tmp_path / "raw"), "--out", str(out), "--workers", "0"],
        ["measure", str(out), "--only", "video", "--workers", "0"],
    ):
        result = CliRunner().invoke(app, [*words, "--json"])
        assert result.exit_code == 0, (result.output, result.exception)
        json.loads(result.stdout)["result"]
    with Catalog.open(out) as catalog:
        repeats = catalog.sql("SELECT source_repeats FROM episodes ORDER BY episode_id").to_series()
        spans = catalog.sql(
            'SELECT e.episode_id, "start", "end", value FROM measurements JOIN episodes e USING (uid)'
            " WHERE name = 'frozen_source_luma' ORDER BY e.episode_id"
        ).rows()
    assert [len(each) for each in repeats.to_list()] == [0, 2]
    assert {(r["start"], r["end"], r["luma"]) for r in repeats[1]} == {(26, 54, 0.0)}
    assert [row[1:] for row in spans] == [(None, None, None), (26, 54, 0.0)]
