"""The next batch is copied while a step is computed: in that order, with every error when it is due, and with the weights of a run that does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from schemas.errors import Code, SourceError
from tests.training.running import CPU, batches, recipe, trainer, weights
from tests.training.test_launches import loop
from training.batch import Batch
from training.run import trainer as trainer_module
from training.run.feed import Feed, copying_for
from training.run.micro_batch import moved


class Beside:
    """Stands in for a stream: a copy is made when it is started, and noted."""

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def start(self, batch: Batch) -> Batch:
        self.events.append("start")
        return moved(batch, CPU)

    def finish(self, started: Batch) -> Batch:
        self.events.append("finish")
        return started


def given(events: list[str], num: int, broken: int | None = None) -> Iterator[Batch]:
    for step, batch in zip(range(num), batches(0), strict=False):
        events.append(f"make {step}")
        if step == broken:
            raise SourceError(Code.UNREADABLE, "torn", where="file")
        yield batch


def test_a_cpu_copies_nothing_ahead() -> None:
    events: list[str] = []
    feed = Feed(given(events, 3), CPU, copying_for(CPU))
    assert not feed.copies_ahead
    feed.ahead()
    assert not events
    assert next(feed) is not None


def test_the_next_batch_is_copied_before_the_step_before_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []
    made = trainer(recipe(log_every=100, checkpoint_every=100))
    looping, plain = loop(made), trainer(recipe(log_every=100, checkpoint_every=100))
    launch, check = type(made).launch, type(made).check

    def launched(self, batch, step):  # type: ignore[no-untyped-def]
        events.append(f"launch {step}")
        return launch(self, batch, step)

    def checked(self, result):  # type: ignore[no-untyped-def]
        events.append(f"check {result.step}")
        check(self, result)

    monkeypatch.setattr(trainer_module, "copying_for", lambda device: Beside(events))
    monkeypatch.setattr(type(made), "launch", launched)
    monkeypatch.setattr(type(made), "check", checked)
    assert looping.run(given(events, 3), 0, 3) == 3
    assert events == [
        "make 0", "launch 0", "make 1", "start", "finish", "launch 1", "make 2", "start", "check 0",
        "finish", "launch 2", "check 1", "check 2",
    ]  # fmt: skip
    monkeypatch.undo()
    loop(plain).run(given([], 3), 0, 3)
    for name, value in weights(plain.learner).items():  # type: ignore[arg-type]
        assert torch.equal(weights(made.learner)[name], value)  # type: ignore[arg-type]


def test_what_is_wrong_with_a_batch_is_said_when_it_is_due() -> None:
    feed = Feed(given([], 3, broken=1), CPU, Beside([]))
    assert next(feed) is not None
    feed.ahead()  # says nothing
    with pytest.raises(SourceError, match="torn"):
        next(feed)
    ended = Feed(iter(()), CPU, Beside([]))
    ended.ahead()
    assert next(ended, None) is None
