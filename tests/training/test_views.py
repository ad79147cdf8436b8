"""Which camera is which view."""

from __future__ import annotations

import pytest

from schemas.manifest import Latent
from training.data.views import latents_of_views, views_of


@pytest.mark.parametrize(
    ("cameras", "patterns", "wanted"),
    [
        (["front", "wrist"], ["*"], [0]),
        (["front", "wrist"], ["*", "*"], [0, 1]),
        (["front", "wrist"], ["wrist", "*"], [1, 0]),
        (["front", "wrist"], ["*", "front"], [0, None]),
        (["front", "wrist"], ["*", "*", "*"], [0, 1, None]),
        (["wrist_left", "wrist_right"], ["head*", "wrist_*"], [None, 0]),
        ([], ["*"], [None]),
    ],
)
def test_no_camera_is_two_views(
    cameras: list[str], patterns: list[str], wanted: list[int | None]
) -> None:
    assert list(views_of(cameras, patterns)) == wanted


def test_only_files_of_the_encoder_by_name_of_camera() -> None:
    def file(camera: str, encoder_id: str) -> Latent:
        return Latent(
            camera=camera, encoder_id=encoder_id, path=f"{camera}/{encoder_id}", sha256=""
        )

    there = [file("b", "x"), file("a", "y"), file("c", "x"), file("a", "x")]
    found = latents_of_views(there, "x", ["*", "c"])
    assert [f.path if f else None for f in found] == ["a/x", "c/x"]
