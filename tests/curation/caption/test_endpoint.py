"""An OpenAI-compatible backend against a server that misbehaves in every way we know of."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.curation.captions.answers import Description, Instruction
from ingest.curation.captions.backends import backend_for
from ingest.curation.captions.cache import Cache
from ingest.curation.captions.chat import ChatBackend
from ingest.curation.captions.endpoint import Endpoint, endpoint_at
from ingest.curation.captions.openai_backend import OpenAiChat
from ingest.curation.captions.protocol import (
    CaptionOutcome,
    DescribeRequest,
    EndpointDown,
    InstructRequest,
    Reply,
    Segment,
)
from ingest.curation.captions.settings import AskSettings, CaptionSettings, EndpointSettings
from ingest.curation.captions.sheet import SheetPlan, sheet_of
from ingest.storage.local import LocalStorage
from schemas.errors import ConfigError
from tests.curation.caption.fake_endpoint import DESCRIPTION, INSTRUCTION, Fake, endpoint

SEGMENT = Segment(uid="u", start=0, end=10, duration_s=1.0, texts=("take cup",))
SHEET = sheet_of([np.zeros((48, 64, 3), np.uint8)] * 4, [0.0, 0.3, 0.6, 0.9], SheetPlan())


def backend(fake: Fake, key: str = "", **settings: Any) -> tuple[ChatBackend, list[float]]:
    """A backend without waiting, and the waits it would have made."""
    slept: list[float] = []
    asked = EndpointSettings(**{"timeout_s": 5.0, "wait_max_s": 0.0, **settings})
    chat = OpenAiChat(endpoint_at(fake.url, key), "tiny", asked, sleep=slept.append)
    return ChatBackend(chat, AskSettings()), slept


def describe(fake: Fake, **settings: Any) -> Reply[Description]:
    return backend(fake, **settings)[0].describe(DescribeRequest(segment=SEGMENT, sheet=SHEET))


def instruct(fake: Fake) -> Reply[Instruction]:
    description = Description.model_validate(DESCRIPTION)
    request = InstructRequest(segment=SEGMENT, description=description)
    return backend(fake)[0].instruct(request)


def test_both_passes_arrive_as_they_were_sent() -> None:
    with endpoint() as fake:
        assert describe(fake).value == Description.model_validate(DESCRIPTION)
        assert instruct(fake).value == Instruction.model_validate(INSTRUCTION)
    first, second = fake.requests
    picture, text = first["messages"][1]["content"]
    assert picture["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
    assert "take cup" not in json.dumps(first)  # pass one is told nothing
    assert "take cup" in second["messages"][1]["content"]
    assert "red cup" in second["messages"][1]["content"]
    assert text["type"] == "text"
    schema = first["response_format"]["json_schema"]["schema"]
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == set(DESCRIPTION)
    assert "maxItems" not in json.dumps(schema)


@pytest.mark.parametrize(
    "act",
    [
        "500",
        "503",
        "429",
        "408",
        "reset",
        "cut_body",
        "cut_after_json",
        "html",
        "empty_object",
        "huge",
        "gzip",
        "wait_date",
    ],
)
def test_a_passing_trouble_is_tried_again(act: str) -> None:
    with endpoint(script=[act, act]) as fake:
        assert describe(fake).outcome is CaptionOutcome.OK
    assert len(fake.requests) == 3


@pytest.mark.parametrize("act", ["hang", "drip", "drip_unsized", "drip_headers"])
def test_a_whole_answer_has_one_time_limit(act: str) -> None:
    began = time.monotonic()
    with endpoint(then=act) as fake:
        reply = describe(fake, timeout_s=0.15, tries=2)
        assert time.monotonic() - began < 60
    assert reply.outcome is CaptionOutcome.TRANSPORT_ERROR
    assert reply.detail == "no response within 0.15 s"


def test_nobody_there_is_a_transport_error() -> None:
    with endpoint() as fake:
        pass
    reply = describe(fake, tries=2)
    assert reply.outcome is CaptionOutcome.TRANSPORT_ERROR
    assert "ConnectionRefused" in reply.detail


def test_waits_as_long_as_the_server_asks_but_not_for_ever() -> None:
    with endpoint(script=["wait", "500"]) as fake:
        asked, slept = backend(fake)
        asked.describe(DescribeRequest(segment=SEGMENT, sheet=SHEET))
    assert slept == [7.0, 0.0]


def test_tries_are_counted() -> None:
    with endpoint(then="500") as fake:
        assert describe(fake, tries=3).outcome is CaptionOutcome.TRANSPORT_ERROR
    assert len(fake.requests) == 3


@pytest.mark.parametrize("act", ["401", "403", "404", "redirect"])
def test_a_refusal_for_good_stops_the_run_at_once(act: str) -> None:
    with endpoint(then=act) as fake, pytest.raises(ConfigError, match="HTTP"):
        describe(fake)
    assert len(fake.requests) == 1


def test_a_request_that_is_refused_is_not_repeated() -> None:
    with endpoint(then="400") as fake:
        reply = describe(fake)
    assert reply.outcome is CaptionOutcome.TRANSPORT_ERROR
    assert len(fake.requests) == 3  # once in each format, no more


def test_structured_output_is_asked_for_as_far_as_it_is_understood() -> None:
    with endpoint(then="no_format") as fake:
        asked, _ = backend(fake)
        for _ in range(2):
            reply = asked.describe(DescribeRequest(segment=SEGMENT, sheet=SHEET))
            assert reply.outcome is CaptionOutcome.OK
    kinds = [r.get("response_format", {}).get("type") for r in fake.requests]
    assert kinds == ["json_schema", "json_object", None, None]  # and remembered


def test_one_bad_request_does_not_end_structured_output() -> None:
    with endpoint(script=["400", "400", "400"]) as fake:
        asked, _ = backend(fake)
        for _ in range(2):
            asked.describe(DescribeRequest(segment=SEGMENT, sheet=SHEET))
    assert fake.requests[-1]["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize("act", ["fenced", "thinking"])
def test_what_is_around_an_answer_does_not_matter(act: str) -> None:
    with endpoint(then=act) as fake:
        assert describe(fake).value == Description.model_validate(DESCRIPTION)
        assert instruct(fake).value == Instruction.model_validate(INSTRUCTION)


@pytest.mark.parametrize(
    "act", ["cut_json", "wrong_schema", "extra_field", "no_content", "no json", "[1]", "{" * 5000]
)
def test_no_answer_is_corrected_once(act: str) -> None:
    with endpoint(script=[act]) as fake:
        assert describe(fake).outcome is CaptionOutcome.OK
    assert len(fake.requests) == 2
    assert "not an answer of the schema" in fake.requests[1]["messages"][-1]["content"]
    with endpoint(then=act) as fake:
        reply = describe(fake)
    assert reply.outcome is CaptionOutcome.PARSE_ERROR
    assert reply.detail
    assert len(fake.requests) == 2


def test_a_cut_answer_gets_twice_the_room_once() -> None:
    with endpoint(script=["length"]) as fake:
        assert describe(fake).outcome is CaptionOutcome.OK
    assert [r["max_tokens"] for r in fake.requests] == [512, 1024]
    with endpoint(then="length") as fake:
        assert describe(fake).outcome is CaptionOutcome.TRUNCATED
    assert len(fake.requests) == 2


@pytest.mark.parametrize("act", ["refusal", "sorry", "content_filter"])
def test_a_refusal_is_blocked_and_not_argued_with(act: str) -> None:
    with endpoint(then=act) as fake:
        assert describe(fake).outcome is CaptionOutcome.BLOCKED
    assert len(fake.requests) == 1


def test_after_so_many_failures_in_a_row_nobody_is_asked() -> None:
    with endpoint(then="500", script=["good"]) as fake:
        asked, _ = backend(fake, tries=1, failures_to_stop=3)
        request = DescribeRequest(segment=SEGMENT, sheet=SHEET)
        outcomes = [asked.describe(request).outcome for _ in range(4)]
        assert outcomes == [CaptionOutcome.OK] + [CaptionOutcome.TRANSPORT_ERROR] * 3
        with pytest.raises(
            EndpointDown, match="3 requests in a row failed, the last with: HTTP 500"
        ):
            asked.describe(request)
    assert len(fake.requests) == 4


def test_a_success_between_failures_keeps_it_going() -> None:
    with endpoint(script=["500", "500", "good", "500", "500", "good"]) as fake:
        asked, _ = backend(fake, tries=1, failures_to_stop=3)
        request = DescribeRequest(segment=SEGMENT, sheet=SHEET)
        outcomes = [asked.describe(request).outcome for _ in range(6)]
    assert outcomes.count(CaptionOutcome.OK) == 2


def test_the_key_goes_into_one_header_and_into_no_message() -> None:
    with endpoint(then="echo") as fake:
        asked, _ = backend(fake, key="s3cret", tries=1)
        reply = asked.describe(DescribeRequest(segment=SEGMENT, sheet=SHEET))
    assert fake.headers[0]["Authorization"] == "Bearer s3cret"
    assert "you sent Bearer ***" in reply.detail
    assert "s3cret" not in repr(asked.chat) + repr(asked.chat.endpoint)  # type: ignore[attr-defined]


@pytest.mark.parametrize("act", ["echo_late", "echo_answer"])
def test_no_part_of_a_key_comes_back(act: str) -> None:
    """Not where a message is cut, and not in what a model says."""
    with endpoint(then=act) as fake:
        asked, _ = backend(fake, key="s3cretkey", tries=1)
        reply = asked.describe(DescribeRequest(segment=SEGMENT, sheet=SHEET))
    assert reply.outcome in (
        CaptionOutcome.TRANSPORT_ERROR,
        CaptionOutcome.BLOCKED,
        CaptionOutcome.PARSE_ERROR,
    )
    assert "s3c" not in reply.detail


@pytest.mark.parametrize("act", ["escapes", "half_character"])
def test_a_message_can_be_printed_and_stored(act: str) -> None:
    with endpoint(then=act) as fake:
        reply = describe(fake, tries=1)
    assert reply.detail.isprintable()
    assert reply.detail.encode()


def test_who_waits_is_let_go_when_the_run_is_interrupted() -> None:
    began = time.monotonic()
    with endpoint(script=["hang"], then="500") as fake:
        chat = OpenAiChat(endpoint_at(fake.url), "m", EndpointSettings(timeout_s=300))
        asked = ChatBackend(chat, AskSettings())
        request = DescribeRequest(segment=SEGMENT, sheet=SHEET)
        with ThreadPoolExecutor(3) as pool:
            replies = [pool.submit(asked.describe, request) for _ in range(3)]
            fake.wait_for(3)
            asked.stop()
            assert {r.result().outcome for r in replies} == {CaptionOutcome.TRANSPORT_ERROR}
    assert time.monotonic() - began < 60


def test_after_an_interrupt_nobody_is_asked_any_more() -> None:
    began = time.monotonic()
    with endpoint(then="hang") as fake:
        asked, _ = backend(fake, timeout_s=300.0)
        asked.stop()
        reply = asked.describe(DescribeRequest(segment=SEGMENT, sheet=SHEET))
    assert reply.outcome is CaptionOutcome.TRANSPORT_ERROR
    assert time.monotonic() - began < 60


def test_what_else_decides_an_answer_is_part_of_its_key(tmp_path: Path) -> None:
    request = DescribeRequest(segment=SEGMENT, sheet=SHEET)
    keys = []
    with endpoint() as fake:
        for change in ({}, {"extra_body": {"top_p": 0.5}}, {"revision": "b"}, {}):
            told = {"url": fake.url, **change}
            settings = CaptionSettings.model_validate(
                {"backend": "openai", "model": "m", "endpoint": told}
            )
            asked = backend_for(settings, key="", cache=Cache(tmp_path, LocalStorage()))
            keys.append(asked.describe(request).cache_key)
            assert fake.requests[-1]["model"] == "m"
    assert [r.get("top_p") for r in fake.requests] == [None, 0.5, None]  # the last was kept
    assert keys[0] == keys[3]
    assert len(set(keys)) == 3
    assert asked.model == "m"


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("ftp://host/v1", ""),
        ("127.0.0.1:8000", ""),
        ("http://", ""),
        ("http://host:99999/v1", ""),
        ("http://user:pass@host/v1", ""),
        ("http://host/v1?key=abc", ""),
        ("http://example.com/v1", "key"),
        ("https://example.com/v1", "line\nbreak"),
    ],
)
def test_an_address_that_is_wrong_or_unsafe_is_refused(url: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        endpoint_at(url, key)
    assert "pass" not in str(caught.value).replace("password", "")


def test_an_address_with_a_path_and_a_default_port() -> None:
    assert endpoint_at("https://host/api/v1/", "k") == Endpoint(
        scheme="https", host="host", port=443, path="/api/v1", key="k"
    )
    assert endpoint_at("http://[::1]:8000/v1", "k").port == 8000
