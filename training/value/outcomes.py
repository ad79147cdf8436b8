"""What is known of how an episode ended, and the target that follows for each of its images.

The label of the source counts first. Without a label, an episode whose segments in the manifest are all high up to its end succeeded: the tier vouches for it.
A low segment alone says nothing of the end, so such episodes are left out unless the caller says that they failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from schemas.manifest import Manifest
from training.data.routing import LIMITED
from training.value.settings import ValueSettings

Ints = npt.NDArray[np.int64]


class EpisodeEnding(StrEnum):
    """How an episode ended, and who says so."""

    SUCCEEDED = "succeeded"
    SUCCEEDED_BY_TIER = "succeeded_by_tier"
    FAILED = "failed"
    FAILED_LOW = "failed_low"
    UNKNOWN = "unknown"


SUCCESSES = (EpisodeEnding.SUCCEEDED, EpisodeEnding.SUCCEEDED_BY_TIER)
FAILURES = (EpisodeEnding.FAILED, EpisodeEnding.FAILED_LOW)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeLabel:
    """Of the catalog: `success` as the source states it, None where it says nothing; `length` in timesteps."""

    success: bool | None
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeEnd:
    """`last`: the last timestep."""

    ending: EpisodeEnding
    last: int

    @property
    def is_known(self) -> bool:
        return self.ending in SUCCESSES or self.ending in FAILURES


def ends_of(
    manifest: Manifest,
    labels: Mapping[str, EpisodeLabel],
    *,
    low_fails: bool,
    tolerance: int,
) -> dict[str, EpisodeEnd]:
    """How each episode of a manifest ended.

    Args:
        labels: by uid; what the catalog has. tolerance: timesteps by which the last segment may end before the episode, and yet reach its end.
    """
    ends: dict[str, int] = {}
    not_high: set[str] = set()
    low: set[str] = set()
    columns = ("uid", "end", "tier", "reasons")
    for uid, end, tier, reasons in zip(
        *(manifest.rows[name].to_pylist() for name in columns), strict=True
    ):
        ends[uid] = max(end, ends.get(uid, 0))
        if tier != "high":
            not_high.add(uid)
        if tier == "low" and LIMITED not in reasons:
            low.add(uid)
    out = {}
    for uid, end in ends.items():
        label = labels.get(uid)
        length = max(end, label.length) if label else end
        if label is not None and label.success is not None:
            ending = EpisodeEnding.SUCCEEDED if label.success else EpisodeEnding.FAILED
        elif uid in low:
            ending = EpisodeEnding.FAILED_LOW if low_fails else EpisodeEnding.UNKNOWN
        elif uid not in not_high and end >= length - tolerance:
            # What the tier leaves out at the end (standing still, say) is no part of the task.
            ending, length = EpisodeEnding.SUCCEEDED_BY_TIER, end
        else:
            ending = EpisodeEnding.UNKNOWN
        out[uid] = EpisodeEnd(ending=ending, last=length - 1)
    return out


def targets_of(
    last: Ints, succeeds: npt.NDArray[np.bool_], timestep: Ints, settings: ValueSettings
) -> npt.NDArray[np.float32]:
    """[B] the value of images.

    Args:
        last: [B] last timestep of each episode. succeeds: [B] whether it ends in success. timestep: [B] of the image.
    """
    left = np.maximum(last - timestep, 0)
    if settings.target == "discounted":
        value = settings.discount**left
    else:
        value = 1 - left / np.maximum(last, 1)
    return np.where(succeeds, value, 0.0).astype(np.float32)
