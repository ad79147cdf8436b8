"""What an error of obstore means for the user. Only the HTTP status and the code in the answer are taken from its text.

The rest of the text may hold signed URLs and tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ingest.storage.store_uri import StoreUri
from schemas.errors import (
    Code,
    ConfigError,
    PipelineError,
    SourceError,
    TransientError,
    UnknownOutcome,
)
from schemas.paths import OutsideCorpus

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,60})</Code>")
_NO_BUCKET = re.compile(
    r"NoSuchBucket|ContainerNotFound|ContainerBeingDeleted|"
    r"(bucket|container) does not exist",
    re.IGNORECASE,
)
# What a client says that found no credentials and asked the machine's metadata service, and what a store says of bad ones.
_NO_CREDENTIALS = re.compile(
    r"169\.254\.169\.254|metadata\.google|latest/api/token|computeMetadata|TokenRequest|MissingCredential|MissingAccount|"
    r"Account must be specified|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|"
    r"TokenRefreshRequired|AuthenticationFailed|credential",
    re.IGNORECASE,
)
_IS_THROTTLED = re.compile(r"SlowDown|ServerBusy|TooManyRequests|RequestLimitExceeded")
_NOT_SENT = re.compile(r"kind: Connect\b|dns error|error trying to connect")
_REPLACED = "the object was replaced while it was read"
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or AWS_SKIP_SIGNATURE=true for a public bucket. "
    "Profiles are not read: eval $(aws configure export-credentials --format env)",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT, or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_KEY, "
    "or AZURE_SKIP_SIGNATURE=true for a public container",
}


class ObjectReplaced(TransientError):
    """The object is another version than the requested one."""


class NotCarriedOut(TransientError):
    """A request that the store has refused for now, or that never reached it: sending it again is safe, a create too."""


@contextmanager
def translated(errors: Any, uri: StoreUri, key: str, *, is_create: bool = False) -> Iterator[None]:
    """Errors of obstore that leave the block become ours. Others pass, such as those of a local disk.

    Args:
        errors: the module `obstore.exceptions`. is_create: whether a request that was not answered has an unknown outcome.
    """
    try:
        yield
    except PipelineError:
        raise
    except (errors.BaseError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        # Without its cause: a traceback would print what the message leaves out.
        raise _meaning(error, errors, uri, key, is_create=is_create) from None


def is_past_end(error: Exception) -> bool:
    """Whether a requested range starts at or after the end of the object."""
    text = str(error)
    return _status_of(text) == 416 or "StartTooLarge" in text


def _meaning(
    error: Exception, errors: Any, uri: StoreUri, key: str, *, is_create: bool
) -> PipelineError:
    text = str(error)
    status = _status_of(text)
    where = f"{uri}/{key}" if key else str(uri)
    refusal = _refusal(error, errors, text, status, uri, where)
    if refusal:
        return refusal
    answer = _answer(text, status)
    if status == 429 or _IS_THROTTLED.search(text):
        return NotCarriedOut(
            f"the store limits the rate of requests ({answer})",
            where=where,
            remedy="run the same command again, with fewer workers",
        )
    if _NOT_SENT.search(text):
        return NotCarriedOut(
            "the store cannot be reached",
            where=where,
            remedy="check the network and the endpoint, and run the same command again",
        )
    if is_create:
        problem = f"creating the object was not answered ({answer})"
        return UnknownOutcome(problem, where=where, remedy="read the object before another try")
    return TransientError(
        f"the store failed ({answer})", where=where, remedy="run the same command again"
    )


def _refusal(
    error: Exception, errors: Any, text: str, status: int, uri: StoreUri, where: str
) -> PipelineError | None:
    """The error of a request that another try does not help."""
    if isinstance(error, errors.PreconditionError) and status in (0, 412):
        return ObjectReplaced(_REPLACED, where=where, remedy="run the same command again")
    if _NO_BUCKET.search(text):
        kind = "container" if uri.scheme.startswith(("az", "abfs")) else "bucket"
        todo = f"create the {kind}, or correct the URI"
        return ConfigError(f"there is no {kind} {uri.bucket}", where=where, remedy=todo)
    if isinstance(error, FileNotFoundError):
        return SourceError(Code.MISSING_FILE, "the object is missing", where=where)
    if isinstance(error, errors.InvalidPathError):
        message = "a key with `..`, an empty name or a control character"
        return SourceError(Code.UNSAFE_PATH, message, where=where)
    if isinstance(error, ValueError):
        return OutsideCorpus("not a key of this store", where=where)
    return _refusal_by_status(error, errors, text, status, uri, where)


def _refusal_by_status(
    error: Exception, errors: Any, text: str, status: int, uri: StoreUri, where: str
) -> PipelineError | None:
    answer = _answer(text, status)
    is_unknown_user = isinstance(error, errors.UnauthenticatedError) or status == 401
    if is_unknown_user or _NO_CREDENTIALS.search(text):
        message, todo = "no valid credentials", _credentials_remedy(uri)
    elif isinstance(error, errors.PermissionDeniedError) or status == 403:
        message = "no permission"
        todo = "give the user of these credentials the right to list, read and write there"
    elif 300 <= status < 400 or "BareRedirect" in text:
        message, todo = "the bucket is elsewhere", "set AWS_REGION to the region of the bucket"
    elif isinstance(error, errors.NotSupportedError) or status == 501:
        message, todo = "the store cannot do that", "use another store"
    elif 400 <= status < 500 and status not in (408, 409, 412, 425, 429):
        message, todo = "the store refused the request", "check the URI and the endpoint"
    else:
        return None
    return ConfigError(f"{message} ({answer})", where=where, remedy=todo)


def _status_of(text: str) -> int:
    match = _STATUS.search(text)
    return int(match[1]) if match else 0


def _answer(text: str, status: int) -> str:
    code = _CODE.search(text)
    words = [str(status)] if status else []
    words += [code[1]] if code else []
    return " ".join(words) or "no answer"


def _credentials_remedy(uri: StoreUri) -> str:
    return _CREDENTIALS.get(uri.scheme, _CREDENTIALS["az"])
