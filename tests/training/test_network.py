"""What the network must keep: nobody else's sample, nobody's padding, only one's own embodiment, and the identity at first."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from schemas.supervision import Task
from tests.training.tiny import SETTINGS, batch, network, noise_of
from training.model.attention import attend, kernels_of
from training.model.block import Block
from training.model.network import Conditions, num_parameters
from training.model.positions import rotate, rotations, timestep_features, token_places
from training.model.settings import ModelSettings
from training.tasks import INDEX

VARIANTS = [
    {},
    {"adaln": "shared"},
    {"text_kv": "shared"},
    {"positions": "rope", "num_heads": 4},
    {"num_views": 2},
    {"state_width": 3},
    {"gates": "one"},
]


def permuted(known: Conditions, order: torch.Tensor) -> Conditions:
    fields = {name: getattr(known, name) for name in Conditions.__slots__}
    return Conditions(**{name: None if v is None else v[order] for name, v in fields.items()})


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_permuting_a_batch_permutes_its_outputs(variant: dict[str, object]) -> None:
    made = network(**variant)
    b = batch(s=made.settings)
    t, _, _ = noise_of(b)
    order = torch.tensor([2, 0, 3, 1])
    action, future = made(b.known, b.action, b.future, t)
    moved_action, moved_future = made(
        permuted(b.known, order), b.action[order], b.future[order], t[order]
    )
    torch.testing.assert_close(moved_action, action[order])
    torch.testing.assert_close(moved_future, future[order])


def test_what_is_padding_of_the_text_does_not_matter() -> None:
    made, b = network(), batch()
    t, _, _ = noise_of(b)
    before = made(b.known, b.action, b.future, t)
    nonsense = torch.where(b.known.has_text[..., None], b.known.text, 1e4)
    known = replace(b.known, text=nonsense)
    for was, now in zip(before, made(known, b.action, b.future, t), strict=True):
        torch.testing.assert_close(was, now)
    longer = replace(
        b.known,
        text=torch.cat([b.known.text, torch.full((4, 3, SETTINGS.text_width), 7.0)], dim=1),
        has_text=torch.cat([b.known.has_text, torch.zeros(4, 3, dtype=torch.bool)], dim=1),
    )
    for was, now in zip(before, made(longer, b.action, b.future, t), strict=True):
        torch.testing.assert_close(was, now)


def test_words_matter_and_a_sample_without_any_is_finite() -> None:
    made, b = network(), batch()
    t, _, _ = noise_of(b)
    all_words = replace(b.known, has_text=torch.ones_like(b.known.has_text))
    no_words = replace(b.known, has_text=torch.zeros_like(b.known.has_text))
    spoken, silent = made(all_words, b.action, b.future, t), made(no_words, b.action, b.future, t)
    assert all(found.isfinite().all() for found in silent)
    assert not torch.allclose(spoken[0], silent[0])


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
    task: Task, blind_action: bool, blind_future: bool
) -> None:
    made, b = network(), batch([INDEX[task]] * 4)
    t, _, _ = noise_of(b)
    action, future = b.action.clone().requires_grad_(), b.future.clone().requires_grad_()
    sum(found.square().sum() for found in made(b.known, action, future, t)).backward()
    assert action.grad is not None
    assert future.grad is not None
    assert (action.grad.abs().sum() == 0) == blind_action
    assert (future.grad.abs().sum() == 0) == blind_future


def test_only_the_embodiments_of_a_batch_are_touched() -> None:
    made, b = network(), batch()
    known = replace(b.known, embodiment=torch.tensor([1, 1, 1, 1]))
    t, _, _ = noise_of(b)
    sum(found.square().sum() for found in made(known, b.action, b.future, t)).backward()
    for bank in (made.action_in.own, made.action_out.own):
        assert bank.weight.grad is not None
        assert bank.weight.grad[1].any()
        assert not bank.weight.grad[[0, 2]].any()


def test_an_embodiment_without_a_layer_is_refused() -> None:
    made, b = network(), batch()
    t, _, _ = noise_of(b)
    with pytest.raises(IndexError):
        made(replace(b.known, embodiment=torch.tensor([0, 1, 2, 3])), b.action, b.future, t)


@pytest.mark.parametrize("variant", [{}, {"adaln": "shared"}, {"positions": "rope"}], ids=str)
def test_every_block_starts_as_the_identity(variant: dict[str, object]) -> None:
    made = network(awake=False, **variant)
    streams = [torch.randn(2, 7, 32), torch.randn(2, 8, 32)]
    condition = torch.randn(2, 32)
    shared = None if made.shared_modulation is None else made.shared_modulation(condition)
    text, has_text = torch.randn(2, 4, 10), torch.ones(2, 4, dtype=torch.bool)
    angle = None if made.places is not None else rotations(made.grid, 8)
    for block in made.blocks:
        for was, now in zip(
            streams, block(streams, condition, shared, text, has_text, angle), strict=True
        ):
            assert torch.equal(was, now)


def test_gates_of_one_are_not_the_identity() -> None:
    made = network(awake=False, gates="one")
    streams = [torch.randn(2, 7, 32), torch.randn(2, 8, 32)]
    found = made.blocks[0](
        streams,
        torch.randn(2, 32),
        None,
        torch.randn(2, 4, 10),
        torch.ones(2, 4, dtype=torch.bool),
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
        found = kernels_of(lambda: made(b.known, b.action, b.future, t))
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
