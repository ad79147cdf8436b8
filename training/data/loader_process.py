"""Batches that another process makes and hands over in shared memory: reading them takes no time of this interpreter, which launches kernels.

A slot is a file without a name (memfd): nothing of it stays behind, and it is not of /dev/shm, which is 64 MB in a container. Its memory is asked for before it is
touched, so that too little is an error and no SIGBUS. A batch is copied out of its slot at once; then the slot is free again.

The other process ends with this one. One that ends by itself is started again at the step that is due, for a batch is a function of its step.
"""

from __future__ import annotations

import atexit
import mmap
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler, recv_handle, send_handle

import torch
from torch import Tensor

from schemas.errors import ConfigError, TransientError, system_error_text
from training.batch import Batch
from training.data.prefetch import prefetch, tensors_mapped

NUM_SLOTS = 2
PINNED_AHEAD = 1  # beyond the one that is being copied
END_S = 5.0  # until a process whose connection has ended is over
_ALIGNED = 64  # bytes between which tensors begin: no element crosses a cache line
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
MakesBatches = Callable[[int], Iterator[Batch]]  # from a step on, without end; picklable


@dataclass(frozen=True, slots=True)
class _Placed:
    """Where a tensor lies in a slot."""

    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class _Filled:
    """A batch whose tensors are `_Placed`, in `num_bytes` of a slot."""

    slot: int
    num_bytes: int
    batch: Batch


@dataclass(frozen=True, slots=True)
class _Failed:
    """What was raised in place of a batch, and its traceback."""

    error: Exception
    trace: str


class _SharedSlot:
    """Memory that two processes share. It grows to the largest batch."""

    def __init__(self, file: int) -> None:
        self.file = file
        self._memory = torch.empty(0, dtype=torch.uint8)

    def grow(self, num_bytes: int) -> None:
        """
        Raises:
            ConfigError: there is not so much memory.
        """
        if num_bytes <= len(self._memory):
            return
        try:
            os.posix_fallocate(self.file, 0, num_bytes)
        except OSError as error:
            problem = (
                f"no shared memory for a batch of {num_bytes:,} bytes ({system_error_text(error)})"
            )
            remedy = "give the container more memory, or add --set run.loader=threads"
            raise ConfigError(problem, remedy=remedy, where="recipe key run.loader") from error

    def memory(self, num_bytes: int) -> Tensor:
        """[num_bytes] or more."""
        if num_bytes > len(self._memory):
            self._memory = torch.frombuffer(mmap.mmap(self.file, 0), dtype=torch.uint8)
        return self._memory

    def close(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)
        os.close(self.file)


def _at(placed: _Placed, memory: Tensor) -> Tensor:
    num_bytes = placed.dtype.itemsize
    for length in placed.shape:
        num_bytes *= length
    part = memory[placed.start : placed.start + num_bytes]
    return part.view(placed.dtype).view(placed.shape)


# --- the other process -----------------------------------------------------------------------------------------------


