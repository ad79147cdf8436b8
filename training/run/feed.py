"""Batches on the device. On a GPU the next one is copied by a stream of its own while a step is computed; on a CPU there is nothing to copy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from schemas.errors import PipelineError
from training.batch import Batch
from training.data.prefetch import tensors_mapped
from training.run.micro_batch import moved


class Copying(Protocol):
    """How a batch gets to the device beside the computation."""

    def start(self, batch: Batch) -> Any:
        """Begin to copy; the host does not wait."""
        ...

    def finish(self, started: Any) -> Batch:
        """The copy, for the computation that is launched from here on."""
        ...


class SideStream:
    """Pinned memory to a GPU by a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def start(self, batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.stream(self._stream):
            return moved(batch, self._device), self._stream.record_event()

    def finish(self, started: tuple[Batch, torch.cuda.Event]) -> Batch:
        """The computation waits for the copy, and its memory is not used anew before the computation is done with it."""
        batch, event = started
        current = torch.cuda.current_stream(self._device)
        current.wait_event(event)

        def held(x: Tensor) -> Tensor:
            x.record_stream(current)
            return x

        used: Batch = tensors_mapped(batch, held)
        return used


def copying_for(device: torch.device) -> Copying | None:
    """None: batches are where they are needed."""
    return SideStream(device) if device.type == "cuda" else None


class Feed(Iterator[Batch]):
    """Batches of an iterator, on the device."""

    def __init__(
        self, batches: Iterator[Batch], device: torch.device, copying: Copying | None
    ) -> None:
        self._batches, self._device, self._copying = batches, device, copying
        self._ahead: list[Any] = []  # what was started, or the error that is due with it

    @property
    def copies_ahead(self) -> bool:
        return self._copying is not None

    def ahead(self) -> None:
        """Begin to copy the batch of the next step. What is wrong with it is said when it is due."""
        if self._copying is None or self._ahead:
            return
        try:
            batch = next(self._batches)
        except (PipelineError, OSError, StopIteration) as error:
            self._ahead.append(error)
        else:
            self._ahead.append(self._copying.start(batch))

    def __next__(self) -> Batch:
        if not self._ahead or self._copying is None:
            return moved(next(self._batches), self._device)
        started = self._ahead.pop()
        if isinstance(started, Exception):
            raise started
        return self._copying.finish(started)
