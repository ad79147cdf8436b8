"""What the tests of stored manifests share: a policy of one rule, and the commands that build one and ask about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from jobs.cli import app

POLICY = """
policy: simple
version: {version}
about: a test
segments: {{min_length_s: {length_s}, origin: ours, edges: []}}
rules:
  - {{code: {code}, tier: {tier}, text: one, when: {{fact: duration_s, above: {above}, origin: ours}}}}
otherwise: {{code: rest, tier: low, text: rest}}
"""


def policy(root: Path, name: str = "p.yaml", **changes: Any) -> str:
    usual = {"version": 1, "length_s": 0.1, "code": "long", "tier": "high", "above": 1.0}
    path = root / name
    path.write_text(POLICY.format(**(usual | changes)))
    return str(path)


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def build(corpus: Path, name: str, *words: str) -> Result:
    shares = ("--val", "0", "--test", "0", "--workers", "0")
    return invoke("manifest", "build", str(corpus), name, *shares, *words)


def ask(corpus: Path, command: str, *words: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(
        invoke("manifest", command, str(corpus), *words, "--json").stdout
    )["result"]
    return answer
