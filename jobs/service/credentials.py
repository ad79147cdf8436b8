"""Who asks: the holder of a token, or of a browser session that a one-time link opened."""

from __future__ import annotations

import hashlib
import itertools
import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import cookie_parser

from jobs.service.roles import Role

MAX_SESSIONS, MAX_CODES = 100, 20  # of one holder
CODE_LIFE_S = 600.0
SESSION_LIFE_S = 12 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Whom a token belongs to: reviews carry the name."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who sent a request. `until_s` is the end of the session; None: the request has the token.

    sessions: numbers of the session and of those whose links led to it; they end with any of these.
    """

    holder: Holder
    until_s: float | None = None
    sessions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grant:
    """A session or a code. `caller` of a code: who made it. `parent`: the session whose link it is, or came from; () for that of a token."""

    caller: Caller
    until_s: float
    parent: tuple[int, ...]


class Access:
    """The tokens, the sessions of browsers and the one-time codes that open them. For any number of threads."""

    def __init__(
        self,
        holders: Mapping[str, Holder],
        *,
        clock: Callable[[], float],
        cookie: str = "eicorpus",
    ) -> None:
        """
        Args:
            holders: by token; at least one.
        """
        self._clock, self.cookie = clock, cookie
        self._holders: dict[bytes, Holder] = {}
        self._sessions: OrderedDict[str, _Grant] = OrderedDict()
        self._codes: OrderedDict[str, _Grant] = OrderedDict()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.replace(holders)

    def replace(self, holders: Mapping[str, Holder]) -> None:
        """Other tokens from now on. Sessions and links end of a holder that left, or has another token or role."""
        # By digest: how long a look-up takes then says nothing of a token.
        new = {_digest(token): holder for token, holder in holders.items()}
        with self._lock:
            stay = {holder for digest, holder in new.items() if self._holders.get(digest) == holder}
            for store in (self._sessions, self._codes):
                for key in [k for k, each in store.items() if each.caller.holder not in stay]:
                    del store[key]
            self._holders = new
            self.first = max(new.values(), key=lambda each: list(Role).index(each.role))

    def new_code(self, caller: Caller | None = None) -> str:
        """A code that opens one session, within ten minutes. Default: for the first holder of the highest role."""
        if (
            caller is None
        ):  # of the server: its session is no child of a token, whose sessions may be many
            caller = Caller(holder=self.first, sessions=(next(self._numbers),))
        until_s = self._clock() + CODE_LIFE_S
        entry = _Grant(caller=caller, until_s=until_s, parent=caller.sessions)
        return self._kept(self._codes, entry, MAX_CODES)

    def session_of(self, code: str) -> tuple[str, float] | None:
        """The session that a code opens, which it does once, and its seconds. A code that a session made opens one that ends with it."""
        with self._lock:
            entry = self._codes.pop(code, None)
        now = self._clock()
        if entry is None or entry.until_s < now:
            return None
        until_s, limit_s = now + SESSION_LIFE_S, entry.caller.until_s
        until_s = until_s if limit_s is None else min(until_s, limit_s)
        sessions = (*entry.caller.sessions, next(self._numbers))
        caller = Caller(holder=entry.caller.holder, until_s=until_s, sessions=sessions)
        new = _Grant(caller=caller, until_s=until_s, parent=entry.parent)
        return self._kept(self._sessions, new, MAX_SESSIONS), until_s - now

    def caller_of(self, headers: Headers) -> Caller | None:
        """None: no valid token or session."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        holder = self._holders.get(_digest(token.strip())) if scheme.lower() == "bearer" else None
        if holder is not None:
            return Caller(holder=holder)
        with self._lock:
            entry = self._sessions.get(self._session_id(headers))
        return entry.caller if entry is not None and entry.until_s >= self._clock() else None

    def log_out(self, headers: Headers) -> None:
        """End the session of a request, its unopened links, and the sessions that its links have opened."""
        with self._lock:
            ended = self._sessions.get(self._session_id(headers))
            if ended is None:
                return
            own = ended.caller.sessions[-1]
            for store in (self._sessions, self._codes):
                for key in [key for key, each in store.items() if own in each.caller.sessions]:
                    del store[key]

    def _session_id(self, headers: Headers) -> str:
        # Cookies of other programs on this host come along, and `http.cookies` drops all of them where one is odd.
        return cookie_parser(headers.get("cookie", "")).get(self.cookie, "")

    def _kept(self, store: OrderedDict[str, _Grant], entry: _Grant, most: int) -> str:
        """Of more than `most` of one holder the oldest goes of the parent that has most: who logs in again and again ends no session of others."""
        new = secrets.token_urlsafe(32)
        with self._lock:
            store[new] = entry
            own = {
                k: each for k, each in store.items() if each.caller.holder == entry.caller.holder
            }
            if len(own) > most:
                [(parent, _)] = Counter(each.parent for each in own.values()).most_common(1)
                del store[next(key for key, each in own.items() if each.parent == parent)]
        return new


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
