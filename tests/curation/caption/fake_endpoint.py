"""A chat completions server on loopback that answers well, or in whatever bad way it is told to."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DESCRIPTION: dict[str, Any] = {
    "visible_hands": "right",
    "objects": ["red cup", "table"],
    "events": [
        {"start_s": 0.0, "end_s": 0.5, "hand": "right", "action": "grasps", "object": "red cup"},
        {"start_s": 0.5, "end_s": 1.0, "hand": "right", "action": "lifts", "object": "red cup"},
    ],
    "contact": "yes",
    "quality": [],
}
INSTRUCTION: dict[str, Any] = {
    "status": "ok",
    "instruction": "pick up the red cup",
    "left": None,
    "right": "pick up the red cup",
    "verb": "pick",
    "object": "red cup",
    "destination": None,
    "agrees_with_source": "n/a",
    "evidence_s": [0.5],
    "confidence": 0.9,
    "rephrasings": ["grab the red cup"],
}


@dataclass
class Fake:
    """`script`: what to do with the next requests; afterwards `then`. `requests`: the bodies that came, `headers` with them."""

    script: list[str] = field(default_factory=list)
    then: str = "good"
    description: dict[str, Any] = field(default_factory=lambda: dict(DESCRIPTION))
    instruction: dict[str, Any] = field(default_factory=lambda: dict(INSTRUCTION))
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def wait_for(self, num_requests: int) -> None:
        """Until so many have come; a test that hangs would say nothing."""
        give_up = time.monotonic() + 60
        while len(self.requests) < num_requests:
            if time.monotonic() > give_up:
                raise TimeoutError(f"{len(self.requests)} of {num_requests} requests came")
            time.sleep(0.01)

    def next_act(self) -> str:
        with self.lock:
            return self.script.pop(0) if self.script else self.then


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    fake: Fake

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are the point."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def do_POST(self) -> None:
        fake = self.server.fake
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with fake.lock:
            fake.requests.append(body)
            fake.headers.append(dict(self.headers))
        act = fake.next_act()
        if act.isdigit():
            self.answer(int(act), b'{"error": "told to"}')
            return
        ACTS.get(act, _said(act))(self, body)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def say(self, text: str | None, finish: str = "stop", **message: Any) -> None:
        choice = {"message": {"role": "assistant", "content": text, **message}}
        self.answer(200, json.dumps({"choices": [{**choice, "finish_reason": finish}]}).encode())

    def wanted(self, body: dict[str, Any]) -> dict[str, Any]:
        """Pass one has a picture, pass two has none."""
        has_picture = any(isinstance(m["content"], list) for m in body["messages"])
        fake = self.server.fake
        return fake.description if has_picture else fake.instruction

    def good(self, body: dict[str, Any]) -> None:
        self.say(json.dumps(self.wanted(body)))


Act = Callable[[_Handler, dict[str, Any]], None]


def _said(text: str) -> Act:
    """Any other word is said as it is."""
    return lambda handler, body: handler.say(text)


def _hang(handler: _Handler, body: dict[str, Any]) -> None:
    handler.server.fake.released.wait(30)


def _drip(handler: _Handler, body: dict[str, Any]) -> None:
    """A byte every 20 ms: never silent for long, and never done."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while not handler.server.fake.released.wait(0.02):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def _drip_unsized(handler: _Handler, body: dict[str, Any]) -> None:
    """A whole answer, and then no end of it: the end of the connection would be its end."""
    handler.send_response(200)
    handler.end_headers()
    choice = {"message": {"content": json.dumps(handler.wanted(body))}}
    handler.wfile.write(json.dumps({"choices": [choice]}).encode())
    handler.wfile.flush()
    _hang(handler, body)


def _drip_headers(handler: _Handler, body: dict[str, Any]) -> None:
    while not handler.server.fake.released.wait(0.02):
        handler.wfile.write(b"X")
        handler.wfile.flush()


def _reset(handler: _Handler, body: dict[str, Any]) -> None:
    linger = struct.pack("ii", 1, 0)  # close with a RST
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()


def _cut_body(handler: _Handler, body: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"message": {"content": "')


def _cut_after_json(handler: _Handler, body: dict[str, Any]) -> None:
    """What comes is well-formed, and still not all that was announced."""
    choice = {"message": {"content": json.dumps(handler.wanted(body))}}
    data = json.dumps({"choices": [choice]}).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data) + 10))
    handler.end_headers()
    handler.wfile.write(data)


def _no_format(handler: _Handler, body: dict[str, Any]) -> None:
    if "response_format" in body:
        handler.answer(422, b'{"error": "unknown field response_format"}')
    else:
        handler.good(body)


def _echo(handler: _Handler, body: dict[str, Any]) -> None:
    handler.answer(500, f"you sent {handler.headers['Authorization']}".encode())


ACTS: dict[str, Act] = {
    "good": _Handler.good,
    "hang": _hang,
    "drip": _drip,
    "drip_unsized": _drip_unsized,
    "drip_headers": _drip_headers,
    "reset": _reset,
    "cut_body": _cut_body,
    "cut_after_json": _cut_after_json,
    "no_format": _no_format,
    "echo": _echo,
    "echo_late": lambda h, b: h.answer(500, b"." * 294 + h.headers["Authorization"].encode()),
    "echo_answer": lambda h, b: h.say(f"sorry, I cannot say {h.headers['Authorization']}"),
    "escapes": lambda h, b: h.answer(500, b"\x1b]0;mine\x07\xe2\x80\xae bad"),
    "half_character": lambda h, b: h.answer(
        200, b'{"choices": [{"message": {"content": "I\'m sorry \\ud800"}}]}'
    ),
    "wait": lambda h, b: h.answer(429, b"slow down", Retry_After="7"),
    "wait_date": lambda h, b: h.answer(429, b"", Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"),
    "redirect": lambda h, b: h.answer(302, b"", Location="http://127.0.0.1:9/"),
    "html": lambda h, b: h.answer(200, b"<html>gateway</html>"),
    "empty_object": lambda h, b: h.answer(200, b"{}"),
    "no_content": lambda h, b: h.say(None),
    "gzip": lambda h, b: h.answer(200, gzip.compress(bytes(9 << 20)), Content_Encoding="gzip"),
    "huge": lambda h, b: h.answer(200, b" " * (5 << 20)),
    "length": lambda h, b: h.say('{"visible_hands": "ri', "length"),
    "cut_json": lambda h, b: h.say(json.dumps(h.wanted(b))[:-20]),
    "wrong_schema": lambda h, b: h.say(json.dumps({"caption": "a cup"})),
    "extra_field": lambda h, b: h.say(json.dumps({**h.wanted(b), "mood": "calm"})),
    "refusal": lambda h, b: h.say(None, refusal="I will not."),
    "sorry": lambda h, b: h.say("I'm sorry, but I can't help with that."),
    "content_filter": lambda h, b: h.say("", "content_filter"),
    "fenced": lambda h, b: h.say(f"Here you are:\n```json\n{json.dumps(h.wanted(b))}\n```"),
    "thinking": lambda h, b: h.say(f"<think>a {{cup}}?</think>{json.dumps(h.wanted(b))} Done."),
}


@contextmanager
def endpoint(**what: Any) -> Iterator[Fake]:
    """A server that is gone afterwards."""
    fake = Fake(**what)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.fake = fake
    fake.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        fake.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
