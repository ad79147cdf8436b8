"""From a manifest and a recipe to a run that can begin: everything is built, and what does not fit is refused, before the first step."""

from __future__ import annotations

from dataclasses import replace

import torch

from schemas import manifest as manifests
from schemas.errors import ConfigError
from schemas.manifest import Manifest
from training.batch import Batch
from training.causal.settings import AnySettings
from training.conditioning.open import open_conditioner
from training.conditioning.protocol import Conditioner, TextReader
from training.conditioning.vlm_parts import folder_of
from training.data.action_layout import grown
from training.data.image_text import ImageTextFile, ImageTextSource, open_image_text
from training.data.latent_targets import bodies_of
from training.data.loader import Loader
from training.data.normalise import Normaliser, from_state, normaliser_of
from training.data.recording import short_side_px
from training.data.rng_keys import Purpose, key_of
from training.data.routing import RoutingSettings
from training.lara.settings import LatentActionStage
from training.model.settings import Architecture, ModelSettings
from training.recipe import OnlineText, TrainRecipe
from training.run.architecture import (
    causal_settings,
    flops_of,
    footprint_for,
    learner_of,
)
from training.run.checkpoint import recipe_of
from training.run.communication import Traffic, shard_ranks_of, traffic_of
from training.run.compute import SampleFlops, matmul_peak
from training.run.data_scale import measured_spreads
from training.run.memory import (
    Memory,
    fewest_parts,
    host_bytes,
    memory_of,
    parts_that_fit,
    text_footprint,
)
from training.run.micro_batch import moved
from training.run.mishaps import Mishaps, open_mishaps
from training.run.optimiser import trained
from training.run.parallel import Ranks, gathered_in_turn, max_over_ranks, raise_on_any_rank
from training.run.restore import restore_latent_actions, restore_weights, weights_of
from training.run.resume import (
    ResumePoint,
    check_encoder,
    check_same_text,
    check_text,
    resume_on_all_ranks,
)
from training.run.run_folder import RunFacts, check_same, going_on
from training.run.session import PartsBy, RunHooks, Session, TrainRequest
from training.run.validation import Validation
from training.trainable import Trainable

HELD_OUT = "val"  # the split that is looked at while training


def open_session(
    request: TrainRequest,
    ranks: Ranks,
    device: torch.device,
    world: RunHooks,
    planned: Ranks | None = None,
) -> Session:
    """Everything that a run needs, checked.

    Args:
        planned: the first of the ranks that a run would have, for a plan alone. `ranks` are those that are here and speak to each other.

    Raises:
        ConfigError: the manifest is not what it was published as, lacks latents or statistics, does not fit the recipe, or the
            folder has a run of something else. Or another rank sees other files.
    """
    recipe, planned = request.recipe, planned or ranks
    if request.num_threads is not None:
        torch.set_num_threads(request.num_threads)
    with raise_on_any_rank(ranks):
        manifest = manifests.load(request.manifest)
        pairs = None if recipe.image_text is None else open_image_text(recipe.image_text)
        facts = _facts(request, manifest, pairs)
        check_same(
            request.out,
            facts,
            recipe,
            may_change_manifest=request.may_change_manifest,
            may_change_recipe=request.may_change_recipe,
        )
    begun = resume_on_all_ranks(request, facts, ranks)
    mishaps = open_mishaps(request.out, recipe.run, ranks)
    torch.manual_seed(
        int(key_of(recipe.seed, Purpose.INITIAL_WEIGHTS, 0)) >> 1
    )  # each as if it were alone
    with raise_on_any_rank(ranks):  # files may lie on the disk of each machine
        reader, conditioner = open_conditioner(
            recipe.text,
            manifest,
            verify_latents=request.verify_latents,
            max_bad=recipe.run.max_bad_samples,
            has_answers=recipe.image_text is not None,
        )
    check_same_text(conditioner.text_id, ranks)
    if begun.checkpoint is not None:
        online = recipe.text if begun.resumed is None else None
        check_text(begun.checkpoint, conditioner, online=online)
    with raise_on_any_rank(ranks):
        image_text = _image_text(recipe, pairs, planned, mishaps)
        loader = _loader(request, manifest, begun, reader, planned, world, mishaps, image_text)
        side_px = _short_side_px(begun, manifest)
    if begun.checkpoint is not None:
        check_encoder(begun.checkpoint, loader.encoder_id)
    _check_share(recipe, planned)
    shard_ranks_of(recipe.run, planned)
    with raise_on_any_rank(ranks):
        first = loader.batch(0)  # also the first look at whether a batch can be made at all
        validation = _validation(request, loader, planned, mishaps)
    settings = _settings(loader, conditioner, begun, ranks, device, mishaps)
    with raise_on_any_rank(ranks):
        learner = _learner(settings, conditioner, begun, request, loader.encoder_id).to(device)
    on_device = moved(first, device)
    num_text, mean_text = _text_lengths(first)
    text_bytes = text_footprint(learner, on_device, recipe)
    by_parts = _by_parts(learner, settings, recipe, num_text, text_bytes, planned)
    with raise_on_any_rank(ranks):
        num_parts, parts_by = _num_parts(recipe, by_parts, begun, planned, device)
    recipe = recipe.model_copy(
        update={
            "run": recipe.run.model_copy(update={"accumulate": max_over_ranks(num_parts, ranks)})
        }
    )
    return Session(
        request=replace(request, recipe=recipe),
        ranks=planned,
        device=device,
        facts=facts if begun.resumed is None else going_on(request.out, facts),
        loader=loader,
        learner=learner,
        settings=settings,
        resumed=begun.resumed,
        measured_state=_measured_state(begun, loader),
        short_side_px=side_px,
        mishaps=mishaps,
        validation=validation,
        num_text=num_text,
        mean_text=mean_text,
        flops=SampleFlops.of(lambda num: flops_of(learner, settings, num, recipe)),
        peak_flops=_peak(recipe, device, world),
        by_parts=by_parts,
        parts_by=parts_by,
        traffic=_traffic(learner, recipe, planned),
    )


