"""What the documentation says is so: commands exist, files exist, codes are all explained."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from adapters.registry import ADAPTERS
from jobs.cli import app
from jobs.command_table import COMMANDS as LISTED
from schemas.errors import Code
from schemas.remedies import EXPLANATIONS, FAILED, doc_page, remedy_of
from tests.test_architecture import MAY_IMPORT, project_files

ROOT = Path(__file__).parent.parent
# A script beside the pages that it writes, not a package.
REFERENCE = runpy.run_path(str(ROOT / "docs/site/reference.py"))
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


# Options of other programs.
FOREIGN = {"--help", "--no-deps", "--num-cpus", "--working-dir"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_option_that_prose_names_exists(page: Path) -> None:
    """Outside of results/, whose pages name options of benchmarks."""
    known = {o for c in COMMANDS.values() for p in c.params for o in (*p.opts, *p.secondary_opts)}
    if "results" not in page.parts and page.is_relative_to(ROOT / "docs"):
        assert set(re.findall(r"`(--[a-z][a-z-]*)", page.read_text())) - known - FOREIGN == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    """To a file, and to a heading of it; a page of docs/ links only to docs/, else the site would have dead links."""
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text()):
        if "://" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        if page.is_relative_to(ROOT / "docs"):
            assert path.is_relative_to(ROOT / "docs"), target
        assert not anchor or anchor in anchors_of(path), f"{target}#{anchor}"


def anchors_of(page: Path) -> set[str]:
    """The fragment of every heading, as GitHub and mkdocs both spell it."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading.lower()) for heading in headings]
    return {re.sub(r"\s+", "-", heading.strip()) for heading in plain}


PAGE_NAME = re.compile(r"(?<![\w/])docs/(?:how-to|concepts|reference|results|adr)/[\w./-]+\.md")


def test_every_page_that_a_file_names_exists() -> None:
    """Messages, help and comments send the reader to a page by its path."""
    named = {
        (name, page)
        for name in project_files()
        if name.endswith((".py", ".yaml", ".toml", ".md", "Makefile"))
        for page in PAGE_NAME.findall((ROOT / name).read_text())
    }
    assert len(named) > 60
    assert sorted((name, page) for name, page in named if not (ROOT / page).is_file()) == []


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    site = yaml.safe_load((ROOT / "docs/site/mkdocs.yml").read_text())
    listed = [page for part in site["nav"] for page in pages_of(part)]
    assert len(listed) == len(set(listed))
    apart = site["not_in_nav"].split()
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    by_index = {str(page) for page in pages if any(page.match(pattern) for pattern in apart)}
    assert set(listed) | by_index == {str(page) for page in pages}
    for index, folder in (("adr/README.md", "adr"), ("reference/sources.md", "reference/sources")):
        links = set(re.findall(r"\]\(([^)#]+)", (ROOT / "docs" / index).read_text()))
        names = {page.name for page in pages if str(page.parent) == folder} - {"README.md"}
        assert names <= {Path(link).name for link in links}


def pages_of(part: Any) -> list[str]:
    if isinstance(part, str):
        return [part]
    return [page for inner in part.values() for each in inner for page in pages_of(each)]


def test_the_index_of_the_documentation_links_to_every_page_of_the_navigation() -> None:
    site = yaml.safe_load((ROOT / "docs/site/mkdocs.yml").read_text())
    listed = {page for part in site["nav"] for page in pages_of(part)} - {"README.md"}
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "docs/README.md").read_text())
    assert set(links) == listed


def test_every_page_that_a_message_names_exists() -> None:
    files = (path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))
    calls = [re.findall(r"doc_page\(([\"'])(.+?)\1\)", path.read_text()) for path in files]
    names = {name for each in calls for _, name in each}
    assert len(names) >= 2
    assert [name for name in sorted(names) if not Path(doc_page(name)).is_file()] == []


def test_every_file_the_readme_names_exists() -> None:
    text = (ROOT / "README.md").read_text()
    docs = re.search(r"^docs/ +(.*)$", text, re.MULTILINE)
    assert docs is not None
    for name in docs[1].split(", "):
        assert (ROOT / "docs" / name.strip()).exists(), name
    for folder in re.findall(r"^([a-z]+)/ ", text, re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder


def test_the_readme_is_short_and_counts_the_sources() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert re.findall(r"(\d+) (?:sources|adapters)", text) == [str(len(ADAPTERS))] * 2


def test_the_glossary_has_at_most_forty_words() -> None:
    _, _, glossary = (ROOT / "docs/concepts.md").read_text().partition("## Glossary")
    words = re.findall(r"^\| (?!word|-)([^|]+) \|", glossary, re.MULTILINE)
    assert 20 < len(words) <= 40
    assert len(words) == len(set(words))


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
    """jobs/command_table.py repeats the first paragraph of each command, so that `eicorpus --help` imports none of them."""
    assert LISTED[name].help == " ".join(COMMANDS[(name,)].help.split())


def test_every_quarantine_code_is_explained() -> None:
    assert set(EXPLANATIONS) == set(Code)
    assert remedy_of("internal_error") == FAILED


@pytest.mark.parametrize("name", REFERENCE["PAGES"])
def test_a_page_that_code_knows_is_as_the_code_writes_it(name: str) -> None:
    written = REFERENCE["PAGES"][name]()
    assert (ROOT / "docs" / name).read_text() == written, (
        "run `make reference` (PYTHONPATH=. python docs/site/reference.py)"
    )


def test_every_source_has_a_page() -> None:
    pages = {path.stem for path in (ROOT / "docs/reference/sources").glob("*.md")}
    assert pages == set(ADAPTERS)
