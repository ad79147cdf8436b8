"""Who may ask: tokens, one-time links, host and origin, limits, and what an answer must not say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient
from starlette.types import Message

from jobs.commands.serve import _network, server_config
from jobs.service import credentials
from jobs.service.app import ServiceSettings
from jobs.service.credentials import CODE_LIFE_S, SESSION_LIFE_S
from jobs.service.models import FailedAnswer
from jobs.service.security import BODY_S, CSP, MAX_BODY, RateLimit, host_of, limited
from schemas.errors import ConfigError
from tests.generators.corpus import WrittenCatalog
from tests.service.corpora import HOSTILE, TOKEN, client_of

API = "/api/v1"
PATHS = (
    "/",
    "/metrics",
    "/readyz",
    f"{API}/corpora",
    f"{API}/openapi.json",
    f"{API}/episodes",
    f"{API}/episodes/x",
    f"{API}/episodes/x/videos/front",
    f"{API}/manifests",
    "/no/such/path",
    "/docs",
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stranger(hard: WrittenCatalog, tmp_path: Path, clock: Clock) -> TestClient:
    """A client without the token."""
    client = client_of(hard.root, tmp_path / "state", clock=clock)
    client.headers.pop("authorization")
    return client


@pytest.mark.parametrize("path", PATHS)
def test_without_a_token_nothing_is_answered(stranger: TestClient, path: str) -> None:
    answer = stranger.get(path)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "unauthorized"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_health_is_open_and_says_nothing(stranger: TestClient) -> None:
    assert stranger.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN],
)
def test_another_token_is_none(stranger: TestClient, value: str) -> None:
    assert stranger.get(f"{API}/corpora", headers={"Authorization": value}).status_code == 401


def test_the_token_in_the_query_is_none(stranger: TestClient) -> None:
    assert stranger.get(f"{API}/corpora", params={"token": TOKEN}).status_code == 401


def login(client: TestClient) -> str:
    access = client.app.state.access  # type: ignore[attr-defined]
    return f"/login?code={access.new_code()}"


def test_a_link_opens_one_session(stranger: TestClient) -> None:
    path = login(stranger)
    answer = stranger.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "domain" not in cookie
    assert stranger.get(f"{API}/corpora").status_code == 200
    assert TOKEN not in answer.headers["set-cookie"]
    stranger.cookies.clear()
    assert stranger.get(path).status_code == 401  # the second time
    assert stranger.get(f"{API}/corpora").status_code == 401


def test_a_link_and_a_session_end(stranger: TestClient, clock: Clock) -> None:
    path = login(stranger)
    clock.now += CODE_LIFE_S + 1
    assert stranger.get(path).status_code == 401
    assert stranger.get(login(stranger)).status_code == 303
    clock.now += SESSION_LIFE_S + 1
    assert stranger.get(f"{API}/corpora").status_code == 401


def test_who_has_the_token_makes_a_link(stranger: TestClient) -> None:
    made = stranger.post(f"{API}/session-links", headers={"Authorization": f"Bearer {TOKEN}"})
    assert stranger.get(made.json()["path"]).status_code == 303


@pytest.mark.parametrize("code", ["", "x", "%00", "x" * 1000])
def test_a_wrong_code_opens_nothing(stranger: TestClient, code: str) -> None:
    assert stranger.get(f"/login?code={code}").status_code == 401


@pytest.mark.parametrize("foreign", ['a={"b":1}', "x", "a[]=b", "=;"])
def test_cookies_of_other_programs_close_no_session(stranger: TestClient, foreign: str) -> None:
    stranger.get(login(stranger))
    ((name, value),) = stranger.cookies.items()
    stranger.cookies.clear()
    for cookie in (f"{foreign}; {name}={value}", f"{name}={value}; {foreign}"):
        answer = stranger.get(f"{API}/corpora", headers={"Cookie": cookie})
        assert answer.status_code == 200, cookie


@pytest.mark.parametrize(
    "cookie", ["eicorpus=x", "eicorpus=", "eicorpus", "=;;;", 'eicorpus="\\', "a[]=b; eicorpus=1"]
)
def test_a_wrong_cookie_is_none(stranger: TestClient, cookie: str) -> None:
    assert stranger.get(f"{API}/corpora", headers={"Cookie": cookie}).status_code == 401


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "",
        "localhost:x",
        "localhost:8321@evil",
        "0.0.0.0",
    ],
)
def test_a_foreign_host_is_refused_even_with_the_token(client: TestClient, host: str) -> None:
    for path in ("/healthz", f"{API}/corpora"):
        answer = client.get(path, headers={"Host": host})
        assert (answer.status_code, answer.json()["error"]["code"]) == (421, "host")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:8321", "[::1]", "[::1]:80"]
)
def test_our_hosts_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_a_host_that_was_named_is_answered(hard: WrittenCatalog, tmp_path: Path) -> None:
    settings = ServiceSettings(hosts=("corpus.lab",))
    client = client_of(hard.root, tmp_path, settings=settings, host="corpus.lab:8321")
    assert client.get("/healthz").status_code == 200
    assert client.get("/healthz", headers={"Host": "localhost"}).status_code == 421


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("[::1]:80", "[::1]"),
        ("a:b:80", "a:b"),
        ("a:", ""),
        (":80", ""),
        ("A", "a"),
        ("a:٣", ""),
        ("a:²", ""),
    ],
)
def test_the_host_of_a_header(header: str, host: str) -> None:
    assert host_of(header) == host


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://127.0.0.1:8321.evil.example"},
        {"Origin": "file://127.0.0.1:8321"},
        {"Origin": "http://[::1"},  # no URL
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_of_another_site_is_refused(
    client: TestClient, headers: dict[str, str], method: str
) -> None:
    path = f"{API}/corpora" if method == "GET" else f"{API}/session-links"
    answer = client.request(method, path, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin")
    assert "access-control-allow-origin" not in answer.headers


def test_our_own_pages_are_answered(client: TestClient) -> None:
    own = {"Origin": "http://127.0.0.1:8321", "Sec-Fetch-Site": "same-origin"}
    answer = client.post(f"{API}/session-links", headers=own)
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers
    preflight = client.options(
        f"{API}/sql",
        headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
    )
    assert preflight.status_code == 403


def test_headers_of_every_answer(client: TestClient, stranger: TestClient) -> None:
    for answer in (
        client.get(f"{API}/corpora"),
        client.get("/x"),
        stranger.get("/"),
        stranger.get("/healthz"),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "*" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] in ("no-store", "private, no-cache")


def test_bodies_are_bounded(client: TestClient) -> None:
    big = b"x" * (MAX_BODY + 1)
    answer = client.post(f"{API}/sql", content=big)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    for length in ("-1", "²", "x", "9" * 30):
        wrong = client.post(
            f"{API}/sql", content=b"x", headers={b"content-length": length.encode("latin-1")}
        )
        assert wrong.status_code == 413
    unsized = client.post(f"{API}/sql", content=iter([b"x" * 100_000] * 6))
    assert (unsized.status_code, unsized.json()["error"]["code"]) == (413, "too_large")
    assert client.get(f"{API}/episodes?q={'x' * 20000}").status_code == 414


def test_requests_are_bounded_by_address(
    hard: WrittenCatalog, tmp_path: Path, clock: Clock
) -> None:
    settings = ServiceSettings(requests_per_s=1.0, request_burst=3.0)
    client = client_of(hard.root, tmp_path, settings=settings, clock=clock)
    assert [client.get("/healthz").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert client.get("/healthz").headers["retry-after"] == "1"
    clock.now += 2
    assert client.get("/healthz").status_code == 200


def test_guessing_is_slowed_down_and_the_owner_is_not(
    hard: WrittenCatalog, tmp_path: Path, clock: Clock
) -> None:
    settings = ServiceSettings(failures_per_s=0.1, failure_burst=2.0)
    client = client_of(hard.root, tmp_path, settings=settings, clock=clock)
    guess = {"Authorization": "Bearer guess"}
    assert [client.get("/", headers=guess).status_code for _ in range(3)] == [401, 401, 429]
    assert client.get(f"{API}/corpora").status_code == 200


def test_clients_are_forgotten_in_turn(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.service.security.MAX_CLIENTS", 2)
    limit = RateLimit(1.0, 1.0, clock)
    assert [limit.wait_s(c) for c in "aab"] == [0, 1, 0]
    assert len(limit._buckets) == 2
    limit.wait_s("c")
    assert set(limit._buckets) == {"b", "c"}


def test_no_secret_in_metrics_and_errors(client: TestClient) -> None:
    path = login(client)
    client.get(path)
    client.get(f"{API}/episodes/{'secret-uid'}")
    client.get("/secret-path")
    client.request("SECRET", "/")
    text = client.get("/metrics").text
    for secret in (TOKEN, path.split("=")[1], "secret", "SECRET", HOSTILE):
        assert secret not in text
    assert 'eicorpus_episodes{code="",state="committed"} 300.0' in text


def test_names_from_data_are_json_text(client: TestClient) -> None:
    answer = client.get(f"{API}/facets", params={"facet": "embodiment"})
    assert answer.headers["content-type"] == "application/json"
    assert HOSTILE in {each["value"] for each in answer.json()["facets"]["embodiment"]}


def test_a_bug_says_nothing_of_itself(
    hard: WrittenCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(hard.root, tmp_path)
    quiet = TestClient(
        client.app,
        base_url=str(client.base_url),
        headers=dict(client.headers),
        raise_server_exceptions=False,
    )

    def broken(*_: object) -> None:
        raise RuntimeError(f"{TOKEN} /home/me")

    monkeypatch.setattr("jobs.service.api.pages.page", broken)
    answer = quiet.get(f"{API}/episodes")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "bug")
    assert TOKEN not in answer.text
    assert "RuntimeError" not in answer.text
    assert answer.headers["content-security-policy"] == CSP


def test_a_body_that_does_not_come_ends_the_request() -> None:
    async def never() -> Message:
        return await asyncio.Future()

    with pytest.raises(HTTPException) as error:
        asyncio.run(limited(never, iter((0.0, BODY_S)).__next__)())
    assert error.value.status_code == 408


def test_who_waits_for_the_end_of_a_connection_is_not_held_to_the_time_of_the_body() -> None:
    async def read() -> list[Message]:
        ended: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        messages: list[Message] = [{"type": "http.request", "body": b"x", "more_body": False}]

        async def receive() -> Message:
            return messages.pop() if messages else await ended

        receive_limited = limited(receive, iter((0.0, 0.0)).__next__)  # not asked again
        first = await receive_limited()
        waiting = asyncio.ensure_future(receive_limited())
        await asyncio.sleep(0)
        ended.set_result({"type": "http.disconnect", "by": "client"})
        return [first, await waiting]

    body, end = asyncio.run(read())
    assert body["body"] == b"x"
    assert end["by"] == "client"


@pytest.mark.parametrize("proxies", [[], ["10.1.0.0/16"], ["127.0.0.1"]])
def test_only_a_trusted_proxy_speaks_for_its_clients(
    proxies: list[str], hard: WrittenCatalog, tmp_path: Path
) -> None:
    """What it says of https makes the cookie `Secure`, and each of its clients has failures of its own."""
    app = client_of(hard.root, tmp_path / "state").app
    config = server_config(app, proxies)
    config.load()
    client = TestClient(
        config.loaded_app,
        base_url="http://127.0.0.1:8321",
        client=("127.0.0.1", 5000),
        follow_redirects=False,
    )
    is_trusted = proxies == ["127.0.0.1"]
    code = app.state.access.new_code()  # type: ignore[attr-defined]
    answer = client.get(f"/login?code={code}", headers={"X-Forwarded-Proto": "https"})
    assert answer.status_code == 303
    assert ("secure" in answer.headers["set-cookie"].lower()) == is_trusted
    client.cookies.clear()
    broken = [
        client.get("/", headers={"X-Forwarded-For": "192.0.2.1"}).status_code for _ in range(11)
    ]
    assert broken == [401] * 10 + [429]
    other = client.get("/", headers={"X-Forwarded-For": "192.0.2.2"}).status_code
    assert other == (401 if is_trusted else 429)


def test_a_trusted_proxy_is_an_address() -> None:
    for text in ("*", "proxy.lab", ""):
        with pytest.raises(ConfigError, match="does not appear to be"):
            _network(text)
    assert _network("10.0.0.7") == "10.0.0.7/32"


def test_who_logs_in_again_and_again_ends_no_session_of_others(
    stranger: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "MAX_SESSIONS", 3)
    stranger.get(login(stranger))
    own = dict(stranger.cookies)
    for _ in range(5):
        stranger.cookies.clear()
        link = stranger.post(f"{API}/session-links", headers={"Authorization": f"Bearer {TOKEN}"})
        assert stranger.get(link.json()["path"]).status_code == 303
    assert stranger.get(f"{API}/corpora").status_code == 200
    stranger.cookies = own  # type: ignore[assignment]
    assert stranger.get(f"{API}/corpora").status_code == 200


def test_the_description_says_how_to_sign_in_and_what_an_error_is(client: TestClient) -> None:
    page = client.get(f"{API}/openapi.json").json()
    kinds = {
        (each["type"], each.get("scheme") or each["in"])
        for each in page["components"]["securitySchemes"].values()
    }
    assert kinds == {("http", "bearer"), ("apiKey", "cookie")}
    assert [
        set(each) <= set(page["components"]["securitySchemes"]) for each in page["security"]
    ] == [True, True]
    for path, methods in page["paths"].items():
        for method in methods.values():
            error = method["responses"]["422"]["content"]["application/json"]["schema"]
            assert error["$ref"].endswith("/FailedAnswer"), path
    answer = client.get(f"{API}/episodes", params={"limit": 0})
    assert answer.status_code == 422
    FailedAnswer.model_validate(answer.json())


def test_a_parameter_that_is_misspelt_is_refused(client: TestClient) -> None:
    answer = client.get(f"{API}/episodes", params={"filters": "tier:eq:high"})
    assert answer.status_code == 400
    assert "did you mean filter?" in answer.json()["error"]["message"]
    assert client.get(f"{API}/manifests", params={"snapshot": 1}).status_code == 200


@pytest.mark.parametrize(("body", "kind"), [("{", "application/json"), ("{}", "text/plain")])
def test_a_body_that_is_no_json_is_named_so(client: TestClient, body: str, kind: str) -> None:
    answer = client.post(f"{API}/sql", content=body, headers={"Content-Type": kind})
    error = answer.json()["error"]
    assert (answer.status_code, error["where"]) == (422, "body")
    assert "not JSON" in error["message"]
