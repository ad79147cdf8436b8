"""The size of the pictures that a corpus stores of a camera."""

from __future__ import annotations

SHORT_SIDE_PX = 256  # at most, where a recipe says nothing else


def output_size(width: int, height: int, short_side_px: int) -> tuple[int, int]:
    """(width, height) of the output: aspect kept, short side at most `short_side_px`, even, never larger.

    640 x 480 at 256 gives 342 x 256; 225 x 225 gives 224 x 224.
    """
    scale = min(1.0, short_side_px / min(width, height))
    return _even(width, scale), _even(height, scale)


def _even(length: int, scale: float) -> int:
    return max(2, min(2 * round(length * scale / 2), length // 2 * 2))
