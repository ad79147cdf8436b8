"""What is trained: the network, its conditioner and LARA's parts, from a batch to its terms. The one module that DDP or FSDP2 wraps."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from training.batch import Batch, of_samples
from training.conditioning.protocol import Conditioner
from training.data.action_layout import part_of_slots
from training.lara.lara import Lara
from training.loss import Ends, LossOver, Terms, loss_of, num_scored
from training.model.network import Network
from training.run.noise import noise_for
from training.tasks import TASKS
from training.trainable import ScoredRows, Trainable


class Learner(Trainable):
    """One forward pass is one set of terms; noise and times come from outside, so that a pass can be repeated exactly."""

    network: Network
    part_of: Tensor  # [172] of each action element

    def __init__(
        self,
        network: Network,
        conditioner: Conditioner,
        loss_over: LossOver = "elements",
        lara: Lara | None = None,
    ) -> None:
        super().__init__()
        self.loss_over: LossOver = loss_over
        self.ends = Ends()
        self.register_buffer("part_of", torch.from_numpy(part_of_slots()), persistent=False)
        self.network, self.conditioner, self.lara = network, conditioner, lara

    @property
    def blocks(self) -> list[nn.Module]:
        return [*self.network.blocks, *([] if self.lara is None else self.lara.lam.blocks)]

    def compile_ends(self) -> None:
        """Passes over [B, V * N, D] in float32 are fused: noise, guess, errors and their sums, and the layers between them and the blocks."""
        self.ends = Ends(torch.compile(self.ends.inputs), torch.compile(self.ends.terms))

    def drawn(
        self, batch: Batch, *, seed: int, step: int, first: int, num_draws: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Flow times, and noise of actions and of future pictures."""
        noise = noise_for(batch, seed=seed, step=step, first=first, num_draws=num_draws)
        return noise.t, noise.action, noise.future

    def num_scored(self, batch: Batch) -> Tensor:
        return num_scored(batch, self.loss_over)

    def rows_of(self, batch: Batch) -> ScoredRows:
        """A sample has one task."""
        task = batch.known.task
        return ScoredRows(sample=torch.arange(len(task), device=task.device), task=task)

    def forward(self, batch: Batch, t: Tensor, action_noise: Tensor, future_noise: Tensor) -> Terms:
        """R draws of the same samples share their text: it is encoded once, and every block makes its keys and values once.

        Args:
            t: [R, B] flow times. action_noise: [R, *batch.action.shape]. future_noise: [R, *batch.future.shape].
        """
        text, num_draws = self.conditioner(batch.text_inputs), len(t)
        drawn = of_samples(
            replace(batch, later=None, has_later=None),
            lambda x: _side_by_side(x.expand(num_draws, *x.shape)),
        )
        times, action, future = (_side_by_side(x) for x in (t, action_noise, future_noise))
        tap = None if self.lara is None else self.lara.tap()
        terms = loss_of(
            self.network,
            drawn,
            text,
            times,
            action,
            future,
            loss_over=self.loss_over,
            part_of=self.part_of,
            tap=tap,
            ends=self.ends,
        )
        return replace(
            terms,
            sample_sums=terms.sample_sums.view(-1, num_draws).sum(1),
            sample_counts=terms.sample_counts.view(-1, num_draws).sum(1),
            lara=None if self.lara is None else self.lara(batch, tap, num_draws),
            image_text=self.answer_loss(batch),
        )


class LatentActionLearner(Trainable):
    """LARA's first stage: the latent action model alone. No task is scored, and nothing is drawn."""

    lara: Lara

    def __init__(self, conditioner: Conditioner, lara: Lara) -> None:
        super().__init__()
        self.conditioner, self.lara = conditioner, lara

    @property
    def network(self) -> nn.Module:  # type: ignore[override]
        return self.lara.lam

    @property
    def blocks(self) -> list[nn.Module]:
        return self.lara.lam.blocks

    def drawn(
        self, batch: Batch, *, seed: int, step: int, first: int, num_draws: int
    ) -> tuple[Tensor, ...]:
        return ()

    def num_scored(self, batch: Batch) -> Tensor:
        return torch.zeros(len(TASKS), dtype=torch.long, device=batch.future.device)

    def rows_of(self, batch: Batch) -> ScoredRows:
        task = batch.known.task
        return ScoredRows(sample=torch.arange(len(task), device=task.device), task=task)

    def forward(self, batch: Batch) -> Terms:
        none = torch.zeros(len(batch.known.task), device=batch.future.device)
        by_task = none.new_zeros(len(TASKS))
        return Terms(
            sums=by_task,
            counts=by_task.long(),
            sample_sums=none,
            sample_counts=none.long(),
            lara=self.lara(batch, None, 1),
        )


def _side_by_side(x: Tensor) -> Tensor:
    """[R, B, ...] to [B * R, ...], the draws of a sample beside each other. Of one draw it is a view."""
    return x.transpose(0, 1).flatten(0, 1)
