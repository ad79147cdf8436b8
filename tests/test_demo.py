"""README and docs/getting-started.md show what the demo gives: their commands run here in order, and what they print is compared."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ingest.catalog.catalog import Catalog
from jobs.cli import app
from jobs.demo.command import (
    BEATEN,
    MANIFEST,
    QUERY,
    TIERS,
    raw_of,
    steps,
    training_steps,
)
from jobs.demo.raw import SOURCES
from jobs.ui.output import PIPE_WIDTH, stdout
from tests.faults.runs import run

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGE = ROOT / "docs/getting-started.md"
CALLED_BY_NAME = {"write", "write_many"}  # of a module that `raw_of` imports
# Commands that take minutes: the demo itself, the doctor of the reader's own data, a training. The demo has the same commands.
NOT_RUN = ("doctor", "train", "eval")
# What another run or machine prints otherwise: digests, numbers of snapshots, times, sizes; and the width of columns.
VARIES = (
    (r"\b[0-9a-f]{16,64}\b", "DIGEST"),
    (r"\bsnapshot \d+", "snapshot N"),
    (r"\b\d+(\.\d+)? (s|min)\b", "TIME"),
    (r"\b\d+(\.\d+)? [kMG]B\b", "SIZE"),
    (r"[━┃│╇┼─]+", " "),
    (r"\s+", " "),
)


def shown_rows() -> list[list[str]]:
    """The rows of the tables on README's first screen."""
    block = re.search(r"<!-- demo output.*?-->\n```\n(.*?)```", README.read_text(), re.DOTALL)
    assert block is not None
    rows = [[cell.strip() for cell in re.split("[┃│]", line)] for line in block[1].splitlines()]
    return [row for row in rows if row[0] in SOURCES]


def shown_commands() -> list[tuple[list[str], list[str]]]:
    """Every command of getting started, in order, with the lines of output that the page shows before its next command."""
    shown: list[tuple[list[str], list[str]]] = []
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.M):
        if kind == "console":
            shown += [(shlex.split(line.removeprefix("$ ")), []) for line in block.splitlines()]
        else:
            shown[-1][1].extend(block.splitlines())
    return [(words[1:], lines) for words, lines in shown if words[0] == "eicorpus"]


def normalised(line: str) -> str:
    for pattern, word in VARIES:
        line = re.sub(pattern, word, line)
    return line.strip()


def missing(shown: list[str], printed: str) -> list[str]:
    """The shown lines that are not printed, in this order."""
    lines = iter([normalised(line) for line in printed.splitlines()])
    return [line for line in map(normalised, shown) if line and line not in lines]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The corpus of the demo, and what each command of getting started printed. `droid` is ingested by its command."""
    printed: dict[str, str] = {}
    commands = [words for words, _ in shown_commands() if words[0] not in NOT_RUN]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("demo"))
        patch.setattr(stdout, "width", PIPE_WIDTH)  # whatever terminal the tests run in
        corpus = Path("demo/corpus")
        first, *rest = commands
        for name in SOURCES:
            written = raw_of(name, Path("demo/raw") / name)
            if name == first[1]:
                printed[shlex.join(first)] = printed_by(first)
            else:
                run(written.root, corpus.resolve(), source=name, run_id=name)
        for words in rest:
            printed[shlex.join(words)] = printed_by(with_episode(words, corpus, first[1]))
        return corpus.resolve(), printed


def printed_by(words: list[str]) -> str:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (words, done.output)
    return done.output


def with_episode(words: list[str], corpus: Path, source: str) -> list[str]:
    """The page's EPISODE is one of the source that it shows."""
    if "EPISODE" not in words:
        return words
    sql = f"select uid from episodes where source = '{source}' order by episode_id limit 1"
    return [answer(corpus, sql)[0][0] if word == "EPISODE" else word for word in words]


def answer(corpus: Path, sql: str) -> list[list[str]]:
    with Catalog.open(corpus) as catalog:
        return [[str(cell) for cell in row] for row in catalog.sql(sql).rows()]


@pytest.mark.slow
def test_the_readme_shows_what_the_demo_gives(demo: tuple[Path, dict[str, str]]) -> None:
    corpus, _ = demo
    episodes = answer(corpus, QUERY)
    assert len(episodes) == len(SOURCES)
    assert shown_rows() == episodes + answer(corpus, TIERS)


@pytest.mark.slow
def test_getting_started_shows_what_its_commands_print(demo: tuple[Path, dict[str, str]]) -> None:
    _, printed = demo
    shown = {shlex.join(words): lines for words, lines in shown_commands()}
    assert sum(map(bool, shown.values())) >= 3
    differs = {
        words: lines for words in printed if (lines := missing(shown[words], printed[words]))
    }
    assert differs == {}


@pytest.mark.slow
def test_the_demo_s_policy_is_better_than_every_baseline(
    demo: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    """On held-out episodes, with intervals that leave out 0. The page's manifest `second` has the rows of the demo's `first`."""
    corpus, _ = demo
    training, evaluating = training_steps(corpus, tmp_path / "run", tmp_path / "eval.html")
    first, second = (str(corpus / "manifests" / name) for name in (MANIFEST, "second"))
    for words in training.commands:
        printed_by([second if word == first else word for word in words])
    for words in evaluating.commands:
        comparisons = json.loads(printed_by([*words, "--json"]))["result"]["comparisons"]
    assert {name: comparisons[name]["answer"] for name in BEATEN} == dict.fromkeys(BEATEN, "better")


def test_the_commands_that_are_not_run_here_are_the_demo_s() -> None:
    known = [list(words) for step in steps(Path("demo")) for words in step.commands]
    left = [words for words, _ in shown_commands() if words[0] in NOT_RUN]
    assert [words for words in left if words not in known] == []
    assert [lines for words, lines in shown_commands() if words[0] in NOT_RUN and lines] == []


def test_a_shown_line_that_is_not_printed_is_missing() -> None:
    printed = "plan droid: 2 of 2 episodes, 126 MB\ncommitted │ 2 │\nsnapshot 20, 3.5 s\n"
    assert missing(["plan droid: 2 of 2 episodes, 98 MB", "snapshot 7, 12 s"], printed) == []
    assert missing(["committed   │ 3 │"], printed) == ["committed 3"]
    assert missing(["snapshot 7, 12 s", "committed │ 2 │"], printed) == ["committed 2"]


def test_the_raw_data_of_the_demo_have_no_helper_that_only_tests_use() -> None:
    """Those belong to tests/generators, which no wheel has."""
    modules = [ast.parse(path.read_text()) for path in (ROOT / "jobs/demo/raw").glob("*.py")]
    kinds = (ast.FunctionDef, ast.ClassDef)
    defined = {node.name for module in modules for node in module.body if isinstance(node, kinds)}
    nodes = [node for module in modules for node in ast.walk(module)]
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    assert defined - used - CALLED_BY_NAME == set()
