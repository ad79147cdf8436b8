"""Where the lines of a training run go: its log, TensorBoard, Weights & Biases."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError
from schemas.regular_file import read_regular
from training.run.event_log import EventLog, scalars
from training.run.run_folder import append_log
from training.run.session import Session

WANDB_ID = "wandb_id"  # in a run: which run of W&B has its lines


def sinks_of(session: Session, wandb: str | None, stack: ExitStack) -> list[Any]:
    """Where lines go: the run's log, TensorBoard where it is installed, W&B where it is asked for."""
    out = session.request.out
    sinks: list[Any] = [lambda line: append_log(out, line)]
    try:
        events = EventLog(out, session.first_step)
    except ModuleNotFoundError:  # of the extra only tensorboard may be left out
        pass
    else:
        stack.callback(events.close)
        sinks.append(events.add)
    if wandb is not None:
        sinks.append(_to_wandb(session, wandb, stack))
    return sinks


def _to_wandb(session: Session, project: str, stack: ExitStack) -> Any:
    """Raises ConfigError where the extra is missing."""
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise ConfigError("pip install 'eicorpus[wandb]'", where="--wandb") from error
    request = session.request
    run = wandb.init(
        project=project,
        name=request.out.name,
        id=_wandb_id(request.out),
        resume="allow",
        config=request.recipe.model_dump(mode="json"),
        dir=str(request.out),
    )
    stack.callback(run.finish)
    return lambda line: run.log(dict(scalars(line)), step=line["step"])


def _wandb_id(out: Path) -> str:
    """Drawn once for a folder, and then its own: another folder is another run, though its recipe and manifest be the same. A copy of it takes it along."""
    path = out / WANDB_ID
    kept = read_regular(path, max_bytes=100).decode() if path.exists() else ""
    if not kept:  # or empty where power went as it was written
        path.write_text(kept := secrets.token_hex(8))
    return kept
