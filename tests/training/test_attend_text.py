"""Cross-attention to text of a length of its own: the packed path against plain loops and against the masked one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as fn
from torch.utils.flop_counter import FlopCounterMode

from tests.training.tiny import SETTINGS, batch, network, noise_of
from training.conditioning.hashed_words import WordsConditioner, WordsReader
from training.conditioning.inputs import TextInputs
from training.loss import loss_of
from training.model import network as network_module
from training.model.attention import Varlen, kernels_of, varlen_kernel
from training.model.text import (
    Text,
    TextLayout,
    Words,
    attend_text,
    equal_lengths,
    is_for_varlen,
    keys_and_values,
    padded,
    words_of,
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
    rows, layout = key_value[has], TextLayout(num_tokens=HAS.sum(1).numpy(), text_of=np.arange(B))
    if varlen is None:
        place, is_token = (torch.from_numpy(x) for x in layout.rows_of_texts())
        words = Words(rows, rows[:0], place, has=is_token)
    else:
        starts = torch.tensor([*layout.starts(), layout.num_rows], dtype=torch.int32)
        place = torch.arange(layout.num_rows, device=query.device)
        words = Words(rows, rows[:0], place, starts=starts.to(query.device), longest=T)
    return attend_text(query, fn.embedding(words.place, rows), words, H, varlen)


def by_loops(query: Tensor, key_value: Tensor) -> Tensor:
    """[B * R, Q, H * W], one query at a time."""
    out = torch.empty_like(query)
    for draw in range(B * R):
        stderr = key_value[draw // R][HAS[draw // R]]
        for h in range(H):
            mine, its = slice(h * W, (h + 1) * W), slice((H + h) * W, (H + h + 1) * W)
            for q in range(Q):
                logits = torch.stack([query[draw, q, mine] @ x for x in stderr[:, mine]])
                weights = torch.softmax(logits / math.sqrt(W), dim=0)
                out[draw, q, mine] = sum(
                    w * x for w, x in zip(weights, stderr[:, its], strict=True)
                )
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
            actual = torch.autograd.grad(Loops.attended(*saved, *ctx.starts), saved, grad)
        for x in actual[1:]:
            x[ctx.starts[1][-1] :] = math.nan
        return (*actual, None, None, None, None)


SHARED = TextLayout(num_tokens=np.array([2, 0, 3]), text_of=np.array([2, 0, 2, 1]))


def test_where_tokens_lie() -> None:
    """By hand: row 0 is the token of our own, rows 1 and 2 are of the first text, 3 to 5 of the third; two samples have it."""
    values, own = torch.zeros(5, 3), torch.zeros(1, 3)
    packed = words_of(values, own, SHARED, is_packed=True)
    assert packed.place.tolist() == [0, 3, 4, 5, 0, 1, 2, 0, 3, 4, 5, 0]
    assert packed.starts is not None
    assert packed.starts.tolist() == [0, 4, 7, 11, 12]
    assert packed.starts.dtype == torch.int32
    assert packed.longest == 64
    beside = words_of(values, own, SHARED, is_packed=False)
    assert beside.has is not None
    assert beside.place[beside.has].tolist() == packed.place.tolist()
    assert beside.has.int().sum(dim=1).tolist() == [4, 3, 4, 1]


def test_some_samples_take_their_texts_alone() -> None:
    tokens, texts = torch.arange(5), torch.tensor([7, 8, 9])
    inputs = TextInputs(layout=SHARED, by_token={"n": tokens}, by_text={"t": texts})
    part = inputs.of_samples(slice(1, 3))
    assert part.by_token["n"].tolist() == [0, 1, 2, 3, 4]
    assert part.by_text["t"].tolist() == [7, 9]
    assert part.layout.num_tokens.tolist() == [2, 3]
    assert part.layout.text_of.tolist() == [0, 1]
    (last,) = [inputs.of_samples(slice(3, 4))]
    assert last.by_token["n"].tolist() == []
    assert last.layout.num_tokens.tolist() == [0]
    assert inputs.of_samples(slice(0, 4)).by_token["n"] is tokens  # all texts: nothing is copied


def test_each_sample_has_its_own_copy_where_they_are_padded() -> None:
    values = torch.arange(1.0, 11).view(5, 2)
    each = padded(Text(values=values, layout=SHARED))
    assert each.has.int().tolist() == [[1, 1, 1], [1, 1, 0], [1, 1, 1], [0, 0, 0]]
    assert torch.equal(each.values[0], values[2:])
    assert torch.equal(each.values[1, :2], values[:2])
    assert not each.values[~each.has].any()


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


def of_all_rows(text: Text, own: Tensor) -> Words:
    """The layout of before: keys of all B x T rows, equal texts and padding included, and a mask."""
    each = padded(text)
    batch, num = each.has.shape
    own_place = torch.zeros(batch, 1, dtype=torch.long)
    place = torch.cat([own_place, 1 + torch.arange(batch * num).view(batch, num)], dim=1)
    has = torch.cat([torch.ones(batch, 1, dtype=torch.bool), each.has], dim=1)
    values = fn.layer_norm(each.values.flatten(0, 1), each.values.shape[-1:])
    return Words(values, own, place, has=has)


@pytest.mark.parametrize("how", [{}, {"text_kv": "shared"}, {"num_layers": 1}], ids=str)
@pytest.mark.parametrize("is_packed", [False, True])
def test_distinct_rows_say_what_all_rows_said(
    how: dict[str, Any], is_packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both paths: the loss, and the gradients of weights, of what stands for no text and of hashed words, of which some are in two texts."""
    texts = ["open the box", "", "close the red box", "open the box"]
    inputs = WordsReader(num_buckets=64, num_words=5).of(texts)
    torch.manual_seed(0)
    conditioner = WordsConditioner(64, 5, 10)
    made, b = network(**how), batch()
    parameters = [*made.parameters(), *conditioner.parameters()]

    def loss_and_gradients() -> list[Tensor]:
        terms = loss_of(made, b, conditioner(inputs), *noise_of(b))
        return [terms.sums, *torch.autograd.grad(terms.sums.sum(), parameters)]

    def words_of_before(text: Text) -> Words:
        return of_all_rows(text, fn.layer_norm(made.no_text, (10,))[None])

    with monkeypatch.context() as patch:
        patch.setattr(made, "_text", words_of_before)
        wanted = loss_and_gradients()
    rows: list[int] = []
    made.blocks[0].text[0].register_forward_hook(lambda _, given, __: rows.append(len(given[0])))  # type: ignore[index, union-attr]
    if is_packed:
        monkeypatch.setattr(network_module, "is_for_varlen", lambda values, width: True)
        monkeypatch.setattr(network_module, "varlen_kernel", lambda width: Loops.apply)
    torch.testing.assert_close(loss_and_gradients(), wanted, atol=1e-4, rtol=1e-4)
    assert sorted(rows) == [1, 3 + 4]  # beside our own token, both texts with words once
    names = [name for name, _ in made.named_parameters()]
    assert all(x.any() for x in (wanted[1 + names.index("no_text")], *wanted[-2:]))


