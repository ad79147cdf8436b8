"""One JSON request to an HTTP server, and nothing that surprises: no proxy, no redirect, a bound on time and on bytes.

Out of the standard library: it needs no dependency, and a whole answer has ONE time limit here, so that a server that sends a byte a
second is found out. Clients count their time from byte to byte.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ingest.curation.captions.answers import one_line_of
from schemas.errors import ConfigError

MAX_BYTES = 4 << 20  # of an answer
CONNECT_S = (
    10.0  # a server that lives takes a connection at once, however long it thinks afterwards
)


class NoAnswer(Exception):
    """The connection failed, was cut, took too long or sent too much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """`retry_after_s` is what the server asks to wait, when it says so in seconds."""

    status: int
    body: bytes
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a server answers. `key` is a secret: it goes into one header and nowhere else."""

    scheme: str
    host: str
    port: int
    path: str
    key: str = ""

    def __repr__(self) -> str:
        return f"Endpoint({self.scheme}://{self.host}:{self.port}{self.path})"

    def scrubbed(self, text: str) -> str:
        """A text of the server's without the key, which it may have echoed."""
        return text.replace(self.key, "***") if self.key else text


def endpoint_at(url: str, key: str = "") -> Endpoint:
    """Check an address that the user gave.

    Raises:
        ConfigError: no http(s) URL, one with a user or a query, or a key that would cross a network in clear.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"not a valid URL: {error}", where="--endpoint") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            "expected a URL like http://127.0.0.1:8000/v1", where=f"--endpoint {url[:80]}"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "the URL must not contain a user, password, query or fragment",
            remedy="put the API key into the environment variable named by api_key_env",
            where="--endpoint",
        )
    if key and parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ConfigError(
            "the API key would be sent unencrypted", remedy="use https", where="--endpoint"
        )
    if key and not (key.isascii() and key.isprintable()):
        raise ConfigError(
            "the API key is not printable ASCII text",
            remedy="check the value of the environment variable named by api_key_env",
            where="api_key_env",
        )
    return Endpoint(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port or (443 if parts.scheme == "https" else 80),
        path=parts.path.rstrip("/"),
        key=key,
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Stop:
    """Ends every request that was given it, those on their way too."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self._watches: set[_Watch] = set()
        self._lock = threading.Lock()

    def ask(self) -> None:
        self.asked.set()
        with self._lock:
            for watch in self._watches:
                watch.fire()

    def add(self, watch: _Watch) -> None:
        with self._lock:
            self._watches.add(watch)
            if self.asked.is_set():
                watch.fire()

    def remove(self, watch: _Watch) -> None:
        with self._lock:
            self._watches.discard(watch)


def post_json(
    endpoint: Endpoint, path: str, body: Mapping[str, Any], *, timeout_s: float, stop: Stop
) -> HttpAnswer:
    """POST and read the whole answer, whatever its status.

    Raises:
        NoAnswer: there was none, or not within `timeout_s`, or it was stopped.
    """
    kind = http.client.HTTPSConnection if endpoint.scheme == "https" else http.client.HTTPConnection
    connection = kind(endpoint.host, endpoint.port, timeout=min(timeout_s, CONNECT_S))
    watch = _Watch(connection, timeout_s, stop)
    try:
        with watch:
            headers = {"Content-Type": "application/json", "Accept": "application/json"}
            if endpoint.key:
                headers["Authorization"] = f"Bearer {endpoint.key}"
            connection.connect()
            watch.connected = connection.sock  # http.client forgets it when the server will hang up
            watch.connected.settimeout(2 * timeout_s)  # from here on the watch is what counts
            if watch.has_fired:  # while there was no socket yet to shut
                raise TimeoutError
            connection.request(
                "POST", endpoint.path + path, json.dumps(body).encode(), headers=headers
            )
            with connection.getresponse() as response:
                answer = _read(response)
            # a body without a stated length ends with the connection, also when we were the ones to end it
            if watch.has_fired:
                raise TimeoutError
            return answer
    except (OSError, http.client.HTTPException, ValueError) as error:
        is_late = watch.has_fired or isinstance(error, TimeoutError)
        message = (
            f"no response within {timeout_s:g} s" if is_late else f"{type(error).__name__}: {error}"
        )
        raise NoAnswer(one_line_of(endpoint.scrubbed(message))[:300]) from error
    finally:
        connection.close()


def _read(response: http.client.HTTPResponse) -> HttpAnswer:
    body = response.read(MAX_BYTES + 1)
    if len(body) > MAX_BYTES:
        raise ValueError(f"the response is larger than {MAX_BYTES} bytes")
    if response.length:  # read(n) does not complain about a body that is cut short
        raise ValueError(f"the response is truncated by {response.length} bytes")
    wait = response.headers.get("Retry-After", "").strip()
    retry_after_s = float(wait) if wait.isascii() and wait.isdigit() else None
    return HttpAnswer(status=response.status, body=body, retry_after_s=retry_after_s)


class _Watch:
    """Shuts the socket of a connection when its time is up, whatever it is doing then."""

    def __init__(
        self, connection: http.client.HTTPConnection, timeout_s: float, stop: Stop
    ) -> None:
        self.has_fired = False
        self.connected: socket.socket | None = None
        self._connection = connection
        self._stop = stop
        self._timer = threading.Timer(timeout_s, self.fire)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()
        self._stop.add(self)

    def __exit__(self, *_: object) -> None:
        self._stop.remove(self)
        self._timer.cancel()

    def fire(self) -> None:
        self.has_fired = True
        connected = self.connected or self._connection.sock
        if connected is not None:
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
