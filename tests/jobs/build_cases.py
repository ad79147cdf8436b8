"""A corpus spec over the toy source, and its commands as a user runs them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from adapters.base import SourceInfo
from jobs.cli import app
from schemas.errors import ConfigError
from tests.faults.toy import Toy, write_toy

SPEC = """\
version: 1
sources:
  toy:
    path: raw
    adapter: tests.faults.toy:Toy
    limits: {max_quarantined_ratio: 0.5}
measures: {}
tiers: {policy: policy.yaml}
duplicates: {}
captions: {backend: rules}
manifests:
  train:
    split: {val: 0, test: 0}
reports:
  overview: {html: report.html}
verify: {}
"""
POLICY = """\
policy: toy
version: 1
about: short episodes are actionless
segments: {min_length_s: 0.3, origin: the test}
rules:
  - {code: short, tier: actionless, text: it is short, when: {fact: duration_s, below: %s, origin: the test}}
otherwise: {code: rest, tier: low, text: the others}
"""


class Other(Toy):
    """A second source."""

    name = "other"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        return replace(super().survey(root, options), source="other", dataset="other")


def write_spec(
    folder: Path, kinds: Mapping[str, str], text: str = SPEC, *, below: float = 0.5
) -> Path:
    """A spec, its raw data and its policy. Its file."""
    write_toy(folder / "raw", kinds)
    (folder / "policy.yaml").write_text(POLICY % below)
    path = folder / "corpus.yaml"
    path.write_text(text)
    return path


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def refused(*words: str) -> str:
    """The message of a command that is wrong usage."""
    done = invoke(*words)
    assert isinstance(done.exception, ConfigError), done.output
    assert done.exception.exit_code == 2
    return str(done.exception)


def build(spec: Path, *words: str) -> dict[str, Any]:
    """The result of a build that ends well."""
    done = invoke("build", str(spec), "--workers", "0", "--json", *words)
    assert done.exit_code == 0, done.output
    result: dict[str, Any] = json.loads(done.stdout)["result"]
    return result


def plan(spec: Path, *words: str) -> dict[str, dict[str, Any]]:
    """Target -> its line of the plan."""
    done = invoke("plan", str(spec), "--json", *words)
    assert done.exit_code == 0, done.output
    return {each["target"]: each for each in json.loads(done.stdout)["result"]["targets"]}


def state(spec: Path) -> dict[str, str]:
    return {target: line["state"] for target, line in plan(spec).items()}


def newest(spec: Path, name: str = "train") -> str:
    page = json.loads((spec.parent / f"corpus/manifests/{name}/newest.json").read_text())
    return str(page["version"])


def inodes(folder: Path) -> dict[str, tuple[int, int]]:
    """Path -> (inode, modification time) of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }
