"""What is passed on: requests of a known caller with the role that the route needs, from a host and an origin that are ours, not too often and not too much.

One ASGI layer around everything. It also sets the headers that keep a browser from doing what no page of ours needs.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from fastapi import HTTPException  # that of Starlette becomes a 400 in FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.service.credentials import Access
from jobs.service.errors import plain_failure
from jobs.service.roles import role_for

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
OPEN_PATHS = ("/healthz",)
LOGIN = "/login"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
MAX_BODY = 512 << 10  # the names of 10,000 episodes are 390 KB
MAX_QUERY = 16 << 10
BODY_S = 30.0  # within which a body has to be there
MAX_CLIENTS = 10_000
# Of the two style elements that plotly.js 7.1.0 inserts: an empty one, and the sheet of its maps. A test computes them from the wheel.
PLOTLY_STYLES = (
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='",
    "'sha256-ji27qzEtxXZW+7dun6UwjHXJ18e6WAin1VvNtkzIE/o='",
)
CSP = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' {' '.join(PLOTLY_STYLES)}",
        "img-src 'self' data: blob:",
        "media-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
_NUMBER = re.compile("[0-9]{1,18}")  # `isdigit` also knows superscripts
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at_s: float


class RateLimit:
    """`burst` requests at once, then `per_s` a second, for each client. What clients do not use fills up again."""

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float]) -> None:
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, client: str, cost: float = 1.0) -> float:
        """0 and the request counts, or how long until it could."""
        now = self._clock()
        with self._lock:
            bucket = self._buckets.setdefault(client, _Bucket(self._burst, now))
            self._buckets.move_to_end(client)
            if len(self._buckets) > MAX_CLIENTS:
                self._buckets.popitem(last=False)
            bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at_s) * self._per_s)
            bucket.at_s = now
            if bucket.tokens >= cost:
                bucket.tokens -= cost
                return 0.0
            return (cost - bucket.tokens) / self._per_s


class Guard:
    """The ASGI layer."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        access: Access,
        hosts: Iterable[str],
        requests: RateLimit,
        failures: RateLimit,
    ) -> None:
        self._app, self._access = app, access
        self._hosts = frozenset(host.lower() for host in hosts)
        self._requests, self._failures = requests, failures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                return  # there are none; the server closes the connection
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refused = self._refused(scope)
        if refused is not None:
            await refused(scope, receive, send_guarded)
            return
        await self._app(scope, limited(receive), send_guarded)

    def _refused(self, scope: Scope) -> Response | None:
        """Why a request is not passed on; None: it is. The order matters: a foreign host learns nothing, not even of health."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or host_of(hosts[0]) not in self._hosts:
            return plain_failure(421, "host", "this server does not answer for that host name")
        if not self._is_own_origin(headers, scope):
            return plain_failure(403, "origin", "requests of other sites are refused")
        if len(scope.get("query_string", b"")) > MAX_QUERY:
            return plain_failure(414, "too_long", f"the query has more than {MAX_QUERY} bytes")
        length = headers.get("content-length", "0")
        if not _NUMBER.fullmatch(length) or int(length) > MAX_BODY:
            return plain_failure(413, "too_large", f"expected a body of at most {MAX_BODY} bytes")
        client = scope["client"][0] if scope.get("client") else ""
        if wait_s := self._requests.wait_s(client):
            return _too_many(wait_s)
        if scope["path"] in OPEN_PATHS:
            return None
        if scope["path"] == LOGIN and scope["method"] == "GET":
            return self._login(scope, client)
        caller = self._access.caller_of(headers)
        if caller is None:
            return self._unknown(client)
        needed = role_for(scope["method"], scope["path"])
        if not caller.holder.role.includes(needed):
            return plain_failure(
                403, "role", f"needs the role {needed}; yours is {caller.holder.role}"
            )
        scope.setdefault("state", {})["caller"] = caller
        return None

    def _is_own_origin(self, headers: Headers, scope: Scope) -> bool:
        """Browsers name the page that a request comes from; other programs do not."""
        origin = headers.get("origin")
        if origin is not None:
            own = headers["host"].lower()
            try:
                parts = urlsplit(origin if origin.isascii() else "")
            except ValueError:  # `http://[::1`
                return False
            return parts.scheme in ("http", "https") and parts.netloc.lower() == own
        site = headers.get("sec-fetch-site", "none")
        if scope["method"] in SAFE_METHODS:
            # a link of another site leads here without the cookie (SameSite=Strict)
            return site in ("same-origin", "none") or headers.get("sec-fetch-mode") == "navigate"
        return site in ("same-origin", "none")

    def _login(self, scope: Scope, client: str) -> Response:
        query = parse_qs(scope["query_string"].decode("latin-1"))
        opened = self._access.session_of(query.get("code", [""])[0])
        if opened is None:
            return self._unknown(client)
        session, life_s = opened
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(
            self._access.cookie,
            session,
            max_age=int(life_s),
            path="/",
            httponly=True,
            samesite="strict",
            secure=scope["scheme"] == "https",
        )
        return response

    def _unknown(self, client: str) -> Response:
        if wait_s := self._failures.wait_s(client):
            return _too_many(wait_s)
        response = plain_failure(
            401,
            "unauthorized",
            "send the token as Authorization: Bearer, or open the URL that the server printed",
        )
        response.headers["WWW-Authenticate"] = "Bearer"
        return response


def host_of(header: str) -> str:
    """The host of a Host header, without its port: `[::1]:8321` -> `[::1]`. What is no such header is no host."""
    host, colon, port = header.strip().lower().rpartition(":")
    if header.strip().endswith("]") or not colon:
        return header.strip().lower()
    return host if _NUMBER.fullmatch(port) else ""


def _too_many(wait_s: float) -> Response:
    response = plain_failure(429, "too_many_requests", "too many requests")
    response.headers["Retry-After"] = str(max(int(wait_s + 0.999), 1))
    return response


def limited(receive: Receive, clock: Callable[[], float] = time.monotonic) -> Receive:
    """The body, up to its limit, for clients that do not say how long it is, and as long as it comes in time; what follows is not read."""
    num_bytes, is_whole = 0, False
    until_s = clock() + BODY_S

    async def receive_limited() -> Message:
        nonlocal num_bytes, is_whole
        if is_whole:
            return await receive()  # for the end of the connection, however long that takes
        try:
            message = await asyncio.wait_for(receive(), max(until_s - clock(), 0.0))
        except TimeoutError as error:
            raise HTTPException(408, f"expected the body within {BODY_S:g} s") from error
        if message["type"] == "http.request":
            is_whole = not message.get("more_body", False)
            num_bytes += len(message.get("body", b""))
            if num_bytes > MAX_BODY:
                raise HTTPException(413, f"expected a body of at most {MAX_BODY} bytes")
        return message

    return receive_limited
