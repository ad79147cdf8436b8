"""A path that a person gives is one of this machine: buckets and URLs are not read or written yet."""

from __future__ import annotations

import re
from pathlib import Path

from schemas.errors import ConfigError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # Path writes `s3://b` as `s3:/b`


def check_local(path: Path, where: str) -> None:
    """
    Raises:
        ConfigError: it is a URL.
    """
    if _SCHEME.match(str(path)):
        url = str(path).replace(":/", "://", 1)
        message = f"{url} is a URL; expected a path of this machine"
        todo = "mount the bucket (a FUSE or CSI driver), or copy it here"
        raise ConfigError(f"{message}: {todo}", where=where)
