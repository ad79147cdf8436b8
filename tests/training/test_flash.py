"""FlashAttention 3 and 4 by stand-ins that note what they were given: there is no GPU here, and the true kernels were not run."""

from __future__ import annotations

import math
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.training import test_attend_text as of_text
from training.model.attention import (
    PACKAGES,
    WIDEST,
    Flash,
    attend,
    flash_kernel,
    kernels_of,
    varlen_kernel,
)

B, H, L, W = 2, 3, 5, 8
FA3, FA4 = PACKAGES


def given() -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, B, H, L, W, generator=g).unbind()
    return query.requires_grad_(), key.requires_grad_(), value.requires_grad_()


class Package(ModuleType):
    """`flash_attn_func` of [B, L, H, W], by plain sums; `is_tuple` as FA4 and early FA3 answer."""

    def __init__(self, name: str, *, is_tuple: bool = False) -> None:
        super().__init__(name)
        self.is_tuple, self.shapes = is_tuple, list[tuple[int, ...]]()

    def flash_attn_func(self, q: Tensor, k: Tensor, v: Tensor) -> Any:
        assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
        self.shapes += [tuple(x.shape) for x in (q, k, v)]
        logits = torch.einsum("bqhw,bkhw->bhqk", q, k) / math.sqrt(q.shape[-1])
        out = torch.einsum("bhqk,bkhw->bqhw", logits.softmax(dim=-1), v)
        return (out, logits.logsumexp(dim=-1)) if self.is_tuple else out

    def flash_attn_varlen_func(
        self, q: Tensor, k: Tensor, v: Tensor, *places: Any,
        cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int, max_seqlen_k: int,
    ) -> Any:  # fmt: skip
        """By loops; after the last sequence its gradient is what was in memory. `places`: other things than in version 3, in 4."""
        assert not places
        starts, longest = [cu_seqlens_q, cu_seqlens_k], [max_seqlen_q, max_seqlen_k]
        self.shapes += [tuple(x.shape) for x in (q, k, v)]
        for x, most in zip(starts, longest, strict=True):
            assert x.dtype == torch.int32
            assert int(x.diff().max()) <= most
        out: Tensor = of_text.Loops.apply(q, k, v, *starts, *longest)  # type: ignore[no-untyped-call]
        return (out, out.logsumexp(dim=-1)) if self.is_tuple else out


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A GPU by its word, none of the packages; without torch's compiler, whose import takes longer than all of this."""
    monkeypatch.setattr(torch.compiler, "disable", lambda run: run)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    for module, _ in PACKAGES.values():
        monkeypatch.setitem(sys.modules, module, None)
    return monkeypatch


def installed(patch: pytest.MonkeyPatch, name: str, *, is_tuple: bool = False) -> Package:
    module = PACKAGES[name][0]
    made = Package(module, is_tuple=is_tuple)
    patch.setitem(sys.modules, module, made)
    return made


