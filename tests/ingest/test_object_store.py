"""What a bucket answers and what that means: errors, lost answers, credentials. The contract is in test_store.py."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ingest.storage.local import LocalStorage
from ingest.storage.object_error import NotCarriedOut
from ingest.storage.object_store import PART_BYTES, ObjectStore
from ingest.storage.open_store import open_store, probe
from schemas.errors import (
    Code,
    ConfigError,
    InvariantError,
    PipelineError,
    SourceError,
    TransientError,
    UnknownOutcome,
)
from schemas.paths import OutsideCorpus
from tests.pickling import travelled
from tests.s3_server import BUCKET, put_raw

SECRET = "SECRETVALUE"
KEY = re.compile(rb"<Key>(.*?)</Key>")


class Bucket:
    """A server that speaks enough of S3, and answers as a test wants it to."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.answers: list[tuple[int, str]] = []  # before the usual ones; 0 drops the connection
        self.does_before_failing = False
        self.ignores_conditions = False

    def put(self, key: str, data: bytes, *, is_create: bool) -> int:
        if is_create and key in self.objects and not self.ignores_conditions:
            return 412
        self.objects[key] = data
        return 200


class Handler(BaseHTTPRequestHandler):
    bucket: Bucket

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        bucket = self.bucket
        bucket.requests.append((self.command, self.path))
        wanted = bucket.answers.pop(0) if bucket.answers else None
        if self.command == "PUT" and (wanted is None or bucket.does_before_failing):
            is_create = self.headers.get("If-None-Match") == "*"
            status = bucket.put(self.path, data, is_create=is_create)
        elif self.command == "POST":  # ?delete
            for key in re.findall(KEY, data):
                bucket.objects.pop(f"/bucket/{key.decode()}", None)
            status = 200
        else:
            status = 200 if self.path in bucket.objects else 404
        text = ""
        if self.command == "POST":
            names = "".join(
                f"<Deleted><Key>{k.decode()}</Key></Deleted>" for k in re.findall(KEY, data)
            )
            text = f"<DeleteResult>{names}</DeleteResult>"
        if wanted is not None:
            status, text = wanted
        if status == 0:
            self.close_connection = True
            return
        body = text.encode() if text else bucket.objects.get(self.path, b"")
        body = b"" if self.command != "GET" and not text else body
        self.send_response(status)
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Tue, 24 Nov 2026 20:00:00 GMT")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_POST = _serve  # noqa: N815


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    bucket = Bucket()
    handler = type("OfOneBucket", (Handler,), {"bucket": bucket})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "KEYID",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    yield bucket
    server.shutdown()
    thread.join()
    server.server_close()


def store(max_retries: int = 2) -> ObjectStore:
    return ObjectStore("s3://bucket/corpus", max_retries=max_retries, timeout_s=5)


def error_of(code: str) -> str:
    return f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>"


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ((403, error_of("AccessDenied")), ConfigError, "no permission (403 AccessDenied)"),
        ((403, error_of("InvalidAccessKeyId")), ConfigError, "set AWS_ACCESS_KEY_ID"),
        ((400, error_of("ExpiredToken")), ConfigError, "set AWS_ACCESS_KEY_ID"),
        ((401, ""), ConfigError, "no valid credentials"),
        ((404, error_of("NoSuchBucket")), ConfigError, "there is no bucket bucket"),
        ((301, error_of("PermanentRedirect")), ConfigError, "set AWS_REGION"),
        ((400, error_of("InvalidBucketName")), ConfigError, "400 InvalidBucketName"),
        ((501, error_of("NotImplemented")), ConfigError, "cannot do that"),
        ((503, error_of("SlowDown")), NotCarriedOut, "limits the rate"),
        ((429, ""), NotCarriedOut, "limits the rate"),
        ((500, error_of("InternalError")), TransientError, "500 InternalError"),
        ((0, ""), TransientError, "the store failed"),
    ],
    ids=str,
)
def test_an_answer_becomes_an_error_with_a_remedy(
    bucket: Bucket, answer: tuple[int, str], kind: type[PipelineError], words: str
) -> None:
    bucket.answers = [answer] * 3
    with pytest.raises(kind) as caught:
        store().put("a", b"1")
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert caught.value.remedy
    assert "s3://bucket/corpus" in caught.value.where
    assert SECRET not in f"{caught.value} {caught.value.__dict__}"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_failed_request_is_sent_again_so_often_and_no_oftener(bucket: Bucket) -> None:
    bucket.answers = [(500, "")] * 2
    store(max_retries=2).put("a", b"1")
    assert len(bucket.requests) == 3
    bucket.answers = [(500, "")] * 9
    with pytest.raises(TransientError):
        store(max_retries=2).put("a", b"1")
    assert len(bucket.requests) == 6


@pytest.mark.parametrize("happened", [True, False])
@pytest.mark.parametrize(
    "answer",
    [(0, ""), (500, ""), (503, ""), (409, error_of("ConditionalRequestConflict"))],
    ids=str,
)
def test_a_create_without_an_answer_has_an_unknown_outcome(
    bucket: Bucket, answer: tuple[int, str], happened: bool
) -> None:
    """Sent once: a retry of our own that meets our own object would say that another was first."""
    bucket.answers = [answer]
    bucket.does_before_failing = happened
    with pytest.raises(UnknownOutcome):
        store().create("a", b"1")
    assert len(bucket.requests) == 1
    assert (store().size("a") is not None) is happened


