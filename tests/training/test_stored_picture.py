"""A live picture looks to a policy as a corpus would give it back: against a lossless ingest, read by the readers of latents and of training."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from ingest.recipe import VideoSettings
from ingest.video.camera_video import frame_clock, write_video
from ingest.video.timestep_pictures import pictures_at
from schemas.episode import ArrayFrames, Camera
from schemas.stored_picture import as_stored
from training.conditioning.video_frame import frame_at
from training.policy.observation import Observation, stored_images
from training.policy.text_encoder import image_for_text

Pictures = npt.NDArray[np.uint8]  # [n, H, W, 3]
PERIOD_NS = 100_000_000


def pictures(height: int, width: int, count: int = 4) -> Pictures:
    """Smooth and moving, with red squares on green that half the resolution of colour cannot keep."""
    down, across = np.mgrid[0:height, 0:width]
    out = []
    for k in range(count):
        each = np.stack([down * 200 // height, across * 200 // width, 0 * down + 60], axis=-1)
        each[height // 2 :: 7, width // 4 + 3 * k :: 11] = (255, 0, 0)
        out.append(each.astype(np.uint8))
    return np.stack(out)


def ingested(live: Pictures, out: Path, short_side_px: int) -> Path:
    """The video that `eicorpus ingest` writes of the camera, but for what its codec loses: crf 0 has no loss."""
    with h5py.File(out / "live.hdf5", "w") as file:
        file["rgb"] = live
    frames = ArrayFrames(path=str(out / "live.hdf5"), key="rgb", num_frames=len(live))
    instants_ns = np.arange(len(live)) * PERIOD_NS
    camera = Camera(name="front", frames=frames, t_ns=instants_ns)
    recipe = VideoSettings(short_side_px=short_side_px, crf=0)
    write_video(camera, frame_clock(camera), instants_ns, out / "v.mp4", recipe)
    return out / "v.mp4"


# The readers convert to RGB by the tags of the file, a live picture is converted by its own: rounding may differ.
ROUNDING = 1


@pytest.mark.parametrize(
    ("height", "width", "short_side_px", "size"),
    [
        (480, 640, 256, (256, 342)),
        (320, 180, 96, (170, 96)),
        (
            127,
            96,
            256,
            (126, 96),
        ),  # smaller than a corpus has them: not enlarged, and of even sizes
        (96, 128, 96, (96, 128)),
    ],
)
def test_it_is_what_a_corpus_gives_back(
    tmp_path: Path, height: int, width: int, short_side_px: int, size: tuple[int, int]
) -> None:
    live = pictures(height, width)
    path = ingested(live, tmp_path, short_side_px)
    of_latents = list(pictures_at(path, range(len(live)), 10.0))
    assert len(of_latents) == len(live)
    for k, read in enumerate(of_latents):
        shown = as_stored(live[k], short_side_px).astype(int)
        assert shown.shape == (*size, 3)
        np.testing.assert_allclose(shown, read, atol=ROUNDING)
        np.testing.assert_allclose(shown, frame_at(path, k / 10), atol=ROUNDING)


def test_a_language_model_and_an_image_encoder_are_shown_it(tmp_path: Path) -> None:
    """Of pictures that come live, and of those that a corpus gave back."""
    live = pictures(240, 320)
    path = ingested(live, tmp_path, 96)
    (stored,) = pictures_at(path, [3], 10.0)
    raw = Observation(text="", embodiment="umi", pictures={"front": live})
    assert np.abs(image_for_text(raw, "*", 96).astype(int) - stored).max() <= ROUNDING
    assert np.abs(stored_images(raw, "front", 96, last=2)[1].astype(int) - stored).max() <= ROUNDING
    again = Observation(text="", embodiment="umi", pictures={"front": stored[None]}, is_stored=True)
    np.testing.assert_array_equal(image_for_text(again, "*", 96), stored)
    np.testing.assert_array_equal(stored_images(again, "front", 96, last=2), stored[None])


def test_twice_is_not_once() -> None:
    """So an observation says whether its pictures were stored."""
    once = as_stored(pictures(96, 128)[0], 96)
    away = np.abs(as_stored(once, 96).astype(int) - once)
    assert away.mean() > 0.5
    assert away.max() > 5


def test_colour_is_lost_and_brightness_is_not() -> None:
    live = np.full((64, 64, 3), (20, 160, 60), dtype=np.uint8)
    live[32, 32] = (255, 0, 0)
    away = np.abs(as_stored(live, 64).astype(int) - live).max(axis=-1)
    assert away[32, 32] > 60, "the red pixel is not as red as it was"
    assert np.median(away) <= 2