def _facts(request: TrainRequest, manifest: Manifest, pairs: ImageTextFile | None) -> RunFacts:
    base, lam = request.init_from, request.init_lam
    return RunFacts(
        manifest=str(request.manifest.absolute()),
        manifest_name=manifest.facts.name,
        manifest_sha256=manifests.rows_sha256(manifest.rows),
        recipe_sha256=request.recipe.digest(),
        init_from="" if base is None else str(base.absolute()),
        init_averages=base is not None and request.init_averages,
        init_lam="" if lam is None else str(lam.absolute()),
        image_text_sha256="" if pairs is None else pairs.sha256,
    )


def _image_text(
    recipe: TrainRecipe, pairs: ImageTextFile | None, ranks: Ranks, mishaps: Mishaps
) -> ImageTextSource | None:
    if recipe.image_text is None or pairs is None or not isinstance(recipe.text, OnlineText):
        return None
    return ImageTextSource(
        file=pairs,
        settings=recipe.image_text,
        folder=folder_of(recipe.text.model),
        seed=recipe.seed,
        batch_size=recipe.run.batch_size,
        max_bad=recipe.run.max_bad_samples,
        rank=ranks.rank,
        world_size=ranks.world_size,
        was_replaced=mishaps.was_replaced,
    )


def _loader(
    request: TrainRequest,
    manifest: Manifest,
    begun: ResumePoint,
    reader: TextReader,
    ranks: Ranks,
    world: RunHooks,
    mishaps: Mishaps,
    image_text: ImageTextSource | None,
) -> Loader:
    embodiments, normaliser = _embodiments(begun, manifest, request.recipe)
    return Loader(
        manifest,
        request.recipe,
        reader=reader,
        rank=ranks.rank,
        world_size=ranks.world_size,
        cache=request.cache,
        embodiments=embodiments,
        normaliser=normaliser,
        num_processes=request.num_processes,
        verify_latents=request.verify_latents,
        place=request.place,
        progress=world.progress,
        was_replaced=mishaps.was_replaced,
        image_text=image_text,
    )


