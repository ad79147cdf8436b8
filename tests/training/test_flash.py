"""FlashAttention 3 and 4 by stand-ins that note what they were given: there is no GPU here. Version 4 itself was run once on an H100 (docs/results/benchmarks.md).

The stand-ins have the arguments of the packages, by name and place, and their backward pass is the formula of the kernels: it takes the result
and the logarithm of the sums, not autograd.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.op_counts import OpCounts, counted
from tests.training import test_attend_text as of_text
from tests.training.running import ROOT
from tests.training.tiny import SETTINGS, batch, network, noise_of, text_of
from training.conditioning.hashed_words import NoTextConditioner
from training.learner import Learner
from training.loss import loss_of
from training.model import attention as attention_module
from training.model import kernel_check
from training.model import network as network_module
from training.model.attention import (
    PACKAGES,
    WIDEST,
    Flash,
    attend,
    flash_kernel,
    kernels_of,
    varlen_kernel,
)
from training.model.flash_attention import KERNELS, VERSION_3, VERSION_4, Kernels, flash_attention
from training.run.compile_blocks import prepare_blocks

B, H, L, W = 2, 3, 5, 8
FA3, FA4 = PACKAGES
STARTS = (torch.tensor([0, 2, 5, 9], dtype=torch.int32), torch.tensor([0, 1, 5, 7], dtype=torch.int32))  # fmt: skip
LENGTHS = (*STARTS, 4, 4)


def given(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, B, H, L, W, generator=g, dtype=dtype).unbind()
    return query.requires_grad_(), key.requires_grad_(), value.requires_grad_()


def logits_of(query: Tensor, key: Tensor) -> Tensor:
    return torch.einsum("...qhw,...khw->...hqk", query, key) / math.sqrt(query.shape[-1])


def forward(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Of [..., L, H, W], by plain sums."""
    logits = logits_of(query, key)
    out = torch.einsum("...hqk,...khw->...qhw", logits.softmax(dim=-1), value)
    return out, logits.logsumexp(dim=-1).float()


def backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    weights = (logits_of(query, key) - lse[..., None]).exp()
    change = torch.einsum("...qhw,...khw->...hqk", grad, value)
    change = change - (grad * out).sum(-1).transpose(-1, -2)[..., None]
    change = weights * change / math.sqrt(query.shape[-1])
    return (
        torch.einsum("...hqk,...khw->...qhw", change, key),
        torch.einsum("...hqk,...qhw->...khw", change, query),
        torch.einsum("...hqk,...qhw->...khw", weights, grad),
    )


def parts(starts_q: Tensor, starts_k: Tensor, longest: tuple[int, int]) -> Iterator[tuple[slice, slice]]:  # fmt: skip
    """Rows of queries and of keys, of each sequence."""
    for starts, most in zip((starts_q, starts_k), longest, strict=True):
        assert starts.dtype == torch.int32
        assert int(starts.diff().max()) <= most
    edges = [list(zip(x.tolist(), x.tolist()[1:], strict=False)) for x in (starts_q, starts_k)]
    for q, k in zip(*edges, strict=True):
        yield slice(*q), slice(*k)


def reference_forward(
    query: Tensor, key: Tensor, value: Tensor, *lengths: Any
) -> tuple[Tensor, Tensor]:
    if not lengths:
        return forward(query, key, value)
    out, lse = torch.zeros_like(query), query.new_zeros(query.shape[:2][::-1], dtype=torch.float32)
    for q, k in parts(*lengths[:2], lengths[2:]):
        out[q], lse[:, q] = forward(query[q], key[k], value[k])
    return out, lse


def reference_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor,
    grads: tuple[Tensor, Tensor, Tensor], *lengths: Any,
) -> None:  # fmt: skip
    """After the last sequence the gradient is whatever was in memory."""
    if not lengths:
        for mine, right in zip(grads, backward(grad, query, key, value, out, lse), strict=True):
            mine.copy_(right)
        return
    for mine, starts in zip(grads, (lengths[0], lengths[1], lengths[1]), strict=True):
        mine[int(starts[-1]) :] = math.nan
    for q, k in parts(*lengths[:2], lengths[2:]):
        right = backward(grad[q], query[q], key[k], value[k], out[q], lse[:, q])
        for mine, rows, x in zip(grads, (q, k, k), right, strict=True):
            mine[rows] = x


