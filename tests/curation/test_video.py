"""What is wrong with pictures, on H.264 of pictures in which exactly that is wrong."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ingest.curation.measurements import view as view_module
from ingest.curation.measurements.each import alignment, camera, video
from ingest.curation.measurements.pictures import facts_of, look_at
from ingest.curation.measurements.registry import compute, measures
from jobs.demo.raw.scene import Scene
from schemas.errors import Code, SourceError
from tests.curation.video_corpus import (
    Builder,
    Picture,
    before,
    encode,
    robot,
    spans_of,
    texture,
    times_s,
    values_of,
)

K = 40
SCENE = Scene(duration_s=K / 10, sides=("left", "right"), width=160, height=120, focal_px=150.0)


@pytest.fixture(scope="module")
def good() -> list[Picture]:
    """The scene before a textured background."""
    background = texture(width=160, height=120)
    return [before(SCENE.picture(t), background) for t in times_s(K)]


def seen(tmp_path: Path, pictures: list[Picture], **more: list[Picture]) -> view_module.EpisodeView:
    videos = {"front": encode(tmp_path / "front.mp4", pictures)}
    videos |= {name: encode(tmp_path / f"{name}.mp4", p) for name, p in more.items()}
    return robot(SCENE, K).view(videos)


def test_nothing_is_wrong_with_good_pictures(tmp_path: Path, good: list[Picture]) -> None:
    view = seen(tmp_path, good)
    found = values_of(video.compute, view)
    bad = {
        name: value for name, value in found.items() if name.endswith(("share", "cuts", ".best"))
    }
    assert set(bad.values()) == {0.0}
    assert not [m for m in video.compute(view) if m.start is not None]
    assert found["worst_camera"] == 0.0
    luma = cv2.cvtColor(good[0], cv2.COLOR_RGB2GRAY)
    assert found["luma_p10"] == pytest.approx(luma.mean(), abs=3.0)
    assert found["contrast_p10"] == pytest.approx(luma.std(), rel=0.1)


def test_luma_is_from_0_to_255_though_the_file_has_16_to_235(tmp_path: Path) -> None:
    for level in (0, 255):
        path = encode(tmp_path / f"{level}.mp4", [np.full((64, 64, 3), level, np.uint8)] * 3)
        assert look_at(path, 3).mean == pytest.approx([level] * 3)


@pytest.mark.parametrize(
    ("level", "names"),
    [
        (0, {"black_share", "dark_share", "low_contrast_share", "unusable_share"}),
        (30, {"dark_share", "low_contrast_share", "blurred_share"}),
        (255, {"overexposed_share", "low_contrast_share", "unusable_share", "blurred_share"}),
    ],
)
def test_a_flat_stretch_is_called_by_its_level(
    tmp_path: Path, good: list[Picture], level: int, names: set[str]
) -> None:
    flat = np.full_like(good[0], level)
    found = values_of(
        video.compute, seen(tmp_path, [flat if 10 <= k < 14 else p for k, p in enumerate(good)])
    )
    levels = ("black_", "dark_", "overexposed_", "low_contrast_", "blurred_")
    shares = {n: v for n, v in found.items() if n.startswith(levels) and v}
    expected = 4 / 36 if level == 0 else 4 / 40  # black pictures are not asked for sharpness
    assert shares.pop("blurred_share", expected) == pytest.approx(expected)
    assert shares == {n: pytest.approx(0.1) for n in names - {"unusable_share", "blurred_share"}}
    assert found["unusable_share"] == pytest.approx(0.1 if "unusable_share" in names else 0.0)


@pytest.mark.parametrize("sigma_px", [2.0, 4.0])
def test_sharpness_of_noise_blurred_by_a_known_sigma(tmp_path: Path, sigma_px: float) -> None:
    """White noise blurred by s has the spectrum exp(-s^2 k^2), so its Laplacian varies by 2/s^4 of its variance.

    Rounding to whole luma adds 20/12 (five weights, squares 20). The codec's blocks add what no formula says.
    """
    noise = np.random.default_rng(0).normal(size=(480, 640))
    blurred = cv2.GaussianBlur(noise, (0, 0), sigma_px)
    luma = np.clip(128 + 30 * blurred / blurred.std(), 0, 255).astype(np.uint8)
    by_hand = 2 * 30**2 / sigma_px**4 + 20 / 12
    assert facts_of(iter([luma]), 1).sharpness[0] == pytest.approx(by_hand, rel=0.15)
    path = encode(tmp_path / "x.mp4", [np.repeat(luma[..., None], 3, axis=2)])
    assert by_hand < look_at(path, 1).sharpness[0] < 2 * by_hand + 40


def test_of_two_cameras_the_worse_counts_and_is_named(tmp_path: Path, good: list[Picture]) -> None:
    black = [np.zeros_like(p) if k < 20 else p for k, p in enumerate(good)]
    found = values_of(video.compute, seen(tmp_path, good, wrist=black))
    assert found["black_share"] == 0.5
    assert found["worst_camera"] == 1.0
    assert found["unusable_share"] == pytest.approx(0.5)
    assert found["unusable_share.best"] == 0.0


def test_a_frozen_stretch_is_found_to_the_timestep(tmp_path: Path, good: list[Picture]) -> None:
    """Timesteps 12 to 24 repeat the picture of 11, through two keyframes of the codec."""
    view = seen(tmp_path, [good[11] if 12 <= k < 25 else p for k, p in enumerate(good)])
    assert spans_of(video.compute, view, "frozen_video") == [(12, 25)]
    assert spans_of(video.compute, view, "frozen_camera") == [(12, 25)]
    found = values_of(video.compute, view)
    assert found["frozen_share"] == pytest.approx(13 / K)
    assert found["repeated_picture_share"] == pytest.approx(13 / (K - 1))


def test_a_stretch_below_half_a_second_is_only_repeated(
    tmp_path: Path, good: list[Picture]
) -> None:
    view = seen(tmp_path, [good[11] if 12 <= k < 16 else p for k, p in enumerate(good)])
    found = values_of(video.compute, view)
    assert found["frozen_share"] == 0.0
    assert found["repeated_picture_share"] == pytest.approx(4 / (K - 1))


def test_one_frozen_camera_of_two_is_no_frozen_video(tmp_path: Path, good: list[Picture]) -> None:
    view = seen(tmp_path, good, wrist=[good[0]] * K)
    assert spans_of(video.compute, view, "frozen_video") == []
    assert spans_of(video.compute, view, "frozen_camera") == [(1, K)]


def test_a_pause_is_not_frozen(tmp_path: Path, good: list[Picture]) -> None:
    """The picture stands still because the arm does; without any state nobody could know."""
    at = [11 if 12 <= k < 25 else k for k in range(K)]
    path = encode(tmp_path / "front.mp4", [good[k] for k in at])
    builder = robot(SCENE, K)
    builder.state = {name: values[at] for name, values in builder.state.items()}
    assert spans_of(video.compute, builder.view({"front": path}), "frozen_video") == []
    assert spans_of(video.compute, Builder(K).view({"front": path}), "frozen_video") == [(12, 25)]
    joints = Builder(K)
    joints.beside["joint_position_rad"] = np.zeros((K, 6))
    assert spans_of(video.compute, joints.view({"front": path}), "frozen_video") == []


def test_static_pictures_with_sensor_noise_are_not_black_cut_or_moving(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    calm = texture(1)
    noisy = [
        np.clip(calm + rng.normal(0, 5, calm.shape), 0, 255).astype(np.uint8) for _ in range(K)
    ]
    facts = look_at(encode(tmp_path / "x.mp4", noisy), K)
    assert facts.repeated.all()
    assert not facts.energy.any()


def test_a_cut_is_found_to_the_timestep_and_a_fast_pan_is_none(tmp_path: Path) -> None:
    here, there = texture(1, sigma_px=8), texture(2, sigma_px=8)
    moved = [np.roll(here, k, axis=1) for k in range(17)] + [
        np.roll(there, k, axis=1) for k in range(23)
    ]
    view = seen(tmp_path, moved)
    assert spans_of(video.compute, view, "scene_cut") == [(17, 18)]
    assert values_of(video.compute, view)["scene_cuts"] == 1.0
    pan = [np.roll(here, 25 * max(0, min(k - 10, 12)), axis=1) for k in range(K)]
    assert values_of(video.compute, seen(tmp_path, pan))["scene_cuts"] == 0.0


def test_another_number_of_pictures_than_the_catalog_says(
    tmp_path: Path, good: list[Picture]
) -> None:
    path = encode(tmp_path / "x.mp4", good)
    for length in (K - 1, K + 1):
        with pytest.raises(
            SourceError, match=f"the video has {K} frames, the catalog states {length}"
        ) as caught:
            look_at(path, length)
        assert caught.value.code is Code.FRAME_COUNT


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"nothing")
    with pytest.raises(SourceError) as caught:
        look_at(tmp_path / "x.mp4", 1)
    assert caught.value.code is Code.CORRUPT_VIDEO


def test_all_measures_together_decode_each_video_once(
    tmp_path: Path, good: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def counted(path: Path, length: int) -> object:
        opened.append(path.name)
        return look_at(path, length)

    monkeypatch.setattr(view_module, "look_at", counted)
    view = seen(tmp_path, good, wrist=good)
    for measure in (video.MEASURE, camera.MEASURE, alignment.MEASURE):
        assert measure.needs_video
        assert list(compute(measure, view))
    assert sorted(opened) == ["front.mp4", "wrist.mp4"]


def test_only_those_that_say_so_need_a_video(tmp_path: Path) -> None:
    """No measure without `needs_video` may look: the view of the others has no file at all."""
    view = robot(SCENE, K).view({"front": tmp_path / "missing.mp4"}, duration_s=4.0)
    for measure in measures().values():
        if not measure.needs_video:
            list(compute(measure, view))
