"""Files of the browser's pages as a client sees them: which there are, how long they are kept, and under which policy."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from jobs.service.security import PLOTLY_STYLES
from jobs.service.web import static_files

STATIC = Path(__file__).parents[2] / "jobs" / "service" / "static"


@pytest.mark.parametrize(
    "path", ["/", "/episodes", "/episodes/no-such-uid", "/episodes?q=x", "/thresholds"]
)
def test_every_page_is_the_same_shell_under_a_strict_policy(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.content == static_files()["shell.html"].content
    rules = dict(
        rule.partition(" ")[::2] for rule in answer.headers["content-security-policy"].split("; ")
    )
    assert (rules["default-src"], rules["script-src"]) == ("'none'", "'self'")
    assert rules["style-src"] == f"'self' {' '.join(PLOTLY_STYLES)}"
    assert "unsafe" not in answer.headers["content-security-policy"]


def test_every_file_is_served_and_asked_about_again(client: TestClient) -> None:
    names = {path.name for path in STATIC.iterdir()}
    assert set(static_files()) == {*names, "plotly.min.js"}
    for name in static_files():
        answer = client.get(f"/static/{name}")
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "private, no-cache")
        again = client.get(f"/static/{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_plotly_is_kept_for_a_year_under_its_version_alone(client: TestClient) -> None:
    named = client.get(f"/static/plotly.min.js?v={version('plotly')}")
    assert "immutable" in named.headers["cache-control"]
    other = client.get("/static/plotly.min.js?v=0")
    assert other.headers["cache-control"] == "private, no-cache"
    address = f"/static/plotly.min.js?v={version('plotly')}".encode()
    assert address in static_files()["shell.html"].content


@pytest.mark.parametrize("name", ["..%2fweb.py", "%2e%2e/web.py", "web.py", "shell.html%00", "."])
def test_nothing_else_is_served(client: TestClient, name: str) -> None:
    assert client.get(f"/static/{name}").status_code == 404


def test_modules_load_from_here_and_never_write_html() -> None:
    """A foreign address or a text read as HTML would also break the policy, but only on the page where it happens."""
    for path in STATIC.iterdir():
        text = path.read_text()
        addresses = re.findall(r"https?://[^\"'\s<>]+", text)
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}, path.name  # a name, never loaded
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text
        )
        for imported in re.findall(r"""(?:from|import)\s*\(?\s*"([^"]+)""", text):
            assert imported.removeprefix("/static/") in static_files(), f"{path.name}: {imported}"


def test_an_address_that_is_no_page_answers_a_browser_with_a_page(client: TestClient) -> None:
    html = {"Accept": "text/html,*/*;q=0.8"}
    page = client.get("/no/such", headers=html)
    assert (page.status_code, page.content) == (404, static_files()["shell.html"].content)
    tagged = client.get("/no/such", headers={**html, "If-None-Match": page.headers["etag"]})
    assert tagged.status_code == 404
    for path, headers in (("/no/such", {}), ("/api/v1/no/such", html)):
        answer = client.get(path, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
