"""A trained network as a checkpoint of a run has it, ready to be asked: nothing of the optimiser, nothing of the loader."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from schemas.errors import ConfigError
from training.conditioning.protocol import Conditioner
from training.data.normalise import Normaliser, from_state
from training.lara.lara import Lara
from training.lara.latent_action import PictureShape
from training.lara.settings import LatentActionStage, NoLara
from training.learner import Learner
from training.model.precondition import channel_std
from training.model.settings import ModelSettings
from training.run.architecture import learner_of
from training.run.checkpoint import AVERAGES, WEIGHTS, Checkpoint, recipe_of
from training.run.optimiser import LARA
from training.run.restore import latent_action_tensors, restore_weights
from training.trainable import Trainable


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Restored:
    """What answers, and in whose units."""

    learner: Learner
    normaliser: Normaliser


def has_policy(checkpoint: Checkpoint) -> bool:
    """A run of LARA's first stage has a latent action model and nothing else."""
    return not isinstance(recipe_of(checkpoint).lara, LatentActionStage)


def restored_latent_actions(checkpoint: Checkpoint, *, device: torch.device) -> Lara | None:
    """LARA's latent action model of a run, without the projector; None for a run without LARA.

    Raises:
        ConfigError: the checkpoint cannot be read or is damaged.
    """
    settings, model = recipe_of(checkpoint).lara, checkpoint.state.model
    if isinstance(settings, NoLara) or not isinstance(model, ModelSettings):
        return None
    shape = PictureShape(
        num_views=model.num_views, num_patches=model.num_patches, latent_width=model.latent_width
    )
    with torch.device("meta"):  # a damaged width is refused before memory is asked for it
        lara = Lara(settings, shape, change_std=model.change_std, policy_width=None)
    tensors = latent_action_tensors(lara, checkpoint)
    lara.lam.load_state_dict(tensors, assign=True)
    lara.unit = channel_std(model.change_std, model.latent_width)  # of which no file has tensors
    return lara.to(device).eval()


def restored(
    checkpoint: Checkpoint, conditioner: Conditioner, *, use_averages: bool, device: torch.device
) -> Restored:
    """
    Args:
        conditioner: as the recipe of the run opens it; its trained part gets its weights too.

    Raises:
        ConfigError: the checkpoint has no averaged weights, cannot be read, or is of another network.
    """
    if not isinstance(checkpoint.state.model, ModelSettings):
        problem = "this run has a block-causal network, which is asked chunk by chunk"
        remedy = "serve it with `eicorpus serve-policy`, or measure it with `eicorpus eval`"
        raise ConfigError(problem, remedy=remedy, where=str(checkpoint.folder))
    learner = restored_learner(checkpoint, conditioner, use_averages=use_averages)
    assert isinstance(learner, Learner)  # of these settings
    normaliser = from_state(checkpoint.normaliser_state(), where=str(checkpoint.folder))
    return Restored(learner=learner.to(device).eval(), normaliser=normaliser)


def restored_learner(
    checkpoint: Checkpoint, conditioner: Conditioner, *, use_averages: bool
) -> Trainable:
    """Of whatever architecture, on the CPU.

    Raises:
        ConfigError: see `restored`.
    """
    if use_averages and not checkpoint.has_averages:
        message = "this checkpoint has no averaged weights"
        raise ConfigError(
            message, remedy="train with optimiser.ema to store them", where=str(checkpoint.folder)
        )
    if not has_policy(checkpoint):
        problem = "this run is of a latent action model, which acts by itself on nothing"
        repair = "train a policy with --recipe lara_joint --init-lam RUN"
        raise ConfigError(problem, remedy=repair, where=str(checkpoint.folder))
    # Who acts needs nothing of LARA.
    settings = checkpoint.state.model
    recipe = recipe_of(checkpoint).model_copy(update={"lara": NoLara()})
    kept = checkpoint.tensors(AVERAGES if use_averages else WEIGHTS)
    weights = {name: x for name, x in kept.items() if not name.startswith(LARA)}
    with torch.device("meta"):  # a damaged width is refused before memory is asked for it
        shapes = learner_of(settings, conditioner, recipe)
    restore_weights(shapes, weights, where=str(checkpoint.folder))
    learner = learner_of(settings, conditioner, recipe)
    restore_weights(learner, weights, where=str(checkpoint.folder))
    return learner
