"""Which camera is which view."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from schemas.manifest import LATENT, Latent
from training.data.camera_views import files_of_views, latents_of_views, views_of


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


@pytest.mark.parametrize("patterns", [["*"], ["wrist*", "*"], ["front", "*", "*"], ["none"]])
def test_the_files_of_all_rows_at_once_are_those_of_each(patterns: list[str]) -> None:
    rng = np.random.default_rng(0)
    cameras = ["wrist_b", "front", "side", "wrist_a"]
    rows = [
        [
            Latent(
                camera=camera, encoder_id=encoder_id, path=f"{k}/{encoder_id}/{camera}", sha256=""
            )
            for camera in rng.permutation(cameras)[: rng.integers(5)].tolist()
            for encoder_id in ("x", "y")
        ]
        for k in range(40)
    ]
    as_rows = [[{n: getattr(each, n) for n in LATENT.names} for each in row] for row in rows]
    table = pa.table({"latents": pa.array(as_rows, pa.list_(LATENT))})
    paths, row = files_of_views(table.slice(1), "x", patterns)
    found = sorted(zip(row.tolist(), paths.to_pylist(), strict=True))
    assert found == sorted(
        (k, latent.path)
        for k, latents in enumerate(rows[1:])
        for latent in latents_of_views(latents, "x", patterns)
        if latent is not None
    )
