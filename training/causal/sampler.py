"""A conversation with a block-causal network: predict a chunk, then show what really came of it.

    roller = CausalSampler(network, text, embodiment, sampling)
    chunk = roller.predict(noise, known)        # frames, and the actions that lead to them
    roller.observe(frames, executed)            # the prediction is dropped, the truth is kept

Frames are denoised first, then the actions that lead to them, which look at the predicted frames as the training mask lets noisy actions look
at clean frames. With guidance a second row without text runs beside: v = v_without + guidance (v_with - v_without).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from training.causal.cache import CachedBlock, CausalCache
from training.causal.layout import FrameIndex, TokenLayout, action_tokens, video_tokens
from training.causal.mask import dense_mask
from training.causal.network import CausalNetwork, KeyValue, Levels
from training.causal.objective import sampling_levels
from training.causal.settings import CausalSampling
from training.model.text import PaddedText

SAMPLE = 0  # its number: a conversation is one sample


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KnownFrames:
    """C frames: latents [C, N, D] and which views there are [C, V]; the actions that led to each, [C, n, E], and which elements there are."""

    latents: Tensor
    has_video: Tensor
    action: Tensor
    has_action: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChunkNoise:
    """What a chunk of C frames is denoised from. video: [C, N, D]. action: [C, n, E]."""

    video: Tensor
    action: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictedChunk:
    """C frames [C, N, D], normalised actions that lead to each [C, n, E], and the number of the first frame."""

    latents: Tensor
    action: Tensor
    first_frame: int


class CausalSampler:
    """One episode of one embodiment. `next_frame`: the number of frames that were observed."""

    def __init__(
        self,
        network: CausalNetwork,
        text: PaddedText,
        embodiment: int,
        asked: Tensor,
        sampling: CausalSampling,
        video_shift: float,
        action_shift: float,
    ) -> None:
        """
        Args:
            text: of one sample, [1, T, C]. asked: [E] elements that the embodiment has.
        """
        device = next(network.parameters()).device
        self.network, self.sampling = network.eval(), sampling
        self.video_shift, self.action_shift = video_shift, action_shift
        self.rows = 2 if sampling.is_guided else 1
        has = text.has.expand(self.rows, -1).clone()
        has[1:] = False
        self.text = PaddedText(values=text.values.expand(self.rows, -1, -1), has=has)
        self.text_sample = torch.full_like(has, SAMPLE, dtype=torch.long)
        self.embodiment = torch.full((self.rows, 1), embodiment, device=device)
        self.asked = asked.to(device)
        self.cache = CausalCache(window=sampling.window)
        self.num_observed = 0  # chunks
        self.device = device
        # Of the last frame that was seen: a camera that is not there is not predicted, as in training.
        self.last = torch.zeros(
            network.settings.num_latents, network.settings.latent_width, device=device
        )
        self.has_view = torch.ones(network.settings.num_views, dtype=torch.bool, device=device)

    @property
    def next_frame(self) -> int:
        return self.num_observed * self.sampling.chunk

    @torch.no_grad()
    def predict(self, noise: ChunkNoise, known: KnownFrames | None = None) -> PredictedChunk:
        """The chunk after what was observed or predicted.

        Args:
            known: frames at its beginning that are known already, as the first of an episode is.
        """
        chunk = self.num_observed + self._num_predicted()
        index = self._index(chunk)
        num_known = 0
        if known is not None:
            num_known, self.has_view = len(known.latents), known.has_video[-1]
        latents = self._denoised_video(noise.video, index, known)
        self.last = latents[-1]
        has_video = self._views(known, len(latents))
        self._keep_video(latents, has_video, index, is_predicted=True)
        action = self._denoised_action(noise.action, index)
        has_action = self.asked.expand(action.shape).clone()
        if known is not None:
            action[:num_known] = known.action
            has_action[:num_known] = known.has_action
        self._keep_action(action, has_action, index, is_predicted=True)
        return PredictedChunk(latents=latents, action=action, first_frame=chunk * len(latents))

    @torch.no_grad()
    def observe(self, seen: KnownFrames) -> None:
        """The next chunk as it really was: what was predicted since is dropped.

        Raises:
            ValueError: it is not a whole chunk.
        """
        if len(seen.latents) != self.sampling.chunk:
            problem = f"{len(seen.latents)} frames observed; a chunk has {self.sampling.chunk}"
            raise ValueError(problem)
        self.cache.drop_predicted()
        index = self._index(self.num_observed)
        self._keep_video(seen.latents, seen.has_video, index, is_predicted=False)
        self._keep_action(seen.action, seen.has_action, index, is_predicted=False)
        self.num_observed += 1
        self.has_view, self.last = seen.has_video[-1], seen.latents[-1]

    def _num_predicted(self) -> int:
        orders = {each.order // 2 for each in self.cache.blocks if each.is_predicted}
        return 0 if not orders else max(orders) + 1 - self.num_observed

    def _index(self, chunk: int) -> FrameIndex:
        size = self.sampling.chunk
        frame = torch.arange(chunk * size, (chunk + 1) * size, device=self.device)
        return FrameIndex(
            sample=torch.full((self.rows, size), SAMPLE, device=self.device),
            frame=frame.expand(self.rows, -1),
        )

    def _denoised_video(
        self, noise: Tensor, index: FrameIndex, known: KnownFrames | None
    ) -> Tensor:
        network = self.network
        num_known = 0 if known is None else len(known.latents)
        has = self._views(known, len(noise))
        if known is not None and network.settings.objective.known_first:
            self.last = known.latents[0]
        before = self.last.expand_as(noise)
        layout = video_tokens(
            index, self._rows(has), self.sampling.chunk, network.settings, is_clean=False
        )

        def velocity(x: Tensor, level: Tensor) -> Tensor:
            levels = level.expand(len(x)).clone()
            levels[:num_known] = 0.0
            time = network.video_time(self._rows(levels))
            tokens, _ = self._run(network.embed_video(self._rows(x)), time, layout)
            return self._guided(
                network.read_video(
                    tokens, time.plain, self._rows(x), self._rows(levels), self._rows(before)
                ),
                self.sampling.video_guidance,
            )

        def kept(x: Tensor) -> Tensor:
            return x if known is None else torch.cat([known.latents, x[num_known:]])

        return self._denoised(noise, velocity, kept, self.sampling.video_steps, self.video_shift)

    def _views(self, known: KnownFrames | None, num_frames: int) -> Tensor:
        """[C, V] which views the frames of a chunk have."""
        has = self.has_view.expand(num_frames, -1).clone()
        if known is not None:
            has[: len(known.latents)] = known.has_video
        return has

    def _denoised_action(self, noise: Tensor, index: FrameIndex) -> Tensor:
        network = self.network
        rows = torch.ones(noise.shape[:2], dtype=torch.bool, device=self.device)
        layout = action_tokens(index, self._rows(rows), self.sampling.chunk, is_clean=False)
        shown = self._rows(self.asked.expand(noise.shape))
        embodiment = self.embodiment.expand(-1, len(noise))

        def velocity(x: Tensor, level: Tensor) -> Tensor:
            time = network.action_time(level.expand(self.rows, len(x)))
            tokens, _ = self._run(
                network.embed_action(self._rows(x), shown, embodiment), time, layout
            )
            out = network.read_action(tokens, time.plain, embodiment)
            return self._guided(out, self.sampling.action_guidance)

        def kept(x: Tensor) -> Tensor:
            return torch.where(self.asked, x, 0.0)

        return self._denoised(noise, velocity, kept, self.sampling.action_steps, self.action_shift)

    def _denoised(
        self,
        noise: Tensor,
        velocity: Callable[[Tensor, Tensor], Tensor],
        kept: Callable[[Tensor], Tensor],
        num_steps: int,
        shift: float,
    ) -> Tensor:
        """Euler steps from level 1 to 0; `kept` puts back what is known."""
        levels = sampling_levels(num_steps, shift, self.device).to(noise.dtype)
        x = kept(noise)
        for level, later in pairwise(levels):
            x = kept(x + (later - level) * velocity(x, level))
        return x

    def _guided(self, velocity: Tensor, guidance: float) -> Tensor:
        if self.rows == 1:
            return velocity[0]
        return velocity[1] + guidance * (velocity[0] - velocity[1])

    def _keep_video(
        self, latents: Tensor, has: Tensor, index: FrameIndex, *, is_predicted: bool
    ) -> None:
        network = self.network
        layout = video_tokens(
            index, self._rows(has), self.sampling.chunk, network.settings, is_clean=True
        )
        time = network.video_time(torch.zeros(self.rows, len(latents), device=self.device))
        self._keep(
            network.embed_video(self._rows(latents)), time, layout, is_predicted=is_predicted
        )

    def _keep_action(
        self, action: Tensor, has: Tensor, index: FrameIndex, *, is_predicted: bool
    ) -> None:
        network = self.network
        layout = action_tokens(
            index, self._rows(has.any(dim=2)), self.sampling.chunk, is_clean=True
        )
        time = network.action_time(torch.zeros(self.rows, len(action), device=self.device))
        embodiment = self.embodiment.expand(-1, len(action))
        x = network.embed_action(self._rows(action), self._rows(has), embodiment)
        self._keep(x, time, layout, is_predicted=is_predicted)

    def _keep(self, x: Tensor, time: Levels, layout: TokenLayout, *, is_predicted: bool) -> None:
        _, own = self._run(x, time, layout, keeps_own=True)
        order = int(layout.tokens.order[0, 0])
        self.cache.add(
            CachedBlock(
                order=order, tokens=layout.tokens, keys=tuple(own), is_predicted=is_predicted
            )
        )

    def _run(
        self, x: Tensor, time: Levels, layout: TokenLayout, *, keeps_own: bool = False
    ) -> tuple[Tensor, list[KeyValue]]:
        before = self.cache.tokens()
        keys = layout.tokens if before is None else before.joined(layout.tokens)
        mask = dense_mask(layout.tokens, keys, self.sampling.window)
        words = self.network.words(self.text, self.text_sample, layout.tokens)
        return self.network.run(
            x, time, layout, mask, words, self.cache.past(), keeps_own=keeps_own
        )

    def _rows(self, x: Tensor) -> Tensor:
        """The same for the row with text and the one without."""
        return x.expand(self.rows, *x.shape)
