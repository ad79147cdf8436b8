"""A trained block-causal network that is talked to: reset, ask for a chunk of actions, show what came of it.

    talk = CausalPolicy.load(run, encode).conversation()
    talk.reset("push the button", "umi")
    actions = talk.infer({"front": image})                 # [C, F, n], in the order of `action_names`
    talk.observe([{"front": image}, ...], actions)         # the frames that came, and what was executed

Actions are trained elements: motions of the hand seen from itself in metres and radians, openings as fractions. Those of frame f lead to frame f, so
of the first chunk those of the first frame are what led to it: nothing is known of them, and they are 0 (`LVA` does the same).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from schemas.errors import ConfigError
from schemas.stored_picture import as_stored
from schemas.stored_size import SHORT_SIDE_PX
from training.causal.learner import CausalLearner
from training.causal.sampler import CausalSampler, ChunkNoise, KnownFrames
from training.conditioning.protocol import Conditioner
from training.data.action_layout import slot_names
from training.data.camera_views import views_of
from training.data.normalise import Normaliser, from_state
from training.data.prefetch import tensors_mapped
from training.data.rng_keys import Purpose, key_of
from training.model.text import padded
from training.policy.observation import Observation, checked_images
from training.policy.policy import Encode, PolicySettings
from training.policy.restored import restored_learner
from training.policy.text_encoder import Tell, open_text_encoder
from training.recipe import TrainRecipe
from training.run.checkpoint import checkpoint_of, recipe_of
from training.run.parallel import Ranks, device_for

LEAST_CHUNK = 2  # frames: of the first chunk one is known
Frame = Mapping[str, npt.NDArray[Any]]  # camera -> [H, W, 3] uint8, or latents [N, D]
_WHERE = "message"


class CausalPolicy:
    """`step` is the checkpoint's."""

    def __init__(
        self,
        learner: CausalLearner,
        tell: Tell,
        normaliser: Normaliser,
        recipe: TrainRecipe,
        *,
        encode: Encode | None = None,
        rate_hz: float = 10.0,
        short_side_px: int = SHORT_SIDE_PX,
        step: int = 0,
        seed: int = 0,
    ) -> None:
        """
        Raises:
            ConfigError: a chunk is one frame, of which nothing could be answered at first.
        """
        self.learner, self.tell, self.normaliser = learner.eval(), tell, normaliser
        self.recipe, self.encode, self.rate_hz = recipe, encode, rate_hz
        self.step, self.seed, self.short_side_px = step, seed, short_side_px
        self.settings = learner.network.settings
        if self.settings.sampling.chunk < LEAST_CHUNK:
            problem = "a chunk of 1 frame is the known one at first, and has no action to answer"
            repair = "train with --set architecture.sampling.chunk=2"
            raise ConfigError(
                problem, remedy=repair, where="recipe key architecture.sampling.chunk"
            )
        acts = normaliser.is_known.any(dim=1).tolist()
        self.embodiments = tuple(
            name for name, can in zip(normaliser.embodiments, acts, strict=True) if can
        )

    @classmethod
    def load(
        cls,
        run: Path,
        encode: Encode | None = None,
        settings: PolicySettings | None = None,
        *,
        vlm: Path | None = None,
        device: str = "auto",
    ) -> CausalPolicy:
        """Of a run of `eicorpus train`.

        Raises:
            ConfigError: no complete checkpoint, one of another architecture, or not the language model that it was trained with.
        """
        settings = settings or PolicySettings()
        if settings.precision == "bf16" or settings.num_steps is not None:
            problem = (
                "a block-causal policy computes in fp32, with the sampling steps of its recipe"
            )
            repair = "remove --precision and --sampling-steps, or train with --set architecture.sampling.video_steps=N"
            raise ConfigError(problem, remedy=repair, where="--precision, --sampling-steps")
        checkpoint = checkpoint_of(run, settings.step)
        here = device_for(Ranks(), device)
        tell, conditioner = open_text_encoder(checkpoint, vlm=vlm, device=here)
        learner = restored_learner(checkpoint, conditioner, use_averages=settings.use_averages)
        if not isinstance(learner, CausalLearner):
            problem = "this run has no block-causal network"
            raise ConfigError(problem, where=str(checkpoint.folder))
        return cls(
            learner.to(here),
            tell,
            from_state(checkpoint.normaliser_state(), where=str(checkpoint.folder)),
            recipe_of(checkpoint),
            encode=encode,
            rate_hz=checkpoint.state.rate_hz,
            short_side_px=checkpoint.short_side_px,
            step=checkpoint.state.step,
            seed=settings.seed,
        )

    def facts(self) -> dict[str, Any]:
        """What a client must know: which elements an action has, which frames to send, and how far apart they are."""
        s = self.settings
        return {
            "recipe": self.recipe.name,
            "step": self.step,
            "precision": "fp32",
            "embodiments": {name: {"action_names": list(self.action_names(name))} for name in self.embodiments},
            "cameras": list(self.recipe.data.cameras),
            "frame_chunk_size": s.sampling.chunk,
            "action_per_frame": s.actions_per_frame,
            "attn_window": s.sampling.window,
            "rate_hz": self.rate_hz,
            "frame_s": s.actions_per_frame / self.rate_hz,
            "actions": "[C, F, n] motions of the hand seen from itself; those of frame f lead to frame f",
        }  # fmt: skip

    def action_names(self, embodiment: str) -> tuple[str, ...]:
        """[C] the elements of an action of this embodiment."""
        names = slot_names()
        return tuple(names[slot] for slot in self._slots(embodiment).tolist())

    def conversation(self) -> CausalConversation:
        """With one client, or one robot."""
        return CausalConversation(self)

    def number_of(self, embodiment: str) -> int:
        """
        Raises:
            ConfigError: the network has no adapter for it, or never saw it act.
        """
        if embodiment not in self.embodiments:
            known = ", ".join(self.embodiments) or "none"
            problem = f"unknown embodiment {embodiment!r:.80}; the policy was trained for {known}"
            raise ConfigError(problem, where=_WHERE)
        return self.normaliser.embodiments.index(embodiment)

    def _slots(self, embodiment: str) -> Tensor:
        return self.normaliser.is_known[self.number_of(embodiment)].nonzero()[:, 0]


