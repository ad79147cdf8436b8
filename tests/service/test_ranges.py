"""Ranges and conditions of RFC 9110, as functions and through the server against the bytes of the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from jobs.service.ranges import (
    UNSATISFIABLE,
    ByteRange,
    FileStamp,
    any_matches,
    is_not_modified,
    is_range_current,
    requested_part,
)
from tests.curation.lifecycle_corpus import rows_of
from tests.service.corpora import client_of

STAMP = FileStamp(size=10, etag='"abc"', modified_s=784111777)
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", ByteRange(start=0, end=1)),
        ("bytes=2-5", ByteRange(start=2, end=6)),
        ("bytes=2-", ByteRange(start=2, end=10)),
        ("bytes=-3", ByteRange(start=7, end=10)),
        ("bytes=-30", ByteRange(start=0, end=10)),
        ("bytes=9-99999999", ByteRange(start=9, end=10)),
        ("BYTES = 2-5", ByteRange(start=2, end=6)),
        (
            "bytes=2-5,",
            ByteRange(start=2, end=6),
        ),  # an empty element of a list is ignored, RFC 9110 §5.6.1
        ("bytes=10-", UNSATISFIABLE),
        ("bytes=10-12", UNSATISFIABLE),
        ("bytes=-0", UNSATISFIABLE),
        # not valid, so ignored
        ("bytes=5-2", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
        ("bytes=1-2-3", None),
        ("bytes=+1-2", None),
        ("bytes=0x1-2", None),
        ("bytes=--1", None),
        ("bytes=١-٢", None),
        (f"bytes={'9' * 5000}-", None),
        ("bytes=0-1,3-4", None),  # several parts: the whole file is a valid answer
    ],
)
def test_requested_part(header: str | None, expected: ByteRange | None) -> None:
    assert requested_part(header, 10) == expected
    if expected is UNSATISFIABLE:
        assert requested_part(header, 10) is UNSATISFIABLE


def test_nothing_of_an_empty_file_can_be_asked_for() -> None:
    assert requested_part("bytes=0-", 0) is UNSATISFIABLE
    assert requested_part("bytes=-5", 0) is UNSATISFIABLE
    assert requested_part(None, 0) is None


@pytest.mark.parametrize(
    ("header", "matches"),
    [
        ('"abc"', True),
        ('W/"abc"', True),
        ('"x", "abc"', True),
        ("*", True),
        ('"ab"', False),
        ("abc", False),
        ('"x,"abc', False),
        ("", False),
    ],
)
def test_a_tag_is_compared_weakly(header: str, matches: bool) -> None:
    assert any_matches(header, '"abc"') is matches


def test_if_none_match_decides_before_if_modified_since() -> None:
    assert is_not_modified(STAMP, None, DATE)
    assert not is_not_modified(STAMP, '"other"', DATE)
    assert not is_not_modified(STAMP, None, "Sun, 06 Nov 1994 08:49:36 GMT")
    assert not is_not_modified(STAMP, None, "yesterday")
    assert not is_not_modified(STAMP, None, None)


@pytest.mark.parametrize(
    ("header", "holds"),
    [
        (None, True),
        ('"abc"', True),
        ('W/"abc"', False),
        ('"abd"', False),
        (DATE, True),
        ("Sun, 06 Nov 1994 08:49:38 GMT", False),
        ("nonsense", False),
    ],
)
def test_if_range_is_strong(header: str | None, holds: bool) -> None:
    assert is_range_current(STAMP, header) is holds


def video_of(toy: Path) -> tuple[str, bytes]:
    row = next(r for r in rows_of(toy, "artifacts") if r["kind"] == "video")
    return f"/api/v1/episodes/{row['uid']}/videos/front", (toy / row["path"]).read_bytes()


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=-7", -7, None),
        ("bytes=5-", 5, None),
    ],
)
def test_a_part_of_a_video(
    toy: Path, toy_client: TestClient, header: str, start: int, end: int | None
) -> None:
    path, data = video_of(toy)
    answer = toy_client.get(path, headers={"Range": header})
    expected = data[start:end]
    first = start % len(data)
    assert answer.status_code == 206
    assert answer.content == expected
    assert answer.headers["content-length"] == str(len(expected))
    assert (
        answer.headers["content-range"] == f"bytes {first}-{first + len(expected) - 1}/{len(data)}"
    )


def test_the_whole_video_and_its_head(toy: Path, toy_client: TestClient) -> None:
    path, data = video_of(toy)
    for query in ({}, {"Range": "bytes=0-1,3-4"}, {"Range": "bytes=4-1"}):
        answer = toy_client.get(path, headers=query)
        assert (answer.status_code, answer.content) == (200, data)
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["content-type"].startswith("video/mp4; codecs=")
    head = toy_client.head(path, headers={"Range": "bytes=0-1"})
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(data))


def test_a_range_beyond_the_end(toy: Path, toy_client: TestClient) -> None:
    path, data = video_of(toy)
    answer = toy_client.get(path, headers={"Range": f"bytes={len(data)}-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(data)}"
    assert answer.json()["error"]["code"] == "range"


def test_conditions_on_a_video(toy: Path, toy_client: TestClient) -> None:
    path, data = video_of(toy)
    first = toy_client.get(path)
    tag, date = first.headers["etag"], first.headers["last-modified"]
    for known in ({"If-None-Match": tag}, {"If-Modified-Since": date}, {"If-None-Match": "*"}):
        answer = toy_client.get(path, headers={**known, "Range": "bytes=0-1"})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == tag
    part = toy_client.get(path, headers={"Range": "bytes=0-1", "If-Range": tag})
    assert (part.status_code, part.content) == (206, data[:2])
    for stale in (f"W/{tag}", '"other"', "Sun, 06 Nov 1994 08:49:37 GMT"):
        whole = toy_client.get(path, headers={"Range": "bytes=0-1", "If-Range": stale})
        assert (whole.status_code, whole.content) == (200, data)


def test_a_video_that_is_replaced_has_another_tag(toy: Path, tmp_path: Path) -> None:
    import shutil

    corpus = Path(shutil.copytree(toy, tmp_path / "corpus"))
    client = client_of(corpus, tmp_path / "state")
    path, data = video_of(corpus)
    tag = client.get(path).headers["etag"]
    row = next(r for r in rows_of(corpus, "artifacts") if r["kind"] == "video")
    new = corpus / f"{row['path']}.new"
    new.write_bytes(data[::-1])
    new.replace(corpus / row["path"])
    answer = client.get(path, headers={"If-None-Match": tag, "If-Range": tag, "Range": "bytes=0-1"})
    assert (answer.status_code, answer.content) == (200, data[::-1])
