"""A picture becomes square: known values by hand, and areas averaged by an oracle of plain matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ingest.latents.frame_grid import fill_colour, fitted, inner_size
from schemas.latents import Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILL = [124, 116, 104]  # 255 times the mean: 123.675, 116.28, 103.53
RNG = np.random.default_rng(5)


def how(fit: Any, size_px: int = 16) -> Preprocessing:
    return Preprocessing(fit=fit, size_px=size_px, mean=MEAN, std=STD)


def overlaps(source: int, target: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[target, source] the share of each target pixel that each source pixel covers."""
    out = np.zeros((target, source))
    for t in range(target):
        a, b = t * source / target, (t + 1) * source / target
        for s in range(source):
            out[t, s] = max(0.0, min(b, s + 1) - max(a, s)) / (b - a)
    return out


def shrunk(picture: np.ndarray[Any, Any], height: int, width: int) -> Any:
    rows, columns = overlaps(picture.shape[0], height), overlaps(picture.shape[1], width)
    return np.einsum("th,hwc,sw->tsc", rows, picture.astype(float), columns)


def test_a_wide_picture_is_in_the_middle_and_the_rest_is_the_mean_colour() -> None:
    picture = np.full((20, 40, 3), 200, np.uint8)  # 16 wide is 8 high: rows 4..11
    out = fitted(picture, how("letterbox"))
    assert out.shape == (16, 16, 3)
    assert (out[4:12] == 200).all()
    assert (out[:4] == FILL).all()
    assert (out[12:] == FILL).all()


def test_a_tall_picture_with_an_odd_rest_has_it_on_the_right() -> None:
    picture = np.full((32, 22, 3), 7, np.uint8)  # 11 wide of 16: 2 columns before, 3 after
    out = fitted(picture, how("letterbox"))
    is_picture = (out == 7).all(axis=(0, 2))
    assert is_picture.tolist() == [False] * 2 + [True] * 11 + [False] * 3


def test_the_fill_is_zero_after_normalisation_within_half_a_level() -> None:
    assert list(fill_colour(how("letterbox"))) == FILL
    normalised = (np.array(FILL) / 255 - MEAN) / STD
    assert (np.abs(normalised) <= 0.5 / 255 / np.array(STD)).all()


def test_sizes_are_rounded_half_up_and_never_nothing() -> None:
    assert inner_size(256, 342, 224) == (168, 224)  # 167.67
    assert inner_size(342, 256, 224) == (224, 168)
    assert inner_size(3, 32, 16) == (2, 16)  # 1.5
    assert inner_size(1, 1000, 16) == (1, 16)
    assert inner_size(224, 224, 224) == (224, 224)


def test_crop_is_the_centre_square() -> None:
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:, 8:24] = 99
    assert (fitted(picture, how("crop")) == 99).all()
    assert (fitted(picture.transpose(1, 0, 2), how("crop")) == 99).all()


@pytest.mark.parametrize("size", [(48, 64), (33, 47), (16, 90)])
def test_shrinking_averages_areas(size: tuple[int, int]) -> None:
    picture = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    stretched = fitted(picture, how("stretch")).astype(float)
    assert np.abs(stretched - shrunk(picture, 16, 16)).max() <= 1.0
    height, width = inner_size(*size, 16)
    top = (16 - height) // 2
    boxed = fitted(picture, how("letterbox"))[top : top + height].astype(float)
    assert np.abs(boxed - shrunk(picture, height, width)).max() <= 1.0


def test_a_picture_of_the_size_is_left_as_it_is() -> None:
    picture = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for fit in ("letterbox", "stretch", "crop"):
        assert (fitted(picture, how(fit)) == picture).all()


def test_a_smaller_picture_is_enlarged_without_new_extremes() -> None:
    picture = RNG.integers(50, 200, (6, 8, 3), dtype=np.uint8)
    out = fitted(picture, how("stretch"))
    assert out.shape == (16, 16, 3)
    assert picture.min() <= out.min()
    assert out.max() <= picture.max()
