"""The work of `eicorpus latents images`: opens the encoder and encodes on this machine or on Ray."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.writer import writing
from ingest.executors.inline import InlineExecutor
from ingest.executors.local import LocalExecutor
from ingest.executors.node_proof import sampled_files, shared
from ingest.executors.ray_actors import RayActors
from ingest.latents.backends import EncodeBackend, LocalBackend, RayBackend
from ingest.latents.cost_estimate import bytes_of, estimate_cost
from ingest.latents.encode_file import PIECE_PICTURES, LatentMaker
from ingest.latents.plan import Packing, todo_of
from ingest.latents.run import LatentTally, encode_corpus
from ingest.models.encoder import EncoderChoice, ImageEncoder, num_gpus
from ingest.storage.local import LocalStorage
from jobs.machine import refuse_without_room, usable_cores
from jobs.ray_token import require_token
from jobs.run_context import new_run_id
from jobs.stages.failures import retry_message
from jobs.stages.resources import limits_from
from jobs.ui.latents_plan import EncodePlace, LatentsPlan
from jobs.ui.latents_report import LatentsProgress
from jobs.ui.output import size_text, warn
from schemas.latent_pack import PACK_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesRequest:
    """The options. `workers` None: depends on the device; `pack_bytes` 0: no packs."""

    choice: EncoderChoice
    cameras: tuple[str, ...]
    where: str
    workers: int | None
    is_on_ray: bool
    address: str | None
    pack_bytes: int = PACK_BYTES


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImagesResult:
    """What a run did. `failure`: why it exits with 1; "" if it does not."""

    plan: LatentsPlan
    tally: LatentTally
    snapshot: int
    elapsed_s: float

    @property
    def failure(self) -> str:
        return retry_message(self.tally.failed, self.tally.discovered, "videos")


def plan_images(corpus: CorpusLayout, request: ImagesRequest) -> LatentsPlan:
    """What `run_images` would do. Changes nothing."""
    held = _opened(request)
    place = _on_some_cluster() if request.is_on_ray else _here(held, _workers(request, held))
    return _plan(corpus, snapshot.load(corpus.root), held, request, place)


def run_images(
    corpus: CorpusLayout,
    request: ImagesRequest,
    *,
    on_plan: Callable[[LatentsPlan], None] = lambda plan: None,
) -> ImagesResult:
    """Encode what is missing. Shows progress on standard error.

    Args:
        on_plan: called with the plan before the work.
    """
    choice, held = request.choice, _opened(request)
    workers = _workers(request, held)
    making: EncodeBackend
    if request.is_on_ray:
        actors = _actors(request, workers)
        batch = choice.batch or PIECE_PICTURES
        making = RayBackend(choice, held.id, actors, batch, time.monotonic)
        place = _on(actors)
    else:
        making, place = _local(held, workers), _here(held, workers)
    return _run(corpus, held, making, request, place, on_plan)


def _opened(request: ImagesRequest) -> ImageEncoder:
    """On Ray the GPUs belong to the actors: this process needs the encoder for its id and a probe."""
    choice = request.choice
    return ImageEncoder.open(replace(choice, device="cpu") if request.is_on_ray else choice)


def _workers(request: ImagesRequest, held: ImageEncoder) -> int:
    """Decode processes. One keeps an encoder on a CPU busy, and more would take its cores."""
    if request.workers is not None:
        return request.workers
    return usable_cores() if request.is_on_ray or held.device == "cuda" else 1


def _local(encoder: ImageEncoder, workers: int) -> LocalBackend:
    executor = LocalExecutor(workers, limits_from()) if workers else InlineExecutor()
    return LocalBackend(LatentMaker(encoder=encoder, monotonic_s=time.monotonic), executor)


def _actors(request: ImagesRequest, workers: int) -> RayActors:
    if request.address is None:
        require_token()
    actors = RayActors(
        limits_from(),
        address=request.address,
        workers=max(workers, 1),
        notify=warn,
        gpus_each=0.0 if request.choice.device == "cpu" else request.choice.gpu_share,
    )
    actors.connect()  # before a corpus is touched: a wrong address is the caller's mistake
    return actors


def _here(encoder: ImageEncoder, workers: int) -> EncodePlace:
    idle = num_gpus() - 1 if encoder.device == "cuda" else 0
    return EncodePlace(name=encoder.device, workers=max(workers, 1), idle_gpus=max(idle, 0))


def _on(actors: RayActors) -> EncodePlace:
    count, gpu_share = actors.planned()
    workers = actors.num_tasks()
    return EncodePlace(name="Ray", workers=workers, encoders=count, is_measured=gpu_share == 0)


def _on_some_cluster() -> EncodePlace:
    """A dry run starts and joins none."""
    return EncodePlace(name="Ray", workers=None, encoders=None, is_measured=False)


def _plan(
    corpus: CorpusLayout,
    current: Snapshot,
    held: ImageEncoder,
    request: ImagesRequest,
    place: EncodePlace,
) -> LatentsPlan:
    todo = todo_of(corpus, current, held.id, cameras=request.cameras, where=request.where)
    estimate = estimate_cost(todo, held, time.monotonic) if len(todo) else None
    return LatentsPlan(
        todo=todo,
        encoder=held,
        probe=estimate,
        place=place,
        cameras=request.cameras,
        packing=_packing(held, request.pack_bytes),
    )


def _run(
    corpus: CorpusLayout,
    held: ImageEncoder,
    making: EncodeBackend,
    request: ImagesRequest,
    place: EncodePlace,
    on_plan: Callable[[LatentsPlan], None],
) -> ImagesResult:
    disk = LocalStorage(corpus.root)
    with writing(corpus, disk):
        current = snapshot.load(corpus.root)
        plan = _plan(corpus, current, held, request, place)
        on_plan(plan)
        refuse_without_room(corpus.root, plan.num_bytes, _ways(plan))
        started_s = time.monotonic()
        files = partial(sampled_files, corpus.root / "datasets")
        executor = making.actors if isinstance(making, RayBackend) else InlineExecutor()
        with (
            LatentsProgress(plan, time.monotonic) as live,
            shared(executor, corpus, disk, files=files),
        ):
            tally, current = encode_corpus(
                plan.todo,
                current,
                making,
                run_id=new_run_id(),
                disk=disk,
                packing=plan.packing,
                progress=live.update,
            )
    return ImagesResult(
        plan=plan,
        tally=tally,
        snapshot=current.number,
        elapsed_s=time.monotonic() - started_s,
    )


def _packing(encoder: ImageEncoder, pack_bytes: int) -> Packing | None:
    if not pack_bytes:
        return None
    choice = encoder.choice
    return Packing(
        encoder_id=encoder.id,
        pack_bytes=pack_bytes,
        picture_bytes=bytes_of(choice, 1, choice.storage),
        grid_stride=choice.grid_stride,
    )


def _ways(plan: LatentsPlan) -> str:
    """To write less."""
    eight = size_text(bytes_of(plan.encoder.choice, plan.num_pictures, "int8"))
    return f"encode less with --camera NAME, --where SQL or a larger --stride; --dtype int8 needs {eight}"
