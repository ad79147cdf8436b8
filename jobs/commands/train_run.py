"""A training run in this process, which may be one of several that torchrun started: signals, clock, progress, logs."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jobs.run_context import StopRequest
from jobs.ui.output import answer_json, stderr, warn
from jobs.ui.progress import ProgressLine
from jobs.ui.train_report import progress_note, show_done, show_idle_gpus, show_plan, sinks_of
from schemas.errors import ConfigError
from training.run.build import open_session
from training.run.checkpoint import checkpoints
from training.run.parallel import Ranks, device_for, gpus_in_reach, joined
from training.run.run_folder import forget_stop, held, is_stop_requested, logged, write_result
from training.run.session import RunHooks, TrainRequest


def ranks_from() -> Ranks:
    """Rank and world size from the environment of torchrun; one process without it.

    Raises:
        ConfigError: a variable is not a number.
    """
    try:
        from_environment = {
            name: int(os.environ.get(variable, default))
            for name, variable, default in (
                ("rank", "RANK", "0"),
                ("world_size", "WORLD_SIZE", "1"),
                ("local_rank", "LOCAL_RANK", "0"),
                ("local_world_size", "LOCAL_WORLD_SIZE", "1"),
            )
        }
    except ValueError as error:
        raise ConfigError(f"not a number: {error}", where="RANK, WORLD_SIZE, LOCAL_RANK") from error
    return Ranks(**from_environment)


def run_here(request: TrainRequest, *, wandb: str | None, as_json: bool) -> None:
    """Raises KeyboardInterrupt when it was asked to stop; by then a checkpoint is written."""
    ranks = ranks_from()
    device = device_for(ranks, request.device)
    if (num := gpus_in_reach(ranks, device)) > 1:
        show_idle_gpus(num, sys.argv[1:])
    stop = StopRequest()
    with joined(ranks, device), stop.listening():
        result = train(request, ranks, stop, wandb=wandb, forgets_stop=not _is_restart())
    answer(result, as_json=as_json, is_shown=ranks.is_first)


def _is_restart() -> bool:
    """Whether torchrun restarted this process: an earlier stop request stays valid then."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def answer(result: dict[str, Any], *, as_json: bool, is_shown: bool = True) -> None:
    """Raises KeyboardInterrupt when it was asked to stop: there is nothing to answer then."""
    if is_shown and as_json and not result["interrupted"]:
        answer_json(result)
    elif is_shown and not as_json:
        show_done(result)
    if result["interrupted"]:
        raise KeyboardInterrupt


def train(
    request: TrainRequest,
    ranks: Ranks,
    should_stop: StopRequest,
    *,
    wandb: str | None,
    forgets_stop: bool,
) -> dict[str, Any]:
    """What came of it, for `--json`. The process group is joined already, where there is one.

    Args:
        forgets_stop: a wish that the run stop is of the run before, not of this one.

    Raises:
        ConfigError: it does not fit, or another process trains into the same folder.
    """
    started = time.monotonic()

    def is_requested() -> bool:
        return should_stop() or (ranks.is_first and is_stop_requested(request.out))

    device = device_for(ranks, request.device)
    with ProgressLine(stderr, "train", is_shown=ranks.is_first) as shown:
        session = open_session(request, ranks, device, _opening(shown))
        if ranks.is_first:
            show_plan(session, is_all=False)
        last = logged(request.out, session.first_step)  # all there is to tell where no step is left
        with ExitStack() as stack:
            if ranks.is_first:
                stack.enter_context(held(request.out))
            if ranks.is_first and forgets_stop:
                forget_stop(request.out)
            sinks = sinks_of(session, wandb, stack) if ranks.is_first else []

            def on_log(line: dict[str, Any]) -> None:
                line = line | {"elapsed_s": round(time.monotonic() - started, 3)}
                last.update(line)
                for sink in sinks:
                    sink(line)
                shown.update(note=progress_note(line))

            first, end = session.first_step, session.end
            shown.update(first, first=first, total=end, what="train", note="")
            done = session.run(
                RunHooks(
                    clock_s=time.perf_counter,
                    should_stop=is_requested,
                    on_log=on_log,
                    stepped=shown.update,
                    warn=warn,
                )
            )
    result = {
        "run": str(request.out),
        "resumed_from": session.first_step,
        "num_steps": session.end,
        "interrupted": done < session.end,
        "checkpoint": _newest(request.out),
        "parameters": session.estimate().parameters["total"],
        "elapsed_s": round(time.monotonic() - started, 3),
        "step": done,
    } | {key: value for key, value in last.items() if key not in ("step", "elapsed_s")}
    if ranks.is_first:
        write_result(request.out, result)
    return result


def _opening(shown: ProgressLine) -> RunHooks:
    """What a session that is being opened sees: its progress is that of actions that are derived."""

    def derived(done: int, total: int) -> None:
        shown.update(done, total=total, what="actions")

    return RunHooks(clock_s=time.perf_counter, progress=derived)


def _newest(out: Path) -> str | None:
    saved = checkpoints(out)
    return str(saved[-1].folder) if saved else None


USUAL_RANKS = 8  # of a machine: most with GPUs have so many


def planned_ranks(num: int, per_machine: int | None) -> Ranks | None:
    """The first of `num` ranks that are not here; None where one is asked for: those that are here then."""
    if num == 1:
        return None
    return Ranks(world_size=num, local_world_size=min(num, per_machine or USUAL_RANKS))


def dry(request: TrainRequest, planned: Ranks | None = None, *, as_json: bool) -> None:
    """What a run would be, on this machine or on these ranks; nothing is written but the cache of derived actions."""
    ranks = ranks_from()
    device = device_for(ranks, request.device)
    is_shown = ranks.is_first and not as_json
    with joined(ranks, device), ProgressLine(stderr, "train", is_shown=is_shown) as shown:
        session = open_session(request, ranks, device, _opening(shown), planned)
    if not ranks.is_first:
        return
    if as_json:
        counts = session.loader.counts()
        answer_json(
            session.estimate().as_object()
            | {"counts": counts, "first_step": session.first_step, "num_steps": session.end}
            | {"device": str(session.device), "world_size": session.ranks.world_size}
            | {"local_world_size": session.ranks.local_world_size}
            | {"language_model": session.language_model(), "image_text": session.image_text()}
        )
    else:
        show_plan(session, is_all=True)
