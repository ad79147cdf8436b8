"""The Ray that `--ray` starts: its own token, and a warning where there can be none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import ray_token
from jobs.ray_token import MODE, TOKEN, TOKEN_PATH, require_token
from schemas.errors import ConfigError

ROOT = Path(__file__).parents[2]
DRIVER = """
import sys
from jobs.stages.resources import executor_for, limits_from
executor = executor_for(limits_from(), workers=1, use_ray=True, address=None)
print(executor.cluster.address, flush=True)
sys.stdin.read()
executor.close()
"""
STRANGER = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")
print("connected")
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test sets goes with it."""
    for name in (MODE, TOKEN, TOKEN_PATH):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_each_command_has_a_token_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    require_token()
    assert os.environ[MODE] == "token"
    first = os.environ[TOKEN]
    assert len(first) >= 32
    monkeypatch.delenv(TOKEN)
    require_token()
    assert os.environ[TOKEN] != first


def test_what_the_user_has_set_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TOKEN_PATH, "/run/secrets/ray_token")
    require_token()
    assert TOKEN not in os.environ
    assert capsys.readouterr().err == ""
    monkeypatch.setenv(MODE, "disabled")
    require_token()
    assert "RAY_AUTH_MODE=disabled" in capsys.readouterr().err


def test_a_ray_without_tokens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed: nothing starts that a stranger could use."""
    monkeypatch.setattr(ray_token.metadata, "version", lambda name: "2.51.1")
    with pytest.raises(ConfigError, match=r"Ray 2\.51\.1 has no token.*install Ray 2\.52"):
        require_token()
    assert MODE not in os.environ


@pytest.mark.slow
@pytest.mark.ray
def test_a_stranger_is_refused() -> None:
    """A real Ray of the command; the stranger is a real driver without the token."""
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert driver.stdout is not None
        address = driver.stdout.readline().strip()
        assert address
        env = {**os.environ, MODE: "token", TOKEN: "0" * 64}
        stranger = subprocess.run(
            [sys.executable, "-c", STRANGER, address],
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        driver.communicate(input="", timeout=120)
    assert stranger.returncode != 0
    assert "connected" not in stranger.stdout
    assert "oken" in stranger.stderr
