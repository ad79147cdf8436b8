"""Metrics of a run at intervals: losses by task, tier and embodiment and the use of the machine, also as TensorBoard scalars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.batch import Origin
from training.run.parallel import Ranks, sum_over
from training.tasks import TASKS
from training.trainable import ScoredRows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grouping:
    """A way to divide samples: `codes` [rows of the manifest] are indices into `names`."""

    names: tuple[str, ...]
    codes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Grouping:
        """Of one value for each row."""
        names, codes = np.unique(np.asarray(values, dtype=str), return_inverse=True)
        return cls(names=tuple(names.tolist()), codes=codes.astype(np.int64))


class Losses:
    """Sums and counts of squared errors over some steps, by task and in each way to group. And how many samples each step had of a task."""

    def __init__(self, groupings: Mapping[str, Grouping]) -> None:
        self._groupings = groupings
        sizes = {name: len(each.names) for name, each in groupings.items()}
        self._sizes = {"task": 1} | sizes
        self.reset()

    def reset(self) -> None:
        """Forget what was added."""
        self._tables: dict[str, Tensor] = {}
        self._num_by_step = list[Tensor]()
        self._image_text: Tensor | None = None

    def add(self, origin: Origin, rows: ScoredRows, sums: Tensor, counts: Tensor) -> None:
        """[R] sum of squared errors and number of scored elements of each row; `origin` of this rank's samples. Added up where they are: nothing waits for them."""
        device, column = sums.device, rows.task
        what = torch.stack([sums.double(), counts.double(), torch.ones_like(sums.double())])
        num = torch.zeros(len(TASKS), dtype=torch.long, device=device)
        self._num_by_step.append(num.index_add_(0, column, torch.ones_like(column)))
        for name, size in self._sizes.items():
            if name not in self._tables:
                shape = (3, size, len(TASKS))
                self._tables[name] = torch.zeros(shape, dtype=torch.float64, device=device)
            group = torch.zeros_like(column)
            if name != "task":
                codes = torch.from_numpy(self._groupings[name].codes[origin.row])
                group = codes.to(device, non_blocking=True)[rows.sample]
            flat = self._tables[name].view(3, -1)
            flat.index_add_(1, group * len(TASKS) + column, what)

    def add_image_text(self, terms: Tensor) -> None:
        """[2] sum and number of tokens of answers of a global batch."""
        self._image_text = terms if self._image_text is None else self._image_text + terms

    def means(self, ranks: Ranks) -> dict[str, Any]:
        """Of all ranks together: `loss_by_task`, then `loss_by_<grouping>`, only where something was scored; `num_by_task`, and
        `least_by_task`, the fewest in one global batch. `loss_image_text`: of a token of an answer, where there were pairs.
        """
        tables = {
            name: sum_over(self._tables[name].cpu(), ranks)
            for name in self._sizes
            if name in self._tables  # none where every step was skipped
        }
        if not tables:
            return {}
        whole = tables.pop("task")
        least = sum_over(torch.stack(self._num_by_step).cpu(), ranks).amin(0)
        line: dict[str, Any] = {
            "loss_by_task": _by_task(whole[:, 0]),
            "num_by_task": {t.value: int(n) for t, n in zip(TASKS, whole[2, 0], strict=True)},
            "least_by_task": {t.value: int(n) for t, n in zip(TASKS, least, strict=True)},
        }
        for name, table in tables.items():
            named = zip(self._groupings[name].names, table.unbind(1), strict=True)
            line[f"loss_by_{name}"] = {each: by for each, t in named if (by := _by_task(t))}
        if self._image_text is not None:
            total, num = self._image_text.tolist()
            line["loss_image_text"] = total / num
        return line


def _by_task(table: Tensor) -> dict[str, float]:
    """[3, 4] to the mean of each task that has any."""
    sums, counts = table[0].tolist(), table[1].tolist()
    return {t.value: s / c for t, s, c in zip(TASKS, sums, counts, strict=True) if c}


@dataclass(slots=True, kw_only=True)
class Throughput:
    """Seconds since the last line, of which `waited_s` for data. And what they were used for. Of this rank."""

    began_s: float
    waited_s: float = 0.0
    num_steps: int = 0
    num_samples: int = 0
    num_text: int = 0  # tokens of distinct texts of a batch

    def summary(
        self,
        now_s: float,
        flops_per_sample: float,
        peak: float,
        flops_per_text_token: float = 0.0,
    ) -> dict[str, float]:
        """Samples a second of this rank, share of time waited for data, share of the device's peak.

        Args:
            flops_per_sample: without text.
        """
        elapsed_s = max(now_s - self.began_s, 1e-9)
        rate, words = self.num_samples / elapsed_s, self.num_text / elapsed_s
        return {
            "step_s": elapsed_s / max(1, self.num_steps),
            "samples_per_s": rate,
            "data_wait_share": self.waited_s / elapsed_s,
            "mfu": (rate * flops_per_sample + words * flops_per_text_token) / peak,
        }


FOLDER = "tensorboard"  # in a run


class EventLog:
    """Writes RUN/tensorboard. Lines that a run does again after a restart hide those that were there."""

    def __init__(self, out: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        self._writer: Any = SummaryWriter(str(out / FOLDER), purge_step=first_step + 1)

    def add(self, line: dict[str, Any]) -> None:
        """A line of the log. Nested names are joined by a slash."""
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
