"""FlashAttention 3 and 4 as one operator of torch: a compiled block has no graph break there, "selective" keeps its result, and its FLOPs are counted.

Version 4 was run on an H100 (4.0.0b36; `kernel_check.py` says what was wrong with it), version 3 and lengths of version 4 were not run. Arguments are those of Dao-AILab/flash-attention at 0251105a (2026-08-15), `hopper/flash_attn_interface.py` and
`flash_attn/cute/interface.py`. They are the same in FlashAttention 3 since 203b9b3d (2025-08-29) and in version 4 since 4.0.0 beta 0. Older
releases do not return what a backward pass needs, and are not used.

Letters: B samples, Q queries, K keys, H heads, W width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function
from torch.utils.flop_counter import (
    register_flop_formula,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

VERSION_3, VERSION_4 = "flash-attn 3", "flash-attn 4"
# By name: the module, and the major compute capabilities that it is tried on. Hopper (9) takes what was written for it first.
PACKAGES = {VERSION_3: ("flash_attn_interface", (9,)), VERSION_4: ("flash_attn.cute", (9, 10))}
# What a profiler reports for sequences of different lengths.
REPORTED = {name: f"varlen ({name})" for name in PACKAGES}
LENGTHS = ("cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k")
_LSE = {VERSION_3: "return_attn_probs", VERSION_4: "return_lse"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """What the operator calls. `lengths` are the four of `LENGTHS` (starts [B + 1] int32, longest as numbers), or none of them.

    forward: (query, key, value, *lengths) to the result like query, and lse, the float32 logarithm of the sums of the softmax: [B, H, Q], or [H, rows].
    backward: (gradient, query, key, value, result, lse, gradients, *lengths) fills the three `gradients` of query, key and value.
    has_lengths: whether it takes lengths.
    """

    forward: Callable[..., tuple[Tensor, Tensor]]
    backward: Callable[..., None]
    has_lengths: bool = True


KERNELS: dict[str, Kernels] = {}  # by the name that the operator is given


def installed() -> str | None:
    """Name of the first of `PACKAGES` for this GPU that can be imported and used; its kernels are in `KERNELS` then."""
    if not torch.cuda.is_available():
        return None
    major, _ = torch.cuda.get_device_capability()
    for name, (module, majors) in PACKAGES.items():
        if major not in majors:
            continue
        try:
            kernels = _KERNELS_OF[name](import_module(module), major)
        except (ImportError, AttributeError):
            continue
        if kernels is not None:
            KERNELS[name] = kernels
            return name
    return None


def _public(name: str, module: Any) -> Callable[..., Any] | None:
    """Forward pass by the public functions of a package; None where they do not return lse."""
    functions = module.flash_attn_func, module.flash_attn_varlen_func
    if not all(_LSE[name] in signature(each).parameters for each in functions):
        return None
    dense, varlen = functions

    def forward(query: Tensor, key: Tensor, value: Tensor, *lengths: Any) -> tuple[Tensor, Tensor]:
        named = dict(zip(LENGTHS, lengths, strict=bool(lengths)))
        run = varlen if lengths else dense
        out, lse = run(query, key, value, **named, **{_LSE[name]: True})[:2]
        return out, lse

    return forward


def _version_3(module: Any, major: int) -> Kernels | None:
    forward, run = _public(VERSION_3, module), module._flash_attn_backward

    def backward(
        grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor,
        grads: tuple[Tensor, Tensor, Tensor], *lengths: Any,
    ) -> None:  # fmt: skip
        starts, longest = (lengths[:2], lengths[2:]) if lengths else ((None, None), (None, None))
        # by place: the last one is `causal` or `is_causal`, by release; the two after `starts` are numbers of rows in use
        run(
            grad, query, key, value, out, lse, *starts, None, None, *longest, *grads,
            query.shape[-1] ** -0.5, False,  # noqa: FBT003
        )  # fmt: skip

    return None if forward is None else Kernels(forward=forward, backward=backward)


def _version_4(module: Any, major: int) -> Kernels | None:
    forward = _public(VERSION_4, module)
    run = import_module(f"{module.__name__}.interface")._flash_attn_bwd

    def backward(
        grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor,
        grads: tuple[Tensor, Tensor, Tensor], *lengths: Any,
    ) -> None:  # fmt: skip
        named = dict(zip(LENGTHS, lengths, strict=bool(lengths)))
        dq, dk, dv = grads
        run(
            q=query, k=key, v=value, out=out, dout=grad, lse=lse, dq=dq, dk=dk, dv=dv,
            softmax_scale=query.shape[-1] ** -0.5, **named,
        )  # fmt: skip

    # betas before the fifth refuse the backward pass of lengths on Hopper
    has_lengths = major >= 10
    if forward is None:
        return None
    return Kernels(forward=forward, backward=backward, has_lengths=has_lengths)


_KERNELS_OF: dict[str, Callable[[Any, int], Kernels | None]] = {
    VERSION_3: _version_3,
    VERSION_4: _version_4,
}


def _lengths(
    query_starts: Tensor | None, key_starts: Tensor | None, max_queries: int, max_keys: int
) -> tuple[Any, ...]:
    if query_starts is None:
        return ()
    return query_starts, key_starts, max_queries, max_keys


@torch.library.custom_op("eicorpus::flash_attention", mutates_args=())
def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernels: str,
    query_starts: Tensor | None = None,
    key_starts: Tensor | None = None,
    max_queries: int = 0,
    max_keys: int = 0,
) -> tuple[Tensor, Tensor]:
    """softmax(q k / sqrt(W)) v and lse, of [B, Q, H, W] and [B, K, H, W]; with starts [B + 1] int32, of rows [rows, H, W] that lie end to end.

    Args:
        kernels: name in `KERNELS`.

    Raises:
        KeyError: no kernels of that name.
    """
    lengths = _lengths(query_starts, key_starts, max_queries, max_keys)
    with record_function(REPORTED.get(kernels, kernels) if lengths else kernels):
        out, lse = KERNELS[kernels].forward(query, key, value, *lengths)
    return out.contiguous(), lse.contiguous()


@flash_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    *rows, heads, _width = query.shape
    batch, num = rows[:-1], rows[-1]
    lse = query.new_empty((*batch, heads, num), dtype=torch.float32)
    return query.new_empty((*query.shape[:-1], value.shape[-1])), lse


@torch.library.custom_op("eicorpus::flash_attention_backward", mutates_args=())
def flash_attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    kernels: str,
    query_starts: Tensor | None = None,
    key_starts: Tensor | None = None,
    max_queries: int = 0,
    max_keys: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value by that of the result. Rows after the last sequence get any number."""
    grads = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    lengths = _lengths(query_starts, key_starts, max_queries, max_keys)
    KERNELS[kernels].backward(grad, query, key, value, out, lse, grads, *lengths)
    return grads


