"""What the network must keep: nobody else's sample, nobody's padding, only one's own embodiment, and the identity at first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from schemas.supervision import Task
from tests.training.tiny import SETTINGS, batch, chosen, network, noise_of, text_of
from training.loss import loss_of
from training.model.attention import attend, kernels_of
from training.model.block import Block, rotate, rotations, timestep_features, token_places
from training.model.network import KnownInputs, Tap, num_parameters
from training.model.settings import ModelSettings
from training.model.text import Text, TextLayout, equal_lengths, words_of
from training.tasks import INDEX, TASKS

VARIANTS: list[dict[str, Any]] = [
    {},
    {"adaln": "shared"},
    {"text_kv": "shared"},
    {"positions": "rope", "num_heads": 4},
    {"num_views": 2},
    {"state_width": 3},
    {"image_readout": 4, "num_views": 2},
    {"gates": "one"},
    {"precondition": False},
]


def permuted(known: KnownInputs, order: torch.Tensor) -> KnownInputs:
    fields: dict[str, Any] = {name: getattr(known, name) for name in KnownInputs.__slots__}
    return KnownInputs(**{name: None if v is None else v[order] for name, v in fields.items()})


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_permuting_a_batch_permutes_its_outputs(variant: dict[str, Any]) -> None:
    made = network(**variant)
    b = batch(s=made.settings)
    t, _, _ = noise_of(b)
    order = torch.tensor([2, 0, 3, 1])
    text = text_of(b)
    action, future = made(b.known, text, b.action, b.has_action, b.future, t)
    moved = chosen(text, order.tolist())
    moved_action, moved_future = made(
        permuted(b.known, order),
        moved,
        b.action[order],
        b.has_action[order],
        b.future[order],
        t[order],
    )
    torch.testing.assert_close(moved_action, action[order])
    torch.testing.assert_close(moved_future, future[order])


def test_a_text_of_no_sample_does_not_matter() -> None:
    made, b = network(), batch()
    t, _, _ = noise_of(b)
    text = text_of(b)
    before = made(b.known, text, b.action, b.has_action, b.future, t)
    lengths = text.layout.num_tokens
    layout = TextLayout(num_tokens=np.append(lengths, 9), text_of=text.layout.text_of)
    longer = Text(values=torch.cat([text.values, torch.full((9, 10), 7.0)]), layout=layout)
    for was, now in zip(
        before, made(b.known, longer, b.action, b.has_action, b.future, t), strict=True
    ):
        torch.testing.assert_close(was, now)


def test_words_matter_and_a_sample_without_any_is_finite() -> None:
    made, b = network(), batch()
    t, _, _ = noise_of(b)
    none = Text(values=torch.zeros(0, SETTINGS.text_width), layout=equal_lengths(4, 0))
    spoken = made(b.known, text_of(b), b.action, b.has_action, b.future, t)
    silent = made(b.known, none, b.action, b.has_action, b.future, t)
    assert all(found.isfinite().all() for found in silent)
    assert not torch.allclose(spoken[0], silent[0])


@pytest.mark.parametrize("readout", [0, 3])
def test_a_view_that_is_not_there_does_not_matter(readout: int) -> None:
    made = network(num_views=2, image_readout=readout)
    b = batch(s=made.settings)
    t, _, _ = noise_of(b)
    half = torch.tensor([True, False]).expand(4, SETTINGS.num_past, 2)
    before = made(replace(b.known, has_past=half), text_of(b), b.action, b.has_action, b.future, t)
    wild = b.known.past.clone()
    wild[:, :, SETTINGS.num_patches :] = 1e4  # the second view's patches
    after = made(
        replace(b.known, has_past=half, past=wild), text_of(b), b.action, b.has_action, b.future, t
    )
    for was, now in zip(before, after, strict=True):
        torch.testing.assert_close(was, now)
    seen = torch.ones(4, SETTINGS.num_past, 2, dtype=torch.bool)
    assert not torch.allclose(
        before[0],
        made(replace(b.known, has_past=seen), text_of(b), b.action, b.has_action, b.future, t)[0],
    )


@pytest.mark.parametrize("readout", [0, 3])
def test_a_future_that_is_not_there_does_not_matter(readout: int) -> None:
    """Of the second of two views, in every task; the loss says so too."""
    made = network(num_views=2, image_readout=readout)
    b = replace(
        batch(s=made.settings), has_future=torch.tensor([True, False]).expand(len(TASKS), 2)
    )
    future, second = b.future.clone().requires_grad_(), SETTINGS.num_patches
    terms = loss_of(made, replace(b, future=future), text_of(b), *noise_of(b))
    terms.sums.sum().backward()
    assert future.grad is not None
    by_task = future.grad.abs().sum(2)
    assert (by_task[:, second:] == 0).all()
    assert (by_task[1:, :second].sum(1) > 0).all()  # who sees a future sees the first view's


@pytest.mark.parametrize("readout", [0, 3])
@pytest.mark.parametrize(
    ("task", "blind_action", "blind_future"),
    [
        (Task.POLICY, False, True),
        (Task.INVERSE_DYNAMICS, False, False),
        (Task.FORWARD_DYNAMICS, False, False),
        (Task.VISUAL_FORECASTING, True, False),
    ],
)
def test_a_placeholder_hides_what_it_stands_for(
    task: Task, blind_action: bool, blind_future: bool, readout: int
) -> None:
    made, b = network(image_readout=readout), batch([INDEX[task]] * 4)
    t, _, _ = noise_of(b)
    action, future = b.action.clone().requires_grad_(), b.future.clone().requires_grad_()
    sum(
        found.square().sum() for found in made(b.known, text_of(b), action, b.has_action, future, t)
    ).backward()
    assert action.grad is not None
    assert future.grad is not None
    assert (action.grad.abs().sum() == 0) == blind_action
    assert (future.grad.abs().sum() == 0) == blind_future


def test_a_readout_knows_the_places_of_what_it_sees() -> None:
    """From the first step on, a token that moves changes what every action of the chunk begins as."""
    made, b = network(image_readout=3), batch()
    t, _, _ = noise_of(b)
    known = replace(b.known, has_past=torch.ones_like(b.known.has_past))
    chunk = []
    for past in (known.past, known.past.flip(2)):
        channels = made._image_channels(replace(known, past=past), b.future, None)
        tokens = made._action_tokens(b.known, b.action, b.has_action, t, channels)
        chunk.append(tokens[:, -b.action.shape[1] :])
    change = (chunk[1] - chunk[0]).detach()
    assert change.abs().amax(-1).min() > 1e-3
    torch.testing.assert_close(change, change[:, :1].expand_as(change))


@pytest.mark.parametrize("task", [Task.POLICY, Task.FORWARD_DYNAMICS])
def test_an_action_that_nobody_saw_is_not_a_hand_at_rest(task: Task) -> None:
    made, b = network(), batch([INDEX[task]] * 4)
    t, _, _ = noise_of(b)
    text, rest = text_of(b), torch.zeros_like(b.action)
    seen, unseen = torch.ones_like(b.has_action), torch.ones_like(b.has_action)
    unseen[:, :, 3:] = False
    index = 0 if task is Task.POLICY else 1
    at_rest = made(b.known, text, rest, seen, b.future, t)[index]
    nobody = made(b.known, text, rest, unseen, b.future, t)[index]
    wild = made(b.known, text, torch.where(unseen, rest, 1e3), unseen, b.future, t)[index]
    assert not torch.allclose(at_rest, nobody)
    if (
        task is Task.FORWARD_DYNAMICS
    ):  # a policy's own velocity stands on its input too, where it is not scored
        torch.testing.assert_close(nobody, wild)


def test_only_the_embodiments_of_a_batch_have_a_gradient() -> None:
    made, b = network(), batch()
    known = replace(b.known, embodiment=torch.tensor([1, 1, 1, 1]))
    t, _, _ = noise_of(b)
    sum(
        found.square().sum()
        for found in made(known, text_of(b), b.action, b.has_action, b.future, t)
    ).backward()
    for bank in (made.action_in.own, made.action_out.own):
        assert bank.weight.grad is not None
        assert bank.weight.grad[1].any()
        assert not bank.weight.grad[[0, 2]].any()


def test_an_embodiment_without_a_layer_is_refused() -> None:
    made, b = network(), batch()
    t, _, _ = noise_of(b)
    with pytest.raises(IndexError):
        made(
            replace(b.known, embodiment=torch.tensor([0, 1, 2, 3])),
            text_of(b),
            b.action,
            b.has_action,
            b.future,
            t,
        )


@pytest.mark.parametrize("variant", [{}, {"adaln": "shared"}, {"positions": "rope"}], ids=str)
def test_every_block_starts_as_the_identity(variant: dict[str, Any]) -> None:
    made = network(awake=False, **variant)
    streams = [torch.randn(2, 7, 32), torch.randn(2, 8, 32)]
    condition = torch.randn(2, 32)
    shared = None if made.shared_modulation is None else made.shared_modulation(condition)
    words = words_of(torch.randn(8, 10), torch.randn(1, 10), equal_lengths(2, 4), is_packed=False)
    angle = None if made.places is not None else rotations(made.grid, 8)
    for block in made.blocks:
        for was, now in zip(streams, block(streams, condition, shared, words, angle), strict=True):
            assert torch.equal(was, now)


def test_gates_of_one_are_not_the_identity() -> None:
    made = network(awake=False, gates="one")
    streams = [torch.randn(2, 7, 32), torch.randn(2, 8, 32)]
    found = made.blocks[0](
        streams,
        torch.randn(2, 32),
        None,
        words_of(torch.randn(8, 10), torch.randn(1, 10), equal_lengths(2, 4), is_packed=False),
        None,
    )
    assert not torch.allclose(found[0], streams[0])


def test_a_mask_that_is_no_bool_is_refused() -> None:
    q = torch.randn(1, 2, 3, 4)
    with pytest.raises(TypeError, match="bool"):
        attend(q, q, q, torch.ones(1, 1, 1, 3))


def test_attention_by_hand() -> None:
    g = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2, 3, n, 4, generator=g) for n in (5, 7, 7))
    may = torch.rand(2, 1, 1, 7, generator=g) < 0.6
    may[..., 0] = True
    logits = (q @ k.transpose(-1, -2)) / 2.0
    wanted = logits.masked_fill(~may, -torch.inf).softmax(-1) @ v
    torch.testing.assert_close(attend(q, k, v, may), wanted)


def test_the_kernel_that_ran_is_told() -> None:
    made, b = network(), batch()
    t, _, _ = noise_of(b)
    with torch.no_grad():
        found = kernels_of(lambda: made(b.known, text_of(b), b.action, b.has_action, b.future, t))
    assert sum(found.values()) == 3 * SETTINGS.num_layers  # one joint, two to the text


def test_rotations_depend_on_distance_alone() -> None:
    places = token_places(4, 1, 0, 0)
    q, k = torch.randn(1, 1, 1, 8).expand(1, 1, 4, 8), torch.randn(1, 1, 1, 8).expand(1, 1, 4, 8)
    angle = rotations(places, 8)
    scores = (rotate(q, angle) @ rotate(k, angle).transpose(-1, -2))[0, 0]
    # patches 0 1 / 2 3 of a 2 x 2 grid: the same step gives the same score wherever it begins
    torch.testing.assert_close(scores[0, 1], scores[2, 3])
    torch.testing.assert_close(scores[0, 2], scores[1, 3])
    assert not torch.isclose(scores[0, 1], scores[0, 2])
    torch.testing.assert_close(rotate(q, angle).norm(dim=-1), q.norm(dim=-1))


def test_timesteps_by_hand() -> None:
    found = timestep_features(torch.tensor([0.0, 0.001]), 4)
    torch.testing.assert_close(found[0], torch.tensor([1.0, 1.0, 0.0, 0.0]))
    wanted = torch.tensor([1.0, 0.01])  # 1000 t times the rates 1 and 10000 ** -0.5
    torch.testing.assert_close(found[1], torch.cat([wanted.cos(), wanted.sin()]))


def test_a_block_of_full_size_has_the_parameters_of_ldas() -> None:
    """`models.md` 1.6, a block of 1536: AdaLN 28.3 M, joint attention 18.9 M, text 2 x 12.6 M, feed-forward 2 x 18.9 M."""
    with torch.device("meta"):
        block = Block(ModelSettings())
    assert num_parameters(block)["total"] / 1e6 == pytest.approx(
        28.3 + 18.9 + 2 * 12.6 + 2 * 18.9, abs=0.1
    )


def test_blocks_add_in_bf16_where_the_recipe_says_so() -> None:
    """Under autocast the stream is bf16 from block to block and the answer nearly that of fp32; in fp32 it is the same to the bit."""
    plain, half = network(), network(residual="bf16")
    b = batch()
    t, _, _ = noise_of(b)
    given = b.known, text_of(b), b.action, b.has_action, b.future, t
    for one, two in zip(plain(*given), half(*given), strict=True):
        assert torch.equal(one, two)
    taps = Tap(1), Tap(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = [made(*given, tap) for made, tap in zip((plain, half), taps, strict=True)]
    kinds = [tap.chunk.dtype for tap in taps if tap.chunk is not None]
    assert kinds == [torch.float32, torch.bfloat16]
    for one, two in zip(*found, strict=True):
        assert one.dtype == two.dtype
        assert (one - two).abs().max() < 0.05 * one.abs().max()
