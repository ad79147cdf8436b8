"""Where files of latents are made: one encoder here with the decode workers of any executor, or Ray actors that hold an encoder each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, islice, tee
from typing import Protocol

from ingest.executors.inline import Executor
from ingest.executors.ray_actors import RayActors
from ingest.latents.encode_file import (
    Decoded,
    DecodedChunk,
    FrameChunk,
    LatentMaker,
    PendingUnit,
    UnitResult,
    decode_chunk,
    unit_chunks_of,
)
from ingest.latents.plan import LatentUnit
from ingest.models.encoder import EncoderChoice, ImageEncoder
from schemas.errors import ConfigError
from schemas.outcome import WorkerFailure

MAX_EARLY = 16  # pieces that wait for one asked for before them, until no more are handed out


class EncodeBackend(Protocol):
    """Makes files, in any order. `wait_s`: how long encoders had no pictures, where that is known."""

    num_encoders: int
    wait_s: float

    def make(self, units: Iterator[LatentUnit]) -> Iterator[tuple[LatentUnit, UnitResult]]: ...


class LocalBackend:
    """The encoder is in this process; pictures come from the workers of `executor`, in the order in which they are asked for."""

    num_encoders = 1

    def __init__(self, maker: LatentMaker, executor: Executor) -> None:
        self.maker, self.executor = maker, executor
        self.wait_s = 0.0

    def make(self, units: Iterator[LatentUnit]) -> Iterator[tuple[LatentUnit, UnitResult]]:
        """Raises ConfigError (no memory for a batch) and OSError (a file cannot be written): the run stops, and no thread writes on."""
        with ThreadPoolExecutor(max_workers=1) as writer:
            units_begun = self._begun(units, writer)
            last = next(units_begun, None)
            while last is not None:
                # the next one is encoded before the end of this one is waited for: files are one piece long, mostly
                try:
                    following = next(units_begun, None)
                finally:  # whatever stops the next one, Ctrl-C too: this one is whole
                    yield last.unit, self.maker.finished(last)
                last = following

    def _begun(
        self, units: Iterator[LatentUnit], writer: ThreadPoolExecutor
    ) -> Iterator[PendingUnit]:
        ahead, due = tee(units)
        stream = self._in_order(piece for unit in ahead for piece in self._pieces(unit))
        for unit in due:
            own = self._timed(islice(stream, len(self._pieces(unit))))
            begun = self.maker.begin(unit, own, writer)
            for _ in own:  # what is left of a unit that failed
                pass
            yield begun

    def _pieces(self, unit: LatentUnit) -> list[FrameChunk]:
        return unit_chunks_of(unit, self.maker.encoder.choice, self.maker.encoder.batch)

    def _timed(self, pieces: Iterator[DecodedChunk]) -> Iterator[DecodedChunk]:
        while True:
            began_s = self.maker.monotonic_s()
            piece = next(pieces, None)
            self.wait_s += self.maker.monotonic_s() - began_s
            if piece is None:
                return
            yield piece

    def _in_order(self, pieces: Iterator[FrameChunk]) -> Iterator[DecodedChunk]:
        """Workers answer as they end: the early ones wait here."""
        asked: deque[FrameChunk] = deque()
        early: dict[FrameChunk, Decoded] = {}

        def following() -> FrameChunk | None:
            piece = next(pieces, None) if len(early) < MAX_EARLY else None
            if piece is not None:
                asked.append(piece)
            return piece

        for piece, result in self.executor.run(following, decode_chunk):
            early[piece] = _decoded(piece, result)
            while asked and asked[0] in early:
                first = asked.popleft()
                yield first, early.pop(first)


class RayBackend:
    """Ray: decode tasks on CPUs, encoders in actors. Pictures go from one to the other, the driver sees rows only.

    `encoder_id` is what every actor must find `choice` to be: weights of one path may be others on another machine.
    """

    def __init__(
        self,
        choice: EncoderChoice,
        encoder_id: str,
        actors: RayActors,
        batch: int,
        monotonic_s: Callable[[], float],
    ) -> None:
        self.choice, self.encoder_id, self.actors, self.batch = choice, encoder_id, actors, batch
        self.monotonic_s = monotonic_s
        self.num_encoders = 1
        self.wait_s = 0.0

    def make(self, units: Iterator[LatentUnit]) -> Iterator[tuple[LatentUnit, UnitResult]]:
        """Raises what `LocalMaking.make` does, and ConfigError when an actor cannot open the encoder."""
        if (first := next(units, None)) is None:
            return  # to begin an actor takes a GPU and a minute
        units = chain([first], units)
        began_s, busy_s = self.monotonic_s(), 0.0
        hold = partial(open_backend, self.choice, self.encoder_id, self.monotonic_s)
        for unit, result in self.actors.run(
            lambda: next(units, None),
            self._pieces,
            decode_chunk,
            hold,
            encode_from,
            LatentUnit.again,
        ):
            encoded = (
                UnitResult.failed(unit, _death(result))
                if isinstance(result, WorkerFailure)
                else result
            )
            self.num_encoders = self.actors.count
            busy_s += encoded.busy_s + encoded.write_wait_s
            taken_s = (self.monotonic_s() - began_s) * self.num_encoders
            self.wait_s = max(0.0, taken_s - busy_s)
            yield unit, encoded

    def _pieces(self, unit: LatentUnit) -> list[FrameChunk]:
        return unit_chunks_of(unit, self.choice, self.batch)


def open_backend(
    choice: EncoderChoice, encoder_id: str, monotonic_s: Callable[[], float]
) -> LatentMaker:
    """What an actor holds.

    Raises:
        ConfigError: the encoder cannot be opened there, or is another than that of the driver.
    """
    encoder = ImageEncoder.open(choice)
    if encoder.id != encoder_id:
        problem = (
            f"the encoder is {encoder.id} on a machine of the cluster and {encoder_id} on this one"
        )
        repair = "install the same weights and the same eicorpus on all machines"
        raise ConfigError(problem, remedy=repair, where=f"--encoder {choice.model}")
    return LatentMaker(encoder=encoder, monotonic_s=monotonic_s)


def encode_from(
    maker: LatentMaker,
    unit: LatentUnit,
    decoded: Iterator[tuple[FrameChunk, Decoded | WorkerFailure]],
) -> UnitResult:
    """What an actor does."""
    return maker.make(unit, ((chunk, _decoded(chunk, result)) for chunk, result in decoded))


def _decoded(chunk: FrameChunk, result: Decoded | WorkerFailure) -> Decoded:
    if isinstance(result, WorkerFailure):
        return Decoded(error=f"{_death(result)} ({chunk.file.video})")
    return result


def _death(death: WorkerFailure) -> str:
    return f"{death.code.value}: {death.how}"
