"""The server: one policy, many connections, one inference at a time. A refused message gets an answer and affects no other client."""

from __future__ import annotations

import asyncio
import hmac
import http
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from schemas.errors import ConfigError, InvariantError
from training.policy.observation import ActionChunk, Observation
from training.server import messages
from training.server.wire import packed, unpacked

T = TypeVar("T")
HEALTH = "/healthz"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_KEPT = 10_000  # latencies


class Servable(Protocol):
    """What is served: `training.policy.policy.Policy` is one."""

    embodiments: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """Sent to every client first: names of the elements of an action, cameras, times."""
        ...

    def act(self, observation: Observation) -> ActionChunk:
        """Raises ConfigError for an observation that it cannot use."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where to listen and what to bear.

    Raises:
        ConfigError: another machine could reach the server without a token.
    """

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any that is free
    token: str | None = None
    max_message_bytes: int = 32 << 20  # a larger one closes its connection, before it is read whole
    max_clients: int = 16

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK and not self.token:
            problem = f"{self.host} accepts requests from other machines, and no API key is set"
            raise ConfigError(
                problem, remedy="add --token-file FILE, or use --host 127.0.0.1", where="--host"
            )


Reply = Callable[[bytes | str, float | None], Awaitable[bytes | str]]


class WireServer:
    """Connections, limits and timing; what a message means, a subclass says. `monotonic_s` is the clock of the latencies."""

    def __init__(
        self,
        facts: Callable[[], dict[str, Any]],
        settings: ServerSettings,
        *,
        monotonic_s: Callable[[], float],
    ) -> None:
        self.facts, self.settings = facts, settings
        self.infer_s: deque[float] = deque(maxlen=_KEPT)
        self.num_refused = 0
        self._clock = monotonic_s
        self._turn = asyncio.Lock()
        self._clients: set[asyncio.Task[Any]] = set()

    async def start(self) -> Server:
        """Listen; the caller waits for what this gives, and closes it.

        Raises:
            OSError: the port is taken, or the host is none of this machine.
        """
        return await serve(
            self._converse,
            self.settings.host,
            self.settings.port,
            process_request=self._admit,
            origins=[None],  # a browser names its page; no page has a reason to be here
            max_size=self.settings.max_message_bytes,
            max_queue=1,  # what a client sends meanwhile waits with the client
            compression=None,  # pictures do not shrink, and what unfolds can be a bomb
        )

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == HEALTH:
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if self.settings.token is not None:
            token = request.headers.get("Authorization", "").partition(" ")[2]
            if not hmac.compare_digest(token.encode(), self.settings.token.encode()):
                return connection.respond(http.HTTPStatus.UNAUTHORIZED, "Authorization: Api-Key\n")
        if len(self._clients) >= self.settings.max_clients:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many clients\n")
        self._count()
        return None

    def _count(self) -> None:
        """From the look at the number, without an await between, until its task ends: also where it ends in the handshake."""
        task = asyncio.current_task()
        if task is None:
            raise InvariantError("websockets must accept and serve a connection in one task")
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _converse(self, connection: ServerConnection) -> None:
        took_s: float | None = None
        reply = self.reply_of_connection()
        try:
            await connection.send(packed(self.facts()))
            async for data in connection:
                started = self._clock()
                await connection.send(await reply(data, took_s))
                took_s = self._clock() - started
        except ConnectionClosed:
            pass  # the other side went away: nothing is owed to it

    def reply_of_connection(self) -> Reply:
        """What answers the messages of one connection, and how long the answer before took. Refused messages are answered, not raised."""
        raise NotImplementedError

    async def timed(
        self, work: Callable[[], T], took_before_s: float | None
    ) -> tuple[T, dict[str, float]]:
        """What `work` gives, in its turn and in a thread, so that pings and /healthz are answered meanwhile; and `server_timing`."""
        async with self._turn:
            started = self._clock()
            result = await asyncio.to_thread(work)
            infer_s = self._clock() - started
        self.infer_s.append(infer_s)
        timing = {"infer_ms": infer_s * 1e3}
        if took_before_s is not None:
            timing["prev_total_ms"] = took_before_s * 1e3
        return result, timing


class PolicyServer(WireServer):
    """openpi's conversation and starVLA's: each observation is answered by a chunk."""

    def __init__(
        self, policy: Servable, settings: ServerSettings, *, monotonic_s: Callable[[], float]
    ) -> None:
        super().__init__(policy.facts, settings, monotonic_s=monotonic_s)
        self.policy = policy

    def reply_of_connection(self) -> Reply:
        """The same for all: nothing is kept of a connection."""
        return self._reply

    async def _reply(self, data: bytes | str, took_before_s: float | None) -> bytes | str:
        request: dict[str, Any] = {}
        try:
            request = unpacked(data)
            kind = messages.kind_of(request)
            if kind == "ping":
                return packed(messages.enveloped(request, "ping", {}))
            if kind not in messages.INFER:
                raise ConfigError(f"type {kind!r:.80}; expected ping or infer", where="message")
            answer = await self._inferred(request, took_before_s)
        except ConfigError as error:
            self.num_refused += 1
            is_enveloped = messages.is_enveloped(request)
            return packed(messages.refused(request, str(error))) if is_enveloped else str(error)
        if messages.is_enveloped(request):
            return packed(messages.enveloped(request, "inference_result", {"data": answer}))
        return packed(answer)

    async def _inferred(
        self, request: dict[str, Any], took_before_s: float | None
    ) -> dict[str, Any]:
        observation = messages.observation_of(request, self.policy.embodiments)
        chunk, timing = await self.timed(partial(self.policy.act, observation), took_before_s)
        return {**messages.answer_of(chunk), "server_timing": timing}
