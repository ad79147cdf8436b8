"""What a function asks of the device, counted by dispatch: kernel launches, and reads by which the host waits. On a CPU it stands in for a profile of a GPU.

Every operator that is no view counts as a launch. A fused optimiser, a `foreach` operator and an attention kernel count once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operators whose result, or its shape, the host has to wait for on a GPU.
WAITING = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "equal", "is_nonzero",
}  # fmt: skip
# Methods that read a tensor without an operator where it lies on the CPU.
READING = {"cpu", "tolist", "numpy", "__array__"}


@dataclass(slots=True)
class OpCounts:
    """launches: operators that are no views. num_bytes: that these read and write. waits: reads of the host, by operator or method."""

    launches: int = 0
    waits: Counter[str] = field(default_factory=Counter)
    by_op: Counter[str] = field(default_factory=Counter)
    num_bytes: int = 0

    @property
    def num_waits(self) -> int:
        return sum(self.waits.values())


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, counts: OpCounts) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._counts = counts

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        counts, named = self._counts, kwargs or {}
        name = func.overloadpacket.__name__
        is_launch = not func.is_view and name not in ("detach", "lift_fresh")
        if name in WAITING or _is_by_mask(name, args) or _leaves_device(name, args, named):
            counts.waits[name] += 1
        out = func(*args, **named)
        if is_launch:
            counts.launches += 1
            counts.by_op[name] += 1
            tensors = [x for x in tree_leaves((args, named, out)) if isinstance(x, Tensor)]
            counts.num_bytes += sum(x.nbytes for x in tensors)
        return out


class _Methods(TorchFunctionMode):
    def __init__(self, counts: OpCounts) -> None:
        super().__init__()
        self._counts = counts

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in READING and func is getattr(Tensor, name, None):
            self._counts.waits[name] += 1
        return func(*args, **(kwargs or {}))


def _is_by_mask(name: str, args: tuple[Any, ...]) -> bool:
    """An index that is a mask asks how many are true."""
    if name not in ("index", "index_put", "index_put_", "_index_put_impl_"):
        return False
    masks = [x for x in tree_leaves(args[1]) if isinstance(x, Tensor) and x.dtype == torch.bool]
    return bool(masks)


def _leaves_device(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    if name == "_to_copy":
        target = named.get("device")
        is_to_cpu = target is not None and torch.device(target).type == "cpu"
        return is_to_cpu and args[0].device.type != "cpu"
    if name == "copy_":
        return bool(args[0].device.type == "cpu" and args[1].device.type != "cpu")
    return False


def counted(run: Callable[[], object]) -> OpCounts:
    """What `run` launches and reads."""
    counts = OpCounts()
    with _Operators(counts), _Methods(counts):
        run()
    return counts
