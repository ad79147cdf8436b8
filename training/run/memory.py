"""Memory of a step before it is begun: what autograd keeps of a sample, counted, and in how many parts a rank's batch fits a device.

Counted on fake tensors of the CPU (shapes and types, no memory), eager: `torch.compile` keeps less. On an H100 a step of `lda_1b` took 94 % of it eager, 84 to 90 %
compiled (docs/results/benchmarks.md); several GPUs were not measured.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from schemas.errors import ConfigError
from schemas.regular_file import open_regular
from training.batch import Batch, Origin
from training.conditioning.inputs import TextInputs
from training.data.prefetch import tensors_mapped
from training.loss import loss_of
from training.model.network import KnownInputs, Network
from training.model.settings import ModelSettings
from training.model.text import Text, equal_lengths
from training.precision import Precision, computing
from training.recipe import TrainRecipe
from training.run.compile_blocks import products
from training.trainable import Trainable

USABLE = (
    0.9  # of a device: the rest is the context, the allocator's gaps and the buffers of kernels
)
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes of one sample with all its draws. block: what the backward pass of one block needs; stream: its inputs, which is what is kept of
    a block that is computed again; products: results of its matrix products and attention, which "selective" keeps beside them; rest: everything
    outside of blocks; batch: the sample itself on the device.
    """

    block: int
    stream: int
    rest: int
    batch: int
    products: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of one rank. state: weights, gradients, moments, averages; cast: weights in bf16; activations: of the samples that are in the network at once;
    frozen: weights of a language model in the step that are not trained. Of FSDP2, gathered: whole weights in fp32; unreduced: the gradients of other ranks'
    pieces, which it keeps from one part to the next.
    """

    state: int
    cast: int
    batch: int
    activations: int
    frozen: int = 0
    gathered: int = 0
    unreduced: int = 0

    @property
    def total(self) -> int:
        return sum(getattr(self, name) for name in self.__slots__)

    def as_object(self) -> dict[str, int]:
        """For `--json`."""
        return {name: getattr(self, name) for name in (*self.__slots__, "total")}


def footprint_of(
    settings: ModelSettings, num_text: int, num_draws: int, precision: Precision
) -> Footprint:
    """Of a network of these settings with `num_text` tokens of text.

    Two numbers of samples and of layers are compared, so that what belongs to weights is not counted, and 16 layers need not be run.
    """
    (one, one_products), (two, two_products) = (
        _per_sample(
            settings.model_copy(update={"num_layers": layers}), num_text, num_draws, precision
        )
        for layers in (1, 2)
    )
    s, itemsize = settings, 2 if settings.residual == precision == "bf16" else 4
    joint = s.num_registers + s.num_image_tokens + s.num_action_tokens
    with FakeTensorMode():
        batch = _batch(s, 1, num_text)
    return Footprint(
        block=two - one,
        stream=num_draws * joint * s.width * itemsize,
        rest=max(0, 2 * one - two),
        batch=bytes_of(batch),
        products=two_products - one_products,
    )


def memory_of(
    footprint: Footprint,
    recipe: TrainRecipe,
    *,
    num_layers: int,
    num_parameters: int,
    block_parameters: int,
    root_parameters: int,
    world_size: int,
    num_parts: int,
    shard_ranks: int | None = None,
    frozen_bytes: int = 0,
) -> Memory:
    """Of one rank that takes its share of a batch in `num_parts` parts.

    Args:
        shard_ranks: that share one copy of the weights; None: all.
        num_parameters: that are trained. block_parameters: of the largest of what FSDP2 gathers in turn. root_parameters: outside of all that.
        frozen_bytes: of weights that are not trained, which every rank has.
    """
    run = recipe.run
    shard_ranks = shard_ranks or world_size
    share = -(-run.batch_size // world_size)
    at_once = -(-share // num_parts)
    blocks = num_layers * footprint.block
    if run.checkpoint_activations:
        each_block = footprint.stream
        if run.checkpoint_activations == "selective":
            each_block += footprint.products
        blocks = num_layers * each_block + footprint.block
    is_sharded = run.parallel != "ddp" and shard_ranks > 1
    each = 16 + (4 if recipe.optimiser.ema is not None else 0)
    in_turn = 2 * block_parameters  # FSDP2 gathers a block at a time and the next one ahead
    cast = gathered = unreduced = 0
    if run.precision == "bf16":
        cast = 2 * (in_turn if is_sharded else num_parameters)
    if is_sharded:
        gathered = 4 * (root_parameters + (in_turn if run.precision == "fp32" else 0))
    if is_sharded and num_parts > 1:  # reduced in the last part; `state` has the own piece
        unreduced = 4 * (num_parameters - num_parameters // shard_ranks)
    return Memory(
        state=num_parameters * each // (shard_ranks if is_sharded else 1),
        cast=cast,
        batch=share * footprint.batch,
        activations=at_once * (blocks + footprint.rest),
        frozen=frozen_bytes,
        gathered=gathered,
        unreduced=unreduced,
    )


def fewest_parts(by_parts: dict[int, Memory], device_bytes: int) -> int | None:
    """In which a batch fits a device by this estimate; None: not even one sample at a time does."""
    usable = int(USABLE * device_bytes)
    return min((n for n, memory in by_parts.items() if memory.total <= usable), default=None)


def host_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory of this machine, or what the container that this runs in may use of it."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroups 2 and 1
        path = cgroup / name
        if not path.is_file():
            continue
        with open_regular(path) as file:  # the kernel says that it has 0 bytes
            text = file.read(100).decode().strip()
        sizes += [int(text)] if text.isdigit() else []  # "max": no limit
    return min(sizes)


def parts_that_fit(by_parts: dict[int, Memory], device_bytes: int) -> int:
    """The fewest parts in which a batch fits.

    Args:
        by_parts: of every number of parts that divides a rank's share.

    Raises:
        ConfigError: not even one sample at a time.
    """
    num_parts = fewest_parts(by_parts, device_bytes)
    if num_parts is not None:
        return num_parts
    least = by_parts[max(by_parts)]
    problem = (
        f"a rank needs about {least.total / 1e9:.1f} GB even with one sample at a time (weights, gradients and optimiser "
        f"{least.state / 1e9:.1f}, batch {least.batch / 1e9:.1f}, activations {least.activations / 1e9:.1f}); the device has {device_bytes / 1e9:.1f} GB"
    )
    repair = "use more ranks with --set run.parallel=fsdp2, --set run.checkpoint_activations=true, or a smaller network"
    raise ConfigError(problem, remedy=repair, where="recipe key run")


def _per_sample(
    settings: ModelSettings, num_text: int, num_draws: int, precision: Precision
) -> tuple[int, int]:
    few, more = (_kept(settings, size, num_text, num_draws, precision) for size in (2, 4))
    return (more[0] - few[0]) // 2, (more[1] - few[1]) // 2


def _kept(
    settings: ModelSettings, size: int, num_text: int, num_draws: int, precision: Precision
) -> tuple[int, int]:
    """Bytes that the backward pass of `size` samples needs, and those of products among all that is computed."""
    with FakeTensorMode():
        network = Network(settings)
        batch = _batch(settings, size * num_draws, num_text)
        text = Text(
            values=torch.ones(size * num_text, settings.text_width),
            layout=equal_lengths(size, num_text),
        )
        t, like = torch.ones(size * num_draws), torch.ones_like
        noise = like(batch.action), like(batch.future)
        with Products() as products:
            kept = kept_bytes(lambda: loss_of(network, batch, text, t, *noise), precision)
        return kept, products.num_bytes


def text_footprint(learner: Trainable, batch: Batch, recipe: TrainRecipe) -> int:
    """Bytes of one sample that trained layers of a language model keep, of its own text and of its share of the pairs beside it; 0 where none is trained.

    Measured on the first samples of `batch`: there are no fake tensors of a model with weights from files. With `run.checkpoint_activations` it is an
    upper bound.
    """
    if not learner.conditioner.tuned_layers:
        return 0
    device, precision = batch.action.device, recipe.run.precision

    def more(keep: Callable[[int], object], num: int) -> float:
        """Bytes that the second of `num` adds, where there is one."""
        one, two = (kept_bytes(partial(keep, k), precision, device) for k in (1, min(2, num)))
        return two - one if num > 1 else one

    text, pairs, learns = batch.text_inputs, batch.image_text, learner.conditioner
    # Up to the first sample of another text than the first sample's; every sample counts as having a text of its own.
    until = int(np.argmax(text.layout.text_of != text.layout.text_of[0])) + 1
    num_texts = 1 if until == 1 else 2
    of_sample = more(lambda k: learns(text.of_samples(slice(1 if k == 1 else until))), num_texts)
    if pairs is None:
        return round(of_sample)
    num = len(pairs["token_ids"])
    of_pair = more(lambda k: learns.answer_loss({n: x[:k] for n, x in pairs.items()}), num)
    return round(of_sample + num / len(batch.known.task) * of_pair)


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the results of `products`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_bytes = 0
        self._products = frozenset(products())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in self._products:
            self.num_bytes += sum(x.nbytes for x in tree_leaves(out) if isinstance(x, Tensor))
        return out


def kept_bytes(
    forward: Callable[[], object], precision: Precision, device: torch.device = _CPU
) -> int:
    """Bytes that autograd keeps of a forward pass, on fake tensors or on `device`. Tensors that share memory once, parameters not."""
    kept: dict[int, Any] = {}

    def pack(x: Tensor) -> Tensor:
        if not isinstance(x, nn.Parameter):
            storage = x.untyped_storage()
            kept[storage._cdata] = storage  # held, so that no other gets its number
        return x

    with computing(precision, device), saved_tensors_hooks(pack, lambda x: x):
        output = forward()
    del output
    return sum(int(storage.nbytes()) for storage in kept.values())


def _batch(s: ModelSettings, size: int, num_text: int) -> Batch:
    """Ones, in the shapes of a batch on the device."""
    ones = torch.ones
    action = ones(size, s.num_actions, s.action_width)
    known = KnownInputs(
        past=ones(size, s.num_past, s.num_image_tokens, s.latent_width),
        has_past=ones(size, s.num_past, s.num_views, dtype=torch.bool),
        history=ones(size, s.num_history, s.action_width),
        has_history=ones(size, s.num_history, s.action_width, dtype=torch.bool),
        embodiment=torch.zeros(size, dtype=torch.long),
        task=torch.zeros(size, dtype=torch.long),
        state=ones(size, s.state_width) if s.state_width else None,
    )
    return Batch(
        known=known,
        action=action,
        has_action=torch.ones_like(action, dtype=torch.bool),
        asked=ones(size, s.action_width, dtype=torch.bool),
        future=ones(size, s.num_image_tokens, s.latent_width),
        has_future=ones(size, s.num_views, dtype=torch.bool),
        action_t_s=ones(s.num_actions),
        future_t_s=1.0,
        text_inputs=TextInputs(
            layout=equal_lengths(size, num_text),
            by_token={"text": ones(size * num_text, s.text_width)},
        ),
        origin=Origin(row=np.zeros(size, dtype=np.int64), timestep=np.zeros(size, dtype=np.int64)),
    )


def bytes_of(batch: Batch) -> int:
    """Of all its tensors."""
    sizes: list[int] = []

    def counted(x: Tensor) -> Tensor:
        sizes.append(x.nbytes)
        return x

    tensors_mapped(batch, counted)
    return sum(sizes)
