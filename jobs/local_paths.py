"""Every path of the command line is a path of this machine: buckets and URLs are not read or written yet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # Path writes `s3://b` as `s3:/b`


def with_local_paths(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same command, which refuses `scheme://` for any parameter that is a path, before it does anything.

    `--out s3://bucket/c` would otherwise make a local folder of the name `s3:`.
    """

    @wraps(command)
    def checked(*args: Any, **given: Any) -> Any:
        for name, value in given.items():
            for path in _paths(value):
                check_local(path, f"--{name.replace('_', '-')}")
        return command(*args, **given)

    return checked


def check_local(path: Path, where: str) -> None:
    """Raises ConfigError: it is a URL."""
    if _SCHEME.match(str(path)):
        url = str(path).replace(":/", "://", 1)
        message = f"{url} is a URL; expected a path of this machine"
        todo = "mount the bucket (a FUSE or CSI driver), or copy it here"
        raise ConfigError(f"{message}: {todo}", where=where)


def _paths(value: Any) -> Iterable[Path]:
    if isinstance(value, Path):
        return (value,)
    return [v for v in value if isinstance(v, Path)] if isinstance(value, list | tuple) else ()
