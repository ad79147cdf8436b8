"""URIs of stores: a scheme, a bucket or container, and the folder in it that is the root of all keys."""

from __future__ import annotations

import re
from dataclasses import dataclass

from schemas.errors import ConfigError
from schemas.paths import OutsideCorpus, key_names

OBJECT_SCHEMES = ("s3", "gs", "az", "abfs", "abfss", "memory")
_AZURE_HOST = re.compile(r"([a-z0-9]{3,24})\.dfs\.core\.windows\.net")
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://?(.*)", re.DOTALL)  # `Path` writes one slash
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreUri:
    """The address of a store, without credentials: those come from the environment."""

    scheme: str
    bucket: str
    prefix: str = ""
    account: str = ""  # of Azure, where the URI names it

    def __str__(self) -> str:
        host = f"@{self.account}.dfs.core.windows.net" if self.account else ""
        return f"{self.scheme}://{self.bucket}{host}/{self.prefix}".rstrip("/")


def scheme_of(uri: str) -> str:
    """`s3` of `s3://bucket/a`, `""` of a local path."""
    match = _URI.fullmatch(uri)
    return match[1].lower() if match else ""


def object_store_uri(uri: str) -> StoreUri:
    """The parts of the URI of an object store.

    Raises:
        ConfigError: it is none, names no bucket, holds a password or a signature, or its folder is no key.
    """
    match = _URI.fullmatch(uri)
    if not match or match[1].lower() not in OBJECT_SCHEMES:
        raise ConfigError("not the URI of an object store", remedy=schemes_remedy())
    scheme, rest = match[1].lower(), match[2]
    if "?" in rest or "#" in rest:
        message = f"a {scheme}:// URI with a query or a fragment"  # it may hold a signature
        raise ConfigError(message, remedy="give the bucket and the folder only")
    host, _, prefix = rest.rstrip("/").partition("/")
    bucket, account = _bucket_and_account(scheme, host)
    try:
        if prefix:
            key_names(prefix, where=f"{scheme}://{bucket}")
    except OutsideCorpus as error:
        raise ConfigError(error.message, where=error.where) from error
    return StoreUri(scheme=scheme, bucket=bucket, prefix=prefix, account=account)


def schemes_remedy() -> str:
    """What an error says about the URIs that work."""
    names = ", ".join(f"{scheme}://" for scheme in OBJECT_SCHEMES)
    return f"use a local path, file:// or one of {names}"


def _bucket_and_account(scheme: str, host: str) -> tuple[str, str]:
    bucket, at, domain = host.partition("@")
    account = _AZURE_HOST.fullmatch(domain)
    if at and not (scheme.startswith("abfs") and account):
        # Not echoed: before the `@` of other URIs is a password.
        message = f"a {scheme}:// URI with a user or a password"
        raise ConfigError(
            message, remedy="give credentials through the environment, and the bucket only"
        )
    if not _BUCKET.fullmatch(bucket):
        expected = f"expected {scheme}://BUCKET/FOLDER"
        raise ConfigError(f"a {scheme}:// URI without a valid bucket name; {expected}")
    return bucket, account[1] if account else ""