def test_a_create_that_was_certainly_not_made_is_tried_again(bucket: Bucket) -> None:
    for name, answer in (("a", (429, "")), ("b", (503, error_of("SlowDown")))):
        bucket.answers = [answer]
        assert store().create(name, b"1")
    bucket.answers = [(429, "")] * 3
    with pytest.raises(NotCarriedOut, match="limits the rate"):
        store().create("c", b"1")
    assert len([path for _, path in bucket.requests if path.endswith("/c")]) == 3


def test_a_store_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, bucket: Bucket) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for operation in (lambda: store(0).create("a", b""), lambda: store(0).get("a", max_bytes=1)):
        with pytest.raises(NotCarriedOut, match="cannot be reached"):
            operation()


def test_a_machine_without_credentials_and_without_a_role(
    monkeypatch: pytest.MonkeyPatch, bucket: Bucket
) -> None:
    """obstore then asks the metadata service of the machine, which a laptop does not have."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="set AWS_ACCESS_KEY_ID"):
        store(0).put("a", b"")


def test_a_store_that_ignores_conditions_is_refused(bucket: Bucket) -> None:
    probe(store())
    bucket.ignores_conditions = True
    with pytest.raises(ConfigError, match="If-None-Match"):
        probe(store())
    assert bucket.objects == {}


@pytest.mark.parametrize("key", ["a\nb", "a\x7f", "\ud800"])
def test_a_key_that_objects_cannot_have_is_refused(key: str) -> None:
    with pytest.raises(OutsideCorpus):
        open_store("memory://keys").put(key, b"")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("ftp://host/a", "s3://"),
        ("hf://datasets/a/b", "s3://"),
        ("s3://", "BUCKET"),
        ("s3:///a", "BUCKET"),
        ("s3://KEYID:SECRETVALUE@bucket/a", "environment"),
        ("az://container/a?sig=SECRETVALUE", "query"),
        ("s3://bucket/a/../b", "not a path"),
        ("s3://bucket/a//b", "not a path"),
        ("abfs://c@evil.example/SECRETVALUE", "environment"),
        ("file://host/a", "file:///PATH"),
    ],
)
def test_a_uri_that_is_none_is_refused(uri: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        open_store(uri)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3:/bucket/a/b/", "s3://bucket/a/b"),
        ("gs://bucket/a b", "gs://bucket/a b"),
        ("az://container/a", "az://container/a"),
        ("abfss://c@account.dfs.core.windows.net/a", "abfss://c@account.dfs.core.windows.net/a"),
        ("memory://m", "memory://m"),
    ],
)
def test_the_uri_of_a_bucket_is_kept(uri: str, wanted: str) -> None:
    store = open_store(uri)
    assert isinstance(store, ObjectStore)
    assert str(store.uri) == wanted


def test_paths_are_local(tmp_path: Path) -> None:
    for place in (tmp_path, str(tmp_path), f"file://{tmp_path}", f"file:{tmp_path}"):
        store = open_store(place)
        assert isinstance(store, LocalStorage)
        assert store.root == tmp_path


def test_without_credentials_of_google_or_azure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        open_store("az://container/a").get("a", max_bytes=1)


def test_a_store_goes_to_another_process(bucket: Bucket) -> None:
    one = store(max_retries=1)
    one.put("a", b"1")
    other = travelled(one)
    assert other.get("a", max_bytes=1) == b"1"
    assert (other.uri, other.max_retries, other.timeout_s) == (one.uri, 1, 5)
    with pytest.raises(InvariantError):
        travelled(open_store("memory://a"))


def test_folders_of_one_memory_see_each_other() -> None:
    open_store("memory://folders/a").put("b/c", b"1")
    assert open_store("memory://folders").list("") == ["a/b/c"]
    assert open_store("memory://folders/a/b").list("", after="b") == ["c"]


def test_an_object_over_the_limit_of_a_copy_passes_through(tmp_path: Path) -> None:
    one = open_store("memory://large")
    assert isinstance(one, ObjectStore)
    one.max_copy_bytes = PART_BYTES
    data = bytes(range(256)) * (PART_BYTES // 256 * 3)
    one.put("a", data)
    one.copy("a", "b")
    assert one.get("b", max_bytes=len(data)) == data


def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = open_store("memory://replaced")
    assert isinstance(one, ObjectStore)
    one.put("a", b"1" * (3 * PART_BYTES))
    asked = one._ranges

    def replaced(source: str, meta: object) -> Iterator[bytes]:
        one.put("a", b"2" * (3 * PART_BYTES))
        return asked(source, meta)

    monkeypatch.setattr(one, "_ranges", replaced)
    with pytest.raises(TransientError, match="replaced while it was read"):
        one.get_file("a", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("key", ["h/%2E%2E/x", "h//x"])
def test_a_bucket_with_a_hostile_key_is_refused(s3_server: str, key: str) -> None:
    name = f"hostile{abs(hash(key))}"
    put_raw(s3_server, f"{name}/{key}", b"1")
    with pytest.raises(SourceError) as caught:
        open_store(f"s3://{BUCKET}/{name}").list("")
    assert caught.value.code is Code.UNSAFE_PATH


@pytest.mark.slow
def test_a_missing_bucket_is_told_from_a_missing_object(s3_server: str) -> None:
    for operation in ("get", "put", "list"):
        one = open_store("s3://no-such-bucket/a")
        with pytest.raises(ConfigError, match="there is no bucket no-such-bucket"):
            {
                "get": lambda: one.get("a", max_bytes=1),  # noqa: B023
                "put": lambda: one.put("a", b""),  # noqa: B023
                "list": lambda: one.list(""),  # noqa: B023
            }[operation]()
