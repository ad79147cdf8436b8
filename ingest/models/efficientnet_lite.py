"""EfficientNet-Lite0 up to a block: convolutions trained on ImageNet, whose map of features is a grid of tokens.

The network is that of Tan & Le 2019 (EfficientNet, arXiv 1905.11946, table 1: B0) as its authors changed it for phones
(github.com/tensorflow/tpu, models/official/efficientnet/lite/README.md): no squeeze-and-excitation, ReLU6 in place of swish. Padding is
TensorFlow's "SAME": where a stride leaves an odd number of pixels to add, the last row and column get the one more. Norms have
epsilon 1e-3 and are folded into the convolution before them, in float64: an encoder never trains.

The map after the first 11 blocks is the last of stride 16: of 224 pixels 14 x 14 places of 112 channels, where the end of the network
has 7 x 7. A policy must say where something is, so it gets the finer map. Each channel is shifted and scaled by what the weights
themselves say of ImageNet: a map of residual blocks is the sum of the stage's norms, so its mean is the sum of their biases, and its
variance about the sum of their squared scales. Photographs then have a standard deviation near 1, which is what noise is added to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

NORM_EPSILON = 1e-3
STEM_WIDTH = 32
# (repeats, kernel, stride of the first, expansion, width) of each stage
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockShape:
    """One inverted bottleneck: `width_in` channels to `width`, widened by `expansion` between."""

    width_in: int
    width: int
    kernel: int
    stride: int
    expansion: int


def block_shapes() -> Iterator[BlockShape]:
    """All sixteen blocks, in order."""
    width_in = STEM_WIDTH
    for repeats, kernel, stride, expansion, width in STAGES:
        for k in range(repeats):
            yield BlockShape(
                width_in=width_in,
                width=width,
                kernel=kernel,
                stride=stride if k == 0 else 1,
                expansion=expansion,
            )
            width_in = width


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels (before, after) such that `size` becomes ceil(size / stride): TensorFlow's "SAME"."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConvolution(nn.Module):
    """A convolution with the norm after it folded in, and ReLU6 unless `is_linear`: [n, C, H, W] to [n, D, ceil(H / s), ceil(W / s)]."""

    def __init__(
        self,
        width_in: int,
        width: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        is_linear: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.groups, self.is_linear = stride, groups, is_linear
        self.weight = nn.Parameter(torch.empty(width, width_in // groups, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.shape[-1]
        top, bottom = same_padding(x.shape[-2], kernel, self.stride)
        left, right = same_padding(x.shape[-1], kernel, self.stride)
        padding = (top, left)
        if (top, left) != (bottom, right):
            x, padding = fn.pad(x, (left, right, top, bottom)), (0, 0)
        x = fn.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)
        return x if self.is_linear else fn.relu6(x)


class InvertedBottleneck(nn.Module):
    """Widen, filter each channel by itself, narrow without activation; the input is added where shapes agree."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        inner = shape.width_in * shape.expansion
        self.expand = SameConvolution(shape.width_in, inner) if shape.expansion != 1 else None
        self.filter = SameConvolution(inner, inner, shape.kernel, stride=shape.stride, groups=inner)
        self.narrow = SameConvolution(inner, shape.width, is_linear=True)
        self.is_residual = shape.stride == 1 and shape.width_in == shape.width

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else self.expand(x)
        out: Tensor = self.narrow(self.filter(inner))
        return out + x if self.is_residual else out


class EfficientNetLite0(nn.Module):
    """Pixels [n, 3, S, S] to tokens [n, (S / stride) ** 2, D] row by row, as `last_hidden_state`, the name that transformers' encoders use."""

    def __init__(self, num_blocks: int) -> None:
        super().__init__()
        self.stem = SameConvolution(3, STEM_WIDTH, 3, stride=2)
        shapes = list(block_shapes())[:num_blocks]
        blocks = [InvertedBottleneck(shape) for shape in shapes]
        self.blocks = nn.ModuleList(blocks)
        # The map is the sum of what the last blocks' norms say, back to the one whose input is not added.
        first = max(k for k, block in enumerate(blocks) if not block.is_residual)
        self._summed = range(first, num_blocks)
        self.shift = nn.Parameter(torch.zeros(shapes[-1].width))
        self.gain = nn.Parameter(torch.ones(shapes[-1].width))

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        x = self.stem(pixel_values)
        for block in self.blocks:
            x = block(x)
        tokens = x.flatten(2).transpose(1, 2)
        return SimpleNamespace(last_hidden_state=(tokens - self.shift) * self.gain)

    def load_published(self, tensors: Mapping[str, Tensor]) -> None:
        """Weights by the names of the published file, each with the norm after it; those of later blocks are not needed.

        Raises:
            KeyError: a tensor is missing.
            ValueError: one has another shape.
        """
        with torch.no_grad():
            for convolution, stem, norm in self._published_names():
                weight, bias = folded(tensors, stem, norm)
                if weight.shape != convolution.weight.shape:
                    problem = f"{stem} {tuple(weight.shape)}"
                    raise ValueError(f"{problem}; expected {tuple(convolution.weight.shape)}")
                convolution.weight.copy_(weight)
                convolution.bias.copy_(bias)
            norms = [f"_blocks.{index}._bn2" for index in self._summed]
            self.shift.copy_(torch.stack([tensors[f"{n}.bias"] for n in norms]).sum(0))
            squares = torch.stack([tensors[f"{n}.weight"] for n in norms]).square()
            self.gain.copy_(squares.sum(0).rsqrt())

    def _published_names(self) -> Iterator[tuple[SameConvolution, str, str]]:
        """(convolution, its name in the file, that of its norm)."""
        yield self.stem, "_conv_stem", "_bn0"
        for index, block in enumerate(self.blocks):
            assert isinstance(block, InvertedBottleneck)
            prefix = f"_blocks.{index}."
            if block.expand is not None:
                yield block.expand, f"{prefix}_expand_conv", f"{prefix}_bn0"
            yield block.filter, f"{prefix}_depthwise_conv", f"{prefix}_bn1"
            yield block.narrow, f"{prefix}_project_conv", f"{prefix}_bn2"


def folded(tensors: Mapping[str, Tensor], convolution: str, norm: str) -> tuple[Tensor, Tensor]:
    """(weight [D, C, k, k], bias [D]) float32 of a convolution without bias and the batch norm after it, as one convolution.

    norm(W x) = g (W x - m) / sqrt(v + e) + b = (g / sqrt(v + e)) W x + (b - m g / sqrt(v + e)); Ioffe & Szegedy 2015, section 3.1.
    """
    mean, variance = tensors[f"{norm}.running_mean"], tensors[f"{norm}.running_var"]
    gain = tensors[f"{norm}.weight"].double() / torch.sqrt(variance.double() + NORM_EPSILON)
    weight = tensors[f"{convolution}.weight"].double() * gain.view(-1, 1, 1, 1)
    bias = tensors[f"{norm}.bias"].double() - mean.double() * gain
    return weight.float(), bias.float()