@flash_attention_backward.register_fake
def _(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, ctx.kernels, query_starts, key_starts, *ctx.longest = inputs
    out, lse = output
    ctx.mark_non_differentiable(lse)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(query, key, value, out, lse, query_starts, key_starts)


def _grads(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 8
    *tensors, query_starts, key_starts = ctx.saved_tensors
    grads = flash_attention_backward(
        grad, *tensors, ctx.kernels, query_starts, key_starts, *ctx.longest
    )
    return (*grads, *(None,) * 5)


flash_attention.register_autograd(_grads, setup_context=_keep)


def _shapes(
    query: Tensor, key: Tensor, value: Tensor, starts: tuple[Tensor | None, Tensor | None], longest: tuple[int, int]
) -> list[tuple[tuple[int, ...], ...]]:  # fmt: skip
    """[B, H, L, W] of query, key and value: of each sequence apart, or of all at once."""
    query_starts, key_starts = starts
    if query_starts is None or key_starts is None:
        shapes = tuple(
            (x.shape[0], x.shape[2], x.shape[1], x.shape[3]) for x in (query, key, value)
        )
        return [shapes]
    num = len(query_starts) - 1
    lengths = [[most] * num for most in longest]
    if query_starts.device.type != "meta":
        lengths = [x.diff().tolist() for x in (query_starts, key_starts)]
    heads = [(x.shape[1], x.shape[2]) for x in (query, key, value)]
    return [
        tuple((1, h, n, w) for (h, w), n in zip(heads, (q, k, k), strict=True))
        for q, k in zip(*lengths, strict=True)
    ]


@register_flop_formula(torch.ops.eicorpus.flash_attention, get_raw=True)
def _flops(query: Tensor, key: Tensor, value: Tensor, kernels: str, query_starts: Tensor | None = None, key_starts: Tensor | None = None, max_queries: int = 0, max_keys: int = 0, *, out_val: Any = None) -> int:  # fmt: skip
    shapes = _shapes(query, key, value, (query_starts, key_starts), (max_queries, max_keys))
    return sum(sdpa_flop_count(*each) for each in shapes)  # type: ignore[no-untyped-call]


@register_flop_formula(torch.ops.eicorpus.flash_attention_backward, get_raw=True)
def _backward_flops(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, kernels: str, query_starts: Tensor | None = None, key_starts: Tensor | None = None, max_queries: int = 0, max_keys: int = 0, *, out_val: Any = None) -> int:  # fmt: skip
    shapes = _shapes(query, key, value, (query_starts, key_starts), (max_queries, max_keys))
    return sum(sdpa_backward_flop_count(q, q, k, v) for q, k, v in shapes)  # type: ignore[no-untyped-call]
