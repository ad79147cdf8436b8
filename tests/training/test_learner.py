"""Several draws of the same samples: one encoding of the text, and the sums of all draws."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.training.tiny import SETTINGS, batch, network, noise_of, text_of
from training.conditioning.protocol import Conditioner
from training.learner import Learner
from training.model.network import Text
from training.objective import objective


class Counting(Conditioner):
    width = SETTINGS.text_width
    calls = 0

    def forward(self, inputs: dict[str, Tensor]) -> Text:
        self.calls += 1
        return Text(values=inputs["values"], has=inputs["has"])


def test_draws_share_the_text_and_add_up() -> None:
    made, b, conditioner = network(), batch(), Counting()
    draws = [noise_of(b, seed) for seed in (2, 3, 4)]
    t, action_noise, future_noise = (torch.stack(parts) for parts in zip(*draws, strict=True))
    found = Learner(made, conditioner)(b, t, action_noise, future_noise)
    apart = [objective(made, b, text_of(b), *draw) for draw in draws]
    assert conditioner.calls == 1
    for name in ("sums", "counts", "sample_sums", "sample_counts"):
        wanted = sum(getattr(terms, name) for terms in apart)
        torch.testing.assert_close(getattr(found, name), wanted)
