"""What is trained: the network, its conditioner and LARA's parts, from a batch to its terms. The one module that DDP or FSDP2 wraps."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from training.batch import Batch, of_samples
from training.conditioning.protocol import Conditioner
from training.data.action_layout import part_of_slots
from training.lara.lara import Lara
from training.loss import LossOver, Terms, loss_of
from training.model.network import Network
from training.tasks import TASKS


class Learner(nn.Module):
    """One forward pass is one set of terms; noise and times come from outside, so that a pass can be repeated exactly."""

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
        self.register_buffer("part_of", torch.from_numpy(part_of_slots()), persistent=False)
        self.network, self.conditioner, self.lara = network, conditioner, lara

    @property
    def blocks(self) -> list[nn.Module]:
        """What is sharded, compiled and computed again one by one."""
        return [*self.network.blocks, *([] if self.lara is None else self.lara.lam.blocks)]

    def forward(self, batch: Batch, t: Tensor, action_noise: Tensor, future_noise: Tensor) -> Terms:
        """R draws of the same samples share their text: it is encoded once, and every block makes its keys and values once.

        Args:
            t: [R, B] flow times. action_noise: [R, *batch.action.shape]. future_noise: [R, *batch.future.shape].
        """
        text, num_draws = self.conditioner(batch.text_inputs), len(t)
        drawn = of_samples(
            replace(batch, text_inputs={}, later=None, has_later=None),
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
        )
        return replace(
            terms,
            sample_sums=terms.sample_sums.view(-1, num_draws).sum(1),
            sample_counts=terms.sample_counts.view(-1, num_draws).sum(1),
            lara=None if self.lara is None else self.lara(batch, tap, num_draws),
        )


class LatentActionLearner(Learner):
    """LARA's first stage: the latent action model alone. No task is scored, and there is no network."""

    def __init__(self, conditioner: Conditioner, lara: Lara) -> None:
        nn.Module.__init__(self)
        self.loss_over = "elements"
        self.conditioner, self.lara = conditioner, lara

    @property
    def blocks(self) -> list[nn.Module]:
        assert self.lara is not None
        return self.lara.lam.blocks

    def forward(self, batch: Batch, t: Tensor, action_noise: Tensor, future_noise: Tensor) -> Terms:
        assert self.lara is not None
        none = torch.zeros(len(batch.known.task), device=batch.future.device)
        by_task = none.new_zeros(len(TASKS))
        return Terms(
            sums=by_task,
            counts=by_task.long(),
            sample_sums=none,
            sample_counts=none.long(),
            lara=self.lara(batch, None, len(t)),
        )


def _side_by_side(x: Tensor) -> Tensor:
    """[R, B, ...] to [B * R, ...], the draws of a sample beside each other. Of one draw it is a view."""
    return x.transpose(0, 1).flatten(0, 1)
