"""The plane of episodes against numpy's SVD, and what has no plane."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.curation.duplicates import plane
from ingest.curation.duplicates.plane import principal_plane

NUM = 500


@pytest.fixture
def cloud() -> tuple[np.ndarray, np.ndarray]:
    """[V] episodes ascending, some with several vectors and some with none, and [V, 7] vectors."""
    rng = np.random.default_rng(3)
    of = np.sort(rng.integers(0, NUM, 900)).astype(np.int32)
    return of, (rng.normal(size=(900, 7)) * np.arange(7, 0, -1)).astype(np.float16)


def test_places_are_those_of_a_singular_value_decomposition(
    cloud: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    of, vectors = cloud
    own = np.unique(of)
    means = np.stack([vectors[of == k].astype(float).mean(axis=0) for k in own])
    centred = means - means.mean(axis=0)
    left, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    sign = np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(axis=1)])
    monkeypatch.setattr(plane, "CHUNK", 17)
    result = principal_plane(of, vectors, NUM)
    assert np.allclose(result.places[own], (left * sizes)[:, :2] * sign)
    assert np.allclose(result.explained, (sizes**2 / (sizes**2).sum())[:2])
    assert np.isnan(np.delete(result.places, own, axis=0)).all()


def test_a_vector_that_is_not_finite_is_left_out(cloud: tuple[np.ndarray, np.ndarray]) -> None:
    of, vectors = cloud
    alone = principal_plane(of, vectors, NUM)
    spoilt = np.array([[np.nan] * 7, [np.inf] * 7, [1, 2, 3, -np.inf, 5, 6, 7]], np.float16)
    new = np.array([NUM, NUM, NUM + 1], np.int32)
    both = principal_plane(np.concatenate([of, new]), np.concatenate([vectors, spoilt]), NUM + 2)
    assert np.array_equal(both.places[:NUM], alone.places, equal_nan=True)
    assert np.isnan(both.places[NUM:]).all()


@pytest.mark.parametrize("episodes", [[], [1], [0, 2], [0, 1, 2]])
def test_few_or_equal_episodes_have_places_without_spread(episodes: list[int]) -> None:
    of, vectors = np.array(episodes, np.int32), np.ones((len(episodes), 4), np.float16)
    result = principal_plane(of, vectors, 3)
    assert np.allclose(result.places[of], 0)
    assert np.isnan(np.delete(result.places, of, axis=0)).all()
    assert np.allclose(result.explained, 0)
