"""What a recipe's architecture decides of a run: the settings of its network, what is trained, and what a step of it costs."""

from __future__ import annotations

from schemas.errors import ConfigError
from training.causal.compute import causal_flops, causal_footprint, causal_tokens
from training.causal.learner import CausalLearner
from training.causal.network import CausalNetwork
from training.causal.settings import AnySettings, CausalArchitecture, CausalModelSettings
from training.conditioning.protocol import Conditioner
from training.data.loader import Loader
from training.data.sequences import check_sequence
from training.lara.lara import Lara
from training.lara.latent_action import PictureShape
from training.lara.settings import JointStage, LatentActionStage, NoLara
from training.learner import LatentActionLearner, Learner
from training.model.network import Network
from training.model.settings import ModelSettings
from training.recipe import TrainRecipe
from training.run.compute import flops_of_lara, flops_per_sample, tokens_of
from training.run.memory import Footprint, footprint_of
from training.trainable import Trainable


def causal_settings(
    architecture: CausalArchitecture, loader: Loader, text_width: int
) -> CausalModelSettings:
    """
    Raises:
        ConfigError: the window of the recipe is no sequence, or the latents do not divide into patches.
    """
    check_sequence(loader.window)
    shape, data = loader.latent_shape, loader.recipe.data
    patch = architecture.patch
    if shape.grid_height % patch or shape.grid_width % patch:
        problem = f"latents of {shape.grid_height} x {shape.grid_width} are not divisible into patches of {patch}"
        repair = "add --set architecture.patch=1"
        raise ConfigError(problem, remedy=repair, where="recipe key architecture.patch")
    return CausalModelSettings(
        **architecture.model_dump(),
        latent_width=shape.width,
        grid_height=shape.grid_height,
        grid_width=shape.grid_width,
        num_views=len(data.cameras),
        num_frames=len(data.past_s) + 1,
        text_width=text_width,
        actions_per_frame=data.num_actions,
        num_embodiments=len(loader.embodiments),
    )


def learner_of(settings: AnySettings, conditioner: Conditioner, recipe: TrainRecipe) -> Trainable:
    """As initialised."""
    if isinstance(settings, CausalModelSettings):
        return CausalLearner(CausalNetwork(settings), conditioner)
    if isinstance(recipe.lara, LatentActionStage):
        return LatentActionLearner(conditioner, _lara(recipe.lara, settings))
    network = Network(settings)  # before LARA: its weights are those of a run without
    lara = None if isinstance(recipe.lara, NoLara) else _lara(recipe.lara, settings)
    return Learner(network, conditioner, recipe.run.loss_over, lara)


def _lara(stage: LatentActionStage | JointStage, settings: ModelSettings) -> Lara:
    shape = PictureShape(
        num_views=settings.num_views,
        num_patches=settings.num_patches,
        latent_width=settings.latent_width,
    )
    width = settings.width if isinstance(stage, JointStage) else None
    return Lara(stage, shape, change_std=settings.change_std, policy_width=width)


def flops_of(learner: Trainable, settings: AnySettings, num_text: int, recipe: TrainRecipe) -> int:
    """Of a sample, forward and backward. Of a language model the layers that are trained, without their attention."""
    of_text = (
        6
        * num_text
        * sum(p.numel() for x in learner.conditioner.tuned_layers for p in x.parameters())
    )
    if isinstance(settings, CausalModelSettings):
        return of_text + causal_flops(settings, num_text)
    of_lara = 0 if learner.lara is None else flops_of_lara(learner.lara)
    if isinstance(recipe.lara, LatentActionStage):
        return of_lara
    of_network = flops_per_sample(settings, num_text, recipe.run.num_draws)
    return of_lara + of_text + of_network


def footprint_for(settings: AnySettings, num_text: int, recipe: TrainRecipe) -> Footprint:
    """Of a sample."""
    run = recipe.run
    if isinstance(settings, CausalModelSettings):
        return causal_footprint(settings, num_text, run.precision)
    return footprint_of(settings, num_text, run.num_draws, run.precision)


def tokens_for(settings: AnySettings, num_text: int) -> dict[str, int]:
    """Of a sample."""
    if isinstance(settings, CausalModelSettings):
        return causal_tokens(settings, num_text)
    return tokens_of(settings, num_text)