def _validation(
    request: TrainRequest, loader: Loader, ranks: Ranks, mishaps: Mishaps
) -> Validation | None:
    """Of split val, with the embodiments and normalisation of training; None where the recipe wants none.

    Raises:
        ConfigError: nothing is held out, or its files are not there.
    """
    recipe, manifest = request.recipe, loader.manifest
    if recipe.run.eval_every is None:
        return None
    if not len(manifest.of_split(HELD_OUT)):
        problem = f"the manifest has no segment of split {HELD_OUT}, and the recipe evaluates every {recipe.run.eval_every} steps"
        repair = "build the manifest with --val SHARE, or train with --set run.eval_every=null"
        raise ConfigError(problem, remedy=repair, where=f"manifest {manifest.facts.name}")
    reader, _ = open_conditioner(
        recipe.text,
        manifest,
        split=HELD_OUT,
        verify_latents=request.verify_latents,
        max_bad=recipe.run.max_bad_samples,
    )
    held_out = Loader(
        manifest,
        recipe.model_copy(update={"routing": RoutingSettings(min_per_batch=0)}),
        reader=reader,
        rank=ranks.rank,
        world_size=ranks.world_size,
        split=HELD_OUT,
        cache=request.cache,
        embodiments=loader.embodiments,
        normaliser=loader.normaliser,
        num_processes=request.num_processes,
        verify_latents=request.verify_latents,
        place=request.place,
        was_replaced=mishaps.was_replaced,
    )
    return Validation(held_out, recipe, ranks, mishaps)


def _embodiments(
    begun: ResumePoint, manifest: Manifest, recipe: TrainRecipe
) -> tuple[tuple[str, ...], Normaliser | None]:
    """Embodiments in the order of their layers, and how their actions are scaled: as a checkpoint has it. A base grows by new bodies."""
    resumed, base = begun.resumed, begun.base
    if resumed is not None:
        return resumed.state.embodiments, from_state(resumed.normaliser_state())
    if base is None:
        return (), None
    embodiments = grown(base.state.embodiments, bodies_of(manifest, recipe.data))
    later = normaliser_of(manifest, embodiments, recipe.data.normalise)
    return embodiments, from_state(base.normaliser_state()).joined(later)


def _measured_state(begun: ResumePoint, loader: Loader) -> dict[str, tuple[str, ...]]:
    """Embodiments of a base that this manifest does not have stay as they were."""
    before = {} if begun.checkpoint is None else begun.checkpoint.state.measured_state
    return {**before, **loader.measured_state()}


def _short_side_px(begun: ResumePoint, manifest: Manifest) -> int | None:
    """Of this manifest's corpus; where it has no videos, that of the checkpoint that the run begins with."""
    before = None if begun.checkpoint is None else begun.checkpoint.state.short_side_px
    paths = manifest.rows["dataset_path"].unique().to_pylist()
    return short_side_px(manifest.corpus, paths) or before


def _check_share(recipe: TrainRecipe, ranks: Ranks) -> None:
    share = recipe.run.batch_size // ranks.world_size
    if share % recipe.run.num_parts:
        problem = (
            f"the {share} samples of a rank are not divisible into {recipe.run.num_parts} parts"
        )
        raise ConfigError(
            problem,
            remedy="set run.accumulate to a divisor of the samples per rank",
            where="recipe key run.accumulate",
        )


def _settings(
    loader: Loader,
    conditioner: Conditioner,
    begun: ResumePoint,
    ranks: Ranks,
    device: torch.device,
    mishaps: Mishaps,
) -> AnySettings:
    """Spreads stay those that the weights learned with."""
    architecture = loader.recipe.architecture
    if not isinstance(architecture, Architecture):
        return causal_settings(architecture, loader, conditioner.width)
    before = None if begun.checkpoint is None else begun.checkpoint.state.model
    spreads = (
        before
        if isinstance(before, ModelSettings)
        else measured_spreads(loader, ranks, device, mishaps)
    )
    return ModelSettings(
        **architecture.model_dump(),
        **loader.shapes().settings(),
        text_width=conditioner.width,
        action_std=spreads.action_std,
        change_std=spreads.change_std,
    )


