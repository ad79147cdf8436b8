"""Cross-attention to text of a length of its own: the packed path against plain loops and against the masked one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from training.model.attention import (
    attend_text,
    kernels_of,
    packed_rows,
    takes_varlen,
    varlen_kernel,
)

B, H, Q, T, W = 3, 2, 4, 5, 8
# filled up on the right, on the left, and with a hole; no two of a length
HAS = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 1, 1, 1], [1, 0, 1, 0, 1]]).bool()


def given(**like: Any) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    query = torch.randn(B, H, Q, W, generator=g)
    key, value = (torch.randn(B, H, T, W, generator=g) for _ in range(2))
    value[~HAS[:, None, :, None].expand_as(value)] = 1e6  # whoever looks at it is found out
    return tuple(x.to(**like).requires_grad_() for x in (query, key, value))  # type: ignore[return-value]


def by_loops(query: Tensor, key: Tensor, value: Tensor, has: Tensor) -> Tensor:
    """[B, H, Q, W], one query at a time."""
    out = torch.empty_like(query)
    for b in range(B):
        there = [t for t in range(T) if has[b, t]]
        for h in range(H):
            for q in range(Q):
                logits = torch.stack([query[b, h, q] @ key[b, h, t] for t in there]) / math.sqrt(W)
                weights = torch.softmax(logits, dim=0)
                out[b, h, q] = sum(w * value[b, h, t] for w, t in zip(weights, there, strict=True))
    return out


class Varlen(torch.autograd.Function):
    """What the kernels promise: rows past the last sequence are not read, and their gradient is whatever was in memory."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, *starts: Any) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.starts = starts[:2]
        return Varlen.loops(query, key, value, *ctx.starts)

    @staticmethod
    def loops(query: Tensor, key: Tensor, value: Tensor, of_q: Tensor, of_k: Tensor) -> Tensor:
        out = []
        for n in range(len(of_q) - 1):
            q, k, v = query[of_q[n] : of_q[n + 1]], key[of_k[n] : of_k[n + 1]], value[of_k[n] : of_k[n + 1]]  # fmt: skip
            weights = torch.softmax(torch.einsum("qhw,khw->hqk", q, k) / math.sqrt(W), dim=-1)
            out.append(torch.einsum("hqk,khw->qhw", weights, v))
        return torch.cat(out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        saved = [x.detach().requires_grad_() for x in ctx.saved_tensors]
        with torch.enable_grad():
            found = torch.autograd.grad(Varlen.loops(*saved, *ctx.starts), saved, grad)
        for x in found[1:]:
            x[ctx.starts[1][-1] :] = math.nan
        return (*found, None, None, None, None)


def test_where_tokens_lie_end_to_end() -> None:
    rows, has_row, starts = packed_rows(HAS)
    assert starts.tolist() == [0, 2, 6, 9]
    assert rows[:9].tolist() == [0, 1, 6, 7, 8, 9, 10, 12, 14]
    assert has_row.flatten().tolist() == [True] * 9 + [False] * 6
    assert starts.dtype == torch.int32


def test_padding_is_not_attended_wherever_it_is() -> None:
    query, key, value = given()
    expected = by_loops(query, key, value, HAS)
    assert torch.allclose(attend_text(query, key, value, HAS), expected, atol=1e-5)
    packed = attend_text(query, key, value, HAS, varlen=Varlen.apply)
    assert torch.allclose(packed, expected, atol=1e-5)


def test_gradients_of_the_packed_path_are_those_of_the_masked_one() -> None:
    """Also where the kernel leaves garbage."""
    grads = []
    for kernel in (None, Varlen.apply):
        leaves = given()
        out = attend_text(*leaves, HAS, varlen=kernel)
        seen = (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum()
        grads.append(torch.autograd.grad(seen, leaves))
    for masked, packed in zip(*grads, strict=True):
        assert torch.isfinite(packed).all()
        assert torch.allclose(masked, packed, atol=1e-4)


def test_a_mask_of_numbers_is_refused() -> None:
    with pytest.raises(TypeError, match="must be bool"):
        attend_text(*given(), HAS.float())


def test_a_cpu_takes_the_mask_even_in_half_precision() -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        assert not takes_varlen(given(dtype=dtype)[0])


def test_torch_brings_a_kernel_that_takes_what_it_is_given() -> None:
    """Its name and the order of its arguments; it runs only on a GPU."""
    import inspect

    kernel: Any = varlen_kernel()
    assert kernel is not None
    names = list(inspect.signature(kernel).parameters)[:7]
    assert names[:3] == ["query", "key", "value"]
    assert [name.split("_")[0] for name in names[3:]] == ["cu", "cu", "max", "max"]
    assert [name[-1] for name in names[3:]] == ["q", "k", "q", "k"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT RUN: no GPU")
def test_the_true_kernel_agrees_and_is_reported() -> None:
    query, key, value = (x.detach() for x in given(device="cuda", dtype=torch.bfloat16))
    has = HAS.cuda()
    found: list[Tensor] = []
    ran = kernels_of(lambda: found.append(attend_text(query, key, value, has, varlen_kernel())))
    assert any("varlen" in name for name in ran)
    exact = by_loops(query.float(), key.float(), value.float(), has)
    assert torch.allclose(found[0].float(), exact, atol=3e-2)
