"""A cached conversation against one that computes everything again for every step."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.causal_cases import SAMPLING, SETTINGS, inputs, network, text
from training.causal.layout import FrameIndex
from training.causal.network import CausalNetwork
from training.causal.sampler import CausalSampler, ChunkNoise, KnownFrames, PredictedChunk
from training.causal.settings import CausalSampling
from training.model.text import PaddedText

NUM_CHUNKS = 8
SHIFTS = (5.0, 0.7)  # of video and actions
ASKED = torch.tensor([True, True, False, True, True])


def rolled(model: CausalNetwork, sampling: CausalSampling = SAMPLING) -> CausalSampler:
    return CausalSampler(model, text(), 1, ASKED, sampling, *SHIFTS)


def episode(num_frames: int, seed: int = 3) -> KnownFrames:
    """Some actions and one view were not recorded."""
    made = inputs(num_frames, seed=seed)
    has_action = torch.ones(num_frames, 2, 5, dtype=torch.bool) & ASKED
    has_action[0] = False  # nothing led to the first frame
    return KnownFrames(
        latents=made.clean_video[0],
        has_video=made.has_video[0],
        action=torch.where(has_action, made.clean_action[0], 0.0),
        has_action=has_action,
    )


def part(known: KnownFrames, which: slice) -> KnownFrames:
    return KnownFrames(**{f.name: getattr(known, f.name)[which] for f in dataclasses.fields(known)})


def joined(one: KnownFrames, two: KnownFrames) -> KnownFrames:
    names = [f.name for f in dataclasses.fields(one)]
    return KnownFrames(**{n: torch.cat([getattr(one, n), getattr(two, n)]) for n in names})


def noise(chunk: int, size: int) -> ChunkNoise:
    g = torch.Generator().manual_seed(100 + chunk)
    s = SETTINGS
    return ChunkNoise(
        video=torch.randn(size, s.num_latents, s.latent_width, generator=g),
        action=torch.randn(size, s.actions_per_frame, s.action_width, generator=g),
    )


class Uncached:
    """The same conversation by whole forward passes of the training network, with its own Euler loop."""

    def __init__(self, model: CausalNetwork, sampling: CausalSampling) -> None:
        self.model, self.sampling = model, sampling

    def predict(self, past: KnownFrames | None, draw: ChunkNoise, known: int = 0, start: KnownFrames | None = None) -> PredictedChunk:  # fmt: skip
        """After `past`; the first `known` frames of the chunk are those of `start`."""
        size, s = self.sampling.chunk, self.sampling
        blank = KnownFrames(
            latents=draw.video,
            has_video=torch.ones(size, 1, dtype=torch.bool),
            action=draw.action,
            has_action=ASKED.expand(size, 2, 5).clone(),
        )
        frames = blank if past is None else joined(past, blank)
        x = draw.video.clone()
        for level, later in self.levels(s.video_steps, SHIFTS[0]):
            x = self.put(x, start, known)
            levels = torch.full((size,), level)
            levels[:known] = 0.0
            v = self.said(frames, "video", x, levels)
            x = x + (later - level) * v
        x = self.put(x, start, known)
        frames = dataclasses.replace(frames, latents=torch.cat([frames.latents[:-size], x]))
        a = draw.action * ASKED
        for level, later in self.levels(s.action_steps, SHIFTS[1]):
            v = self.said(frames, "action", a, torch.full((size,), level))
            a = (a + (later - level) * v) * ASKED
        if known and start is not None:
            a[:known] = start.action[:known]
        return PredictedChunk(latents=x, action=a, first_frame=len(frames.latents) - size)

    def put(self, x: Tensor, start: KnownFrames | None, known: int) -> Tensor:
        return x if start is None else torch.cat([start.latents[:known], x[known:]])

    def levels(self, num: int, shift: float) -> list[tuple[float, float]]:
        u = [1 - i / num for i in range(num + 1)]
        at = [shift * each / (1 + (shift - 1) * each) for each in u]
        return list(pairwise(at))

    def said(self, frames: KnownFrames, what: str, x: Tensor, level: Tensor) -> Tensor:
        size, num = len(x), len(frames.latents)
        guidance = {"video": self.sampling.video_guidance, "action": self.sampling.action_guidance}[
            what
        ]
        whole = torch.zeros(1, num)
        whole[0, -size:] = level
        noisy = {
            "video": torch.zeros_like(frames.latents),
            "action": torch.zeros_like(frames.action),
        }
        noisy[what][-size:] = x
        made = inputs(
            num,
            chunk=self.sampling.chunk,
            window=self.sampling.window,
            noisy_video=noisy["video"][None],
            noisy_action=noisy["action"][None],
            clean_video=frames.latents[None],
            clean_action=frames.action[None],
            has_video=frames.has_video[None],
            has_action=frames.has_action[None],
            shown=ASKED.expand(1, num, 2, 5),
            embodiment=torch.ones(1, num, dtype=torch.long),
            video_level=whole if what == "video" else torch.zeros(1, num),
            action_level=whole if what == "action" else torch.zeros(1, num),
            history_level=torch.zeros(1, num),
            index=FrameIndex(
                sample=torch.zeros(1, num, dtype=torch.long), frame=torch.arange(num)[None]
            ),
        )
        out = []
        words = text()
        for has in (words.has, torch.zeros_like(words.has)):
            video, action = self.model(made, PaddedText(values=words.values, has=has))
            out.append((video if what == "video" else action)[0, -size:])
        guided: Tensor = out[1] + guidance * (out[0] - out[1])
        return guided


@torch.no_grad()
@pytest.mark.parametrize(
    ("chunk", "head", "known_first"),
    [
        (1, "velocity", False),
        (2, "velocity", True),
        (2, "data", True),
        (1, "change", True),
        (2, "change", True),
        (2, "change", False),
    ],
)
def test_cached_is_uncached_while_all_is_observed(
    chunk: int, head: str, *, known_first: bool
) -> None:
    """8 chunks, each predicted and then observed; the window of 5 order indices is shorter than the episode."""
    objective = SETTINGS.objective.model_copy(update={"known_first": known_first})
    model = network(video_head=head, objective=objective)
    sampling = SAMPLING.model_copy(update={"chunk": chunk})
    truth, roller, whole = (
        episode(NUM_CHUNKS * chunk),
        rolled(model, sampling),
        Uncached(model, sampling),
    )
    for k in range(NUM_CHUNKS):
        known = part(truth, slice(0, 1)) if k == 0 else None
        draw = noise(k, chunk)
        cached = roller.predict(draw, known)
        past = part(truth, slice(0, k * chunk)) if k else None
        expected = whole.predict(past, draw, 1 if k == 0 else 0, known)
        assert cached.first_frame == k * chunk
        torch.testing.assert_close(cached.latents, expected.latents, atol=1e-5, rtol=0)
        torch.testing.assert_close(cached.action, expected.action, atol=1e-5, rtol=0)
        roller.observe(part(truth, slice(k * chunk, (k + 1) * chunk)))
        assert roller.cache.num_tokens <= (sampling.window + 1) * chunk * SETTINGS.num_video_tokens


@torch.no_grad()
def test_cached_is_uncached_over_predictions_and_one_observation() -> None:
    """What was predicted is looked at as if it were known: 3 chunks, one observation that drops them, and 8 more."""
    model = network()
    truth, roller, whole = episode(1), rolled(model), Uncached(model, SAMPLING)
    for k in range(3):
        roller.predict(noise(50 + k, 1), truth if k == 0 else None)
    roller.observe(truth)
    past = truth
    for k in range(1, 1 + NUM_CHUNKS):
        cached = roller.predict(noise(k, 1))
        expected = whole.predict(past, noise(k, 1))
        torch.testing.assert_close(cached.latents, expected.latents, atol=1e-5, rtol=0)
        torch.testing.assert_close(cached.action, expected.action, atol=1e-5, rtol=0)
        shown = KnownFrames(
            latents=expected.latents,
            has_video=torch.ones(1, 1, dtype=torch.bool),
            action=expected.action,
            has_action=ASKED.expand(1, 2, 5),
        )
        past = joined(past, shown)


def bits(roller: CausalSampler) -> list[Any]:
    return [
        (b.order, b.is_predicted, [(k.key, k.value) for k in b.keys]) for b in roller.cache.blocks
    ]


@torch.no_grad()
def test_nothing_of_a_prediction_is_left_after_an_observation() -> None:
    """Bit by bit the cache of one that never predicted, also where the window is full."""
    model, truth = network(), episode(6)
    one, other = rolled(model), rolled(model)
    for k in range(6):
        for ahead in range(3):
            one.predict(
                noise(10 * k + ahead, 1), part(truth, slice(0, 1)) if k == ahead == 0 else None
            )
        for roller in (one, other):
            roller.observe(part(truth, slice(k, k + 1)))
        assert [each[:2] for each in bits(one)] == [each[:2] for each in bits(other)]
        for a, b in zip(bits(one), bits(other), strict=True):
            for left, right in zip(a[2], b[2], strict=True):
                assert torch.equal(left[0], right[0])
                assert torch.equal(left[1], right[1])


@torch.no_grad()
def test_a_camera_that_is_not_there_is_not_predicted_either() -> None:
    """Its noise changes nothing of the other camera's frames, at the first chunk and after one was observed: a network never sees such noise in training."""
    model = network(num_views=2, sampling=SAMPLING)
    s = model.settings
    each = s.grid_height * s.grid_width
    truth = episode(2)
    seen = KnownFrames(
        latents=torch.cat([truth.latents, torch.zeros_like(truth.latents)], dim=1),
        has_video=torch.tensor([[True, False]] * 2),
        action=truth.action,
        has_action=truth.has_action,
    )
    answers = []
    for factor in (1.0, 3.0):
        roller = rolled(model, SAMPLING.model_copy(update={"chunk": 2}))
        g = torch.Generator().manual_seed(5)
        for k in range(2):
            video = torch.randn(2, s.num_latents, s.latent_width, generator=g)
            video[:, each:] *= factor
            draw = ChunkNoise(video=video, action=noise(k, 2).action)
            known = part(seen, slice(0, 1)) if k == 0 else None
            chunk = roller.predict(draw, known)
            answers.append(torch.cat([chunk.latents[:, :each].flatten(), chunk.action.flatten()]))
            if k == 0:
                roller.observe(seen)
    assert torch.equal(answers[0], answers[2])
    assert torch.equal(answers[1], answers[3])


@torch.no_grad()
def test_memory_is_bounded_by_the_window() -> None:
    roller = rolled(network())
    sizes = []
    for k in range(12):
        roller.observe(part(episode(12), slice(k, k + 1)))
        sizes.append(roller.cache.num_tokens)
    assert sizes[-1] == sizes[-2] == sizes[-3] == max(sizes)


@torch.no_grad()
def test_a_part_of_a_chunk_is_refused() -> None:
    roller = rolled(network(), SAMPLING.model_copy(update={"chunk": 2}))
    with pytest.raises(ValueError, match="1 frames observed; a chunk has 2"):
        roller.observe(episode(1))
