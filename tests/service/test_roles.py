"""What a role may do, on every route; and sessions, which carry the name and the role of who opened them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route
from starlette.testclient import TestClient

from jobs.service import credentials
from jobs.service.credentials import CODE_LIFE_S, SESSION_LIFE_S
from jobs.service.roles import API, ROUTE_ROLES, Role, role_for
from jobs.service.security import LOGIN, OPEN_PATHS
from tests.generators.corpus import WrittenCatalog
from tests.service.corpora import HOLDERS, READER, REVIEWER, TOKEN, client_of
from tests.service.test_security import Clock


def routes_of(routes: Iterable[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Method and template of every route of an application; FastAPI keeps included routers as they are."""
    for route in routes:
        if isinstance(route, APIRoute | Route):
            for method in route.methods or ():
                if method != "HEAD":
                    yield method, prefix + route.path
        else:
            yield from routes_of(
                route.original_router.routes, prefix + route.include_context.prefix
            )


def test_every_route_has_a_role_and_every_role_a_route(client: TestClient) -> None:
    routes = {each for each in routes_of(client.app.routes) if each[1] not in OPEN_PATHS}  # type: ignore[attr-defined]
    assert ("GET", f"{API}/episodes/{{uid}}") in routes
    assert routes == set(ROUTE_ROLES)


def test_what_is_not_in_the_table_needs_admin() -> None:
    assert role_for("GET", "/no/such/path") == Role.ADMIN
    assert role_for("DELETE", f"{API}/episodes") == Role.ADMIN
    assert role_for("HEAD", f"{API}/episodes") == Role.READ
    assert role_for("POST", f"{API}/jobs/1/cancel") == Role.ADMIN
    assert role_for("GET", f"{API}/episodes/a%0A") == Role.READ
    assert (
        role_for("GET", f"{API}/episodes\n") == Role.READ
    )  # as the router matches: `$` before a newline


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("token", [READER, REVIEWER, TOKEN])
def test_a_token_does_what_its_role_may(client: TestClient, token: str) -> None:
    own = HOLDERS[token]
    assert client.get(f"{API}/me", headers=bearer(token)).json() == {
        "name": own.name,
        "role": own.role,
    }
    for (method, template), needed in ROUTE_ROLES.items():
        path = template.replace(":path", "").replace("{", "").replace("}", "")
        if path.endswith("/events"):
            continue  # of a job that is not there; a reader's answer is that of `log`
        answer = client.request(method, path, headers=bearer(token))
        refused = answer.status_code == 403 and answer.json()["error"]["code"] == "role"
        assert refused != own.role.includes(needed), (method, path)


def test_roles_are_in_order() -> None:
    table = [[one.includes(other) for other in Role] for one in Role]
    assert table == [[True, False, False], [True, True, False], [True, True, True]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def browser(hard: WrittenCatalog, tmp_path: Path, clock: Clock) -> TestClient:
    """A client without a token."""
    client = client_of(hard.root, tmp_path / "state", clock=clock)
    client.headers.pop("authorization")
    return client


def link_of(client: TestClient, token: str = "") -> str:
    answer = client.post(f"{API}/session-links", headers=bearer(token) if token else {})
    assert answer.status_code == 200
    path: str = answer.json()["path"]
    return path


def test_a_session_has_the_name_and_role_of_its_token(browser: TestClient) -> None:
    assert browser.get(link_of(browser, REVIEWER)).status_code == 303
    assert browser.get(f"{API}/me").json() == {"name": "Ada", "role": "review"}
    assert browser.post(f"{API}/jobs", json={}).status_code == 403


def test_a_link_of_a_session_does_not_outlive_it(browser: TestClient, clock: Clock) -> None:
    browser.get(link_of(browser, READER))
    clock.now += SESSION_LIFE_S - CODE_LIFE_S
    answer = browser.get(link_of(browser))
    assert f"max-age={CODE_LIFE_S:.0f};" in answer.headers["set-cookie"].lower()
    assert browser.get(f"{API}/me").json() == {"name": "Bob", "role": "read"}
    clock.now += CODE_LIFE_S + 1
    assert browser.get(f"{API}/me").status_code == 401


def test_the_end_of_a_session_ends_those_that_its_links_opened(browser: TestClient) -> None:
    """Also the session of a link of such a session; that of another link of the token goes on."""
    cookies = []
    for token in (READER, "", "", READER):
        browser.get(link_of(browser, token))
        cookies.append("=".join(next(iter(browser.cookies.items()))))
    first, *_ = cookies
    browser.cookies.clear()
    assert browser.post(f"{API}/logout", headers={"Cookie": first}).status_code == 204
    browser.cookies.clear()
    asked = [browser.get(f"{API}/me", headers={"Cookie": each}).status_code for each in cookies]
    assert asked == [401, 401, 401, 200]


def test_the_end_of_a_session_ends_its_unopened_links(browser: TestClient) -> None:
    browser.get(link_of(browser, READER))
    own, of_token = link_of(browser), link_of(browser, READER)
    (kept,) = browser.cookies.items()
    answer = browser.post(f"{API}/logout")
    assert answer.status_code == 204
    assert "max-age=0" in answer.headers["set-cookie"].lower()
    assert browser.get(f"{API}/me", headers={"Cookie": "=".join(kept)}).status_code == 401
    assert browser.get(own).status_code == 401
    assert browser.get(of_token).status_code == 303


def test_a_token_outlives_a_logout(client: TestClient) -> None:
    assert client.post(f"{API}/logout").status_code == 204
    assert client.get(f"{API}/me").status_code == 200


def test_a_holder_ends_no_session_of_another(
    browser: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "MAX_SESSIONS", 2)
    for _ in range(2):
        browser.get(link_of(browser, TOKEN))
    admin = dict(browser.cookies)
    cookies = []
    for _ in range(3):
        browser.get(link_of(browser, READER))
        cookies.append(dict(browser.cookies))
    browser.cookies.clear()

    def status(cookie: dict[str, str]) -> int:
        text = "; ".join(f"{name}={value}" for name, value in cookie.items())
        return browser.get(f"{API}/me", headers={"Cookie": text}).status_code

    assert [status(each) for each in (admin, *cookies)] == [200, 401, 200, 200]


def test_the_first_link_is_of_the_highest_role(browser: TestClient) -> None:
    access = browser.app.state.access  # type: ignore[attr-defined]
    browser.get(f"{LOGIN}?code={access.new_code()}")
    assert browser.get(f"{API}/me").json() == {"name": "admin", "role": "admin"}