class CausalConversation:
    """One episode at a time. Not to be used by two threads at once."""

    def __init__(self, policy: CausalPolicy) -> None:
        self._policy = policy
        self._sampler: CausalSampler | None = None
        self._first: tuple[Tensor, Tensor] | None = None  # frame 0, until its chunk is observed
        self._embodiment = ""

    @torch.no_grad()
    def reset(self, text: str, embodiment: str) -> None:
        """A new episode: nothing of the one before is left.

        Raises:
            ConfigError: a stranger, or the text cannot be encoded.
        """
        policy = self._policy
        number, settings = policy.number_of(embodiment), policy.settings
        device = next(policy.learner.network.parameters()).device
        inputs = policy.tell([Observation(text=text, embodiment=embodiment)])
        conditioner: Conditioner = policy.learner.conditioner
        features = padded(conditioner(tensors_mapped(inputs, lambda x: x.to(device))))
        objective = settings.objective
        self._sampler = CausalSampler(
            policy.learner.network,
            features,
            number,
            policy.normaliser.is_known[number],
            settings.sampling,
            objective.video_shift,
            objective.action_shift,
        )
        self._first, self._embodiment = None, embodiment

    def infer(self, frame: Frame) -> npt.NDArray[np.float32]:
        """[C, F, n] what to do next. Only the first frame of an episode is looked at: later ones come by `observe`.

        Raises:
            ConfigError: no episode was begun, the chunk before was not observed, or the frame is not what the network was trained on.
        """
        sampler = self._begun()
        if any(each.is_predicted for each in sampler.cache.blocks):
            problem = "the last chunk was not observed"
            remedy = "send {compute_kv_cache: true, obs: [frames], state: action} first, or reset"
            raise ConfigError(problem, remedy=remedy, where=_WHERE)
        known = None
        if sampler.num_observed == 0:
            self._first = self._latents(frame)
            known = self._known([self._first], None)
        chunk = sampler.predict(self._noise(sampler), known)
        return self._decoded(chunk.action, is_first=known is not None)

    def observe(self, frames: Sequence[Frame], executed: npt.NDArray[Any]) -> None:
        """What came of the chunk. Of the first chunk all frames but the first, which is known.

        Args:
            executed: [C, F, n] as `infer` answers, what was really done.

        Raises:
            ConfigError: another number of frames or actions than a chunk has.
        """
        sampler = self._begun()
        size = sampler.sampling.chunk
        first = [] if self._first is None else [self._first]
        if sampler.num_observed == 0 and not first:
            raise ConfigError("nothing was inferred yet", remedy="send obs first", where=_WHERE)
        if len(first) + len(frames) != size:
            problem = f"{len(frames)} frames; expected {size - len(first)} of this chunk"
            raise ConfigError(problem, where=_WHERE)
        seen = [*first, *(self._latents(frame) for frame in frames)]
        sampler.observe(self._known(seen, self._encoded(executed, is_first=bool(first))))
        self._first = None

    def _begun(self) -> CausalSampler:
        if self._sampler is None:
            raise ConfigError("no episode", remedy="send {reset: true, prompt} first", where=_WHERE)
        return self._sampler

    def _noise(self, sampler: CausalSampler) -> ChunkNoise:
        s = self._policy.settings
        key = key_of(self._policy.seed, Purpose.CAUSAL_POLICY_NOISE, sampler.num_observed)
        generator = torch.Generator().manual_seed(int(key))
        video = torch.randn(s.sampling.chunk, s.num_latents, s.latent_width, generator=generator)
        action = torch.randn(
            s.sampling.chunk, s.actions_per_frame, s.action_width, generator=generator
        )
        return ChunkNoise(video=video.to(sampler.device), action=action.to(sampler.device))

    def _known(
        self, frames: list[tuple[Tensor, Tensor]], action: tuple[Tensor, Tensor] | None
    ) -> KnownFrames:
        s = self._policy.settings
        latents = torch.stack([each for each, _ in frames])
        if action is None:
            shape = (len(frames), s.actions_per_frame, s.action_width)
            action = latents.new_zeros(shape), latents.new_zeros(shape, dtype=torch.bool)
        return KnownFrames(
            latents=latents,
            has_video=torch.stack([has for _, has in frames]),
            action=action[0],
            has_action=action[1],
        )

    def _decoded(self, action: Tensor, *, is_first: bool) -> npt.NDArray[np.float32]:
        policy = self._policy
        number = torch.tensor([policy.number_of(self._embodiment)])
        slots = policy.normaliser.is_known[number[0]]
        values = policy.normaliser.decode(action.cpu().flatten(0, 1)[None], number)[0]
        out = values[:, slots].T.reshape(-1, *action.shape[:2]).numpy().copy()
        if is_first:
            out[:, 0] = 0
        return np.asarray(out, dtype=np.float32)

    def _encoded(self, executed: npt.NDArray[Any], *, is_first: bool) -> tuple[Tensor, Tensor]:
        """[F, n, E] normalised, and what of it is known."""
        policy, s = self._policy, self._policy.settings
        number = torch.tensor([policy.number_of(self._embodiment)])
        slots = policy.normaliser.is_known[number[0]]
        shape = (int(slots.sum()), s.sampling.chunk, s.actions_per_frame)
        if executed.shape != shape or executed.dtype.kind != "f" or not np.isfinite(executed).all():
            problem = f"state is {executed.dtype} {list(executed.shape)}"
            raise ConfigError(f"{problem}; expected finite numbers {list(shape)}", where=_WHERE)
        values = torch.zeros(1, shape[1] * shape[2], s.action_width)
        flat = torch.from_numpy(np.array(executed, dtype=np.float32).reshape(shape[0], -1))
        values[0][:, slots] = flat.T
        encoded = policy.normaliser.encode(values, number).view(*shape[1:], -1)
        has = slots.expand(encoded.shape).clone()
        if is_first:
            has[0] = False
        device = self._begun().device
        return torch.where(has, encoded, 0.0).to(device), has.to(device)

    def _latents(self, frame: Frame) -> tuple[Tensor, Tensor]:
        """[N, D] of all views, and [V] which there are.

        Raises:
            ConfigError: no camera of the recipe's, or no picture.
        """
        s, cameras = self._policy.settings, self._policy.recipe.data.cameras
        names = sorted(frame)
        views = views_of(names, cameras)
        if all(view is None for view in views):
            problem = f"images of {', '.join(names) or 'no camera'!s:.200}"
            expected = f"expected a camera matching {' or '.join(cameras)}"
            raise ConfigError(f"{problem}; {expected}", where=_WHERE)
        each = s.grid_height * s.grid_width
        latents = torch.zeros(len(views), each, s.latent_width)
        has = torch.tensor([view is not None for view in views])
        for v, view in enumerate(views):
            if view is not None:
                latents[v] = self._tokens(frame[names[view]], names[view], each)
        device = self._begun().device
        return latents.flatten(0, 1).to(device), has.to(device)

    def _tokens(self, values: npt.NDArray[Any], camera: str, num: int) -> Tensor:
        tokens = values
        if values.dtype == np.uint8:
            if self._policy.encode is None:
                problem = "the message has images, and this policy has no encoder"
                raise ConfigError(
                    problem, remedy="add --encoder-weights, or send latents", where=_WHERE
                )
            picture = checked_images(values[None], camera)[0]
            tokens = self._policy.encode(as_stored(picture, self._policy.short_side_px)[None])[0]
        out = torch.from_numpy(
            np.array(tokens, dtype=np.float32)
        )  # what came over a wire is not ours to change
        width = self._policy.settings.latent_width
        if out.dim() != 2 or len(out) < num or out.shape[1] != width or not out.isfinite().all():
            problem = f"latents {list(out.shape)} of camera {camera!r:.80}, or non-finite values"
            raise ConfigError(f"{problem}; expected [{num}, {width}]", where=_WHERE)
        return out[-num:]  # CLS and registers come first
