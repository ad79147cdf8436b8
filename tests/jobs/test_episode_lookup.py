"""`explain` and `forget` take what a person has at hand, and what they tell to run next can be pasted."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ingest.catalog.catalog import Catalog
from ingest.catalog.episode_lookup import find_uids
from ingest.catalog.next_command import GROUPS, next_command
from ingest.corpus import snapshot
from jobs.cli import app
from schemas.errors import Code, ConfigError
from schemas.remedies import EXPLANATIONS
from tests.curation.tier_corpus import Given, write_corpus
from tests.generators.corpus import episode, uid_of, write_catalog
from tests.jobs.test_empty_corpus import of_corpus


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of one id in two sources, and uids that share their first eight digits."""
    alike = {"uid": f"{uid_of(0)[:8]}-0000-5000-8000-000000000000", "episode_id": "task/one"}
    rows = [{}, {"episode_id": "task/one", "source": "a"}, {**alike, "source": "b"}]
    return write_corpus(tmp_path_factory.mktemp("a b") / "c", [Given(row=row) for row in rows])


def found(root: Path, *names: str) -> list[str]:
    return find_uids(root, snapshot.load(root), list(names))


def test_an_episode_by_uid_by_its_beginning_and_by_name(root: Path) -> None:
    name = f"{episode(0)['source']}/{episode(0)['episode_id']}"
    whole = uid_of(0)
    assert found(root, whole, whole[:10], whole[:10].upper(), name, "a/task/one") == [
        *(whole, whole, whole, whole, uid_of(1)),
    ]


def test_several_that_fit_are_listed_and_none_is_chosen(root: Path) -> None:
    with pytest.raises(ConfigError, match="matches 2 episodes; use one of") as caught:
        found(root, uid_of(0)[:8])
    assert uid_of(0) in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        found(root, "task/one")
    assert "a/task/one" in str(caught.value)
    assert "b/task/one" in str(caught.value)


@pytest.mark.parametrize("name", ["", "zzzz", "a/task/two"])
def test_none_that_fits_comes_with_a_command_that_lists_them(root: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        found(root, name)
    command = str(caught.value).split("list some with: ")[1].splitlines()[0].split(" (")[0]
    words = shlex.split(command)
    assert words[0] == "eicorpus"
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, result.output


def test_explain_and_forget_take_the_beginning_of_a_uid(root: Path) -> None:
    shown = CliRunner().invoke(app, ["explain", str(root), uid_of(0)[:12]])
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith(uid_of(0))
    would = CliRunner().invoke(app, ["forget", str(root), "a/task/one", "--dry-run", "--json"])
    assert uid_of(1) in would.output
    several = CliRunner().invoke(app, ["forget", str(root), "task/one", "--dry-run"])
    assert "matches 2 episodes" in str(several.exception)
    assert len(snapshot.load(root).read(root, "episodes")) == 3


def test_a_command_names_the_corpus_where_its_command_line_wants_it() -> None:
    """`next_command` knows groups of commands by a list, which is compared with the command line itself."""
    assert {name.split()[0] for name in of_corpus() if " " in name} == GROUPS
    assert next_command("tier", Path("/data/c d")) == "eicorpus tier '/data/c d'"
    assert next_command("measure --only look", Path("c")) == "eicorpus measure c --only look"
    assert next_command('query "SHOW TABLES"', Path("c")) == 'eicorpus query c "SHOW TABLES"'
    assert next_command("manifest build m", Path("c")) == "eicorpus manifest build c m"


def test_explain_gives_the_remedy_of_a_quarantined_episode(tmp_path: Path) -> None:
    root = write_catalog(tmp_path / "corpus", num_quarantined=1).root
    with Catalog.open(root) as catalog:
        uid, code = catalog.sql("SELECT uid, code FROM quarantine").row(0)
    shown = CliRunner().invoke(app, ["explain", str(root), uid, "--policy", "ei30k"])
    assert shown.exit_code == 0, shown.output
    assert f"What to do: {EXPLANATIONS[Code(code)].remedy}" in " ".join(shown.output.split())
