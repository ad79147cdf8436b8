"""Batches of a manifest's split, in an order that is a pure function of (seed, step): whatever workers, ranks and restarts there are.

A step is a global batch: `training/data/sampler.py` says which samples it has and what each is trained on, and each rank makes its share of it. So the state of a loader is the number of the next step, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import ConfigError
from schemas.manifest import Manifest, ManifestRow
from schemas.supervision import Task
from training.batch import Batch
from training.conditioning.protocol import TextReader
from training.data.action_layout import ACTION_WIDTH, check_known
from training.data.actions import ActionStore, default_cache, open_actions
from training.data.block_cache import CacheCounts
from training.data.broken import first_readable
from training.data.camera_views import (
    again,
    encoder_of,
    files_of_views,
    latents_of_views,
    refuse_missing,
)
from training.data.counts import Counts, counts_of
from training.data.file_check import refuse_absent
from training.data.image_text import ImageTextSource
from training.data.latent_reader import LatentReader, LatentShape, common_shape
from training.data.latent_targets import LatentTargets, bodies_of, open_targets, paths_of
from training.data.latent_traffic import LatentTraffic, traffic_of
from training.data.loader_process import process_batches
from training.data.normalise import Normaliser, normaliser_of
from training.data.prefetch import BatchSource, prefetch
from training.data.recording import STATE_WIDTH
from training.data.replaced import Attempts, Replacer
from training.data.rng_keys import Ints
from training.data.sample_index import SampleIndexRequest, open_sample_index
from training.data.sampler import Drawn, Draws, check_low_policy_share
from training.data.samples import Assembler
from training.data.steps import StepSource
from training.data.stored_latents import CORPUS_FOLDER, LatentPlace, stored_latents, with_cache
from training.data.windows import Mask, window_of
from training.lara.settings import JointStage
from training.recipe import DataSettings, TrainRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """What the data decides of `ModelSettings`; `settings()` are its keys but for the text's width."""

    latent_width: int
    num_patches: int
    num_views: int
    num_past: int
    action_width: int
    num_history: int
    num_actions: int
    state_width: int
    num_embodiments: int

    def settings(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class Loader:
    """One split of a manifest for one rank. Everything that can be refused is refused here, before the first step.

    Pictures of a batch are bfloat16 where they are stored so: `training.run.micro_batch.moved` makes float32 of them on the device.
    """

    def __init__(
        self,
        manifest: Manifest,
        recipe: TrainRecipe,
        *,
        reader: TextReader,
        rank: int = 0,
        world_size: int = 1,
        split: str = "train",
        cache: Path | None = None,
        embodiments: Sequence[str] = (),
        normaliser: Normaliser | None = None,
        num_processes: int = 1,
        verify_latents: bool = False,
        progress: Callable[[int, int], None] = lambda done, whole: None,
        was_replaced: Attempts | None = None,
        place: LatentPlace = CORPUS_FOLDER,
        image_text: ImageTextSource | None = None,
    ) -> None:
        """
        Args:
            cache: where derived tables are kept; default beside the manifests, where `eicorpus forget` removes them.
            embodiments, normaliser: of a checkpoint; nothing for those of the manifest.
            num_processes: that derive the actions, the first time. progress: (parts made, parts).
            verify_latents: read each file of latents whole once and compare its sha256.
            was_replaced: samples of the run that were replaced before. place: where latents are read.
            image_text: pairs beside the samples of a step.

        Raises:
            ConfigError: the manifest, its latents or its statistics do not fit the recipe, or there is nothing to draw.
        """
        _check_recipe(recipe, world_size)
        self.manifest, self.recipe, data = manifest, recipe, recipe.data
        self.rank, self.world_size, self.split = rank, world_size, split
        self.embodiments = _embodiments(manifest, recipe.data, embodiments)
        self.encoder_id = encoder_of(manifest, data.encoder)
        stored = stored_latents(manifest.corpus, place, data.latent_cache)
        self._opener = None if stored is None else stored[0]
        if verify_latents and stored is not None:
            raise ConfigError(
                "latents are read by parts, so no file is read whole",
                remedy="run `eicorpus verify` on the corpus",
                where="--verify-latents",
            )
        is_seen = self._is_seen()
        self.latent_shape = shape = self._shape(is_seen)
        self.window = window_of(
            data,
            rate_hz=shape.rate_hz,
            grid_stride=shape.grid_stride,
            later_s=recipe.lara.future_s if isinstance(recipe.lara, JointStage) else None,
        )
        self.normaliser = normaliser or normaliser_of(manifest, self.embodiments, data.normalise)
        self.targets = self._targets(verify_latents=verify_latents)
        cache = cache or default_cache(manifest.corpus)
        store = open_actions(
            manifest,
            cache=cache,
            with_state=data.with_state,
            num_processes=num_processes,
            progress=progress,
        )
        self.anchors = open_sample_index(self._anchor_work(store, is_seen), cache)
        self.draws = Draws(
            self.anchors,
            recipe.routing,
            seed=recipe.seed,
            batch_size=recipe.run.batch_size,
            label_share=0.0 if data.latent_actions is None else data.latent_actions.share,
        )
        if stored is not None:
            self._opener = with_cache(*stored, place, shape)
        latents = LatentReader(
            manifest.corpus, shape, with_digest=verify_latents, opener=self._opener
        )
        assembler = self._assembler(store, latents, reader)
        self.source = BatchSource(
            draws=self.draws, assembler=assembler, rank=rank, world_size=world_size
        )
        self.image_text = image_text
        self.replacer = Replacer(
            source=self.source,
            max_bad=recipe.run.max_bad_samples,
            was_replaced=was_replaced or {},
        )
        self.steps = StepSource(
            replacer=self.replacer,
            image_text=image_text,
            cache=None if stored is None else stored[1],
            num_workers=recipe.run.num_workers,
        )

    def _is_seen(self) -> Mask:
        """[S] rows of the manifest that have a view with latents. In a folder all of them of this split are there."""
        manifest, data = self.manifest, self.recipe.data
        paths, row = files_of_views(manifest.rows, self.encoder_id, data.cameras)
        is_seen = np.zeros(len(manifest), dtype=bool)
        is_seen[row] = True
        refuse_missing(manifest, is_seen, self.encoder_id, data)
        if self._opener is None:  # a store is asked when a file is read
            refuse_absent(
                manifest.corpus,
                paths.filter(pa.array(self._in_split()[row])),
                what="latents",
                repair=f"copy the files, or {again(manifest, self.encoder_id)}",
            )
        return is_seen

    def _targets(self, *, verify_latents: bool) -> LatentTargets | None:
        """The latent actions that are trained, all of whose files of this split are on disk; their scale goes into `normaliser`."""
        manifest, data = self.manifest, self.recipe.data
        if data.latent_actions is None:
            return None
        targets = open_targets(manifest, data, self.latent_shape, verify_latents=verify_latents)
        refuse_absent(
            manifest.corpus,
            paths_of(manifest, targets.encoder_id, targets.is_labelled & self._in_split()),
            what="latent actions",
            repair=f"copy the files, or run `eicorpus latents actions {manifest.corpus}` again",
        )
        self.normaliser = targets.scaled(self.normaliser)
        return targets

    def _in_split(self) -> Mask:
        """[S] rows of the manifest."""
        return np.asarray(pc.equal(self.manifest.rows["split"], self.split).to_numpy())

    def _shape(self, is_seen: Mask) -> LatentShape:
        """By the first file of this split that can be read: files of others need not be there. By any where it has none."""
        seen = np.flatnonzero(is_seen)
        own = seen[self._in_split()[seen]]
        index = (own if len(own) else seen).tolist()
        max_bad = self.recipe.run.max_bad_samples
        return first_readable(self.manifest, index, self._shape_of, max_bad=max_bad)

    def _shape_of(self, row: ManifestRow) -> LatentShape:
        views = latents_of_views(row.latents, self.encoder_id, self.recipe.data.cameras)
        present = [latent for latent in views if latent is not None]
        return common_shape(self.manifest.corpus, present, row.uid, self._opener)

    def _anchor_work(self, store: ActionStore, is_seen: Mask) -> SampleIndexRequest:
        return SampleIndexRequest(
            manifest=self.manifest,
            split=self.split,
            embodiments=self.embodiments,
            store=store,
            normaliser=self.normaliser,
            window=self.window,
            routing=self.recipe.routing,
            is_seen=is_seen,
            is_labelled=(
                np.zeros(len(self.manifest), dtype=bool)
                if self.targets is None
                else self.targets.is_labelled
            ),
            label_steps=0 if self.targets is None else self.targets.steps,
        )

    def _assembler(
        self, store: ActionStore, latents: LatentReader, reader: TextReader
    ) -> Assembler:
        return Assembler(
            window=self.window,
            store=store,
            normaliser=self.normaliser,
            latents=latents,
            encoder_id=self.encoder_id,
            cameras=self.recipe.data.cameras,
            reader=reader,
            with_state=self.recipe.data.with_state,
            targets=self.targets,
        )

    def measured_state(self) -> dict[str, tuple[str, ...]]:
        """Of each embodiment that acts, the slices of its state that any recording measured; empty where no state is read."""
        if not self.recipe.data.with_state:
            return {}
        store = self.source.assembler.store
        out: dict[str, frozenset[str]] = {}
        segments = self.anchors.segments
        for embodiment, part in np.unique(segments[["embodiment", "part"]]).tolist():
            if part >= 0:
                name = self.embodiments[embodiment]
                out[name] = out.get(name, frozenset()) | store.open_part(part).measured
        return {name: tuple(sorted(slices)) for name, slices in out.items()}

    def shapes(self) -> Shapes:
        """For the network that is to learn from these batches."""
        data = self.recipe.data
        return Shapes(
            latent_width=self.latent_shape.width,
            num_patches=self.latent_shape.num_patches,
            num_views=len(data.cameras),
            num_past=len(data.past_s),
            action_width=ACTION_WIDTH,
            num_history=data.num_history,
            num_actions=data.num_actions,
            state_width=STATE_WIDTH if data.with_state else 0,
            num_embodiments=len(self.embodiments),
        )

    def counts(self) -> Counts:
        """What there is to draw, and what is left out: to be shown before the first step."""
        return counts_of(self.draws, self.manifest, split=self.split, embodiments=self.embodiments)

    @property
    def steps_per_epoch(self) -> float:
        """Global batches until as many samples were drawn as there are anchors."""
        return self.draws.num_draws / self.recipe.run.batch_size

    def batch(self, step: int) -> Batch:
        """This rank's share of global batch `step`, made here and now.

        Raises:
            SourceError: more samples cannot be read than `run.max_bad_samples`; the message has the address of one.
        """
        return self.steps.batch(step)

    def batches(
        self,
        first_step: int = 0,
        *,
        pin_memory: bool = False,
        warn: Callable[[str], None] = lambda message: None,
    ) -> Generator[Batch]:
        """Batches from `first_step` on, without end, made ahead by `recipe.run.num_workers` threads, of this process or of another.

        Args:
            warn: as of `LoaderProcess`.

        Raises:
            SourceError: when the batch that has the broken sample is asked for.
        """
        if self.recipe.run.loader == "threads":
            yield from self.steps.batches(first_step, pin_memory=pin_memory)
            return
        # In the slots they are ahead enough.
        batches_from = partial(self.steps.batches, ahead=0)
        yield from process_batches(batches_from, first_step, pin_memory=pin_memory, warn=warn)

    def latent_traffic(self) -> LatentTraffic:
        """What reading pictures of the recipe's batch takes."""
        return traffic_of(
            self.latent_shape,
            self.window,
            num_views=len(self.recipe.data.cameras),
            batch_size=self.recipe.run.batch_size,
        )

    @property
    def cache_counts(self) -> CacheCounts | None:
        """Of blocks that this process asked the cache of latents for."""
        cache = None if self._opener is None else self._opener.cache
        return None if cache is None else cache.counts

    def every(
        self, task: Task, *, batch_size: int, num_samples: int | None = None
    ) -> Iterator[Batch]:
        """One pass over `places`, here and now."""
        yield from self.at(self.places(task, num_samples), batch_size=batch_size)

    def places(self, task: Task, num_samples: int | None = None) -> Drawn:
        """What this task can be evaluated on, in a fixed order. Of a rank, its stretch.

        Args:
            num_samples: of all ranks, evenly spread over the split; None for every anchor.
        """
        drawn = self.draws.every(task, num_samples)
        cuts = np.linspace(0, len(drawn.now), self.world_size + 1).astype(int)
        return drawn.part(slice(cuts[self.rank], cuts[self.rank + 1]))

    @property
    def stored_source(self) -> BatchSource:
        """Whose batches have actions as they are stored, too."""
        return replace(self.source, assembler=replace(self.source.assembler, keeps_stored=True))

    def at(
        self, places: Drawn, *, batch_size: int, num_workers: int = 0, pin_memory: bool = False
    ) -> Iterator[Batch]:
        """Batches of these places in their order, with actions as they are stored; the last may be smaller. `num_workers` threads make them ahead."""
        source = self.stored_source

        def batch_from(first: int) -> Batch:
            return source.load(places.part(slice(first, first + batch_size)))

        firsts = range(0, len(places.now), batch_size)
        yield from prefetch(batch_from, firsts, num_workers, pin_memory=pin_memory)

    def replaced_at(
        self, drawn: Drawn, step: int, places: Ints, *, batch_size: int, num_workers: int = 0
    ) -> Iterator[Batch]:
        """Batches of these samples in their order; those that cannot be read are replaced as in global batch `step` at `places`.

        Raises:
            SourceError: more samples of a batch cannot be read than `run.max_bad_samples`.
        """

        def batch_from(first: int) -> Batch:
            part = slice(first, first + batch_size)
            return self.replacer.load(drawn.part(part), step, places[part])

        yield from prefetch(batch_from, range(0, len(drawn.now), batch_size), num_workers)


def _check_recipe(recipe: TrainRecipe, world_size: int) -> None:
    if recipe.run.batch_size % world_size:
        problem = (
            f"a global batch of {recipe.run.batch_size} is not divisible by {world_size} ranks"
        )
        raise ConfigError(
            problem,
            remedy="set run.batch_size to a multiple of the number of ranks",
            where="recipe key run.batch_size",
        )
    check_low_policy_share(recipe.routing)


def _embodiments(manifest: Manifest, data: DataSettings, known: Sequence[str]) -> tuple[str, ...]:
    """Those of a checkpoint, which must know all that are here, or those of the manifest."""
    here = bodies_of(manifest, data)
    bodies = tuple(known) or here
    check_known(bodies, here, where=f"manifest {manifest.facts.name}")
    return bodies
