"""What a block-causal network is made of, how it is trained and how it is sampled. Part of a recipe, read without torch.

Facts of LingBot-VA are cited by file at commit 7c6ffa9 (`wan_va/train.py`, `wan_va/modules/model.py`); what departs from them says so.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from training.model.settings import DEEPEST, LARGEST, Architecture, ModelSettings

LONGEST = 4096  # frames of a sequence, and order indices of a window


class _CausalSection(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CausalObjective(_CausalSection):
    """The loss. Noise levels run from 0 (data) to 1 (noise): level = shift u / (1 + (shift - 1) u) of a uniform u.

    `chunk` frames and a `window` of order indices are drawn once a step, both ends included. A window of w reaches w / 2 chunks back, for
    a chunk has two order indices. `action_shift` is 1.0 for RoboTwin and 0.05 for LIBERO (`wan_va/configs`).
    """

    chunk: tuple[int, int] = (1, 4)
    window: tuple[int, int] = (4, 64)
    video_shift: float = Field(5.0, gt=0)
    action_shift: float = Field(1.0, gt=0)
    noisy_history: float = Field(0.5, ge=0, le=1)  # probability, of the clean video alone
    text_dropout: float = Field(0.1, ge=0, lt=1)
    # Whether the first frame of a sequence is shown without noise and not scored, as when a chunk is sampled from it. LingBot-VA: no.
    known_first: bool = False

    @model_validator(mode="after")
    def _ranges_rise(self) -> CausalObjective:
        for name, (low, high) in (("chunk", self.chunk), ("window", self.window)):
            if not 1 <= low <= high <= LONGEST:
                raise ValueError(f"{name} [{low}, {high}]: expected 1 <= low <= high <= {LONGEST}")
        return self


class CausalSampling(_CausalSection):
    """How a chunk is sampled: frames of it, the window, Euler steps and guidance of video and actions (RoboTwin's by default)."""

    chunk: int = Field(2, ge=1, le=LONGEST)
    window: int = Field(72, ge=2, le=LONGEST)  # order indices: two a chunk
    video_steps: int = Field(25, ge=1, le=1000)
    action_steps: int = Field(50, ge=1, le=1000)
    video_guidance: float = Field(5.0, ge=0)
    action_guidance: float = Field(1.0, ge=0)

    @property
    def is_guided(self) -> bool:
        """Whether a second row without text must be computed."""
        return self.video_guidance != 1.0 or self.action_guidance != 1.0


class CausalArchitecture(_CausalSection):
    """What a recipe chooses. The defaults are those of LingBot-VA, which are Wan2.2-TI2V-5B's.

    `patch`: so many latents of a row and of a column become one token. `adapter_width`: of each embodiment's own layers between its
    action elements and the width; LingBot-VA has one linear layer for all.
    """

    kind: Literal["block_causal"] = "block_causal"
    width: int = Field(3072, ge=16, le=LARGEST)
    num_layers: int = Field(30, ge=1, le=DEEPEST)
    num_heads: int = Field(24, ge=1, le=LARGEST)
    ff_width: int = Field(14336, ge=1, le=LARGEST)
    patch: int = Field(2, ge=1, le=64)
    adapter_width: int = Field(256, ge=1, le=LARGEST)
    # What the head of video says: the velocity (LingBot-VA); the clean frame, from which and the noisy frame the velocity follows; or how the clean frame
    # differs from the last one that is known before its chunk. A velocity holds all noise of a patch, which does not pass through a network narrower
    # than the patch; a clean frame does (Li and He 2025, arXiv 2511.13720: cited from memory). A change begins as a copy.
    video_head: Literal["velocity", "data", "change"] = "velocity"
    objective: CausalObjective = CausalObjective()
    sampling: CausalSampling = CausalSampling()

    @model_validator(mode="after")
    def _heads_divide_width(self) -> CausalArchitecture:
        if self.width % self.num_heads or (self.width // self.num_heads) % 2 or self.head_width < 6:
            problem = f"width {self.width} must be {self.num_heads} (heads) times an even number"
            raise ValueError(f"{problem} of at least 6: RoPE has three axes")
        return self

    @property
    def head_width(self) -> int:
        return self.width // self.num_heads


class CausalModelSettings(CausalArchitecture):
    """A whole network: the architecture, and the shapes that the data decides."""

    latent_width: int = Field(48, ge=1, le=LARGEST)
    grid_height: int = Field(24, ge=1, le=LARGEST)  # latents of one camera's frame
    grid_width: int = Field(20, ge=1, le=LARGEST)
    num_views: int = Field(1, ge=1, le=LARGEST)  # beside each other
    num_frames: int = Field(16, ge=1, le=LONGEST)  # of a sequence, at most
    text_width: int = Field(4096, ge=1, le=LARGEST)
    action_width: int = Field(172, ge=1, le=LARGEST)
    actions_per_frame: int = Field(16, ge=1, le=LARGEST)
    num_embodiments: int = Field(64, ge=1, le=LARGEST)

    @model_validator(mode="after")
    def _patches_divide(self) -> CausalModelSettings:
        if self.grid_height % self.patch or self.grid_width % self.patch:
            problem = f"a grid of {self.grid_height} x {self.grid_width} latents"
            raise ValueError(f"{problem} is not divisible into patches of {self.patch}")
        return self

    @property
    def num_latents(self) -> int:
        """Of one frame, all views."""
        return self.num_views * self.grid_height * self.grid_width

    @property
    def num_video_tokens(self) -> int:
        """P, of one frame, all views."""
        return self.num_latents // self.patch**2


def _kind_of(value: Any) -> str:
    """Of a mapping or a model: `kind`, which the two-stream network of four tasks does not have."""
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return "two_stream" if kind is None else str(kind)


AnyArchitecture = Annotated[
    Annotated[Architecture, Tag("two_stream")] | Annotated[CausalArchitecture, Tag("block_causal")],
    Discriminator(_kind_of),
]
AnySettings = Annotated[
    Annotated[ModelSettings, Tag("two_stream")]
    | Annotated[CausalModelSettings, Tag("block_causal")],
    Discriminator(_kind_of),
]
