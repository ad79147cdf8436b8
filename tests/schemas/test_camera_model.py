"""Projection against OpenCV's own (an independent implementation) and hand-worked pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from jobs.demo.raw.hand_scene import HandScene
from schemas.camera_model import Lens, project

K = np.array([[300.0, 0, 160], [0, 310.0, 120], [0, 0, 1]])


def test_a_pinhole_by_hand() -> None:
    uv, in_front = project([[0.1, -0.2, 2.0], [0.0, 0.0, -1.0]], K)
    np.testing.assert_allclose(uv[0], [160 + 300 * 0.05, 120 - 310 * 0.1])
    assert in_front.tolist() == [True, False]


def test_the_scene_sees_the_same() -> None:
    scene = HandScene()
    points = scene.joints_world(0.5, "right")
    uv, _ = project(scene.in_cam(points, 0.5), scene.K_cam)
    np.testing.assert_allclose(uv, scene.project(points, 0.5))


@pytest.mark.parametrize("count", [4, 5, 8])
def test_opencv_lenses_are_opencvs(count: int) -> None:
    params = (0.11, -0.07, 0.003, -0.002, 0.01, 0.02, -0.01, 0.005)[:count]
    points = np.random.default_rng(1).uniform([-0.6, -0.5, 0.5], [0.6, 0.5, 2.0], size=(50, 3))
    wanted, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, np.array(params))
    uv, _ = project(points, K, Lens(model="opencv", params=params))
    np.testing.assert_allclose(uv, wanted[:, 0], atol=1e-9)


def test_a_fisheye_with_four_radial_terms_is_opencvs() -> None:
    """Kannala-Brandt: the first four of FISHEYE624's terms alone are cv2.fisheye's."""
    k = (0.02, -0.01, 0.004, -0.001)
    points = np.random.default_rng(2).uniform([-1, -1, 0.4], [1, 1, 1.5], size=(50, 1, 3))
    wanted, _ = cv2.fisheye.projectPoints(points, np.zeros(3), np.zeros(3), K, np.array(k))
    uv, _ = project(points[:, 0], K, Lens(model="fisheye624", params=(*k, 0, 0, 0, 0, 0, 0, 0, 0)))
    np.testing.assert_allclose(uv, wanted[:, 0], atol=1e-9)


def test_a_point_on_the_axis_is_the_principal_point() -> None:
    for lens in (Lens(), Lens(model="fisheye624", params=(0.1,) * 6 + (0.0,) * 6)):
        uv, _ = project([0.0, 0.0, 1.0], K, lens)
        np.testing.assert_allclose(uv, [160, 120])


@pytest.mark.parametrize(
    ("model", "count"), [("pinhole", 1), ("opencv", 6), ("fisheye624", 15), ("wide", 0)]
)
def test_a_lens_with_the_wrong_number_of_parameters_cannot_be(model: str, count: int) -> None:
    with pytest.raises(ValueError, match="camera model"):
        Lens(model=model, params=(0.0,) * count)


def test_a_lens_does_not_show_what_is_far_aside() -> None:
    """With these coefficients a point 66 degrees off the axis would land in the picture again."""
    lens = Lens(model="opencv", params=(-0.34, 0.13, 0.0, 0.0, -0.02))
    angles = np.deg2rad([10.0, 30.0, 66.0])
    points = np.stack([np.sin(angles), np.zeros(3), np.cos(angles)], axis=1)
    uv, is_shown = project(points, np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), lens)
    assert is_shown.tolist() == [True, True, False]
    assert 0 < uv[2, 0] < 640
