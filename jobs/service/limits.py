"""How much at a time: no request waits for a free place in a thread of the pool. And answers that are
sent in pieces, whose place is free again when they are sent.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from jobs.service.errors import busy

RETRY_S = 0.05
SEND_S = 120.0  # in which a client takes an answer


@contextmanager
def place(places: threading.BoundedSemaphore, message: str) -> Iterator[None]:
    """Hold one of some places.

    Raises:
        ApiError: 503 with the message; all are taken.
    """
    if not places.acquire(blocking=False):
        raise busy(message)
    try:
        yield
    finally:
        places.release()


@asynccontextmanager
async def place_within(
    places: threading.BoundedSemaphore, wait_s: float, message: str
) -> AsyncIterator[None]:
    """As `place`, but waits for one; what waits is the event loop and no thread.

    Raises:
        ApiError: 503 with the message; none was free in that time.
    """
    until_s = time.monotonic() + wait_s
    while not places.acquire(blocking=False):
        if time.monotonic() >= until_s:
            raise busy(message)
        await asyncio.sleep(RETRY_S)
    try:
        yield
    finally:
        places.release()


class HeldStream(StreamingResponse):
    """Sends pieces, and then gives back what they need: also where the client has gone, takes too long, or was never answered."""

    def __init__(
        self,
        held: ExitStack,
        pieces: Iterable[bytes],
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._held = held
        super().__init__(pieces, media_type=media_type, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held, suppress(TimeoutError):  # a cut answer is an error of the connection
            async with asyncio.timeout(SEND_S):
                await super().__call__(scope, receive, send)

    def __del__(self) -> None:
        self._held.close()
