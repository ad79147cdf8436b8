"""The block-causal network: what depends on what, several lengths at once, and how large the paper's is."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.training.causal_cases import SETTINGS, inputs, network, text
from training.causal.layout import FrameIndex
from training.causal.network import CausalBlock, CausalInputs, CausalNetwork, known_before
from training.causal.settings import CausalModelSettings
from training.model.text import PaddedText, Text
from training.recipe import load_recipe


@pytest.mark.parametrize("chunk", [1, 2])
def test_a_noisy_chunk_hears_nothing_of_its_own_truth_or_of_later_ones(chunk: int) -> None:
    """The gradient is exactly 0, not small: nothing leads there."""
    model, made = network(), inputs(4, chunk=chunk)
    clean_video = made.clean_video.clone().requires_grad_()
    clean_action = made.clean_action.clone().requires_grad_()
    made = dataclasses.replace(made, clean_video=clean_video, clean_action=clean_action)
    video, action = model(made, text())
    for frame in range(4):
        k = frame // chunk
        of_video = torch.autograd.grad(
            video[:, frame].sum(), (clean_video, clean_action), retain_graph=True
        )
        of_action = torch.autograd.grad(
            action[:, frame].sum(), (clean_video, clean_action), retain_graph=True
        )
        first = k * chunk
        assert not of_video[0][:, first:].any()
        assert not of_video[1][:, first:].any()
        assert not of_action[0][:, first + chunk :].any()  # its actions see its frames
        assert not of_action[1][:, first:].any()
        assert of_action[0][:, first : first + chunk].any()
        if k:
            assert of_video[0][:, :first].any()
            assert of_video[1][:, :first].any()


def test_clean_tokens_hear_nothing_noisy() -> None:
    """What a cache keeps of a frame is the same whatever is denoised beside it."""
    model = network()
    kept = []
    for seed in (1, 2):
        other = inputs(3, seed=seed)
        made = dataclasses.replace(
            inputs(3), noisy_video=other.noisy_video, noisy_action=other.noisy_action
        )
        seen: list[torch.Tensor] = []
        block = model.blocks[1]
        assert isinstance(block, CausalBlock)
        hook = block.attention.key_norm.register_forward_hook(
            lambda m, i, o, keep=seen: keep.append(o)
        )
        model(made, text())
        hook.remove()
        num = 3 * SETTINGS.num_video_tokens
        kept.append(seen[0][:, num : 2 * num])
        assert not torch.equal(seen[0][:, :num], kept[0])
    assert torch.equal(*kept)


LENGTHS = (2, 4, 3)


def alone() -> tuple[list[CausalInputs], list[Text]]:
    return [inputs(n, seed=n) for n in LENGTHS], [text(seed=n) for n in LENGTHS]


def outputs_alone() -> list[tuple[torch.Tensor, torch.Tensor]]:
    model = network()
    return [model(each, words) for each, words in zip(*alone(), strict=True)]


def test_three_lengths_in_one_row_are_each_alone() -> None:
    """Packed end to end, with a frame of padding behind them."""
    samples, words = alone()

    def side_by_side(name: str) -> torch.Tensor:
        parts = [getattr(each, name) for each in samples]
        return torch.cat([*parts, torch.zeros_like(parts[0][:, :1])], dim=1)

    names = [f.name for f in dataclasses.fields(CausalInputs)]
    fields = {
        n: side_by_side(n) for n in names if n not in ("index", "text_sample", "chunk", "window")
    }
    numbers = torch.cat([torch.full((n,), s) for s, n in enumerate(LENGTHS)] + [torch.tensor([-1])])
    frames = torch.cat([torch.arange(n) for n in LENGTHS] + [torch.tensor([0])])
    packed = CausalInputs(
        index=FrameIndex(sample=numbers[None], frame=frames[None]),
        text_sample=torch.arange(3).repeat_interleave(3)[None],
        chunk=1,
        window=64,
        **fields,
    )
    both = PaddedText(
        values=torch.cat([w.values for w in words], dim=1),
        has=torch.cat([w.has for w in words], dim=1),
    )
    video, action = network()(packed, both)
    assert video.isfinite().all()
    first = 0
    for num, expected in zip(LENGTHS, outputs_alone(), strict=True):
        here = slice(first, first + num)
        torch.testing.assert_close(video[:, here], expected[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(action[:, here], expected[1], atol=1e-5, rtol=0)
        first += num


def test_three_lengths_in_three_rows_are_each_alone() -> None:
    """Padded to the longest, with numbers that mean nothing where there is nothing."""
    samples, words = alone()
    longest = max(LENGTHS)

    def stacked(name: str) -> torch.Tensor:
        parts = []
        for each in samples:
            x = getattr(each, name)
            more = torch.full((1, longest - x.shape[1], *x.shape[2:]), 7).to(x)
            parts.append(torch.cat([x, more], dim=1))
        return torch.cat(parts)

    names = [f.name for f in dataclasses.fields(CausalInputs)]
    skipped = ("index", "text_sample", "chunk", "window", "embodiment")
    fields = {n: stacked(n) for n in names if n not in skipped}
    frame = torch.arange(longest).expand(3, -1)
    is_own = frame < torch.tensor(LENGTHS)[:, None]
    padded = CausalInputs(
        index=FrameIndex(sample=torch.where(is_own, 0, -1), frame=frame),
        embodiment=torch.zeros(3, longest, dtype=torch.long),
        text_sample=torch.zeros(3, 3, dtype=torch.long),
        chunk=1,
        window=64,
        **fields,
    )
    both = PaddedText(
        values=torch.cat([w.values for w in words]), has=torch.cat([w.has for w in words])
    )
    video, action = network()(padded, both)
    assert video.isfinite().all()
    for row, (num, expected) in enumerate(zip(LENGTHS, outputs_alone(), strict=True)):
        torch.testing.assert_close(video[row : row + 1, :num], expected[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(action[row : row + 1, :num], expected[1], atol=1e-5, rtol=0)


def test_the_window_is_the_step_s() -> None:
    """Chunk 3 hears of the first frame with a window of 64, and not with one of 4: there is no way around over two blocks."""
    model = network(num_layers=1)
    for window, hears in ((64, True), (4, False)):
        made = inputs(4, window=window)
        clean = made.clean_video.clone().requires_grad_()
        video, _ = model(dataclasses.replace(made, clean_video=clean), text())
        gradient = torch.autograd.grad(video[:, 3].sum(), clean)[0]
        assert bool(gradient[:, 0].any()) is hears


def test_each_frame_hears_its_own_noise_level() -> None:
    model, made = network(), inputs(3)
    level = made.video_level.clone().requires_grad_()
    video, _ = model(dataclasses.replace(made, video_level=level), text())
    gradient = torch.autograd.grad(video[:, 1].sum(), level)[0]
    assert gradient[0, 1] != 0
    assert gradient[0, 0] == 0
    assert gradient[0, 2] == 0


def test_tokens_of_patches_go_back_where_they_came_from() -> None:
    """A head that says what the embedder was shown: latents in the order of views, rows, columns."""
    changed = {"patch": 2, "grid_height": 4, "grid_width": 2, "num_views": 2, "width": 48}
    model = CausalNetwork(SETTINGS.model_copy(update=changed))
    s = model.settings
    with torch.no_grad():
        model.video_in.weight.zero_()
        model.video_in.bias.zero_()
        model.video_in.weight[:12, :12] = torch.eye(12)
        model.video_out.weight.zero_()
        model.video_out.weight[:, :12] = torch.eye(12)
    latents = torch.arange(3 * 16.0 * 3).view(1, 3, 16, 3)
    tokens = model.embed_video(latents)
    assert tokens.shape == (1, 3 * s.num_video_tokens, 48)
    # the first token is the upper left two by two of the first view: latents 0, 1, 2, 3 of a grid two wide
    assert torch.equal(tokens[0, 0, :12], latents[0, 0, [0, 1, 2, 3]].flatten())
    assert torch.equal(
        tokens[0, 2, :12], latents[0, 0, [8, 9, 10, 11]].flatten()
    )  # the second view
    model._shifted = lambda x, plain, shifts: x  # type: ignore[method-assign, assignment]
    assert torch.equal(
        model.read_video(tokens, torch.zeros(1, 3, 48), latents, torch.ones(1, 3), latents), latents
    )


def test_the_large_recipe_is_as_large_as_its_widths_say() -> None:
    """Each matrix of Wan2.2-TI2V-5B written out, and our adapters, with no look at the network; and within 3 % of 5.0 B."""
    recipe = load_recipe("lingbot_va_5b")
    settings = CausalModelSettings(
        **recipe.architecture.model_dump(), num_embodiments=32, text_width=4096, latent_width=48
    )
    with torch.device("meta"):
        whole = sum(p.numel() for p in CausalNetwork(settings).parameters())
    d, ff, layers, text_width, features, adapter, elements, bodies = (
        3072, 14336, 30, 4096, 256, recipe.architecture.adapter_width, 172, 32,
    )  # fmt: skip
    projection = d * d + d
    attention = 4 * projection + 2 * d  # query, key, value, out; two norms
    block = 2 * attention + 2 * d + (d * ff + ff) + (ff * d + d) + 6 * d
    time = (features * d + d) + projection + (d * 6 * d + 6 * d)
    text_in = (text_width * d + d) + projection + text_width
    patch = 4 * 48
    video = (patch * d + d) + (d * patch + patch) + 2 * d
    action_in = bodies * (2 * elements * adapter + adapter) + (adapter * d + d) + projection
    action_out = (d * adapter + adapter) + bodies * (adapter * elements + elements) + 2 * d
    expected = layers * block + 2 * time + text_in + video + action_in + action_out
    assert whole == expected
    assert abs(whole / 5.0e9 - 1) < 0.03


@pytest.mark.parametrize("known_first", [True, False])
def test_what_is_known_before_a_chunk_is_its_last_clean_frame(*, known_first: bool) -> None:
    """Beside a loop: two samples in a row, the second of which begins in the middle."""
    number = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2], [0, 0, 1, 2, 3, 4, 5, 6]])
    sample = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1], [-1, 0, 0, 0, 0, 0, 0, 0]])
    i = inputs(8, 2, chunk=2, index=FrameIndex(sample=sample, frame=number))
    answer = known_before(i, known_first=known_first)
    for b in range(2):
        for f in range(8):
            if sample[b, f] < 0:
                continue
            chunk = int(number[b, f]) // 2
            if chunk:
                expected = i.clean_video[b, f - (int(number[b, f]) - 2 * chunk + 1)]
            else:
                expected = i.noisy_video[b, f - int(number[b, f])] * known_first
            assert torch.equal(answer[b, f], expected), (b, f)
