"""A pass over held-out samples for each task: the network is asked, and scored beside what needs no network.

Errors are named `<task>/<who>/<metric>`: who is `model`, a baseline (`actions.baselines`; `copy` of the picture of now), or, for forward
dynamics, `without_action`: the forecast from the same noise of the same samples, which tells what knowing the action is worth. Only where
forecasting is trained: a task that was never learned is no baseline.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from schemas.manifest import Statistics
from schemas.supervision import Task
from training.batch import Batch
from training.data.action_layout import ACTION_WIDTH, slots_of
from training.data.normalise import Normaliser
from training.evaluation.accumulate import Array, Error, ErrorTable, Group
from training.evaluation.draws import Answering, SampleNoise
from training.evaluation.errors import (
    Chunks,
    action_errors,
    baselines,
    image_errors,
    last_image,
    parallel_grippers,
    side_places,
)
from training.model.text import Text
from training.tasks import TASKS

Mask = npt.NDArray[np.bool_]
MODEL, COPY, WITHOUT_ACTION = "model", "copy", "without_action"
NORMALISED = (
    "normalised_l1"  # of an element, in the units of the loss: one number for all of an action
)


def means_of(statistics: Statistics, embodiments: Sequence[str]) -> Array:
    """[M, 172] the manifest's mean of every element; 0 where it has none."""
    out = np.zeros((len(embodiments), ACTION_WIDTH))
    for number, name in enumerate(embodiments):
        statistics_of_body = statistics.embodiments.get(name)
        if statistics_of_body is not None:
            at = slots_of(statistics_of_body.names, where=f"embodiment {name}")
            out[number, at] = np.nan_to_num(statistics_of_body.array("mean"))
    return out


class Evaluation:
    """Holds a tally and who is asked; batches are given to `add`, on the network's device."""

    def __init__(
        self,
        sampler: Answering,
        normaliser: Normaliser,
        means: Array,
        *,
        seed: int = 0,
        trained: Collection[Task] = TASKS,
    ) -> None:
        """`means` [M, 172] of `means_of`; `seed` of the noise; the tasks that were `trained`."""
        sampler.learner.eval()
        self.sampler, self.normaliser, self.means = sampler, normaliser, means
        self.trained, self.seed = frozenset(trained), seed
        self.sides = side_places()
        self.is_parallel = parallel_grippers(normaliser.is_known.cpu().numpy(), self.sides)
        self.tally = ErrorTable()

    @torch.no_grad()
    def add(self, batch: Batch, groups: Sequence[Group], task: Task) -> None:
        """Score samples that may serve this task and can (`Loader.every`); `groups` of the B samples."""
        text = self.sampler.encode_text(batch.text_inputs)
        if task in (Task.POLICY, Task.INVERSE_DYNAMICS):
            errors = self._actions(batch, text, task)
        else:
            errors = self._pictures(batch, text, task)
        named = {
            f"{task}/{who}/{metric}": error
            for who, by_metric in errors.items()
            for metric, error in by_metric.items()
        }
        self.tally.add(groups, named)

    def chunk(self, batch: Batch, text: Text, task: Task) -> Tensor:
        """[B, K, E] normalised, what the network says."""
        return self.sampler.chunk(batch, text, task, SampleNoise(batch=batch, seed=self.seed))

    def picture(self, batch: Batch, text: Text, task: Task) -> Tensor:
        """[B, V * N, D] latents, what the network says."""
        return self.sampler.picture(batch, text, task, SampleNoise(batch=batch, seed=self.seed))

    def _pictures(self, batch: Batch, text: Text, task: Task) -> dict[str, dict[str, Error]]:
        """By who, by metric."""
        out = {
            MODEL: image_errors(self.picture(batch, text, task), batch),
            COPY: image_errors(last_image(batch), batch),
        }
        if task is Task.FORWARD_DYNAMICS and Task.VISUAL_FORECASTING in self.trained:
            forecast = self.picture(batch, text, Task.VISUAL_FORECASTING)
            out[WITHOUT_ACTION] = image_errors(forecast, batch)
        return out

    def _actions(self, batch: Batch, text: Text, task: Task) -> dict[str, dict[str, Error]]:
        """By who, by metric."""
        known = batch.known
        in_reach = None
        if task is Task.INVERSE_DYNAMICS:
            in_reach = (batch.action_t_s <= batch.future_t_s + 1e-6).cpu().numpy()

        def raw(values: Tensor) -> Array:
            return self.normaliser.decode(values.double(), known.embodiment).cpu().numpy()

        if batch.stored is None:
            raise ValueError("the batch has no stored actions; use a batch of Loader.every")
        true = Chunks(
            values=batch.stored.double().cpu().numpy(), valid=batch.has_action.cpu().numpy()
        )
        history = Chunks(values=raw(known.history), valid=known.has_history.cpu().numpy())
        body = known.embodiment.cpu().numpy()
        predicted = self.chunk(batch, text, task)
        by_rule = baselines(history, self.means[body], self.sides, predicted.shape[1])
        units = {MODEL: raw(predicted), **by_rule}
        plain = {MODEL: predicted} | {
            name: self.normaliser.encode(
                torch.from_numpy(value).to(predicted.device), known.embodiment
            ).float()
            for name, value in by_rule.items()
        }
        out = {}
        for who, values in units.items():
            errors = action_errors(
                values, true, self.sides, is_parallel=self.is_parallel[body], in_reach=in_reach
            )
            out[who] = errors | {NORMALISED: _plain_error(plain[who], batch, in_reach)}
        return out


def _plain_error(predicted: Tensor, batch: Batch, in_reach: Mask | None) -> Error:
    """Of every element that counts."""
    known = batch.has_action
    if in_reach is not None:
        known = known & torch.from_numpy(in_reach).to(known.device)[:, None]
    error = torch.where(known, (predicted - batch.action).abs(), 0.0).double()
    return Error(
        total=error.sum(dim=2).cpu().numpy(), count=known.sum(dim=2).double().cpu().numpy()
    )
