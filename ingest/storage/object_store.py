"""Objects in a bucket of S3, Google Cloud Storage or Azure, or in the memory of this process, through obstore.

The only module that imports obstore, and only when a store is used. An object is durable when its PUT is answered. Credentials, region
and endpoint come from the environment variables that obstore reads; no message repeats what obstore says, which holds URLs that
may be signed.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from ingest.storage.local import write_pieces
from ingest.storage.object_error import (
    NotCarriedOut,
    ObjectReplaced,
    is_past_end,
    translated,
)
from ingest.storage.store import Store
from ingest.storage.store_uri import StoreUri, object_store_uri
from schemas.errors import Code, ConfigError, InvariantError, SourceError
from schemas.paths import OutsideCorpus, key_names
from schemas.regular_file import open_regular

__all__ = ["PART_BYTES", "ObjectReplaced", "ObjectStore"]

PART_BYTES = 8 << 20  # of one request
PARTS_AT_ONCE = 4  # requests of one file that are under way
MAX_PARTS = 10_000  # of one upload to S3
MAX_COPY_BYTES = 5 << 30  # S3 copies no larger object in one request
MAX_RETRIES = 5
TIMEOUT_S = 60.0  # one request with its body
RETRY_TIMEOUT_S = 120.0  # a request with its retries

_MEMORY: dict[str, Any] = {}  # name -> the store of this process
_MEMORY_LOCK = threading.Lock()


class ObjectStore(Store):
    """A bucket and a folder in it. Threads may share one; a copy in another process makes its own connections."""

    max_copy_bytes = MAX_COPY_BYTES

    def __init__(
        self,
        uri: StoreUri | str,
        *,
        max_retries: int = MAX_RETRIES,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.uri = object_store_uri(uri) if isinstance(uri, str) else uri
        self.max_retries = max_retries
        self.timeout_s = timeout_s

    def __repr__(self) -> str:
        return f"ObjectStore({str(self.uri)!r})"

    def __reduce__(self) -> tuple[Callable[..., ObjectStore], tuple[object, ...]]:
        if self.uri.scheme == "memory":
            raise InvariantError("a store in memory is not seen by another process")
        return _rebuilt, (self.uri, self.max_retries, self.timeout_s)

    # --- by key, as any `Store` ---------------------------------------------------------------------------------------

    def get(self, key: str, *, max_bytes: int) -> bytes:
        with self._translated(key):
            answer = self._obstore.get(self._client, self._checked(key))
            size = int(answer.meta["size"])
            if size > max_bytes:
                message = f"{size} bytes; expected at most {max_bytes}"
                raise SourceError(Code.TOO_LARGE, message, where=key)
            return bytes(answer.bytes())

    def range(self, key: str, start: int, length: int) -> bytes:
        path = self._checked(key)
        if length <= 0:
            return self._nothing_of(key)
        with self._translated(key) as errors:
            options = {"range": (start, start + length)}
            try:
                return bytes(self._obstore.get(self._client, path, options=options).bytes())
            except errors.BaseError as error:
                if not is_past_end(error):
                    raise
        return self._nothing_of(key)

    def put(self, key: str, data: bytes, *, is_durable: bool = False) -> None:
        path = self._checked(key)
        with self._translated(key):
            self._obstore.put(self._client, path, data, use_multipart=False)

    def create(self, key: str, data: bytes) -> bool:
        """As `Store.create`. Sent again only where it was not carried out: after a lost answer a retry would meet the object it made itself."""
        path = self._checked(key)
        put, client = self._obstore.put, self._client_that_sends_once
        return self._created(key, partial(put, client, path, data, mode="create", use_multipart=False))  # fmt: skip

    def _created(self, key: str, request: Callable[[], object]) -> bool:
        """Whether a request that only creates has made its object."""
        retrying = Retrying(
            retry=retry_if_exception_type(NotCarriedOut),
            stop=stop_after_attempt(self.max_retries + 1),
            wait=wait_random_exponential(multiplier=0.2, max=20),
            reraise=True,
        )
        return retrying(self._created_once, key, request)

    def _created_once(self, key: str, request: Callable[[], object]) -> bool:
        with self._translated(key, is_create=True) as errors:
            try:
                request()
            except errors.AlreadyExistsError as error:
                if "ConditionalRequestConflict" in str(error):  # two at once: either may have won
                    raise
                return False
        return True

    def size(self, key: str) -> int | None:
        entry = self.entry(key)
        return None if entry is None else int(entry["size"])

    def copy(self, source_key: str, target_key: str) -> None:
        source, target = self._checked(source_key), self._checked(target_key)
        size = self.size(source_key)
        if size is None:
            raise _missing(source_key)
        with self._translated(source_key):
            if size <= self.max_copy_bytes:
                self._obstore.copy(self._client, source, target)
                return
            answer = self._obstore.get(self._client, source)
            pieces = self._ranges(source, answer.meta)
            self._upload(target, pieces, size)

    def create_copy(self, source_key: str, target_key: str) -> bool:
        """As `create`, of the bytes of another object of at most `MAX_COPY_BYTES`, which do not pass through this machine.

        Raises:
            SourceError: MISSING_FILE for the source.
            UnknownOutcome: no answer came.
        """
        source, target = self._checked(source_key), self._checked(target_key)
        copy, client = self._obstore.copy, self._client_that_sends_once
        return self._created(source_key, partial(copy, client, source, target, overwrite=False))

    def put_file(self, key: str, path: Path) -> None:
        target = self._checked(key)
        with open_regular(path) as file, self._translated(key):
            size = path.stat().st_size
            self._upload(target, file, size)

    def get_file(
        self, key: str, path: Path, *, max_bytes: int | None = None, e_tag: str | None = None
    ) -> str:
        """As `Store.get_file`, of the version with this ETag where one is given, else ObjectReplaced."""
        source = self._checked(key)
        options = {"if_match": e_tag} if e_tag else None
        with self._translated(key):
            answer = self._obstore.get(self._client, source, options=options)
            size = int(answer.meta["size"])
            if max_bytes is not None and size > max_bytes:
                message = f"{size} bytes; expected at most {max_bytes}"
                raise SourceError(Code.TOO_LARGE, message, where=key)
            is_small = int(answer.meta["size"]) <= PART_BYTES
            pieces = (
                iter((bytes(answer.bytes()),)) if is_small else self._ranges(source, answer.meta)
            )
            return write_pieces(path, pieces)

    def ranges(
        self, key: str, spans: Sequence[tuple[int, int]], *, size: int, e_tag: str
    ) -> Iterator[bytes]:
        """The bytes [start, end) of each span, in order, while the next ones are under way: of the version of this size and ETag ("": unknown).

        Raises:
            ObjectReplaced: there is another version now.
            SourceError, TransientError: as `Store.get`.
        """
        source = self._checked(key)
        with self._translated(key):
            for answered, (start, end), data in self._spans(source, spans, e_tag):
                if (answered, len(data)) != (size, end - start):
                    raise ObjectReplaced(f"{answered} bytes; expected {size}", where=key)
                yield data

    def sha256(self, key: str) -> str:
        """SHA-256 of the bytes of an object, in hexadecimal. Raises as `get`."""
        source, digest = self._checked(key), hashlib.sha256()
        with self._translated(key):
            answer = self._obstore.get(self._client, source)
            for piece in self._ranges(source, answer.meta):
                digest.update(piece)
        return digest.hexdigest()

    def list(self, prefix: str, *, after: str | None = None) -> Sequence[str]:
        return sorted(each["key"] for each in self.entries(prefix, after=after))

    def delete(self, key: str) -> None:
        path = self._checked(key)
        try:
            with self._translated(key):
                self._obstore.delete(self._client, path)
        except SourceError as error:
            if error.code is not Code.MISSING_FILE:
                raise

    def delete_all(self, keys: Sequence[str]) -> None:
        """As `delete`, of many objects with few requests."""
        paths = [self._checked(key) for key in keys]
        try:
            with self._translated(keys[0] if keys else ""):
                self._obstore.delete(self._client, paths)
        except SourceError as error:
            if error.code is not Code.MISSING_FILE:
                raise

    def sync(self) -> None:
        """Nothing: what was answered lasts."""

    # --- what only objects have ---------------------------------------------------------------------------------------

    def entries(self, prefix: str = "", *, after: str | None = None) -> Iterator[dict[str, Any]]:
        """`key`, `size`, `e_tag` and `modified_s` (since 1970, of the store's clock) of the objects below a folder, in the order in which the store lists them.

        Raises:
            SourceError: UNSAFE_PATH for a bucket that holds a key with `..`, an empty name or a control character there.
        """
        folder = self._checked(prefix) if prefix else self.uri.prefix
        root = f"{self.uri.prefix}/" if self.uri.prefix else ""
        offset = None if after is None else f"{root}{after}"
        with self._translated(prefix):
            batches = self._obstore.list(
                self._client, folder or None, offset=offset, chunk_size=1000
            )
            for batch in batches:
                for entry in batch:
                    key = str(entry["path"]).removeprefix(root)
                    if after is None or key > after:
                        yield {
                            "key": key,
                            "size": int(entry["size"]),
                            "e_tag": entry["e_tag"],
                            "modified_s": entry["last_modified"].timestamp(),
                        }

    def entry(self, key: str) -> dict[str, Any] | None:
        """As `entries`, of one object; None where there is none."""
        path = self._checked(key)
        try:
            with self._translated(key):
                head = self._obstore.head(self._client, path)
        except SourceError as error:
            if error.code is Code.MISSING_FILE:
                return None
            raise
        return {"key": key, "size": int(head["size"]), "e_tag": head["e_tag"]}

    # --- how ----------------------------------------------------------------------------------------------------------

    def _nothing_of(self, key: str) -> bytes:
        if self.size(key) is None:
            raise _missing(key)
        return b""

    def _upload(self, target: str, data: Any, size: int) -> None:
        """Send a file or pieces: in one request where they are small, else in parts, which appear at once."""
        part = max(PART_BYTES, -(-size // (MAX_PARTS - 1)))
        self._obstore.put(
            self._client, target, data, chunk_size=part, max_concurrency=PARTS_AT_ONCE
        )

    def _ranges(self, source: str, meta: Any) -> Iterator[bytes]:
        """The bytes of one version of an object, in order, while the next ones are under way."""
        size = int(meta["size"])
        spans = [(at, min(at + PART_BYTES, size)) for at in range(0, size, PART_BYTES)]
        for _, _, data in self._spans(source, spans, meta["e_tag"] or ""):
            yield data

    def _spans(
        self, source: str, spans: Sequence[tuple[int, int]], e_tag: str
    ) -> Iterator[tuple[int, tuple[int, int], bytes]]:
        """For each span the size of the whole object, the span, and its bytes."""
        condition = {"if_match": e_tag} if e_tag else {}

        def part(span: tuple[int, int]) -> tuple[int, tuple[int, int], bytes]:
            options = {"range": span, **condition}
            answer = self._obstore.get(self._client, source, options=options)
            return int(answer.meta["size"]), span, bytes(answer.bytes())

        if len(spans) == 1:  # no thread for one request
            yield part(spans[0])
            return
        waiting: deque[Future[tuple[int, tuple[int, int], bytes]]] = deque()
        with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
            try:
                for span in spans:
                    waiting.append(pool.submit(part, span))
                    if len(waiting) > PARTS_AT_ONCE:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for each in waiting:
                    each.cancel()

    def _checked(self, key: str) -> str:
        key_names(key, where=str(self.uri))
        if any(letter < " " or letter == "\x7f" for letter in key):
            message = f"{key!r} has a control character"
            raise OutsideCorpus(message, where=str(self.uri))
        try:
            key.encode()
        except UnicodeEncodeError:
            message = f"{key!r} is not valid Unicode"
            raise OutsideCorpus(message, where=str(self.uri)) from None
        return f"{self.uri.prefix}/{key}" if self.uri.prefix else key

    @contextmanager
    def _translated(self, key: str, *, is_create: bool = False) -> Iterator[Any]:
        with translated(self._errors, self.uri, key, is_create=is_create):
            yield self._errors

    @property
    def _obstore(self) -> Any:
        return _library("obstore")

    @property
    def _errors(self) -> Any:
        return _library("obstore.exceptions")

    @cached_property
    def _client(self) -> Any:
        return self._opened(self.max_retries)

    @cached_property
    def _client_that_sends_once(self) -> Any:
        return self._opened(0)

    def _opened(self, max_retries: int) -> Any:
        stores = _library("obstore.store")
        settings: dict[str, Any] = {
            # `client_options` would take the place of those in the environment: AWS_ALLOW_HTTP, say.
            "config": {"timeout": f"{self.timeout_s:g} seconds"},
            "retry_config": {
                "max_retries": max_retries,
                "retry_timeout": timedelta(seconds=RETRY_TIMEOUT_S),
            },
        }
        uri = self.uri
        with translated(self._errors, uri, ""):
            if uri.scheme == "memory":
                with _MEMORY_LOCK:
                    return _MEMORY.setdefault(uri.bucket, stores.MemoryStore())
            if uri.scheme == "s3":
                # S3 refuses to complete an upload of parts where an object is, and a part may be a copy.
                settings["config"]["copy_if_not_exists"] = "multipart"
                return stores.S3Store(uri.bucket, **settings)
            if uri.scheme == "gs":
                return stores.GCSStore(uri.bucket, **settings)
            account = {"account_name": uri.account} if uri.account else {}
            return stores.AzureStore(uri.bucket, **settings, **account)


def _rebuilt(uri: StoreUri, max_retries: int, timeout_s: float) -> ObjectStore:
    return ObjectStore(uri, max_retries=max_retries, timeout_s=timeout_s)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        problem = "obstore, which reads and writes buckets, is not installed"
        raise ConfigError(problem, remedy="run pip install 'eicorpus[cloud]'") from error


def _missing(key: str) -> SourceError:
    return SourceError(Code.MISSING_FILE, "the object is missing", where=key)
