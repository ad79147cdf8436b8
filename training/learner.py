"""What is trained: the network and its conditioner, from a batch to its terms. The one module that DDP or FSDP2 wraps."""

from __future__ import annotations

from torch import Tensor, nn

from training.batch import Batch
from training.conditioning.protocol import Conditioner
from training.model.network import Network
from training.objective import Terms, objective


class Learner(nn.Module):
    """One forward pass is one set of terms; noise and times come from outside, so that a pass can be repeated exactly."""

    def __init__(self, network: Network, conditioner: Conditioner) -> None:
        super().__init__()
        self.network, self.conditioner = network, conditioner

    def forward(self, batch: Batch, t: Tensor, action_noise: Tensor, future_noise: Tensor) -> Terms:
        """
        Args:
            t: [R, B] flow times, R draws of the same samples: the text is encoded once for all of them.
            action_noise: [R, *batch.action.shape]. future_noise: [R, *batch.future.shape].
        """
        text = self.conditioner(batch.text_inputs)
        draws = zip(t, action_noise, future_noise, strict=True)
        first, *more = [objective(self.network, batch, text, *draw) for draw in draws]
        for terms in more:
            first = first.plus(terms)
        return first
