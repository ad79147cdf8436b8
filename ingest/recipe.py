"""What decides the bytes of a corpus. Its digest travels with every episode; limits that cannot change bytes do not."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator

from schemas.rate import rate_from
from schemas.stored_size import SHORT_SIDE_PX


class VideoSettings(BaseModel):
    """How canonical video is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    short_side_px: int = Field(SHORT_SIDE_PX, ge=16, le=4096)
    crf: int = Field(23, ge=0, le=51)
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"] = (
        "veryfast"
    )
    gop: int = Field(10, ge=1, le=300)


class HandSettings(BaseModel):
    """How human hands become canonical, and when a frame of one is valid."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    fingertips: Literal["smplx", "manopth"] = "smplx"
    fit_mano: bool = False  # 45 finger angles of MANO beside the points, by optimisation: slow
    palm_template: Literal["mano", "webxr"] = "mano"
    confidence_min: float = Field(0.1, ge=0, le=1)  # EgoDex: the floor of untracked joints is 0.003
    confident_joints_min: int = Field(15, ge=1, le=21)
    depth_min_m: float = Field(0.05, ge=0)
    view_margin_px: float = Field(0.0, ge=0)
    joints_in_view_min: int = Field(15, ge=1, le=21)
    palm_rms_max_m: float = Field(0.010, gt=0)  # at the palm's own size, within `palm_scale`
    palm_unscaled_rms_max_m: float = Field(0.012, gt=0)
    palm_scale: tuple[float, float] = (0.75, 1.25)
    wrist_disagreement_max_deg: float = Field(25.0, gt=0, le=180)
    bone_m: tuple[float, float] = (0.005, 0.080)  # Ego-Exo4D
    wrist_to_mcp_m: tuple[float, float] = (0.060, 0.120)  # Ego-Exo4D
    bone_change_max: float = Field(0.20, gt=0)
    thumb_angle_min_deg: tuple[float, float, float] = (100.0, 90.0, 90.0)  # Ego-Exo4D
    finger_angle_min_deg: tuple[float, float, float] = (60.0, 70.0, 80.0)  # Ego-Exo4D
    speed_max_m_s: float = Field(3.0, gt=0)
    turn_max_rad_s: float = Field(20.0, gt=0)
    speed_over_s: float = Field(0.02, gt=0)  # steps shorter than this count as this long


class Recipe(BaseModel):
    """Everything that changes what is written for an episode."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    rate_hz: Fraction = Fraction(10)
    # A gap is longer than `gap_periods` of the stream's own period AND than `gap_ms`. Both, because two periods of
    # a 60 Hz stream are one lost packet, and 250 ms is less than one period of a 3 Hz source.
    gap_periods: int = Field(2, ge=1)
    gap_ms: int = Field(250, ge=1)
    # float32 timestamps break LeRobot's own check beyond about 1024 s
    max_episode_s: int = Field(1000, ge=1, le=1000)
    min_timesteps: int = Field(2, ge=1)
    max_source_frames: int = Field(600_000, ge=1)
    video: VideoSettings = VideoSettings()
    hands: HandSettings = HandSettings()
    # Of an episode of several cameras some have no file: keep it with the others, or quarantine it.
    missing_cameras: Literal["keep", "drop"] = "keep"

    @field_validator("rate_hz", mode="before")
    @classmethod
    def _rate(cls, value: Any) -> Fraction:
        rate = rate_from(value)
        if rate.denominator != 1:
            raise ValueError(
                f"{rate} Hz; LeRobot v2.1 requires a whole number of frames per second"
            )
        return rate

    @field_serializer("rate_hz")
    def _rate_text(self, value: Fraction) -> str:
        return str(value)

    @property
    def digest(self) -> str:
        """sha256 of the resolved recipe, 16 hex digits: short enough for a folder name."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()[:16]

    def canonical_json(self) -> str:
        """Without a field that came later and has its default: what older corpora hold would be written the same."""
        fields = self.model_dump(mode="json")
        kept = {name: value for name, value in fields.items() if _LATER.get(name) != value}
        return json.dumps(kept, sort_keys=True)


# Fields since the first corpora, each with the default under which nothing that was ever committed changes.
_LATER = {"missing_cameras": "keep"}


class Limits(BaseModel):
    """Protection of the machine; never part of the digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    time_limit_s: float = Field(1800.0, gt=0)
    memory_limit_mib: int = Field(4096, ge=256)
    threads_per_episode: int = Field(1, ge=1)
    deaths_to_quarantine: int = Field(2, ge=1)
    max_quarantined_ratio: float = Field(0.2, ge=0, le=1)
    max_failed_ratio: float = Field(0.0, ge=0, le=1)
