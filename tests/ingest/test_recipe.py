"""The recipe's digest: everything that changes bytes is in it, nothing else is."""

from __future__ import annotations

from fractions import Fraction

import pytest
from pydantic import ValidationError

from ingest.recipe import HandSettings, Limits, Recipe, VideoSettings


def test_the_digest_of_the_default_recipe_is_known() -> None:
    """A change here makes every corpus stale: raise it on purpose, never by accident."""
    assert Recipe().canonical_json() == (
        '{"gap_ms": 250, "gap_periods": 2, "hands": {"bone_change_max": 0.2, "bone_m": [0.005, 0.08], '
        '"confidence_min": 0.1, "confident_joints_min": 15, "depth_min_m": 0.05, "finger_angle_min_deg": [60.0, 70.0, '
        '80.0], "fingertips": "smplx", "fit_mano": false, "joints_in_view_min": 15, "palm_rms_max_m": 0.01, "palm_scale": [0.75, 1.25], '
        '"palm_template": "mano", "palm_unscaled_rms_max_m": 0.012, "speed_max_m_s": 3.0, "speed_over_s": 0.02, '
        '"thumb_angle_min_deg": [100.0, 90.0, 90.0], "turn_max_rad_s": 20.0, "view_margin_px": 0.0, "wrist_disagreement_max_'
        'deg": 25.0, "wrist_to_mcp_m": [0.06, 0.12]}, "max_episode_s": 1000, "max_source_frames": 600000, '
        '"min_timesteps": 2, "rate_hz": "10", "video": {"crf": 23, "gop": 10, '
        '"preset": "veryfast", "short_side_px": 256}}'
    )
    assert len(Recipe().digest) == 16
    assert Recipe().digest == Recipe(video=VideoSettings(crf=23)).digest


@pytest.mark.parametrize("name", Recipe.model_fields)
def test_every_field_changes_the_digest(name: str) -> None:
    other = {
        "rate_hz": 5,
        "gap_periods": 3,
        "gap_ms": 100,
        "max_episode_s": 10,
        "min_timesteps": 1,
        "max_source_frames": 5,
        "video": VideoSettings(crf=18),
        "hands": HandSettings(fingertips="manopth"),
        "missing_cameras": "drop",
    }
    assert Recipe(**{name: other[name]}).digest != Recipe().digest


@pytest.mark.parametrize("name", VideoSettings.model_fields)
def test_every_video_setting_changes_the_digest(name: str) -> None:
    other = {"short_side_px": 128, "crf": 0, "preset": "slow", "gop": 1}
    assert Recipe(video=VideoSettings(**{name: other[name]})).digest != Recipe().digest


def test_a_rate_is_read_as_people_mean_it() -> None:
    assert Recipe(rate_hz=Fraction(10)).digest == Recipe(rate_hz="10").digest
    assert Recipe.model_validate_json(Recipe(rate_hz=12.0).canonical_json()).rate_hz == 12
    for fraction in ("29.97", 7.5):  # LeRobot v2.1 has no word for it: time would be wrong
        with pytest.raises(ValidationError, match="whole number"):
            Recipe(rate_hz=fraction)


@pytest.mark.parametrize(
    "change",
    [
        {"rate_hz": 0},
        {"rate_hz": "fast"},
        {"gap_ms": 0},
        {"max_episode_s": 1001},  # float32 timestamps
        {"min_timesteps": 0},
        {"crf": 23},
        {"video": {"crf": 52}},
        {"video": {"gop": 0}},
        {"video": {"codec": "av1"}},
    ],
)
def test_recipes_that_cannot_exist(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Recipe(**change)


def test_limits_are_bounded_and_frozen() -> None:
    with pytest.raises(ValidationError):
        Limits(max_failed_ratio=1.5)
    with pytest.raises(ValidationError):
        Limits(time_limit_s=0)
    with pytest.raises(ValidationError):
        Recipe().gap_ms = 3
