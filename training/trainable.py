"""What the trainer trains, of whatever architecture: a forward pass from a batch to its terms, and what is known of a batch before it."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from training.batch import Batch
from training.conditioning.protocol import Conditioner
from training.lara.lara import Lara


class ScoredRows(NamedTuple):
    """For the log: of each row of `Terms.sample_sums`, [R] the number of its sample in the batch, and [R] the task it counts for."""

    sample: Tensor
    task: Tensor


class Trainable(nn.Module):
    """A network, its conditioner, and LARA's parts where the recipe has them. `forward(batch, *drawn)` is one set of `training.loss.Terms`."""

    network: nn.Module
    conditioner: Conditioner
    lara: Lara | None

    @property
    def blocks(self) -> list[nn.Module]:
        """What is compiled, computed again and sharded one by one."""
        raise NotImplementedError

    def compile_ends(self) -> None:
        """What comes before and after the blocks, where that is worth it. Names of parameters stay."""

    def drawn(
        self, batch: Batch, *, seed: int, step: int, first: int, num_draws: int
    ) -> tuple[Any, ...]:
        """All that is drawn at random for a forward pass: a function of (seed, step, place in the global batch).

        Args:
            first: place of the batch's first sample.
        """
        raise NotImplementedError

    def num_scored(self, batch: Batch) -> Tensor:
        """[4] what `Terms.counts` of one draw will be: known before the network is asked."""
        raise NotImplementedError

    def answer_loss(self, batch: Batch) -> Tensor | None:
        """[] sum over the tokens of answers of the pairs beside its samples; None where it has none."""
        return None if batch.image_text is None else self.conditioner.answer_loss(batch.image_text)

    def rows_of(self, batch: Batch) -> ScoredRows:
        """Whose the rows of `Terms.sample_sums` are."""
        raise NotImplementedError
