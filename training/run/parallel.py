"""Several processes as one: DDP or FSDP2 around a learner, and sums over ranks.

Gradients are made to be those of one process with the whole batch: the loss of a rank is divided by the counts of all ranks, and multiplied
by their number, because both wrappers take the mean of the ranks' gradients where the sum is wanted (`trainer.py`).
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils import _pytree as pytree

from schemas.errors import ConfigError, PipelineError
from training.lara.lara import LaraTerms
from training.loss import Terms
from training.trainable import Trainable

# By kind of device. With GPUs too, what is only said, such as numbers for the log, goes over the CPU and waits for none.
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
Wrapper = Literal["ddp", "fsdp2", "hsdp"]
_MESHES: list[DeviceMesh] = []  # of this process, until it leaves the group


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Which of how many processes this is, and which of how many of its machine. Alone by default."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        return self.world_size == 1


def device_for(ranks: Ranks, name: str = "auto") -> torch.device:
    """The device of this process: on a machine with GPUs, the one of its number.

    Raises:
        ConfigError: there is none of that kind.
    """
    kind = name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda":
        kind = f"cuda:{ranks.local_rank}"
    try:
        device = torch.device(kind)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("device type not supported")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        problem = f"no device {name!r} ({str(error).splitlines()[0]}); expected auto, cpu or cuda"
        raise ConfigError(problem, where="--device") from error
    return device


def gpus_in_reach(ranks: Ranks, device: torch.device) -> int:
    """How many GPUs this machine has for a process that is alone and works on one of them; 0 where that is not so."""
    is_gpu_alone = ranks.is_alone and device.type == "cuda"
    return torch.cuda.device_count() if is_gpu_alone else 0


@contextmanager
def joined(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """A process group over all ranks, where there are several and nobody (Ray Train) has made one. Found by what torchrun set.

    Its threads have ended afterwards, also after an error.

    Raises:
        ConnectionError: another rank has ended.
    """
    is_ours = not ranks.is_alone and not dist.is_initialized()
    if is_ours:
        backend = BACKENDS[device.type]
        dist.init_process_group(backend, rank=ranks.rank, world_size=ranks.world_size)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        yield
    except BaseException as error:
        _clear_frames(error)
        if not ranks.is_alone and _is_lost_peer(error):
            problem = f"another rank has ended or cannot be reached ({str(error).splitlines()[0]})"
            raise ConnectionError(problem) from error
        raise
    finally:
        if is_ours:
            dist.destroy_process_group()
        _release_groups()


def _is_lost_peer(error: BaseException) -> bool:
    """Of NCCL by its type. Gloo says it as a RuntimeError with the file of its own that noticed."""
    return isinstance(error, dist.DistError) or (
        type(error) is RuntimeError and "gloo" in str(error)
    )


def _release_groups() -> None:
    """Drop what keeps a destroyed group alive, because only its destructor joins the threads of gloo.

    A thread of gloo that frees a tensor while the interpreter finalises aborts the process ("terminate called without an active exception").
    torch caches meshes for the life of the process, and since 2.13 a mesh holds its groups.
    """
    for mesh in _MESHES:
        getattr(mesh, "_pg_registry", {}).clear()
    _MESHES.clear()
    gc.collect()  # modules that FSDP2 wraps hold their group and lie in reference cycles


def _clear_frames(error: BaseException | None) -> None:
    """Locals of finished frames of an error and of its causes: among them are modules that hold the group."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def wrapped(
    learner: Trainable, how: Wrapper, ranks: Ranks, precision: str, *, shard_ranks: int = 0
) -> nn.Module:
    """What is called in place of the learner. Its parameters stay those of `learner`, so names do not change. It is on its device already.

    Args:
        shard_ranks: for "hsdp", how many ranks in a row share one copy of the weights.
    """
    if ranks.is_alone:
        return learner
    if how == "ddp":
        return DistributedDataParallel(learner, gradient_as_bucket_view=True)
    kind = next(learner.parameters()).device.type
    if how == "hsdp":
        shape = (ranks.world_size // shard_ranks, shard_ranks)
        mesh = init_device_mesh(kind, shape, mesh_dim_names=("replicate", "shard"))
    else:
        mesh = init_device_mesh(kind, (ranks.world_size,))
    _MESHES.append(mesh)
    return _sharded(learner, precision, mesh)


def gathered_in_turn(learner: Trainable) -> list[nn.Module]:
    """What FSDP2 gathers before its forward and again before its backward pass. The weights outside of it are gathered once and stay until the backward pass is over."""
    blocks = [*learner.blocks, *learner.conditioner.tuned_layers]
    return [block for block in blocks if any(p.requires_grad for p in block.parameters())]


def _sharded(learner: Trainable, precision: str, mesh: DeviceMesh) -> Trainable:
    """Every block is gathered when it is its turn. What is frozen is not sharded: it has no gradient and no optimiser to share."""
    # What modules are given stays as it is and autocast decides, as without FSDP2: flow times, noise and targets in bf16 would be others, and
    # so would the error. Only blocks are gathered in bf16: what is outside of them makes and reads the stream of tokens, which stays fp32.
    outer = MixedPrecisionPolicy(cast_forward_inputs=False)
    policy = outer
    if precision == "bf16":
        policy = replace(outer, param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    frozen = {p for p in learner.parameters() if not p.requires_grad}
    for block in gathered_in_turn(learner):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(learner, mesh=mesh, mp_policy=outer, ignored_params=frozen)
    for kind in (Terms, LaraTerms):
        _make_visible(kind)
    return learner


def _make_visible(kind: type) -> None:
    """FSDP2 hooks into the backward pass through the tensors of a module's output, which it finds only in what pytree knows."""
    if kind not in pytree.SUPPORTED_NODES:
        pytree.register_dataclass(kind)


def checkpoint_group(how: Wrapper, ranks: Ranks) -> dist.ProcessGroup | None:
    """A group of all ranks on the CPU, where each holds a part of the weights and so writes it; else None. Every rank must call this.

    Its own: the thread that writes speaks over it while a step speaks over the other.
    """
    if ranks.is_alone or how == "ddp":
        return None
    group: dist.ProcessGroup = dist.new_group(backend="gloo")
    return group


def no_sync(model: nn.Module, *, is_last: bool) -> AbstractContextManager[None]:
    """Around the forward and backward pass of a part of a batch: only the last exchanges gradients."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(is_last)
        return nullcontext()
    if isinstance(model, DistributedDataParallel) and not is_last:
        return model.no_sync()
    return nullcontext()


def gradients_between_parts(model: nn.Module) -> int:
    """Bytes of gradients that a rank holds while it begins another part of a batch, beside what it holds anyway: whole ones, FSDP2 too. Those of DDP lie in its buckets all the time."""
    if isinstance(model, DistributedDataParallel):
        return 0
    return sum(p.nbytes for p in model.parameters() if p.requires_grad)


def let_go(model: nn.Module) -> None:
    """After a forward pass without a backward one. FSDP2 keeps what it gathered for the backward pass, and would take it for the weights of the next step."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def sum_over(x: Tensor, ranks: Ranks) -> Tensor:
    """The same on every rank, in place."""
    if not ranks.is_alone:
        dist.all_reduce(x)
    return x


def any_rank(ranks: Ranks, *asked: bool) -> list[bool]:
    """Of each thing whether any rank asks for it. The same on every rank."""
    if ranks.is_alone:
        return list(asked)
    flags = torch.tensor(asked, dtype=torch.int64)  # on the CPU: nobody waits for a GPU
    return [number > 0 for number in sum_over(flags, ranks).tolist()]


def max_over_ranks(number: int, ranks: Ranks) -> int:
    """The largest number of any rank. The same on every rank."""
    return int(all_gather_rows(torch.tensor([number]), ranks).max())


def all_gather_rows(x: Tensor, ranks: Ranks) -> Tensor:
    """[B, ...] of every rank, one after the other: [world_size * B, ...]."""
    if ranks.is_alone:
        return x
    by_rank = [torch.empty_like(x) for _ in range(ranks.world_size)]
    dist.all_gather(by_rank, x.contiguous())
    return torch.cat(by_rank)


def all_gather_str(text: str, ranks: Ranks) -> list[str]:
    """What each rank says, in their order. The same on every rank."""
    data = text.encode()
    sizes = all_gather_rows(torch.tensor([len(data)]), ranks).tolist()
    padded = torch.tensor([*data, *bytes(max(sizes) + 1 - len(data))], dtype=torch.uint8)
    rows = all_gather_rows(padded[None], ranks).tolist()
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]


@contextmanager
def raise_on_any_rank(ranks: Ranks) -> Iterator[None]:
    """Around what each rank looks at for itself: where one is refused, all are, and none waits for it in vain.

    Raises:
        PipelineError: what was found here; ConfigError what another rank found.
    """
    refused: PipelineError | None = None
    try:
        yield
    except PipelineError as error:
        refused = error
    messages = all_gather_str("" if refused is None else str(refused), ranks)
    if refused is not None:
        raise refused
    for rank, text in enumerate(messages):
        if text:
            raise ConfigError(text, where=f"rank {rank} of {ranks.world_size}")


def full_tensor(x: Tensor) -> Tensor:
    """A tensor as it would be on one process. Every rank must ask, in the same order."""
    x = x.detach()
    return x.full_tensor() if isinstance(x, DTensor) else x


def own_shard(x: Tensor) -> Tensor:
    """Of a sharded tensor the piece of this rank, which is its own memory."""
    return x.to_local() if isinstance(x, DTensor) else x


def shard_like(full: Tensor, like: Tensor) -> Tensor:
    """Of a whole tensor what this rank has of `like`: on its device, of its dtype. No rank speaks to another."""
    full = full.to(like.device, like.dtype)
    if not isinstance(like, DTensor):
        return full
    return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None)
