"""What is kept of answers, and that what several ask for at once is made once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from jobs.service import api
from jobs.service.byte_cache import ByteCache

API = "/api/v1"


def test_entries_are_kept_up_to_a_number_of_bytes() -> None:
    cache = ByteCache(max_bytes=10)
    computed: list[int] = []

    def make(n: int) -> bytes:
        computed.append(n)
        return b"1234"

    for n in (1, 2, 1, 3, 1, 2):
        assert cache.get((n,), lambda n=n: make(n)) == b"1234"  # type: ignore[misc]
    assert computed == [1, 2, 3, 2]
    for _ in range(2):
        assert cache.get("long", lambda: b"x" * 11) == b"x" * 11  # more than all: not kept


def test_what_several_ask_for_at_once_is_made_once() -> None:
    cache, started, release = ByteCache(), threading.Event(), threading.Event()
    computed: list[int] = []

    def make() -> bytes:
        computed.append(1)
        started.set()
        assert release.wait(30)
        return b"answer"

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(cache.get, "key", make)
        assert started.wait(30)
        others = [pool.submit(cache.get, "key", make) for _ in range(3)]
        assert cache.get("another", lambda: b"other") == b"other"  # is not held up
        release.set()
        assert {each.result() for each in (first, *others)} == {b"answer"}
    assert computed == [1]


def test_a_failure_is_not_kept() -> None:
    cache = ByteCache()

    def fail() -> bytes:
        raise OSError("no")

    for _ in range(2):
        with pytest.raises(OSError, match="no"):
            cache.get("key", fail)
    assert cache.get("key", lambda: b"answer") == b"answer"


def test_an_equal_query_is_not_computed_again(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{API}/episodes?filter=length:ge:1&limit=7"
    before = client.get(path).json()

    def fail(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(api, "_rows", fail)
    assert client.get(path).json() == before
    with pytest.raises(AssertionError, match="computed again"):
        client.get(f"{path}&sort=-uid")