REFERENCE = Kernels(forward=reference_forward, backward=reference_backward)


class Package(ModuleType):
    """Public functions of [B, L, H, W] and of rows; `calls` are shapes of what they were given."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls = list[tuple[int, ...]]()

    def note(self, *tensors: Tensor) -> None:
        assert all(x.stride(-1) == 1 for x in tensors)
        self.calls += [tuple(x.shape) for x in tensors]


class Version3(Package):
    def flash_attn_func(self, q: Tensor, k: Tensor, v: Tensor, softmax_scale: None = None, causal: bool = False, return_attn_probs: bool = False) -> Any:  # fmt: skip
        self.note(q, k, v)
        return forward(q, k, v) if return_attn_probs else forward(q, k, v)[0]

    def flash_attn_varlen_func(
        self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int, max_seqlen_k: int,
        seqused_q: None = None, seqused_k: None = None, return_attn_probs: bool = False,
    ) -> Any:  # fmt: skip
        self.note(q, k, v)
        assert seqused_q is seqused_k is None
        assert return_attn_probs
        return reference_forward(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)

    def _flash_attn_backward(
        self, dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, softmax_lse: Tensor, cu_seqlens_q: Any, cu_seqlens_k: Any,
        sequed_q: None, sequed_k: None, max_seqlen_q: Any, max_seqlen_k: Any, dq: Tensor, dk: Tensor, dv: Tensor,
        softmax_scale: float, causal: bool, window_size: tuple[int, int] = (-1, -1),
    ) -> None:  # fmt: skip
        assert sequed_q is sequed_k is None
        assert causal is False
        assert softmax_scale == q.shape[-1] ** -0.5
        lengths = () if cu_seqlens_q is None else (cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)  # fmt: skip
        reference_backward(dout, q, k, v, out, softmax_lse, (dq, dk, dv), *lengths)


class Version4(Package):
    def flash_attn_func(self, q: Tensor, k: Tensor, v: Tensor, qv: None = None, gather_kv_indices: None = None, return_lse: bool = False) -> Any:  # fmt: skip
        self.note(q, k, v)
        assert qv is gather_kv_indices is None
        return (*forward(q, k, v)[:1], forward(q, k, v)[1] if return_lse else None)

    def flash_attn_varlen_func(
        self, q: Tensor, k: Tensor, v: Tensor, qv: None = None, cu_seqlens_q: Any = None, cu_seqlens_k: Any = None,
        max_seqlen_q: int | None = None, max_seqlen_k: int | None = None, return_lse: bool = False,
    ) -> Any:  # fmt: skip
        self.note(q, k, v)
        assert qv is None
        assert return_lse
        return reference_forward(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)

    def _flash_attn_bwd(
        self, q: Tensor, k: Tensor, v: Tensor, out: Tensor, dout: Tensor, lse: Tensor, softmax_scale: float | None = None,
        causal: bool = False, cu_seqlens_q: Any = None, cu_seqlens_k: Any = None, max_seqlen_q: Any = None, max_seqlen_k: Any = None,
        dq: Any = None, dk: Any = None, dv: Any = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        assert softmax_scale == q.shape[-1] ** -0.5
        lengths = () if cu_seqlens_q is None else (cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)  # fmt: skip
        reference_backward(dout, q, k, v, out, lse, (dq, dk, dv), *lengths)
        return dq, dk, dv


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A GPU by its word, none of the packages."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    for name, (module, _) in PACKAGES.items():
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setitem(KERNELS, name, REFERENCE)  # what is installed is forgotten afterwards
    monkeypatch.setattr(attention_module, "is_right", lambda *_, **__: True)
    return monkeypatch


def installed(patch: pytest.MonkeyPatch, name: str) -> Package:
    module = PACKAGES[name][0]
    made = {VERSION_3: Version3, VERSION_4: Version4}[name](module)
    patch.setitem(sys.modules, module, made)
    if name == VERSION_4:
        patch.setitem(sys.modules, f"{module}.interface", made)
    return made


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_is_asked_in_its_layout_and_answers_in_ours(
    hopper: pytest.MonkeyPatch, name: str
) -> None:
    """Heads and tokens differ in number: who confuses them is found out. Values and gradients are those of SDPA, and the report has the name."""
    package = installed(hopper, name)
    hopper.setattr(Flash, "takes", lambda self, query: True)  # here they are on a CPU
    flash = flash_kernel(W)
    assert flash is not None
    wanted = attend(*(wanted_leaves := given()))
    leaves, actual = given(), list[Tensor]()
    assert kernels_of(lambda: actual.append(attend(*leaves, flash=flash))) == {name: 1}
    assert package.calls == [(B, L, H, W)] * 3
    torch.testing.assert_close(actual[0], wanted)
    weights = torch.linspace(-1, 1, wanted.numel()).view_as(wanted)
    grads = [torch.autograd.grad((out * weights).sum(), of) for out, of in ((actual[0], leaves), (wanted, wanted_leaves))]  # fmt: skip
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("name", PACKAGES)
def test_text_of_any_length_goes_to_it_too(hopper: pytest.MonkeyPatch, name: str) -> None:
    """Values and gradients are those of a mask, and the report has the name."""
    hopper.setattr(torch.cuda, "get_device_capability", lambda: (9 if name == FA3 else 10, 0))
    package = installed(hopper, name)
    kernel = varlen_kernel(W)
    wanted = of_text.attended(*(wanted_leaves := of_text.given()))
    leaves, actual = of_text.given(), list[Tensor]()
    ran = kernels_of(lambda: actual.append(of_text.attended(*leaves, kernel)))
    assert ran == {f"varlen ({name})": 1}
    heads = (of_text.H, of_text.W)
    queries, texts = (wanted.numel() // math.prod(heads), *heads), (int(of_text.HAS.sum()), *heads)
    assert package.calls == [queries, texts, texts]
    torch.testing.assert_close(actual[0], wanted)
    weights = torch.linspace(-1, 1, wanted.numel()).view_as(wanted)
    grads = [torch.autograd.grad((out * weights).sum(), of) for out, of in ((actual[0], leaves), (wanted, wanted_leaves))]  # fmt: skip
    torch.testing.assert_close(*grads, atol=1e-4, rtol=1e-4)


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Flash:
    """The operator with kernels that run here."""
    monkeypatch.setitem(KERNELS, "reference", REFERENCE)
    monkeypatch.setattr(Flash, "takes", lambda self, query: True)
    return Flash(name="reference")


@pytest.mark.parametrize("lengths", [(), LENGTHS], ids=["dense", "varlen"])
def test_the_operator_is_what_torch_expects_of_one(
    reference: Flash, lengths: tuple[Any, ...]
) -> None:
    """Schema, shapes and strides without data, autograd, and its trace with dynamic shapes; in double precision, of inputs that are views."""
    g = torch.Generator().manual_seed(0)
    num = (9, 7) if lengths else (L, L + 1)
    shapes = [(*(() if lengths else (B,)), n, H, W) for n in (num[0], num[1], num[1])]
    leaves = [torch.randn(*x, generator=g, dtype=torch.double).requires_grad_() for x in shapes]
    key_value = torch.stack(leaves[1:], dim=-3).detach().requires_grad_()
    given = [leaves[0], *key_value.unbind(-3)]
    apart = [x.detach().requires_grad_() for x in given]  # of the same strides
    torch.library.opcheck(flash_attention, (*apart, reference.name, *lengths))
    out, lse = flash_attention(*given, reference.name, *lengths)
    assert not lse.requires_grad
    if not lengths:
        wanted = attend(*(x.transpose(1, 2) for x in given)).transpose(1, 2)
    else:
        each = [attend(*(x[rows].transpose(0, 1)[None] for x, rows in zip(given, (q, k, k), strict=True)))[0].transpose(0, 1) for q, k in parts(*STARTS, (4, 4))]  # fmt: skip
        wanted = torch.cat(each)
    torch.testing.assert_close(out, wanted)
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.double).view_as(out)
    grads = [torch.autograd.grad((x * weights).sum(), (leaves[0], key_value)) for x in (out, wanted)]  # fmt: skip
    torch.testing.assert_close(*grads, atol=1e-6, rtol=1e-6)


class Pass(nn.Module):
    """Gradients of a batch, its network with this kernel or with none."""

    def __init__(self, flash: Flash | None, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.made = network().train()
        if flash is not None:
            patch.setattr(network_module, "is_for_varlen", lambda values, width: True)
            patch.setattr(network_module, "flash_kernel", lambda width: flash)
            patch.setattr(network_module, "varlen_kernel", lambda width: flash.run_varlen)

    def grads(self) -> list[Tensor]:
        b = batch()
        loss_of(self.made, b, text_of(b), *noise_of(b)).sums.sum().backward()  # type: ignore[no-untyped-call]
        return [p.grad for p in self.made.parameters() if p.grad is not None]


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile's own look at leaves
@pytest.mark.parametrize("how", [False, "selective"])
def test_a_block_with_it_is_one_graph(
    reference: Flash, monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    """Joint attention and both texts are inside it; gradients are those of torch's own kernels. With "selective" too."""
    wanted = Pass(None, monkeypatch).grads()
    one = Pass(reference, monkeypatch)
    prepare_blocks(Learner(one.made, NoTextConditioner()), checkpointed=how, compiled=False)
    graphs: list[torch.fx.GraphModule] = []

    def kept(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    for block in one.made.blocks:
        block.compile(backend=kept if how is False else "aot_eager", fullgraph=True)
    torch.testing.assert_close(one.grads(), wanted, atol=1e-5, rtol=1e-4)
    if how is False:
        calls = [str(node.target) for node in graphs[0].graph.nodes]
        assert len(graphs) <= len(one.made.blocks)
        assert sum("eicorpus.flash_attention" in call for call in calls) == 3
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_nothing_of_a_block_is_outside_of_its_graph(
    reference: Flash, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Pass(reference, monkeypatch)
    seen: list[tuple[Any, ...]] = []
    block = one.made.blocks[0]
    block.register_forward_pre_hook(lambda _, given: seen.append(given))
    one.grads()
    block._forward_pre_hooks.clear()
    report = torch._dynamo.explain(block)(*seen[0])
    assert (report.graph_count, report.graph_break_count) == (1, 0), report.break_reasons
    torch._dynamo.reset()


def test_selective_keeps_its_result_and_full_does_not(
    reference: Flash, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counts(how: Any) -> OpCounts:
        one = Pass(reference, monkeypatch)
        prepare_blocks(Learner(one.made, NoTextConditioner()), checkpointed=how, compiled=False)
        return counted(one.grads)

    calls = 3 * SETTINGS.num_layers
    for how, again in ((False, 0), ("selective", 0), (True, calls)):
        by_op = counts(how).by_op
        assert by_op["flash_attention"] == calls + again, how
        assert by_op["flash_attention_backward"] == calls


def test_its_flops_are_counted(reference: Flash, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two products forwards and five backwards. Joint attention also on tensors without data; text by the lengths that there are, or where they are unknown by the longest."""

    def flops(run: Any) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        return int(counter.get_total_flops())

    def step(q: Tensor, k: Tensor, v: Tensor, *lengths: Any) -> None:
        flash_attention(q, k, v, reference.name, *lengths)[0].sum().backward()

    on_meta = [x.detach().to("meta").requires_grad_() for x in given()]
    turned = [x.detach().transpose(1, 2).requires_grad_() for x in on_meta]
    assert flops(lambda: step(*turned)) == 7 * 2 * B * H * L * L * W
    rows = [torch.ones(n, H, W, requires_grad=True) for n in (9, 7, 7)]
    assert flops(lambda: step(*rows, *LENGTHS)) == 7 * 2 * H * W * (2 * 1 + 3 * 4 + 4 * 2)
    unknown = [x.detach().to("meta").requires_grad_() for x in rows]
    on_meta_lengths = (*(x.to("meta") for x in STARTS), 4, 4)
    assert flops(lambda: step(*unknown, *on_meta_lengths)) == 7 * 2 * H * W * 3 * 4 * 4


def test_without_a_package_text_goes_to_torch_and_else_to_version_2(
    hopper: pytest.MonkeyPatch,
) -> None:
    """Of version 4 alone `flash_attn` is a folder without functions."""
    from torch.nn.attention.varlen import varlen_attn

    assert varlen_kernel(W) is varlen_attn
    hopper.setitem(sys.modules, "torch.nn.attention.varlen", None)
    for second in (None, ModuleType("flash_attn")):
        hopper.setitem(sys.modules, "flash_attn", second)
        assert varlen_kernel(W) is None
    second = Version3("flash_attn")
    hopper.setitem(sys.modules, "flash_attn", second)
    assert varlen_kernel(W) == second.flash_attn_varlen_func


def test_releases_without_what_a_backward_pass_needs_are_not_used(
    hopper: pytest.MonkeyPatch,
) -> None:
    """Of version 4: on Hopper, lengths; on any GPU, what flash-attn 2.8.3 brings of it. Of version 3: releases that do not return lse."""
    from torch.nn.attention.varlen import varlen_attn

    package = installed(hopper, FA4)
    assert varlen_kernel(W) is varlen_attn
    assert flash_kernel(W) == Flash(name=FA4)
    hopper.setattr(torch.cuda, "get_device_capability", lambda: (10, 0))
    assert getattr(varlen_kernel(W), "__self__", None) == Flash(name=FA4)
    hopper.setattr(package, "flash_attn_varlen_func", lambda q, k, v, cu_seqlens_q: q)
    assert flash_kernel(W) is None
    hopper.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    old = installed(hopper, FA3)
    assert flash_kernel(W) == Flash(name=FA3)
    hopper.setattr(old, "flash_attn_func", lambda q, k, v, softmax_scale=None: q)
    assert flash_kernel(W) is None


def test_what_a_kernel_cannot_take_goes_to_torch(hopper: pytest.MonkeyPatch) -> None:
    """A mask; a CPU; what the check of kernels is not of, single precision and fp16; heads too wide or not of whole eights."""
    package = installed(hopper, FA3)
    flash = flash_kernel(W)
    assert flash is not None
    query, key, value = given()
    attend(query.bfloat16(), key.bfloat16(), value.bfloat16(), flash=flash)
    hopper.setattr(Flash, "takes", lambda self, query: True)
    attend(query, key, value, torch.ones(1, L, dtype=torch.bool), flash=flash)
    assert package.calls == []
    hopper.undo()
    with FakeTensorMode():
        for width, dtype, is_taken in (
            (48, torch.bfloat16, True),
            (WIDEST, torch.bfloat16, True),
            (48, torch.float16, False),
            (WIDEST + 8, torch.bfloat16, False),
            (44, torch.bfloat16, False),
            (64, torch.float32, False),
        ):
            on_gpu = torch.empty(B, H, L, width, dtype=dtype, device="cuda")
            assert flash.takes(on_gpu) is is_taken, (width, dtype)


def test_which_package_is_taken(hopper: pytest.MonkeyPatch) -> None:
    """None installed, one, both; another GPU; no GPU."""
    assert flash_kernel(W) is None

    def name() -> str | None:
        actual = flash_kernel(W)
        return None if actual is None else actual.name

    installed(hopper, FA4)
    assert name() == FA4
    installed(hopper, FA3)
    assert name() == FA3
    for major, wanted in ((10, FA4), (8, None)):
        hopper.setattr(torch.cuda, "get_device_capability", lambda major=major: (major, 0))
        assert name() == wanted
    hopper.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    hopper.setattr(torch.cuda, "is_available", lambda: False)
    assert name() is None


def disagreement(kernels: Kernels, monkeypatch: pytest.MonkeyPatch, *, has_lengths: bool) -> str:
    """Of a stand-in, on a CPU."""
    monkeypatch.setitem(KERNELS, FA4, kernels)
    flash = Flash(name=FA4)
    run = flash.run_varlen if has_lengths else flash.run
    return kernel_check.problem_of(
        run, W, has_lengths=has_lengths, device="cpu", dtype=torch.float32
    )


@pytest.mark.parametrize("has_lengths", [False, True])
def test_a_kernel_that_computes_something_else_is_found_out(
    monkeypatch: pytest.MonkeyPatch, has_lengths: bool
) -> None:
    """As version 4 did on an H100: right values, and one gradient that is not. Or wrong values, none at all, no number."""
    assert disagreement(REFERENCE, monkeypatch, has_lengths=has_lengths) == ""
    names = ("query", "key", "value")
    for wrong, name in enumerate(names):

        def backward(*given: Any, wrong: int = wrong) -> None:
            reference_backward(*given)
            given[6][wrong].mul_(1.1)

        kernels = Kernels(forward=reference_forward, backward=backward)
        problem = disagreement(kernels, monkeypatch, has_lengths=has_lengths)
        assert problem == f"the relative error of its gradient of the {name} is 0.1"

    def no_number(*given: Any) -> tuple[Tensor, Tensor]:
        out, lse = reference_forward(*given)
        return out * math.nan, lse

    def refuses(*given: Any) -> tuple[Tensor, Tensor]:
        raise AssertionError("head_dim is not supported\nand more")

    for forward, wanted in ((no_number, "the relative error of its result is nan"), (refuses, "AssertionError: head_dim is not supported")):  # fmt: skip
        kernels = Kernels(forward=forward, backward=reference_backward)
        assert disagreement(kernels, monkeypatch, has_lengths=has_lengths).startswith(wanted)


def test_a_wrong_kernel_is_not_used_and_a_warning_says_so(hopper: pytest.MonkeyPatch) -> None:
    """Torch's text attention may be the wrong one, too: then text is padded. Each is checked once a width."""
    checked_widths = list[int]()

    def problem_of(attention: Any, width: int, **_: Any) -> str:
        checked_widths.append(width)
        return "the relative error of its gradient of the query is 1.1" if width == 48 else ""

    hopper.setattr(kernel_check, "problem_of", problem_of)
    hopper.setattr(attention_module, "is_right", kernel_check.is_right)
    kernel_check.is_right.cache_clear()
    installed(hopper, FA4)
    with pytest.warns(
        RuntimeWarning, match=r"flash-attn 4 is not used for heads of 48: .* 1\.1; another"
    ):
        assert flash_kernel(48) is None
    with pytest.warns(RuntimeWarning, match=r"varlen is not used for heads of 48"):
        assert varlen_kernel(48) is None
    assert flash_kernel(128) == flash_kernel(128) == Flash(name=FA4)
    assert flash_kernel(44) is None
    assert varlen_kernel(WIDEST + 8) is None
    assert checked_widths == [48, 48, 128]
    kernel_check.is_right.cache_clear()


def test_a_check_of_a_kernel_is_not_part_of_what_the_caller_counts(
    reference: Flash,
) -> None:
    """Under fake tensors, a count of FLOPs, another default device, no gradients and half precision."""

    def problem() -> str:
        return kernel_check.problem_of(
            reference.run, W, has_lengths=False, device="cpu", dtype=torch.float32
        )

    with FlopCounterMode(display=False) as counter, torch.device("meta"), torch.no_grad():
        assert problem() == ""
    assert counter.get_total_flops() == 0
    with FakeTensorMode(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert problem() == ""


@pytest.mark.parametrize("width", [8, 48, 64, WIDEST])
def test_half_precision_is_not_taken_for_a_mistake(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """PyTorch's own kernel in bf16, and half of what may be."""
    monkeypatch.setattr(kernel_check, "LARGEST_ERROR", 0.01)
    problem = kernel_check.problem_of(
        attend, width, has_lengths=False, device="cpu", dtype=torch.bfloat16
    )
    assert problem == ""


def test_no_memory_for_an_example_is_not_taken_for_a_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else ranks would use other kernels for the whole run."""

    def full(*given: Any) -> tuple[Tensor, Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    kernels = Kernels(forward=full, backward=reference_backward)
    with pytest.raises(torch.OutOfMemoryError):
        disagreement(kernels, monkeypatch, has_lengths=False)


def test_a_network_chooses_kernels_in_the_first_pass_that_they_take(
    reference: Flash, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, for all blocks. One that stays on a CPU asks for none, whatever GPU there is."""
    asked = list[int]()

    def flash_kernel_of(width: int) -> Flash:
        asked.append(width)
        return reference

    monkeypatch.setattr(network_module, "flash_kernel", flash_kernel_of)
    monkeypatch.setattr(network_module, "varlen_kernel", lambda width: reference.run_varlen)
    one = Pass(None, monkeypatch)
    one.grads()
    assert asked == []
    assert one.made.has_varlen is None
    monkeypatch.setattr(network_module, "is_for_varlen", lambda values, width: True)
    one.grads()
    one.grads()
    assert asked == [SETTINGS.head_width]
    assert {block.flash for block in one.made.blocks} == {reference}
    assert one.made.has_varlen
    monkeypatch.setattr(network_module, "varlen_kernel", lambda width: None)
    without = Pass(None, monkeypatch)
    without.grads()
    assert not without.made.has_varlen  # text is padded, and the pass takes place


def test_text_takes_the_next_kernel_where_the_first_is_wrong(hopper: pytest.MonkeyPatch) -> None:
    installed(hopper, FA3)
    names = list[str]()

    def is_right(attention: Any, name: str, width: int, *, has_lengths: bool) -> bool:
        names.append(name)
        return name != FA3

    hopper.setattr(attention_module, "is_right", is_right)
    assert varlen_kernel(W) is torch.nn.attention.varlen.varlen_attn
    assert names == [FA3, "torch.nn.attention.varlen"]


OPERATORS = """
from training.model import attention
from training.model.flash_attention import KERNELS, VERSION_3, Kernels
KERNELS[VERSION_3] = Kernels(forward=None, backward=None)
attention.installed = lambda: VERSION_3
names = [str(operator) for operator in attention.operators()]
assert any("varlen" in name for name in names), names
"""


def test_the_second_choice_has_an_operator_although_the_first_is_installed() -> None:
    """In a process that has imported neither: what is kept of a step is decided before either is chosen."""
    subprocess.run([sys.executable, "-c", OPERATORS], check=True, cwd=ROOT, timeout=300)


def test_a_mistake_in_long_or_in_mixed_texts_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins that are right for one short length, and for texts of one length."""

    def long_is_wrong(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attend(query, key, value) * (1.1 if query.shape[-2] > 300 else 1.0)

    def swapped(query: Tensor, key: Tensor, value: Tensor, *lengths: Any) -> Tensor:
        query_starts, key_starts, *most = lengths
        first, second = key_starts.diff().tolist()
        others = key_starts.new_tensor([0, second, first + second])
        out, _ = reference_forward(query, key, value, query_starts, others, *most)
        return out

    def problem(attention: Any, *, has_lengths: bool) -> str:
        return kernel_check.problem_of(
            attention, W, has_lengths=has_lengths, device="cpu", dtype=torch.float32
        )

    assert "error of its result is 0.1" in problem(long_is_wrong, has_lengths=False)
    assert "error of its result" in problem(swapped, has_lengths=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT RUN: no GPU")
@pytest.mark.parametrize("width", [48, 64, WIDEST])
def test_text_attention_of_torch_is_right_on_this_gpu(width: int) -> None:
    """FlashAttention's packages are not asked here: a run checks the one that is installed."""
    from torch.nn.attention.varlen import varlen_attn

    problem = kernel_check.problem_of(
        varlen_attn, width, has_lengths=True, device="cuda", dtype=torch.bfloat16
    )
    assert problem == ""