def _serve(pickled: bytes, first_step: int, connection: Connection) -> None:
    """Fill slots as they become free, until this process is killed.

    Args:
        pickled: `MakesBatches`. It may open files.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)  # of an operation; loader threads each have theirs
    slots = [_SharedSlot(recv_handle(connection)) for _ in range(NUM_SLOTS)]
    try:
        batches_from: MakesBatches = ForkingPickler.loads(pickled)
        for batch in batches_from(first_step):
            number = connection.recv()
            connection.send(_filled(batch, number, slots[number]))
    except Exception as error:  # noqa: BLE001  it is raised where the batch is due
        with suppress(BrokenPipeError):  # the other end has ended, and so does this one
            connection.send(_failed(error))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _filled(batch: Batch, number: int, slot: _SharedSlot) -> _Filled:
    tensors: list[tuple[Tensor, _Placed]] = []
    end = 0

    def place(x: Tensor) -> _Placed:
        nonlocal end
        placed = _Placed(start=end, shape=tuple(x.shape), dtype=x.dtype)
        tensors.append((x, placed))
        end += -(-x.nbytes // _ALIGNED) * _ALIGNED
        return placed

    without_tensors: Batch = tensors_mapped(batch, place)
    slot.grow(end)
    memory = slot.memory(end)
    for x, placed in tensors:
        _at(placed, memory).copy_(x)
    return _Filled(slot=number, num_bytes=end, batch=without_tensors)


def _failed(error: Exception) -> _Failed:
    trace = "".join(traceback.format_exception(error))
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:  # noqa: BLE001  whatever its class makes of pickling
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return _Failed(error=error, trace=trace)


# --- this process ----------------------------------------------------------------------------------------------------


class LoaderProcess:
    """Makes batches of one rank in their order. `close` it."""

    def __init__(
        self,
        batches_from: MakesBatches,
        first_step: int,
        *,
        copied: Callable[[Tensor], Tensor] = Tensor.clone,
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:
        """
        Args:
            copied: how a tensor gets out of shared memory. warn: is told when the process is started again.
        """
        self._pickled = bytes(ForkingPickler.dumps(batches_from))
        self._copied, self._warn = copied, warn
        self._is_closed, self._changing = False, threading.Lock()
        self._slots = [_SharedSlot(os.memfd_create("eicorpus-loader")) for _ in range(NUM_SLOTS)]
        # Before `multiprocessing` joins its processes as the interpreter ends, which would be for ever.
        atexit.register(self.close)
        self._start(first_step)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def take(self, step: int) -> Batch:
        """The batch of the step that is due.

        Raises:
            EOFError: it is closed.
            TransientError: the process ended before it gave any batch since its start.
        """
        while True:
            if self._is_closed:  # the connection may still hold a batch
                raise EOFError("closed")
            try:
                answer = self._connection.recv()
            except (EOFError, OSError):
                self._start_again(step)
                continue
            if isinstance(answer, _Failed):
                answer.error.add_note(f"in the loader process:\n{answer.trace}")
                raise answer.error
            return self._batch(answer)

    def _batch(self, filled: _Filled) -> Batch:
        memory = self._slots[filled.slot].memory(filled.num_bytes)

        def out(placed: _Placed) -> Tensor:
            return self._copied(_at(placed, memory))

        batch: Batch = tensors_mapped(filled.batch, out, kind=_Placed)
        with suppress(OSError):  # of a process that has ended: the next `take` sees it
            self._connection.send(filled.slot)
        return batch

    def _start(self, step: int) -> None:
        context = multiprocessing.get_context("spawn")  # never fork: threads of CUDA and Arrow
        self._connection, other_end = context.Pipe()
        arguments = (self._pickled, step, other_end)
        self._process: BaseProcess = context.Process(
            target=_serve, args=arguments, name="loader", daemon=True
        )
        self._started_at = step
        with _signals_blocked():
            self._process.start()
        other_end.close()
        with suppress(OSError):  # as above
            for slot in self._slots:
                send_handle(self._connection, slot.file, self.pid)
            for number in range(NUM_SLOTS):
                self._connection.send(number)

    def _start_again(self, step: int) -> None:
        with self._changing:
            if self._is_closed:
                raise EOFError("closed")
            self._connection.close()
            self._process.join(END_S)
            how = _how_it_ended(self._process.exitcode)
            self._process.kill()
            if step == self._started_at:
                remedy = "look for it in the kernel's log (dmesg): a SIGKILL is mostly for memory. Or add --set run.loader=threads"
                raise TransientError(
                    f"the loader process {how} before it gave a batch",
                    remedy=remedy,
                    where=f"step {step}",
                )
            self._warn(f"the loader process {how}; it is started again at step {step}")
            self._start(step)

    def close(self) -> None:
        """End the process. It only reads, so it need not be asked."""
        with self._changing:
            if self._is_closed:
                return
            self._is_closed = True
            atexit.unregister(self.close)
            self._process.kill()
            self._process.join()

    def release(self) -> None:
        """Give back the shared memory, when no thread is in `take`."""
        self._connection.close()
        for slot in self._slots:
            slot.close()


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code is None:
        return "closed its connection"
    if exit_code < 0:
        return f"was ended by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """A process that is started here is deaf to them: this one decides when both stop, and needs batches until then."""
    resource_tracker.ensure_running()  # a start of it inside the block unblocks them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def process_batches(
    batches_from: MakesBatches,
    first_step: int,
    *,
    pin_memory: bool = False,
    warn: Callable[[str], None] = lambda message: None,
) -> Iterator[Batch]:
    """Batches from `first_step` on that another process makes. A thread copies them into pinned memory.

    Raises:
        TransientError: the process ends again and again. And what it raised, when the batch is due.
    """
    copied = Tensor.pin_memory if pin_memory else Tensor.clone
    process = LoaderProcess(batches_from, first_step, copied=copied, warn=warn)
    taken = prefetch(process.take, count(first_step), int(pin_memory), ahead=PINNED_AHEAD)
    try:
        for batch in taken:  # noqa: UP028  `yield from` would close `taken` first, whose thread waits for the process
            yield batch
    finally:
        process.close()
        taken.close()
        process.release()
