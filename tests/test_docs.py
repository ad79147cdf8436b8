"""What the documentation says is so: commands exist, files exist, codes are all explained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from adapters.registry import ADAPTERS
from jobs.cli import app
from jobs.commands import COMMANDS as LISTED
from schemas.doc_page import doc_page
from schemas.errors import Code
from tests.test_architecture import MAY_IMPORT

ROOT = Path(__file__).parent.parent
FOLDERS = ("docs", ".github")
PAGES = [ROOT / "README.md", *(p for f in FOLDERS for p in sorted((ROOT / f).rglob("*.md")))]


def commands_of(group: Any, *names: str) -> dict[tuple[str, ...], Any]:
    """Every command by its words; one with sub-commands also by its own name."""
    found: dict[tuple[str, ...], Any] = {names: group} if names else {}
    for name, command in getattr(group, "commands", {}).items():
        found |= commands_of(command, *names, name)
    return found


GROUP = get_command(app)
COMMANDS = commands_of(GROUP)


def shell_lines(page: Path) -> list[str]:
    """Every `$ ...` line of the page's blocks, and every line or code span that starts with `eicorpus`."""
    text = page.read_text()
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    shown = [line.removeprefix("$ ") for line in lines if line.startswith(("$ ", "eicorpus "))]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return shown + re.findall(r"`(eicorpus [^`|]*)", prose)


def command_of(line: str) -> Any:
    """What the first words after `eicorpus` name; its own options are the group's."""
    words = tuple(re.findall(r"[^\s]+", line)[1:3])
    if words and words[0].startswith("-"):
        return GROUP
    return COMMANDS.get(words) or COMMANDS.get(words[:1])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_of_a_page_exists_with_its_options(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in shell_lines(page):
        words = line.split()
        if words[0] == "make":
            assert words[1] in targets, line
        if words[0] != "eicorpus":
            continue
        command = command_of(line)
        assert command is not None, line
        known = {"--help"} | {
            name for each in command.params for name in (*each.opts, *each.secondary_opts)
        }
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", line.partition(" # ")[0])) <= known, line


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_page_that_a_message_names_exists() -> None:
    files = (path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))
    calls = [re.findall(r"doc_page\(([\"'])(.+?)\1\)", path.read_text()) for path in files]
    names = {name for each in calls for _, name in each}
    assert len(names) >= 3
    assert [name for name in sorted(names) if not Path(doc_page(name)).is_file()] == []


def test_every_file_the_readme_names_exists() -> None:
    text = (ROOT / "README.md").read_text()
    docs = re.search(r"^docs/ +(.*)$", text, re.MULTILINE)
    assert docs is not None
    for name in docs[1].split(", "):
        assert (ROOT / "docs" / name.strip()).is_file(), name
    for folder in re.findall(r"^([a-z]+)/ ", text, re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder


def test_every_test_that_a_page_names_exists() -> None:
    named = {
        (path, name)
        for page in PAGES
        for path, name in re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", page.read_text())
    }
    assert len(named) > 15
    gone = [f"{p}::{n}" for p, n in sorted(named) if f"def {n}(" not in (ROOT / p).read_text()]
    assert gone == []


def test_every_command_has_help_and_is_in_the_documentation() -> None:
    everything = "".join(page.read_text() for page in PAGES)
    for words, command in COMMANDS.items():
        assert command.help, words
        first, *rest = words
        assert re.search(rf"eicorpus {first}[^\n]*\b{' '.join(rest)}\b", everything), words


@pytest.mark.parametrize("name", LISTED)
def test_the_list_of_commands_says_what_each_command_s_own_help_says(name: str) -> None:
    """jobs/commands.py repeats the first paragraph of each command, so that `eicorpus --help` imports none of them."""
    assert LISTED[name].help == " ".join(COMMANDS[(name,)].help.split())


def test_every_quarantine_code_is_explained() -> None:
    rows = re.findall(
        r"^\| `([a-z_]+)` \|", (ROOT / "docs/quarantine.md").read_text(), re.MULTILINE
    )
    assert sorted(rows) == sorted(code.value for code in Code)


def test_every_source_has_a_page_and_a_row() -> None:
    table = (ROOT / "docs/sources.md").read_text()
    for name in ADAPTERS:
        assert f"[`{name}`](sources/{name}.md)" in table
        assert (ROOT / "docs/sources" / f"{name}.md").is_file()
