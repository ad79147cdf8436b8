"""What a network is made of. Part of a recipe; its digest travels with every checkpoint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Of any size: a larger number is a mistake or damage, and memory would be asked for it.
LARGEST = 1 << 20
DEEPEST = 1024
_Positive = Annotated[float, Field(gt=0)]


class Architecture(BaseModel):
    """What a recipe chooses. The defaults are LDA-1B's 16 x 1536 x 32.

    `adaln`: "full" is a linear layer of each block, as in DiT (Peebles & Xie 2023) and LDA; "shared" is one for all blocks plus an
    offset of each, as in PixArt-alpha (Chen et al. 2023, adaLN-single), which saves 0.43 B of 1.77 B.
    `text_kv`: "stream" has keys and values of the text for each stream, as LDA; "shared" has them once a block.
    `residual`: of what the blocks add to, where computing is in bf16: "bf16" halves what of it is kept for the backward pass.
    `image_readout`: numbers of each image token that a linear map of the whole image has, which is added to the tokens of the actions; 0: no such map.
    `gates`: "zero" is AdaLN-Zero, every block starts as the identity; "one" is for comparison with LDA's gates, which start at 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    width: int = Field(1536, ge=16, le=LARGEST)
    num_layers: int = Field(16, ge=1, le=DEEPEST)
    num_heads: int = Field(32, ge=1, le=LARGEST)
    ff_ratio: float = Field(4.0, gt=0, le=DEEPEST)
    dropout: float = Field(0.0, ge=0, lt=1)
    num_registers: int = Field(32, ge=0, le=LARGEST)
    adaln: Literal["full", "shared"] = "full"
    text_kv: Literal["stream", "shared"] = "stream"
    gates: Literal["zero", "one"] = "zero"
    positions: Literal["learned", "rope"] = "learned"
    residual: Literal["fp32", "bf16"] = "fp32"
    image_readout: int = Field(0, ge=0, le=LARGEST)
    precondition: bool = True  # the network says what a linear guess misses (model/precondition.py); LDA's says all of it
    adapter_width: int = Field(
        256, ge=1, le=LARGEST
    )  # of each embodiment's own layers; the rest is shared

    @model_validator(mode="after")
    def _heads_divide(self) -> Architecture:
        if self.width % self.num_heads or (self.width // self.num_heads) % 2:
            raise ValueError(
                f"width {self.width} must be {self.num_heads} times an even number (the number of heads)"
            )
        if self.positions == "rope" and self.head_width % 4:
            raise ValueError(
                f"RoPE over two axes needs a head width divisible by 4, found {self.head_width}"
            )
        return self

    @property
    def head_width(self) -> int:
        return self.width // self.num_heads


class ModelSettings(Architecture):
    """A whole network: the architecture, and the shapes that the data decides (`training/data/loader.py`)."""

    latent_width: int = Field(384, ge=1, le=LARGEST)
    num_patches: int = Field(196, ge=1, le=LARGEST)  # tokens N of one camera's picture
    num_views: int = Field(1, ge=1, le=LARGEST)
    num_past: int = Field(2, ge=1, le=LARGEST)  # pictures up to now; they share a token's channels
    text_width: int = Field(2560, ge=1, le=LARGEST)
    action_width: int = Field(
        172, ge=1, le=LARGEST
    )  # elements of the action layout (training/data/action_layout.py)
    num_history: int = Field(4, ge=0, le=LARGEST)
    num_actions: int = Field(16, ge=1, le=LARGEST)  # of a chunk
    state_width: int = Field(0, ge=0, le=LARGEST)  # 0: no state token
    num_embodiments: int = Field(64, ge=1, le=LARGEST)
    # For the linear guess, measured before the first step (training/run/data_scale.py), of each channel; one number is of all channels, as
    # checkpoints before version 3 have it.
    action_std: _Positive | tuple[_Positive, ...] = 0.5  # of normalised actions
    change_std: _Positive | tuple[_Positive, ...] = (
        1.0  # of latents, from the last picture to the future one
    )

    @model_validator(mode="after")
    def _channels_agree(self) -> ModelSettings:
        for name, width in (("action_std", self.action_width), ("change_std", self.latent_width)):
            std = getattr(self, name)
            if isinstance(std, tuple) and len(std) != width:
                raise ValueError(f"{name} has {len(std)} channels, expected {width}")
        return self

    @property
    def num_image_tokens(self) -> int:
        return self.num_patches * self.num_views

    @property
    def num_action_tokens(self) -> int:
        return self.num_history + (1 if self.state_width else 0) + self.num_actions