@pytest.mark.parametrize(("name", "is_tuple"), [(FA3, False), (FA3, True), (FA4, False), (FA4, True)])  # fmt: skip
def test_a_package_is_asked_in_its_layout_and_answers_in_ours(
    hopper: pytest.MonkeyPatch, name: str, is_tuple: bool
) -> None:
    """Heads and tokens differ in number: who confuses them is found out. Values and gradients are those of SDPA, and the report has the name."""
    package = installed(hopper, name, is_tuple=is_tuple)
    hopper.setattr(Flash, "takes", lambda self, query: True)  # here they are on a CPU
    flash = flash_kernel()
    assert flash is not None
    wanted = attend(*(wanted_leaves := given()))
    leaves, found = given(), list[Tensor]()
    assert kernels_of(lambda: found.append(attend(*leaves, flash=flash))) == {name: 1}
    assert package.shapes == [(B, L, H, W)] * 3
    torch.testing.assert_close(found[0], wanted)
    weights = torch.linspace(-1, 1, wanted.numel()).view_as(wanted)
    grads = [torch.autograd.grad((out * weights).sum(), of) for out, of in ((found[0], leaves), (wanted, wanted_leaves))]  # fmt: skip
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(("name", "is_tuple"), [(FA3, False), (FA3, True), (FA4, True)])
def test_text_of_any_length_goes_to_it_too(
    hopper: pytest.MonkeyPatch, name: str, is_tuple: bool
) -> None:
    """Values and gradients are those of a mask, and the report has the name."""
    hopper.setattr(torch.cuda, "get_device_capability", lambda: (9 if name == FA3 else 10, 0))
    package = installed(hopper, name, is_tuple=is_tuple)
    kernel = varlen_kernel()
    wanted = of_text.attended(*(wanted_leaves := of_text.given()))
    leaves, found = of_text.given(), list[Tensor]()
    ran = kernels_of(lambda: found.append(of_text.attended(*leaves, kernel)))
    assert ran == {f"varlen ({name})": 1}
    heads = (of_text.H, of_text.W)
    queries, texts = (wanted.numel() // math.prod(heads), *heads), (int(of_text.HAS.sum()), *heads)
    assert package.shapes == [queries, texts, texts]
    torch.testing.assert_close(found[0], wanted)
    weights = torch.linspace(-1, 1, wanted.numel()).view_as(wanted)
    grads = [torch.autograd.grad((out * weights).sum(), of) for out, of in ((found[0], leaves), (wanted, wanted_leaves))]  # fmt: skip
    torch.testing.assert_close(*grads, atol=1e-4, rtol=1e-4)


def test_without_a_package_text_goes_to_torch_and_else_to_version_2(
    hopper: pytest.MonkeyPatch,
) -> None:
    """Of version 4 alone `flash_attn` is a folder without functions."""
    from torch.nn.attention.varlen import varlen_attn

    assert varlen_kernel() is varlen_attn
    hopper.setitem(sys.modules, "torch.nn.attention.varlen", None)
    for second in (None, ModuleType("flash_attn")):
        hopper.setitem(sys.modules, "flash_attn", second)
        assert varlen_kernel() is None
    second = Package("flash_attn")
    hopper.setitem(sys.modules, "flash_attn", second)
    assert varlen_kernel() == second.flash_attn_varlen_func


@pytest.mark.parametrize("major", [9, 10])
def test_a_version_4_without_a_way_back_is_not_asked_for_text(
    hopper: pytest.MonkeyPatch, major: int
) -> None:
    """Young releases on Hopper; on any GPU, the one that flash-attn 2.8.3 brings, whose function has other arguments."""
    hopper.setattr(torch.cuda, "get_device_capability", lambda: (major, 0))
    package = installed(hopper, FA4)
    if major == 10:
        hopper.setattr(package, "flash_attn_varlen_func", lambda q, k, v, cu_seqlens_q: q)
    from torch.nn.attention.varlen import varlen_attn

    assert varlen_kernel() is varlen_attn
    assert flash_kernel() is not None


def test_what_a_kernel_cannot_take_goes_to_torch(hopper: pytest.MonkeyPatch) -> None:
    """A mask; a CPU; single precision; heads too wide or not of whole eights."""
    package = installed(hopper, FA3)
    flash = flash_kernel()
    assert flash is not None
    query, key, value = given()
    attend(query.bfloat16(), key.bfloat16(), value.bfloat16(), flash=flash)
    hopper.setattr(Flash, "takes", lambda self, query: True)
    attend(query, key, value, torch.ones(1, L, dtype=torch.bool), flash=flash)
    assert package.shapes == []
    hopper.undo()
    with FakeTensorMode():
        for width, dtype, is_taken in (
            (48, torch.bfloat16, True),
            (WIDEST, torch.float16, True),
            (WIDEST + 8, torch.bfloat16, False),
            (44, torch.bfloat16, False),
            (64, torch.float32, False),
        ):
            on_gpu = torch.empty(B, H, L, width, dtype=dtype, device="cuda")
            assert flash.takes(on_gpu) is is_taken, (width, dtype)


def test_which_package_is_taken(hopper: pytest.MonkeyPatch) -> None:
    """None installed, one, both; another GPU; no GPU."""
    assert flash_kernel() is None

    def name() -> str | None:
        found = flash_kernel()
        return None if found is None else found.name

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
