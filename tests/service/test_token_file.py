"""The file of tokens: private, complete or absent, and never in a message."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from starlette.datastructures import Headers

from jobs.service.credentials import Access, Caller, Holder
from jobs.service.roles import Role
from jobs.service.token_file import own_tokens, read_tokens, watch_tokens
from schemas.errors import ConfigError

ONE, TWO = "0123456789-first", "0123456789-second"


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "token"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o600)
    return path


def test_a_file_of_our_own_is_private_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "token"
    holders = own_tokens(path)
    [(token, holder)] = holders.items()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (len(token) >= 32, holder) == (True, Holder(name="admin", role=Role.ADMIN))
    assert own_tokens(path) == holders
    assert os.listdir(tmp_path) == ["token"]
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="other users can read"):
        read_tokens(path)


def test_a_bare_token_is_of_an_admin(tmp_path: Path) -> None:
    for text in (ONE, f"# of the lab\n\n  {ONE}\n"):
        assert read_tokens(written(tmp_path, text)) == {ONE: Holder(name="admin", role=Role.ADMIN)}


def test_lines_name_a_holder_and_a_role(tmp_path: Path) -> None:
    path = written(tmp_path, f"# comment\nZoë review {ONE}\r\n\n bob\tread  {TWO}")
    assert read_tokens(path) == {
        ONE: Holder(name="Zoë", role=Role.REVIEW),
        TWO: Holder(name="bob", role=Role.READ),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no token"),
        (" \n# only a comment\n", "has no token"),
        ("short", "line 1: expected a token of 16"),
        ("a" * 5000, "line 1: expected a token of 16"),
        ("ü" * 20, "line 1: expected a token of 16"),
        (f"{ONE}\n{TWO}", "line 1: expected NAME ROLE TOKEN"),
        (f"ada review {ONE}\n{TWO}", "line 2: expected NAME ROLE TOKEN"),
        (f"ada owner {ONE}", "line 1: expected NAME ROLE TOKEN, with a role of read, review"),
        (f"ada {ONE} review", "line 1: expected NAME ROLE TOKEN"),
        (f"ada read {ONE} more", "line 1: expected NAME ROLE TOKEN"),
        ("ada read short", "line 1: expected a token of 16"),
        (f"{'a' * 101} read {ONE}", "line 1: expected a name"),
        (f"a\x1bb read {ONE}", "line 1: expected a name"),
        (b"\xff read " + ONE.encode(), "line 1: expected a name"),
        (f"ada read {ONE}\n\nada read {TWO}", "line 3: the name of line 1 again"),
        (f"ada read {ONE}\nbob read {ONE}", "line 2: the token of line 1 again"),
        ("x" * 70_000, "at most"),
    ],
)
def test_what_is_no_token_file(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        read_tokens(written(tmp_path, text))
    assert ONE not in str(error.value)
    assert TWO not in str(error.value)


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "token").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError):
        own_tokens(tmp_path / "token")
    assert not os.path.lexists(tmp_path / "elsewhere")


def killed(work: Callable[[], object]) -> None:
    """Run it in a child that must end by SIGKILL."""
    if (child := os.fork()) == 0:
        try:
            work()
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.mark.parametrize("at", ["fsync", "link"])
def test_a_kill_leaves_no_empty_file(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    with monkeypatch.context() as patched:
        patched.setattr(os, at, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        killed(lambda: own_tokens(path))
    assert not path.exists()
    assert len(own_tokens(path)) == 1


def test_of_two_servers_the_first_makes_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, link = tmp_path / "token", os.link

    def late(part: str, name: Path) -> None:
        written(tmp_path, ONE)
        link(part, name)

    monkeypatch.setattr(os, "link", late)
    assert set(own_tokens(path)) == {ONE}
    assert os.listdir(tmp_path) == ["token"]


class Looks:
    """An event that is waited for as often as the file is looked at: each time the next step is done first."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self._steps = list(steps)

    def wait(self, _: float) -> bool:
        if not self._steps:
            return True
        self._steps.pop(0)()
        return False


def test_a_token_that_is_taken_back_ends_with_its_sessions(tmp_path: Path) -> None:
    lines = {"Ada": f"Ada review {ONE}", "Bob": f"Bob read {TWO}", "Eve": f"Eve read {ONE}-eve"}
    path = written(tmp_path, "\n".join(lines.values()))
    holders = read_tokens(path)
    access = Access(holders, clock=lambda: 0.0)
    tokens = {holder.name: token for token, holder in holders.items()}
    cookies, links = {}, {}
    for token, holder in holders.items():
        opened = access.session_of(access.new_code(Caller(holder=holder)))
        assert opened is not None
        cookies[holder.name] = Headers({"cookie": f"{access.cookie}={opened[0]}"})
        links[holder.name] = access.new_code(Caller(holder=holder))
        assert tokens[holder.name] == token
    seen, problems = list[set[str]](), list[str]()

    def look() -> None:
        bearers = {name: Headers({"authorization": f"Bearer {tokens[name]}"}) for name in tokens}
        known = {name for name in tokens if access.caller_of(cookies[name])}
        assert known == {name for name in tokens if access.caller_of(bearers[name])}
        seen.append(known)

    def with_text(text: str) -> Callable[[], object]:
        return lambda: (look(), written(tmp_path, text))

    renewed = f"Bob read {TWO}-renewed"
    looks = Looks(
        with_text("no tokens at all"),
        with_text(f"{lines['Ada']}\n{renewed}\n"),  # Eve has left, Bob's token was leaked
        look,
    )
    watch_tokens(path, access, cast(threading.Event, looks), problems.append)
    look()
    assert seen == [{"Ada", "Bob", "Eve"}, {"Ada", "Bob", "Eve"}, {"Ada"}, {"Ada"}]
    assert [access.session_of(links[name]) is not None for name in lines] == [True, False, False]
    new = access.caller_of(Headers({"authorization": f"Bearer {TWO}-renewed"}))
    assert new is not None
    assert new.holder.name == "Bob"
    assert len(problems) == 1
    assert "the tokens of before hold" in problems[0]
    assert ONE not in problems[0]
