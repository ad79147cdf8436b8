"""How a value head is trained, and what of it is stored beside its tensors."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

VERSION = 1  # a reader refuses a higher one
MOST_WIDE = 1 << 14


class _ValuePart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ValueSettings(_ValuePart):
    """`target` of an image t timesteps before the end of an episode with T timesteps that succeeds: "discounted" is `discount` ** t, the discounted return of
    a reward of 1 at the end; "progress" is 1 - t / (T - 1). An episode that fails has 0 throughout, in either.

    `low_fails`: an episode of unknown outcome counts as failed where a segment is low for its quality.
    """

    target: Literal["discounted", "progress"] = "discounted"
    discount: float = Field(0.98, gt=0, lt=1)
    low_fails: bool = False
    width: int = Field(64, ge=4, le=MOST_WIDE)
    num_heads: int = Field(4, ge=1, le=64)  # of the pooling
    max_samples: int = Field(20_000, ge=1)  # that are read, evenly spread; they stay in memory
    num_steps: int = Field(1000, ge=1)
    batch_size: int = Field(128, ge=1)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    seed: int = 0


class ValueShape(_ValuePart):
    """What the run decides of a value head."""

    latent_width: int = Field(ge=1, le=MOST_WIDE)
    num_patches: int = Field(ge=1, le=MOST_WIDE)
    num_views: int = Field(ge=1, le=64)
    text_width: int = Field(ge=1, le=MOST_WIDE)
    state_width: int = Field(ge=0, le=MOST_WIDE)  # 0: no state


class OutcomeCounts(_ValuePart):
    """Episodes and samples of a split by what is known of their outcome. `by_tier`: no label, and all segments of the manifest are high up to the end;
    `low`: no label and a low segment, which counts where `low_fails` is set. Samples of unknown outcome are left out. `samples_beyond`: known ones more than
    `max_samples`.
    """

    succeeded: int = 0
    succeeded_by_tier: int = 0
    failed: int = 0
    failed_low: int = 0
    unknown: int = 0
    samples: int = 0
    samples_left_out: int = 0
    samples_beyond: int = 0


class ValueScores(_ValuePart):
    """On samples of a split that the head was not trained on. `mse_of_mean`: of the mean target of training. A rank correlation (Spearman) is None where one side
    is constant; `rank_correlation_succeeded` is over samples of episodes that succeed.
    """

    split: str
    num_samples: int
    num_episodes: int
    mse: float
    mse_of_mean: float
    rank_correlation: float | None
    rank_correlation_succeeded: float | None


class ValueFacts(_ValuePart):
    """What a head is bound to, and what it was trained on. `step`, `is_averaged`: of the weights whose text features it reads."""

    value_version: int = VERSION
    step: int
    is_averaged: bool
    encoder_id: str
    text_id: str
    recipe_sha256: str
    manifest_sha256: str
    settings: ValueSettings
    shape: ValueShape
    counts: OutcomeCounts
    scores: ValueScores | None = None
    not_scored: str = ""  # why there are no scores
    tensors_sha256: str = ""
