"""A trained policy: from what is known now to where the hands should go next, in the units and frames of the corpus.

    policy = Policy.load(run, encode)
    chunk = policy.act(Observation(text=..., embodiment=..., pictures={"front": [p, H, W, 3]}, history=[h, A]))
    chunk.T_ref_hand("right")        # [K, 4, 4], reached chunk.t_s seconds from now

The image encoder comes from outside as a function, because training knows none: `encode` takes [n, H, W, 3] uint8 RGB and gives [n, T, D]
tokens as `eicorpus latents images` stores them, patches last. It gets what a corpus would store of the pictures (`stored_images`): training saw
nothing else. The noise is drawn once, so the same observation gives the same chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from schemas.action import ActionSpec
from schemas.errors import ConfigError
from schemas.stored_size import SHORT_SIDE_PX
from schemas.supervision import Task
from training.data.action_layout import ACTION_WIDTH
from training.data.camera_views import views_of
from training.data.normalise import Normaliser
from training.data.prefetch import tensors_mapped
from training.data.rng_keys import Purpose, key_of
from training.evaluation.draws import Sampler
from training.learner import Learner
from training.model.network import KnownInputs
from training.policy.embodiments import PolicyEmbodiment, embodiments_of
from training.policy.observation import ActionChunk, Observation, Pixels, stored_images
from training.policy.plan import Planner, Value, check_can_plan
from training.policy.restored import restored
from training.policy.text_encoder import Tell, open_text_encoder
from training.precision import Precision
from training.recipe import TrainRecipe
from training.run.checkpoint import checkpoint_of, recipe_of
from training.run.parallel import Ranks, device_for
from training.tasks import INDEX
from training.value.stored import load_value

Encode = Callable[[Pixels], npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """Which weights, and how they are asked."""

    step: int | Literal["best"] | None = None  # of the checkpoint; None is the newest
    use_averages: bool = False
    num_steps: int | None = None  # of Euler; None is the recipe's
    precision: Precision | None = None  # of compute; None is the recipe's
    seed: int = 0  # of the noise
    num_chunks: int = 1  # candidates among which a value head chooses; 1: no planning


class Policy:
    """`step` is the checkpoint's, for those who ask what they are talking to."""

    def __init__(
        self,
        learner: Learner,
        tell: Tell,
        normaliser: Normaliser,
        recipe: TrainRecipe,
        *,
        encode: Encode | None = None,
        measured_state: Mapping[str, Sequence[str]] | None = None,
        rate_hz: float = 10.0,
        short_side_px: int = SHORT_SIDE_PX,
        step: int = 0,
        num_steps: int | None = None,
        precision: Precision | None = None,
        seed: int = 0,
        num_chunks: int = 1,
        value: Value | None = None,
        about_value: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            short_side_px: that pictures are shrunk to, as the corpus did; its default where a checkpoint does not know it.
            num_chunks: candidates of each chunk; more than one needs `value`, which scores them (`training/policy/plan.py`).
        """
        self.learner, self.tell, self.normaliser = learner.eval(), tell, normaliser
        self.recipe, self.encode, self.step, self.rate_hz = recipe, encode, step, rate_hz
        self.short_side_px = short_side_px
        self.sampler = Sampler(
            learner=learner,
            precision=precision or recipe.run.precision,
            num_steps=num_steps or recipe.run.sampling_steps,
        )
        self.bodies = embodiments_of(normaliser, measured_state or {})
        self.embodiments = tuple(self.bodies)
        settings = learner.network.settings
        generator = torch.Generator().manual_seed(int(key_of(seed, Purpose.POLICY_NOISE)))
        self._noise = torch.randn(1, settings.num_actions, ACTION_WIDTH, generator=generator)
        self._device = next(learner.network.parameters()).device
        self.planner: Planner | None = None
        if num_chunks > 1:
            if value is None:
                raise ConfigError("planning needs a value head", where="num_chunks")
            self.planner = Planner(
                self.sampler,
                value,
                noise=self._noise,
                num_chunks=num_chunks,
                seed=seed,
                about=about_value,
            )

    @classmethod
    def load(
        cls,
        run: Path,
        encode: Encode | None = None,
        settings: PolicySettings = PolicySettings(),
        *,
        vlm: Path | None = None,
        device: str = "auto",
    ) -> Policy:
        """Of a run of `eicorpus train`.

        Args:
            vlm: folder of the language model whose stored features the run was trained on.

        Raises:
            ConfigError: no complete checkpoint, or not the language model that it was trained with; or planning without forward dynamics or a value head.
        """
        checkpoint = checkpoint_of(run, settings.step)
        recipe, here = recipe_of(checkpoint), device_for(Ranks(), device)
        if settings.num_chunks > 1:
            check_can_plan(recipe, where=str(run))
        tell, conditioner = open_text_encoder(checkpoint, vlm=vlm, device=here)
        ready = restored(checkpoint, conditioner, use_averages=settings.use_averages, device=here)
        value, about_value = None, None
        if settings.num_chunks > 1:
            head, about = load_value(
                checkpoint,
                is_averaged=settings.use_averages,
                text_width=conditioner.width,
                device=here,
            )
            value, about_value = head.value, {"value_sha256": about.tensors_sha256}
        return cls(
            ready.learner,
            tell,
            ready.normaliser,
            recipe,
            encode=encode,
            measured_state=checkpoint.state.measured_state,
            rate_hz=checkpoint.state.rate_hz,
            short_side_px=checkpoint.short_side_px,
            step=checkpoint.state.step,
            num_steps=settings.num_steps,
            precision=settings.precision,
            seed=settings.seed,
            num_chunks=settings.num_chunks,
            value=value,
            about_value=about_value,
        )

    def facts(self) -> dict[str, Any]:
        """What a caller must know: which elements an action has, which pictures are wanted, and when."""
        data = self.recipe.data
        return {
            "recipe": self.recipe.name,
            "step": self.step,
            "precision": self.sampler.precision,
            "embodiments": {
                name: {
                    "action_names": list(body.spec.names),
                    "not_measured": sorted(body.not_measured),
                }
                for name, body in self.bodies.items()
            },
            "cameras": list(data.cameras),
            "past_s": list(data.past_s),
            "num_history": data.num_history,
            "num_actions": data.num_actions,
            "rate_hz": self.rate_hz,
            "with_state": data.with_state,
            "actions": "absolute targets; poses in the frame of observation/history",
            **({} if self.planner is None else {"plan": dict(self.planner.about)}),
        }

    def spec(self, embodiment: str) -> ActionSpec:
        """The layout of the history and the targets of a body.

        Raises:
            ConfigError: the network has no adapter for it, or never saw it act.
        """
        return self._body(embodiment).spec

    def act(self, observation: Observation) -> ActionChunk:
        """What to do now.

        Raises:
            ConfigError: the observation is not what its fields say, or names a stranger.
        """
        return self.act_many([observation])[0]

    @torch.no_grad()
    def act_many(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """The same for several at once: many simulators, one pass of the network."""
        bodies = [self._body(each.embodiment) for each in observations]
        known = self._known(observations, bodies)
        inputs = tensors_mapped(self.tell(observations), lambda x: x.to(self._device))
        text = self.sampler.encode_text(inputs)
        size, steps = len(observations), self._noise.shape[1]
        scored = self.normaliser.is_known.to(self._device)[known.embodiment]
        settings = self.learner.network.settings
        blind = known.past.new_zeros(size, settings.num_image_tokens, settings.latent_width)
        is_asked = scored[:, None].expand(-1, steps, -1)
        values: Sequence[npt.NDArray[np.float32] | None] = [None] * size
        if self.planner is None:
            noise = self._noise.to(self._device).expand(size, -1, -1)
            predicted = self.sampler.action(known, text, future=blind, scored=is_asked, noise=noise)
        else:
            planned = self.planner.chosen(known, text, future=blind, scored=is_asked)
            predicted, values = planned.action, list(planned.values.cpu().numpy())
        raw = self.normaliser.decode(predicted.double(), known.embodiment).cpu().numpy()
        t_s = (np.arange(steps) + 1) / self.rate_hz
        return [
            ActionChunk(
                spec=body.spec,
                targets=body.absolute(motions, each.history),
                t_s=t_s,
                plan_values=value,
            )
            for body, motions, each, value in zip(bodies, raw, observations, values, strict=True)
        ]

    def _body(self, embodiment: str) -> PolicyEmbodiment:
        if embodiment not in self.bodies:
            known = ", ".join(self.embodiments) or "none"
            problem = f"unknown embodiment {embodiment!r:.80}; the policy was trained for {known}"
            raise ConfigError(problem, where="observation")
        return self.bodies[embodiment]

    def _known(
        self, observations: Sequence[Observation], bodies: Sequence[PolicyEmbodiment]
    ) -> KnownInputs:
        pictures = [self._past(each) for each in observations]
        number = torch.tensor([body.number for body in bodies], device=self._device)
        length = self.learner.network.settings.num_history
        rows = [b.history(o.history, length) for b, o in zip(bodies, observations, strict=True)]
        history = torch.from_numpy(np.stack([values for values, _ in rows])).to(self._device)
        has_history = torch.from_numpy(np.stack([valid for _, valid in rows])).to(self._device)
        has_history &= self.normaliser.is_known.to(self._device)[number][:, None]
        encoded = self.normaliser.encode(history, number).float()
        state = None
        if self.recipe.data.with_state:
            states = [b.state(o.state) for b, o in zip(bodies, observations, strict=True)]
            state = torch.from_numpy(np.stack(states)).to(self._device)
        return KnownInputs(
            past=torch.stack([past for past, _ in pictures]),
            has_past=torch.stack([has for _, has in pictures]),
            history=torch.where(has_history, encoded, 0.0),
            has_history=has_history,
            embodiment=number,
            task=torch.full_like(number, INDEX[Task.POLICY]),
            state=state,
        )

    def _past(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """[P, V * N, D] and [P, V] of one observation."""
        s = self.learner.network.settings
        past = torch.zeros(s.num_past, s.num_views, s.num_patches, s.latent_width)
        has = torch.zeros(s.num_past, s.num_views, dtype=torch.bool)
        names = sorted({*observation.pictures, *observation.latents})
        views = views_of(names, self.recipe.data.cameras)
        if all(view is None for view in views):
            cameras = " or ".join(self.recipe.data.cameras)
            problem = (
                f"images of {', '.join(names) or 'no camera'}; expected a camera matching {cameras}"
            )
            raise ConfigError(problem, where="observation")
        for v, view in enumerate(views):
            if view is not None:
                tokens = self._tokens(observation, names[view])
                past[-len(tokens) :, v], has[-len(tokens) :, v] = tokens, True
        return past.flatten(1, 2).to(self._device), has.to(self._device)

    def _tokens(self, observation: Observation, camera: str) -> Tensor:
        """[p, N, D] of one camera, oldest first, now last."""
        s = self.learner.network.settings
        latents: npt.NDArray[Any] | None = observation.latents.get(camera)
        if latents is None:
            latents = self._encoded(
                stored_images(observation, camera, self.short_side_px, last=s.num_past)
            )
        tokens = torch.as_tensor(np.asarray(latents, dtype=np.float32))
        if tokens.dim() != 3 or not len(tokens) or tokens.shape[2] != s.latent_width:
            problem = f"latents {list(tokens.shape)} of camera {camera!r:.80}"
            expected = f"[p, {s.num_patches}, {s.latent_width}] with p from 1"
            raise ConfigError(f"{problem}; expected {expected}", where="observation")
        if tokens.shape[1] < s.num_patches or not tokens.isfinite().all():
            problem = f"{tokens.shape[1]} tokens of camera {camera!r:.80}, or non-finite values"
            raise ConfigError(f"{problem}; expected {s.num_patches}", where="observation")
        return tokens[-s.num_past :, -s.num_patches :]  # CLS and registers come first

    def _encoded(self, pictures: Pixels) -> npt.NDArray[Any]:
        if self.encode is None:
            problem = "the observation has images, and this policy has no encoder"
            raise ConfigError(
                problem, remedy="add --encoder-weights, or send latents", where="observation"
            )
        return self.encode(pictures)