def _learner(
    settings: AnySettings,
    conditioner: Conditioner,
    begun: ResumePoint,
    request: TrainRequest,
    encoder_id: str,
) -> Trainable:
    """With the weights of a base, and of a latent action model. Those of this run come with its optimiser, later.

    Raises:
        ConfigError: these weights are of other shapes, there are no averages of them, or the latent action model is of other pictures.
    """
    recipe = request.recipe
    torch.manual_seed(int(key_of(recipe.seed, Purpose.INITIAL_WEIGHTS, 1)) >> 1)
    learner = learner_of(settings, conditioner, recipe)
    if begun.base is not None:
        weights = weights_of(begun.base, averaged=request.init_averages)
        restore_weights(learner, weights, where=str(begun.base.folder), may_grow=True)
    if begun.lam is not None and learner.lara is not None:
        restore_latent_actions(learner.lara, begun.lam, encoder_id=encoder_id, recipe=recipe)
    return learner


def _by_parts(
    learner: Trainable,
    settings: AnySettings,
    recipe: TrainRecipe,
    num_text: int,
    text_bytes: int,
    ranks: Ranks,
) -> dict[int, Memory]:
    """For every number of parts that divides a rank's share. What LARA keeps for the backward pass is not counted.

    Args:
        text_bytes: of a sample, that trained layers of a language model keep.
    """
    share = recipe.run.batch_size // ranks.world_size
    footprint = footprint_for(settings, num_text, recipe)
    if isinstance(recipe.lara, LatentActionStage):
        footprint = replace(footprint, block=0, stream=0, rest=0)
    footprint = replace(footprint, rest=footprint.rest + text_bytes)
    num_parameters, in_turn = trained_and_in_turn(learner)
    return {
        number: memory_of(
            footprint,
            recipe,
            num_layers=settings.num_layers,
            num_parameters=num_parameters,
            block_parameters=max(in_turn, default=0),
            root_parameters=num_parameters - sum(in_turn),
            world_size=ranks.world_size,
            num_parts=number,
            shard_ranks=shard_ranks_of(recipe.run, ranks),
            frozen_bytes=learner.conditioner.frozen_bytes,
        )
        for number in range(1, share + 1)
        if share % number == 0
    }


def _traffic(learner: Trainable, recipe: TrainRecipe, ranks: Ranks) -> Traffic:
    num_parameters, in_turn = trained_and_in_turn(learner)
    return traffic_of(
        recipe.run,
        ranks,
        num_parameters=num_parameters,
        block_parameters=sum(in_turn),
        num_parts=recipe.run.num_parts,
    )


def trained_and_in_turn(learner: Trainable) -> tuple[int, list[int]]:
    """Parameters that are trained: of all, and of each block that FSDP2 gathers when it is its turn."""
    of = [sum(p.numel() for p in trained(x).values()) for x in gathered_in_turn(learner)]
    return sum(p.numel() for p in trained(learner).values()), of


def _num_parts(
    recipe: TrainRecipe,
    by_parts: dict[int, Memory],
    begun: ResumePoint,
    ranks: Ranks,
    device: torch.device,
) -> tuple[int, PartsBy]:
    """As the recipe says. "auto": as the run was trained so far by as many ranks, else what fits the device by the estimate.

    Raises:
        ConfigError: nothing fits a GPU.
    """
    run = recipe.run
    if run.accumulate != "auto":
        return run.accumulate, "recipe"
    if begun.resumed is not None and begun.resumed.state.world_size == ranks.world_size:
        before = recipe_of(begun.resumed).run
        if before.batch_size == run.batch_size and before.accumulate != "auto":
            return before.accumulate, "checkpoint"
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        return parts_that_fit(by_parts, total), "estimate"
    # A machine without a GPU may be there to plan for one: it is not refused.
    own = host_bytes() // ranks.local_world_size
    return fewest_parts(by_parts, own) or max(by_parts), "estimate"


def _text_lengths(batch: Batch) -> tuple[int, float]:
    """Tokens of the longest text of a batch, and those of its distinct texts for each sample."""
    layout = batch.text_inputs.layout
    return layout.longest, layout.num_rows / len(layout.text_of)


def _peak(recipe: TrainRecipe, device: torch.device, world: RunHooks) -> float:
    dtype = torch.bfloat16 if recipe.run.precision == "bf16" else torch.float32
    return matmul_peak(device, dtype, world.clock_s)
