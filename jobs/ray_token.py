"""Token authentication of the Ray that `--ray` starts on this machine. Its environment is set before Ray is imported."""

from __future__ import annotations

import os
import secrets
from importlib import metadata

from jobs.ui.output import warn
from schemas.errors import ConfigError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
SINCE = (2, 52)  # Ray that knows tokens


def require_token() -> None:
    """Give the Ray that this process starts a random token of its own, so that no other machine on the network can use it.

    What the user has set stays. Ray on Linux listens on every address of the machine in any configuration: the token protects it.

    Raises:
        ConfigError: this Ray has no tokens.
    """
    version = metadata.version("ray")
    if tuple(map(int, version.split(".")[:2])) < SINCE:
        least = ".".join(map(str, SINCE))
        raise ConfigError(
            f"Ray {version} has no token authentication: anyone who can reach this machine could run code",
            remedy=f"install Ray {least} or newer, or run without --ray",
            where="--ray",
        )
    os.environ.setdefault(MODE, "token")
    if os.environ[MODE] != "token":
        warn(f"{MODE}={os.environ[MODE]}: anyone who can reach this machine can run code")
    elif not os.environ.keys() & {TOKEN, TOKEN_PATH}:
        os.environ[TOKEN] = secrets.token_hex(32)
