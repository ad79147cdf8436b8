"""What is outside of the blocks, compiled: two graphs, the same numbers, and no bank of layers gathered twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.tiny import SETTINGS, batch, network, noise_of
from training.batch import Batch
from training.conditioning.inputs import TextInputs
from training.conditioning.protocol import Conditioner
from training.learner import Learner
from training.loss import Terms, inputs_of
from training.model.text import Text
from training.run.compile_blocks import prepare_blocks

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile's own look


class Words(Conditioner):
    """Passes on what it is given."""

    def forward(self, inputs: TextInputs) -> Text:
        return Text(values=inputs.by_token["values"], layout=inputs.layout)


def step(learner: Learner, given: Batch, num_draws: int = 1) -> tuple[Terms, list[Tensor]]:
    """Terms and gradients."""
    draws = [noise_of(given, seed) for seed in range(num_draws)]
    learner.zero_grad()
    terms = learner(given, *(torch.stack(each) for each in zip(*draws, strict=True)))
    terms.sums.sum().backward()
    return terms, [p.grad for p in learner.parameters() if p.grad is not None]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every graph that torch.compile makes; a graph break raises. Blocks stay as they are."""
    made: list[Any] = []
    plain = torch.compile

    def compiled(run: Callable[..., Any]) -> Callable[..., Any]:
        def kept(graph: torch.fx.GraphModule, _: Any) -> Any:
            made.append(graph)
            return graph.forward

        out: Callable[..., Any] = plain(run, backend=kept, fullgraph=True)
        return out

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(nn.Module, "compile", lambda self: None)
    return made


@pytest.mark.parametrize(
    ("changed", "loss_over", "num_draws"),
    [
        ({}, "elements", 1),
        ({"precondition": False, "positions": "rope"}, "samples", 1),
        ({"state_width": 3, "num_views": 2, "adaln": "shared"}, "parts", 2),
    ],
)
def test_compiled_it_is_two_graphs_and_the_same_numbers(
    graphs: list[Any], changed: dict[str, Any], loss_over: Any, num_draws: int
) -> None:
    """To the bit, for all tasks; another batch makes no other graph."""
    s = SETTINGS.model_copy(update=changed)
    learner = Learner(network(**changed).train(), Words(), loss_over)  # type: ignore[arg-type]
    learner.part_of = torch.arange(s.action_width) % 2
    given = [batch(tasks, seed=seed, s=s) for tasks, seed in ((None, 1), ([3, 0, 1, 0], 2))]
    wanted = [step(learner, each, num_draws) for each in given]
    prepare_blocks(learner, checkpointed=False, compiled=True)
    for each, (terms, grads) in zip(given, wanted, strict=True):
        actual, actual_grads = step(learner, each, num_draws)
        assert torch.equal(actual.sums, terms.sums)
        assert torch.equal(actual.counts, terms.counts)
        assert torch.equal(actual.sample_sums, terms.sample_sums)
        assert len(actual_grads) == len(grads)
        for mine, right in zip(actual_grads, grads, strict=True):
            assert torch.equal(mine, right)
    assert len(graphs) == 2


def test_layers_of_an_embodiment_are_gathered_once_for_its_history_and_chunk() -> None:
    """And each token is what its encoder makes of it alone, at its own time."""
    made, given = network(), batch()
    t, action, future = noise_of(given)
    calls: list[tuple[Tensor, Tensor, Tensor]] = []
    made.action_in.register_forward_pre_hook(lambda _, inputs: calls.append(inputs))
    inputs = inputs_of(made, given, t, action, future)
    assert len(calls) == 1
    tokens, embodiment, times = calls[0]
    history = SETTINGS.num_history
    assert tokens.shape[:2] == (len(t), history + SETTINGS.num_actions)
    assert torch.equal(times[:, :history], torch.ones(len(t), history))
    is_noisy = given.known.task < 2
    chunk_times = torch.where(is_noisy, t, 1.0)[:, None].expand(-1, SETTINGS.num_actions)
    assert torch.equal(times[:, history:], chunk_times)
    alone = made.action_in(tokens[:, :history], embodiment, times[:, :history])
    alone = torch.where(given.known.has_history.any(-1, keepdim=True), alone, made.missing_history)
    places = made.places
    assert places is not None
    wanted = alone + places[SETTINGS.num_image_tokens :][:history]
    torch.testing.assert_close(inputs.streams[1][:, :history], wanted)
    changed = replace(given, action=given.action + 1.0)
    others = inputs_of(made, changed, t, action, future).streams[1]
    assert torch.equal(others[:, :history], inputs.streams[1][:, :history])
