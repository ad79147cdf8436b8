"""Who attends to whom in a block-causal sequence: against the four rules in words, worked out by plain loops."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch

from tests.training.causal_cases import SETTINGS
from training.causal.layout import FrameIndex, Tokens, drawn_blocks, training_layout
from training.causal.mask import block_mask, dense_mask, padded_length
from training.causal.settings import CausalObjective


@dataclass(frozen=True)
class Place:
    """What a token is, in words: of which sample, a frame or an action, of which chunk, and whether it is noisy."""

    sample: int
    is_action: bool
    chunk: int
    is_noisy: bool


def sees(a: Place, b: Place, window: int) -> bool:
    """Whether `a` sees `b`: the rules of `formats/exports.md` 2.3 as sentences, with no arithmetic of the product."""
    if a.sample == -1 or b.sample != a.sample:
        return False
    time_a = (a.chunk, a.is_action)  # of one chunk the frames come first
    time_b = (b.chunk, b.is_action)
    steps = sorted({(k, is_action) for k in range(99) for is_action in (False, True)})
    if abs(steps.index(time_a) - steps.index(time_b)) > window:
        return False
    if not a.is_noisy and b.is_noisy:  # what is known never looks at what is guessed
        return False
    if not a.is_noisy:  # the known looks at the known, now and before
        return time_b <= time_a
    if not b.is_noisy:  # a guess looks at what was known before it
        return time_b < time_a
    return time_a == time_b  # and at the rest of its own guess


def places(samples: list[tuple[int, int]], chunk: int) -> list[Place]:
    """Of a row of frames (sample, number): noisy frames, clean frames, noisy actions, clean actions."""
    out = []
    for is_action, is_noisy in ((False, True), (False, False), (True, True), (True, False)):
        each = SETTINGS.actions_per_frame if is_action else SETTINGS.num_video_tokens
        for sample, number in samples:
            out += [Place(sample, is_action, number // chunk, is_noisy)] * each
    return out


def dense(samples: list[tuple[int, int]], chunk: int, window: int) -> torch.Tensor:
    sample, frame = torch.tensor(samples).T
    index = FrameIndex(sample=sample[None], frame=frame[None])
    has_video = torch.ones(1, len(samples), SETTINGS.num_views, dtype=torch.bool)
    rows = torch.ones(1, len(samples), SETTINGS.actions_per_frame, dtype=torch.bool)
    tokens = training_layout(index, has_video, rows, rows, chunk, SETTINGS).tokens
    return dense_mask(tokens, tokens, window)[0]


def by_hand(samples: list[tuple[int, int]], chunk: int, window: int) -> torch.Tensor:
    seq = places(samples, chunk)
    return torch.tensor([[sees(a, b, window) for b in seq] for a in seq])


@pytest.mark.parametrize("num_frames", [1, 2, 3, 4])
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_the_mask_is_that_of_the_rules(num_frames: int, chunk: int) -> None:
    samples = [(0, f) for f in range(num_frames)]
    for window in (1, 2, 3, 4, 64):
        assert torch.equal(dense(samples, chunk, window), by_hand(samples, chunk, window))


def test_samples_of_one_row_and_padding_do_not_meet() -> None:
    samples = [(0, 0), (0, 1), (3, 0), (3, 1), (3, 2), (-1, 0)]
    mask = dense(samples, 2, 64)
    assert torch.equal(mask, by_hand(samples, 2, 64))
    padded = torch.tensor([each.sample == -1 for each in places(samples, 2)])
    assert not mask[padded].any()
    assert not mask[:, padded].any()


def test_the_window_counts_order_indices_of_which_a_chunk_has_two() -> None:
    """With w = 2 a frame sees the frames and actions of one chunk back, and nothing of two chunks back."""
    samples = [(0, f) for f in range(3)]
    mask, seq = dense(samples, 1, 2), places(samples, 1)
    last = seq.index(Place(0, is_action=False, chunk=2, is_noisy=False))
    visible = {
        (b.chunk, b.is_action) for b, sees_it in zip(seq, mask[last], strict=True) if sees_it
    }
    assert visible == {(2, False), (1, True), (1, False)}


def test_what_was_not_recorded_is_seen_by_nothing() -> None:
    index = FrameIndex(sample=torch.zeros(1, 2, dtype=torch.long), frame=torch.arange(2)[None])
    has_video = torch.ones(1, 2, 1, dtype=torch.bool)
    rows = torch.tensor([[[True, False], [True, True]]])
    tokens = training_layout(index, has_video, rows, rows, 1, SETTINGS).tokens
    mask = dense_mask(tokens, tokens, 64)[0]
    num_video = 2 * 2 * SETTINGS.num_video_tokens
    for absent in (num_video + 1, num_video + 4 + 1):  # row 1 of frame 0: noisy, clean
        assert not mask[absent].any()
        assert not mask[:, absent].any()


def test_flex_attention_is_given_the_same_rule() -> None:
    """Its rule is called for every pair, as its kernel does; blocks that it may skip hold no pair that is seen."""
    generator = torch.Generator().manual_seed(0)
    length = padded_length(130)
    assert length == 256
    tokens = Tokens(
        sample=torch.randint(-1, 2, (2, length), generator=generator),
        order=torch.randint(0, 9, (2, length), generator=generator),
        is_clean=torch.rand(2, length, generator=generator) < 0.5,
    )
    blocks = block_mask(tokens, tokens, 3)
    expected = dense_mask(tokens, tokens, 3)
    q, k = torch.meshgrid(torch.arange(length), torch.arange(length), indexing="ij")
    for row in range(2):
        b = torch.full_like(q, row)
        assert torch.equal(blocks.mask_mod(b, torch.zeros_like(q), q, k), expected[row])
    seen = expected.view(2, 2, 128, 2, 128).any(dim=4).any(dim=2)
    assert torch.equal(blocks.to_dense()[:, 0].bool() | seen, blocks.to_dense()[:, 0].bool())


def test_chunks_and_windows_are_uniform_and_the_same_for_a_step() -> None:
    objective = CausalObjective(chunk=(1, 4), window=(4, 64))
    draws = [drawn_blocks(objective, seed=3, step=step) for step in range(4000)]
    assert draws == [drawn_blocks(objective, seed=3, step=step) for step in range(4000)]
    for values, low, high in (([d.chunk for d in draws], 1, 4), ([d.window for d in draws], 4, 64)):
        counts = torch.bincount(torch.tensor(values))
        assert counts[:low].sum() == 0
        assert len(counts) == high + 1
        expected = len(draws) / (high - low + 1)
        chi_square = float(((counts[low:] - expected) ** 2 / expected).sum())
        assert chi_square < (high - low) + 5 * (2 * (high - low)) ** 0.5
    assert len(set(itertools.pairwise(draws))) > 500  # no step follows from the one before
