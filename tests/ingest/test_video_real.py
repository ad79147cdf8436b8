"""Real sample videos of several sources go through, strict decoder and all."""

from __future__ import annotations

from fractions import Fraction

import pytest

from ingest.recipe import VideoSettings
from ingest.video.camera_video import frame_clock, write_video
from schemas.episode import Camera, VideoWindow
from schemas.rate import instants_ns
from tests.ingest.video_files import read_back

REAL = [
    "lerobot_v20_gr1_picknplace/videos/chunk-000/observation.images.ego_view/episode_000000.mp4",
    "ego4d_lavila/3c0dffd0-e38e-4643-bc48-d513943dc20b_012_014.mp4",
    "vitra/videos/03cc49c3-a7d1-445b-9a2a-545c4fae6843.mp4",
    "dex_retargeting/human_hand_video.mp4",
]


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_real_video(samples, tmp_path, name):
    path = samples / name
    camera = Camera(name="c", frames=VideoWindow(path=str(path), start_s=0.0, end_s=4.0))
    clock = frame_clock(camera)
    steps = int((clock[-1] - clock[0]) // 100_000_000) + 1
    grid = instants_ns(steps, Fraction(10), int(clock[0]))
    out = tmp_path / "out.mp4"
    facts = write_video(camera, clock, grid, out, VideoSettings())
    pictures, times = read_back(out)
    assert len(pictures) == facts.num_frames == steps
    assert times[-1] == Fraction(steps - 1, 10)
    assert min(facts.width, facts.height) <= 256
    assert facts.worst_skew_ms < 60
    assert facts.repeated_share == 0.0
