"""Cross-attention to text of a length of its own: the packed path against plain loops and against the masked one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from tests.training.tiny import batch, network, noise_of, text_of
from training.loss import loss_of
from training.model import network as network_module
from training.model import text as text_module
from training.model.attention import Varlen, kernels_of, varlen_kernel
from training.model.network import Text
from training.model.text import (
    Words,
    attend_text,
    behind_own,
    end_to_end,
    is_for_varlen,
    keys_and_values,
)

B, R, H, Q, T, W = (
    3,
    2,
    2,
    4,
    5,
    8,
)  # samples, draws of each, heads, queries, tokens, width of a head
# filled up on the right, on the left, and with a hole; no two of a length
HAS = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 1, 1, 1], [1, 0, 1, 0, 1]]).bool()


def given(**like: Any) -> tuple[Tensor, Tensor]:
    """Queries of the draws of three samples, and keys and values of each sample's text."""
    g = torch.Generator().manual_seed(0)
    query = torch.randn(B * R, Q, H * W, generator=g)
    key_value = torch.randn(B, T, 2 * H * W, generator=g)
    key_value[~HAS] = 1e6  # whoever looks at it is found out
    return query.to(**like).requires_grad_(), key_value.to(**like).requires_grad_()


def attended(query: Tensor, key_value: Tensor, varlen: Varlen | None = None) -> Tensor:
    """As a block does it; its text is `key_value` itself."""
    has = HAS.to(key_value.device)
    words = Words(key_value, has) if varlen is None else end_to_end(key_value, has)
    return attend_text(query, words.values, words, H, varlen)


