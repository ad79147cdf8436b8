"""Several draws of the same samples: one encoding of the text, and the sums of all draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.training.tiny import SETTINGS, batch, network, noise_of, text_of
from training.conditioning.inputs import TextInputs
from training.conditioning.protocol import Conditioner
from training.learner import Learner
from training.loss import loss_of
from training.model.text import Text


class Counting(Conditioner):
    width = SETTINGS.text_width
    calls = 0

    def forward(self, inputs: TextInputs) -> Text:
        self.calls += 1
        return Text(values=inputs.by_token["values"], layout=inputs.layout)


@pytest.mark.parametrize(
    "how", [{}, {"text_kv": "shared", "positions": "rope", "adaln": "shared"}], ids=str
)
def test_draws_share_the_text_and_its_keys_and_add_up(how: dict[str, Any]) -> None:
    """Terms and gradients are those of each draw alone, and the text goes through every block once."""
    made, b, conditioner = network(**how), batch(), Counting()
    draws = [noise_of(b, seed) for seed in (2, 3, 4)]
    t, action_noise, future_noise = (torch.stack(parts) for parts in zip(*draws, strict=True))
    apart = [loss_of(made, b, text_of(b), *draw) for draw in draws]
    told: list[int] = []
    for block in made.blocks:
        block.text[0].register_forward_hook(lambda _, given, __: told.append(len(given[0])))  # type: ignore[index, union-attr]
    found = Learner(made, conditioner)(b, t, action_noise, future_noise)
    assert conditioner.calls == 1
    # Beside the text each block makes the keys of the learned token before it, once for all samples.
    assert told == [1, b.text_inputs.layout.num_rows] * SETTINGS.num_layers
    for name in ("sums", "counts", "sample_sums", "sample_counts"):
        wanted = sum(getattr(terms, name) for terms in apart)
        torch.testing.assert_close(getattr(found, name), wanted)
    parameters = list(made.parameters())
    together = torch.autograd.grad(found.sums.sum(), parameters)
    alone = torch.autograd.grad(torch.stack([terms.sums for terms in apart]).sum(), parameters)
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-4)
