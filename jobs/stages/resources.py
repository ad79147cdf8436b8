"""Where the work of a command runs: this process, worker processes, or Ray."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from ingest.executors.inline import Executor, InlineExecutor
from ingest.recipe import Limits
from jobs.machine import usable_cores
from jobs.ray_token import require_token
from jobs.ui.output import warn
from schemas.errors import ConfigError
from schemas.invalid import invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The options `--workers`, `--ray` and `--address`. `workers` None: one per core."""

    workers: int | None = None
    use_ray: bool = False
    address: str | None = None

    @property
    def is_on_ray(self) -> bool:
        return self.use_ray or self.address is not None

    @property
    def num_workers(self) -> int:
        return usable_cores() if self.workers is None else self.workers

    def executor(self, limits: Limits, *, usual_workers: int | None = None) -> Executor:
        """
        Args:
            usual_workers: where `workers` is None, instead of one per core.
        """
        usual = usual_workers if self.workers is None else None
        return executor_for(
            limits,
            workers=self.num_workers if usual is None else usual,
            use_ray=self.is_on_ray,
            address=self.address,
        )


def limits_from(**values: float) -> Limits:
    """Limits from the command line's numbers."""
    try:
        return Limits.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"limits: {invalid(error, Limits)}") from error


def executor_for(limits: Limits, *, workers: int, use_ray: bool, address: str | None) -> Executor:
    """Ray if requested, else worker processes, else (0 workers) this process."""
    if use_ray:
        from ingest.executors.ray import RayExecutor

        if address is None:
            require_token()
        on_ray = RayExecutor(limits, address=address, workers=max(workers, 1), notify=warn)
        on_ray.connect()  # before a corpus is touched: a wrong address is the caller's mistake
        return on_ray
    if not workers:
        return InlineExecutor()
    from ingest.executors.local import LocalExecutor  # with the libraries of worker processes

    return LocalExecutor(workers, limits)


def excluded_nodes(executor: Executor) -> list[str]:
    """Nodes of a cluster that got no work, with the reason; none on one machine."""
    from ingest.executors.ray import RayExecutor

    return list(executor.excluded.values()) if isinstance(executor, RayExecutor) else []
