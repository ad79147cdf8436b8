"""A run as TensorBoard shows it: one scalar for each number of a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"  # in a run


class EventLog:
    """Writes RUN/tensorboard. Lines that a run does again after a restart hide those that were there."""

    def __init__(self, out: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        self._writer: Any = SummaryWriter(str(out / FOLDER), purge_step=first_step + 1)

    def add(self, line: dict[str, Any]) -> None:
        """A line of the log; nested names are joined by a slash."""
        for name, value in scalars(line):
            self._writer.add_scalar(name, value, line["step"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def scalars(line: dict[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a line but its step, by its path: `loss_by_task/policy`."""
    for key, value in line.items():
        name = f"{path}/{key}" if path else key
        if isinstance(value, dict):
            yield from scalars(value, name)
        elif isinstance(value, int | float) and name != "step":
            yield name, float(value)
