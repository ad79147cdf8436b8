"""What a recipe says of LARA. Nothing here needs torch: a recipe is read, and refused, without it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.model.settings import DEEPEST, LARGEST


class _LaraSection(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LatentActionSettings(_LaraSection):
    """The latent action model. The defaults are the release's M-Former and code book (`formats/exports.md` 7.1, bd0701a).

    `beta`: weight of the commitment term; the release has it on the other term. `usage_decay`: of the averaged use of each code, a step;
    a code that is used less than `dead_share` of an equal share is put where a latent action of the batch lies.
    """

    width: int = Field(768, ge=16, le=LARGEST)
    num_heads: int = Field(12, ge=1, le=LARGEST)
    num_layers: int = Field(4, ge=1, le=DEEPEST)
    decoder_layers: int = Field(12, ge=1, le=DEEPEST)
    num_queries: int = Field(8, ge=1, le=LARGEST)
    code_width: int = Field(32, ge=1, le=LARGEST)
    num_codes: int = Field(128, ge=2, le=LARGEST)
    beta: float = Field(0.25, ge=0)
    usage_decay: float = Field(0.95, ge=0, lt=1)
    dead_share: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_divide(self) -> LatentActionSettings:
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not divisible by num_heads {self.num_heads}")
        return self


class NoLara(_LaraSection):
    """The four tasks alone."""

    kind: Literal["none"] = "none"


class LatentActionStage(_LaraSection):
    """The first stage: the latent action model alone, from the pictures of now and of `data.future_s`. There is no policy in the run."""

    kind: Literal["lam"] = "lam"
    lam: LatentActionSettings = LatentActionSettings()


class JointStage(_LaraSection):
    """Both at once: L = L_tasks + `weight_align` (1 - cos) + `weight_lam` L_LAM.

    The cosine is between a projection of the hidden state of one action token after so many blocks, and the latent action before it is quantised.
    `after_block: 14` of 16 and the last token are the release's; its paper's "L-2" has three readings. Only samples of the task policy from
    segments that may teach it are aligned: inverse dynamics sees the future picture, which the alignment would leak.

    `future_s`: of the picture that the latent action leads to; it must be a time of the latents' grid. `action`: the token, by its place in the chunk.
    `stop_gradient`: of the alignment, to neither side, to the latent action model or to the policy. `freeze_lam`: it stays as --init-lam has it.
    """

    kind: Literal["joint"] = "joint"
    lam: LatentActionSettings = LatentActionSettings()
    future_s: float = Field(1.5, gt=0)
    after_block: int = Field(14, ge=1, le=DEEPEST)
    action: int = Field(-1, ge=-LARGEST, le=LARGEST)
    weight_align: float = Field(0.01, ge=0)
    weight_lam: float = Field(0.01, ge=0)
    stop_gradient: Literal["none", "to_lam", "to_policy"] = "none"
    freeze_lam: bool = False


LaraSettings = Annotated[NoLara | LatentActionStage | JointStage, Field(discriminator="kind")]
