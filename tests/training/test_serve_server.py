"""The server and a client in one process: openpi's conversation, starVLA's, and strangers'."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from schemas.action import action_spec
from schemas.errors import ConfigError
from training.policy.observation import ActionChunk, Observation
from training.server.server import PolicyServer, ServerSettings
from training.server.wire import packed, unpacked

SPEC = action_spec([("right.gripper_opening", 1)])
assert SPEC is not None


class Echo:
    """Says how many pictures it saw, twice."""

    embodiments = ("arm", "hand")

    def __init__(self) -> None:
        self.seen: list[Observation] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def facts(self) -> dict[str, Any]:
        return {"recipe": "echo", "past_s": [-0.3, 0.0]}

    def act(self, observation: Observation) -> ActionChunk:
        assert self.may_answer.wait(timeout=300)
        self.seen.append(observation)
        if observation.text == "crash":
            raise RuntimeError("as a device without memory does")
        if observation.text == "impossible":
            raise ConfigError("cannot be done", where="observation")
        num = float(sum(len(p) for p in observation.pictures.values()))
        assert SPEC is not None
        return ActionChunk(spec=SPEC, targets=np.full((2, 1), num), t_s=np.array([0.1, 0.2]))


def converse(
    talk: Callable[[ClientConnection, Echo, PolicyServer], Awaitable[None]],
    *,
    headers: dict[str, str] | None = None,
    origin: str | None = None,
    **settings: Any,
) -> None:
    async def run() -> None:
        policy = Echo()
        made = PolicyServer(policy, ServerSettings(port=0, **settings), monotonic_s=time.monotonic)
        server = await made.start()
        try:
            port = server.sockets[0].getsockname()[1]
            async with connect(
                f"ws://127.0.0.1:{port}",
                compression=None,
                additional_headers=headers,
                origin=origin,  # type: ignore[arg-type]
            ) as client:
                await talk(client, policy, made)
        finally:
            server.close()
            await server.wait_closed()

    asyncio.run(run())


def observation(**more: Any) -> dict[str, Any]:
    picture = np.zeros((8, 6, 3), np.uint8)
    return {"prompt": "push", "embodiment": "arm", "observation/front": picture, **more}


def test_a_conversation_of_openpi() -> None:
    async def talk(client: ClientConnection, policy: Echo, server: PolicyServer) -> None:
        assert unpacked(await client.recv()) == {"recipe": "echo", "past_s": [-0.3, 0.0]}
        pair = np.zeros((2, 8, 6, 3), np.uint8)
        state = np.ones(3, np.float32)
        await client.send(packed(observation(**{"observation/images/wrist": pair, "observation/history": state})))  # fmt: skip
        answer = unpacked(await client.recv())
        assert answer["actions"].tolist() == [[3.0], [3.0]]
        assert answer["actions"].dtype == np.float32
        np.testing.assert_allclose(answer["t_s"], [0.1, 0.2])
        assert set(answer["server_timing"]) == {"infer_ms"}
        await client.send(packed(observation()))
        assert "prev_total_ms" in unpacked(await client.recv())["server_timing"]
        seen = policy.seen[0]
        assert (seen.text, seen.embodiment) == ("push", "arm")
        assert {name: p.shape for name, p in seen.pictures.items()} == {"front": (1, 8, 6, 3), "wrist": (2, 8, 6, 3)}  # fmt: skip
        assert seen.history is not None
        assert seen.state is None
        assert len(server.infer_s) == 2

    converse(talk)


def test_a_conversation_of_starvla() -> None:
    async def talk(client: ClientConnection, policy: Echo, server: PolicyServer) -> None:
        await client.recv()
        await client.send(packed({"type": "ping", "request_id": "a"}))
        want = {"status": "ok", "ok": True, "type": "ping", "request_id": "a"}
        assert unpacked(await client.recv()) == want
        for message in (
            {"type": "infer", "request_id": "b", "payload": observation()},
            {"type": "infer", "request_id": "b", **observation()},
        ):
            await client.send(packed(message))
            answer = unpacked(await client.recv())
            assert answer["ok"]
            assert answer["type"] == "inference_result"
            assert answer["request_id"] == "b"
            assert answer["data"]["actions"].tolist() == [[1.0], [1.0]]
        await client.send(packed({"type": "reset", "request_id": 7}))
        answer = unpacked(await client.recv())
        assert (answer["ok"], answer["status"], answer["request_id"]) == (False, "error", 7)
        assert "ping or infer" in answer["error"]["message"]

    converse(talk)


PAGE = Path(__file__).parents[2] / "docs/how-to/serve.md"


def test_the_client_of_the_page_is_understood() -> None:
    """The code as the page has it, with `websockets` and `msgpack` and nothing of ours."""
    (code,) = re.findall(r"```python\n(import msgpack\n.*?)```", PAGE.read_text(), re.DOTALL)

    async def talk(client: ClientConnection, policy: Echo, server: PolicyServer) -> None:
        port = client.remote_address[1]
        names: dict[str, Any] = {}
        await asyncio.to_thread(exec, code.replace(":8000", f":{port}"), names)
        assert names["facts"] == {"recipe": "echo", "past_s": [-0.3, 0.0]}
        assert names["targets"].tolist() == [[1.0], [1.0]]
        assert names["targets"].dtype == names["t_s"].dtype == np.float32
        (seen,) = policy.seen
        assert seen.pictures["front"].shape == (1, 224, 224, 3)

    converse(talk)


def test_the_keys_of_an_array_are_bytes_in_an_answer_and_either_in_a_request() -> None:
    async def talk(client: ClientConnection, policy: Echo, server: PolicyServer) -> None:
        await client.recv()
        array = {"__ndarray__": True, "data": bytes(144), "dtype": "|u1", "shape": [8, 6, 3]}
        for keys in (array, {key.encode(): value for key, value in array.items()}):
            await client.send(msgpack.packb({"embodiment": "arm", "observation/front": keys}))
            answer = msgpack.unpackb(await client.recv())
            assert all(isinstance(name, str) for name in answer)
            assert answer["actions"].keys() == {b"__ndarray__", b"data", b"dtype", b"shape"}
        assert [seen.pictures["front"].shape for seen in policy.seen] == [(1, 8, 6, 3)] * 2

    converse(talk)


BAD: list[tuple[bytes | str, str]] = [
    (packed(observation(prompt="impossible")), "cannot be done"),
    (packed(observation(embodiment="stranger")), "stranger"),
    (packed(observation(embodiment=np.zeros(2, np.uint8))), "expected one of"),
    (packed({"prompt": "no body", "observation/x": np.zeros((1, 1, 3), np.uint8)}), "arm, hand"),
    (packed(observation(prompt=3)), "prompt"),
    (packed(observation(**{"observation/front": np.zeros((8, 6, 3), np.float32)})), "uint8"),
    (packed(observation(**{"observation/front": np.zeros((3, 8, 6), np.uint8)})), "uint8"),
    (packed(observation(**{"observation/state": np.array([np.nan])})), "finite"),
    (packed(observation(**{"observation/front": [1, 2]})), "not an expected field"),
    (packed(observation(verbose=True)), "not an expected field"),
    (packed({"type": "infer", "payload": 3}), "payload"),
    (packed({"type": "infer", "payload": {b"observation/front": np.zeros((8, 6, 3), np.uint8)}}), "map with string keys"),
    (packed(observation(prompt="a" * 10_001)), "10001 letters"),
    (packed(observation())[:-40], "msgpack"),
    (b"\xc1 no msgpack", "msgpack"),
    ("text", "text frame"),
    (msgpack.packb({"observation/x": {b"__ndarray__": True, b"data": b"", b"dtype": "|O", b"shape": [1]}}), "dtype"),
    (msgpack.packb({"observation/x": {b"__ndarray__": True, b"data": b"", b"dtype": "|u1", b"shape": [1 << 50]}}), "bytes"),
]  # fmt: skip


def test_what_is_refused_is_answered_and_the_connection_stays() -> None:
    async def talk(client: ClientConnection, policy: Echo, server: PolicyServer) -> None:
        await client.recv()
        for message, said in BAD:
            await client.send(message)
            answer = await client.recv()
            if not isinstance(answer, str):
                answer = unpacked(answer)["error"]["message"]
            assert said in answer, (said, answer)
        assert server.num_refused == len(BAD)
        await client.send(packed(observation()))
        assert unpacked(await client.recv())["actions"].shape == (2, 1)

    converse(talk)


def test_what_nobody_foresaw_closes_only_its_connection() -> None:
    async def talk(client: ClientConnection, policy: Echo, server: PolicyServer) -> None:
        await client.recv()
        host, port = client.remote_address
        async with connect(f"ws://{host}:{port}", compression=None) as other:
            await other.recv()
            await client.send(packed(observation(prompt="crash")))
            with pytest.raises(ConnectionClosed):
                await client.recv()
            await other.send(packed(observation()))
            assert "actions" in unpacked(await other.recv())

    converse(talk)


def test_a_message_that_is_too_large_closes_only_its_connection() -> None:
    async def talk(client: ClientConnection, policy: Echo, server: PolicyServer) -> None:
        await client.recv()
        host, port = client.remote_address
        async with connect(f"ws://{host}:{port}", compression=None) as other:
            await other.recv()
            await client.send(b"\x00" * 2000)
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009
            await other.send(packed(observation()))
            assert "actions" in unpacked(await other.recv())

    converse(talk, max_message_bytes=1000)


async def asked(host: str, port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())  # fmt: skip
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return line


def test_health_is_told_while_the_policy_thinks() -> None:
    async def talk(client: ClientConnection, policy: Echo, server: PolicyServer) -> None:
        await client.recv()
        policy.may_answer.clear()
        await client.send(packed(observation()))
        assert b"200" in await asked(*client.remote_address[:2], "/healthz")
        assert policy.seen == []
        policy.may_answer.set()
        assert "actions" in unpacked(await client.recv())

    converse(talk)


def test_a_token_is_wanted_where_there_is_one() -> None:
    async def talk(client: ClientConnection, policy: Echo, server: PolicyServer) -> None:
        await client.recv()
        assert b"401" in await asked(*client.remote_address[:2], "/")
        assert b"200" in await asked(*client.remote_address[:2], "/healthz")

    converse(talk, headers={"Authorization": "Api-Key secret"}, token="secret")
    with pytest.raises(InvalidStatus, match="401"):
        converse(talk, headers={"Authorization": "Api-Key wrong"}, token="secret")
    with pytest.raises(InvalidStatus, match="401"):
        converse(talk, token="secret")


def test_a_page_in_a_browser_gets_nothing() -> None:
    async def talk(client: ClientConnection, policy: Echo, server: PolicyServer) -> None:
        pytest.fail("it was let in")

    with pytest.raises(InvalidStatus, match="403"):
        converse(talk, origin="https://example.org")


def test_more_clients_than_allowed_are_told_so() -> None:
    async def talk(client: ClientConnection, policy: Echo, server: PolicyServer) -> None:
        await client.recv()
        assert b"503" in await asked(*client.remote_address[:2], "/")

    converse(talk, max_clients=1)


def test_two_clients_that_arrive_at_once_are_not_both_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def slowly(connection: ServerConnection) -> None:
        await asyncio.sleep(0.01)  # in the handshake of one, the other is asked about

    async def talk(client: ClientConnection, policy: Echo, server: PolicyServer) -> None:
        await client.recv()
        address = client.remote_address[:2]
        at_once = await asyncio.gather(*(asked(*address, "/") for _ in range(2)))
        assert sorted(line.split()[1] for line in at_once) == [b"101", b"503"]

    monkeypatch.setattr(ServerConnection, "drain", slowly)
    converse(talk, max_clients=2)


def test_who_left_or_was_never_let_in_takes_no_place() -> None:
    async def talk(client: ClientConnection, policy: Echo, server: PolicyServer) -> None:
        host, port = client.remote_address
        for _ in range(3):
            async with connect(f"ws://{host}:{port}", compression=None) as other:
                await other.recv()
            with pytest.raises(InvalidStatus, match="403"):
                await connect(f"ws://{host}:{port}", origin="https://example.org")  # type: ignore[arg-type]

    converse(talk, max_clients=2)


def test_nobody_else_is_served_without_a_token() -> None:
    for host in ("0.0.0.0", "::", "10.0.0.1"):
        with pytest.raises(ConfigError, match="--token-file"):
            ServerSettings(host=host)
    ServerSettings(host="0.0.0.0", token="secret")