def test_samples_with_the_same_text_add_up_in_its_gradient() -> None:
    """Of a text that is trained: what each of three samples says of it alone."""
    made, b = network(), batch([0, 0, 0])
    values = torch.randn(2, SETTINGS.text_width, requires_grad=True)
    shared = TextLayout(num_tokens=np.array([2]), text_of=np.zeros(3, dtype=np.int64))
    apart = TextLayout(num_tokens=np.full(3, 2), text_of=np.arange(3))
    of_shared = loss_of(made, b, Text(values=values, layout=shared), *noise_of(b))
    (once,) = torch.autograd.grad(of_shared.sums.sum(), [values])
    copies = values.detach().repeat(3, 1).requires_grad_()
    of_copies = loss_of(made, b, Text(values=copies, layout=apart), *noise_of(b))
    (each,) = torch.autograd.grad(of_copies.sums.sum(), [copies])
    torch.testing.assert_close(of_shared.sums, of_copies.sums)
    torch.testing.assert_close(once, each.view(3, 2, -1).sum(0))


def test_who_takes_text_without_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU in bf16, be it by autocast alone, in heads of a width that kernels have; no CPU."""
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

    kernel: Any = varlen_kernel(W)
    assert kernel is not None
    names = list(inspect.signature(kernel).parameters)[:7]
    assert names[:3] == ["query", "key", "value"]
    assert [name.split("_")[0] for name in names[3:]] == ["cu", "cu", "max", "max"]
    assert [name[-1] for name in names[3:]] == ["q", "k", "q", "k"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT RUN: no GPU")
def test_the_true_kernel_agrees_and_is_reported() -> None:
    query, stderr = (x.detach() for x in given(device="cuda", dtype=torch.bfloat16))
    actual: list[Tensor] = []
    ran = kernels_of(lambda: actual.append(attended(query, stderr, varlen_kernel(W))))
    assert any("varlen" in name for name in ran)
    exact = by_loops(query.float().cpu(), stderr.float().cpu())
    assert torch.allclose(actual[0].float().cpu(), exact, atol=3e-2)


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_token_of_our_own_is_made_once_and_frozen_text_gets_no_gradient(is_packed: bool) -> None:
    """Keys are those of the token written before each text, and the gradient of its row too; what is not trained is a leaf."""
    torch.manual_seed(0)
    heads, values, own = nn.Linear(5, 6, bias=False), torch.randn(5, 5), torch.randn(1, 5)
    text = {0: values[:2], 1: values[:0], 2: values[2:]}
    wanted = torch.cat([heads(torch.cat([own, text[n]])) for n in SHARED.text_of.tolist()])
    own.requires_grad_()
    made = words_of(values, own, SHARED, is_packed=is_packed)
    actual = keys_and_values(heads, made)
    actual = actual if made.has is None else actual[made.has]
    torch.testing.assert_close(actual, wanted)
    assert not made.values.requires_grad
    actual.sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(own.grad, 4 * heads.weight.sum(0)[None])


def test_no_product_of_a_step_is_of_the_gradient_of_frozen_text() -> None:
    """By counting of FLOPs: more text costs two products a token and block, its keys and values and the gradient of their weights."""
    made = network(text_kv="shared", num_layers=1)
    given = batch()

    def flops(num: int, *, is_trained: bool) -> int:
        values = torch.randn(4 * num, SETTINGS.text_width, requires_grad=is_trained)
        shown = Text(values=values, layout=equal_lengths(4, num))
        with FlopCounterMode(display=False) as counter:
            loss_of(made, given, shown, *noise_of(given)).sums.sum().backward()
        return int(counter.get_total_flops())

    of_keys = 2 * 4 * 4 * 10 * 2 * 32  # of four tokens more of four samples
    frozen = flops(9, is_trained=False) - flops(5, is_trained=False)
    trained = flops(9, is_trained=True) - flops(5, is_trained=True)
    assert trained - frozen == of_keys
