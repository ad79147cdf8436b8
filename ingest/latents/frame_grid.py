"""Pictures resized to the square that an encoder reads."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from schemas.latents import Preprocessing

Picture = npt.NDArray[np.uint8]  # [H, W, 3] RGB


def fitted(picture: Picture, how: Preprocessing) -> Picture:
    """[S, S, 3].

    letterbox: the whole picture with its aspect, centred (an odd pixel goes below or to the right); the rest is the mean colour, rounded, so
    at most half a level from 0 after normalisation. stretch: the whole picture without its aspect. crop: the centre square.
    """
    side = how.size_px
    if how.fit == "stretch":
        return _resized(picture, side, side)
    if how.fit == "crop":
        return _resized(_centre_square(picture), side, side)
    height, width = inner_size(picture.shape[0], picture.shape[1], side)
    out = np.empty((side, side, 3), np.uint8)
    out[:] = fill_colour(how)
    top, left = (side - height) // 2, (side - width) // 2
    out[top : top + height, left : left + width] = _resized(picture, height, width)
    return out


def inner_size(height: int, width: int, side: int) -> tuple[int, int]:
    """(height, width) of a picture scaled so that its longer side is `side`; at least one pixel each."""
    longer = max(height, width)
    return tuple(max(1, (2 * n * side + longer) // (2 * longer)) for n in (height, width))  # type: ignore[return-value]


def fill_colour(how: Preprocessing) -> tuple[int, int, int]:
    """The mean colour as bytes."""
    red, green, blue = (int(value * 255.0 + 0.5) for value in how.mean)
    return red, green, blue


def _centre_square(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[top : top + side, left : left + side]


def _resized(picture: Picture, height: int, width: int) -> Picture:
    if picture.shape[:2] == (height, width):
        return picture
    is_smaller = height <= picture.shape[0] and width <= picture.shape[1]
    how = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=how), dtype=np.uint8)
