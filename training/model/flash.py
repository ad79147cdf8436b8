"""FlashAttention 3 and 4, where their packages are installed: torch's own flash kernels are version 2.

Both are called by their public functions. torch can put them under SDPA (`activate_flash_attention_impl`), but for the whole process, and by
private functions of theirs whose answers have changed between releases. Signatures read in the sources of Dao-AILab/flash-attention,
`hopper/flash_attn_interface.py` and `flash_attn/cute/interface.py`; NOT RUN ON A GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ParamSpec

import torch
from torch import Tensor
from torch.profiler import record_function

P = ParamSpec("P")
HALF = (torch.float16, torch.bfloat16)
WIDEST = 128  # of a head, a multiple of 8: what all of them take, forwards and backwards
# By name: the module, and the major compute capabilities that it is tried on. Hopper (9) takes what was written for it first.
PACKAGES = {
    "flash-attn 3": ("flash_attn_interface", (9,)),
    "flash-attn 4": ("flash_attn.cute", (9, 10)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flash:
    """Attention of everything to everything by a package; `name` is that of `PACKAGES` and is what a profiler sees."""

    name: str
    run: Callable[[Tensor, Tensor, Tensor], Tensor]

    def takes(self, query: Tensor) -> bool:
        """[B, H, L, W]."""
        return is_for_kernels(query)


def is_for_kernels(query: Tensor) -> bool:
    """[..., W] on a GPU, in half precision, of a width that all of them have."""
    width = query.shape[-1]
    return query.is_cuda and query.dtype in HALF and width % 8 == 0 and width <= WIDEST


def flash_kernel() -> Flash | None:
    """That of the installed package, for joint attention."""
    package = installed_package()
    if package is None:
        return None
    name, module = package
    return Flash(name=name, run=unseen(turned(name, module.flash_attn_func)))


def installed_package() -> tuple[str, Any] | None:
    """Name and module of the first of `PACKAGES` for this GPU that can be imported."""
    if not torch.cuda.is_available():
        return None
    major, _ = torch.cuda.get_device_capability()
    for name, (module, majors) in PACKAGES.items():
        if major not in majors:
            continue
        try:
            return name, import_module(module)
        except ImportError:
            continue
    return None


def unseen(run: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """torch.compile cannot look into kernels that are built as they are called: the graph has a seam there."""
    return torch.compiler.disable(run)  # type: ignore[no-untyped-call, no-any-return]


def turned(name: str, kernel: Callable[..., Any]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A kernel of [B, L, H, W] as one of [B, H, L, W]."""

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with record_function(name):
            output = kernel(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        return attended(output).transpose(1, 2)

    return run


def attended(output: Any) -> Tensor:
    """Some releases answer with what they attended to and its normaliser, others with the first alone."""
    out: Tensor = output[0] if isinstance(output, tuple) else output
    return out