def by_loops(query: Tensor, key_value: Tensor) -> Tensor:
    """[B * R, Q, H * W], one query at a time."""
    out = torch.empty_like(query)
    for draw in range(B * R):
        told = key_value[draw // R][HAS[draw // R]]
        for h in range(H):
            mine, its = slice(h * W, (h + 1) * W), slice((H + h) * W, (H + h + 1) * W)
            for q in range(Q):
                logits = torch.stack([query[draw, q, mine] @ x for x in told[:, mine]])
                weights = torch.softmax(logits / math.sqrt(W), dim=0)
                out[draw, q, mine] = sum(w * x for w, x in zip(weights, told[:, its], strict=True))
    return out


class Loops(torch.autograd.Function):
    """What the kernels promise: rows past the last sequence are not read, and their gradient is whatever was in memory."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, *starts: Any) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.starts = starts[:2]
        return Loops.attended(query, key, value, *ctx.starts)

    @staticmethod
    def attended(query: Tensor, key: Tensor, value: Tensor, of_q: Tensor, of_k: Tensor) -> Tensor:
        out = []
        for n in range(len(of_q) - 1):
            q, k, v = query[of_q[n] : of_q[n + 1]], key[of_k[n] : of_k[n + 1]], value[of_k[n] : of_k[n + 1]]  # fmt: skip
            logits = torch.einsum("qhw,khw->hqk", q, k) / math.sqrt(q.shape[-1])
            weights = torch.softmax(logits, dim=-1)
            out.append(torch.einsum("hqk,khw->qhw", weights, v))
        return torch.cat(out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        saved = [x.detach().requires_grad_() for x in ctx.saved_tensors]
        with torch.enable_grad():
            found = torch.autograd.grad(Loops.attended(*saved, *ctx.starts), saved, grad)
        for x in found[1:]:
            x[ctx.starts[1][-1] :] = math.nan
        return (*found, None, None, None, None)


def test_where_tokens_lie_end_to_end() -> None:
    numbered = torch.arange(B * T).view(B, T, 1)
    rows, has, starts, *_ = end_to_end(numbered, HAS)
    assert starts is not None
    assert starts.tolist() == [0, 2, 6, 9]
    assert rows[:9].flatten().tolist() == [0, 1, 6, 7, 8, 9, 10, 12, 14]
    assert has.flatten().tolist() == [True] * 9 + [False] * 6
    assert starts.dtype == torch.int32


def test_padding_is_not_attended_wherever_it_is() -> None:
    expected = by_loops(*given())
    for kernel in (None, Loops.apply):
        assert torch.allclose(attended(*given(), kernel), expected, atol=1e-5)


def test_gradients_of_the_packed_path_are_those_of_the_masked_one() -> None:
    """Also where the kernel leaves garbage."""
    grads = []
    for kernel in (None, Loops.apply):
        leaves = given()
        out = attended(*leaves, kernel)
        seen = (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum()
        grads.append(torch.autograd.grad(seen, leaves))
    for masked, packed in zip(*grads, strict=True):
        assert torch.isfinite(packed).all()
        assert torch.allclose(masked, packed, atol=1e-4)


def test_a_mask_of_numbers_is_refused() -> None:
    _, values = given()
    with pytest.raises(TypeError, match="expected bool"):
        end_to_end(values, HAS.float())


def test_a_network_lays_its_text_end_to_end_once_and_says_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of all samples and blocks; and so do all its gradients, that of what stands for no text among them."""
    once: list[Words] = []

    def laid(values: Tensor, has: Tensor) -> Words:
        once.append(end_to_end(values, has))
        return once[-1]

    def gradients() -> list[Tensor]:
        terms = loss_of(made, b, text_of(b), *noise_of(b))
        return list(torch.autograd.grad(terms.sums.sum(), list(made.parameters())))

    made, b = network(), batch()
    masked = gradients()
    assert not once
    monkeypatch.setattr(network_module, "is_for_varlen", lambda values, width: True)
    monkeypatch.setattr(text_module, "end_to_end", laid)
    for block in made.blocks:
        block.varlen = Loops.apply  # type: ignore[assignment]
    torch.testing.assert_close(gradients(), masked, atol=1e-4, rtol=1e-4)
    assert len(once) == 1


def test_who_takes_text_without_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU in half precision, be it by autocast alone, in heads of a width that kernels have; no CPU."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        assert not is_for_varlen(torch.empty(B, T, W, dtype=dtype), W)
    with FakeTensorMode():
        text = torch.empty(B, T, 3, device="cuda")
        assert not is_for_varlen(text, W)
        assert is_for_varlen(text.bfloat16(), W)
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
        monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.bfloat16)
        assert is_for_varlen(text, W)
        assert not is_for_varlen(text, W + 1)


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
    query, told = (x.detach() for x in given(device="cuda", dtype=torch.bfloat16))
    found: list[Tensor] = []
    ran = kernels_of(lambda: found.append(attended(query, told, varlen_kernel())))
    assert any("varlen" in name for name in ran)
    exact = by_loops(query.float().cpu(), told.float().cpu())
    assert torch.allclose(found[0].float().cpu(), exact, atol=3e-2)


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_token_of_our_own_is_made_once_and_frozen_text_gets_no_gradient(is_packed: bool) -> None:
    """Keys are those of the token written before each text, and the gradient of its row too; what is not trained is a leaf."""
    torch.manual_seed(0)
    heads, values, own = nn.Linear(5, 6, bias=False), torch.randn(len(HAS), 4, 5), torch.randn(1, 5)
    has = HAS[:, :4]
    before = torch.cat([own.expand(len(has), 1, 5), values], dim=1)
    padded = torch.cat([torch.ones(len(has), 1, dtype=torch.bool), has], dim=1)
    plain = end_to_end(before, padded) if is_packed else Words(before, padded)
    wanted = heads(plain.values)
    own.requires_grad_()
    made = behind_own(values, has, own, is_packed=is_packed)
    found = keys_and_values(heads, made)
    shown = made.has if is_packed else made.has[..., None]
    torch.testing.assert_close(torch.where(shown, found, 0.0), torch.where(shown, wanted, 0.0))
    assert torch.equal(made.has, plain.has)
    if is_packed:
        assert made.starts is not None
        assert plain.starts is not None
        assert torch.equal(made.starts, plain.starts)
    assert not made.values.requires_grad
    torch.where(shown, found, 0.0).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(own.grad, len(has) * heads.weight.sum(0)[None])


def test_no_product_of_a_step_is_of_the_gradient_of_frozen_text() -> None:
    """By counting of FLOPs: more text costs two products a token and block, its keys and values and the gradient of their weights."""
    made = network(text_kv="shared", num_layers=1)
    given = batch()
    few, many = (batch(num_text=num).text_inputs["values"] for num in (5, 9))

    def flops(values: torch.Tensor, *, is_trained: bool) -> int:
        shown = Text(
            values=values.clone().requires_grad_(is_trained),
            has=torch.ones(values.shape[:2], dtype=torch.bool),
        )
        with FlopCounterMode(display=False) as counter:
            loss_of(made, given, shown, *noise_of(given)).sums.sum().backward()
        return int(counter.get_total_flops())

    of_keys = 2 * 4 * 4 * 10 * 2 * 32  # of four tokens more of four samples
    frozen = flops(many, is_trained=False) - flops(few, is_trained=False)
    trained = flops(many, is_trained=True) - flops(few, is_trained=True)
    assert trained - frozen == of_keys
