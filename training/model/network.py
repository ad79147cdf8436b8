"""The two-stream transformer (MM-DiT): past and future pictures in one stream, past and future actions in the other.

Facts from `models.md` 1.2-1.5, written anew. Sequences have a fixed layout, so joint attention needs no mask: what a task does not
have is a learned placeholder. Image stream: [registers | patches]; past and future pictures of a patch are one token, their channels side
by side. Action stream: [history | state | chunk].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from schemas.supervision import Task
from training.model.adapters import VectorDecoder, VectorEncoder
from training.model.attention import flash_kernel, varlen_kernel
from training.model.block import (
    NUM_MODULATIONS,
    STREAMS,
    Block,
    rotations,
    timestep_features,
    token_places,
)
from training.model.precondition import channel_std, velocity_from
from training.model.settings import ModelSettings
from training.model.text import Text, Words, is_for_varlen, words_of
from training.tasks import TASKS, is_any, scores_action, scores_future

TIME_FEATURES = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KnownInputs:
    """What is known of B samples. Masks are bool, True where there is something; values elsewhere are finite and mean nothing.

    past: [B, P, V * N, D] latents up to now, oldest first, V cameras of N tokens. has_past: [B, P, V].
    history: [B, H, E] trained action elements before now. has_history: [B, H, E].
    state: [B, S] or None. embodiment: [B] long. task: [B] long, index into TASKS.
    """

    past: Tensor
    has_past: Tensor
    history: Tensor
    has_history: Tensor
    embodiment: Tensor
    task: Tensor
    state: Tensor | None = None


@dataclass(slots=True, eq=False)
class Tap:
    """Takes the hidden states of the action chunk on their way: after so many blocks, counted from 1. A pass fills `chunk` [B, K, width]."""

    after_block: int
    chunk: Tensor | None = None

    def hidden(self, action: int) -> Tensor:
        """[B, width] of the token of one action of the chunk, by its place."""
        assert self.chunk is not None  # a pass went before
        return self.chunk[:, action]


class ImageReadout(nn.Module):
    """All tokens of an image as one vector, by a linear map that knows each token's place.

    Attention over tokens has to learn first which of them to look at, and until then an action sees their mean: a small network that learns
    from few scenes acts as if it were blind for most of a short training (docs/results/routing.md has figures).
    """

    def __init__(self, s: ModelSettings) -> None:
        super().__init__()
        self.channels = nn.Linear((s.num_past + 1) * s.latent_width, s.image_readout)
        self.tokens = nn.Linear(s.num_image_tokens * s.image_readout, s.width)

    def forward(self, channels: Tensor) -> Tensor:
        """[B, V * N, (P + 1) D] to [B, width]."""
        vector: Tensor = self.tokens(self.channels(channels).flatten(1))
        return vector


class Network(nn.Module):
    """Velocities of actions and of future pictures. Time runs from noise (0) to data (1)."""

    grid: Tensor  # [L, 2] places for rope
    action_std: Tensor  # [E] and [D], of the linear guess
    change_std: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        s, width = settings, settings.width
        self.time = nn.Sequential(
            nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.task = nn.Embedding(len(TASKS), width)
        self.shared_modulation = (
            nn.Linear(width, STREAMS * NUM_MODULATIONS * width) if s.adaln == "shared" else None
        )
        self.registers = nn.Parameter(torch.randn(s.num_registers, width) * 0.02)
        self.merge = nn.Linear((s.num_past + 1) * s.latent_width, width)
        self.readout = ImageReadout(s) if s.image_readout else None
        self.missing_past = nn.Parameter(torch.randn(s.latent_width) * 0.02)
        self.missing_obs = nn.Parameter(torch.randn(s.latent_width) * 0.02)
        self.missing_action = nn.Parameter(torch.randn(s.num_actions, width) * 0.02)
        self.missing_history = nn.Parameter(torch.randn(width) * 0.02)
        self.no_text = nn.Parameter(torch.randn(s.text_width) * 0.02)
        self.action_in = VectorEncoder(
            s.num_embodiments, 2 * s.action_width, s.adapter_width, width, with_time=True
        )
        # Which elements there are is shown beside them; at first it says nothing.
        nn.init.zeros_(self.action_in.own.weight[:, s.action_width :])
        self.state_in = (
            VectorEncoder(s.num_embodiments, s.state_width, s.adapter_width, width, with_time=False)
            if s.state_width
            else None
        )
        num_places = s.num_image_tokens + s.num_action_tokens
        self.places = (
            nn.Parameter(torch.randn(num_places, width) * 0.02)
            if s.positions == "learned"
            else None
        )
        self.register_buffer(
            "grid",
            token_places(s.num_patches, s.num_views, s.num_registers, s.num_action_tokens),
            persistent=False,
        )
        for name, width_of in (("action_std", s.action_width), ("change_std", s.latent_width)):
            self.register_buffer(name, channel_std(getattr(s, name), width_of), persistent=False)
        self.blocks = nn.ModuleList(Block(s) for _ in range(s.num_layers))
        self.has_varlen: bool | None = None  # None: kernels of packages were not chosen yet
        self.out_norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(STREAMS))
        # how much of a velocity is the noise's depends on the flow time, so the last layers are told it too (DiT's final layer)
        self.out_modulation = nn.Linear(width, STREAMS * 2 * width)
        nn.init.zeros_(self.out_modulation.weight)
        nn.init.zeros_(self.out_modulation.bias)
        self.future_out = nn.Linear(width, s.latent_width)
        nn.init.zeros_(self.future_out.weight)
        nn.init.zeros_(self.future_out.bias)
        self.action_out = VectorDecoder(s.num_embodiments, width, s.adapter_width, s.action_width)
        if self.shared_modulation is not None:
            nn.init.zeros_(self.shared_modulation.weight)
            nn.init.zeros_(self.shared_modulation.bias)

    def forward(
        self,
        known: KnownInputs,
        text: Text,
        action: Tensor,
        has_action: Tensor,
        future: Tensor,
        t: Tensor,
        tap: Tap | None = None,
        has_future: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Velocities of the chunk and of the future pictures.

        Args:
            text: of these samples; or of fewer, each of which has equally many draws here, beside each other.
            action: [B, K, E], future: [B, V * N, D]: noisy where the task noises them, clean where it is given them.
            has_action: [B, K, E] bool, elements that there are: those that were recorded, or all that a policy is asked for. Elsewhere
                the network is shown that nothing is known, which is not the same as standing still.
            t: [B] flow time of what is noisy.
            tap: is filled on the way.
            has_future: [B, V] bool, views whose future picture there is; the others get the placeholder. None: all.

        Returns:
            [B, K, E] and [B, V * N, D]; what the task does not score means nothing.
        """
        streams, condition = self.tokens(known, action, has_action, future, t, has_future)
        streams = self.through_blocks(streams, condition, text, tap)
        return self.velocities(streams, condition, known, action, future, t)

    def tokens(
        self,
        known: KnownInputs,
        action: Tensor,
        has_action: Tensor,
        future: Tensor,
        t: Tensor,
        has_future: Tensor | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Both streams as the first block takes them, and the condition [B, width] of all blocks. Arguments as of `forward`."""
        condition = fn.silu(
            self.time(timestep_features(t, TIME_FEATURES).to(action.dtype)) + self.task(known.task)
        )
        channels = self._image_channels(known, future, has_future)
        streams = [
            self._image_tokens(channels),
            self._action_tokens(known, action, has_action, t, channels),
        ]
        return [self._as_residual(x) for x in streams], condition

    def through_blocks(
        self, streams: list[Tensor], condition: Tensor, text: Text, tap: Tap | None = None
    ) -> list[Tensor]:
        """Both streams after the last block."""
        shared = None if self.shared_modulation is None else self.shared_modulation(condition)
        words = self._text(text)
        angle = None
        if self.places is None:
            angle = rotations(self.grid, self.settings.head_width)
        for number, block in enumerate(self.blocks, 1):
            streams = block(streams, condition, shared, words, angle)
            if tap is not None and tap.after_block == number:
                tap.chunk = streams[1][:, -self.settings.num_actions :]
        return streams

    def velocities(
        self,
        streams: list[Tensor],
        condition: Tensor,
        known: KnownInputs,
        action: Tensor,
        future: Tensor,
        t: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, of both streams after the last block."""
        image, acting = self._last(streams, condition)
        chunk = acting[:, -self.settings.num_actions :]
        said_action = self.action_out(chunk, known.embodiment)
        said_future = self.future_out(image[:, self.settings.num_registers :])
        if not self.settings.precondition:
            return said_action, said_future
        return self._with_guess(known, said_action, action, said_future, future, t)

    def _as_residual(self, x: Tensor) -> Tensor:
        """In the precision that blocks add in: bf16 only where products are."""
        kind = x.device.type
        is_half = self.settings.residual == "bf16" and kind != "meta"
        if is_half and torch.is_autocast_enabled(kind):
            return x.to(torch.get_autocast_dtype(kind))
        return x

    def _with_guess(
        self,
        known: KnownInputs,
        said_action: Tensor,
        action: Tensor,
        said_future: Tensor,
        future: Tensor,
        t: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Velocities where something is noisy; elsewhere nothing of the inputs gets past their placeholders."""
        last = self._last_image(known)
        no_motion = torch.zeros_like(action)
        acting = velocity_from(said_action, action, no_motion, t, self.action_std)
        seeing = velocity_from(said_future, future, last, t, self.change_std)
        says_action, says_future = scores_action(known.task), scores_future(known.task)
        return (
            torch.where(says_action[:, None, None], acting, said_action),
            torch.where(says_future[:, None, None], seeing, said_future),
        )

    def _last_image(self, known: KnownInputs) -> Tensor:
        """[B, V * N, D] the latents of now, 0 where there are none."""
        has_now = known.has_past[:, -1].repeat_interleave(self.settings.num_patches, dim=1)
        return torch.where(has_now[..., None], known.past[:, -1], 0.0)

    def _last(self, streams: list[Tensor], condition: Tensor) -> list[Tensor]:
        """Both streams normalised, then scaled and shifted by the condition."""
        modulation = self.out_modulation(condition).view(-1, STREAMS, 2, 1, self.settings.width)
        return [
            norm(x.float()) * (1 + modulation[:, s, 0]) + modulation[:, s, 1]
            for s, (norm, x) in enumerate(zip(self.out_norms, streams, strict=True))
        ]

    def _text(self, text: Text) -> Words:
        """Normalised text after one token of our own, so that a sample without words still has something to attend to."""
        width = text.values.shape[-1:]
        values = fn.layer_norm(text.values, width)
        own = fn.layer_norm(self.no_text, width)[None].to(values.dtype)
        is_for_packages = is_for_varlen(values, self.settings.head_width)
        is_packed = is_for_packages and self._chooses_varlen()
        return words_of(values, own, text.layout, is_packed=is_packed)

    def _chooses_varlen(self) -> bool:
        """Give the blocks kernels of packages, in the first pass that these can take: a network that runs elsewhere needs no GPU.

        Returns:
            Whether text may lie end to end.
        """
        if self.has_varlen is None:
            width = self.settings.head_width
            flash, varlen = flash_kernel(width), varlen_kernel(width)
            for block in self.blocks:
                assert isinstance(block, Block)
                block.flash, block.varlen = flash, varlen
            self.has_varlen = varlen is not None
        return self.has_varlen

    def _image_channels(
        self, known: KnownInputs, future: Tensor, has_future: Tensor | None
    ) -> Tensor:
        """[B, V * N, (P + 1) D] the images up to now and the future one, a placeholder where there is none or it may not be seen."""
        num_patches = self.settings.num_patches
        has_past = known.has_past.repeat_interleave(num_patches, dim=2)
        past = torch.where(has_past[..., None], known.past, self.missing_past)
        is_unseen = is_any(known.task, Task.POLICY)[:, None]
        if has_future is not None:
            is_unseen = (is_unseen | ~has_future).repeat_interleave(num_patches, dim=1)
        future = torch.where(is_unseen[..., None], self.missing_obs, future)
        return torch.cat([*past.unbind(1), future], dim=-1)

    def _image_tokens(self, channels: Tensor) -> Tensor:
        tokens = self.merge(channels)
        if self.places is not None:
            tokens = tokens + self.places[: self.settings.num_image_tokens]
        registers = self.registers.expand(len(tokens), -1, -1).to(tokens.dtype)
        return torch.cat([registers, tokens], dim=1)

    def _action_tokens(
        self, known: KnownInputs, action: Tensor, has_action: Tensor, t: Tensor, channels: Tensor
    ) -> Tensor:
        # history and chunk in one call: the layers of a sample's embodiment, 0.35 MB, are gathered once and their gradient is spread once
        elements = torch.cat(
            [_shown(known.history, known.has_history), _shown(action, has_action)], 1
        )
        time = torch.ones(elements.shape[:2], device=elements.device)
        start = known.history.shape[1]
        time[:, start:] = torch.where(scores_action(known.task), t, 1.0)[:, None]
        history, chunk = self.action_in(elements, known.embodiment, time).tensor_split(
            [start], dim=1
        )
        path_exists = known.has_history.any(dim=-1, keepdim=True)
        history = torch.where(path_exists, history, self.missing_history)
        has_none = is_any(known.task, Task.VISUAL_FORECASTING)
        chunk = torch.where(has_none[:, None, None], self.missing_action, chunk)
        if self.readout is not None:
            chunk = chunk + self.readout(channels)[:, None]
        parts = [history, chunk]
        if self.state_in is not None:
            if known.state is None:
                raise ValueError("the network expects a state, and the batch has none")
            parts.insert(1, self.state_in(known.state[:, None], known.embodiment))
        tokens = torch.cat(parts, dim=1)
        if self.places is not None:
            tokens = tokens + self.places[self.settings.num_image_tokens :]
        return tokens


def _shown(values: Tensor, has: Tensor) -> Tensor:
    """[B, L, 2 E] elements, 0 where there are none, and beside them which there are."""
    return torch.cat([torch.where(has, values, 0.0), has.to(values.dtype)], dim=-1)


def num_parameters(network: nn.Module) -> dict[str, int]:
    """Parameters by part, and of the whole."""
    parts = {
        name: sum(p.numel() for p in child.parameters()) for name, child in network.named_children()
    }
    whole = sum(p.numel() for p in network.parameters())
    return parts | {"placeholders and tables": whole - sum(parts.values()), "total": whole}
