"""Memory by counting: what autograd keeps of a block, in bytes of a token and width, against figures counted elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from schemas.errors import ConfigError
from tests.training.tiny import SETTINGS, batch, noise_of, text_of
from training.loss import loss_of
from training.model.network import Network
from training.model.settings import ModelSettings
from training.recipe import TrainRecipe, load_recipe
from training.run.memory import Footprint, Memory, footprint_of, memory_of, parts_that_fit

GB = 10**9


@pytest.mark.parametrize(("name", "wanted"), [("lda_1b", 60.1), ("lda_1p8b", 69.4)])
def test_a_block_keeps_what_was_counted_of_it(name: str, wanted: float) -> None:
    """Counted with hooks in bf16 autocast, 248 tokens and 200 of text. The estimate before had 42 for both."""
    kept = load_recipe(name).architecture.model_dump()
    small = ModelSettings(**kept | {"width": 384, "num_heads": 8, "text_width": 640})
    assert small.num_registers + small.num_image_tokens + small.num_action_tokens == 248
    found = footprint_of(small, 200, 1, "bf16")
    assert found.block / 248 / small.width == pytest.approx(wanted, rel=0.06)
    assert found.stream == 248 * small.width * 4


def test_fake_tensors_keep_what_real_ones_do() -> None:
    """Of a whole forward pass on this CPU, by addresses of memory."""
    sizes = []
    for num in (2, 4):
        kept: dict[int, int] = {}
        made = batch([0] * num)
        alive: list[Tensor] = []

        def pack(x: Tensor, kept: dict[int, int] = kept, alive: list[Tensor] = alive) -> Tensor:
            if not isinstance(x, nn.Parameter):
                alive.append(x)
                kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        network = Network(SETTINGS)
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=False),
            saved_tensors_hooks(pack, lambda x: x),
        ):
            loss_of(network, made, text_of(made), *noise_of(made))
        sizes.append(sum(kept.values()))
    found = footprint_of(SETTINGS, 5, 1, "fp32")
    whole = SETTINGS.num_layers * found.block + found.rest
    assert whole == pytest.approx((sizes[1] - sizes[0]) / 2, rel=0.02)


def recipe(**run: object) -> TrainRecipe:
    return TrainRecipe.model_validate({"name": "m", "run": {"batch_size": 64, **run}})


FOUND = Footprint(block=100, stream=10, rest=7, batch=3, products=40)


def of(num_parts: int, world_size: int = 4, **run: object) -> Memory:
    return memory_of(
        FOUND, recipe(**run), num_layers=8, num_parameters=1000, block_parameters=50,
        root_parameters=600, world_size=world_size, num_parts=num_parts,
    )  # fmt: skip


def test_memory_of_shared_weights_by_hand() -> None:
    """8 blocks of 50 weights are gathered two at a time, 600 outside of them stay. Between parts three quarters of all gradients are other ranks'."""
    shared = of(1, parallel="fsdp2")
    assert (shared.state, shared.cast, shared.gathered, shared.unreduced) == (4000, 200, 2400, 0)
    exact = of(1, parallel="fsdp2", precision="fp32")
    assert (exact.cast, exact.gathered) == (0, 2400 + 400)
    assert of(2, parallel="fsdp2").unreduced == of(4, parallel="hsdp").unreduced == 3000
    assert of(2, parallel="fsdp2").total == 4000 + 200 + 48 + 8 * 807 + 2400 + 3000
    alone = of(2, world_size=1, parallel="fsdp2")
    assert (alone.gathered, alone.unreduced) == (0, 0)


def test_memory_by_hand() -> None:
    """16 samples a rank: fp32 weights, gradients and two moments are 16 bytes a parameter."""
    assert of(1) == Memory(state=16_000, cast=2000, batch=48, activations=16 * 807)
    assert of(4).activations == 4 * 807
    assert of(1, precision="fp32").cast == 0
    assert of(2, checkpoint_activations=True).activations == 8 * (8 * 10 + 100 + 7)
    assert of(2, checkpoint_activations="selective").activations == 8 * (8 * 50 + 100 + 7)
    assert of(2).total == 16_000 + 2000 + 48 + 8 * 807


def test_the_fewest_parts_that_fit_are_taken() -> None:
    by_parts = {
        n: Memory(state=20 * GB, cast=2 * GB, batch=GB, activations=70 * GB // n) for n in (1, 2, 4)
    }
    assert parts_that_fit(by_parts, 141 * GB) == 1
    assert parts_that_fit(by_parts, 80 * GB) == 2
    assert parts_that_fit(by_parts, 50 * GB) == 4
    with pytest.raises(ConfigError, match=r"needs about 40\.5 GB even with one sample.* 24\.0 GB"):
        parts_that_fit(by_parts, 24 * GB)


def test_what_is_known_of_8_gpus_of_80_gb() -> None:
    """Both recipes at 192 samples a GPU and 200 tokens of text: neither fits in one part, both do in two."""
    for name, of_blocks in (("lda_1b", 70), ("lda_1p8b", 81)):
        made = load_recipe(name)
        settings = ModelSettings(**made.architecture.model_dump())
        found = footprint_of(settings, 200, 1, "bf16")
        assert 192 * settings.num_layers * found.block / GB == pytest.approx(of_blocks, rel=0.06)
        by_parts = {
            n: memory_of(
                found, made, num_layers=settings.num_layers, num_parameters=1_800_000_000,
                block_parameters=110_000_000, root_parameters=40_000_000, world_size=8, num_parts=n,
            )
            for n in (1, 2, 4)
        }  # fmt: skip
        assert parts_that_fit(by_parts, 80 * GB) == 2


def test_what_each_way_of_keeping_less_saves_of_a_block() -> None:
    """Bytes of a token and width of `lda_1b` in bf16, counted: all of it, all with a stream in bf16, and what "selective" keeps."""
    kept = load_recipe("lda_1b").architecture.model_dump()
    found = {
        residual: footprint_of(
            ModelSettings(
                **kept | {"width": 384, "num_heads": 8, "text_width": 640, "residual": residual}
            ),
            200,
            1,
            "bf16",
        )
        for residual in ("fp32", "bf16")
    }
    unit = 248 * 384
    assert [found[each].block / unit for each in found] == pytest.approx([60.4, 50.4], abs=0.1)
    selective = [(found[each].stream + found[each].products) / unit for each in found]
    assert selective == pytest.approx([30.4, 28.4], abs=0.1)
