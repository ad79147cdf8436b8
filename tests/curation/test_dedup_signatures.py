"""What a picture, a motion and a table become before they are compared, and how far apart that says two of them are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ingest.curation.duplicates import distances
from ingest.curation.measurements.each import row_hash
from ingest.curation.measurements.each.image_signature import COEFFICIENTS, PARTS, WIDTH, look_of
from ingest.curation.measurements.each.trajectory import POINTS
from ingest.curation.measurements.pictures import facts_of
from ingest.curation.measurements.view import EpisodeView

NO_SHIFT = np.zeros(1)


def film(length: int = 40, *, width: int = 128, height: int = 96) -> np.ndarray:
    """[K, H, W] a bright block that goes from left to right and down, before a slope of grey."""
    out = np.empty((length, height, width), np.uint8)
    y, x = np.mgrid[:height, :width] / [[[height]], [[width]]]
    for k in range(length):
        at = (k + 0.5) / length
        is_block = (abs(x - 0.1 - 0.8 * at) < 0.12) & (abs(y - 0.2 - 0.5 * at**2) < 0.15)
        out[k] = np.where(is_block, 220, 60 + 60 * x + 30 * y)
    return out


def look(pictures: np.ndarray) -> np.ndarray:
    return look_of(facts_of(iter(pictures), len(pictures)))


def distance(one: np.ndarray, other: np.ndarray) -> float:
    scene, motion = distances.packed(np.stack([one, other]))
    found = distances.look_distances(
        distances.looks_from(scene, motion), np.array([0]), np.array([1])
    )
    return float(found[0])


def test_a_wave_is_one_coefficient() -> None:
    # 128 + 40 sqrt(2) cos(2 pi x) at even, 128 - ... at odd halves: the motion is that wave alone, 40 luma, and changes sign.
    x = (np.arange(64) + 0.5) / 64
    wave = np.tile(40 * np.sqrt(2) * np.cos(2 * np.pi * x), (48, 1))
    pictures = np.stack([np.round(128 + wave)] * 24 + [np.round(128 - wave)] * 24).astype(np.uint8)
    found = look_of(replace(facts_of(iter(pictures), 48), energy=np.ones(47)))
    motion = found[1 + COEFFICIENTS :].reshape(PARTS, COEFFICIENTS)
    assert found.shape == (WIDTH,)
    assert found[0] == pytest.approx(40, abs=0.2)
    assert motion[0, 1] == pytest.approx(40, abs=0.2)  # no vertical wave, two horizontal halves
    assert motion[-1, 1] == pytest.approx(-40, abs=0.2)
    assert abs(np.delete(motion, 1, axis=1)).max() < 0.2


SAME = {
    "smaller": film(width=80, height=60),
    "squeezed": film(width=96, height=96),
    "darker": (film() * 0.8).astype(np.uint8),
    "half the rate": np.repeat(film(20), 2, axis=0),
    "three times as long": np.repeat(film(), 3, axis=0),
    "still at both ends": np.concatenate(
        [film()[:1].repeat(15, 0), film(), film()[-1:].repeat(9, 0)]
    ),
    "cropped": film()[:, 2:-2, 3:-3],
}
OTHER = {
    "mirrored": film()[:, :, ::-1],
    "backwards": film()[::-1],
    "upside down": film()[:, ::-1],
    "there and back": np.concatenate([film()[::2], film()[::-2]]),
}


@pytest.mark.parametrize("name", SAME)
def test_a_copy_looks_the_same(name: str) -> None:
    assert distance(look(film()), look(np.ascontiguousarray(SAME[name]))) < 0.04


@pytest.mark.parametrize("name", OTHER)
def test_another_film_does_not(name: str) -> None:
    assert distance(look(film()), look(np.ascontiguousarray(OTHER[name]))) > 0.5


def test_where_nothing_moves_there_is_nothing_to_compare() -> None:
    still = film()[:1].repeat(30, 0)
    assert look(still)[0] == 0 < distances.MIN_CHANGE_LUMA < look(film())[0]
    assert np.isfinite(look(still)).all()


def test_projected_looks_are_as_far_apart_as_the_looks() -> None:
    rng = np.random.default_rng(0)
    made = rng.normal(0, 5, (400, WIDTH))
    made[200:] = made[:200] + rng.normal(0, 1.5, (200, WIDTH))
    vectors = distances.coarse_image_vectors(distances.looks_from(*distances.packed(made)))
    near = np.linalg.norm(vectors[:200] - vectors[200:], axis=1)
    far = np.linalg.norm(vectors[:200] - np.roll(vectors[:200], 1, axis=0), axis=1)
    # Both cosines are 0.958 for the near, 0 for the far: distances sqrt((1 + 0.25) * 2 * 0.042) and sqrt(2.5).
    assert np.median(near) == pytest.approx(0.325, rel=0.1)
    assert np.median(far) == pytest.approx(1.58, rel=0.1)
    assert near.max() < distances.COARSE_IMAGE_RADIUS < far.min()


# --- paths --------------------------------------------------------------------------------------------------------------


def path(start: float = 0.0, end: float = 1.0) -> np.ndarray:
    """[32, 4] a winding way of about 0.3 m that closes its gripper at a half."""
    t = np.linspace(start, end, POINTS)
    x, y, z = 0.1 * np.sin(5 * t), 0.15 * np.cos(3 * t + 1), 0.12 * t + 0.04 * np.sin(11 * t)
    return np.stack([x, y, z, (t < 0.5).astype(float)], axis=1)


def path_distance(one: np.ndarray, other: np.ndarray, shift: float = 0.0) -> tuple[float, float]:
    found, opening = distances.path_distances(one[None], other[None], NO_SHIFT + shift, 1.0)
    return float(found[0]), float(opening[0])


def turned(given: np.ndarray) -> np.ndarray:
    out = given.copy()
    out[:, :3] = given[:, :3] @ Rotation.from_rotvec([0.3, -1.9, 0.8]).as_matrix().T + [1, 2, 3]
    return out


MIRROR = np.array([1, -1, 1, 1])


def test_the_base_frame_does_not_count() -> None:
    assert path_distance(path(), turned(path()))[0] < 2e-3  # computed in float32
    one, other = distances.coarse_motion_vectors(np.stack([path(), turned(path())]))
    assert np.linalg.norm(one - other) < 1e-4


def test_mirrored_reversed_and_scaled_paths_are_others() -> None:
    assert path_distance(path(), path() * MIRROR)[0] > 0.15
    assert path_distance(path(), path()[::-1])[0] > 0.15
    assert path_distance(path(), path() * 1.5)[0] > 0.15
    one, other = distances.coarse_motion_vectors(np.stack([path(), path() * MIRROR]))
    assert np.linalg.norm(one - other) < 1e-4  # found, and turned down by the distance


def test_a_distance_is_a_share_of_the_size() -> None:
    # Four points of a cross of 0.1 m, one end moved by 0.02 m along its arm. Size: RMS distance from the centre.
    cross = np.zeros((POINTS, 4))
    cross[:, :3] = np.tile([[0.1, 0, 0], [0, 0.1, 0], [-0.1, 0, 0], [0, -0.1, 0]], (8, 1))
    moved = cross + np.where(np.arange(POINTS)[:, None] % 4 == 0, [0.02, 0, 0, 0], 0.0)
    # Centred: the moved end is 0.015 off, the others 0.005 each, along x.
    rms_m = np.sqrt((0.015**2 + 3 * 0.005**2) / 4)
    size_m = np.sqrt((0.01 + (0.115**2 + 2 * (0.1**2 + 0.005**2) + 0.105**2) / 4) / 2)
    assert path_distance(cross, moved)[0] == pytest.approx(rms_m / size_m, rel=1e-3)


def test_ends_may_be_cut_a_little() -> None:
    cut = path(0.03, 0.985)
    assert path_distance(path(), cut)[0] > 0.03
    assert path_distance(path(), cut, shift=0.06)[0] < 0.012
    # The other way round the shorter one has to be continued beyond its ends: compared over what both have.
    assert path_distance(cut, path(), shift=0.06)[0] < 0.012


def test_the_gripper_counts_when_both_have_one() -> None:
    late = path()
    late[:, 3] = np.arange(POINTS) < 24
    assert path_distance(path(), late)[1] == pytest.approx(0.5)  # 8 of 32 differ: sqrt(1/4)
    late[:, 3] = 0.0
    assert path_distance(path(), late)[1] == 0


# --- rows ---------------------------------------------------------------------------------------------------------------


def view(state: np.ndarray) -> EpisodeView:
    return EpisodeView(
        row={"length": len(state)},
        segments=(),
        columns={"observation.state": state, "observation.valid": np.ones((len(state), 1))},
        names={"observation.state": ("x",), "observation.valid": ("x",)},
        videos={"head": Path("unread.mp4")},
    )


def test_rows_that_move_have_a_digest() -> None:
    state = np.arange(12.0)[:, None]
    digest = row_hash.vectors(view(state))["rows"]
    assert digest[0] == 12
    assert digest.shape == (33,)
    assert (digest == row_hash.vectors(view(state.copy()))["rows"]).all()
    assert (digest != row_hash.vectors(view(state + 1e-3))["rows"]).any()
    assert [m.value for m in row_hash.compute(view(state))] == [12]


def test_rows_that_hardly_move_have_none() -> None:
    assert row_hash.vectors(view(np.repeat(np.arange(9.0), 5)[:, None])) == {}
    assert row_hash.vectors(replace(view(np.zeros((5, 1))), columns={})) == {}
