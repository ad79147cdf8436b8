"""Every path of the command line is a path of this machine (`schemas/local_path.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any

from schemas.local_path import check_local


def with_local_paths(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same command, which refuses `scheme://` for any parameter that is a path, before it does anything.

    `--out s3://bucket/c` would otherwise make a local folder of the name `s3:`.
    """

    @wraps(command)
    def checked(*args: Any, **options: Any) -> Any:
        for name, value in options.items():
            for path in _paths(value):
                check_local(path, f"--{name.replace('_', '-')}")
        return command(*args, **options)

    return checked


def _paths(value: Any) -> Iterable[Path]:
    if isinstance(value, Path):
        return (value,)
    return [v for v in value if isinstance(v, Path)] if isinstance(value, list | tuple) else ()
