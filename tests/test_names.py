"""The rules about names and words (`tests/word_lint.py`), and that each of them can fail."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from docs.site.markdown import NOTE, NOTE_BELOW
from tests.word_lint import (
    DENIED_NAMES,
    KEPT_NAMES,
    MOST,
    ROOT,
    class_problems,
    measure,
    name_problems,
    names_bound,
    plain,
    problems,
    prose_problems,
    words_by_hand,
)


def test_the_repository_keeps_them() -> None:
    assert problems(ROOT) == []


@pytest.mark.parametrize(
    "code",
    [
        "found = 1",
        "found: int",
        "def found(): ...",
        "async def found(): ...",
        "class found: ...",
        "def f(found): ...",
        "f = lambda found: 1",
        "for a, found in b: ...",
        "x = [1 for found in b]",
        "with a as found: ...",
        "import a as found",
        "if found := f(): ...",
        "self.found = 1",
        "try: ...\nexcept E as found: ...",
        "match a:\n    case [1, *found]: ...",
        "match a:\n    case {'b': found}: ...",
        "match a:\n    case {**found}: ...",
    ],
)
def test_a_denied_name_is_seen_wherever_it_is_bound(code: str) -> None:
    assert len(list(name_problems("ingest/x.py", code))) == 1


def test_a_name_that_is_only_read_is_the_library_s() -> None:
    assert not list(name_problems("ingest/x.py", "a = match.found; f(found=1)"))


def test_a_private_name_is_no_way_around() -> None:
    assert len(list(name_problems("ingest/x.py", "class Found: ...\ndef _told(): ..."))) == 2


def test_what_keeps_its_name_has_it() -> None:
    for path, name in KEPT_NAMES:
        assert name in DENIED_NAMES
        assert name in {each for _, each in names_bound(ast.parse((ROOT / path).read_text()))}


def test_two_classes_of_one_name_are_seen() -> None:
    one = {"a.py": "class Plan: ...\nclass _Row: ...", "b.py": "class Plan: ...\nclass _Row: ..."}
    assert list(class_problems(one)) == [
        "b.py:1: class Plan is also in a.py; rename one",
        "b.py:2: class _Row is also in a.py; rename one",
    ]


def test_prose_is_measured_without_code_and_tables() -> None:
    text = "`told; told` Nobody\n\n```\ntold;\n```\n| told; |\nOne; two. [x](told;)"
    now = measure([plain(text)])
    assert now.denied_words == 1
    assert now.semicolons_per_1000_words == pytest.approx(1000 / 6)


def test_prose_over_a_bound_is_seen() -> None:
    worse = ["nobody " * (MOST["docs"].denied_words + 1) + "word " * 40 + "; " * 30]
    wrong = list(prose_problems("docs", worse))
    assert [text.split()[1] for text in wrong] == [
        "denied_words",
        "semicolons_per_1000_words",
        "long_sentences_per_1000_words",
    ]


def test_words_that_the_generator_writes_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("one two\n")
    (tmp_path / "docs" / "a.md").write_text(f"# a\n\n{NOTE}\n\nmany more words\n")
    (tmp_path / "docs" / "b.md").write_text(f"three\n{NOTE_BELOW}\nmany more words\n")
    part = "<!-- x.y begins -->\nmany more words\n<!-- x.y ends -->"
    (tmp_path / "docs" / "c.md").write_text(f"four\n{part}\nfive\n")
    assert words_by_hand(tmp_path) == 5


def test_too_many_words_by_hand_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.word_lint.MOST_BY_HAND", 100)
    assert [problem for problem in problems(ROOT) if "words by hand, at most 100" in problem]
