"""A training run on Ray Train: the same loop in every worker, on whatever machines the cluster has.

Every worker must see the corpus and the run's folder under the same path. A worker that dies ends the run; the same command resumes it.
A signal to the command asks the first worker to stop through a file in the run's folder, because Ray hands none on.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray.train import RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from ingest.executors.ray import RayExecutor
from jobs.commands.train_run import answer, train
from jobs.machine import usable_cores
from jobs.ray_token import require_token
from jobs.run_context import StopRequest
from jobs.stages.resources import limits_from
from schemas.errors import ConfigError, PipelineError, TransientError
from training.run.parallel import BACKENDS, Ranks
from training.run.run_folder import ask_to_stop, forget_stop, load_result
from training.run.session import TrainRequest

FOLDER = "ray"  # of Ray's own state, in a run


def run_on_ray(
    request: TrainRequest,
    num_workers: int,
    *,
    address: str | None,
    wandb: str | None,
    as_json: bool,
) -> None:
    """
    Raises:
        PipelineError: that of a worker, as if it had happened here; TransientError when one died.
        KeyboardInterrupt: it was asked to stop; by then a checkpoint is written.
    """
    request = _absolute(request)
    workers = max(usable_cores(), num_workers + 1)  # one more: Ray's controller is a worker, too
    if address is None:
        require_token()
    executor = RayExecutor(limits_from(), address=address, workers=workers)
    executor.connect()
    forget_stop(request.out)
    stop = StopRequest(on_stop=partial(ask_to_stop, request.out))
    try:
        with stop.listening():
            result = _aside(partial(_fit, request, num_workers, wandb))
    finally:
        if executor.is_ours:
            ray.shutdown()
    answer(result, as_json=as_json)


def _absolute(request: TrainRequest) -> TrainRequest:
    """Ray's workers run elsewhere."""
    paths = {name: getattr(request, name) for name in ("manifest", "out", "init_from", "cache")}
    return replace(request, **{k: path.absolute() for k, path in paths.items() if path is not None})


def _aside(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """In another thread: in the main one Ray Train takes SIGINT for itself, aborts without a checkpoint, and exits with 0."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="ray-train")
    try:
        return pool.submit(work).result()
    finally:
        pool.shutdown(wait=False)


def _fit(request: TrainRequest, num_workers: int, wandb: str | None) -> dict[str, Any]:
    use_gpu = request.device == "cuda" or (request.device == "auto" and _has_gpus(num_workers))
    if not use_gpu:
        _check_cpus(num_workers)
    request = replace(request, device="cuda" if use_gpu else "cpu")
    request = replace(
        request, num_threads=None
    )  # Ray gives a worker its cores, and torch as many threads
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"request": request, "wandb": wandb},
        scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=use_gpu),
        torch_config=TorchConfig(backend=BACKENDS["cuda" if use_gpu else "cpu"]),
        run_config=RunConfig(name=FOLDER, storage_path=str(request.out)),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise _of_worker(error) from error
    return load_result(request.out)


def _has_gpus(num_workers: int) -> bool:
    """
    Raises:
        ConfigError: there are some, but not one for each worker: days on CPUs are not what was meant.
    """
    num = int(ray.cluster_resources().get("GPU", 0))
    if 0 < num < num_workers:
        problem = f"{num_workers} workers need a GPU each, and the cluster has {num} now"
        repair = f"use --ray-workers {num}, or --device cuda to wait for more, or --device cpu"
        raise ConfigError(problem, remedy=repair, where="--ray-workers")
    return num > 0


def _check_cpus(num_workers: int) -> None:
    """
    Raises:
        ConfigError: the cluster lends CPUs, but not one for each worker: Ray Train would wait without a word.
    """
    num = int(ray.cluster_resources().get("CPU", 0))
    if 0 < num < num_workers:
        lack = f"{num_workers} workers need a CPU each, and the cluster has {num} now"
        raise ConfigError(
            lack, remedy=f"use --ray-workers {num}, or add nodes", where="--ray-workers"
        )


def _worker(config: dict[str, Any]) -> None:
    """In every process of the cluster's; Ray has joined them."""
    context = get_context()
    ranks = Ranks(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        local_rank=get_device().index or 0,  # Ray decides which GPUs a worker sees
        local_world_size=context.get_local_world_size(),
    )
    # The command has forgotten what was asked before, and may have been asked since.
    train(config["request"], ranks, StopRequest(), wandb=config["wandb"], forgets_stop=False)


def _of_worker(error: TrainingFailedError) -> PipelineError:
    """The error of the first worker that failed."""
    failures = error.worker_failures if isinstance(error, WorkerGroupError) else {}
    for _, failure in sorted(failures.items()):
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, PipelineError):
                return cause
            cause = getattr(cause, "_base_exc", None) or cause.__cause__
    message = f"a worker failed: {error}"
    return TransientError(
        message, remedy="run the same command again to resume", where="eicorpus train --ray"
    )
